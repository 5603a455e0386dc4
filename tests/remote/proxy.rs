//! A proxy in front of a server that takes headers away in both directions and answers like a server that lacks them: so a
//! server that knows no more than the public API's documents say.

use super::scripted::{Answer, Request, Scripted};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Headers that the documents of the API do not know.
const UNKNOWN: [&str; 12] = [
    "etag",
    "last-modified",
    "accept-ranges",
    "content-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "range",
    "last-event-id",
    "transfer-encoding",
    "connection",
];

/// The proxy. Dropped, it ends.
pub struct Proxy {
    pub front: Scripted,
}

impl Proxy {
    /// In front of the server at this address.
    pub fn new(server: SocketAddr) -> Self {
        let front = Scripted::bare(move |request| {
            let path = request.path.split('?').next().unwrap();
            if path.ends_with("/changes") {
                return Answer::json(404, r#"{"error":{"type":"page-not-found","message":"?"}}"#);
            }
            pass_on(server, request)
        });
        Self { front }
    }

    pub fn address(&self) -> SocketAddr {
        self.front.address
    }
}

fn is_known(name: &str) -> bool {
    !UNKNOWN.contains(&name) && name != "content-length"
}

fn pass_on(server: SocketAddr, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(server).unwrap();
    let mut text = format!(
        "{} {} HTTP/1.1\r\nconnection: close\r\n",
        request.method, request.path
    );
    for (name, value) in request.headers.iter().filter(|(name, _)| is_known(name)) {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n", request.body.len());
    stream.write_all(text.as_bytes()).unwrap();
    stream.write_all(&request.body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.filter(|(name, _)| is_known(&name.to_ascii_lowercase()));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut body = answer[end + 4..].to_vec();
    if request.path.contains("/keys") {
        body = without_extensions(&body);
    }
    Answer::Full(status.parse().unwrap(), headers.collect(), body)
}

/// The listing as the documents have it.
fn without_extensions(body: &[u8]) -> Vec<u8> {
    let mut page: serde_json::Value = serde_json::from_slice(body).unwrap();
    if let Some(lines) = page["data"]["items"].as_array_mut() {
        for line in lines {
            line.as_object_mut()
                .unwrap()
                .retain(|name, _| ["key", "size", "recordPublicUrl"].contains(&name.as_str()));
        }
    }
    page.to_string().into_bytes()
}
