//! The keys of a store over HTTP: pages, prefixes, starts, and what stands in a line.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Served};
use serde_json::{Value, json};

fn keys(page: &Value) -> Vec<String> {
    let lines = page["items"].as_array().unwrap().iter();
    lines
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect()
}

fn list(client: &Client, store: &str, query: &str) -> Value {
    let listed = client.get(&format!("{store}/keys?{query}"));
    assert_eq!(listed.status, 200, "{listed:?}");
    listed.data()
}

#[test]
fn pages_are_in_byte_order_and_lead_to_each_other() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let mut all: Vec<String> = (0..23).map(|n| format!("k{n}")).collect();
        all.extend(["!", "'", "(", "-x", ".x", "A", "Z", "_", "a", "z"].map(str::to_owned));
        for key in &all {
            assert_eq!(
                client
                    .put(&format!("{store}/records/{key}"), "text/plain", b"1")
                    .status,
                201
            );
        }
        all.sort_unstable();
        let mut seen = Vec::new();
        let mut start = String::new();
        loop {
            let page = list(
                &client,
                &store,
                &format!("limit=7&exclusiveStartKey={start}"),
            );
            let shown = if start.is_empty() {
                Value::Null
            } else {
                json!(start)
            };
            assert_eq!(page["exclusiveStartKey"], shown);
            assert_eq!(
                (&page["limit"], &page["count"]),
                (&json!(7), &json!(keys(&page).len()))
            );
            seen.extend(keys(&page));
            match page["nextExclusiveStartKey"].as_str() {
                Some(next) => {
                    assert_eq!(page["isTruncated"], true);
                    assert_eq!(seen.last().unwrap(), next);
                    start = next.to_owned();
                }
                None => {
                    assert_eq!(page["isTruncated"], false);
                    assert!(
                        page.as_object()
                            .unwrap()
                            .contains_key("nextExclusiveStartKey")
                    );
                    break;
                }
            }
        }
        assert_eq!(seen, all);
    }
}

#[test]
fn a_prefix_a_start_and_a_limit_go_together() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    for key in ["a", "a-1", "a-2", "a-3", "b"] {
        client.put(&format!("{store}/records/{key}"), "text/plain", b"1");
    }
    assert_eq!(
        keys(&list(&client, &store, "prefix=a-")),
        ["a-1", "a-2", "a-3"]
    );
    assert_eq!(
        keys(&list(
            &client,
            &store,
            "prefix=a-&exclusiveStartKey=a-1&limit=1"
        )),
        ["a-2"]
    );
    assert_eq!(
        keys(&list(&client, &store, "prefix=a-&exclusiveStartKey=z")).len(),
        0
    );
    assert_eq!(keys(&list(&client, &store, "prefix=%C3%A9")).len(), 0);
    // Starts that are no keys, and that no record has.
    assert_eq!(
        keys(&list(&client, &store, "exclusiveStartKey=a%20b")),
        ["a-1", "a-2", "a-3", "b"]
    );
    assert_eq!(keys(&list(&client, &store, "exclusiveStartKey=a~")), ["b"]);
    assert_eq!(
        keys(&list(&client, &store, "exclusiveStartKey=a-25")),
        ["a-3", "b"]
    );
    assert_eq!(
        keys(&list(&client, &store, "exclusiveStartKey=..")).len(),
        5
    );
    for (limit, shown) in [
        ("", 1000),
        ("limit=0", 1000),
        ("limit=2000", 1000),
        ("limit=2", 2),
    ] {
        assert_eq!(list(&client, &store, limit)["limit"], shown, "{limit}");
    }
    let wrong = client.get(&format!("{store}/keys?limit=many"));
    wrong.assert_error(400, "invalid-parameter");
}

#[test]
fn a_line_tells_size_type_time_tag_and_a_url_that_works() {
    for served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        client.put(
            &format!("{store}/records/it's(1)!.json"),
            "application/json",
            b"{\"a\":1}",
        );
        let line = list(&client, &store, "")["items"][0].clone();
        assert_eq!(line["key"], "it's(1)!.json");
        assert_eq!(line["size"], 7);
        assert_eq!(line["contentType"], "application/json");
        let got = client.get(&format!("{store}/records/it's(1)!.json"));
        assert_eq!(
            format!("\"{}\"", line["etag"].as_str().unwrap()),
            got.header("etag").unwrap()
        );
        assert!(line["modifiedAt"].as_str().unwrap().ends_with('Z'));
        let url = line["recordPublicUrl"].as_str().unwrap();
        let path = url
            .strip_prefix(&format!("http://{}", served.address))
            .unwrap();
        assert_eq!(served.client_with(None).get(path).body, b"{\"a\":1}");
    }
}

#[test]
fn keys_of_a_store_that_is_not_there_and_collections_are_refused() {
    let served = Served::memory();
    let (client, store) = (served.client(), served.store("s"));
    let missing = client.get("/v2/key-value-stores/nothing/keys");
    missing.assert_error(404, "record-not-found");
    for path in ["keys", "records"] {
        let refused = client.get(&format!("{store}/{path}?collection=images"));
        refused.assert_error(501, "not-implemented");
    }
}

#[test]
fn urls_begin_with_the_public_url_when_there_is_one() {
    let served = Served::with(|options| {
        options.public_url = Some("https://kvs.example/sub".to_owned());
    });
    let (client, store) = (served.client(), served.store("s"));
    let put = client.put(&format!("{store}/records/a"), "text/plain", b"1");
    let begins = "https://kvs.example/sub/v2/key-value-stores/";
    assert!(put.header("location").unwrap().starts_with(begins));
    let line = list(&client, &store, "")["items"][0].clone();
    assert!(
        line["recordPublicUrl"]
            .as_str()
            .unwrap()
            .starts_with(begins)
    );
    assert!(
        client.get(&store).data()["keysPublicUrl"]
            .as_str()
            .unwrap()
            .starts_with(begins)
    );
}
