//! What a server holds in memory does not grow with the length of a record, nor with what hostile clients send.
#![allow(clippy::unwrap_used)]

mod http;

use flate2::Compression;
use http::{Client, Reply};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The length of the record in MiB, which is more than three times what the server may ever hold. `STOREFS_LONG_MIB` makes it
/// another one.
const LENGTH: u64 = 200;
const PIECE: usize = 1 << 20;
/// What the server may hold at most, in KiB.
const MOST: u64 = 64 << 10;

/// A server in a process of its own, which ends with the test.
struct Serving {
    child: Child,
    client: Client,
}

impl Serving {
    fn start(home: &Path, more: &[&str]) -> Self {
        std::fs::create_dir(home.join("storage")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_storefs"))
            .args(["serve", "storage", "--listen", "127.0.0.1:0"])
            .args(["--layout", "dual", "--tokens", "tokens.json"])
            .args(more)
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
        let client = Client::new(address, Some(&token));
        let made = client.post("/v2/key-value-stores?name=long", b"");
        assert_eq!(made.status, 201);
        Self { child, client }
    }

    /// The most memory that the process ever had, in KiB.
    fn most(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words = line.unwrap().split_whitespace().nth(1).unwrap();
        words.parse().unwrap()
    }

    #[track_caller]
    fn assert_at_most(&self, most: u64) {
        let held = self.most();
        println!("at most {held} KiB");
        assert!(held < most, "{held} KiB");
    }

    /// Nothing was stored, and what was on its way is gone.
    fn assert_empty(&self, home: &Path) {
        let keys = self.client.get("/v2/key-value-stores/~long/keys");
        assert_eq!(keys.data()["count"], 0, "{keys:?}");
        let left = std::fs::read_dir(home.join("storage/key_value_stores/long")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.iter().all(|name| name == "__metadata__.json"),
            "{left:?}"
        );
    }

    /// Sends a record piece by piece.
    fn put(&self, path: &str, length: u64) {
        let headers = [("connection", "close"), ("content-type", "video/mp4")];
        let mut head = self.client.head("PUT", path, &headers);
        head += &format!("content-length: {}\r\n\r\n", length << 20);
        let mut stream = self.client.connect();
        stream.write_all(head.as_bytes()).unwrap();
        for number in 0..length {
            stream.write_all(&piece(number)).unwrap();
        }
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }

    /// Reads it piece by piece, and compares.
    fn get(&self, path: &str, length: u64) {
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
        for number in 0..length {
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

const PATH: &str = "/v2/key-value-stores/~long/records/film";

#[test]
fn a_long_record_goes_up_and_down_in_little_memory() {
    let length = std::env::var("STOREFS_LONG_MIB");
    let length = length.map_or(LENGTH, |length| length.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path(), &[]);
    serving.put(PATH, length);
    serving.get(PATH, length);
    serving.assert_at_most(MOST);
}

/// Zeros, encoded.
fn bomb(encoding: &str, mib: usize) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let mut out = Vec::new();
    let mut writer: Box<dyn Write> = match encoding {
        "gzip" => Box::new(flate2::write::GzEncoder::new(&mut out, Compression::fast())),
        "deflate" => Box::new(flate2::write::ZlibEncoder::new(
            &mut out,
            Compression::fast(),
        )),
        _ => Box::new(brotli::CompressorWriter::new(&mut out, 4096, 1, 24)),
    };
    for _ in 0..mib {
        writer.write_all(&zeros).unwrap();
    }
    drop(writer);
    out
}

#[test]
fn bodies_that_grow_by_decoding_take_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path(), &["--max-record-size", "100MiB"]);
    let encodings = ["gzip", "deflate", "br"];
    let bombs = encodings.map(|encoding| (encoding, bomb(encoding, 120)));
    std::thread::scope(|scope| {
        for _ in 0..5 {
            for (encoding, body) in &bombs {
                let client = serving.client.clone();
                scope.spawn(move || {
                    let headers = [("content-encoding", *encoding)];
                    let reply = client.send("PUT", PATH, &headers, body);
                    reply.assert_error(413, "record-too-large");
                });
            }
        }
    });
    serving.assert_empty(home.path());
    // As many decoders at one time as there are processors, and a window of brotli has 16 MiB.
    let decoders = std::thread::available_parallelism().unwrap().get() as u64;
    serving.assert_at_most(MOST / 2 + decoders * (18 << 10));
    // One that stays below the limit goes up, and down again decoded.
    let headers = [("content-encoding", "gzip")];
    let body = bomb("gzip", 90);
    let put = serving.client.send("PUT", PATH, &headers, &body);
    assert_eq!(put.status, 201, "{put:?}");
    let got = serving.client.get(PATH);
    assert!(got.whole && got.body.len() == 90 << 20);
    serving.assert_at_most(MOST / 2 + decoders * (18 << 10));
}

#[test]
fn bodies_without_an_end_take_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path(), &["--max-record-size", "20MiB"]);
    let chunk = [&b"100000\r\n"[..], &vec![b'x'; PIECE], b"\r\n"].concat();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = serving.client.connect();
                let head =
                    serving.client.head("PUT", PATH, &[]) + "transfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                // Far more than the limit, unless the server has closed before.
                for _ in 0..200 {
                    if stream.write_all(&chunk).is_err() {
                        break;
                    }
                }
                let reply = Reply::read(&mut BufReader::new(stream), "PUT");
                // Who goes on for long enough is cut off.
                if reply.status != 0 {
                    reply.assert_error(413, "record-too-large");
                }
            });
        }
    });
    serving.assert_empty(home.path());
    serving.assert_at_most(MOST);
}

#[test]
fn many_slow_and_huge_heads_take_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path(), &[]);
    let client = &serving.client;
    let held = |text: &[u8]| -> TcpStream {
        let mut stream = client.connect();
        stream.write_all(text).unwrap();
        stream
    };
    let start = client.head("GET", "/health", &[]);
    let body = client.head("PUT", PATH, &[("content-length", "65000")]) + "\r\n";
    let body = [body.as_bytes(), &[b'x'; 60_000]].concat();
    let slow: Vec<TcpStream> = (0..300)
        .map(|number| match number % 3 {
            0 => held(b""),
            1 => held(format!("{start}x-slow: {}", "x".repeat(20_000)).as_bytes()),
            _ => held(&body),
        })
        .collect();
    // Others are served meanwhile, and heads that are too long are refused.
    let huge = "x".repeat(1 << 20);
    for _ in 0..50 {
        assert_eq!(client.get("/health").status, 200);
        let reply = client.get_with("/health", &[("x-huge", &huge)]);
        reply.assert_error(431, "invalid-header");
    }
    serving.assert_empty(home.path());
    serving.assert_at_most(MOST);
    drop(slow);
}

#[test]
fn clients_that_read_nothing_take_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let serving = Serving::start(home.path(), &[]);
    serving.put(PATH, 32);
    let client = &serving.client;
    let head = client.head("GET", PATH, &[]) + "\r\n";
    let idle: Vec<BufReader<TcpStream>> = (0..100)
        .map(|_| {
            let mut stream = client.connect();
            stream.write_all(head.as_bytes()).unwrap();
            // The answer has begun, and its first piece waits to be taken.
            let mut stream = BufReader::with_capacity(16, stream);
            stream.read_exact(&mut [0; 16]).unwrap();
            stream
        })
        .collect();
    assert_eq!(client.get("/health").status, 200);
    // A piece that is sent and one that is read ahead, for each of them.
    serving.assert_at_most(MOST / 2 + 100 * 768);
    drop(idle);
}
