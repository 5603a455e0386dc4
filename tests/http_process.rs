//! The server as a process: its log, its sockets, its end.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Reply, Serving, home, storefs};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const RECORD: &str = "/v2/key-value-stores/default/records/a";

/// A server of a folder with the store `default`, and a client of its user.
fn serve(home: &Path, log: Option<&str>) -> (Serving, Client, String) {
    std::fs::create_dir_all(home.join("storage/key_value_stores/default")).unwrap();
    let args = ["serve", "--tokens", "t.json", "--listen", "127.0.0.1:0"];
    let mut command = storefs(home, &args);
    if let Some(log) = log {
        command.env("STOREFS_LOG", log);
    }
    let serving = Serving::of(command, 3);
    let token = serving.lines[1].split_once('=').unwrap().1.to_owned();
    let client = serving.client(&token);
    (serving, client, token)
}

/// The parts of a line about a request: method, path, status, time, id.
fn lines(log: &str) -> Vec<[String; 5]> {
    let parts = log.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().skip(2).map(str::to_owned).collect();
        words.try_into()
    });
    let whole: Vec<[String; 5]> = parts.filter_map(Result::ok).collect();
    let lines = whole.into_iter().filter(|line| line[3].ends_with("ms"));
    lines.collect()
}

#[test]
fn every_answer_has_a_line_in_the_log_and_no_secret_is_in_it() {
    let (_temp, home) = home();
    let (serving, client, token) = serve(&home, None);
    let nobody = serving.client("wrong-token");
    let asked = [
        client.put(RECORD, "text/plain", b"the-secret-of-the-record"),
        client.get(&format!("{RECORD}?token={token}&signature=very-private")),
        client.send("HEAD", RECORD, &[("x-request-id", "chosen.by-client")], b""),
        client.get(&format!("{RECORD}-missing")),
        nobody.get(RECORD),
        client.get("/nowhere"),
        client.get(&format!("{RECORD}?method=DELETE")),
        client.raw(&[b"GET / HTTP/1.1\r\nbad header\r\n\r\n"], "GET"),
    ];
    let wanted = [
        ("PUT", RECORD.to_owned(), 201),
        ("GET", RECORD.to_owned(), 200),
        ("HEAD", RECORD.to_owned(), 200),
        ("GET", format!("{RECORD}-missing"), 404),
        ("GET", RECORD.to_owned(), 401),
        ("GET", "/nowhere".to_owned(), 404),
        ("DELETE", RECORD.to_owned(), 204),
        ("-", "-".to_owned(), 400),
    ];
    let (status, log) = serving.end(Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    let lines = lines(&log);
    assert_eq!(lines.len(), asked.len(), "{log}");
    for ((reply, (method, path, status)), line) in asked.iter().zip(wanted).zip(lines) {
        let [said_method, said_path, said_status, time, id] = line;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!((said_method.as_str(), said_path), (method, path), "{log}");
        assert_eq!(said_status, status.to_string(), "{log}");
        let time: f64 = time.trim_end_matches("ms").parse().unwrap();
        assert!(time >= 0.0);
        assert_eq!(reply.header("x-request-id"), Some(id.as_str()), "{log}");
    }
    for secret in [&*token, "wrong-token", "very-private", "secret-of", "?"] {
        assert!(!log.contains(secret), "{secret} is in {log}");
    }
}

#[test]
fn the_lines_of_requests_can_be_turned_off() {
    for filter in ["info,access=off", "info,access=warn"] {
        let (_temp, home) = home();
        let (serving, client, _) = serve(&home, Some(filter));
        let put = client.put(RECORD, "text/plain", b"x");
        assert!(put.status == 201 && put.header("x-request-id").is_some());
        let refused = client.raw(&[b"nonsense\r\n\r\n"], "GET");
        assert!(refused.status == 400 && refused.header("x-request-id").is_some());
        let (_, log) = serving.end(Signal::TERM);
        assert!(lines(&log).is_empty(), "{log}");
        assert!(log.contains("ended"), "{log}");
    }
}

#[test]
fn lines_of_requests_are_in_the_log_a_moment_later_though_the_server_is_killed() {
    let (_temp, home) = home();
    let (serving, client, _) = serve(&home, None);
    for n in 0..50 {
        client.get(&format!("{RECORD}-{n}"));
    }
    std::thread::sleep(Duration::from_secs(2));
    let (status, log) = serving.end(Signal::KILL);
    assert_eq!(status, None);
    let paths: Vec<_> = lines(&log).into_iter().map(|[_, path, ..]| path).collect();
    let wanted: Vec<_> = (0..50).map(|n| format!("{RECORD}-{n}")).collect();
    assert_eq!(paths, wanted, "{log}");
}

/// The server's own end of a connection, fetched out of its process.
fn other_end(serving: &Serving, stream: &TcpStream) -> OwnedFd {
    let process = pidfd_open(serving.pid(), PidfdFlags::empty()).unwrap();
    let wanted = stream.local_addr().unwrap();
    let folder = format!("/proc/{}/fd", serving.pid().as_raw_nonzero());
    let numbers = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.parse().ok()
    });
    let mut sockets = numbers.filter_map(|number| {
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let peer = rustix::net::getpeername(&socket).ok()??;
        let peer = SocketAddr::try_from(peer).ok()?;
        (peer == wanted).then_some(socket)
    });
    sockets.next().expect("the server has no such connection")
}

#[test]
fn accepted_connections_do_not_hold_back_small_answers() {
    let (_temp, home) = home();
    let (serving, client, _) = serve(&home, None);
    let mut stream = BufReader::new(client.connect());
    let head = client.head("GET", "/health", &[]) + "\r\n";
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(Reply::read(&mut stream, "GET").status, 200);
    let theirs = other_end(&serving, stream.get_ref());
    assert!(rustix::net::sockopt::tcp_nodelay(theirs.as_fd()).unwrap());
}

/// Waits until nobody listens there any more.
fn wait_until_closed(address: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < until, "it still takes connections");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_slow_upload_is_finished_before_the_process_ends() {
    let (_temp, home) = home();
    let (serving, client, _) = serve(&home, None);
    let body = vec![b'x'; 1 << 20];
    let length = body.len().to_string();
    let mut upload = client.connect();
    let head = client.head("PUT", RECORD, &[("content-length", &length)]) + "\r\n";
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(&body[..500_000]).unwrap();
    let address = serving.address();
    // The request has surely begun once a later one is answered.
    assert_eq!(client.get("/health").status, 200);
    serving.signal(Signal::TERM);
    wait_until_closed(&address);
    for piece in body[500_000..].chunks(100_000) {
        upload.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let reply = Reply::read(&mut BufReader::new(upload), "PUT");
    assert_eq!(reply.status, 201, "{reply:?}");
    let (status, log) = serving.end(Signal::CONT);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("finishing the requests under way"), "{log}");
    let stored = home.join("storage/key_value_stores/default");
    let sizes = std::fs::read_dir(stored)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.into_iter().any(|size| size == body.len() as u64));
}

#[test]
fn a_second_signal_does_not_wait_for_uploads() {
    let (_temp, home) = home();
    let (serving, client, _) = serve(&home, None);
    let mut upload = client.connect();
    let head = client.head("PUT", RECORD, &[("content-length", "9")]) + "\r\nabc";
    upload.write_all(head.as_bytes()).unwrap();
    assert_eq!(client.get("/health").status, 200);
    serving.signal(Signal::TERM);
    wait_until_closed(&serving.address());
    let (status, log) = serving.end(Signal::TERM);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("requests are cut off"), "{log}");
    let stored = std::fs::read_dir(home.join("storage/key_value_stores/default")).unwrap();
    assert_eq!(stored.count(), 0, "half an upload became a record");
}
