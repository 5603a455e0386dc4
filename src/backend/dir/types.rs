//! The content type of a record's file: from the name, else from the bytes. Nothing is stored here.

use crate::error::{Error, Result};
use crate::record::ContentType;
use std::fs::File;

/// The type that the extension of a key says.
pub(super) fn of_name(key: &str) -> Option<ContentType> {
    let _ = key;
    None
}

/// The type that the name says, else the bytes.
pub(super) fn guess(key: &str, file: &File) -> Result<ContentType> {
    let _ = file;
    Ok(of_name(key).unwrap_or_else(|| ContentType::stored("application/octet-stream")))
}

/// Whether the bytes cannot be of this type.
pub(super) fn contradicts(content_type: &ContentType, file: &File) -> Result<bool> {
    let _ = (content_type, file);
    Err(Error::new("x", "", crate::error::Kind::Unsupported))
}
