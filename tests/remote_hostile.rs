//! Servers that answer what they should not: every one of them ends in an error that says so, with little memory.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use remote::{
    Answer, STORE, Scripted, TOKEN, apify, options, peak, put, read, record, runtime, store,
};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use storefs::backend::apify::{Apify, Options};
use storefs::backend::{Backend, ListQuery, StoreRef};
use storefs::error::{Error, Kind};

fn listed(
    answer: impl Fn(&remote::Request) -> Answer + Send + Sync + 'static,
) -> Result<(), Error> {
    let server = Scripted::new(answer);
    let backend = apify(server.address);
    let listed = runtime().block_on(backend.list(&store(), ListQuery::default()));
    listed.map(drop)
}

fn page(keys: &[&str], next: Option<&str>) -> String {
    let lines = keys.iter().map(
        |key| serde_json::json!({"key": key, "size": 1, "recordPublicUrl": "http://127.0.0.1/"}),
    );
    serde_json::json!({"data": {
        "items": lines.collect::<Vec<_>>(),
        "isTruncated": next.is_some(),
        "nextExclusiveStartKey": next,
    }})
    .to_string()
}

#[test]
fn keys_that_cannot_be_end_a_listing_with_an_error() {
    for key in [
        "../etc/passwd",
        "a/b",
        "a\0b",
        "",
        "a b",
        "caf\u{e9}",
        "a\n",
        &"k".repeat(257),
    ] {
        let text = page(&["!first", key], None);
        let error = listed(move |_| Answer::json(200, text.clone())).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{key:?}");
        let text = error.to_string();
        assert!(
            text.contains("no legal key") && text.contains(STORE),
            "{text}"
        );
        assert!(!text.contains(char::is_control), "{text}");
    }
}

#[test]
fn keys_out_of_order_twice_or_not_asked_for_end_a_listing_with_an_error() {
    for keys in [["b", "a"], ["a", "a"]] {
        let text = page(&keys, None);
        let error = listed(move |_| Answer::json(200, text.clone())).unwrap_err();
        assert!(
            error.to_string().contains("where it cannot stand"),
            "{error}"
        );
    }
    let keys: Vec<String> = (0..1001).map(|n| format!("k{n:04}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let text = page(&keys, None);
    let error = listed(move |_| Answer::json(200, text.clone())).unwrap_err();
    assert!(error.to_string().contains("more keys"), "{error}");
}

#[test]
fn pages_that_go_round_in_circles_end_a_listing_with_an_error() {
    let text = page(&["b", "c"], Some("a"));
    let error = listed(move |_| Answer::json(200, text.clone())).unwrap_err();
    assert!(error.to_string().contains("round in circles"), "{error}");
    // Each page is empty, and says that there is one more.
    let error = listed(|request| {
        let start = request
            .path
            .rsplit_once("StartKey=")
            .map_or("", |(_, start)| start);
        Answer::json(200, page(&[], Some(&format!("{start}a"))))
    });
    assert!(error.unwrap_err().to_string().contains("empty pages"));
}

#[test]
fn the_keys_that_no_url_can_hold_are_left_out_of_a_listing() {
    let server = Scripted::new(|_| Answer::json(200, page(&["-", ".", "..", "0"], None)));
    let backend = apify(server.address);
    let page = runtime().block_on(backend.list(&store(), ListQuery::default()));
    let keys: Vec<_> = page
        .unwrap()
        .records
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(format!("{keys:?}"), r#"["-", "0"]"#);
}

#[test]
fn what_is_no_json_of_the_api_is_said_to_be_none() {
    for text in [
        "<html>Please log in</html>",
        "{}",
        "{\"data\": 5}",
        "",
        "[[[[",
    ] {
        let error = listed(move |_| Answer::json(200, text)).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{text}");
        assert!(error.to_string().contains("an Apify API?"), "{error}");
    }
}

#[test]
fn endless_answers_where_json_is_expected_end_in_an_error_with_little_memory() {
    let before = peak();
    let start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"data\":\"".to_vec();
    let error = listed(move |_| Answer::Endless(start.clone(), vec![b'x'; 64 << 10])).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("longer than"), "{error}");
    // The same as an error.
    let start = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\n\r\n{\"error\":\"".to_vec();
    let error = listed(move |_| Answer::Endless(start.clone(), vec![b'x'; 64 << 10])).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    // Endless headers.
    let start = b"HTTP/1.1 200 OK\r\n".to_vec();
    let error = listed(move |_| Answer::Endless(start.clone(), b"x-more: of it\r\n".repeat(99)));
    assert!(error.is_err());
    assert!(peak() < before + (400 << 20), "{} MiB", peak() >> 20);
}

fn gzipped(bytes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for piece in bytes {
        writer.write_all(&piece).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_bomb_of_gzip_where_json_is_expected_is_an_error() {
    let bomb = gzipped((0..256).map(|_| vec![b' '; 1 << 20]));
    let before = peak();
    let error = listed(move |_| {
        Answer::Full(200, Vec::new(), bomb.clone()).with("content-encoding", "gzip")
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("longer than"), "{error}");
    assert!(peak() < before + (400 << 20), "{} MiB", peak() >> 20);
}

#[test]
fn a_record_that_decodes_to_more_than_any_record_has_breaks_off() {
    let bomb = gzipped((0..64).map(|_| vec![0; 1 << 20]));
    let server = Scripted::new(move |_| {
        Answer::Full(200, Vec::new(), bomb.clone()).with("content-encoding", "gzip")
    });
    let options = Options {
        largest_decoded: 10 << 20,
        ..options(server.address, TOKEN)
    };
    let backend = Apify::new(options).unwrap();
    let runtime = runtime();
    let mut fetched = runtime.block_on(backend.get(&record("k"), None)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    let error = loop {
        match fetched.bytes.read(&mut buffer) {
            Ok(0) => panic!("it ended after {read}"),
            Ok(count) => read += count,
            Err(error) => break error,
        }
    };
    assert!(read <= 10 << 20, "{read}");
    assert!(
        error.to_string().contains("longer than any record"),
        "{error}"
    );
}

#[test]
fn bodies_shorter_than_told_damaged_or_of_unknown_encoding_are_errors() {
    let start = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    let short = format!("{start}content-length: 100\r\n\r\nshort");
    let long = format!(
        "{start}content-length: 200000\r\n\r\n{}",
        "x".repeat(150_000)
    );
    let chunked = format!("{start}transfer-encoding: chunked\r\n\r\n5\r\nshort\r\n");
    let damaged = format!("{start}content-encoding: gzip\r\ncontent-length: 5\r\n\r\nshort");
    let unknown = format!("{start}content-encoding: rot13\r\ncontent-length: 5\r\n\r\nshort");
    let twice = format!("{start}content-encoding: gzip, br\r\ncontent-length: 5\r\n\r\nshort");
    for text in [short, long, chunked, damaged, unknown, twice] {
        let sent = text.clone();
        let server = Scripted::new(move |_| Answer::Raw(sent.clone().into_bytes()));
        let backend = apify(server.address);
        let error = runtime()
            .block_on(read(&backend, &record("k")))
            .unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Io | Kind::Corrupt),
            "{error:?} of {}",
            &text[..60]
        );
    }
    // What follows a body belongs to nobody.
    let more = format!("{start}content-length: 5\r\n\r\nshort and more");
    let server = Scripted::new(move |_| Answer::Raw(more.clone().into_bytes()));
    let backend = apify(server.address);
    assert_eq!(
        runtime().block_on(read(&backend, &record("k"))).unwrap().0,
        b"short"
    );
}

#[test]
fn another_part_than_was_asked_for_is_an_error() {
    for place in ["bytes 1-4/9", "bytes 0-8/9", "bytes */9", "nonsense"] {
        let server = Scripted::new(move |_| {
            Answer::Full(206, Vec::new(), b"abcd".to_vec()).with("content-range", place)
        });
        let backend = apify(server.address);
        let error = runtime()
            .block_on(backend.get(&record("k"), Some(0..4)))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{place}");
    }
    let server = Scripted::new(|_| {
        Answer::Full(206, Vec::new(), b"abcd".to_vec()).with("content-range", "bytes 0-3/9")
    });
    let backend = apify(server.address);
    let error = runtime()
        .block_on(backend.get(&record("k"), None))
        .unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Corrupt,
        "a part where all was asked for"
    );
}

#[test]
fn redirects_are_followed_without_the_token_and_never_off_the_web() {
    let elsewhere = Scripted::new(|_| Answer::record(b"from elsewhere").with("etag", "\"x\""));
    let place = format!("http://{}/files/k?Signature=s1gn3d", elsewhere.address);
    let server = Scripted::new(move |request| match request.path.rsplit('/').next() {
        Some(key) if key.starts_with("outside") => Answer::status(302).with("location", &place),
        Some(key) if key.starts_with("inside") => Answer::status(307).with("location", "moved"),
        Some("moved") => Answer::record(b"moved"),
        Some(key) if key.starts_with("file") => {
            Answer::status(302).with("location", "file:///etc/passwd")
        }
        Some(key) if key.starts_with("far") => {
            Answer::status(302).with("location", "http://192.0.2.1/?Signature=s1gn3d")
        }
        _ => Answer::status(302).with("location", &request.path),
    });
    let backend = apify(server.address);
    let runtime = runtime();
    let (bytes, _) = runtime
        .block_on(read(&backend, &record("outside")))
        .unwrap();
    assert_eq!(bytes, b"from elsewhere");
    let there = elsewhere.requests();
    assert_eq!(
        there[0].header("authorization"),
        None,
        "the token went elsewhere"
    );
    assert!(!format!("{there:?}").contains(TOKEN));
    let (bytes, _) = runtime.block_on(read(&backend, &record("inside"))).unwrap();
    assert_eq!(bytes, b"moved");
    let home = server.requests();
    assert_eq!(
        home.last().unwrap().header("authorization"),
        Some(&*format!("Bearer {TOKEN}"))
    );
    for (key, why) in [
        ("file", "no web address"),
        ("far", "plain http to another machine"),
        ("round", "more than 5 times"),
    ] {
        let error = runtime.block_on(read(&backend, &record(key))).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(why), "{text}");
        assert!(!text.contains("s1gn3d"), "{text}");
    }
    let error = runtime
        .block_on(put(&backend, &record("outside"), b"x"))
        .unwrap_err();
    assert!(error.to_string().contains("write elsewhere"), "{error}");
    assert_eq!(elsewhere.requests().len(), 1, "a write was sent elsewhere");
}

#[test]
fn the_token_is_in_the_header_and_nowhere_else() {
    let server = Scripted::new(|request| {
        let told = request.header("authorization").unwrap_or_default();
        let text =
            serde_json::json!({"error": {"type": told, "message": format!("You sent {told}")}});
        Answer::json(403, text.to_string())
    });
    let backend = apify(server.address);
    let runtime = runtime();
    let id = record("k");
    let errors = [
        runtime.block_on(read(&backend, &id)).unwrap_err(),
        runtime.block_on(put(&backend, &id, b"x")).unwrap_err(),
        runtime
            .block_on(backend.list(&store(), ListQuery::default()))
            .unwrap_err(),
        runtime
            .block_on(backend.store(&StoreRef::Id(store())))
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::Denied);
        assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
    }
    assert!(!format!("{backend:?} {:?}", options(server.address, TOKEN)).contains(TOKEN));
    for request in server.requests() {
        assert!(!request.path.contains(TOKEN), "{}", request.path);
        assert_eq!(
            request.header("authorization"),
            Some(&*format!("Bearer {TOKEN}"))
        );
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let server = Scripted::new(|_| Answer::Silence);
    let options = Options {
        patience: Duration::from_millis(300),
        ..options(server.address, TOKEN)
    };
    let backend = Apify::new(options).unwrap();
    let start = Instant::now();
    let error = runtime().block_on(backend.head(&record("k"))).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_body_that_stops_coming_is_given_up_in_time() {
    let start = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let server = Scripted::new(move |_| Answer::Endless(start.clone().into_bytes(), Vec::new()));
    let options = Options {
        patience: Duration::from_millis(300),
        ..options(server.address, TOKEN)
    };
    let backend = Apify::new(options).unwrap();
    let error = runtime()
        .block_on(read(&backend, &record("k")))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.to_string().contains("no byte came"), "{error}");
}

#[test]
fn nobody_at_the_address_is_offline_at_once() {
    let gone = Scripted::new(|_| Answer::Hangup).address;
    let start = Instant::now();
    let error = runtime()
        .block_on(remote::retrying(gone).head(&record("k")))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Offline, "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}
