//! Keys as file names, both ways, and which names a mount takes for what.
//! Nothing here looks at a disk, and no name is ever changed silently: what does not fit is said.

use super::key::{MAX_KEY, is_key_byte, key_fault};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt::Write;

/// The most bytes a file's name may have on Linux file systems.
pub const MAX_FILE_NAME: usize = 255;
/// What the Python SDK's metadata file has after the record's file name.
pub const SIDECAR: &str = ".__metadata__.json";
/// What the JavaScript SDK puts after a file's name while it writes: `.lock`.
pub const JS_ROOM: usize = 5;
/// What the Python SDK puts after a file's name while it writes the sidecar, in bytes.
pub const PYTHON_ROOM: usize = 36;
/// The longest percent-encoded key in the Python and the dual layout.
pub const MAX_PYTHON: usize = MAX_FILE_NAME - PYTHON_ROOM;

/// The characters that stand for bytes which are not UTF-8 begin here: private ones that end with Unicode.
const BYTES: u32 = 0x10_FF00;

/// How much of a too long key stays readable in its plain file name.
const LONG_HEAD: usize = 200;
/// How many hexadecimal digits of the key's SHA-256 follow it.
const LONG_DIGITS: usize = 32;

/// What a name in a store's directory can be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameKind<'a> {
    /// A legal key, and so a record.
    Key(&'a str),
    /// A name that editors use for a moment. It stays with the mount and never reaches a store.
    Scratch,
    /// The percent-encoded spelling of a name that is no key but that a local folder holds; the decoded name.
    Foreign(String),
    /// No name for anything here, and why.
    Illegal(&'static str),
}

/// What this name stands for.
pub fn classify(name: &str) -> NameKind<'_> {
    match key_fault(name.as_bytes()) {
        None => NameKind::Key(name),
        Some(_) if is_scratch(name) => NameKind::Scratch,
        Some(why) => match decode_foreign(name) {
            Some(decoded) => NameKind::Foreign(decoded),
            None => NameKind::Illegal(why),
        },
    }
}

/// Whether a name is one of those that editors use for backups, locks and autosaves and no key can have.
pub fn is_scratch(name: &str) -> bool {
    if name.contains(['/', '\0']) {
        return false;
    }
    // Each pattern holds `~`, `#` or `$`, which no key and no foreign spelling does.
    name.ends_with('~')
        || (name.len() >= 2 && name.starts_with('#') && name.ends_with('#'))
        || name.starts_with(".#")
        || (name.starts_with(".~lock.") && name.ends_with('#'))
        || name.starts_with("~$")
}

/// A file's name as text, whatever bytes it has: what is not UTF-8 is one character for each byte, out of the last ones of
/// Unicode, which nobody uses. Each name has a text of its own.
pub fn text_of(name: &[u8]) -> Cow<'_, str> {
    let stands_for_a_byte = |text: &str| text.chars().any(|c| byte_of(c).is_some());
    let stand_in = |byte: u8| char::from_u32(BYTES + u32::from(byte)).unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok(text) if text.is_ascii() || !stands_for_a_byte(text) => return Cow::Borrowed(text),
        Ok(_) | Err(_) => {}
    }
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                None => text.push(c),
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).bytes().map(stand_in)),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    Cow::Owned(text)
}

/// The bytes of a file's name that `text_of` gave.
pub fn bytes_of(name: &str) -> Cow<'_, [u8]> {
    if name.is_ascii() || name.chars().all(|c| byte_of(c).is_none()) {
        return Cow::Borrowed(name.as_bytes());
    }
    let mut bytes = Vec::new();
    for c in name.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

fn byte_of(c: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(c).checked_sub(BYTES)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

/// How a name that is no key is listed: every byte that no key may hold is `%XX`. A legal key is left as it is,
/// so the spelling is unique and can be taken back.
pub fn encode_foreign(name: &str) -> String {
    let mut out = percent(&bytes_of(name), is_key_byte);
    if out == name && key_fault(name.as_bytes()).is_some() {
        // `.`, `..` and names that are only too long: their own bytes are legal, so one of them has to give way.
        out = if name.len() > MAX_KEY {
            percent(&name.as_bytes()[..1], |_| false) + &name[1..]
        } else {
            percent(name.as_bytes(), |_| false)
        };
    }
    out
}

/// The name behind a listed spelling; `None` unless it is exactly what `encode_foreign` gives.
fn decode_foreign(spelling: &str) -> Option<String> {
    if !spelling.contains('%') {
        return None;
    }
    let name = text_of(&percent_decoded(spelling)?).into_owned();
    (key_fault(name.as_bytes()).is_some() && encode_foreign(&name) == spelling).then_some(name)
}

fn percent(bytes: &[u8], kept: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if kept(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The file name the Python SDK gives a key: everything but letters, digits and `_ . - ~` is `%XX`.
pub fn python_encode(key: &str) -> String {
    percent(key.as_bytes(), |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'~')
    })
}

/// The key behind a Python file name. Every `%` must begin a pair of hexadecimal digits, and the result must be
/// UTF-8; characters that Python would have encoded are taken as they are.
pub fn python_decode(file: &str) -> Option<String> {
    String::from_utf8(percent_decoded(file)?.into_owned()).ok()
}

fn percent_decoded(file: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = file.as_bytes();
    let sound = bytes.iter().enumerate().all(|(at, &byte)| {
        let digit = |n: usize| bytes.get(at + n).is_some_and(u8::is_ascii_hexdigit);
        byte != b'%' || (digit(1) && digit(2))
    });
    if !sound {
        return None;
    }
    Some(percent_decode_str(file).into())
}

/// The file name of a key in the plain layout: the key. One of 256 characters fits no file name: there it is its first
/// 200 characters, `%`, and 32 digits of its SHA-256. No key holds a `%`, so the two never meet.
pub fn plain_encode(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_FILE_NAME {
        return Cow::Borrowed(key);
    }
    let mut file = key.chars().take(LONG_HEAD).collect::<String>() + "%";
    for byte in &Sha256::digest(key.as_bytes())[..LONG_DIGITS / 2] {
        let _ = write!(file, "{byte:02x}");
    }
    Cow::Owned(file)
}

/// Whether a plain file name is a shortened one, whose key has to be found elsewhere and checked with `plain_encode`.
pub fn is_plain_long(file: &str) -> bool {
    let Some((head, digits)) = file.split_once('%') else {
        return false;
    };
    head.len() == LONG_HEAD
        && head.bytes().all(is_key_byte)
        && digits.len() == LONG_DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file name of a key in the JavaScript layout. `extension` comes from the record's type and has no dot.
pub fn js_encode(key: &str, extension: &str) -> String {
    format!("{key}.{extension}")
}

/// The key and the extension of a JavaScript file name; `None` when there is no dot, or nothing before it.
pub fn js_decode(file: &str) -> Option<(&str, &str)> {
    file.rsplit_once('.').filter(|(key, _)| !key.is_empty())
}

/// Whether the JavaScript layout can keep this key under this extension.
pub fn fits_js(key: &str, extension: &str) -> bool {
    key.len() + 1 + extension.len() + JS_ROOM <= MAX_FILE_NAME
}

/// Whether the Python layout can keep this key.
pub fn fits_python(key: &str) -> bool {
    python_encode(key).len() <= MAX_PYTHON
}

/// Whether the dual layout can keep this key under this extension: both SDKs have to.
pub fn fits_dual(key: &str, extension: &str) -> bool {
    fits_js(key, extension) && fits_python(key)
}

/// The record's file name in front of a sidecar's.
pub fn sidecar_stem(file: &str) -> Option<&str> {
    file.strip_suffix(SIDECAR).filter(|stem| !stem.is_empty())
}
