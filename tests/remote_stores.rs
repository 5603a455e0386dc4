//! Long and endless lists of stores, and stores that cannot be.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use remote::{Answer, STORE, Scripted, apify, peak, runtime, store};
use storefs::backend::{Backend, StoreRef};
use storefs::error::Kind;

fn stores_page(first: usize, count: usize, total: u64) -> String {
    let lines = (first..first + count).map(|n| {
        // The order of the ids is another one than that of the list.
        let id = format!("{:05}aB3dE5gH7jK9", (n * 7919) % 100_000);
        serde_json::json!({"id": id, "name": format!("s-{n}"), "userId": "mE3dE5gH7jK9mN1pQ"})
    });
    let lines: Vec<_> = lines.collect();
    serde_json::json!({"data": {"total": total, "offset": first, "count": count, "items": lines}})
        .to_string()
}

fn offset(path: &str) -> usize {
    let (_, rest) = path.split_once("offset=").unwrap();
    rest.split('&').next().unwrap().parse().unwrap()
}

#[test]
fn thousands_of_stores_come_page_by_page_in_the_order_of_their_ids() {
    const ALL: usize = 12_500;
    let server = Scripted::new(|request| {
        let first = offset(&request.path);
        Answer::json(200, stores_page(first, (ALL - first).min(1000), ALL as u64))
    });
    let backend = apify(server.address);
    let runtime = runtime();
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let page = runtime.block_on(backend.stores(after.as_ref())).unwrap();
        assert!(page.stores.len() <= 1000);
        assert!(
            page.stores.iter().all(|store| store.owner.is_none()),
            "they are ours"
        );
        ids.extend(page.stores.into_iter().map(|store| store.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(ids.len(), ALL);
    assert!(ids.is_sorted());
    // All were read twice, not once for each page.
    assert_eq!(server.requests().len(), 26);
}

#[test]
fn a_list_of_stores_that_never_ends_ends_in_an_error() {
    let same = Scripted::new(|_| Answer::json(200, stores_page(0, 1000, u64::MAX)));
    let error = runtime()
        .block_on(apify(same.address).stores(None))
        .unwrap_err();
    assert!(error.to_string().contains("the same page again"), "{error}");
    let before = peak();
    let pages = [0, 1000, 2000].map(|first| stores_page(first, 1000, u64::MAX));
    let endless = Scripted::new(move |request| {
        let number = offset(&request.path) / 1000;
        Answer::json(200, pages[number % pages.len()].clone())
    });
    let error = runtime()
        .block_on(apify(endless.address).stores(None))
        .unwrap_err();
    assert!(
        error.to_string().contains("more than 1000000 stores"),
        "{error}"
    );
    assert!(peak() < before + (400 << 20), "{} MiB", peak() >> 20);
}

#[test]
fn stores_that_cannot_be_are_refused() {
    for (id, name) in [
        ("../x", "n"),
        ("", "n"),
        (STORE, "../../etc"),
        (STORE, ".hidden"),
        (STORE, "a/b"),
    ] {
        let text = serde_json::json!({"data": {"id": id, "name": name}}).to_string();
        let server = Scripted::new(move |_| Answer::json(200, text.clone()));
        let backend = apify(server.address);
        let error = runtime()
            .block_on(backend.store(&StoreRef::Id(store())))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{id} {name}");
    }
    // Another store than the one that was asked for is none.
    let server = Scripted::new(|_| Answer::json(200, r#"{"data":{"id":"zZ3dE5gH7jK9mN1pQ"}}"#));
    let error = runtime()
        .block_on(apify(server.address).store(&StoreRef::Id(store())))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::StoreNotFound);
}
