//! Sidecars: the small JSON files in which the SDKs, and we, keep a record's key and content type. What is in them may
//! have been written by anybody, so nothing of it is used as a path before it was checked.

use super::disk;
use crate::record::file_name::{SIDECAR, python_encode};
use serde_json::Value;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// A longer sidecar is not read: the SDKs write a few hundred bytes.
const MOST: u64 = 64 * 1024;
/// The type that Python's `set_value(key, None)` leaves: there is no record.
pub(super) const NONE: &str = "application/x-none";

/// Who wrote a sidecar, as far as its fields tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// The Python SDK: `content_type`.
    Python,
    /// The JavaScript SDK: `contentType`, often encoded twice.
    Js,
    /// We, for both SDKs.
    Ours,
}

/// What a sidecar says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sidecar {
    pub(super) key: String,
    pub(super) content_type: String,
    pub(super) extension: Option<String>,
    /// The length it tells; never believed, only mended.
    pub(super) size: Option<u64>,
    pub(super) form: Form,
}

/// Reads the sidecar `stem` + `.__metadata__.json`. None when it is broken, or speaks of a key that its name does not.
pub(super) fn read(dir: BorrowedFd<'_>, stem: &str) -> Option<Sidecar> {
    let file = disk::open_file(dir, &format!("{stem}{SIDECAR}"), false).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MOST {
        return None;
    }
    parse(stem, &bytes)
}

/// What these bytes say as the sidecar of `stem`.
pub(super) fn parse(stem: &str, bytes: &[u8]) -> Option<Sidecar> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let mut twice = false;
    if let Value::String(inner) = &value {
        value = serde_json::from_str(inner).ok()?;
        twice = true;
    }
    let fields = value.as_object()?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let key = text("key")?;
    let (js, python) = (text("contentType"), text("content_type"));
    let content_type = js.or(python)?;
    let fits = stem == key
        || stem == python_encode(key)
        || stem
            .strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('.'));
    if key.is_empty() || !fits || content_type.contains('\0') {
        return None;
    }
    let extension = text("extension")
        .filter(|extension| !extension.is_empty() && !extension.contains(['/', '\0']));
    Some(Sidecar {
        key: key.to_owned(),
        content_type: content_type.to_owned(),
        extension: extension.map(str::to_owned),
        size: fields.get("size").and_then(Value::as_u64),
        form: match (js, python) {
            (Some(_), Some(_)) if !twice => Form::Ours,
            (None, Some(_)) => Form::Python,
            _ => Form::Js,
        },
    })
}

/// The bytes of the Python SDK's own sidecar: three fields in its order, two spaces, no final newline.
pub(super) fn python(key: &str, content_type: &str, size: u64) -> String {
    format!(
        "{{\n  \"key\": {},\n  \"content_type\": {},\n  \"size\": {size}\n}}",
        quoted(key),
        quoted(content_type)
    )
}

/// The bytes of a sidecar that both SDKs read.
pub(super) fn ours(key: &str, content_type: &str, size: u64, extension: &str) -> String {
    let (key, content_type) = (quoted(key), quoted(content_type));
    format!(
        "{{\n  \"key\": {key},\n  \"content_type\": {content_type},\n  \"size\": {size},\n  \"contentType\": {content_type},\n  \"extension\": {}\n}}",
        quoted(extension)
    )
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_is_what_we_read() {
        let found = parse("a", ours("a", "text/x; y=\"z\"", 7, "bin").as_bytes());
        assert_eq!(
            found,
            Some(Sidecar {
                key: "a".into(),
                content_type: "text/x; y=\"z\"".into(),
                extension: Some("bin".into()),
                size: Some(7),
                form: Form::Ours,
            })
        );
        let found = parse("a%21", python("a!", "text/x", 7).as_bytes()).map(|read| read.form);
        assert_eq!(found, Some(Form::Python));
    }

    #[test]
    fn a_sidecar_that_was_encoded_twice_is_the_javascript_sdks() {
        let twice =
            r#""{\"extension\":\"json\",\"key\":\"A\",\"contentType\":\"application/json\"}""#;
        let found = parse("A", twice.as_bytes());
        assert_eq!(
            found.map(|read| (read.form, read.extension)),
            Some((Form::Js, Some("json".into())))
        );
    }

    #[test]
    fn broken_and_hostile_sidecars_say_nothing() {
        let deep = "[".repeat(5000);
        let cases = [
            "",
            "{",
            "null",
            "[]",
            "7",
            "\"text\"",
            "{}",
            &deep,
            r#"{"key": 1, "content_type": "a/b"}"#,
            r#"{"key": "a"}"#,
            r#"{"key": "a", "content_type": 7}"#,
            r#"{"key": "", "content_type": "a/b"}"#,
            r#"{"key": "../x", "content_type": "a/b"}"#,
            r#"{"key": "other", "content_type": "a/b"}"#,
            r#"{"key": "a", "content_type": "a/b\u0000"}"#,
        ];
        for case in cases {
            assert_eq!(parse("a", case.as_bytes()), None, "{case}");
        }
        let path = r#"{"key": "a", "content_type": "a/b", "extension": "/../../x"}"#;
        assert_eq!(
            parse("a", path.as_bytes()).and_then(|read| read.extension),
            None
        );
    }
}
