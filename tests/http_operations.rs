//! What an operator relies on: health, metrics, request ids, limits of connections, an orderly end.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Reply, Served};
use std::io::{BufReader, Write};
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

#[test]
fn a_connection_that_is_idle_after_an_answer_is_closed() {
    let served = Served::with(|options| options.limits.head_time = Duration::from_millis(300));
    let client = served.client();
    let mut stream = BufReader::new(client.connect());
    for _ in 0..3 {
        let head = client.head("GET", "/health", &[]) + "\r\n";
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        assert_eq!(Reply::read(&mut stream, "GET").status, 200);
    }
    // The client waits longer than any test would; the server ends it.
    let end = Reply::read(&mut stream, "GET");
    assert!([0, 408].contains(&end.status), "{end:?}");
    let text = String::from_utf8(client.get("/metrics").body).unwrap();
    assert!(text.contains("storefs_connections 1\n"), "{text}");
}
