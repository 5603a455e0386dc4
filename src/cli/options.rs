//! Reads the `-o` options of a mount. It never looks at the environment or the disk.

use super::args::duration;
use super::option_list;
use super::remote_options::RemoteOptions;
use crate::backend::dir::Layout;
use crate::error::{Error, Kind, Result};
use crate::record::{Key, StoreName};
use std::time::Duration;

/// What `-o` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// `ro`.
    pub read_only: bool,
    /// `allow_other`.
    pub allow_other: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
    /// `umask=`, at most 0o777.
    pub umask: Option<u32>,
    /// `nonempty`.
    pub nonempty: bool,
    /// `default=`: the store that `default` leads to.
    pub default_store: Option<StoreName>,
    /// `store=`, in the order given; empty means all.
    pub stores: Vec<StoreName>,
    /// `input-key=`.
    pub input_key: Option<Key>,
    /// `ttl=`; `None` is automatic.
    pub ttl: Option<Duration>,
    /// `layout=`; `None` is automatic.
    pub layout: Option<Layout>,
    /// `drain=`: how long TERM waits for a mount in use.
    pub drain: Duration,
    /// Hand open files to the kernel where that is possible. `no_passthrough` turns it off; for tests.
    pub passthrough: bool,
    /// Save wake-ups of processors while requests come quickly. `no_spin` turns it off.
    pub spin: bool,
    /// Accepted options that have no effect although they ask for something.
    pub without_effect: Vec<String>,
    /// What concerns sources that are not local folders.
    pub remote: RemoteOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            no_exec: false,
            uid: None,
            gid: None,
            umask: None,
            nonempty: false,
            default_store: None,
            stores: Vec::new(),
            input_key: None,
            ttl: None,
            layout: None,
            drain: Duration::from_secs(30),
            passthrough: true,
            spin: true,
            without_effect: Vec::new(),
            remote: RemoteOptions::default(),
        }
    }
}

/// What fstab and mount(8) pass on, and what is so anyway.
const IGNORED: [&str; 33] = [
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "defaults",
    "nodev",
    "nosuid",
    "async",
    "nosync",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "loud",
    "silent",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "default_permissions",
    "nolocal",
    "fuse",
];

/// Ignored as well, but worth a warning: who asks for it expects something.
const WITHOUT_EFFECT: [&str; 6] = ["sync", "dirsync", "suid", "dev", "remount", "bind"];

const OP: &str = "read the mount option";

/// Reads all `-o` texts, each with options separated by commas; of two that say the same, the last holds.
///
/// `sloppy` accepts unknown options. `Kind::Invalid` names the option and what is allowed.
pub(super) fn parse<S: AsRef<str>>(texts: &[S], sloppy: bool) -> Result<Options> {
    let mut options = Options::default();
    for option in texts.iter().flat_map(|text| text.as_ref().split(',')) {
        if option.is_empty() {
            continue;
        }
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if !options.take(option, name, value)? && !sloppy {
            return Err(invalid(
                option,
                format!(
                    "there is no such option (there are: {})",
                    option_list::line()
                ),
            ));
        }
    }
    Ok(options)
}

impl Options {
    /// Takes one option in; false when it is unknown.
    fn take(&mut self, option: &str, name: &str, value: Option<&str>) -> Result<bool> {
        match option_list::named(name) {
            None if WITHOUT_EFFECT.contains(&name) => {
                self.without_effect.push(option.to_owned());
                return Ok(true);
            }
            None => return Ok(IGNORED.contains(&name) || ignored_family(name)),
            Some(listed) if listed.value.is_some() && value.is_none() => {
                return Err(invalid(option, format!("it needs a value: {name}=...")));
            }
            Some(listed) if listed.value.is_none() && value.is_some() => {
                return Err(invalid(option, format!("it takes no value: {name}")));
            }
            Some(_) => {}
        }
        match (name, value) {
            ("ro", None) => self.read_only = true,
            ("rw", None) => self.read_only = false,
            ("allow_other", None) => self.allow_other = true,
            ("noexec", None) => self.no_exec = true,
            ("exec", None) => self.no_exec = false,
            ("nonempty", None) => self.nonempty = true,
            ("no_passthrough", None) => self.passthrough = false,
            ("no_spin", None) => self.spin = false,
            ("uid", Some(value)) => self.uid = Some(number(option, value)?),
            ("gid", Some(value)) => self.gid = Some(number(option, value)?),
            ("umask", Some(value)) => self.umask = Some(umask(option, value)?),
            ("default", Some(value)) => self.default_store = Some(store(option, value)?),
            ("store", Some(value)) => self.stores.push(store(option, value)?),
            ("input-key", Some(value)) => {
                self.input_key =
                    Some(Key::new(value).map_err(|why| invalid(option, why.to_string()))?);
            }
            ("ttl", Some(value)) => {
                self.ttl = Some(duration(value).map_err(|why| invalid(option, why))?);
            }
            ("drain", Some(value)) => {
                self.drain = duration(value).map_err(|why| invalid(option, why))?;
            }
            ("layout", Some(value)) => self.layout = layout(option, value)?,
            _ if self.remote.take(option, name, value)? => {
                self.remote.given.get_or_insert(option.to_owned());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Options {
    /// `Kind::Invalid` names an option that means nothing for a local folder, or nothing for what is none.
    pub(super) fn fit(&self, is_folder: bool) -> Result<()> {
        match (&self.remote.given, self.layout) {
            (Some(option), _) if is_folder => Err(invalid(
                option,
                "it applies to remote sources, and this source is a local folder (leave it out)",
            )),
            (_, Some(layout)) if !is_folder => Err(invalid(
                &format!("layout={}", layout.as_str()),
                "it applies to local folders, and this source is none (leave it out)",
            )),
            _ => Ok(()),
        }
    }
}

fn ignored_family(name: &str) -> bool {
    [
        "x-",
        "X-",
        "comment",
        "uhelper",
        "helper",
        "context",
        "fscontext",
        "defcontext",
        "rootcontext",
    ]
    .iter()
    .any(|family| name.starts_with(family))
}

pub(super) fn invalid(option: &str, why: impl Into<String>) -> Error {
    Error::because(OP, format!("`{option}`"), Kind::Invalid, why)
}

fn number(option: &str, value: &str) -> Result<u32> {
    value
        .parse()
        .map_err(|_| invalid(option, "it takes a number (see `id`)"))
}

fn umask(option: &str, value: &str) -> Result<u32> {
    match u32::from_str_radix(value, 8) {
        Ok(bits) if bits <= 0o777 => Ok(bits),
        _ => Err(invalid(
            option,
            "it takes an octal number up to 777, such as 022",
        )),
    }
}

fn store(option: &str, value: &str) -> Result<StoreName> {
    StoreName::new(value).map_err(|why| invalid(option, why.to_string()))
}

fn layout(option: &str, value: &str) -> Result<Option<Layout>> {
    match value {
        "auto" => Ok(None),
        "plain" => Ok(Some(Layout::Plain)),
        "js" => Ok(Some(Layout::Js)),
        "python" => Ok(Some(Layout::Python)),
        "dual" => Ok(Some(Layout::Dual)),
        _ => Err(invalid(
            option,
            "it is one of auto, plain, js, python, dual",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn why(text: &str) -> String {
        let error = parse(&[text], false).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        error.to_string()
    }

    #[test]
    fn every_option_of_a_local_folder_is_read() {
        let text = "ro,allow_other,uid=1,gid=2,umask=027,nonempty,default=main,store=a,store=b,input-key=IN,ttl=0,\
                    layout=plain,drain=5s";
        let options = parse(&[text], false).unwrap();
        assert!(
            options.read_only && options.allow_other && options.nonempty && options.passthrough
        );
        assert_eq!(
            (options.uid, options.gid, options.umask),
            (Some(1), Some(2), Some(0o27))
        );
        assert_eq!(options.default_store.unwrap().as_str(), "main");
        assert_eq!(options.stores.len(), 2);
        assert_eq!(options.input_key.unwrap().as_str(), "IN");
        assert_eq!(options.ttl, Some(Duration::ZERO));
        assert_eq!(options.layout, Some(Layout::Plain));
        assert_eq!(options.drain, Duration::from_secs(5));
    }

    #[test]
    fn the_last_of_two_holds() {
        assert!(!parse(&["ro", "rw"], false).unwrap().read_only);
        assert_eq!(
            parse(&["layout=js,layout=auto"], false).unwrap().layout,
            None
        );
    }

    #[test]
    fn what_fstab_needs_is_accepted_and_changes_nothing() {
        let text = "defaults,noauto,user,nofail,_netdev,x-systemd.automount,x-gvfs-name=a b,comment=x,noatime,,";
        assert_eq!(parse(&[text], false).unwrap(), Options::default());
        assert_eq!(
            parse(&["dirsync"], false).unwrap().without_effect,
            ["dirsync"]
        );
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_list_unless_sloppy() {
        assert!(why("wibble").contains(&option_list::line()));
        assert_eq!(parse(&["wibble"], true).unwrap(), Options::default());
    }

    #[test]
    fn options_of_remote_sources_are_told_apart() {
        for text in ["write=through", "cache=/x", "token-file=/t", "insecure"] {
            let options = parse(&[text], false).unwrap();
            assert!(options.fit(false).is_ok(), "{text}");
            let error = options.fit(true).unwrap_err().to_string();
            assert!(
                error.contains("remote sources") && error.contains(text),
                "{error}"
            );
        }
        let local = parse(&["layout=plain"], false).unwrap();
        assert!(local.fit(true).is_ok() && local.fit(false).is_err());
    }

    #[test]
    fn wrong_values_say_what_is_allowed() {
        assert!(why("layout=xml").contains("dual"));
        assert!(why("umask=999").contains("octal"));
        assert!(why("umask=1000").contains("octal"));
        assert!(why("uid=me").contains("number"));
        assert!(why("ttl=later").contains("500ms"));
        assert!(why("store=.x").contains("dot"));
        assert!(why("input-key=a b").contains("key"));
        assert!(why("uid").contains("needs a value"));
        assert!(why("ro=1").contains("no value"));
    }
}
