//! Content types: what is stored, what is guessed from a name and bytes, and when bytes contradict a type.

use crate::error::{Error, Kind, Result};
use std::fmt;
use std::sync::Arc;

/// A content type as it is stored, verbatim, valid or not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentType(Arc<str>);

impl ContentType {
    /// Takes what a store says, verbatim.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Takes what a user sets: `type/subtype[; params]`, at most 255 bytes; else `Kind::Invalid`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::because("set the content type", "", Kind::Invalid, "not UTF-8"))?;
        Ok(Self(text.into()))
    }

    /// The type's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
