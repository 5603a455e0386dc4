//! Actors that use the SDKs as on the platform, with a server in the place of the API.
#![allow(clippy::unwrap_used)]

mod http;
mod sdk;
mod support;

use http::Served;
use sdk::{Flavour, Given, Sdk, Start};
use serde_json::{Value, json};
use std::path::Path;
use storefs::backend::dir::Layout;

const RUN: &str = "storefsRun0000001";

/// An Actor in a run of this server, with this much more in its environment.
fn actor(server: &Served, flavour: Flavour, token: &str, more: &[(&str, &str)]) -> Sdk {
    let url = format!("http://{}", server.address);
    let run = server.client().get(&format!("/v2/actor-runs/{RUN}"));
    let run = run.data();
    let store = run["defaultKeyValueStoreId"].as_str().unwrap();
    let mut env = vec![
        ("APIFY_IS_AT_HOME", "1"),
        ("APIFY_API_BASE_URL", url.as_str()),
        ("APIFY_API_PUBLIC_BASE_URL", url.as_str()),
        ("APIFY_TOKEN", token),
        ("APIFY_META_ORIGIN", "API"),
        ("ACTOR_RUN_ID", RUN),
        ("ACTOR_ID", "storefsActor00001"),
        ("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", store),
        ("NO_PROXY", "127.0.0.1"),
    ];
    env.extend(more);
    // Nothing may lie in the folder that the SDK would use without the API.
    let nowhere = server.path().join("nowhere");
    let start = Start {
        root: &nowhere,
        purge: true,
        env: &env,
    };
    let started = Sdk::start_with(flavour, &start);
    assert!(!nowhere.exists());
    started
}

fn values() -> [(&'static str, Value); 5] {
    [
        ("OUTPUT", json!({"a": {"b": null}, "ž": "🐎"})),
        ("list", json!([1, "two", 3.5])),
        ("long", json!({"text": "long ".repeat(5000)})),
        ("number", json!(42)),
        ("nothing.much", json!({})),
    ]
}

/// All that an Actor does with its default store and with one that it opens by name.
fn an_actor_works(flavour: Flavour) {
    let server = Served::in_layout(Layout::Dual);
    let mut running = actor(&server, flavour, &server.token, &[]);
    assert_eq!(running.input(), Given::Nothing);
    for store in [None, Some("named-store")] {
        for (key, value) in &values() {
            running.set_json(store, key, value);
            assert_eq!(
                running.value(store, key),
                Given::Json(value.clone()),
                "{key}"
            );
        }
        running.set(
            store,
            "picture",
            &[0x89, b'P', b'N', b'G', 0, 255],
            "image/png",
        );
        running.set(
            store,
            "page",
            "<p>žluť".repeat(400).as_bytes(),
            "text/html; charset=utf-8",
        );
        running.set(store, "empty", b"", "application/octet-stream");
        assert_eq!(
            running.value(store, "picture"),
            Given::Bytes(vec![0x89, b'P', b'N', b'G', 0, 255])
        );
        assert_eq!(
            running.value(store, "page"),
            Given::Text("<p>žluť".repeat(400).into_bytes())
        );
        assert!(running.exists(store, "empty"));
        for at in 0..3 {
            let key = format!("gone-{at}");
            running.set_json(store, &key, &json!(at));
            running.delete(store, &key);
            assert!(!running.exists(store, &key));
        }
        assert_eq!(running.list(store).len(), values().len() + 3);
    }
    let url = running.url(None, "OUTPUT");
    let path = url.split_once("/v2/").unwrap().1;
    let opened = server.client_with(None).get(&format!("/v2/{path}"));
    assert_eq!((opened.status, opened.json()), (200, values()[0].1.clone()));
    running.set_json(Some("dropped"), "key", &json!(1));
    running.drop_store("dropped");
    running.finish();
    the_folder_holds_it(&server.path().join("storage"));
}

/// Fresh processes of both SDKs, without any API, find it all in the folder.
fn the_folder_holds_it(root: &Path) {
    assert!(!root.join("key_value_stores/dropped").exists());
    for flavour in [Flavour::Js, Flavour::Python] {
        let mut fresh = Sdk::start(flavour, root);
        for store in [None, Some("named-store")] {
            for (key, value) in &values() {
                assert_eq!(
                    fresh.value(store, key),
                    Given::Json(value.clone()),
                    "{flavour:?}, {key}"
                );
            }
            let picture = fresh.get(store, "picture").unwrap();
            assert_eq!(picture.content_type, "image/png");
            assert!(picture.holds(&[0x89, b'P', b'N', b'G', 0, 255]));
            assert_eq!(fresh.list(store).len(), values().len() + 3);
        }
        fresh.finish();
    }
}

#[test]
fn an_actor_with_the_javascript_sdk_works_as_on_the_platform() {
    an_actor_works(Flavour::Js);
}

#[test]
fn an_actor_with_the_python_sdk_works_as_on_the_platform() {
    an_actor_works(Flavour::Python);
}

#[test]
fn actors_read_the_input_that_their_environment_names() {
    let server = Served::in_layout(Layout::Dual);
    let client = server.client();
    for (key, value) in [("INPUT", "first"), ("INPUT-METAMORPH-1", "second")] {
        let path = format!("/v2/actor-runs/{RUN}/key-value-store/records/{key}");
        let body = json!({"from": value}).to_string();
        assert_eq!(
            client
                .put(&path, "application/json", body.as_bytes())
                .status,
            201
        );
    }
    for flavour in [Flavour::Js, Flavour::Python] {
        for (env, value) in [
            (&[][..], "first"),
            (&[("ACTOR_INPUT_KEY", "INPUT-METAMORPH-1")], "second"),
        ] {
            let mut running = actor(&server, flavour, &server.token, env);
            assert_eq!(
                running.input(),
                Given::Json(json!({"from": value})),
                "{flavour:?}"
            );
            running.finish();
        }
    }
}

#[test]
fn stores_of_one_actor_are_found_by_the_other() {
    let server = Served::in_layout(Layout::Dual);
    let mut js = actor(&server, Flavour::Js, &server.token, &[]);
    let mut python = actor(&server, Flavour::Python, &server.token, &[]);
    for store in [None, Some("both")] {
        js.set_json(store, "from-js", &json!({"from": "js"}));
        python.set_json(store, "from-python", &json!({"from": "python"}));
        for sdk in [&mut js, &mut python] {
            assert_eq!(
                sdk.value(store, "from-js"),
                Given::Json(json!({"from": "js"}))
            );
            assert_eq!(
                sdk.value(store, "from-python"),
                Given::Json(json!({"from": "python"}))
            );
            assert_eq!(sdk.list(store).len(), 2);
        }
    }
    js.finish();
    python.finish();
}
