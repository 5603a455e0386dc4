//! What a file's name alone tells in the SDKs' layouts. Nothing is looked up on the disk.

use crate::record::file_name::js_decode;
use crate::record::types_table::content_type_of_extension;

/// The SDKs' own file in a store. It is no record.
pub(super) const STORE_FILE: &str = "__metadata__.json";

/// The key and the extension of a file that no sidecar speaks of. An unknown extension is part of the key.
pub(super) fn split(file: &str) -> (&str, Option<&str>) {
    match js_decode(file) {
        Some((key, extension))
            if extension == "None" || content_type_of_extension(extension).is_some() =>
        {
            (key, Some(extension))
        }
        _ => (file, None),
    }
}

/// The type that a file's extension says.
pub(super) fn type_of_file(file: &str) -> Option<String> {
    let extension = split(file).1?;
    content_type_of_extension(extension).map(str::to_owned)
}

/// Whether a file is one that the Python SDK is writing: `name.` + 8 random characters + an extension + `.tmp`.
pub(super) fn is_python_temporary(name: &str) -> bool {
    let random = |part: &str| {
        part.len() == 8
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let Some(rest) = name.strip_suffix(".tmp") else {
        return false;
    };
    let mut parts = rest.rsplitn(3, '.');
    let (last, before, head) = (parts.next(), parts.next(), parts.next());
    let ends_so =
        last.is_some_and(random) && before.is_some_and(|part| !part.is_empty() || head.is_some());
    let with_extension = before.is_some_and(random) && head.is_some_and(|head| !head.is_empty());
    ends_so || with_extension
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporaries_of_the_python_sdk_are_known_by_their_names() {
        for name in [
            "OUTPUT.x3k_9abc.tmp",
            "OUTPUT.__metadata__.json.04mun168.json.tmp",
            "a.b.abcdefgh.b.tmp",
            "__metadata__.json.abcdefgh.json.tmp",
        ] {
            assert!(is_python_temporary(name), "{name}");
        }
        for name in [
            "a.tmp",
            "OUTPUT.short.tmp",
            "abcdefgh.tmp",
            "a.ABCDEFGH.tmp",
            "a.abcdefgh",
        ] {
            assert!(!is_python_temporary(name), "{name}");
        }
    }

    #[test]
    fn only_a_known_extension_is_taken_off_a_name() {
        assert_eq!(split("data.v1.json"), ("data.v1", Some("json")));
        assert_eq!(split("data.v1"), ("data.v1", None));
        assert_eq!(split("photo.JPG"), ("photo", Some("JPG")));
        assert_eq!(split("x.None"), ("x", Some("None")));
        assert_eq!(split(".json"), (".json", None));
        assert_eq!(split("OUTPUT"), ("OUTPUT", None));
    }
}
