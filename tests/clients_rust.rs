//! The Rust client works against a server as it is.
#![allow(clippy::unwrap_used)]

mod http;

use apify_client::{ApifyClient, ApifyClientError, ListKeysOptions, StorageListOptions};
use http::Served;
use serde_json::json;
use std::io::Write;
use storefs::backend::dir::Layout;
use tokio::runtime::Runtime;

fn client(server: &Served, token: &str) -> ApifyClient {
    let base = format!("http://{}", server.address);
    // One attempt: an answer that has to be asked for twice is a wrong one.
    let builder = ApifyClient::builder().token(token).max_retries(0);
    builder.base_url(&base).public_base_url(&base).build()
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

#[track_caller]
fn assert_refused<T>(given: Result<T, ApifyClientError>, status: u16, kind: &str) {
    let error = given.err().unwrap();
    let ApifyClientError::Api(error) = error else {
        panic!("{error}");
    };
    let told = (error.status_code, error.error_type.as_deref());
    assert_eq!(told, (status, Some(kind)), "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_rust_client_sets_gets_and_deletes_records_of_all_kinds() {
    let server = Served::in_layout(Layout::Dual);
    let client = client(&server, &server.token);
    runtime().block_on(async {
        let made = client
            .key_value_stores()
            .get_or_create(Some("cases"))
            .await
            .unwrap();
        let again = client
            .key_value_stores()
            .get_or_create(Some("cases"))
            .await
            .unwrap();
        assert_eq!(again.id, made.id);
        let store = client.key_value_store("~cases");
        assert_eq!(store.get().await.unwrap().unwrap().id, made.id);
        let long: Vec<u8> = (0..20_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let text = "žluťoučký kůň ".repeat(1000).into_bytes();
        for (key, value, content_type) in [
            (
                "text",
                "Příliš žluťoučký kůň 🐎".as_bytes().to_vec(),
                "text/plain; charset=utf-8",
            ),
            ("bytes", (0..=255).collect(), "application/octet-stream"),
            ("empty", Vec::new(), "text/plain"),
            ("long-text", text.clone(), "text/plain; charset=utf-8"),
            ("long", long, "video/mp4"),
            ("!-_.'()", b"marks".to_vec(), "text/plain"),
        ] {
            store
                .set_record_raw(key, value.clone(), content_type)
                .await
                .unwrap();
            let read = store.get_record(key).await.unwrap().unwrap();
            assert_eq!(read.content_type.as_deref(), Some(content_type), "{key}");
            assert!(read.value == value, "{key}");
            assert!(store.record_exists(key).await.unwrap(), "{key}");
        }
        store
            .set_record_raw_with_content_encoding("sent", gzip(&text), "text/plain", "gzip")
            .await
            .unwrap();
        assert!(store.get_record("sent").await.unwrap().unwrap().value == text);
        let value = json!({"a": [1, "two", null], "ž": "🐎"});
        store.set_record_json("json", &value).await.unwrap();
        let read: serde_json::Value = store
            .get_record("json")
            .await
            .unwrap()
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(read, value);
        store.delete_record("json").await.unwrap();
        store.delete_record("json").await.unwrap();
        assert!(!store.record_exists("json").await.unwrap());
        assert!(store.get_record("json").await.unwrap().is_none());
        assert_refused(
            store.set_record_json("a~b", &1).await,
            400,
            "invalid-record-key",
        );
        let folder = server.path().join("storage/key_value_stores/cases");
        assert!(
            std::fs::read(folder.join("text.txt")).unwrap() == "Příliš žluťoučký kůň 🐎".as_bytes()
        );
    });
}

#[test]
fn the_rust_client_lists_keys_and_stores_in_pages() {
    let server = Served::in_layout(Layout::Dual);
    let client = client(&server, &server.token);
    runtime().block_on(async {
        for name in ["one", "two", "three"] {
            client
                .key_value_stores()
                .get_or_create(Some(name))
                .await
                .unwrap();
        }
        let options = StorageListOptions {
            limit: Some(2),
            ..StorageListOptions::default()
        };
        let page = client.key_value_stores().list(options).await.unwrap();
        let names: Vec<_> = page
            .items
            .iter()
            .map(|store| store.name.as_deref().unwrap())
            .collect();
        assert_eq!((page.total, names), (3, vec!["one", "two"]));
        let store = client.key_value_store("~one");
        let mut keys: Vec<String> = (0..1050)
            .map(|at| format!("{}-{at:04}", if at % 10 == 0 { 'b' } else { 'a' }))
            .collect();
        for key in &keys {
            store
                .set_record_raw(key, key.clone().into_bytes(), "text/plain")
                .await
                .unwrap();
        }
        keys.sort();
        for prefix in [None, Some("b-")] {
            let prefix = prefix.map(str::to_owned);
            let mut listed = Vec::new();
            let mut iterator = store.iterate_keys(ListKeysOptions {
                prefix: prefix.clone(),
                ..ListKeysOptions::default()
            });
            while let Some(found) = iterator.next().await.unwrap() {
                assert_eq!(found.size, Some(6));
                listed.push(found.key);
            }
            let wanted = keys
                .iter()
                .filter(|key| key.starts_with(prefix.as_deref().unwrap_or("")));
            assert_eq!(listed, wanted.cloned().collect::<Vec<_>>());
        }
        let renamed = store
            .update(&json!({"name": "four", "title": "A title"}))
            .await
            .unwrap();
        assert_eq!(renamed.name.as_deref(), Some("four"));
        assert!(store.get().await.unwrap().is_none());
        client.key_value_store("~four").delete().await.unwrap();
        assert_refused(
            client
                .key_value_store("~four")
                .list_keys(ListKeysOptions::default())
                .await,
            404,
            "record-not-found",
        );
    });
}

#[test]
fn urls_that_the_rust_client_signs_open_to_anybody_and_another_user_is_refused() {
    let server = Served::in_layout(Layout::Dual);
    let client_of_owner = client(&server, &server.token);
    let token = server.tokens.add("bob", false, None).unwrap();
    let anybody = server.client_with(None);
    server.wait_for(&token);
    let stranger = client(&server, &token);
    runtime().block_on(async {
        let made = client_of_owner
            .key_value_stores()
            .get_or_create(Some("signed"))
            .await
            .unwrap();
        let store = client_of_owner.key_value_store(&made.id);
        store
            .set_record_raw("key", b"opened".to_vec(), "text/plain")
            .await
            .unwrap();
        let path = |url: String| {
            url.split_once("/v2/")
                .map(|(_, path)| format!("/v2/{path}"))
                .unwrap()
        };
        let url = path(store.get_record_public_url("key").await.unwrap());
        assert_eq!(anybody.get(&url).body, b"opened");
        assert_eq!(anybody.get(url.split_once('?').unwrap().0).status, 401);
        let keys = path(store.create_keys_public_url(Some(60)).await.unwrap());
        assert_eq!(anybody.get(&keys).data()["items"][0]["key"], "key");
        let late = path(store.create_keys_public_url(Some(-60)).await.unwrap());
        assert_eq!(anybody.get(&late).status, 403);
        let other = stranger.key_value_store(&made.id);
        assert_refused(
            other.get_record("key").await,
            403,
            "insufficient-permissions",
        );
        assert_refused(
            other.set_record_json("key", &1).await,
            403,
            "insufficient-permissions",
        );
        assert_refused(other.delete().await, 403, "insufficient-permissions");
    });
}
