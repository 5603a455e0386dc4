//! Requests that no honest client sends. Each is refused clearly, writes nothing and takes little.
#![allow(clippy::unwrap_used)]

mod http;

use flate2::Compression;
use http::{Reply, Served};
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const ALL: &str = "/v2/key-value-stores";

fn nothing_written(served: &Served, store: &str) {
    assert_eq!(
        served.client().get(&format!("{store}/keys")).data()["count"],
        0
    );
    assert_eq!(served.kept(), Vec::<PathBuf>::new());
}

#[test]
fn keys_that_are_none_are_refused() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let long = "k".repeat(257);
        for key in [
            ".",
            "..",
            "%2e",
            "%2E%2e",
            "a%2Fb",
            "..%2F..%2Fetc",
            "a%00b",
            "%00",
            "%ff%fe",
            "%C3%A9",
            "a%20b",
            "a b",
            "a+b",
            "a~",
            "a@b",
            "a:b",
            "a\\b",
            "%",
            "%zz",
            "a%0Ab",
            "..%5c",
            &long,
        ] {
            for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
                let reply = client.send(method, &format!("{store}/records/{key}"), &[], b"x");
                assert_eq!(reply.status, 400, "{method} {key} {reply:?}");
                // What is no request at all is refused before there is a path to speak of.
                if method != "HEAD" && !key.contains([' ', '\\']) {
                    reply.assert_error(400, "invalid-record-key");
                }
            }
        }
        nothing_written(&served, &store);
    }
}

#[test]
fn a_path_does_not_lead_into_other_stores_or_out_of_the_root() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let other = served.store("other");
        client.put(&format!("{other}/records/a"), "text/plain", b"secret");
        let outside = served.path().join("outside");
        std::fs::write(&outside, "outside").unwrap();
        for reference in [
            "..",
            "%2e%2e",
            "s%2F..%2Fother",
            "~..",
            "~s%2F..%2Fother",
            "~.storefs",
            "~%00",
            ".storefs",
            "s%00",
            "%ff",
            "..%2F..%2Foutside",
            "~..%2F..%2Foutside",
            "ann~..",
            "ann~%2Fetc",
            "~__CRAWLEE_TEMPORARY_default",
        ] {
            for (method, path) in [
                ("GET", format!("{ALL}/{reference}")),
                ("GET", format!("{ALL}/{reference}/keys")),
                ("GET", format!("{ALL}/{reference}/records/a")),
                ("PUT", format!("{ALL}/{reference}/records/a")),
                ("DELETE", format!("{ALL}/{reference}")),
            ] {
                let reply = client.send(method, &path, &[], b"");
                assert!(
                    [400, 404].contains(&reply.status),
                    "{method} {path} {reply:?}"
                );
            }
        }
        for raw in [
            "/../../etc/passwd",
            "/v2/../v2/users/me",
            "/v2/key-value-stores/s/../other",
        ] {
            let reply = client.get(raw);
            assert!([400, 404].contains(&reply.status), "{raw} {reply:?}");
        }
        assert_eq!(client.get(&format!("{other}/records/a")).body, b"secret");
        assert_eq!(std::fs::read(&outside).unwrap(), b"outside");
        nothing_written(&served, &store);
    }
}

#[test]
fn heads_that_are_too_long_or_malformed_are_refused() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let huge = "x".repeat(200_000);
    let reply = client.get_with(&store, &[("x-huge", &huge)]);
    assert!([400, 431].contains(&reply.status), "{reply:?}");
    let many: Vec<(String, String)> = (0..500)
        .map(|n| (format!("x-{n}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let reply = client.get_with(&store, &many);
    assert!([400, 431].contains(&reply.status), "{reply:?}");
    let reply = client.get(&format!("{store}?x={huge}"));
    assert!([400, 414, 431].contains(&reply.status), "{reply:?}");
    for raw in [
        &b"GET\r\n\r\n"[..],
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ] {
        let reply = client.raw(&[raw], "GET");
        assert!(
            reply.status == 0 || (400..500).contains(&reply.status),
            "{reply:?}"
        );
    }
    for (name, value) in [
        ("content-type", "text/pl\u{e4}in"),
        ("content-type", &huge[..300]),
    ] {
        let reply = client.send("PUT", &format!("{store}/records/a"), &[(name, value)], b"x");
        reply.assert_error(400, "invalid-content-type-header");
    }
    nothing_written(&served, &store);
}

#[test]
fn a_body_that_is_shorter_or_longer_than_it_says_is_no_record() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let head = |length: &str| {
            let path = format!("{store}/records/a");
            client.head("PUT", &path, &[("content-length", length)]) + "\r\n"
        };
        let mut stream = client.connect();
        stream.write_all(head("100").as_bytes()).unwrap();
        stream.write_all(b"only this").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        nothing_written(&served, &store);
        // What follows the body is another request, and this is none.
        let mut stream = client.connect();
        stream.write_all(head("3").as_bytes()).unwrap();
        stream.write_all(b"abcdefgh\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        assert_eq!(Reply::read(&mut stream, "PUT").status, 201);
        let second = Reply::read(&mut stream, "GET");
        assert!([0, 400].contains(&second.status), "{second:?}");
        assert_eq!(client.get(&format!("{store}/records/a")).body, b"abc");
        client.delete(&format!("{store}/records/a"));
        let mut chunked = client.head("PUT", &format!("{store}/records/a"), &[]);
        chunked += "transfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\nab\r\n0\r\n\r\n";
        let reply = client.raw(&[chunked.as_bytes()], "PUT");
        assert!([0, 400].contains(&reply.status), "{reply:?}");
        nothing_written(&served, &store);
    }
}

#[test]
fn damaged_encoded_bodies_are_refused() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
        writer.write_all(&vec![b'x'; 300_000]).unwrap();
        let good = writer.finish().unwrap();
        let mut flipped = good.clone();
        let end = flipped.len() - 6;
        flipped[end] ^= 0xff;
        let cut = good[..good.len() / 2].to_vec();
        let longer = [&good[..], b"rest"].concat();
        for (encoding, body) in [
            ("gzip", &cut),
            ("gzip", &flipped),
            ("gzip", &longer),
            ("gzip", &b"plain text".to_vec()),
            ("br", &good),
            ("deflate", &good),
            ("gzip", &vec![0x1f, 0x8b]),
        ] {
            let headers = [("content-encoding", encoding)];
            let reply = client.send("PUT", &format!("{store}/records/a"), &headers, body);
            reply.assert_error(400, "invalid-request");
        }
        nothing_written(&served, &store);
    }
}

#[test]
fn records_above_the_limit_are_refused_also_when_they_grow_by_decoding() {
    let served = Served::with(|options| options.max_record_size = 1_000_000);
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    let big = vec![0; 1_000_001];
    client
        .put(&path, "text/plain", &big)
        .assert_error(413, "record-too-large");
    // Refused by what it says, before a byte of it has come.
    let head = client.head("PUT", &path, &[("content-length", "99999999999")]) + "\r\n";
    client
        .raw(&[head.as_bytes()], "PUT")
        .assert_error(413, "record-too-large");
    let mut head = client.head("PUT", &path, &[]);
    head += "transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let chunk = [&b"f4241\r\n"[..], &big, b"\r\n0\r\n\r\n"].concat();
    client
        .raw(&[head.as_bytes(), &chunk], "PUT")
        .assert_error(413, "record-too-large");
    // 1 MB that would become 1 GB.
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..200 {
        writer.write_all(&zeros).unwrap();
    }
    let bomb = writer.finish().unwrap();
    assert!(bomb.len() < 300_000);
    let reply = client.send("PUT", &path, &[("content-encoding", "gzip")], &bomb);
    reply.assert_error(413, "record-too-large");
    assert_eq!(
        client.put(&path, "text/plain", &big[..1_000_000]).status,
        201
    );
    let json = vec![b' '; 9_437_185];
    client
        .put(&store, "application/json", &json)
        .assert_error(413, "request-too-large");
}

#[test]
fn slow_clients_are_given_up_and_do_not_hold_up_others() {
    let served = Served::with(|options| {
        options.limits.head_time = Duration::from_millis(500);
        options.limits.patience = Duration::from_millis(500);
    });
    let (client, store) = (served.client(), served.store("s"));
    let begun = Instant::now();
    // Heads that never end, bodies that stop, connections that say nothing.
    let mut slow = Vec::new();
    for number in 0..30 {
        let mut stream = client.connect();
        let text = match number % 3 {
            0 => "GET / HTTP/1.1\r\nhost: a\r\nx-a: ".to_owned(),
            1 => {
                client.head(
                    "PUT",
                    &format!("{store}/records/a"),
                    &[("content-length", "9")],
                ) + "\r\nabc"
            }
            _ => String::new(),
        };
        stream.write_all(text.as_bytes()).unwrap();
        slow.push(stream);
    }
    assert_eq!(client.get(&store).status, 200);
    for (number, stream) in slow.into_iter().enumerate() {
        let reply = Reply::read(&mut BufReader::new(stream), "GET");
        match number % 3 {
            1 => reply.assert_error(408, "operation-timed-out"),
            _ => assert!([0, 408].contains(&reply.status), "{reply:?}"),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    nothing_written(&served, &store);
}

#[test]
fn who_reads_nothing_is_given_up() {
    let served = Served::with(|options| options.limits.patience = Duration::from_millis(500));
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    assert_eq!(
        client.put(&path, "text/plain", &vec![1; 30 << 20]).status,
        201
    );
    let mut stream = client.connect();
    let head = client.head("GET", &path, &[]) + "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let reply = Reply::read(&mut BufReader::new(stream), "GET");
    assert!(!reply.whole, "all of it was kept for who did not take it");
    let text = String::from_utf8(client.get("/metrics").body).unwrap();
    assert!(text.contains("storefs_connections 1\n"), "{text}");
}
