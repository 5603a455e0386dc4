//! The changes of a store as `storefs serve` tells them: server-sent events, taken up again where they broke off. Whoever
//! listens misses nothing without being told to look again.

use super::Apify;
use super::client::{Call, Client};
use super::stores::path;
use crate::backend::pace::Class;
use crate::backend::trouble::is_passing;
use crate::backend::{ChangeEvent, ChangeKind, Feed, FeedPosition, StoreRef};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{ETag, Key};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Changes that wait for a slow listener.
const AHEAD: usize = 64;
/// The longest line and the most data of one event.
const LINE: usize = 16 << 10;
/// `serve` sends something every 15 seconds. After so long without anything the connection is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// Pauses between connections that end at once with nothing told.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A connection that lasted so long did not end at once.
const LASTING: Duration = Duration::from_secs(5);
/// Stands for a place in a feed that was never told.
const NOWHERE: FeedPosition = FeedPosition {
    epoch: 0,
    number: 0,
};

impl Apify {
    pub(super) async fn follow(
        &self,
        store: &StoreId,
        after: Option<FeedPosition>,
    ) -> Result<Feed> {
        const OP: &str = "follow";
        let unsupported = || {
            let why = "this server does not tell of changes";
            Error::because(OP, store.as_str(), Kind::Unsupported, why)
        };
        let response = match connect(&self.client, store, after).await? {
            Connected::Events(response) => response,
            Connected::Missing | Connected::NoEvents => {
                // The store may be missing, or the whole endpoint.
                self.find_store(&StoreRef::Id(store.clone())).await?;
                self.seen.feed.set(false);
                return Err(unsupported());
            }
        };
        self.seen.feed.set(true);
        self.seen.store_is_there(store);
        let (send, feed) = mpsc::channel(AHEAD);
        let listener = Listener {
            client: self.client.clone(),
            store: store.clone(),
            after,
            send,
        };
        tokio::spawn(listener.carry(response));
        Ok(feed)
    }
}

enum Connected {
    Events(Response),
    /// 404.
    Missing,
    /// Another refusal of the endpoint, or something that is no feed.
    NoEvents,
}

async fn connect(
    client: &Client,
    store: &StoreId,
    after: Option<FeedPosition>,
) -> Result<Connected> {
    let path = format!("{}/changes", path(store));
    let mut call = Call::new("follow", store.as_str(), Method::GET, path)
        .to(store, Class::Other)
        .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(after) = after
        && let Ok(value) = HeaderValue::from_str(&after.to_string())
    {
        call = call.header(HeaderName::from_static("last-event-id"), value);
    }
    let response = client.answer(&call).await?;
    let is_feed = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    Ok(match response.status() {
        StatusCode::OK if is_feed => Connected::Events(response),
        StatusCode::NOT_FOUND => Connected::Missing,
        StatusCode::BAD_REQUEST
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_IMPLEMENTED
        | StatusCode::NOT_ACCEPTABLE => Connected::NoEvents,
        status if status.is_success() => Connected::NoEvents,
        _ => return Err(client.refusal(&call, response).await),
    })
}

/// Somebody who listens.
struct Listener {
    client: Arc<Client>,
    store: StoreId,
    /// The last change that was told.
    after: Option<FeedPosition>,
    send: mpsc::Sender<ChangeEvent>,
}

impl Listener {
    /// Tells changes until nobody listens any more, the store is gone or the server cannot be reached: whoever listens is to
    /// know when nothing is told.
    async fn carry(mut self, response: Response) {
        let mut response = response;
        let mut pause = PAUSES.0;
        loop {
            let since = Instant::now();
            match self.tell(response).await {
                Told::Nobody => return,
                Told::Something => pause = PAUSES.0,
                Told::Nothing if since.elapsed() >= LASTING => pause = PAUSES.0,
                Told::Nothing => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.send.closed() => return,
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            match connect(&self.client, &self.store, self.after).await {
                Ok(Connected::Events(again)) => {
                    if self.after.is_none() && !self.reset(NOWHERE).await {
                        return;
                    }
                    response = again;
                }
                Ok(Connected::Missing | Connected::NoEvents) => return,
                Err(error) if is_passing(&error) => return tracing::debug!("{error}"),
                Err(error) => {
                    return tracing::warn!("changes are not followed any more: {error}");
                }
            }
        }
    }

    /// What was missed cannot be told. False when nobody listens.
    async fn reset(&self, position: FeedPosition) -> bool {
        let event = ChangeEvent {
            position,
            key: None,
            kind: ChangeKind::Reset,
            etag: None,
        };
        self.send.send(event).await.is_ok()
    }

    /// Tells what one connection brings.
    async fn tell(&mut self, mut response: Response) -> Told {
        let mut lines = Lines::default();
        let mut told = Told::Nothing;
        loop {
            let chunk = tokio::select! {
                chunk = timeout(SILENCE, response.chunk()) => chunk,
                () = self.send.closed() => return Told::Nobody,
            };
            let Ok(Ok(Some(chunk))) = chunk else {
                return told;
            };
            for &byte in &chunk {
                let event = match lines.take(byte) {
                    Ok(None) => continue,
                    Ok(Some(event)) => event,
                    Err(TooLong) => {
                        tracing::warn!("{}: a change is told in too long a line", self.store);
                        return told;
                    }
                };
                self.after = Some(event.position);
                told = Told::Something;
                if self.send.send(event).await.is_err() {
                    return Told::Nobody;
                }
            }
        }
    }
}

/// What came of a connection.
enum Told {
    Something,
    Nothing,
    /// Nobody listens any more.
    Nobody,
}

struct TooLong;

/// Events out of bytes, by the rules of server-sent events as far as they are used here.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    position: Option<FeedPosition>,
    data: Vec<u8>,
    after_return: bool,
}

#[derive(Deserialize)]
struct Data {
    kind: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    etag: Option<String>,
}

impl Lines {
    fn take(&mut self, byte: u8) -> std::result::Result<Option<ChangeEvent>, TooLong> {
        let second_half = byte == b'\n' && std::mem::take(&mut self.after_return);
        self.after_return = byte == b'\r';
        if second_half {
            return Ok(None);
        }
        if byte != b'\n' && byte != b'\r' {
            self.line.push(byte);
            return if self.line.len() > LINE {
                Err(TooLong)
            } else {
                Ok(None)
            };
        }
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.event());
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (
                &line[..at],
                line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..]),
            ),
            None => (&line[..], &[][..]),
        };
        match name {
            b"id" => {
                self.position = std::str::from_utf8(value)
                    .ok()
                    .and_then(|id| id.parse().ok())
            }
            b"data" => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                if self.data.len() > LINE {
                    return Err(TooLong);
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// The event that ends here. What is not understood is told as a reason to look again.
    fn event(&mut self) -> Option<ChangeEvent> {
        let data = std::mem::take(&mut self.data);
        let position = self.position.take();
        if data.is_empty() {
            return None;
        }
        let reset = ChangeEvent {
            position: position.unwrap_or(NOWHERE),
            key: None,
            kind: ChangeKind::Reset,
            etag: None,
        };
        let understood = || {
            let data: Data = serde_json::from_slice(&data).ok()?;
            let kind = match data.kind.as_str() {
                "put" => ChangeKind::Put,
                "delete" => ChangeKind::Delete,
                _ => return None,
            };
            Some(ChangeEvent {
                position: position?,
                key: Some(Key::new(&data.key?).ok()?),
                kind,
                etag: data.etag.as_deref().map(ETag::new),
            })
        };
        Some(understood().unwrap_or(reset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Option<Vec<ChangeEvent>> {
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for byte in text.bytes() {
            events.extend(lines.take(byte).ok()?);
        }
        Some(events)
    }

    #[test]
    fn events_are_told_with_their_position_key_and_version() {
        let text = ": storefs\n\nid: 00ff-7\r\nevent: put\r\ndata: {\"kind\":\"put\",\"key\":\"a\",\"etag\":\"t\"}\r\n\r\n:\n\n\
                    id:00ff-8\ndata: {\"kind\":\"delete\",\ndata: \"key\":\"a\"}\n\n";
        let found = events(text).unwrap_or_default();
        let shown: Vec<_> = found
            .iter()
            .map(|event| {
                (
                    event.kind,
                    event.position.number,
                    event.key.as_ref().map(Key::as_str),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (ChangeKind::Put, 7, Some("a")),
                (ChangeKind::Delete, 8, Some("a"))
            ]
        );
        assert_eq!(found[0].etag, Some(ETag::new("t")));
    }

    #[test]
    fn what_is_not_understood_is_a_reason_to_look_again() {
        for data in [
            "nonsense",
            "{\"kind\":\"put\",\"key\":\"a/b\"}",
            "{\"kind\":\"put\"}",
            "{\"kind\":\"moved\",\"key\":\"a\"}",
            "{\"kind\":\"reset\"}",
        ] {
            let found = events(&format!("id: 1-5\ndata: {data}\n\n")).unwrap_or_default();
            assert_eq!(found.len(), 1, "{data}");
            assert_eq!(
                (found[0].kind, found[0].position.number),
                (ChangeKind::Reset, 5)
            );
        }
        let found = events("data: {\"kind\":\"put\",\"key\":\"a\"}\n\n").unwrap_or_default();
        assert_eq!(
            (found[0].kind, found[0].position),
            (ChangeKind::Reset, NOWHERE)
        );
    }

    #[test]
    fn endless_lines_and_endless_events_end_the_connection() {
        assert!(events(&"x".repeat(LINE + 1)).is_none());
        assert!(events(&"data: more of it\n".repeat(LINE)).is_none());
    }
}
