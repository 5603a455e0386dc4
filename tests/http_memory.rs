//! A record goes up and down in pieces: what the server holds of it in memory does not grow with its length.
#![allow(clippy::unwrap_used)]

mod http;

use http::Client;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The length of the record, which is more than three times what the server may ever hold.
const LENGTH: u64 = 200 << 20;
const PIECE: usize = 1 << 20;
/// What the server may hold at most, in KiB.
const MOST: u64 = 64 << 10;

/// A server in a process of its own, which ends with the test.
struct Serving {
    child: Child,
    client: Client,
}

impl Serving {
    fn start(home: &Path) -> Self {
        std::fs::create_dir(home.join("storage")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_storefs"))
            .args(["serve", "storage", "--listen", "127.0.0.1:0"])
            .args(["--layout", "dual", "--tokens", "tokens.json"])
            .env_clear()
            .env("HOME", home)
            .env("USER", "ann")
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let (address, token) = (line(), line());
        let address = address.rsplit_once("http://").unwrap().1.parse().unwrap();
        let token = token.split_once('=').unwrap().1.to_owned();
        Self {
            child,
            client: Client::new(address, Some(&token)),
        }
    }

    /// The most memory that the process ever had, in KiB.
    fn most(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words = line.unwrap().split_whitespace().nth(1).unwrap();
        words.parse().unwrap()
    }

    /// Sends a record piece by piece.
    fn put(&self, path: &str) {
        let headers = [("connection", "close"), ("content-type", "video/mp4")];
        let mut head = self.client.head("PUT", path, &headers);
        head += &format!("content-length: {LENGTH}\r\n\r\n");
        let mut stream = self.client.connect();
        stream.write_all(head.as_bytes()).unwrap();
        for number in 0..LENGTH / PIECE as u64 {
            stream.write_all(&piece(number)).unwrap();
        }
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }

    /// Reads it piece by piece, and compares.
    fn get(&self, path: &str) {
        let mut stream = self.client.connect();
        let head = self.client.head("GET", path, &[("connection", "close")]) + "\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let mut read = vec![0; PIECE];
        for number in 0..LENGTH / PIECE as u64 {
            stream.read_exact(&mut read).unwrap();
            assert!(read == piece(number), "piece {number} is another");
        }
        assert_eq!(stream.read(&mut read).unwrap(), 0);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes at this place of the record.
fn piece(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; PIECE];
    for (at, byte) in bytes.iter_mut().enumerate().step_by(8) {
        *byte = (number as usize * 31 + at / 8) as u8;
    }
    bytes
}

#[test]
fn a_long_record_goes_up_and_down_in_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path());
    let made = serving.client.post("/v2/key-value-stores?name=long", b"");
    assert_eq!(made.status, 201);
    let path = "/v2/key-value-stores/~long/records/film";
    serving.put(path);
    serving.get(path);
    assert!(serving.most() < MOST, "{} KiB", serving.most());
}
