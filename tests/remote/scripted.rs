//! A server of plain sockets: it keeps what it was asked and answers by a function, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        found
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `GET /v2/...`
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What happens to a request.
pub enum Answer {
    /// Status, headers and a body of its length.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// These bytes, and then the connection ends.
    Raw(Vec<u8>),
    /// These bytes, and then the others again and again until the client has enough.
    Endless(Vec<u8>, Vec<u8>),
    /// The connection ends without a byte.
    Hangup,
    /// No byte comes, and the connection stays.
    Silence,
}

impl Answer {
    pub fn json(status: u16, text: impl Into<String>) -> Self {
        Self::Full(status, Vec::new(), text.into().into_bytes())
            .with("content-type", "application/json; charset=utf-8")
    }

    pub fn status(status: u16) -> Self {
        Self::json(
            status,
            r#"{"error":{"type":"some-type","message":"Some message."}}"#,
        )
    }

    pub fn record(bytes: &[u8]) -> Self {
        Self::Full(200, Vec::new(), bytes.to_vec())
            .with("content-type", "text/plain; charset=utf-8")
    }

    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        let Self::Full(status, mut headers, body) = self else {
            panic!("these bytes are what they are");
        };
        headers.push((name.to_owned(), value.to_owned()));
        Self::Full(status, headers, body)
    }
}

fn is_for_user(request: &Request) -> bool {
    request.path.ends_with("/v2/users/me")
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server. Dropped, it ends with all its connections.
pub struct Scripted {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// A server that answers by this function, and tells of one user of any token.
    pub fn new(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        const USER: &str = r#"{"data":{"id":"mE3dE5gH7jK9mN1pQ","username":"me"}}"#;
        Self::bare(move |request| match is_for_user(request) {
            true => Answer::json(200, USER),
            false => script(request),
        })
    }

    /// A server that answers by this function alone.
    pub fn bare(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, ended) = (
            Arc::<Mutex<Vec<Request>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let script: Arc<Script> = Arc::new(script);
        let (kept, end) = (requests.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let (script, kept, end) = (script.clone(), kept.clone(), end.clone());
                let ours = stream.try_clone().unwrap();
                let thread = std::thread::spawn(move || {
                    let _ = serve(stream, &*script, &kept, &end);
                });
                connections.push((ours, thread));
            }
            for (stream, thread) in connections {
                let _ = stream.shutdown(Shutdown::Both);
                let _ = thread.join();
            }
        });
        Self {
            address,
            requests,
            ended,
            thread: Some(thread),
        }
    }

    /// All requests so far, without those for the user.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        let others = requests.iter().filter(|it| !is_for_user(it));
        others.cloned().collect()
    }

    /// Methods and paths of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    script: &Script,
    kept: &Mutex<Vec<Request>>,
    ended: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = next_request(&mut reader)? {
        let answer = script(&request);
        let head = request.method == "HEAD";
        kept.lock().unwrap().push(request);
        match answer {
            Answer::Full(status, headers, body) => {
                let mut text = format!("HTTP/1.1 {status} Said\r\n");
                for (name, value) in &headers {
                    text += &format!("{name}: {value}\r\n");
                }
                if !headers.iter().any(|(name, _)| name == "content-length") {
                    text += &format!("content-length: {}\r\n", body.len());
                }
                text += "\r\n";
                stream.write_all(text.as_bytes())?;
                if !head {
                    stream.write_all(&body)?;
                }
            }
            Answer::Raw(bytes) => {
                stream.write_all(&bytes)?;
                return stream.shutdown(Shutdown::Both);
            }
            Answer::Endless(start, again) => {
                stream.write_all(&start)?;
                while !ended.load(Ordering::SeqCst) {
                    stream.write_all(&again)?;
                    if again.is_empty() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                return Ok(());
            }
            Answer::Hangup => return stream.shutdown(Shutdown::Both),
            Answer::Silence => {
                while !ended.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn next_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let at = Instant::now();
    let mut parts = line.split_whitespace();
    let (method, path) = (
        parts.next().unwrap().to_owned(),
        parts.next().unwrap().to_owned(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| {
        let mut all = headers.iter();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let mut body = Vec::new();
    if let Some(length) = value("content-length") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body)?;
    } else if value("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..])?;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
        at,
    }))
}
