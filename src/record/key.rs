//! What a key, a store name and a record id are. Nothing illegal passes a constructor here.

use crate::error::{Error, Kind, Result};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The most characters a key may have: the platform's own limit.
pub const MAX_KEY: usize = 256;
/// The most bytes of a store's name in a directory.
pub const MAX_STORE: usize = 255;

/// A legal key: 1 to 256 of `a-zA-Z0-9!-_.'()`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Whether the byte may stand in a key.
pub const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'-' | b'_' | b'.' | b'\'' | b'(' | b')')
}

/// Why a name is no key, in words for a log line; `None` when it is one.
pub fn key_fault(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        Some("a key has at least 1 character")
    } else if name == b"." || name == b".." {
        Some("`.` and `..` are no keys")
    } else if !name.iter().copied().all(is_key_byte) {
        Some("a key holds only a-z A-Z 0-9 ! - _ . ' ( )")
    } else if name.len() > MAX_KEY {
        Some("a key has at most 256 characters")
    } else {
        None
    }
}

impl Key {
    /// The key of this name. `Kind::NameTooLong` past 256 legal characters, `Kind::Invalid` for any other fault.
    pub fn new(name: &str) -> Result<Self> {
        match key_fault(name.as_bytes()) {
            None => Ok(Self(name.into())),
            Some(why) => {
                let long = name.len() > MAX_KEY && name.bytes().all(is_key_byte);
                let kind = if long {
                    Kind::NameTooLong
                } else {
                    Kind::Invalid
                };
                Err(Error::because(
                    "use the name",
                    format!("{name:?}"),
                    kind,
                    why,
                ))
            }
        }
    }

    /// The key's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// So that sorted maps of keys can be searched from any prefix.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a store's directory: 1 to 255 bytes of UTF-8 without `/` or NUL, not beginning with a dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreName(Arc<str>);

impl StoreName {
    /// The store name, or `Kind::Invalid` or `Kind::NameTooLong` with the rule that was broken.
    pub fn new(name: &str) -> Result<Self> {
        let why = if name.is_empty() {
            "a store name has at least 1 character"
        } else if name.starts_with('.') {
            "a store name does not begin with a dot"
        } else if name.contains(['/', '\0']) {
            "a store name holds no slash and no NUL"
        } else if name.starts_with("__CRAWLEE_") || name.starts_with("__OLD_") {
            "names that begin `__CRAWLEE_` or `__OLD_` belong to the SDK's own purge"
        } else if name.len() > MAX_STORE {
            return Err(Error::because(
                "use the store name",
                name,
                Kind::NameTooLong,
                "a store name has at most 255 bytes",
            ));
        } else {
            return Ok(Self(name.into()));
        };
        Err(Error::because(
            "use the store name",
            format!("{name:?}"),
            Kind::Invalid,
            why,
        ))
    }

    /// The name's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// How a store is addressed at the backend: a directory's name, a platform id, or `memory`'s name.
pub type StoreId = StoreName;

/// A record: its store and its key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordId {
    /// The store that holds it.
    pub store: StoreId,
    /// Its key there.
    pub key: Key,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.key)
    }
}
