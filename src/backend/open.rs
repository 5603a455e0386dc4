//! From what is named as a source to the backend of it, with what stands in front of it stacked once. It reads no environment
//! and asks nobody; whoever calls it knows the token.

use super::Backend;
use super::apify::{Apify, Base, Options, PUBLIC, Token};
use super::dir::{DirBackend, Folder, FolderOptions};
use super::memory::Memory;
use super::pace::Rates;
use super::retry::{Policy, Retry};
use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

/// Schemes of sources that are named and not there yet.
const LATER: [&str; 3] = ["s3", "gs", "az"];

/// Where records live, as a person names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A local storage folder, by its path.
    Folder(PathBuf),
    /// Memory, for trying out.
    Memory,
    /// The Apify API: the public one, or the one at the base URL that the environment names.
    Apify,
    /// A server that speaks the same API, by its URL.
    Server(String),
}

impl Source {
    /// What is named so. `Kind::Unsupported` for a scheme that nothing here understands; a path with a colon is written
    /// with `./` before it. Only a folder may have a name that is no text.
    pub fn parse(named: impl AsRef<OsStr>) -> Result<Self> {
        let named = named.as_ref();
        let text = named.to_string_lossy();
        match Self::parse_text(&text)? {
            Self::Folder(_) => Ok(Self::Folder(named.into())),
            _ if named.to_str().is_none() => Err(Error::because(
                "use the source",
                without_secrets(&text),
                Kind::Invalid,
                "it is no text (write ./ before a path with a colon)",
            )),
            other @ (Self::Memory | Self::Apify | Self::Server(_)) => Ok(other),
        }
    }

    fn parse_text(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Ok(Self::Folder(text.into()));
        };
        let lower = scheme.to_ascii_lowercase();
        let is_url = rest.starts_with("//");
        let refused = |kind, why: &str| {
            Err(Error::because(
                "use the source",
                without_secrets(text),
                kind,
                why,
            ))
        };
        match lower.as_str() {
            "apify" | "memory" if rest.is_empty() => Ok(match lower.as_str() {
                "apify" => Self::Apify,
                _ => Self::Memory,
            }),
            "apify" | "memory" => refused(
                Kind::Invalid,
                "nothing stands behind the colon (APIFY_API_BASE_URL names another server; write ./ before a path with a colon)",
            ),
            "http" | "https" if is_url => Ok(Self::Server(text.to_owned())),
            scheme if LATER.contains(&scheme) => refused(
                Kind::Unsupported,
                "this kind of storage is not supported yet (use a folder, apify:, http://, https:// or memory:; write ./ before a path \
                 with a colon)",
            ),
            scheme if is_url && is_word(scheme) => refused(
                Kind::Unsupported,
                "sources are folders, apify:, http://, https:// and memory: (write ./ before a path with a colon)",
            ),
            _ => Ok(Self::Folder(text.into())),
        }
    }

    /// Whether it is asked over a network.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Apify | Self::Server(_))
    }
}

fn is_word(scheme: &str) -> bool {
    !scheme.is_empty()
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+')
}

/// What may be shown of a source in an error.
pub fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => text.to_owned(),
    }
}

/// What a source needs beside its name.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who we are, for a remote source.
    pub token: Option<Token>,
    /// The base URL for `apify:`; the public API without one.
    pub api_base: Option<String>,
    /// Plain http to other machines is allowed.
    pub insecure: bool,
    /// Records are sent compressed where that is worth it.
    pub compress: bool,
    /// Nothing will be written.
    pub read_only: bool,
    /// How a folder is used.
    pub folder: FolderOptions,
}

/// An opened source.
pub struct Opened {
    /// Its backend, with what stands in front of it.
    pub backend: Arc<dyn Backend>,
    /// The same as what it is.
    pub place: Place,
}

/// What a backend is, beyond the waist.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder.
    Folder(DirBackend),
    /// Memory.
    Memory,
    /// A server, with tries.
    Server(Arc<Retry<Apify>>),
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Opened").field(&self.place).finish()
    }
}

/// Opens a source. A server is not asked anything yet.
pub fn open(source: &Source, access: Access) -> Result<Opened> {
    let url = match source {
        Source::Folder(path) => {
            let folder = DirBackend::new(Folder::open(path, access.folder)?);
            return Ok(Opened {
                backend: Arc::new(folder.clone()),
                place: Place::Folder(folder),
            });
        }
        Source::Memory => {
            return Ok(Opened {
                backend: Arc::new(Memory::new()),
                place: Place::Memory,
            });
        }
        Source::Apify => {
            let url = access.api_base.as_deref().unwrap_or(PUBLIC);
            if access.token.is_none() {
                return Err(Error::because(
                    "use the source",
                    "apify:",
                    Kind::Denied,
                    "there is no token (set APIFY_TOKEN, log in with `apify login`, or name a file: -o token-file=FILE, for serve \
                     --token-file FILE)",
                ));
            }
            url
        }
        Source::Server(url) => url.as_str(),
    };
    let base = Base::parse(url, access.insecure)?;
    // A server of one's own says itself when it has enough.
    let limited = base.is_platform() || *source == Source::Apify;
    let mut options = Options::new(base, access.token);
    options.rates = limited.then(Rates::default);
    options.compress = access.compress;
    options.read_only = access.read_only;
    let server = Arc::new(Retry::new(Apify::new(options)?, Policy::default()));
    Ok(Opened {
        backend: server.clone(),
        place: Place::Server(server),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_is_a_path_unless_it_names_something_else() {
        for (text, source) in [
            ("storage", Source::Folder("storage".into())),
            ("./apify:", Source::Folder("./apify:".into())),
            ("./s3:x", Source::Folder("./s3:x".into())),
            ("a:b", Source::Folder("a:b".into())),
            ("apify:", Source::Apify),
            ("memory:", Source::Memory),
            ("http://h:1/x", Source::Server("http://h:1/x".into())),
            ("HTTPS://h", Source::Server("HTTPS://h".into())),
        ] {
            assert_eq!(Source::parse(text).unwrap(), source, "{text}");
        }
        for (text, kind) in [
            ("s3://b/p", Kind::Unsupported),
            ("s3:bucket", Kind::Unsupported),
            ("s3:", Kind::Unsupported),
            ("gs:b", Kind::Unsupported),
            ("AZ:b", Kind::Unsupported),
            ("ftp://u:secret@h/", Kind::Unsupported),
            ("apify:store", Kind::Invalid),
        ] {
            let error = Source::parse(text).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_refused_unless_it_is_meant() {
        let source = Source::parse("http://10.1.2.3:8010").unwrap();
        let error = open(&source, Access::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("insecure"), "{error}");
        let access = Access {
            insecure: true,
            ..Access::default()
        };
        assert!(open(&source, access).is_ok());
    }

    #[test]
    fn the_public_api_is_not_asked_without_a_token() {
        let error = open(&Source::Apify, Access::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("APIFY_TOKEN"), "{error}");
    }
}
