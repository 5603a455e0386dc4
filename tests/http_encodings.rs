//! Encoded bodies over HTTP: kept as sent, given back as sent to who accepts that, decoded for everybody else.
#![allow(clippy::unwrap_used)]

mod http;

use flate2::Compression;
use http::Served;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    writer.write_all(bytes).unwrap();
    writer.into_inner()
}

#[test]
fn an_encoded_body_comes_back_as_sent_or_decoded() {
    let plain: Vec<u8> = "{\"a\": \"many many words\"}\n".repeat(20_000).into_bytes();
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        for (name, sent) in [
            ("gzip", gzip(&plain)),
            ("br", brotli(&plain)),
            ("deflate", deflate(&plain)),
        ] {
            let path = format!("{store}/records/{name}");
            let headers = [
                ("content-type", "application/json"),
                ("content-encoding", name),
            ];
            let put = client.send("PUT", &path, &headers, &sent);
            assert_eq!(put.status, 201, "{put:?}");
            for accepted in ["gzip, compress, deflate, br", "zstd,gzip,deflate,br"] {
                let same = client.get_with(&path, &[("accept-encoding", accepted)]);
                assert_eq!(same.header("content-encoding"), Some(name));
                assert!(same.body == sent, "{name}");
                assert_eq!(same.header("content-type"), Some("application/json"));
                assert_eq!(same.header("vary"), Some("accept-encoding"));
            }
            for refused in ["", "identity", "zstd", &format!("{name};q=0")] {
                let decoded = client.get_with(&path, &[("accept-encoding", refused)]);
                assert_eq!(decoded.header("content-encoding"), None, "{refused}");
                assert!(decoded.body == plain, "{name}");
            }
            let head = client.send("HEAD", &path, &[("accept-encoding", name)], b"");
            assert_eq!(
                head.header("content-length"),
                Some(sent.len().to_string().as_str())
            );
            // A part is one of the decoded body, and every tag names the same version.
            let both = [("accept-encoding", name), ("range", "bytes=0-3")];
            assert_eq!(client.get_with(&path, &both).body, b"{\"a\"");
            let encoded = client.get_with(&path, &[("accept-encoding", name)]);
            let decoded = client.get(&path);
            assert_ne!(encoded.header("etag"), decoded.header("etag"));
            for etag in [
                encoded.header("etag").unwrap(),
                decoded.header("etag").unwrap(),
            ] {
                assert_eq!(
                    client.get_with(&path, &[("if-none-match", etag)]).status,
                    304
                );
            }
            let etag = encoded.header("etag").unwrap();
            assert_eq!(
                client
                    .send("PUT", &path, &[("if-match", etag)], b"new")
                    .status,
                201
            );
            let now = client.get_with(&path, &[("accept-encoding", name)]);
            assert_eq!(
                (&now.body[..], now.header("content-encoding")),
                (&b"new"[..], None)
            );
        }
        let listed = client.get(&format!("{store}/keys")).data();
        assert_eq!(listed["items"][0]["size"], 3);
    }
}

#[test]
fn sizes_in_listings_are_of_decoded_bodies() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let encoded = [("content-encoding", "gzip")];
        client.send(
            "PUT",
            &format!("{store}/records/a"),
            &encoded,
            &gzip(&[7; 12_345]),
        );
        assert_eq!(
            client.get(&format!("{store}/keys")).data()["items"][0]["size"],
            12_345
        );
    }
}

#[test]
fn a_record_written_by_somebody_else_is_never_answered_with_an_older_body() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    client.send("PUT", &path, &[("content-encoding", "gzip")], &gzip(b"old"));
    assert_eq!(served.kept().len(), 1);
    // Straight into the backend, as a mount or another server would.
    let id = store.rsplit('/').next().unwrap();
    let id = storefs::record::RecordId {
        store: storefs::record::StoreName::new(id).unwrap(),
        key: storefs::record::Key::new("a").unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let text = storefs::record::ContentType::stored("text/plain");
    let put = served.backend.put(
        &id,
        b"new"[..].into(),
        &text,
        storefs::record::Precondition::None,
    );
    runtime.block_on(put).unwrap();
    let got = client.get_with(&path, &[("accept-encoding", "gzip")]);
    assert_eq!(
        (&got.body[..], got.header("content-encoding")),
        (&b"new"[..], None)
    );
}

#[test]
fn kept_bodies_go_with_their_records_and_stores() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let put = |key: &str| {
            let path = format!("{store}/records/{key}");
            let body = gzip(&[b'x'; 300_000]);
            client.send("PUT", &path, &[("content-encoding", "gzip")], &body);
        };
        put("a");
        put("b");
        put("b");
        assert_eq!(served.kept().len(), 2);
        client.delete(&format!("{store}/records/a"));
        assert_eq!(served.kept().len(), 1);
        client.delete(&store);
        assert_eq!(served.kept().len(), 0);
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let bytes = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    bytes.take(length).collect()
}

#[test]
fn a_long_encoded_body_is_kept_without_being_in_memory() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let (path, plain) = (format!("{store}/records/a"), noise(2_000_000));
        let sent = gzip(&plain);
        assert!(sent.len() > 1_000_000);
        for _ in 0..2 {
            let put = client.send("PUT", &path, &[("content-encoding", "gzip")], &sent);
            assert_eq!(put.status, 201);
            let same = client.get_with(&path, &[("accept-encoding", "gzip")]);
            assert_eq!(same.header("content-encoding"), Some("gzip"));
            assert!(same.body == sent && client.get(&path).body == plain);
            assert_eq!(served.kept().len(), 1);
        }
    }
}

#[test]
fn kept_bodies_stay_within_their_limit_and_are_not_needed() {
    let served = Served::with(|options| options.keep_encoded = 100_000);
    let (client, store) = (served.client(), served.store("s"));
    let plain = noise(20_000);
    for number in 0..20 {
        let path = format!("{store}/records/k{number}");
        let put = client.send("PUT", &path, &[("content-encoding", "gzip")], &gzip(&plain));
        assert_eq!(put.status, 201);
        let kept = served.kept();
        let total: u64 = kept.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(total <= 100_000, "{total}");
    }
    for number in 0..20 {
        let path = format!("{store}/records/k{number}");
        assert!(client.get(&path).body == plain);
    }
}

#[test]
fn identity_and_an_empty_encoded_body_are_plain() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    let put = |encoding: &str, body: &[u8]| {
        client.send("PUT", &path, &[("content-encoding", encoding)], body)
    };
    assert_eq!(put("identity", b"abc").status, 201);
    assert_eq!(client.get(&path).body, b"abc");
    assert_eq!(put("gzip", b"").status, 201);
    assert_eq!(client.get(&path).body, b"");
    for unknown in ["zstd", "compress", "bla", "gzip, br", "x-gzip"] {
        put(unknown, b"abc").assert_error(415, "unsupported-content-encoding");
    }
    assert_eq!(client.get(&path).body, b"");
}
