//! What is guessed of a body, what contradicts a type, and that looking in pieces sees what looking at once sees.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::de::IgnoredAny;
use std::cell::Cell;
use std::io::{self, Write};
use storefs::error::Kind;
use storefs::record::content_type::{BINARY, JSON, TEXT};
use storefs::record::sniff::{Look, PART, ReadAt, Utf8Check, WHOLE};
use storefs::record::{Body, ContentType};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";

fn stored(text: &str) -> ContentType {
    ContentType::stored(text)
}

fn guess(key: &str, bytes: &[u8]) -> String {
    let guessed = ContentType::guess(key, bytes).unwrap();
    guessed.as_str().to_owned()
}

fn contradicts(content_type: &str, bytes: &[u8]) -> bool {
    stored(content_type).contradicts(bytes).unwrap()
}

/// Bytes that count how often they were read.
struct Counted<'a>(&'a [u8], Cell<usize>);

impl ReadAt for Counted<'_> {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        self.0.fill_at(buffer, offset)
    }
}

/// Bytes that nobody can read.
struct Broken;

impl ReadAt for Broken {
    fn size(&self) -> io::Result<u64> {
        Ok(1)
    }
    fn fill_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::Error::other("the disk is gone"))
    }
}

/// A valid JSON document of some depth.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(4, 400, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|v| format!("[{}]", v.join(" , "))),
            prop::collection::vec(inner, 0..8).prop_map(|v| {
                let fields: Vec<_> = v.iter().map(|v| format!("\"kö\": {v}")).collect();
                format!("{{\n{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn utf8_in_pieces_is_utf8_at_once(
        mut bytes in prop_oneof![
            any::<String>().prop_map(String::into_bytes),
            "(é|ž|漢|🦀|a){0,40}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..64),
        ],
        cuts in prop::collection::vec(1_usize..5, 1..8),
        harm in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        if let (Some((at, byte)), false) = (harm, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut check = Utf8Check::default();
        let mut rest = &bytes[..];
        for &cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            check.feed(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let at_once = std::str::from_utf8(&bytes);
        prop_assert_eq!(check.holds(true), at_once.is_ok());
        prop_assert_eq!(check.holds(false), at_once.err().is_none_or(|e| e.error_len().is_none()));
    }

    #[test]
    fn a_look_at_long_bytes_agrees_with_the_whole_input(
        json in json(),
        pad in 0_usize..9000,
        harm in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        // Padding moves the document over the edges of what is read at a time.
        let mut bytes = [" ".repeat(pad).into_bytes(), json.into_bytes(), b"\n".to_vec()].concat();
        if let Some((at, byte)) = harm {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let text = std::str::from_utf8(&bytes).is_ok();
        let valid = text && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        let look = Look::at(&bytes[..]).unwrap();
        prop_assert_eq!(look.is_utf8().unwrap(), text);
        prop_assert_eq!(look.is_json().unwrap(), valid);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let look = Look::at(&file).unwrap();
        prop_assert_eq!((look.is_utf8().unwrap(), look.is_json().unwrap()), (text, valid));
    }

    #[test]
    fn a_well_formed_type_is_accepted_verbatim(
        text in "[a-zA-Z0-9!#$&.+^_-]{1,20}/[a-zA-Z0-9.+-]{1,20}(( |\t)?; ?[a-z]{1,8}=([a-z0-9-]{1,8}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,8}\")){0,3}"
    ) {
        let parsed = ContentType::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(parsed.as_str(), text);
    }

    #[test]
    fn whatever_is_accepted_has_a_type_and_a_subtype(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(parsed) = ContentType::parse(&bytes) {
            prop_assert!(parsed.as_str().is_ascii());
            prop_assert_eq!(parsed.essence().matches('/').count(), 1);
        }
    }

    #[test]
    fn a_guess_never_contradicts_its_own_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let guessed = ContentType::guess_from_bytes(&bytes[..]).unwrap();
        prop_assert!(!guessed.contradicts(&bytes[..]).unwrap(), "{}", guessed);
        prop_assert!(ContentType::parse(guessed.as_str().as_bytes()).is_ok());
    }
}

#[test]
fn a_type_that_is_none_is_refused_with_a_sentence() {
    let long = format!("text/{}", "x".repeat(251));
    for text in [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain;charset",
        "text/plain; charset=",
        "text /plain",
        "text/plain ",
        " text/plain",
        "text/plain\n",
        "text/plain; a=\"b",
        "text/plain; a =b",
        "a/b/c",
        "text/plain; a=b c",
        "text/ž",
        "text/plain\0",
        "text/plain; a=\"\x07\"",
        &long,
    ] {
        let error = ContentType::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{text:?}");
        assert!(
            error.to_string().contains("a content type")
                || error.to_string().contains("type/subtype")
                || error.to_string().contains("parameter"),
            "{error}"
        );
    }
    assert!(ContentType::parse(&long.as_bytes()[..255]).is_ok());
    assert_eq!(
        ContentType::parse(b"\xff/\xff").unwrap_err().kind(),
        Kind::Invalid
    );
}

#[test]
fn a_type_is_known_by_its_essence() {
    assert_eq!(stored("Text/HTML ; Charset=X").essence(), "text/html");
    assert!(stored("application/JSON;charset=utf-8").is_json());
    assert!(stored("application/ld+json").is_json());
    assert!(!stored("application/x-ndjson").is_json());
    assert!(stored("TEXT/csv").is_text());
    assert_eq!(
        stored("text/plain; CHARSET=\"ISO-8859-2\"")
            .charset()
            .as_deref(),
        Some("iso-8859-2")
    );
    assert_eq!(stored("not a type").essence(), "not a type");
}

#[test]
fn the_extension_of_a_key_says_more_than_its_bytes() {
    assert_eq!(guess("page.html", b"{}"), "text/html; charset=utf-8");
    assert_eq!(guess("photo.JPG", b""), "image/jpeg");
    assert_eq!(guess("data.v1.json", b"not json"), JSON);
    assert_eq!(guess("rows.jsonl", b"{}\n{}\n"), "application/x-ndjson");
    assert_eq!(guess("main.rs", b"fn main() {}"), TEXT);
    assert_eq!(guess("data.v1", b"{}"), JSON);
    assert_eq!(guess(".json", b"x"), TEXT);
    assert_eq!(guess("json", b"x"), TEXT);
}

// README: S53
#[test]
fn bytes_without_a_telling_name_are_json_then_magic_then_text() {
    for text in ["{}", "[1]", " 42\n", "\"ž\"", "true", "null", "-1.5e3"] {
        assert_eq!(guess("OUTPUT", text.as_bytes()), JSON, "{text}");
    }
    assert_eq!(guess("SHOT", PNG), "image/png");
    assert_eq!(guess("SHOT", JPEG), "image/jpeg");
    assert_eq!(guess("DOC", b"%PDF-1.4\n1 0 obj"), "application/pdf");
    assert_eq!(guess("ZIP", b"PK\x03\x04\x14\0\0\0"), "application/zip");
    assert_eq!(
        guess("PAGE", b"<!DOCTYPE html><p>\xc5\xbe"),
        "text/html; charset=utf-8"
    );
    for text in [
        "",
        "hello",
        "{} {}",
        "{\"a\":1}\n{\"a\":2}",
        "\u{feff}{}",
        "BMW and MZ",
        "OTTO",
        "NaN",
        "{'a':1}",
    ] {
        assert_eq!(guess("OUTPUT", text.as_bytes()), TEXT, "{text}");
    }
    assert_eq!(guess("OUTPUT", b"\xff\xfe\0\0\x01"), BINARY);
    assert_eq!(guess("OUTPUT", b"\"\xff\""), BINARY);
}

// README: S51, S52
#[test]
fn bytes_contradict_the_types_that_promise_something() {
    assert!(contradicts(JSON, b"hello"));
    assert!(!contradicts(JSON, b""));
    assert!(contradicts("application/problem+json", b"{"));
    assert!(contradicts(JSON, b"\"\xff\""));
    assert!(!contradicts("application/json", b"[1, 2]"));
    assert!(!contradicts("application/json; charset=utf-16", b"[\0]\0"));
    assert!(contradicts("text/plain", b"\xff\xfe"));
    assert!(!contradicts("text/plain; charset=iso-8859-1", b"\xff\xfe"));
    assert!(contradicts("text/html; charset=UTF-8", b"\xff"));
    assert!(!contradicts("text/html", b""));
    assert!(contradicts("image/png", JPEG));
    assert!(contradicts("image/jpeg", b"hello"));
    assert!(!contradicts("IMAGE/webp; q=1", b""));
    assert!(!contradicts("image/png", PNG));
    assert!(!contradicts("image/jpg", JPEG));
    assert!(contradicts("image/svg+xml", PNG));
    assert!(!contradicts("image/svg+xml", b"<svg/>"));
    assert!(contradicts("image/x-camera", b"PK\x03\x04\x14\0\0\0"));
    assert!(!contradicts("image/x-camera", b"\x01\x02\x03"));
    for content_type in [BINARY, "application/xml", "x", ""] {
        assert!(
            !stored(content_type).contradicts(&Broken).unwrap(),
            "nothing is read"
        );
    }
}

#[test]
fn deep_nesting_is_json() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(!contradicts(JSON, deep.as_bytes()));
    assert_eq!(guess("DEEP", deep.as_bytes()), JSON);
}

// README: S54
#[test]
fn of_a_huge_body_only_the_beginning_counts() {
    let mut text = "[\"é\",\n"
        .repeat(1 + usize::try_from(WHOLE).unwrap() / 7)
        .into_bytes();
    text.push(0xff);
    assert!(text.len() as u64 > WHOLE);
    assert!(!contradicts(JSON, &text));
    assert!(!contradicts("text/plain", &text));
    assert_eq!(guess("BIG", &text), JSON);
    let at = usize::try_from(PART).unwrap() - 1;
    text[at] = 0xff;
    assert!(contradicts(JSON, &text) && contradicts("text/plain", &text));
    assert_eq!(guess("BIG", &text), BINARY);
    // The same bytes in a body that is short enough are looked at to their end.
    assert!(contradicts("text/plain", &text[at + 1..]));
    let prose = "the words ".repeat(2 << 20);
    assert_eq!(guess("BIG", prose.as_bytes()), TEXT);
    assert!(contradicts(JSON, prose.as_bytes()));
}

#[test]
fn a_character_cut_where_looking_ends_is_no_fault() {
    let mut text = vec![b'a'; usize::try_from(PART).unwrap() - 1];
    text.extend("é".repeat(9 << 20).into_bytes());
    assert!(!contradicts("text/plain", &text));
}

#[test]
fn a_small_body_is_read_once() {
    let record = Counted(b"{\"a\":1}", Cell::new(0));
    assert!(!stored(JSON).contradicts(&record).unwrap());
    assert_eq!(record.1.get(), 1);
    let text = Counted(b"plain words", Cell::new(0));
    assert_eq!(ContentType::guess("NOTE", &text).unwrap().as_str(), TEXT);
    assert_eq!(text.1.get(), 1);
}

#[test]
fn a_disk_error_is_no_contradiction() {
    assert!(stored(JSON).contradicts(&Broken).is_err());
    assert!(ContentType::guess("K", &Broken).is_err());
}

// README: S50
#[test]
fn the_type_of_a_write_is_decided_in_one_order() {
    let decide = |explicit: Option<&str>, existing: Option<&str>, key: &str, bytes: &[u8]| {
        let (explicit, existing) = (explicit.map(stored), existing.map(stored));
        let body = Body::from(bytes);
        let decided = ContentType::decide(explicit.as_ref(), existing.as_ref(), key, &body);
        decided.unwrap().as_str().to_owned()
    };
    assert_eq!(
        decide(Some("application/x-mine"), Some(JSON), "a.png", b"{}"),
        "application/x-mine"
    );
    assert_eq!(
        decide(None, Some("text/plain"), "a.html", b"{}"),
        "text/plain"
    );
    assert_eq!(
        decide(None, Some("not a type"), "a.html", b"{}"),
        "not a type"
    );
    assert_eq!(
        decide(None, Some(JSON), "a.html", b"<p>"),
        "text/html; charset=utf-8"
    );
    assert_eq!(decide(None, Some("image/png"), "SHOT", JPEG), "image/jpeg");
    assert_eq!(decide(None, None, "a.png", b"words"), "image/png");
    assert_eq!(decide(None, None, "OUTPUT", b"[]"), JSON);
}
