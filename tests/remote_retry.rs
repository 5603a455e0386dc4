//! What is tried again, when, and what is said of writes of which nobody knows what became of them.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use remote::{
    Answer, Request, Scripted, TOKEN, apify, options, put, put_if, quick, read, record, retrying,
    runtime, store,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use storefs::backend::apify::{Apify, Options};
use storefs::backend::faulty::{Fault, Faulty, Rule, Verb};
use storefs::backend::memory::Memory;
use storefs::backend::pace::Rates;
use storefs::backend::retry::{Policy, Retry};
use storefs::backend::trouble::{is_passing, is_unsure};
use storefs::backend::{Backend, ListQuery, NewStore, StoreRef};
use storefs::error::Kind;
use storefs::record::{ETag, Precondition, RecordId, StoreName};

/// An answer to any request.
type Said = fn(&Request) -> Answer;

/// A server whose answers follow a list; the last one is for ever.
fn answers(all: Vec<Said>) -> Scripted {
    let count = AtomicUsize::new(0);
    Scripted::new(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        all[number.min(all.len() - 1)](request)
    })
}

fn done(_: &Request) -> Answer {
    Answer::json(201, "{}")
}

fn there(_: &Request) -> Answer {
    Answer::record(b"bytes")
}

#[test]
fn what_passes_is_tried_again_and_what_stays_is_not() {
    let passing: [Said; 5] = [
        |_| Answer::status(429),
        |_| Answer::status(500),
        |_| Answer::status(503),
        |_| Answer::Hangup,
        |_| Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort".to_vec()),
    ];
    let runtime = runtime();
    for (number, answer) in passing.into_iter().enumerate() {
        let server = answers(vec![answer, answer, there]);
        let got = runtime.block_on(read(&retrying(server.address), &record("k")));
        assert_eq!(got.unwrap().0, b"bytes", "{number}");
        assert_eq!(server.requests().len(), 3, "{number}");
    }
    let staying: [(Said, Kind); 6] = [
        (|_| Answer::status(400), Kind::Invalid),
        (|_| Answer::status(401), Kind::Denied),
        (|_| Answer::status(402), Kind::NoSpace),
        (|_| Answer::status(403), Kind::Denied),
        (|_| Answer::status(413), Kind::TooLarge),
        (|_| Answer::status(501), Kind::Unsupported),
    ];
    for (answer, kind) in staying {
        let server = answers(vec![answer]);
        let error = runtime
            .block_on(put(&retrying(server.address), &record("k"), b"x"))
            .unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(server.requests().len(), 1, "{kind:?}");
        assert!(!is_unsure(&error) && !is_passing(&error), "{kind:?}");
        let text = error.to_string();
        assert!(
            text.contains("some-type: Some message.") && text.starts_with("put "),
            "{text}"
        );
    }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let server = answers(vec![|_| Answer::status(503)]);
    let policy = Policy {
        first: Duration::from_millis(50),
        longest: Duration::from_millis(200),
        patience: Duration::from_millis(800),
        offline_patience: Duration::ZERO,
    };
    let backend = Retry::new(apify(server.address), policy);
    let error = runtime().block_on(backend.head(&record("k"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    let requests = server.requests();
    let pauses: Vec<_> = requests
        .windows(2)
        .map(|two| two[1].at - two[0].at)
        .collect();
    for (pause, least) in pauses.iter().zip([37, 75, 150, 150]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    assert!((4..=7).contains(&requests.len()), "{pauses:?}");
}

#[test]
fn a_server_that_asks_for_a_rest_gets_it() {
    let server = answers(vec![
        |_| Answer::status(429).with("retry-after", "1"),
        there,
    ]);
    let patient = Policy {
        patience: Duration::from_secs(20),
        ..quick()
    };
    let backend = Retry::new(apify(server.address), patient);
    let start = Instant::now();
    let got = runtime().block_on(read(&backend, &record("k")));
    assert_eq!(got.unwrap().0, b"bytes");
    assert!(start.elapsed() >= Duration::from_secs(1));
    // One that asks for more than anybody waits is told of at once.
    let server = answers(vec![|_| Answer::status(503).with("retry-after", "600")]);
    let start = Instant::now();
    let error = runtime()
        .block_on(retrying(server.address).head(&record("k")))
        .unwrap_err();
    assert!(
        is_passing(&error) && start.elapsed() < Duration::from_secs(1),
        "{error}"
    );
}

#[test]
fn a_body_is_sent_whole_at_each_try() {
    let server = answers(vec![|_| Answer::status(500), |_| Answer::Hangup, done]);
    let bytes = vec![7; 300_000];
    runtime()
        .block_on(put(&retrying(server.address), &record("k"), &bytes))
        .unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert!(request.body == bytes);
        assert_eq!(request.header("content-length"), Some("300000"));
    }
}

#[test]
fn a_write_without_an_answer_is_reported_as_one_that_may_be_done() {
    let runtime = runtime();
    let unanswered: [Said; 3] = [
        |_| Answer::Hangup,
        |_| Answer::status(502),
        |_| Answer::Silence,
    ];
    for answer in unanswered {
        let server = answers(vec![answer]);
        let patient = Options {
            patience: Duration::from_millis(200),
            ..options(server.address, TOKEN)
        };
        let backend = Retry::new(Apify::new(patient).unwrap(), quick());
        let error = runtime
            .block_on(put(&backend, &record("k"), b"x"))
            .unwrap_err();
        assert!(is_unsure(&error));
        let read = runtime.block_on(backend.head(&record("k"))).unwrap_err();
        assert!(!is_unsure(&read), "a read leaves nothing behind");
    }
    // What was refused for certain after it may have been done is not certain.
    let server = answers(vec![|_| Answer::Hangup, |_| Answer::status(403)]);
    let error = runtime
        .block_on(put(&retrying(server.address), &record("k"), b"x"))
        .unwrap_err();
    assert_eq!((error.kind(), is_unsure(&error)), (Kind::Denied, true));
    // What never left is.
    let gone = Scripted::new(done).address;
    let error = runtime
        .block_on(put(&retrying(gone), &record("k"), b"x"))
        .unwrap_err();
    assert_eq!((error.kind(), is_unsure(&error)), (Kind::Offline, false));
    let server = answers(vec![|_| Answer::status(429)]);
    let error = runtime
        .block_on(put(&retrying(server.address), &record("k"), b"x"))
        .unwrap_err();
    assert_eq!((error.kind(), is_unsure(&error)), (Kind::TimedOut, false));
}

/// Memory that fails by a script, with tries before it, and a record of a store in it.
fn scripted_memory() -> (Retry<Faulty<Memory>>, RecordId) {
    let backend = Retry::new(Faulty::new(Memory::new()), quick());
    let new = NewStore::named(StoreName::new("s").unwrap());
    let made = runtime().block_on(backend.create_store(new)).unwrap().0;
    (backend, remote::record_in(&made.id, "k"))
}

#[test]
fn our_own_unanswered_write_is_not_taken_for_that_of_somebody_else() {
    let runtime = runtime();
    for base in [false, true] {
        let (backend, id) = scripted_memory();
        let only_if = match base {
            false => Precondition::Absent,
            true => {
                let first = runtime.block_on(put(&backend, &id, b"first")).unwrap();
                Precondition::Match(first.etag.unwrap())
            }
        };
        backend
            .inner()
            .add(Rule::on(Verb::Put, Fault::FailAfter(Kind::TimedOut)).times(1));
        let meta = runtime
            .block_on(put_if(&backend, &id, b"ours", only_if.clone()))
            .unwrap();
        assert_eq!(meta.etag, runtime.block_on(backend.head(&id)).unwrap().etag);
        // The next edit on it goes through.
        let next = Precondition::Match(meta.etag.unwrap());
        runtime
            .block_on(put_if(&backend, &id, b"next", next))
            .unwrap();
        // Somebody else's is seen as what it is.
        let error = runtime
            .block_on(put_if(&backend, &id, b"late", only_if))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Changed);
    }
}

#[test]
fn somebody_elses_write_after_an_unanswered_one_is_a_change() {
    let (backend, id) = scripted_memory();
    let runtime = runtime();
    runtime.block_on(put(&backend, &id, b"theirs")).unwrap();
    backend
        .inner()
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::TimedOut)).times(1));
    let error = runtime
        .block_on(put_if(&backend, &id, b"ours", Precondition::Absent))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    assert_eq!(runtime.block_on(read(&backend, &id)).unwrap().0, b"theirs");
}

#[test]
fn what_our_own_unanswered_deletion_took_is_deleted() {
    let (backend, id) = scripted_memory();
    let runtime = runtime();
    let meta = runtime.block_on(put(&backend, &id, b"x")).unwrap();
    backend
        .inner()
        .add(Rule::on(Verb::Delete, Fault::FailAfter(Kind::Io)).times(1));
    let only_if = Precondition::Match(meta.etag.unwrap());
    runtime.block_on(backend.delete(&id, only_if)).unwrap();
    let again = runtime
        .block_on(backend.delete(&id, Precondition::None))
        .unwrap_err();
    assert_eq!(again.kind(), Kind::NotFound);
    backend
        .inner()
        .add(Rule::on(Verb::DeleteStore, Fault::FailAfter(Kind::Io)).times(1));
    runtime.block_on(backend.delete_store(&id.store)).unwrap();
}

#[test]
fn a_store_without_a_name_is_not_made_twice() {
    let (backend, _) = scripted_memory();
    let runtime = runtime();
    backend
        .inner()
        .add(Rule::on(Verb::CreateStore, Fault::FailAfter(Kind::TimedOut)).times(2));
    let error = runtime
        .block_on(backend.create_store(NewStore::default()))
        .unwrap_err();
    assert!(is_unsure(&error));
    assert_eq!(
        backend.inner().count(Verb::CreateStore),
        2,
        "one at the start, and this one"
    );
    let named = NewStore::named(StoreName::new("again").unwrap());
    assert!(runtime.block_on(backend.create_store(named)).is_ok());
}

#[test]
fn a_named_store_whose_making_was_not_answered_was_made() {
    let (backend, _) = scripted_memory();
    let runtime = runtime();
    backend
        .inner()
        .add(Rule::on(Verb::CreateStore, Fault::FailAfter(Kind::TimedOut)).times(1));
    let named = NewStore::named(StoreName::new("again").unwrap());
    let (store, made) = runtime
        .block_on(backend.create_store(named.clone()))
        .unwrap();
    assert!(made);
    let (there, made) = runtime.block_on(backend.create_store(named)).unwrap();
    assert_eq!((there.id, made), (store.id, false));
}

#[test]
fn a_store_gets_no_more_requests_a_second_than_its_rate() {
    let server = Scripted::new(|request| match request.path.contains("/keys") {
        true => Answer::json(200, r#"{"data":{"items":[],"isTruncated":false}}"#),
        false => Answer::record(b"x"),
    });
    let rates = Some(Rates {
        records: 100,
        others: 20,
    });
    let backend = Arc::new(
        Apify::new(Options {
            rates,
            ..options(server.address, TOKEN)
        })
        .unwrap(),
    );
    let runtime = runtime();
    let start = Instant::now();
    runtime.block_on(async {
        let mut all = Vec::new();
        for number in 0..60 {
            let backend = backend.clone();
            all.push(tokio::spawn(async move {
                match number < 50 {
                    true => drop(backend.head(&record("k")).await.unwrap()),
                    false => drop(backend.list(&store(), ListQuery::default()).await.unwrap()),
                }
            }));
        }
        for one in all {
            one.await.unwrap();
        }
    });
    // 10 records at once and 40 more, 2 others at once and 8 more.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(390), "{took:?}");
    assert_eq!(server.requests().len(), 60);
}

#[test]
fn after_a_429_all_requests_of_its_kind_wait() {
    let server = answers(vec![
        |_| Answer::status(429).with("retry-after", "1"),
        there,
    ]);
    let backend = apify(server.address);
    let runtime = runtime();
    let start = Instant::now();
    assert!(runtime.block_on(backend.head(&record("a"))).is_err());
    assert!(start.elapsed() < Duration::from_millis(900));
    runtime.block_on(backend.head(&record("b"))).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_rest_that_is_too_long_to_wait_for_is_said_at_once() {
    let server = answers(vec![
        |_| Answer::status(429).with("retry-after", "3000"),
        there,
    ]);
    let backend = apify(server.address);
    let runtime = runtime();
    for key in ["a", "b", "c"] {
        let id = record(key);
        let asked =
            async { tokio::time::timeout(Duration::from_secs(20), backend.head(&id)).await };
        let error = runtime.block_on(asked).unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "{key}");
        assert!(is_passing(&error), "{error}");
    }
    assert_eq!(server.requests().len(), 1, "it was not left alone");
}

#[test]
fn a_missing_record_is_told_from_a_missing_store() {
    let missing = r#"{"error":{"type":"record-not-found","message":"?"}}"#;
    let server = Scripted::new(move |request| match request.path.contains("/records/") {
        true => Answer::json(404, missing),
        false => Answer::json(200, format!(r#"{{"data":{{"id":"{}"}}}}"#, remote::STORE)),
    });
    let backend = apify(server.address);
    let runtime = runtime();
    for _ in 0..10 {
        let error = runtime.block_on(backend.head(&record("k"))).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
    let asked = server.lines();
    assert_eq!(asked.len(), 11, "the store is asked for once: {asked:?}");
    let server = Scripted::new(move |_| Answer::json(404, missing));
    let backend = apify(server.address);
    let kinds = [
        runtime
            .block_on(backend.head(&record("k")))
            .unwrap_err()
            .kind(),
        runtime
            .block_on(put(&backend, &record("k"), b"x"))
            .unwrap_err()
            .kind(),
        runtime
            .block_on(backend.list(&store(), ListQuery::default()))
            .unwrap_err()
            .kind(),
        runtime
            .block_on(backend.store(&StoreRef::Id(store())))
            .unwrap_err()
            .kind(),
        runtime
            .block_on(backend.delete(&record("k"), Precondition::None))
            .unwrap_err()
            .kind(),
    ];
    assert_eq!(kinds, [Kind::StoreNotFound; 5]);
    let etag = Precondition::Match(ETag::new("x"));
    let error = runtime
        .block_on(put_if(&backend, &record("k"), b"x", etag))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::StoreNotFound);
}
