//! Conditions over HTTP: reads that say nothing new, writes that must not overwrite, and many writers at once.
#![allow(clippy::unwrap_used)]

mod http;

use http::Served;
use std::sync::Barrier;

#[test]
fn a_record_that_has_not_changed_is_not_sent_again() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        let put = client.put(&path, "text/plain", b"one");
        let got = client.get(&path);
        let (etag, modified) = (
            got.header("etag").unwrap(),
            got.header("last-modified").unwrap(),
        );
        assert_eq!(put.header("etag"), Some(etag));
        let with = |name: &str, value: &str| client.get_with(&path, &[(name, value)]);
        for same in [etag, "*", &format!("\"x\", {etag}"), &format!("W/{etag}")] {
            let unchanged = with("if-none-match", same);
            assert_eq!(
                (unchanged.status, &unchanged.body[..]),
                (304, &b""[..]),
                "{same}"
            );
            assert_eq!(unchanged.header("etag"), Some(etag));
        }
        assert_eq!(with("if-none-match", "\"other\"").status, 200);
        assert_eq!(with("if-modified-since", modified).status, 304);
        assert_eq!(
            with("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT").status,
            200
        );
        assert_eq!(with("if-modified-since", "yesterday").status, 200);
        assert_eq!(with("if-match", etag).status, 200);
        with("if-match", "\"other\"").assert_error(412, "precondition-failed");
        with("if-match", "bare").assert_error(400, "invalid-header");
        let head = client.send("HEAD", &path, &[("if-none-match", etag)], b"");
        assert_eq!(head.status, 304);
        client.put(&path, "text/plain", b"two");
        assert_eq!(with("if-none-match", etag).body, b"two");
        let stale = [("range", "bytes=0-0"), ("if-range", etag)];
        assert_eq!(client.get_with(&path, &stale).status, 200);
        let now = client.get(&path).header("etag").unwrap().to_owned();
        let fresh = [("range", "bytes=0-0"), ("if-range", now.as_str())];
        assert_eq!(client.get_with(&path, &fresh).status, 206);
    }
}

#[test]
fn a_write_happens_only_on_the_version_it_was_made_from() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        let put = |name: &str, value: &str, body: &[u8]| {
            client.send("PUT", &path, &[(name, value)], body)
        };
        put("if-match", "*", b"0").assert_error(412, "precondition-failed");
        put("if-match", "\"x\"", b"0").assert_error(412, "precondition-failed");
        assert_eq!(client.get(&path).status, 404);
        let first = put("if-none-match", "*", b"1");
        assert_eq!(first.status, 201, "{first:?}");
        put("if-none-match", "*", b"2").assert_error(412, "precondition-failed");
        let first = first.header("etag").unwrap().to_owned();
        put("if-none-match", &first, b"2").assert_error(412, "precondition-failed");
        let second = put("if-match", &first, b"22");
        assert_eq!(second.status, 201);
        put("if-match", &first, b"333").assert_error(412, "precondition-failed");
        let second = second.header("etag").unwrap().to_owned();
        assert_eq!(
            put("if-match", &format!("\"x\", {second}"), b"333").status,
            201
        );
        assert_eq!(put("if-match", "*", b"4444").status, 201);
        assert_eq!(put("if-none-match", &first, b"55555").status, 201);
        assert_eq!(client.get(&path).body, b"55555");
        let delete = |name: &str, value: &str| client.send("DELETE", &path, &[(name, value)], b"");
        delete("if-match", &first).assert_error(412, "precondition-failed");
        delete("if-none-match", "*").assert_error(412, "precondition-failed");
        let now = client.get(&path).header("etag").unwrap().to_owned();
        assert_eq!(delete("if-match", &now).status, 204);
        delete("if-match", &now).assert_error(412, "precondition-failed");
        delete("if-match", "*").assert_error(412, "precondition-failed");
    }
}

#[test]
fn of_many_writers_that_demand_the_same_version_one_wins() {
    const WRITERS: usize = 16;
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let path = format!("{store}/records/a");
        let race = |name: &str, value: &str| {
            let start = Barrier::new(WRITERS);
            std::thread::scope(|scope| {
                let writers: Vec<_> = (0..WRITERS)
                    .map(|number| {
                        let (start, client, path) = (&start, &client, &path);
                        scope.spawn(move || {
                            start.wait();
                            let body = format!("writer {number}");
                            let put = client.send("PUT", path, &[(name, value)], body.as_bytes());
                            assert!([201, 412].contains(&put.status), "{put:?}");
                            (put.status == 201).then_some(body)
                        })
                    })
                    .collect();
                let won = writers
                    .into_iter()
                    .filter_map(|writer| writer.join().unwrap());
                won.collect::<Vec<String>>()
            })
        };
        let made = race("if-none-match", "*");
        assert_eq!(made.len(), 1, "{made:?}");
        for _ in 0..5 {
            let etag = client.get(&path).header("etag").unwrap().to_owned();
            let won = race("if-match", &etag);
            assert_eq!(won.len(), 1, "{won:?}");
            assert_eq!(client.get(&path).body, won[0].as_bytes());
        }
    }
}
