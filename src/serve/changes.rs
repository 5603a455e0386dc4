//! The changes of a store as server-sent events, which a client can take up again where it stopped.

use super::Door;
use super::asked::Asked;
use super::problem::Answer;
use crate::backend::{ChangeEvent, ChangeKind, Feed, FeedPosition};
use crate::record::key::StoreId;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often something is sent when nothing happens, so that both sides notice a dead connection.
const BREATH: Duration = Duration::from_secs(15);
/// Events that wait for a slow client.
const WAITING: usize = 16;

/// `GET` of a store's changes.
pub(super) async fn follow(door: &Arc<Door>, asked: &Asked) -> Answer {
    let (store, _) = door.to_read(asked, None).await?;
    let given = match asked.headers().get("last-event-id") {
        Some(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => asked
            .query()
            .get("lastEventId")?
            .map(std::borrow::Cow::into_owned),
    };
    // A position of another server's feed is as good as an unknown one: the feed begins with a reset.
    let after = given.filter(|text| !text.is_empty()).map(|text| {
        text.parse().unwrap_or(FeedPosition {
            epoch: 0,
            number: 0,
        })
    });
    let feed = door.backend.changes(&store.info.id, after).await?;
    let (send, receive) = mpsc::channel(WAITING);
    let reader = Reader {
        door: door.clone(),
        asked: asked.clone(),
        store: store.info.id.clone(),
        by_name: store.by_name,
    };
    tokio::spawn(carry(feed, send, reader));
    let mut response = Response::new(Body::new(Events(receive)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whoever follows a store.
struct Reader {
    door: Arc<Door>,
    asked: Asked,
    store: StoreId,
    by_name: bool,
}

impl Reader {
    /// Whether it may still read the store: tokens end, and stores are closed, while a stream goes on.
    async fn may_go_on(&self) -> Answer<()> {
        let known = &self.door.known;
        let caller = known.caller(&self.asked)?;
        let store = self.door.find(&caller, self.store.as_str()).await?;
        known.may_read(&caller, &store.info, self.by_name, None)
    }
}

/// Writes events until the client, its right to read, the store or the server is gone.
async fn carry(mut feed: Feed, send: mpsc::Sender<Bytes>, reader: Reader) {
    let mut ending = reader.door.ending.clone();
    if send
        .send(Bytes::from_static(b": storefs\n\n"))
        .await
        .is_err()
    {
        return;
    }
    loop {
        let text = tokio::select! {
            event = feed.recv() => match event {
                Some(event) => Bytes::from(written(&event)),
                None => return,
            },
            () = tokio::time::sleep(BREATH) => Bytes::from_static(b":\n\n"),
            _ = ending.wait_for(|ending| *ending) => return,
            () = send.closed() => return,
        };
        if reader.may_go_on().await.is_err() || send.send(text).await.is_err() {
            return;
        }
    }
}

fn written(event: &ChangeEvent) -> String {
    let kind = match event.kind {
        ChangeKind::Put => "put",
        ChangeKind::Delete => "delete",
        ChangeKind::Reset => "reset",
    };
    let data = json!({
        "kind": kind,
        "key": event.key.as_ref().map(|key| key.as_str()),
        "etag": event.etag.as_ref().map(|etag| etag.as_str()),
    });
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.position)
}

/// Pieces of text as a body.
struct Events(mpsc::Receiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_recv(context);
        next.map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
