//! What one client can take from the others, and for how long a right lasts.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Reply, Served, Serving, home};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How many archives are sent at one time.
const ARCHIVES: usize = 16;

fn follow(client: &Client, store: &str) -> BufReader<TcpStream> {
    let mut stream = client.connect();
    let head = client.head(
        "GET",
        &format!("{store}/changes"),
        &[("connection", "close")],
    ) + "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    until_line(&mut stream, ": storefs");
    stream
}

/// Reads up to a line with this; what came before it.
#[track_caller]
fn until_line(stream: &mut impl BufRead, wanted: &str) -> String {
    let mut all = String::new();
    while !all.contains(wanted) {
        assert!(stream.read_line(&mut all).unwrap() > 0, "{wanted}: {all}");
    }
    all
}

fn wait_for(status: u16, ask: impl Fn() -> Reply) {
    for _ in 0..400 {
        if ask().status == status {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it does not come to {status}");
}

/// Whether a stream ends before it tells of this.
fn ends_before(mut stream: BufReader<TcpStream>, event: &str) -> bool {
    let mut all = String::new();
    while stream.read_line(&mut all).unwrap() > 0 {
        if all.contains(event) {
            return false;
        }
    }
    true
}

#[test]
fn a_token_that_ends_follows_no_more_changes() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let brief = served.tokens.add("ann", false, None).unwrap();
    let other = served.wait_for(&brief);
    let mut stays = follow(&client, &store);
    let mut ends = follow(&other, &store);
    client.put(&format!("{store}/records/first"), "text/plain", b"1");
    until_line(&mut ends, "first");
    served.tokens.revoke(&brief).unwrap();
    wait_for(401, || other.get(&store));
    client.put(&format!("{store}/records/second"), "text/plain", b"2");
    assert!(ends_before(ends, "second"));
    until_line(&mut stays, "second");
}

#[test]
fn a_store_that_is_closed_is_not_followed_by_others_any_more() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let access = |access: &str| {
            let body = format!("{{\"generalAccess\":\"{access}\"}}");
            let headers = [("content-type", "application/json")];
            let changed = client.send("PUT", &store, &headers, body.as_bytes());
            assert_eq!(changed.status, 200, "{changed:?}");
        };
        access("ANYONE_WITH_ID_CAN_READ");
        let mut follower = follow(&served.client_with(None), &store);
        client.put(&format!("{store}/records/first"), "text/plain", b"1");
        until_line(&mut follower, "first");
        access("RESTRICTED");
        client.put(&format!("{store}/records/second"), "text/plain", b"2");
        assert!(ends_before(follower, "second"));
    }
}

#[test]
fn who_reads_archives_slowly_keeps_nobody_waiting_for_ever() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    // Far more than the system holds for a connection.
    let long = vec![7; 16 << 20];
    client.put(&format!("{store}/records/long"), "video/mp4", &long);
    let path = format!("{store}/records");
    let begin = || {
        let mut stream = client.connect();
        let head = client.head("GET", &path, &[]) + "\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        until_line(&mut stream, " 200 ");
        stream
    };
    let mut slow: Vec<_> = (0..ARCHIVES).map(|_| begin()).collect();
    let refused = client.get(&path);
    refused.assert_error(503, "internal-server-error");
    assert_eq!(refused.header("retry-after"), Some("5"));
    // Other requests do not wait for them.
    assert_eq!(client.get(&format!("{store}/keys")).status, 200);
    slow.pop();
    let begun = Instant::now();
    let mut got = client.get(&path);
    while got.status == 503 && begun.elapsed() < Duration::from_secs(60) {
        got = client.get(&path);
    }
    assert_eq!(got.status, 200);
    assert!(got.whole && got.body.len() > long.len());
}

#[test]
fn many_spellings_of_one_store_with_a_long_schema_take_little_memory() {
    const SCHEMA: usize = 4 << 20;
    const SPELLINGS: usize = 100;
    let (_temp, home) = home();
    std::fs::create_dir(home.join("storage")).unwrap();
    let args = ["serve", "storage", "--any-token", "--listen", "127.0.0.1:0"];
    let serving = Serving::start(&home, &args, 1);
    let client = serving.client("any");
    let schema = format!("{{\"schema\":{{\"title\":\"{}\"}}}}", "x".repeat(SCHEMA));
    let made = client.post("/v2/key-value-stores?name=spellings", schema.as_bytes());
    assert_eq!(made.status, 201);
    let before = serving.most_memory();
    for number in 0..SPELLINGS {
        let letters = "spellings".char_indices().map(|(at, letter)| {
            let upper = number >> at & 1 == 1;
            if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        });
        let name: String = letters.collect();
        let keys = client.get(&format!("/v2/key-value-stores/~{name}/keys"));
        assert_eq!(keys.status, 200, "{keys:?}");
    }
    let grown = serving.most_memory() - before;
    assert!(grown < 100 << 10, "{grown} KiB");
    // It is shown whole all the same.
    let shown = client.get("/v2/key-value-stores/~Spellings").data();
    let title = shown["schema"]["title"].as_str().unwrap();
    assert_eq!(title.len(), SCHEMA);
}
