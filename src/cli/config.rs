//! The environment, the working directory and the user, read once. It is the only place of the program that reads
//! them, and it never decides what a verb does.

use super::options::Options;
use crate::error::{Error, Kind, Result};
use crate::record::{Key, hex};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const DEFAULT_STORE: [&str; 3] = [
    "ACTOR_DEFAULT_KEY_VALUE_STORE_ID",
    "APIFY_DEFAULT_KEY_VALUE_STORE_ID",
    "CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID",
];
const INPUT_KEY: [&str; 3] = ["ACTOR_INPUT_KEY", "APIFY_INPUT_KEY", "CRAWLEE_INPUT_KEY"];
/// Marks the background process of a mount; its value is of no meaning.
pub(super) const BACKGROUND: &str = "STOREFS_BACKGROUND";

/// What surrounds the process.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    vars: HashMap<String, OsString>,
    /// The working directory at start.
    pub cwd: PathBuf,
    /// The effective user.
    pub uid: u32,
}

impl Surroundings {
    /// Those of this process. Fails when the working directory is gone.
    pub(super) fn of_process() -> Result<Self> {
        // Where it was removed, only what needs it fails: relative names lead nowhere.
        let cwd = std::env::current_dir().unwrap_or_default();
        let vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let uid = rustix::process::geteuid().as_raw();
        Ok(Self { vars, cwd, uid })
    }

    /// Surroundings made of these, for tests.
    #[cfg(test)]
    pub(super) fn made_of(vars: &[(&str, &str)], cwd: &Path, uid: u32) -> Self {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        Self {
            vars,
            cwd: cwd.to_owned(),
            uid,
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<&OsString> {
        self.vars.get(name).filter(|value| !value.is_empty())
    }

    fn first(&self, names: &[&str]) -> Option<String> {
        let value = names.iter().find_map(|name| self.var(name))?;
        Some(value.to_string_lossy().into_owned())
    }

    /// Whether this is the background process of a mount.
    pub(super) fn in_background(&self) -> bool {
        self.var(BACKGROUND).is_some()
    }

    /// The store that `default` leads to, when something names one.
    pub(super) fn default_store(&self, options: &Options) -> Option<String> {
        match &options.default_store {
            Some(store) => Some(store.as_str().to_owned()),
            None => self.first(&DEFAULT_STORE),
        }
    }

    /// The effective key of the input, and every key that may be one: `INPUT`, then what options and environment name.
    ///
    /// `Kind::Invalid` when a variable holds what is no key.
    pub(super) fn input_keys(&self, options: &Options) -> Result<(String, Vec<String>)> {
        let mut named: Vec<String> = options.input_key.iter().map(Key::to_string).collect();
        for name in INPUT_KEY {
            if let Some(value) = self.var(name) {
                let value = value.to_string_lossy();
                let key = Key::new(&value).map_err(|why| {
                    Error::because(
                        "take the input's key from",
                        name,
                        Kind::Invalid,
                        why.to_string(),
                    )
                })?;
                named.push(key.to_string());
            }
        }
        let effective = named.first().cloned().unwrap_or_else(|| "INPUT".to_owned());
        let mut all = vec!["INPUT".to_owned()];
        for key in named {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        Ok((effective, all))
    }

    /// The path made absolute and free of `.` and `..`, without asking the disk.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        let mut clean = PathBuf::new();
        for part in self.cwd.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    clean.pop();
                }
                Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                    clean.push(part)
                }
            }
        }
        clean
    }

    fn folder_of(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let named = self
            .var(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        named.or_else(|| Some(PathBuf::from(self.var("HOME")?).join(below_home)))
    }

    /// The first of the folders that systemd has made for a service.
    fn of_service(&self, variable: &str) -> Option<PathBuf> {
        let folders = self.var(variable)?.to_string_lossy().into_owned();
        let first = PathBuf::from(folders.split(':').next()?);
        first.is_absolute().then_some(first)
    }

    /// Where logs and unsent edits are kept: `$XDG_STATE_HOME/storefs`, for root `/var/lib/storefs`, and `$STATE_DIRECTORY` in
    /// a service of systemd.
    pub(super) fn state_dir(&self) -> PathBuf {
        if let Some(folder) = self.of_service("STATE_DIRECTORY") {
            return folder;
        }
        if self.uid == 0 {
            return PathBuf::from("/var/lib/storefs");
        }
        match self.folder_of("XDG_STATE_HOME", ".local/state") {
            Some(folder) => folder.join("storefs"),
            None => self.fallback_dir(self.uid),
        }
    }

    /// Where cached bytes are kept: `$XDG_CACHE_HOME/storefs`, for root `/var/cache/storefs`, and `$CACHE_DIRECTORY` in a service
    /// of systemd.
    pub(super) fn cache_dir(&self) -> PathBuf {
        if let Some(folder) = self.of_service("CACHE_DIRECTORY") {
            return folder;
        }
        if self.uid == 0 {
            return PathBuf::from("/var/cache/storefs");
        }
        match self.folder_of("XDG_CACHE_HOME", ".cache") {
            Some(folder) => folder.join("storefs"),
            None => self.fallback_dir(self.uid),
        }
    }

    /// Where tokens are kept: `$XDG_CONFIG_HOME/storefs`, for root `/etc/storefs`.
    pub(super) fn config_dir(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from("/etc/storefs");
        }
        match self.folder_of("XDG_CONFIG_HOME", ".config") {
            Some(folder) => folder.join("storefs"),
            None => self.fallback_dir(self.uid),
        }
    }

    /// The name of the user, made of characters that a name of `serve` may have.
    pub(super) fn user_name(&self) -> String {
        let name = self.first(&["USER", "LOGNAME"]).unwrap_or_default();
        let legal = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
        let name: String = name.chars().filter(legal).take(64).collect();
        match name.as_str() {
            "" | "me" if self.uid == 0 => "root".to_owned(),
            "" | "me" => format!("user-{}", self.uid),
            _ => name,
        }
    }

    /// The id of the run whose environment this is.
    pub(super) fn run_id(&self) -> Option<String> {
        self.first(&["ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID"])
    }

    /// The log of the mount at this absolute path.
    pub(super) fn log_file(&self, mountpoint: &Path) -> PathBuf {
        let path = mountpoint.to_string_lossy();
        let mut name: String = path.trim_matches('/').replace('/', "-");
        if name.is_empty() || name.len() > 200 {
            name = fingerprint(mountpoint);
        }
        self.state_dir().join(name + ".log")
    }

    fn fallback_dir(&self, uid: u32) -> PathBuf {
        PathBuf::from(format!("/tmp/storefs-{uid}"))
    }

    /// Where sockets are kept, and what is gone after a restart of the machine.
    pub(super) fn runtime_dir(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from("/run/storefs");
        }
        match self.var("XDG_RUNTIME_DIR") {
            Some(folder) => PathBuf::from(folder).join("storefs"),
            None => self.runtime_dir_of(self.uid),
        }
    }

    /// Where the control socket of a mount at this absolute path is made.
    pub(super) fn socket(&self, mountpoint: &Path) -> PathBuf {
        self.runtime_dir().join(fingerprint(mountpoint) + ".sock")
    }

    fn runtime_dir_of(&self, uid: u32) -> PathBuf {
        let folder = PathBuf::from(format!("/run/user/{uid}"));
        if folder.is_dir() {
            folder.join("storefs")
        } else {
            self.fallback_dir(uid)
        }
    }

    /// Where the control socket of a mount may be that `owner` made, the likeliest first.
    pub(super) fn sockets_of(&self, mountpoint: &Path, owner: u32) -> Vec<PathBuf> {
        let name = fingerprint(mountpoint) + ".sock";
        if owner == self.uid {
            return vec![self.socket(mountpoint)];
        }
        if owner == 0 {
            return vec![PathBuf::from("/run/storefs").join(name)];
        }
        vec![
            PathBuf::from(format!("/run/user/{owner}/storefs")).join(&name),
            self.fallback_dir(owner).join(name),
        ]
    }
}

/// The first 16 hex digits of the path's SHA-256.
pub(super) fn fingerprint(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    hex(&digest[..8])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::options;

    fn with(vars: &[(&str, &str)]) -> Surroundings {
        Surroundings::made_of(vars, Path::new("/w/project"), 1000)
    }

    #[test]
    fn the_actor_variable_wins_over_the_older_ones_and_the_option_over_all() {
        let here = with(&[
            ("CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID", "c"),
            ("APIFY_DEFAULT_KEY_VALUE_STORE_ID", "p"),
        ]);
        let none = Options::default();
        assert_eq!(here.default_store(&none).as_deref(), Some("p"));
        let option = options::parse(&["default=o"], false).unwrap();
        assert_eq!(here.default_store(&option).as_deref(), Some("o"));
        assert_eq!(with(&[]).default_store(&none), None);
        assert_eq!(with(&[(DEFAULT_STORE[0], "")]).default_store(&none), None);
    }

    #[test]
    fn the_input_key_is_the_first_that_is_named() {
        let none = Options::default();
        assert_eq!(
            with(&[]).input_keys(&none).unwrap(),
            ("INPUT".into(), vec!["INPUT".into()])
        );
        let here = with(&[
            ("ACTOR_INPUT_KEY", "INPUT-METAMORPH-1"),
            ("APIFY_INPUT_KEY", "OLD"),
        ]);
        let (effective, all) = here.input_keys(&none).unwrap();
        assert_eq!(effective, "INPUT-METAMORPH-1");
        assert_eq!(all, ["INPUT", "INPUT-METAMORPH-1", "OLD"]);
        let wrong = with(&[("APIFY_INPUT_KEY", "a/b")])
            .input_keys(&none)
            .unwrap_err();
        assert!(wrong.to_string().contains("APIFY_INPUT_KEY"));
    }

    #[test]
    fn paths_become_absolute_without_the_disk() {
        let here = with(&[]);
        assert_eq!(
            here.absolute(Path::new("a/./b/../c")),
            Path::new("/w/project/a/c")
        );
        assert_eq!(here.absolute(Path::new("/x/../../y")), Path::new("/y"));
    }

    #[test]
    fn state_and_sockets_lie_where_the_user_keeps_such_things() {
        let here = with(&[
            ("XDG_STATE_HOME", "/h/state"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
        ]);
        assert_eq!(
            here.log_file(Path::new("/mnt/s")),
            Path::new("/h/state/storefs/mnt-s.log")
        );
        assert!(
            here.socket(Path::new("/mnt/s"))
                .starts_with("/run/user/1000/storefs")
        );
        assert_eq!(
            with(&[("HOME", "/h")]).state_dir(),
            Path::new("/h/.local/state/storefs")
        );
        let root = Surroundings::made_of(&[("XDG_RUNTIME_DIR", "/x")], Path::new("/"), 0);
        assert!(root.socket(Path::new("/m")).starts_with("/run/storefs"));
        assert_eq!(root.state_dir(), Path::new("/var/lib/storefs"));
        let service = [("STATE_DIRECTORY", "/s/a:/s/b"), ("CACHE_DIRECTORY", "/c")];
        let service = Surroundings::made_of(&service, Path::new("/"), 0);
        assert_eq!(service.state_dir(), Path::new("/s/a"));
        assert_eq!(service.cache_dir(), Path::new("/c"));
    }
}
