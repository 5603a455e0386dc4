//! A client that sends exactly what it is told and reads what comes, over a connection of its own for each request.

use serde_json::Value;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take. Far more than needed, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends requests as one user.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body was as long as it said.
    pub whole: bool,
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self {
            address,
            token: token.map(str::to_owned),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The head of a request with this user's token, up to the empty line.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    /// Sends a request and reads its answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = self.head(method, path, headers);
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        head += "connection: close\r\n\r\n";
        self.raw(&[head.as_bytes(), body], method)
    }

    /// Sends these bytes and reads one answer.
    pub fn raw(&self, parts: &[&[u8]], method: &str) -> Reply {
        let mut stream = self.connect();
        for part in parts {
            // A server may answer and close before it has read everything.
            if stream.write_all(part).is_err() {
                break;
            }
        }
        Reply::read(&mut BufReader::new(stream), method)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, b"")
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Reply {
        self.send("POST", path, &[], body)
    }

    pub fn put(&self, path: &str, content_type: &str, body: &[u8]) -> Reply {
        self.send("PUT", path, &[("content-type", content_type)], body)
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], b"")
    }
}

impl Reply {
    /// Reads an answer to a request with this method.
    pub fn read(stream: &mut impl BufRead, method: &str) -> Self {
        let mut reply = Self {
            status: 0,
            headers: Vec::new(),
            body: Vec::new(),
            whole: false,
        };
        let mut line = String::new();
        if stream.read_line(&mut line).is_err() || line.is_empty() {
            return reply;
        }
        reply.status = line.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            line.clear();
            if stream.read_line(&mut line).is_err() || line.trim_end().is_empty() {
                break;
            }
            let (name, value) = line.trim_end().split_once(':').unwrap();
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            reply.headers.push(header);
        }
        reply.whole = reply.read_body(stream, method).is_ok();
        reply
    }

    fn read_body(&mut self, stream: &mut impl BufRead, method: &str) -> std::io::Result<()> {
        if method == "HEAD" || matches!(self.status, 204 | 304) {
            return Ok(());
        }
        if self.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim(), 16)
                    .map_err(|_| std::io::ErrorKind::UnexpectedEof)?;
                let mut piece = vec![0; length + 2];
                stream.read_exact(&mut piece)?;
                self.body.extend_from_slice(&piece[..length]);
                if length == 0 {
                    return Ok(());
                }
            }
        }
        match self.header("content-length") {
            Some(length) => {
                self.body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut self.body)
            }
            None => stream.read_to_end(&mut self.body).map(drop),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// What stands under `data`.
    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }

    /// The status and the type of an error in the API's envelope.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        let error = json["error"]
            .as_object()
            .unwrap_or_else(|| panic!("no error: {self:?}"));
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{self:?}"
        );
        (self.status, error["type"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub fn assert_error(&self, status: u16, kind: &str) {
        assert_eq!(self.error(), (status, kind.to_owned()), "{self:?}");
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().take(500).collect();
        write!(f, "{} {:?} {body:?}", self.status, self.headers)
    }
}
