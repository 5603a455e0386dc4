//! Keys, file names and content types, for every name and every body that proptest can think of.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use storefs::error::Kind;
use storefs::record::file_name::*;
use storefs::record::key::{Key, StoreName, key_fault};
use storefs::record::types_table::{content_type_of_extension, extension_of_type};

/// Any legal key, short ones and those at the limit alike.
fn key() -> impl Strategy<Value = String> {
    let short = "[a-zA-Z0-9!\\-_.'()]{1,24}";
    let long = "[a-zA-Z0-9!\\-_.'()]{200,256}";
    prop_oneof![3 => short, 1 => long].prop_filter("no key", |key| key != "." && key != "..")
}

/// Names as people and programs make them, most of them no keys.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[a-z .%#~$/é\u{0}()'!]{0,12}",
        "(%[0-9a-fA-F]{2}|[a-z.]){0,8}",
        "[a-z]{254,300}",
        "\\.{1,3}",
    ]
}

proptest! {
    #[test]
    fn a_key_is_what_the_rule_says_and_nothing_else(name in name()) {
        let legal = (1..=256).contains(&name.len())
            && name != "." && name != ".."
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "!-_.'()".contains(c));
        prop_assert_eq!(Key::new(&name).is_ok(), legal);
        prop_assert_eq!(key_fault(name.as_bytes()).is_none(), legal);
    }

    #[test]
    fn a_file_name_of_any_bytes_has_a_text_of_its_own(
        name in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            name().prop_map(String::into_bytes),
            "[a\u{10ff7f}-\u{10ffff}]{0,3}".prop_map(String::into_bytes),
        ]
    ) {
        let text = text_of(&name);
        prop_assert_eq!(&*bytes_of(&text), &name[..]);
        let spelling = encode_foreign(&text);
        if key_fault(text.as_bytes()).is_some() && !text.is_empty() && !is_scratch(&spelling) {
            prop_assert_eq!(classify(&spelling), NameKind::Foreign(text.into_owned()));
        }
    }

    #[test]
    fn every_legal_key_is_a_key_letter_for_letter(key in key()) {
        prop_assert_eq!(Key::new(&key).unwrap().to_string(), key.clone());
        prop_assert_eq!(classify(&key), NameKind::Key(&key));
        prop_assert_eq!(encode_foreign(&key), key);
    }

    #[test]
    fn a_store_name_never_leads_out_of_its_folder(name in name()) {
        if let Ok(store) = StoreName::new(&name) {
            let path = std::path::Path::new("stores").join(store.as_str());
            prop_assert_eq!(path.components().count(), 2);
            prop_assert_eq!(path.file_name().unwrap(), store.as_str());
        }
    }

    #[test]
    fn a_foreign_name_comes_back_and_is_never_a_key(name in name()) {
        prop_assume!(!name.is_empty() && key_fault(name.as_bytes()).is_some());
        let spelling = encode_foreign(&name);
        prop_assert_eq!(classify(&spelling), NameKind::Foreign(name));
    }

    #[test]
    fn a_name_has_one_meaning(name in name()) {
        match classify(&name) {
            NameKind::Key(key) => prop_assert_eq!(Key::new(key).unwrap().to_string(), name.clone()),
            NameKind::Foreign(decoded) => {
                prop_assert!(Key::new(&decoded).is_err());
                prop_assert_eq!(encode_foreign(&decoded), name);
            }
            NameKind::Scratch => prop_assert!(name.contains(['~', '#', '$'])),
            NameKind::Illegal(why) => {
                prop_assert!(!why.is_empty());
                prop_assert!(Key::new(&name).is_err());
            }
        }
    }

    #[test]
    fn a_python_file_name_leads_back_to_its_key(key in prop_oneof![key(), ".*"]) {
        let file = python_encode(&key);
        prop_assert!(file.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-~%".contains(&b)));
        prop_assert_eq!(python_decode(&file).unwrap(), key);
    }

    #[test]
    fn any_python_file_name_decodes_or_is_refused(file in name()) {
        if let Some(key) = python_decode(&file) {
            prop_assert_eq!(python_decode(&python_encode(&key)).unwrap(), key);
        } else {
            prop_assert!(file.contains('%'));
        }
    }

    #[test]
    fn a_plain_file_name_fits_and_is_its_key_alone(one in key(), other in key()) {
        let file = plain_encode(&one);
        prop_assert!(file.len() <= MAX_FILE_NAME);
        prop_assert_eq!(is_plain_long(&file), one.len() > MAX_FILE_NAME);
        if !is_plain_long(&file) {
            prop_assert_eq!(file.as_ref(), one.as_str());
        }
        prop_assert_eq!(one == other, plain_encode(&one) == plain_encode(&other));
    }

    #[test]
    fn the_longest_keys_differ_in_their_plain_names(
        head in "[a-z]{200}", one in "[a-z]{56}", other in "[a-z]{56}"
    ) {
        let (one, other) = (head.clone() + &one, head + &other);
        prop_assert_eq!(one == other, plain_encode(&one) == plain_encode(&other));
    }

    #[test]
    fn a_js_file_name_leads_back_to_its_key(key in key(), extension in "[a-z0-9_-]{1,11}") {
        let file = js_encode(&key, &extension);
        prop_assert_eq!(js_decode(&file), Some((key.as_str(), extension.as_str())));
        prop_assert_eq!(fits_js(&key, &extension), (file.clone() + ".lock").len() <= MAX_FILE_NAME);
    }

    #[test]
    fn the_table_of_types_takes_any_words(extension in ".{0,12}", content_type in ".{0,40}") {
        let lower = extension.to_ascii_lowercase();
        prop_assert_eq!(content_type_of_extension(&extension), content_type_of_extension(&lower));
        let with_parameter = format!("{content_type};q=1");
        prop_assert_eq!(extension_of_type(&content_type), extension_of_type(&with_parameter));
    }
}

#[test]
fn a_key_that_is_only_too_long_says_so() {
    let kind = |name: &str| Key::new(name).unwrap_err().kind();
    assert_eq!(kind(&"k".repeat(257)), Kind::NameTooLong);
    assert_eq!(kind(&"/".repeat(257)), Kind::Invalid);
    assert_eq!(kind(""), Kind::Invalid);
    assert!(Key::new(&"k".repeat(256)).is_ok());
}

#[test]
fn what_editors_leave_for_a_moment_is_scratch() {
    for name in [
        "notes.txt~",
        "my notes~",
        "#notes.txt#",
        ".#notes.txt",
        ".~lock.table.ods#",
        "~$table.xlsx",
    ] {
        assert_eq!(classify(name), NameKind::Scratch, "{name}");
    }
    for name in [".notes.txt.swp", ".goutputstream-A1B2C3", "4913", "a.part"] {
        assert_eq!(classify(name), NameKind::Key(name), "a record");
    }
    for name in [
        "my report.pdf",
        "#",
        "a#b",
        "a/b~",
        "%",
        "%zz",
        "é",
        "",
        ".",
        "..",
    ] {
        assert!(matches!(classify(name), NameKind::Illegal(_)), "{name}");
    }
}

#[test]
fn a_foreign_name_has_one_spelling() {
    assert_eq!(encode_foreign("a/b ž%"), "a%2Fb%20%C5%BE%25");
    assert_eq!(classify("a%20b"), NameKind::Foreign("a b".into()));
    assert_eq!(classify("%2E%2E"), NameKind::Foreign("..".into()));
    // Half a character is a name, too.
    let half = text_of(b"a\xC5");
    assert_eq!(classify("a%C5"), NameKind::Foreign(half.into()));
    // Lower-case digits, an encoded letter, half a pair: a second spelling of a name, or of none.
    for name in ["a%2fb", "%61%20b", "a%C", "%41"] {
        assert!(matches!(classify(name), NameKind::Illegal(_)), "{name}");
    }
}

#[test]
fn layouts_have_the_limits_that_the_sdks_have() {
    assert!(fits_js(&"k".repeat(245), "json") && !fits_js(&"k".repeat(246), "json"));
    assert!(fits_python(&"k".repeat(219)) && !fits_python(&"k".repeat(220)));
    assert!(fits_python(&"!".repeat(73)) && !fits_python(&"!".repeat(74)));
    assert!(fits_dual(&"k".repeat(219), "json") && !fits_dual(&"k".repeat(220), "json"));
    assert_eq!(sidecar_stem("a.b.__metadata__.json"), Some("a.b"));
    assert_eq!(sidecar_stem(".__metadata__.json"), None);
}
