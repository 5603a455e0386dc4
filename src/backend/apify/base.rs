//! Where a server is and who we are there: its base URL, the token, and which URLs may be asked. A token is never shown.

use crate::error::{Error, Kind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::fmt;
use std::sync::Arc;

/// What stands in a part of a path or a parameter as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The public API.
pub const PUBLIC: &str = "https://api.apify.com";

/// Text as a part of a path or the value of a parameter.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The base URL of a server, checked: a token may be sent there.
#[derive(Clone, PartialEq, Eq)]
pub struct Base {
    url: Url,
    insecure: bool,
}

impl Base {
    /// The server at this URL, with or without `/v2` at its end. Plain http is for this machine only, unless `insecure`.
    pub fn parse(text: &str, insecure: bool) -> Result<Self> {
        let refused = |why: &str| {
            Error::because("use the server", shown(text), Kind::Invalid, why.to_owned())
        };
        let mut url = Url::parse(text).map_err(|why| {
            refused(&format!(
                "it is no URL: {why} (for example http://127.0.0.1:8010)"
            ))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused("a server is at an http:// or https:// URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                "it holds a user or a password (leave them out; the token comes from APIFY_TOKEN or a token file)",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused(
                "it has a query or a fragment (give the base URL alone)",
            ));
        }
        if url.scheme() == "http" && !insecure && !is_loopback(&url) {
            return Err(refused(
                "plain http would show the token and the records to the network (use https, or insecure if you mean it)",
            ));
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/v2").unwrap_or(path).to_owned();
        url.set_path(&path);
        Ok(Self { url, insecure })
    }

    /// The URL without `/v2` and without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Whether it is the platform, whose rates are known.
    pub fn is_platform(&self) -> bool {
        let host = self.url.host_str().unwrap_or("");
        host == "apify.com" || host.ends_with(".apify.com")
    }

    /// Whether it is asked over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The URL of a path that begins with `/v2`. Its parts are escaped already.
    pub(super) fn join(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}{path}", self.as_str())).map_err(|why| {
            let why = format!("it makes no URL: {why}");
            Error::because("ask for", path, Kind::Invalid, why)
        })
    }

    /// Whether the token may go to this URL.
    pub(super) fn is_home_of(&self, url: &Url) -> bool {
        self.url.origin() == url.origin()
    }

    /// Where an answer from `from` may send us: to a URL of http or https, not from TLS to none, and without TLS only to
    /// this machine. The reason when it may not.
    pub(super) fn redirect(&self, from: &Url, to: &str) -> std::result::Result<Url, String> {
        let to = from
            .join(to)
            .map_err(|why| format!("it redirects to what is no URL: {why}"))?;
        let place = place_of(&to);
        if !matches!(to.scheme(), "http" | "https") {
            return Err(format!("it redirects to {place}, which is no web address"));
        }
        if to.scheme() == "http" && from.scheme() == "https" {
            return Err(format!("it redirects from https to {place}"));
        }
        if to.scheme() == "http" && !self.insecure && !is_loopback(&to) {
            return Err(format!(
                "it redirects to {place}, in plain http to another machine"
            ));
        }
        Ok(to)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What may be shown of a URL that somebody typed: not what may be a password or a token.
fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        (None, Some((_, rest))) => rest.to_owned(),
        _ => text.to_owned(),
    }
}

/// Scheme and host. Paths and parameters of other servers may hold signatures.
pub(super) fn place_of(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or(""))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// What a user shows to the server. It is never printed, by no format.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// A token of printable ASCII without blanks; what stands around it is cut off.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::because(
                "use the token",
                "",
                Kind::Invalid,
                "a token is a word of printable ASCII",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The text itself, for a program that is started to talk to the same server.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The header that shows it.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// What tells it from other tokens, with some salt; nobody can find the token from it.
    pub fn mark(&self, salt: &[u8]) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        Sha256::new()
            .chain_update(salt)
            .chain_update(self.0.as_bytes())
            .finalize()
            .into()
    }

    /// The text without it, for what a server says back.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_base_is_https_or_this_machine_and_holds_no_secrets() {
        for (text, base) in [
            (PUBLIC, "https://api.apify.com"),
            ("https://api.apify.com/v2/", "https://api.apify.com"),
            ("http://127.0.0.1:8010/", "http://127.0.0.1:8010"),
            ("http://localhost:1/api/v2", "http://localhost:1/api"),
            ("http://[::1]:8010", "http://[::1]:8010"),
            ("https://EXAMPLE.org:443", "https://example.org"),
        ] {
            assert_eq!(Base::parse(text, false).unwrap().as_str(), base);
        }
        for text in [
            "http://10.0.0.1:8010",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "nonsense",
            "https://me:secret@example.org",
            "https://example.org?token=secret",
        ] {
            let error = Base::parse(text, false).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        assert!(Base::parse("http://10.0.0.1:8010", true).is_ok());
    }

    #[test]
    fn redirects_stay_on_the_web_and_behind_tls() {
        let base = Base::parse(PUBLIC, false).unwrap();
        let from = base.join("/v2/x").unwrap();
        let to = base.redirect(&from, "https://files.example.org/a?s=1");
        assert!(!base.is_home_of(&to.unwrap()));
        assert!(base.is_home_of(&base.redirect(&from, "/elsewhere").unwrap()));
        for to in [
            "http://files.example.org/?Signature=s",
            "file:///etc/passwd",
            "data:,x",
            "http://127.0.0.1/",
            "https://[",
        ] {
            let why = base.redirect(&from, to).unwrap_err();
            assert!(!why.contains("Signature"), "{why}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new(" apify_api_abc\n").unwrap();
        let header = token.header().unwrap();
        assert!(!format!("{token:?} {header:?}").contains("abc"));
        assert_eq!(token.hidden_in("bad apify_api_abc!"), "bad ***!");
        for wrong in ["", "  ", "a b", "a\nb", "\u{e9}"] {
            assert!(Token::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
