//! How much memory a long record takes on its way to a server and back. Alone in its program, so that it measures itself.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use remote::{apify, put_as, record, runtime};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use storefs::backend::Backend;
use storefs::record::{Body, Size};

#[test]
fn a_record_of_a_gibibyte_goes_and_comes_in_little_memory() {
    const LENGTH: u64 = 1 << 30;
    let temp = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create_new(temp.path().join("sparse")).unwrap();
    sparse.set_len(LENGTH).unwrap();
    sparse.write_all_at(b"end", LENGTH - 3).unwrap();
    let sparse = std::fs::File::open(temp.path().join("sparse")).unwrap();
    // The server counts and forgets, and gives back as much.
    let server = Counting::new();
    let backend = apify(server.address);
    let runtime = runtime();
    let before = resident();
    let (id, body) = (record("k"), Body::File(Arc::new(sparse)));
    let write = put_as(&backend, &id, body, "application/octet-stream");
    let meta = runtime.block_on(write).unwrap();
    assert_eq!(meta.size, Size::Exact(LENGTH));
    assert_eq!(server.received.load(Ordering::SeqCst), LENGTH as usize);
    let mut fetched = runtime.block_on(backend.get(&id, None)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut count, mut most) = (0, 0);
    loop {
        let read = fetched.bytes.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        count += read as u64;
        if count % (64 << 20) < (1 << 20) {
            most = most.max(resident());
        }
    }
    assert_eq!(count, LENGTH);
    assert!(most < before + (100 << 20), "{} MiB", (most - before) >> 20);
}

/// What this process holds in memory, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A server that swallows one body and gives back one of the same length.
struct Counting {
    address: std::net::SocketAddr,
    received: Arc<AtomicUsize>,
}

impl Counting {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<AtomicUsize>::default();
        let counted = received.clone();
        // It ends with the second answer.
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut buffer = vec![0; 1 << 20];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
                let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
                    rest.split_once('\r').unwrap().0.parse::<usize>().unwrap()
                });
                let mut left = length;
                while left > 0 {
                    let count = stream.read(&mut buffer[..left.min(1 << 20)]).unwrap();
                    left -= count;
                }
                counted.fetch_add(length, Ordering::SeqCst);
                if length > 0 {
                    stream.write_all(b"HTTP/1.1 201 Made\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").unwrap();
                    continue;
                }
                let all = counted.load(Ordering::SeqCst);
                let text = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {all}\r\n\r\n"
                );
                stream.write_all(text.as_bytes()).unwrap();
                for _ in 0..all >> 20 {
                    stream.write_all(&buffer).unwrap();
                }
            }
        });
        Self { address, received }
    }
}
