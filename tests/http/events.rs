//! The changes of a store as a client of server-sent events reads them.

use super::Client;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A stream of events.
pub struct Events(BufReader<TcpStream>);

/// One event: its id, its kind as the stream names it, and its data.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

impl Event {
    /// The key and the tag.
    pub fn about(&self) -> (Option<&str>, Option<&str>) {
        (self.data["key"].as_str(), self.data["etag"].as_str())
    }
}

impl Events {
    /// Follows a store, and returns when the server has said that it does.
    pub fn follow(client: &Client, store: &str, last: Option<&str>) -> Self {
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
        Self(stream)
    }

    /// The next event; nothing when the stream has ended.
    pub fn next(&mut self) -> Option<Event> {
        let mut event = Event {
            id: String::new(),
            kind: String::new(),
            data: Value::Null,
        };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("id: ") {
                event.id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("event: ") {
                event.kind = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                event.data = serde_json::from_str(text).unwrap();
            } else if line.is_empty() && !event.data.is_null() {
                assert_eq!(event.data["kind"], *event.kind);
                return Some(event);
            }
        }
    }

    /// The next event of this kind about this key; what others come before it are about the same key, since one deed may be
    /// told in more than one step.
    pub fn until(&mut self, kind: &str, key: &str) -> Event {
        loop {
            let event = self.next().expect("the stream has ended");
            assert_eq!(event.about().0, Some(key), "{event:?}");
            if event.kind == kind {
                return event;
            }
        }
    }
}
