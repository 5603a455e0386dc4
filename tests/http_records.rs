//! Records over HTTP: bytes, types and headers go in and come out as they were; also long ones, ranges and archives.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Reply, Served};
use std::io::{BufReader, Read, Write};
use storefs::serve::{Kept, Run};

/// Bytes that repeat nowhere soon.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

#[test]
fn what_is_put_is_got_with_its_type_to_the_letter() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let types = [
            (
                "a",
                "application/json; charset=utf-8",
                &b"{\n  \"a\": 1\n}"[..],
            ),
            ("b", "Text/Plain;CharSet=\"x\"", b"hello"),
            ("c", "image/png", &[0, 255, 1, 254]),
            ("d", "application/json", b"{not json"),
            ("e", "text/plain; charset=utf-8", b""),
            ("f", "application/octet-stream", b""),
        ];
        for (key, content_type, body) in types {
            let path = format!("{store}/records/{key}");
            let put = client.put(&path, content_type, body);
            assert_eq!((put.status, &put.body[..]), (201, &b"{}"[..]), "{put:?}");
            assert_eq!(
                put.header("content-type"),
                Some("application/json; charset=utf-8")
            );
            assert!(put.header("location").unwrap().ends_with(&path));
            let got = client.get(&path);
            assert_eq!((got.status, &got.body[..]), (200, body));
            assert_eq!(got.header("content-type"), Some(content_type));
            assert_eq!(
                got.header("content-length"),
                Some(body.len().to_string().as_str())
            );
            assert_eq!(got.header("content-encoding"), None);
        }
        let bare = client.send("PUT", &format!("{store}/records/g"), &[], b"x");
        assert_eq!(bare.status, 201);
        let got = client.get(&format!("{store}/records/g"));
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    }
}

#[test]
fn post_is_put_and_a_second_put_replaces() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    let posted = client.send("POST", &path, &[("content-type", "text/plain")], b"1");
    assert_eq!(posted.status, 201);
    assert_eq!(client.put(&path, "text/css", b"22").status, 201);
    let got = client.get(&path);
    assert_eq!(
        (&got.body[..], got.header("content-type")),
        (&b"22"[..], Some("text/css"))
    );
}

#[test]
fn a_missing_record_is_404_and_deleting_it_is_no_error() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        client.get(&path).assert_error(404, "record-not-found");
        assert_eq!(client.send("HEAD", &path, &[], b"").status, 404);
        assert_eq!(client.delete(&path).status, 204);
        client.put(&path, "text/plain", b"x");
        let head = client.send("HEAD", &path, &[], b"");
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("1"))
        );
        assert_eq!(client.delete(&path).status, 204);
        assert_eq!(client.get(&path).status, 404);
    }
}

#[test]
fn a_key_is_decoded_exactly_once() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let put = client.put(
            &format!("{store}/records/%21-_.%27%28%29"),
            "text/plain",
            b"x",
        );
        assert_eq!(put.status, 201);
        assert_eq!(client.get(&format!("{store}/records/!-_.'()")).body, b"x");
        // Decoded once it is `%41`, which is no key; decoded twice it would be `A`.
        let twice = client.put(&format!("{store}/records/%2541"), "text/plain", b"x");
        twice.assert_error(400, "invalid-record-key");
        assert_eq!(client.get(&format!("{store}/records/A")).status, 404);
    }
}

#[test]
fn chunked_and_zero_length_uploads_are_taken() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        let mut head = client.head("PUT", &path, &[("content-type", "text/plain")]);
        head += "transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        let put = client.raw(
            &[head.as_bytes(), b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"],
            "PUT",
        );
        assert_eq!(put.status, 201, "{put:?}");
        assert_eq!(client.get(&path).body, b"abcdefg");
        let put = client.raw(&[head.as_bytes(), b"0\r\n\r\n"], "PUT");
        assert_eq!(put.status, 201);
        assert_eq!(client.get(&path).body, b"");
        // A client may send no length at all for nothing.
        let mut head = client.head("PUT", &path, &[]);
        head += "connection: close\r\n\r\n";
        assert_eq!(client.raw(&[head.as_bytes()], "PUT").status, 201);
    }
}

#[test]
fn long_records_go_up_and_come_down_whole() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        for length in [65_535, 65_536, 65_537, 262_144, 5_000_001] {
            let body = bytes(length);
            let path = format!("{store}/records/k{length}");
            assert_eq!(client.put(&path, "application/x-test", &body).status, 201);
            let got = client.get(&path);
            assert!(got.whole && got.body == body, "{length}");
            assert_eq!(
                got.header("content-length"),
                Some(length.to_string().as_str())
            );
        }
        assert_eq!(served.kept(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn ranges_give_parts_of_short_and_long_records() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let body = bytes(400_000);
        let path = format!("{store}/records/a");
        client.put(&path, "text/plain", &body);
        let part = |range: &str| client.get_with(&path, &[("range", range)]);
        for (range, wanted, place) in [
            ("bytes=0-9", 0..10, "bytes 0-9/400000"),
            (
                "bytes=100000-",
                100_000..400_000,
                "bytes 100000-399999/400000",
            ),
            ("bytes=-5", 399_995..400_000, "bytes 399995-399999/400000"),
            (
                "bytes=399999-500000",
                399_999..400_000,
                "bytes 399999-399999/400000",
            ),
        ] {
            let got = part(range);
            assert_eq!(got.status, 206, "{range} {got:?}");
            assert_eq!(got.header("content-range"), Some(place));
            assert!(got.body == body[wanted], "{range}");
        }
        let beyond = part("bytes=400000-");
        beyond.assert_error(416, "invalid-value");
        assert_eq!(beyond.header("content-range"), Some("bytes */400000"));
        for whole in ["bytes=5-1", "bytes=0-1,5-6", "chars=0-1"] {
            assert_eq!(part(whole).status, 200, "{whole}");
        }
        assert_eq!(client.get(&path).header("accept-ranges"), Some("bytes"));
    }
}

#[test]
fn what_a_browser_would_run_is_kept_away_from_this_origin() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let put = |key: &str, content_type: &str| {
        client.put(
            &format!("{store}/records/{key}"),
            content_type,
            b"<script>1</script>",
        );
        client.get(&format!("{store}/records/{key}"))
    };
    for (key, content_type) in [
        ("a", "text/html; charset=utf-8"),
        ("b", "image/svg+xml"),
        ("c", "TEXT/HTML"),
        ("d", "application/xhtml+xml"),
        ("e", "nonsense"),
    ] {
        let got = put(key, content_type);
        assert_eq!(got.body, b"<script>1</script>");
        assert_eq!(
            got.header("content-security-policy"),
            Some("sandbox"),
            "{content_type}"
        );
    }
    let plain = put("f", "text/plain");
    assert_eq!(plain.header("content-security-policy"), None);
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(plain.header("content-disposition"), None);
    for yes in ["1", "true"] {
        let got = client.get(&format!("{store}/records/a?attachment={yes}"));
        assert_eq!(got.header("content-disposition"), Some("attachment"));
    }
    let no = client.get(&format!("{store}/records/a?attachment=false"));
    assert_eq!(no.header("content-disposition"), None);
}

#[test]
fn an_upload_that_breaks_off_never_becomes_a_record() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        client.put(&path, "text/plain", b"before");
        for sent in [&b"12345"[..], &bytes(3_000_000)] {
            let mut head = client.head("PUT", &path, &[]);
            head += "content-length: 5000000\r\n\r\n";
            let mut stream = client.connect();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let reply = Reply::read(&mut BufReader::new(&mut stream), "PUT");
            assert!(reply.status == 0 || reply.status == 400, "{reply:?}");
        }
        assert_eq!(client.get(&path).body, b"before");
        assert_eq!(client.get(&format!("{store}/keys")).data()["count"], 1);
        assert_eq!(served.kept(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn the_records_come_as_one_archive() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let long = bytes(3_000_000);
        for (key, body) in [("a", &b"first"[..]), ("b-1", b""), ("b-2", &long)] {
            client.put(&format!("{store}/records/{key}"), "text/plain", body);
        }
        let read = |query: &str| {
            let got = client.get(&format!("{store}/records{query}"));
            assert_eq!(
                (got.status, got.header("content-type")),
                (200, Some("application/zip"))
            );
            let mut zip = zip::ZipArchive::new(std::io::Cursor::new(got.body)).unwrap();
            let mut found = Vec::new();
            for number in 0..zip.len() {
                let mut file = zip.by_index(number).unwrap();
                let mut body = Vec::new();
                file.read_to_end(&mut body).unwrap();
                found.push((file.name().unwrap().into_owned(), body));
            }
            found
        };
        let all = read("");
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], ("a".to_owned(), b"first".to_vec()));
        assert_eq!(all[1], ("b-1".to_owned(), Vec::new()));
        assert!(all[2].0 == "b-2" && all[2].1 == long);
        let some: Vec<String> = read("?prefix=b-")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(some, ["b-1", "b-2"]);
    }
}

#[test]
fn the_default_store_of_a_run_is_reached_by_every_alias() {
    for served in Served::each() {
        let client = served.client();
        let run = "/v2/actor-runs/aaaaaaaaaaaaaaaaa";
        let put = client.put(
            &format!("{run}/key-value-store/records/OUTPUT"),
            "text/plain",
            b"1",
        );
        assert_eq!(put.status, 201, "{put:?}");
        let shown = client.get(run).data();
        assert_eq!(shown["id"], "aaaaaaaaaaaaaaaaa");
        let store = shown["defaultKeyValueStoreId"].as_str().unwrap().to_owned();
        for root in [
            run.to_owned() + "/key-value-store",
            "/v2/actors/ann~act/runs/last/key-value-store".to_owned(),
            "/v2/acts/ann~act/runs/last/key-value-store".to_owned(),
            "/v2/actor-tasks/ann~task/runs/last/key-value-store".to_owned(),
            format!("/v2/key-value-stores/{store}"),
            "/v2/key-value-stores/default".to_owned(),
        ] {
            assert_eq!(client.get(&root).data()["id"], store.as_str(), "{root}");
            let got = client.get(&format!("{root}/records/OUTPUT?status=SUCCEEDED"));
            assert_eq!(got.body, b"1", "{root}");
            assert_eq!(
                client
                    .send("HEAD", &format!("{root}/records/OUTPUT"), &[], b"")
                    .status,
                200
            );
            assert_eq!(client.get(&format!("{root}/keys")).data()["count"], 1);
        }
        client
            .get("/v2/actor-runs/short")
            .assert_error(404, "record-not-found");
        served
            .client_with(None)
            .get(run)
            .assert_error(401, "token-not-provided");
    }
}

#[test]
fn a_server_of_one_run_knows_that_run_alone() {
    let served = Served::with(|options| options.run = Some("bbbbbbbbbbbbbbbbb".to_owned()));
    assert_eq!(
        served
            .client()
            .get("/v2/actor-runs/bbbbbbbbbbbbbbbbb")
            .status,
        200
    );
    let other = served.client().get("/v2/actor-runs/aaaaaaaaaaaaaaaaa");
    other.assert_error(404, "record-not-found");
}

#[test]
fn what_a_past_run_says_leaves_the_ids_of_others_as_they_are() {
    let served = Served::folder();
    let client = served.client();
    let (past, other) = ("ccccccccccccccccc", "/v2/actor-runs/aaaaaaaaaaaaaaaaa");
    let shown = client.get(other).data();
    let store = shown["defaultKeyValueStoreId"].as_str().unwrap();
    let kept = Kept::below(&served.path().join("server"));
    kept.keep(&Run::begun(past, store)).unwrap();
    let path = format!("/v2/actor-runs/{past}");
    let said = client.put(&path, "application/json", br#"{"statusMessage":"late"}"#);
    assert_eq!(said.data()["statusMessage"], "late");
    assert_eq!(client.get(&path).data()["statusMessage"], "late");
    assert_eq!(client.get(other).status, 200);
}
