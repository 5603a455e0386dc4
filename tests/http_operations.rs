//! What an operator relies on: health, metrics, request ids, limits of connections, an orderly end; and changes as events.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Reply, Served};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn health_and_metrics_need_no_token_and_tell_no_names() {
    let served = Served::memory();
    let (client, nobody) = (served.client(), served.client_with(None));
    let store = served.store("very-secret-name");
    client.put(
        &format!("{store}/records/very-secret-key"),
        "text/plain",
        b"x",
    );
    client.get(&format!("{store}/records/nothing"));
    client.get("/nowhere");
    let health = nobody.get("/health");
    assert_eq!(
        (health.status, &health.body[..]),
        (200, &b"{\"status\":\"ok\"}"[..])
    );
    let metrics = nobody.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "storefs_requests_total{operation=\"put_record\",status=\"2xx\"} 1",
        "storefs_requests_total{operation=\"get_record\",status=\"4xx\"} 1",
        "storefs_requests_total{operation=\"unknown\",status=\"4xx\"} 1",
        "storefs_request_seconds_count{operation=\"create_store\"} 1",
        "storefs_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("secret") && !text.contains(&served.token));
}

#[test]
fn a_request_keeps_its_own_id_or_gets_one() {
    let served = Served::memory();
    let client = served.client();
    let with = |id: &str| client.get_with("/health", &[("x-request-id", id)]);
    assert_eq!(with("my-id_1.2").header("x-request-id"), Some("my-id_1.2"));
    let ids: Vec<String> = ["a b", &"x".repeat(65), "<b>", ""]
        .iter()
        .map(|id| with(id).header("x-request-id").unwrap().to_owned())
        .collect();
    for (number, id) in ids.iter().enumerate() {
        assert!(
            id.bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-'),
            "{id}"
        );
        assert!(!ids[..number].contains(id));
    }
    assert!(client.get("/nowhere").header("x-request-id").is_some());
}

#[test]
fn unknown_paths_methods_and_other_parts_of_the_api_are_told_apart() {
    let served = Served::memory();
    let client = served.client();
    for path in [
        "/",
        "/v2",
        "/v2/nothing",
        "/v1/key-value-stores",
        "/v2/key-value-stores/a/b",
    ] {
        client.get(path).assert_error(404, "page-not-found");
    }
    for path in [
        "/v2/datasets",
        "/v2/datasets/a/items",
        "/v2/request-queues",
        "/v2/acts",
        "/v2/actors/a/runs",
        "/v2/actor-tasks",
        "/v2/actor-builds/a",
        "/v2/schedules",
        "/v2/webhooks",
        "/v2/logs/a",
        "/v2/store",
        "/v2/users/me/limits",
    ] {
        client.get(path).assert_error(501, "not-implemented");
    }
    client
        .post("/v2/actor-runs/aaaaaaaaaaaaaaaaa/metamorph", b"")
        .assert_error(501, "not-implemented");
    let wrong = client.send("PATCH", "/v2/key-value-stores", &[], b"");
    wrong.assert_error(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), Some("GET,POST"));
    let wrong = client.send("OPTIONS", "/v2/key-value-stores/a/records/b", &[], b"");
    wrong.assert_error(405, "method-not-allowed");
    assert_eq!(wrong.header("allow"), Some("GET,HEAD,PUT,POST,DELETE"));
    assert!(
        wrong
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with("access-control"))
    );
}

#[test]
fn many_requests_go_over_one_connection() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let stream = client.connect();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    for number in 0..50 {
        let body = format!("body {number}");
        let path = format!("{store}/records/k{number}");
        let length = body.len().to_string();
        let head = client.head("PUT", &path, &[("content-length", &length)]) + "\r\n";
        writer.write_all((head + &body).as_bytes()).unwrap();
        assert_eq!(Reply::read(&mut reader, "PUT").status, 201);
        let head = client.head("GET", &path, &[]) + "\r\n";
        writer.write_all(head.as_bytes()).unwrap();
        assert_eq!(Reply::read(&mut reader, "GET").body, body.as_bytes());
    }
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let served = Served::with(|options| options.limits.connections = 2);
    let client = served.client();
    let (one, two) = (client.connect(), client.connect());
    let waiting = client.clone();
    let third = std::thread::spawn(move || waiting.get("/health").status);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!third.is_finished());
    drop(one);
    assert_eq!(third.join().unwrap(), 200);
    drop(two);
}

#[test]
fn an_end_waits_for_requests_under_way_and_takes_no_new_ones() {
    let mut served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let path = format!("{store}/records/a");
    let mut under_way = client.connect();
    let head = client.head("PUT", &path, &[("content-length", "6")]) + "\r\nabc";
    under_way.write_all(head.as_bytes()).unwrap();
    let idle = client.connect();
    std::thread::sleep(Duration::from_millis(200));
    served.begin_to_stop();
    std::thread::sleep(Duration::from_millis(200));
    assert!(TcpStream::connect(served.address).is_err());
    under_way.write_all(b"def").unwrap();
    let reply = Reply::read(&mut BufReader::new(under_way), "PUT");
    assert_eq!(reply.status, 201, "{reply:?}");
    drop(idle);
    assert!(served.stop(Duration::from_secs(10)));
}

#[test]
fn an_end_does_not_wait_for_ever() {
    let mut served = Served::with(|options| options.limits.grace = Duration::from_millis(300));
    let (client, store) = (served.client(), served.store("s"));
    let mut stuck = client.connect();
    let head = client.head(
        "PUT",
        &format!("{store}/records/a"),
        &[("content-length", "6")],
    );
    stuck.write_all((head + "\r\nabc").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert!(served.stop(Duration::from_secs(10)));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// One event of a stream: id and data.
fn event(stream: &mut impl BufRead) -> Option<(String, Value)> {
    let (mut id, mut data) = (String::new(), Value::Null);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        let line = line.trim_end();
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.to_owned();
        } else if let Some(text) = line.strip_prefix("data: ") {
            data = serde_json::from_str(text).unwrap();
        } else if line.is_empty() && !data.is_null() {
            return Some((id, data));
        }
    }
}

fn follow(client: &Client, store: &str, last: Option<&str>) -> BufReader<TcpStream> {
    let mut headers = Vec::new();
    if let Some(last) = last {
        headers.push(("last-event-id", last));
    }
    let mut stream = client.connect();
    let head = client.head("GET", &format!("{store}/changes"), &headers) + "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    while line.trim_end() != ": storefs" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0);
    }
    stream
}

#[test]
fn changes_are_told_as_they_happen_and_again_after_a_break() {
    for mut served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let mut stream = follow(&client, &store, None);
        let put = client.put(&format!("{store}/records/a"), "text/plain", b"1");
        let (first, data) = event(&mut stream).unwrap();
        assert_eq!((&data["kind"], &data["key"]), (&"put".into(), &"a".into()));
        assert_eq!(
            format!("\"{}\"", data["etag"].as_str().unwrap()),
            put.header("etag").unwrap()
        );
        drop(stream);
        client.delete(&format!("{store}/records/a"));
        client.put(&format!("{store}/records/b"), "text/plain", b"2");
        let mut stream = follow(&client, &store, Some(&first));
        let (_, data) = event(&mut stream).unwrap();
        assert_eq!(
            (&data["kind"], &data["key"]),
            (&"delete".into(), &"a".into())
        );
        let (_, data) = event(&mut stream).unwrap();
        assert_eq!((&data["kind"], &data["key"]), (&"put".into(), &"b".into()));
        // A place that no feed of this server ever had.
        let mut lost = follow(&client, &store, Some("nonsense"));
        assert_eq!(event(&mut lost).unwrap().1["kind"], "reset");
        // The server does not wait for who listens.
        let begun = Instant::now();
        assert!(served.stop(Duration::from_secs(10)));
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert_eq!(event(&mut stream), None);
    }
}
