//! The `-o` options of sources that are not local folders.

use super::args::{duration, size};
use super::options::invalid;
use crate::error::Result;
use std::path::PathBuf;
use std::time::Duration;

/// The options of sources that are not local folders.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RemoteOptions {
    /// `write=`: whether a close waits until the source has the record.
    pub write_through: Option<bool>,
    /// `fsync=local`: an fsync does not wait for the source.
    pub fsync_local: bool,
    /// `debounce=`.
    pub debounce: Option<Duration>,
    /// `cache=`.
    pub cache: Option<PathBuf>,
    /// `cache-size=`, in bytes.
    pub cache_size: Option<u64>,
    /// `allow-store-delete`.
    pub allow_store_delete: bool,
    /// `exact-sizes`.
    pub exact_sizes: bool,
    /// `compress`.
    pub compress: bool,
    /// `token-file=`.
    pub token_file: Option<PathBuf>,
    /// `insecure`.
    pub insecure: bool,
    /// One of them that was given, for the error when the source is a folder.
    pub given: Option<String>,
}

impl RemoteOptions {
    /// Takes one option in; false when it is none of these.
    pub(super) fn take(&mut self, option: &str, name: &str, value: Option<&str>) -> Result<bool> {
        match (name, value) {
            ("write", Some("through")) => self.write_through = Some(true),
            ("write", Some("back")) => self.write_through = Some(false),
            ("write", Some(_)) => return Err(invalid(option, "it is back or through")),
            ("fsync", Some("local")) => self.fsync_local = true,
            ("fsync", Some("remote")) => self.fsync_local = false,
            ("fsync", Some(_)) => return Err(invalid(option, "it is local or remote")),
            ("debounce", Some(value)) => {
                self.debounce = Some(duration(value).map_err(|why| invalid(option, why))?);
            }
            ("cache", Some(value)) => self.cache = Some(value.into()),
            ("cache-size", Some(value)) => {
                self.cache_size = Some(size(value).map_err(|why| invalid(option, why))?);
            }
            ("token-file", Some(value)) => self.token_file = Some(value.into()),
            ("allow-store-delete", None) => self.allow_store_delete = true,
            ("exact-sizes", None) => self.exact_sizes = true,
            ("compress", None) => self.compress = true,
            ("insecure", None) => self.insecure = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::options::parse;
    use super::*;

    fn why(text: &str) -> String {
        parse(&[text], false).unwrap_err().to_string()
    }

    #[test]
    fn every_option_of_a_remote_source_is_read() {
        let text = "write=through,fsync=local,debounce=2s,cache=/c,cache-size=1GiB,allow-store-delete,compress,exact-sizes,\
                    token-file=/t,insecure";
        let remote = parse(&[text], false).unwrap().remote;
        assert!(
            remote.write_through == Some(true) && remote.fsync_local && remote.allow_store_delete
        );
        assert!(remote.compress && remote.exact_sizes && remote.insecure);
        assert_eq!(remote.debounce, Some(Duration::from_secs(2)));
        assert_eq!(remote.cache_size, Some(1 << 30));
        assert!(why("write=later").contains("through"));
        assert!(why("cache-size=many").contains("cache-size"));
    }
}
