//! Heads of requests that are none, or that two programs could read in two ways. Each is refused in the words of the API, and
//! nothing of it is taken for a body or for another request.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Reply, Served};
use std::io::{BufReader, Write};

/// Sends these bytes over one connection and reads this many answers; the last may be that there is none.
fn answers(client: &Client, bytes: &[u8], count: usize) -> Vec<Reply> {
    let mut stream = client.connect();
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut stream = BufReader::new(stream);
    let mut replies = Vec::with_capacity(count);
    for number in 0..count {
        // A client that ends its side before it was answered has gone away, as far as the server knows.
        if number > 0 && number + 1 == count {
            let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
        }
        replies.push(Reply::read(&mut stream, "GET"));
    }
    replies
}

/// An error as every other one: the envelope, an id of the request, and the end of the connection.
#[track_caller]
fn assert_worded(reply: &Reply, status: u16, kind: &str) {
    reply.assert_error(status, kind);
    assert!(reply.whole, "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
    assert!(reply.header("date").is_some(), "{reply:?}");
    let id = reply.header("x-request-id").unwrap();
    assert!(id.len() > 8, "{reply:?}");
}

fn nothing_written(served: &Served, store: &str) {
    let keys = served.client().get(&format!("{store}/keys"));
    assert_eq!(keys.data()["count"], 0, "{keys:?}");
}

#[test]
fn what_is_no_request_is_refused_in_the_words_of_the_api() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let huge = format!("x-huge: {}\r\n", "x".repeat(200_000));
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("{store}?x={}", "x".repeat(100_000));
    let put = client.head("PUT", &format!("{store}/records/a"), &[]);
    let get = client.head("GET", &store, &[]);
    for (text, status, kind) in [
        (format!("{get}{huge}\r\n"), 431, "invalid-header"),
        (format!("{get}{many}\r\n"), 431, "invalid-header"),
        (
            client.head("GET", &long, &[]) + "\r\n",
            431,
            "invalid-header",
        ),
        ("GET\r\n\r\n".to_owned(), 400, "invalid-request"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "invalid-request"),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400, "invalid-request"),
        (
            client.head("GET", "/a b", &[]) + "\r\n",
            400,
            "invalid-request",
        ),
        (format!("{get}bad header\r\n\r\n"), 400, "invalid-request"),
        (
            format!("{put}content-length: x\r\n\r\nx"),
            400,
            "invalid-request",
        ),
        (
            format!("{put}content-length: -1\r\n\r\nx"),
            400,
            "invalid-request",
        ),
        (
            format!("{put}content-length: 1,2\r\n\r\nab"),
            400,
            "invalid-request",
        ),
    ] {
        let reply = &answers(&client, text.as_bytes(), 1)[0];
        assert_worded(reply, status, kind);
    }
    nothing_written(&served, &store);
    let metrics = client.get("/metrics");
    let text = String::from_utf8_lossy(&metrics.body);
    let counted = "storefs_requests_total{operation=\"unknown\",status=\"4xx\"} 11";
    assert!(text.contains(counted), "{text}");
}

#[test]
fn answers_before_a_refusal_are_not_touched() {
    let served = Served::folder();
    let (client, store) = (served.client(), served.store("s"));
    // What looks like a bare refusal is a record here, short and long.
    let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let short = bare.as_bytes().to_vec();
    let long = bare.repeat(20_000).into_bytes();
    for (key, body) in [("short", &short), ("long", &long)] {
        let path = format!("{store}/records/{key}");
        assert_eq!(client.put(&path, "text/plain", body).status, 201);
        let get = client.head("GET", &path, &[]) + "\r\n";
        // One after the other, and all at once.
        let mut stream = BufReader::new(client.connect());
        for _ in 0..3 {
            stream.get_mut().write_all(get.as_bytes()).unwrap();
            assert!(Reply::read(&mut stream, "GET").body == **body);
        }
        stream.get_mut().write_all(b"nonsense\r\n\r\n").unwrap();
        assert_worded(&Reply::read(&mut stream, "GET"), 400, "invalid-request");
        assert_eq!(Reply::read(&mut stream, "GET").status, 0);
        let together = format!("{get}{get}nonsense\r\n\r\n");
        let replies = answers(&client, together.as_bytes(), 4);
        assert!(replies[0].body == **body && replies[1].body == **body);
        assert_worded(&replies[2], 400, "invalid-request");
        assert_eq!(replies[3].status, 0);
    }
}

#[test]
fn a_refusal_reaches_clients_that_go_on_sending() {
    let served = Served::with(|options| options.max_record_size = 1000);
    let (client, store) = (served.client(), served.store("s"));
    let put = client.head("PUT", &format!("{store}/records/a"), &[]);
    for (head, status) in [
        (format!("{put}content-length: 8000000\r\n\r\n"), 413),
        (
            format!("{put}transfer-encoding: chunked\r\n\r\n7a1200\r\n"),
            413,
        ),
        (format!("{put}content-length: x\r\n\r\n"), 400),
    ] {
        let mut stream = client.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // Nothing of this is wanted, and none of it fails.
        for _ in 0..80 {
            stream.write_all(&[b'x'; 100_000]).unwrap();
        }
        let reply = Reply::read(&mut BufReader::new(stream), "PUT");
        assert_eq!(reply.error().0, status, "{reply:?}");
    }
    nothing_written(&served, &store);
}

#[test]
fn no_transfer_encoding_but_chunked_is_taken() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let put = client.head("PUT", &format!("{store}/records/a"), &[]);
        let chunks = "3\r\nabc\r\n0\r\n\r\n";
        for coding in [
            "gzip, chunked",
            "gzip,chunked",
            "deflate, gzip, chunked",
            "chunked, chunked",
            "identity, chunked",
            "x, chunked",
            ", chunked",
        ] {
            let text = format!(
                "{put}transfer-encoding: {coding}\r\n\r\n{chunks}GET /health HTTP/1.1\r\n\r\n"
            );
            let replies = answers(&client, text.as_bytes(), 2);
            assert_worded(&replies[0], 501, "not-implemented");
            assert_eq!(replies[1].status, 0, "{coding}");
        }
        let two =
            format!("{put}transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert_worded(
            &answers(&client, two.as_bytes(), 1)[0],
            501,
            "not-implemented",
        );
        // Where the end of the body cannot be told, nothing is read as a body or as a request.
        for coding in ["identity", "gzip", "chunked, gzip", "chunked;x=y", ""] {
            let text = format!(
                "{put}transfer-encoding: {coding}\r\n\r\n{chunks}GET /health HTTP/1.1\r\n\r\n"
            );
            let replies = answers(&client, text.as_bytes(), 2);
            assert!([400, 501].contains(&replies[0].status), "{coding}");
            replies[0].error();
            assert_eq!(replies[1].status, 0, "{coding}");
        }
        let old =
            put.replace("HTTP/1.1", "HTTP/1.0") + "transfer-encoding: chunked\r\n\r\n" + chunks;
        assert_worded(
            &answers(&client, old.as_bytes(), 1)[0],
            400,
            "invalid-request",
        );
        nothing_written(&served, &store);
        let text = format!("{put}transfer-encoding: Chunked\r\n\r\n{chunks}");
        assert_eq!(answers(&client, text.as_bytes(), 1)[0].status, 201);
        assert_eq!(client.get(&format!("{store}/records/a")).body, b"abc");
    }
}

#[test]
fn no_request_hides_in_a_body_of_two_lengths() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let put = client.head("PUT", &format!("{store}/records/a"), &[]);
        let hidden = client.head("PUT", &format!("{store}/records/hidden"), &[])
            + "content-length: 1\r\n\r\nx";
        // Two lengths that differ are none.
        for lengths in [
            format!(
                "content-length: 3\r\ncontent-length: {}\r\n",
                3 + hidden.len()
            ),
            format!(
                "content-length: {}\r\ncontent-length: 3\r\n",
                3 + hidden.len()
            ),
            format!("content-length: 3, {}\r\n", 3 + hidden.len()),
            "content-length: +3\r\n".to_owned(),
            "content-length: 3 3\r\n".to_owned(),
            "content-length : 3\r\n".to_owned(),
        ] {
            let text = format!("{put}{lengths}\r\nabc{hidden}");
            let replies = answers(&client, text.as_bytes(), 2);
            assert_worded(&replies[0], 400, "invalid-request");
            assert_eq!(replies[1].status, 0, "{lengths}");
        }
        nothing_written(&served, &store);
        // Of a length and chunks the chunks count (RFC 9112, section 6.1), and what follows them is never a request.
        let chunks = "3\r\nabc\r\n0\r\n\r\n";
        for lengths in [
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        ] {
            let text = format!("{put}{lengths}\r\n{chunks}{hidden}");
            let replies = answers(&client, text.as_bytes(), 2);
            assert_eq!(
                (replies[0].status, replies[1].status),
                (201, 0),
                "{lengths}"
            );
            assert_eq!(client.get(&format!("{store}/records/a")).body, b"abc");
            client.delete(&format!("{store}/records/a"));
            nothing_written(&served, &store);
        }
    }
}
