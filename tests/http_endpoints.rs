//! The served document and the README's table against what the router really does.
#![allow(clippy::unwrap_used)]

mod http;

use http::Served;
use serde_json::Value;
use std::collections::BTreeSet;

fn document(served: &Served) -> Value {
    let got = served.client_with(None).get("/v2/openapi.json");
    assert_eq!(
        (got.status, got.header("content-type")),
        (200, Some("application/json; charset=utf-8"))
    );
    got.json()
}

/// Methods and paths of the document.
fn described(document: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            found.insert((method.to_uppercase(), path.clone()));
        }
    }
    found
}

/// A path with something in place of its parameters.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{recordKey}" => "a-key",
        "{runId}" => "aaaaaaaaaaaaaaaaa",
        "{userId}" => "ann",
        part if part.starts_with('{') => "default",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_document_describes_every_endpoint_and_no_other() {
    let served = Served::memory();
    let routes = storefs::serve::endpoints().into_iter();
    let routes: BTreeSet<_> = routes
        .map(|(method, path)| (method.to_owned(), path))
        .collect();
    assert_eq!(described(&document(&served)), routes);
    assert!(routes.len() > 50);
}

#[test]
fn every_endpoint_of_the_document_answers_and_other_methods_do_not() {
    let served = Served::memory();
    let document = document(&served);
    for (method, path) in described(&document) {
        // An event stream does not end, and deletions would take the store away from the others.
        if path.ends_with("/changes") || method == "DELETE" {
            continue;
        }
        served.client().get("/v2/actor-runs/aaaaaaaaaaaaaaaaa");
        let reply = served.client().send(&method, &filled(&path), &[], b"");
        let allowed = document["paths"][&path][method.to_lowercase()]["responses"]
            .as_object()
            .unwrap();
        assert!(
            allowed.contains_key(&reply.status.to_string()),
            "{method} {path} {reply:?}"
        );
        assert!(![404, 405, 501].contains(&reply.status) || method == "GET" || method == "HEAD");
        let unknown = served.client().send("PATCH", &filled(&path), &[], b"");
        unknown.assert_error(405, "method-not-allowed");
        let told: Vec<_> = unknown.header("allow").unwrap().split(',').collect();
        let each: BTreeSet<_> = told.iter().collect();
        assert_eq!(each.len(), told.len(), "{path}: {told:?}");
        assert!(told.contains(&&*method), "{path}: {told:?}");
    }
}

#[test]
fn every_reference_and_operation_id_of_the_document_is_good() {
    let served = Served::memory();
    let document = document(&served);
    let mut ids = BTreeSet::new();
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    let target = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(target).is_some(), "{target}");
                }
                if let Some(id) = map.get("operationId") {
                    assert!(ids.insert(id.as_str().unwrap()), "{id}");
                    let parameters = map["parameters"].as_array().unwrap();
                    let names: BTreeSet<_> = parameters.iter().map(ToString::to_string).collect();
                    assert_eq!(names.len(), parameters.len(), "{id}");
                    assert!(!map["summary"].as_str().unwrap().is_empty());
                }
                open.extend(map.values());
            }
            Value::Array(all) => open.extend(all),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    assert_eq!(ids.len(), storefs::serve::endpoints().len());
}

#[test]
fn the_readme_lists_every_endpoint_and_no_other() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let table = readme.split_once("<!-- endpoints:begin -->").unwrap().1;
    let table = table.split_once("<!-- endpoints:end -->").unwrap().0;
    let mut told = BTreeSet::new();
    let roots: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("- `"))
        .map(|line| line.split('`').next().unwrap())
        .collect();
    assert_eq!(roots.len(), 5, "{roots:?}");
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cell = line.split('|').nth(1).unwrap().trim().trim_matches('`');
        let (methods, path) = cell.split_once(' ').unwrap();
        for method in methods.split(',') {
            match path.strip_prefix('S') {
                Some(rest) => told.extend(
                    roots
                        .iter()
                        .map(|root| (method.to_owned(), format!("{root}{rest}"))),
                ),
                None => {
                    told.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
    }
    let routes = storefs::serve::endpoints().into_iter();
    let routes: BTreeSet<_> = routes
        .map(|(method, path)| (method.to_owned(), path))
        .collect();
    let missing: Vec<_> = routes.difference(&told).collect();
    let invented: Vec<_> = told.difference(&routes).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "{missing:?} {invented:?}"
    );
}
