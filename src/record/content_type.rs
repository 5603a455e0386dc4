//! Content types: what is stored, what is guessed from a name and bytes, and when bytes contradict a type.
//! A stored type is never corrected here, only shown, compared and kept.

use super::sniff::{Look, ReadAt};
use super::types_table::guessed_type_of_extension;
use crate::error::{Error, Kind, Result};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The most bytes a content type may have that a user sets.
pub const MAX_CONTENT_TYPE: usize = 255;
/// The type of JSON, as the SDKs write it.
pub const JSON: &str = "application/json; charset=utf-8";
/// The type of text that is nothing else.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// The type of bytes that are nothing else.
pub const BINARY: &str = "application/octet-stream";

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
        let refused = |why: &str| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_CONTENT_TYPE)]);
            Error::because(
                "set the content type",
                format!("{shown:?}"),
                Kind::Invalid,
                why,
            )
        };
        if let Some(why) = fault(bytes) {
            return Err(refused(why));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refused("it is not ASCII"))?;
        Ok(Self(text.into()))
    }

    /// The type's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `type/subtype` in lower case, without parameters.
    pub fn essence(&self) -> Cow<'_, str> {
        let bare = self.0.split(';').next().unwrap_or_default().trim();
        if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(bare.to_ascii_lowercase())
        } else {
            Cow::Borrowed(bare)
        }
    }

    /// Whether it names JSON, by itself or by the suffix `+json`.
    pub fn is_json(&self) -> bool {
        let essence = self.essence();
        matches!(&*essence, "application/json" | "text/json") || essence.ends_with("+json")
    }

    /// Whether it names text: `text/*`.
    pub fn is_text(&self) -> bool {
        self.essence().starts_with("text/")
    }

    /// The charset it names, in lower case.
    pub fn charset(&self) -> Option<String> {
        let lower = self.0.to_ascii_lowercase();
        let charset = lower
            .split(';')
            .skip(1)
            .find_map(|parameter| parameter.trim().strip_prefix("charset="))?;
        Some(charset.trim_matches('"').to_owned())
    }

    /// The type that a key's extension names, with `charset=utf-8` where that is usual. The extension is what follows the
    /// last dot; a key that only begins with a dot has none.
    pub fn guess_from_name(key: &str) -> Option<Self> {
        let (stem, extension) = key.rsplit_once('.')?;
        let content_type = guessed_type_of_extension(extension).filter(|_| !stem.is_empty())?;
        Some(Self::stored(content_type))
    }

    /// The type that the bytes show: a JSON document, a format with a known beginning, text, or none of these.
    /// Nothing at all is text. Of a body above `sniff::WHOLE` only its first `sniff::PART` bytes are looked at.
    pub fn guess_from_bytes<B: ReadAt + ?Sized>(bytes: &B) -> io::Result<Self> {
        let look = Look::at(bytes)?;
        if look.is_json()? {
            return Ok(Self::stored(JSON));
        }
        let magic = look.magic();
        if let Some(binary) = magic.filter(|found| !found.starts_with("text/")) {
            return Ok(Self::stored(binary));
        }
        Ok(match (magic, look.is_utf8()?) {
            (Some(text), true) => Self(format!("{text}; charset=utf-8").into()),
            (Some(text), false) => Self::stored(text),
            (None, true) => Self::stored(TEXT),
            (None, false) => Self::stored(BINARY),
        })
    }

    /// The type of a record of which nothing else is known: by its key's extension, else by its bytes.
    pub fn guess<B: ReadAt + ?Sized>(key: &str, bytes: &B) -> io::Result<Self> {
        match Self::guess_from_name(key) {
            Some(named) => Ok(named),
            None => Self::guess_from_bytes(bytes),
        }
    }

    /// Whether the bytes cannot be of this type: no JSON under a JSON type, no UTF-8 under text that names no other
    /// charset, or the wrong beginning under an image type. Types with no such rule are contradicted by nothing, and then
    /// nothing is read. An empty body contradicts no type: it is a record that is still to be written.
    pub fn contradicts<B: ReadAt + ?Sized>(&self, bytes: &B) -> io::Result<bool> {
        let utf8 = || matches!(self.charset().as_deref(), None | Some("utf-8" | "utf8"));
        let essence = self.essence();
        if bytes.size()? == 0 {
            Ok(false)
        } else if self.is_json() {
            Ok(utf8() && !Look::at(bytes)?.is_json()?)
        } else if self.is_text() || essence == "image/svg+xml" {
            Ok(utf8() && !Look::at(bytes)?.is_utf8()?)
        } else if let Some(image) = essence.strip_prefix("image/") {
            Ok(!may_be_image(image, Look::at(bytes)?.magic()))
        } else {
            Ok(false)
        }
    }

    /// The type a record gets when it is written: the one set on this file; else the one it has while the new bytes do
    /// not contradict it; else by the key's extension, whatever the bytes are; else by the bytes.
    pub fn decide<B: ReadAt + ?Sized>(
        explicit: Option<&Self>,
        existing: Option<&Self>,
        key: &str,
        bytes: &B,
    ) -> io::Result<Self> {
        if let Some(explicit) = explicit {
            return Ok(explicit.clone());
        }
        match existing {
            Some(existing) if !existing.contradicts(bytes)? => Ok(existing.clone()),
            _ => Self::guess(key, bytes),
        }
    }
}

/// Whether bytes with this magic can be an image of this subtype. Where the beginning of a format is not known here,
/// only another family's beginning speaks against it.
fn may_be_image(subtype: &str, magic: Option<&str>) -> bool {
    let expected: &[&str] = match subtype {
        "png" | "apng" | "x-png" => &["image/png"],
        "jpeg" | "jpg" | "pjpeg" => &["image/jpeg"],
        "gif" => &["image/gif"],
        "webp" => &["image/webp"],
        "bmp" | "x-bmp" | "x-ms-bmp" => &["image/bmp"],
        "x-icon" | "vnd.microsoft.icon" => &["image/vnd.microsoft.icon"],
        "jxl" => &["image/jxl"],
        "vnd.adobe.photoshop" => &["image/vnd.adobe.photoshop"],
        // One container with several names; which of them a file bears first says little.
        "avif" | "heic" | "heif" => &["image/avif", "image/heif"],
        _ => return magic.is_none_or(|found| found.starts_with("image/")),
    };
    magic.is_some_and(|found| expected.contains(&found))
}

/// A character of a token (RFC 9110, section 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Why this is no `type/subtype[; params]` (RFC 9110, section 8.3.1), in words for the user.
fn fault(text: &[u8]) -> Option<&'static str> {
    if text.len() > MAX_CONTENT_TYPE {
        return Some("a content type has at most 255 bytes");
    }
    if !text.is_ascii() {
        return Some("a content type is ASCII only");
    }
    let shape = "write it as type/subtype, for example text/html; charset=utf-8";
    let Some(rest) = token(text)
        .and_then(|rest| rest.strip_prefix(b"/"))
        .and_then(token)
    else {
        return Some(shape);
    };
    let mut rest = rest;
    while !rest.is_empty() {
        let Some(next) = blanks(rest).strip_prefix(b";") else {
            return Some(shape);
        };
        rest = blanks(next);
        if rest.is_empty() || rest.starts_with(b";") {
            continue;
        }
        let value = token(rest).and_then(|rest| rest.strip_prefix(b"="));
        let Some(next) = value.and_then(|rest| token(rest).or_else(|| quoted(rest))) else {
            return Some("a parameter is name=value; a value with other characters goes in quotes");
        };
        rest = next;
    }
    None
}

/// What follows a token of at least one character.
fn token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().take_while(|byte| is_token(**byte)).count();
    (end > 0).then(|| &text[end..])
}

/// What follows a quoted string.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = match byte {
            b'"' => return Some(after),
            b'\\' => after.split_first().filter(|(next, _)| is_plain(**next))?.1,
            byte if is_plain(byte) => after,
            _ => return None,
        };
    }
}

/// A character that may stand between quotes.
const fn is_plain(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte < 0x7f)
}

fn blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().take_while(|byte| b" \t".contains(byte)).count();
    &text[end..]
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
