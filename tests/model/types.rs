//! Which type a record has, said once more in the words of the promise: set, kept, named, or seen in the bytes.

use storefs::record::ContentType;
use storefs::record::file_name::{NameKind, classify};

/// Whether the key is a scratch name.
pub fn is_scratch(key: &str) -> bool {
    classify(key) == NameKind::Scratch
}

/// The type that a key's extension says.
pub fn named(key: &str) -> Option<String> {
    ContentType::guess_from_name(key).map(|found| found.as_str().to_owned())
}

/// The type of a record of which nothing is stored.
pub fn guess(key: &str, bytes: &[u8]) -> String {
    let found = ContentType::guess(key, bytes).unwrap();
    found.as_str().to_owned()
}

/// Whether bytes speak against a type.
pub fn contradicts(content_type: &str, bytes: &[u8]) -> bool {
    ContentType::stored(content_type)
        .contradicts(bytes)
        .unwrap()
}

/// The type of a new version that replaces a record of the type `existing`.
pub fn decide(existing: Option<&str>, key: &str, bytes: &[u8]) -> String {
    match existing {
        Some(existing) if !contradicts(existing, bytes) => existing.to_owned(),
        _ => guess(key, bytes),
    }
}
