//! Clauses on single records: bytes, types, keys, ranges, versions.

use super::{World, assert_size, kind, noise, record, tag};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use storefs::error::Kind;
use storefs::record::{Body, ContentType, Precondition};

const JSON: &str = "application/json; charset=utf-8";

/// Puts, and asks for everything back in every way.
fn round_trip(world: &World, key: &str, bytes: &[u8], content_type: &str) {
    let id = record(&world.store(), key);
    let put = world.put(&id, bytes, content_type);
    let (got, meta) = world.get(&id).unwrap();
    assert!(got == bytes, "{key}: other bytes came back");
    let head = world.head(&id).unwrap();
    for told in [&put, &meta, &head] {
        assert_size(world, told, bytes.len());
        assert_eq!(tag(told), tag(&put), "{key}");
    }
    for told in [&meta, &head] {
        let told = told.content_type.as_ref().unwrap();
        assert_eq!(told.as_str(), content_type, "{key}");
    }
}

pub fn bytes_and_types_come_back(world: &World) {
    round_trip(world, "OUTPUT", b"{\"a\": 1}", JSON);
    round_trip(
        world,
        "note",
        "žluťoučký".as_bytes(),
        "text/plain; charset=utf-8",
    );
    round_trip(world, "noise", &noise(5000, 1), "application/octet-stream");
}

pub fn an_empty_record_is_a_record(world: &World) {
    round_trip(world, "empty", b"", "text/plain; charset=utf-8");
    round_trip(world, "empty-json", b"", JSON);
}

pub fn a_record_of_3_megabytes_comes_back(world: &World) {
    round_trip(
        world,
        "large",
        &noise(3 << 20, 2),
        "application/octet-stream",
    );
}

pub fn a_file_is_as_good_a_body_as_bytes(world: &World) {
    let bytes = noise(70_000, 3);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.seek(SeekFrom::Start(100)).unwrap();
    let id = record(&world.store(), "from-file");
    let body = Body::File(Arc::new(file));
    let content_type = ContentType::stored("application/octet-stream");
    for _ in 0..2 {
        let put = world
            .backend
            .put(&id, body.clone(), &content_type, Precondition::None);
        world.wait(put).unwrap();
        assert!(world.get(&id).unwrap().0 == bytes);
    }
}

pub fn types_are_kept_verbatim(world: &World) {
    for content_type in [
        "application/json",
        "Text/HTML;charset=ISO-8859-2",
        "text/html;charset=utf-8",
        "image/jpg",
        "text/xml",
        "application/x-no-such; v=\"1; 2\"",
        "application/vnd.api+json",
        "no type at all",
    ] {
        round_trip(world, "typed", b"<p>", content_type);
        round_trip(world, "page.html", b"<p>", content_type);
    }
}

pub fn the_input_is_kept_whatever_its_type(world: &World) {
    for (bytes, content_type) in [
        (&b"{}"[..], JSON),
        (b"words", "text/plain; charset=utf-8"),
        (b"\xff\0", "application/octet-stream"),
        (b"<a/>", "application/xml"),
        (b"[1]", JSON),
    ] {
        round_trip(world, "INPUT", bytes, content_type);
        assert_eq!(world.keys(&world.store(), Default::default()), ["INPUT"]);
    }
}

pub fn every_class_of_key_is_kept(world: &World) {
    let store = world.store();
    let keys = [
        "a",
        "Z",
        "0",
        "-",
        "_",
        "!",
        "'",
        "(",
        ")",
        "!-_.'()",
        "it's(1)!",
        ".hidden",
        "..x",
        "...",
        "a.",
        "a..b",
        "data.v1.json",
        "page.html",
        "photo.jpg",
        "json",
        "html",
        "CaseKey",
        "casekey",
        "-rf",
        "a.lock",
        "x.tmp",
    ];
    // All at once, so that no two of them share a place.
    for key in keys {
        world.put(&record(&store, key), key.as_bytes(), JSON);
    }
    for key in keys {
        let (bytes, _) = world.get(&record(&store, key)).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), key);
    }
    // A layout may have no room for these; then it says so and keeps nothing.
    for key in ["INPUT.bak", "__metadata__", "a.__metadata__.json"] {
        let id = record(&store, key);
        match world.try_put(&id, b"x", "text/plain", Precondition::None) {
            Ok(_) => assert_eq!(world.get(&id).unwrap().0, b"x"),
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Invalid | Kind::NotPermitted),
                    "{error}"
                );
                assert_eq!(kind(world.head(&id)), Kind::NotFound);
            }
        }
    }
}

pub fn the_longest_key_is_kept(world: &World) {
    let store = world.store();
    let longest = "k".repeat(world.max_key());
    let other = "k".repeat(longest.len() - 1) + "j";
    for key in [&longest, &other] {
        world.put(&record(&store, key), key.as_bytes(), JSON);
    }
    for key in [&longest, &other] {
        assert_eq!(world.get(&record(&store, key)).unwrap().0, key.as_bytes());
    }
    assert_eq!(
        world.keys(&store, Default::default()),
        [other, longest.clone()]
    );
    if longest.len() < 256 {
        let id = record(&store, &"k".repeat(256));
        let refused = world.try_put(&id, b"x", JSON, Precondition::None);
        let wanted = if world.remote {
            Kind::Invalid
        } else {
            Kind::NameTooLong
        };
        assert_eq!(kind(refused), wanted);
    }
}

pub fn a_range_is_cut_at_the_end(world: &World) {
    let bytes = noise(10_000, 4);
    let id = record(&world.store(), "ranged");
    world.put(&id, &bytes, "application/octet-stream");
    for range in [
        0..1,
        0..10_000,
        5..5,
        9_999..10_000,
        9_000..20_000,
        0..u64::MAX,
        10_000..10_001,
        50_000..60_000,
    ] {
        let (start, end) = (range.start.min(10_000), range.end.min(10_000));
        let wanted = &bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
        let (got, meta) = world.part(&id, Some(range.clone())).unwrap();
        assert!(got == wanted, "{range:?}");
        assert_size(world, &meta, bytes.len());
    }
}

pub fn a_missing_record_is_not_found(world: &World) {
    let id = record(&world.store(), "missing");
    assert_eq!(kind(world.head(&id)), Kind::NotFound);
    assert_eq!(kind(world.get(&id)), Kind::NotFound);
    assert_eq!(kind(world.part(&id, Some(0..1))), Kind::NotFound);
    assert_eq!(kind(world.delete(&id, Precondition::None)), Kind::NotFound);
}

pub fn an_overwrite_replaces_bytes_type_and_tag(world: &World) {
    let store = world.store();
    let id = record(&store, "A");
    let mut tags = vec![tag(&world.put(&id, b"one", "text/plain; charset=utf-8"))];
    // The same bytes again are a version of their own, and so is another type.
    for (bytes, content_type) in [
        (&b"one"[..], "text/plain; charset=utf-8"),
        (b"[1]", JSON),
        (b"longer than before", "application/octet-stream"),
        (b"", "image/png"),
    ] {
        let put = world.put(&id, bytes, content_type);
        assert!(!tags.contains(&tag(&put)), "a tag came back");
        tags.push(tag(&put));
        let (got, meta) = world.get(&id).unwrap();
        assert_eq!((got.as_slice(), tag(&meta)), (bytes, tag(&put)));
        assert_eq!(meta.content_type.unwrap().as_str(), content_type);
    }
    assert_eq!(world.keys(&store, Default::default()), ["A"]);
}

pub fn a_deleted_record_is_gone(world: &World) {
    let store = world.store();
    let id = record(&store, "gone");
    for content_type in ["text/plain; charset=utf-8", JSON] {
        world.put(&id, b"1", content_type);
    }
    world.delete(&id, Precondition::None).unwrap();
    assert_eq!(kind(world.get(&id)), Kind::NotFound);
    assert_eq!(kind(world.delete(&id, Precondition::None)), Kind::NotFound);
    assert!(world.keys(&store, Default::default()).is_empty());
    world.put(&id, b"2", JSON);
    assert_eq!(world.get(&id).unwrap().0, b"2");
}

pub fn a_reader_keeps_the_version_it_opened(world: &World) {
    let store = world.store();
    let old = noise(3 << 20, 5);
    for last in ["replaced", "retyped", "deleted"] {
        let id = record(&store, last);
        world.put(&id, &old, "application/octet-stream");
        let mut fetched = world.wait(world.backend.get(&id, None)).unwrap();
        let mut got = vec![0; 1000];
        fetched.bytes.read_exact(&mut got).unwrap();
        match last {
            "replaced" => drop(world.put(&id, &noise(3 << 20, 6), "application/octet-stream")),
            "retyped" => drop(world.put(&id, b"short", JSON)),
            _ => world.delete(&id, Precondition::None).unwrap(),
        }
        fetched.bytes.read_to_end(&mut got).unwrap();
        assert!(got == old, "{last}: the reader saw another version");
    }
}
