//! The feed of a server's changes over connections that break: nothing is missed without being said.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use http::Served;
use remote::{Answer, Request, STORE, Scripted, apify, opened, put, record_in, runtime, store};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use storefs::backend::{Backend, ChangeEvent, ChangeKind, Feed, FeedPosition, NewStore};
use storefs::error::Kind;
use storefs::record::StoreName;
use tokio::runtime::Runtime;

/// A feed whose connections bring these texts, one after the other; then the store is gone.
fn feed_of(texts: Vec<&'static str>) -> Scripted {
    let count = AtomicUsize::new(0);
    Scripted::new(move |request| {
        if !request.path.ends_with("/changes") {
            return Answer::json(200, format!(r#"{{"data":{{"id":"{STORE}"}}}}"#));
        }
        match texts.get(count.fetch_add(1, Ordering::SeqCst)) {
            Some(text) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                Answer::Raw(format!("{head}{text}").into_bytes())
            }
            None => Answer::status(404),
        }
    })
}

fn follow(runtime: &Runtime, server: &Scripted, after: Option<FeedPosition>) -> Feed {
    runtime
        .block_on(apify(server.address).changes(&store(), after))
        .unwrap()
}

fn all(runtime: &Runtime, mut feed: Feed) -> Vec<ChangeEvent> {
    runtime.block_on(async {
        let mut events = Vec::new();
        while let Some(event) = tokio::time::timeout(Duration::from_secs(20), feed.recv())
            .await
            .unwrap()
        {
            events.push(event);
        }
        events
    })
}

fn shown(events: &[ChangeEvent]) -> Vec<(ChangeKind, Option<&str>)> {
    let shown = events.iter().map(|event| {
        let key = event.key.as_ref().map(|key| key.as_str());
        (event.kind, key)
    });
    shown.collect()
}

fn asked_after(requests: &[Request]) -> Vec<Option<String>> {
    let changes = requests.iter().filter(|it| it.path.ends_with("/changes"));
    changes
        .map(|it| it.header("last-event-id").map(str::to_owned))
        .collect()
}

#[test]
fn a_feed_that_breaks_off_goes_on_after_the_last_change() {
    let server = feed_of(vec![
        "id: 00000000000000aa-1\ndata: {\"kind\":\"put\",\"key\":\"a\"}\n\nid: 00000000000000aa-2\ndata: {\"kind\":\"put\"",
        "id: 00000000000000aa-2\ndata: {\"kind\":\"put\",\"key\":\"b\"}\n\n",
        "",
        "id: 00000000000000aa-3\ndata: {\"kind\":\"delete\",\"key\":\"a\"}\n\n",
    ]);
    let runtime = runtime();
    let events = all(&runtime, follow(&runtime, &server, None));
    assert_eq!(
        shown(&events),
        [
            (ChangeKind::Put, Some("a")),
            (ChangeKind::Put, Some("b")),
            (ChangeKind::Delete, Some("a"))
        ]
    );
    let at = |number: u64| Some(format!("00000000000000aa-{number}"));
    assert_eq!(
        asked_after(&server.requests()),
        [None, at(1), at(2), at(2), at(3)]
    );
}

#[test]
fn whoever_listens_from_now_on_is_told_to_look_again_after_a_break() {
    let server = feed_of(vec![
        ": storefs\n\n",
        "id: 00000000000000aa-1\ndata: {\"kind\":\"put\",\"key\":\"a\"}\n\n",
    ]);
    let runtime = runtime();
    let events = all(&runtime, follow(&runtime, &server, None));
    assert_eq!(
        shown(&events),
        [(ChangeKind::Reset, None), (ChangeKind::Put, Some("a"))]
    );
    // Who knows a position misses nothing, and is told nothing.
    let server = feed_of(vec![
        ": storefs\n\n",
        "id: 00000000000000aa-8\ndata: {\"kind\":\"put\",\"key\":\"a\"}\n\n",
    ]);
    let after = FeedPosition {
        epoch: 0xaa,
        number: 7,
    };
    let events = all(&runtime, follow(&runtime, &server, Some(after)));
    assert_eq!(shown(&events), [(ChangeKind::Put, Some("a"))]);
}

#[test]
fn a_feed_ends_when_the_server_goes_away() {
    let mut server = Served::memory();
    let runtime = runtime();
    let backend = opened(&server);
    let new = NewStore::named(StoreName::new("s").unwrap());
    let made = runtime.block_on(backend.create_store(new)).unwrap().0;
    let mut feed = runtime.block_on(backend.changes(&made.id, None)).unwrap();
    let id = record_in(&made.id, "k");
    runtime.block_on(put(&*backend, &id, b"x")).unwrap();
    let first = runtime.block_on(feed.recv()).unwrap();
    assert_eq!(first.key.unwrap().as_str(), "k");
    assert!(server.stop(Duration::from_secs(20)));
    // Nothing is told any more, and whoever listens knows.
    let end = async { tokio::time::timeout(Duration::from_secs(20), feed.recv()).await };
    assert!(runtime.block_on(end).unwrap().is_none());
}

#[test]
fn nobody_is_asked_for_changes_that_nobody_listens_to() {
    let server = Scripted::new(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        Answer::Endless(head.as_bytes().to_vec(), b":\n\n".to_vec())
    });
    let runtime = runtime();
    let feed = follow(&runtime, &server, None);
    drop(feed);
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.requests().len(), 1, "it went on asking");
}

#[test]
fn what_is_no_feed_is_unsupported_and_what_is_refused_is_told() {
    let runtime = runtime();
    let told = |answer: fn() -> Answer| {
        let server = Scripted::new(move |request| match request.path.ends_with("/changes") {
            true => answer(),
            false => Answer::json(200, format!(r#"{{"data":{{"id":"{STORE}"}}}}"#)),
        });
        let asked = runtime.block_on(apify(server.address).changes(&store(), None));
        asked.unwrap_err().kind()
    };
    assert_eq!(told(|| Answer::status(404)), Kind::Unsupported);
    assert_eq!(told(|| Answer::status(405)), Kind::Unsupported);
    assert_eq!(told(|| Answer::json(200, "{}")), Kind::Unsupported);
    assert_eq!(told(|| Answer::status(403)), Kind::Denied);
    assert_eq!(told(|| Answer::status(503)), Kind::Io);
}
