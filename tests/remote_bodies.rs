//! Bodies on their way to a server and back: in little memory, encoded or not, and taken up again where they broke off.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use http::Served;
use remote::{
    Answer, Scripted, TOKEN, apify, opened, options, put, put_as, read, record, record_in, runtime,
};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storefs::backend::apify::{Apify, Options};
use storefs::backend::dir::Layout;
use storefs::backend::{Backend, NewStore};
use storefs::error::Kind;
use storefs::record::{Size, StoreName};

const JSON: &str = "application/json; charset=utf-8";

fn json(length: usize) -> Vec<u8> {
    let mut text = b"[".to_vec();
    while text.len() < length {
        text.extend_from_slice(b"{\"name\": \"value\"}, ");
    }
    text.extend_from_slice(b"null]");
    text
}

fn encoded(name: &str, bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match name {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            writer.write_all(bytes).unwrap();
            writer.into_inner()
        }
        "zstd" => {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        }
        _ => bytes.to_vec(),
    }
}

#[test]
fn every_encoding_is_taken_off_and_the_length_is_not_that_of_the_encoded_form() {
    let runtime = runtime();
    for length in [100, 1 << 20] {
        for name in ["gzip", "br", "deflate", "zstd", "identity"] {
            let plain = json(length);
            let body = encoded(name, &plain);
            let server = Scripted::new(move |_| {
                Answer::Full(200, Vec::new(), body.clone())
                    .with("content-type", JSON)
                    .with("content-encoding", name)
                    .with("etag", &format!("\"v1;{name}\""))
            });
            let (got, meta) = runtime
                .block_on(read(&apify(server.address), &record("k")))
                .unwrap();
            assert!(got == plain, "{name}");
            if name != "identity" {
                assert_eq!(meta.size, Size::Unknown, "{name}");
                assert_eq!(meta.etag.unwrap().as_str(), "v1");
            }
        }
    }
}

#[test]
fn uploads_are_plain_unless_compression_is_wished_and_worth_it() {
    let server = Scripted::new(|_| Answer::json(201, "{}"));
    let runtime = runtime();
    let (id, long) = (record("k"), json(100_000));
    for compress in [false, true] {
        let backend = Apify::new(Options {
            compress,
            ..options(server.address, TOKEN)
        })
        .unwrap();
        for (bytes, content_type) in [
            (&long[..], JSON),
            (b"[1]", JSON),
            (&long, "image/png"),
            (&long, "text/html"),
        ] {
            let write = put_as(&backend, &id, bytes, content_type);
            let meta = runtime.block_on(write).unwrap();
            assert_eq!(meta.size, Size::Exact(bytes.len() as u64));
            let requests = server.requests();
            let sent = requests.last().unwrap();
            assert_eq!(sent.header("content-type"), Some(content_type));
            if compress && bytes.len() > 1000 && content_type == JSON {
                assert_eq!(sent.header("content-encoding"), Some("gzip"));
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&sent.body[..])
                    .read_to_end(&mut plain)
                    .unwrap();
                assert!(plain == bytes && sent.body.len() < bytes.len() / 5);
            } else {
                assert_eq!(sent.header("content-encoding"), None);
                assert!(sent.body == bytes);
            }
        }
    }
}

#[test]
fn what_is_sent_compressed_comes_back_plain_from_a_storefs_server() {
    let server = Served::in_layout(Layout::Dual);
    let backend = Apify::new(Options {
        compress: true,
        ..options(server.address, &server.token)
    })
    .unwrap();
    let runtime = runtime();
    let new = NewStore::named(StoreName::new("s").unwrap());
    let store = runtime.block_on(backend.create_store(new)).unwrap().0.id;
    let id = record_in(&store, "k.json");
    let plain = json(500_000);
    let write = put_as(&backend, &id, &plain[..], JSON);
    let put = runtime.block_on(write).unwrap();
    let (got, meta) = runtime.block_on(read(&backend, &id)).unwrap();
    assert!(got == plain);
    assert_eq!(
        meta.etag, put.etag,
        "one version has one tag, however it comes"
    );
    assert_eq!(
        runtime.block_on(backend.head(&id)).unwrap().size,
        Size::Exact(plain.len() as u64)
    );
}

#[test]
fn an_upload_that_is_slow_but_moves_is_not_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slow = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut count = 0;
        // Far longer than the client's patience, in steps that are shorter.
        while count < 20 << 20 {
            count += stream.read(&mut buffer).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        stream
            .write_all(b"HTTP/1.1 201 Made\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
    });
    let backend = Apify::new(Options {
        patience: Duration::from_millis(400),
        ..options(address, TOKEN)
    })
    .unwrap();
    runtime()
        .block_on(put(&backend, &record("k"), &vec![0; 20 << 20]))
        .unwrap();
    slow.join().unwrap();
}

/// A server whose connections break in the middle of a body, and which gives the rest to who asks for it.
fn breaking(bytes: Arc<Vec<u8>>, change_at: usize) -> Scripted {
    let count = AtomicUsize::new(0);
    Scripted::new(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let tag = if number < change_at { "v1" } else { "v2" };
        if request
            .header("if-match")
            .is_some_and(|it| it != format!("\"{tag}\""))
        {
            return Answer::status(412);
        }
        let start = request.header("range").map_or(0, |range| {
            let first = range
                .trim_start_matches("bytes=")
                .split('-')
                .next()
                .unwrap();
            first.parse().unwrap()
        });
        let status = if start > 0 { "206 Part" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"{tag}\"\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\
             content-range: bytes {start}-{}/{}\r\n\r\n",
            bytes.len() - start,
            bytes.len() - 1,
            bytes.len()
        );
        let end = bytes.len().min(start + 400_000);
        Answer::Raw([head.as_bytes(), &bytes[start..end]].concat())
    })
}

#[test]
fn a_body_that_breaks_off_is_taken_up_again_where_it_broke() {
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let bytes = Arc::new(bytes);
    let server = breaking(bytes.clone(), usize::MAX);
    let (got, meta) = runtime()
        .block_on(read(&apify(server.address), &record("k")))
        .unwrap();
    assert!(got == *bytes);
    assert_eq!(meta.size, Size::Exact(bytes.len() as u64));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn the_rest_of_another_version_is_not_put_behind_the_start_of_the_first() {
    let bytes = Arc::new(vec![1; 1_000_000]);
    let server = breaking(bytes, 1);
    let error = runtime()
        .block_on(read(&apify(server.address), &record("k")))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Stale);
}

#[test]
fn an_empty_record_has_a_length_of_nothing_on_the_wire() {
    let server = Scripted::new(|_| Answer::json(201, "{}"));
    runtime()
        .block_on(put(&apify(server.address), &record("k"), b""))
        .unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].header("content-length"), Some("0"));
    let served = Served::memory();
    let backend = opened(&served);
    let runtime = runtime();
    let new = NewStore::named(StoreName::new("s").unwrap());
    let store = runtime.block_on(backend.create_store(new)).unwrap().0.id;
    let id = record_in(&store, "empty");
    runtime.block_on(put(&*backend, &id, b"")).unwrap();
    let (bytes, meta) = runtime.block_on(read(&*backend, &id)).unwrap();
    assert_eq!((bytes.len(), meta.size), (0, Size::Exact(0)));
}

#[test]
fn a_part_of_the_encoded_bytes_is_not_taken_for_a_part_of_the_record() {
    let plain: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
    let body = encoded("gzip", &plain);
    let server = Scripted::new(move |request| {
        let of = |part: &[u8]| {
            Answer::record(part)
                .with("content-encoding", "gzip")
                .with("etag", "\"v1\"")
                .with("accept-ranges", "bytes")
        };
        let Some(asked) = request.header("range") else {
            return of(&body);
        };
        let (from, to) = asked.trim_start_matches("bytes=").split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let to = to.parse().unwrap_or(usize::MAX).min(body.len() - 1);
        let part = &body[from.min(to)..=to];
        let Answer::Full(_, headers, bytes) = of(part) else {
            unreachable!()
        };
        let range = format!("bytes {from}-{to}/{}", body.len());
        Answer::Full(206, headers, bytes).with("content-range", &range)
    });
    let backend = apify(server.address);
    let runtime = runtime();
    for range in [10..20_u64, 4000..4800] {
        let id = record("k");
        let fetched = backend.get(&id, Some(range.clone()));
        let mut fetched = runtime.block_on(fetched).unwrap();
        let mut bytes = Vec::new();
        fetched.bytes.read_to_end(&mut bytes).unwrap();
        let wanted = &plain[range.start as usize..range.end as usize];
        assert!(bytes == wanted, "{range:?}: {} bytes", bytes.len());
        assert_eq!(fetched.meta.size, Size::Unknown);
    }
}

#[test]
fn a_server_that_refuses_before_it_has_the_body_is_understood() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 10_000];
        let _ = stream.read(&mut buffer).unwrap();
        let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        stream.write_all(answer).unwrap();
        // What follows is not read any more, as by a server that has had enough.
        std::thread::sleep(Duration::from_millis(300));
    });
    let error = runtime()
        .block_on(put(&apify(address), &record("k"), &vec![0; 20 << 20]))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    server.join().unwrap();
}
