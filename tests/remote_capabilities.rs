//! What a server can do is found out from its answers; one that can do no more than the public API's documents say is used
//! as such.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use http::Served;
use remote::{
    Answer, Proxy, Scripted, TOKEN, apify, opened, options, put, put_if, read, record, record_in,
    runtime,
};
use std::io::Read;
use storefs::backend::apify::{Apify, Options, Token};
use storefs::backend::{Backend, ListQuery, NewStore, StoreRef};
use storefs::error::Kind;
use storefs::record::key::StoreId;
use storefs::record::{ETag, Precondition, Size, StoreName};
use tokio::runtime::Runtime;

fn made(runtime: &Runtime, backend: &dyn Backend) -> StoreId {
    let new = NewStore::named(StoreName::new("store").unwrap());
    runtime.block_on(backend.create_store(new)).unwrap().0.id
}

/// A server of its own, seen through a proxy that leaves what the documents know.
fn stripped() -> (Served, Proxy, Apify) {
    let server = Served::memory();
    let proxy = Proxy::new(server.address);
    let backend = Apify::new(options(proxy.address(), &server.token)).unwrap();
    (server, proxy, backend)
}

#[test]
fn a_storefs_server_shows_all_it_can_do() {
    let server = Served::memory();
    let backend = opened(&server);
    let runtime = runtime();
    let before = backend.properties();
    assert!(
        !before.conditional_put && !before.ranged_get && !before.change_feed && !before.exact_sizes
    );
    let store = made(&runtime, &*backend);
    runtime
        .block_on(put(&*backend, &record_in(&store, "k"), b"bytes"))
        .unwrap();
    let found = runtime.block_on(backend.inner().detect(&store)).unwrap();
    assert!(found.conditional_put && found.ranged_get && found.change_feed && found.exact_sizes);
    assert_eq!(found.max_key, 256);
}

#[test]
fn abilities_show_while_a_server_is_used() {
    let server = Served::memory();
    let backend = opened(&server);
    let runtime = runtime();
    let store = made(&runtime, &*backend);
    let id = record_in(&store, "k");
    let absent = put_if(&*backend, &id, b"bytes", Precondition::Absent);
    runtime.block_on(absent).unwrap();
    assert!(backend.properties().conditional_put);
    assert!(!backend.properties().ranged_get);
    runtime.block_on(read(&*backend, &id)).unwrap();
    assert!(backend.properties().ranged_get);
    assert!(!backend.properties().exact_sizes);
    runtime
        .block_on(backend.list(&store, ListQuery::default()))
        .unwrap();
    assert!(backend.properties().exact_sizes);
    drop(runtime.block_on(backend.changes(&store, None)).unwrap());
    assert!(backend.properties().change_feed);
}

#[test]
fn a_server_that_only_knows_the_documents_shows_nothing() {
    let (_server, _proxy, backend) = stripped();
    let runtime = runtime();
    let store = made(&runtime, &backend);
    let id = record_in(&store, "k");
    runtime.block_on(put(&backend, &id, b"0123456789")).unwrap();
    let found = runtime.block_on(backend.detect(&store)).unwrap();
    assert!(
        !found.conditional_put && !found.ranged_get && !found.change_feed && !found.exact_sizes
    );
    let page = runtime
        .block_on(backend.list(&store, ListQuery::default()))
        .unwrap();
    let (key, meta) = &page.records[0];
    assert_eq!(key.as_str(), "k");
    assert_eq!(
        meta.size,
        Size::Told(10),
        "it may be that of a compressed form"
    );
    assert_eq!((&meta.etag, meta.modified), (&None, None));
    let head = runtime.block_on(backend.head(&id)).unwrap();
    assert_eq!(
        head.size,
        Size::Unknown,
        "what a HEAD tells is in no document"
    );
    let (bytes, meta) = runtime.block_on(read(&backend, &id)).unwrap();
    assert_eq!(
        (bytes.as_slice(), meta.size),
        (&b"0123456789"[..], Size::Exact(10))
    );
    let error = runtime.block_on(backend.changes(&store, None)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn a_part_is_cut_out_of_the_whole_where_a_server_gives_no_parts() {
    let (_server, _proxy, backend) = stripped();
    let runtime = runtime();
    let store = made(&runtime, &backend);
    let id = record_in(&store, "k");
    runtime.block_on(put(&backend, &id, b"0123456789")).unwrap();
    for (range, wanted) in [
        (2..5, "234"),
        (0..u64::MAX, "0123456789"),
        (8..99, "89"),
        (10..12, ""),
        (3..3, ""),
    ] {
        let mut fetched = runtime
            .block_on(backend.get(&id, Some(range.clone())))
            .unwrap();
        let mut text = String::new();
        fetched.bytes.read_to_string(&mut text).unwrap();
        assert_eq!(text, wanted, "{range:?}");
    }
}

#[test]
fn conditions_are_checked_here_where_a_server_does_not() {
    let (_server, proxy, backend) = stripped();
    let runtime = runtime();
    let store = made(&runtime, &backend);
    let id = record_in(&store, "k");
    runtime
        .block_on(put_if(&backend, &id, b"1", Precondition::Absent))
        .unwrap();
    let again = runtime.block_on(put_if(&backend, &id, b"2", Precondition::Absent));
    assert_eq!(again.unwrap_err().kind(), Kind::Changed);
    // A version that nobody can compare any more is another one.
    let old = Precondition::Match(ETag::new("of another day"));
    let edited = runtime.block_on(put_if(&backend, &id, b"3", old.clone()));
    assert_eq!(edited.unwrap_err().kind(), Kind::Changed);
    assert_eq!(runtime.block_on(read(&backend, &id)).unwrap().0, b"1");
    let deleted = runtime.block_on(backend.delete(&id, old.clone()));
    assert_eq!(deleted.unwrap_err().kind(), Kind::Changed);
    runtime
        .block_on(backend.delete(&id, Precondition::None))
        .unwrap();
    let deleted = runtime.block_on(backend.delete(&id, old));
    assert_eq!(deleted.unwrap_err().kind(), Kind::NotFound);
    let probes = proxy.front.lines();
    let probes = probes.iter().filter(|line| line.contains("storefs-probe"));
    assert_eq!(probes.count(), 1, "it is asked once");
}

#[test]
fn a_time_stands_for_a_version_where_a_server_tells_no_tags() {
    let server = Scripted::new(|request| match request.method.as_str() {
        "DELETE" => Answer::status(204),
        "PUT" => Answer::json(201, "{}"),
        _ => Answer::record(b"x")
            .with("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            .with("date", "Wed, 21 Oct 2015 07:28:02 GMT"),
    });
    let backend = apify(server.address);
    let runtime = runtime();
    let tag = runtime
        .block_on(backend.head(&record("k")))
        .unwrap()
        .etag
        .unwrap();
    let id = record("k");
    let matching = put_if(&backend, &id, b"y", Precondition::Match(tag));
    runtime.block_on(matching).unwrap();
    let other = Precondition::Match(ETag::new("modified-1445412481"));
    let error = runtime
        .block_on(put_if(&backend, &record("k"), b"y", other))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    let lines = server.lines();
    assert!(
        !lines.iter().any(|line| line.starts_with("DELETE")),
        "{lines:?}"
    );
}

#[test]
fn a_time_within_the_last_second_stands_for_no_version() {
    let server = Scripted::new(|_| {
        Answer::record(b"x")
            .with("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            .with("date", "Wed, 21 Oct 2015 07:28:01 GMT")
    });
    let found = runtime().block_on(apify(server.address).head(&record("k")));
    assert_eq!(found.unwrap().etag, None);
}

#[test]
fn who_only_reads_asks_for_no_deletion() {
    let store = format!(r#"{{"data":{{"id":"{}"}}}}"#, remote::STORE);
    let server = Scripted::new(move |request| match request.path.contains("/keys") {
        true => Answer::json(200, r#"{"data":{"items":[],"isTruncated":false}}"#),
        false if request.path.ends_with("/changes") => Answer::status(404),
        false => Answer::json(200, store.clone()),
    });
    let backend = Apify::new(Options {
        read_only: true,
        ..options(server.address, TOKEN)
    });
    let backend = backend.unwrap();
    runtime().block_on(backend.learn(&remote::store())).unwrap();
    let lines = server.lines();
    assert!(!lines.is_empty());
    assert!(
        lines.iter().all(|line| line.starts_with("GET")),
        "{lines:?}"
    );
}

#[test]
fn a_server_that_takes_the_question_for_a_mistake_checks_no_conditions() {
    for status in [400, 405, 422, 501] {
        let server = Scripted::new(move |request| match request.method.as_str() {
            "DELETE" => Answer::status(status),
            "PUT" => Answer::json(201, "{}"),
            _ => Answer::record(b"x").with("etag", "\"v1\""),
        });
        let backend = apify(server.address);
        let matching = Precondition::Match(ETag::new("v1"));
        let id = record("k");
        let put = put_if(&backend, &id, b"y", matching);
        runtime().block_on(put).unwrap();
        assert!(!backend.properties().conditional_put, "{status}");
    }
}

#[test]
fn records_are_asked_for_as_they_are_stored() {
    let server = Scripted::new(|_| Answer::record(b"<p>").with("content-type", "text/html"));
    let backend = apify(server.address);
    runtime()
        .block_on(read(&backend, &record("it's(1)!.html")))
        .unwrap();
    let requests = server.requests();
    let path = format!(
        "/v2/key-value-stores/{}/records/it's(1)!.html?attachment=true",
        remote::STORE
    );
    assert_eq!(requests[0].path, path);
    assert_eq!(
        requests[0].header("accept-encoding"),
        Some("gzip, br, deflate, zstd")
    );
    let agent = requests[0].header("user-agent").unwrap();
    assert!(agent.starts_with("storefs/"), "{agent}");
}

#[test]
fn without_a_token_no_token_is_sent_and_a_public_store_can_be_read() {
    let server = Scripted::new(|_| Answer::record(b"public"));
    let mut options = options(server.address, TOKEN);
    options.token = None;
    let backend = Apify::new(options).unwrap();
    let got = runtime().block_on(read(&backend, &record("k"))).unwrap();
    assert_eq!(got.0, b"public");
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[test]
fn a_token_that_may_only_read_leaves_the_conditions_open() {
    let server = Served::memory();
    let runtime = runtime();
    let store = made(&runtime, &*opened(&server));
    let token = server.tokens.add("ann", true, None).unwrap();
    server.wait_for(&token);
    let backend = Apify::new(options(server.address, &token)).unwrap();
    let found = runtime.block_on(backend.detect(&store)).unwrap();
    assert!(!found.conditional_put && found.change_feed);
    let error = runtime
        .block_on(put(&backend, &record_in(&store, "k"), b"x"))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[test]
fn a_token_that_may_not_ask_whose_it_is_may_use_stores() {
    let store = format!(
        r#"{{"data":{{"id":"{}","userId":"uS3dE5gH7jK9mN1pQ"}}}}"#,
        remote::STORE
    );
    for status in [403, 404, 501] {
        let store = store.clone();
        let server = Scripted::bare(move |request| match request.path.ends_with("/users/me") {
            true => Answer::status(status),
            false => Answer::json(200, store.clone()),
        });
        let backend = apify(server.address);
        let id = StoreRef::Id(remote::store());
        let found = runtime().block_on(backend.store(&id)).unwrap();
        // The server has let us in: nobody else is said to be the owner.
        assert_eq!(found.owner, None);
    }
    let server = Scripted::bare(|_| Answer::status(401));
    let error = runtime()
        .block_on(apify(server.address).stores(None))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("check the token"), "{error}");
}

#[test]
fn the_tag_of_an_encoded_answer_is_that_of_its_version() {
    let runtime = runtime();
    for tag in ["\"v1\"", "W/\"v1\"", "\"v1;gzip\"", "\"v1-gzip\""] {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut writer, b"bytes").unwrap();
        let body = writer.finish().unwrap();
        let server = Scripted::new(move |_| {
            Answer::record(&body)
                .with("content-encoding", "gzip")
                .with("etag", tag)
        });
        let (bytes, meta) = runtime
            .block_on(read(&apify(server.address), &record("k")))
            .unwrap();
        assert_eq!(
            (bytes.as_slice(), meta.etag),
            (&b"bytes"[..], Some(ETag::new("v1")))
        );
    }
}

#[test]
fn a_new_token_of_the_same_user_is_taken_and_one_of_another_user_is_not() {
    let server = Served::memory();
    let backend = Apify::new(options(server.address, &server.token)).unwrap();
    let runtime = runtime();
    let store = made(&runtime, &backend);
    let take = |token: &str| runtime.block_on(backend.replace_token(Token::new(token).unwrap()));
    let other = server.tokens.add("bob", false, None).unwrap();
    server.wait_for(&other);
    let refused = take(&other).unwrap_err();
    assert_eq!(refused.kind(), Kind::Denied);
    assert!(refused.to_string().contains("another user"), "{refused}");
    assert_eq!(take("nonsense").unwrap_err().kind(), Kind::Denied);
    let next = server.tokens.add("ann", false, None).unwrap();
    server.wait_for(&next);
    take(&next).unwrap();
    server.tokens.revoke(&server.token).unwrap();
    let old = server.client();
    while old.get("/v2/users/me").status == 200 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    runtime
        .block_on(put(&backend, &record_in(&store, "k"), b"x"))
        .unwrap();
}

#[test]
fn a_404_that_is_not_the_apis_says_nothing_about_a_store() {
    let server = Scripted::new(|_| {
        Answer::Full(404, Vec::new(), b"<html>no backend</html>".to_vec())
            .with("content-type", "text/html")
    });
    let backend = apify(server.address);
    let error = runtime()
        .block_on(backend.store(&StoreRef::Id(remote::store())))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.to_string().contains("Apify API"), "{error}");
    let id = record("k");
    let gone = backend.delete(&id, Precondition::None);
    let error = runtime().block_on(gone).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
}
