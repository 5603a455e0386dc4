//! One SDK rewrites records of a store kept for both while the mount is up; the mount and the other SDK then agree.
//! Must never repair anything itself: only the daemon may.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;

use serde_json::json;

use sdk::project::{Layout, Mounted, Project, eventually};
use sdk::{Flavour, Given, Sdk};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const STORE: &str = "shared";

/// A plain key; one that Python encodes; one whose Python name looks like a JS file.
const KEYS: [&str; 3] = ["alpha", "it's(ok)!", "report.txt"];
/// A record that nobody touches.
const BYSTANDER: &str = "bystander.json";

struct Shared {
    // Before the folder that it mounts: fields are dropped in this order.
    mount: Mounted,
    project: Project,
}

impl Shared {
    fn new() -> Shared {
        let project = Project::new();
        let mount = project.mount(Layout::Dual);
        mount.make_store(STORE);
        for key in KEYS {
            mount.write_typed(STORE, key, b"as the mount wrote it", TEXT);
        }
        mount.write_typed(STORE, BYSTANDER, b"[1, 2]", JSON);
        Shared { mount, project }
    }

    fn start(&self, flavour: Flavour) -> Sdk {
        let mut sdk = Sdk::start(flavour, &self.project.root());
        assert_eq!(sdk.list(Some(STORE)), all_keys());
        sdk
    }

    /// Through the mount, then by fresh processes of both SDKs: exactly these records.
    fn agree_on(&self, wanted: &[(&str, &[u8], &str)], after: &str) {
        let mut wanted = wanted.to_vec();
        wanted.push((BYSTANDER, b"[1, 2]", JSON));
        let keys: BTreeSet<String> = wanted.iter().map(|(key, _, _)| (*key).to_owned()).collect();
        eventually(&format!("the names after {after}"), || {
            self.mount.list(STORE) == keys
        });
        for (key, _, content_type) in &wanted {
            eventually(&format!("the type of {key} after {after}"), || {
                self.mount.content_type(STORE, key) == *content_type
            });
        }
        // Others' changes are told within a second, and to who waits for them: also where the type is as before.
        self.mount.sync();
        for (key, bytes, _) in &wanted {
            assert_eq!(self.mount.read(STORE, key), *bytes, "{key} after {after}");
        }
        for flavour in [Flavour::Js, Flavour::Python] {
            let mut fresh = Sdk::start(flavour, &self.project.root());
            assert_eq!(fresh.list(Some(STORE)), keys, "{flavour:?} after {after}");
            for (key, bytes, content_type) in &wanted {
                let read = fresh
                    .get(Some(STORE), key)
                    .unwrap_or_else(|| panic!("{flavour:?} finds no {key} after {after}"));
                assert_eq!(
                    read.content_type, *content_type,
                    "{flavour:?}, {key} after {after}"
                );
                assert!(
                    read.holds(bytes),
                    "{flavour:?}, {key} after {after}: {read:?}"
                );
            }
            fresh.finish();
        }
        // Looking has changed nothing.
        self.mount.sync();
        assert_eq!(self.mount.list(STORE), keys, "after {after} and both SDKs");
        for (key, bytes, _) in &wanted {
            assert_eq!(
                self.mount.read(STORE, key),
                *bytes,
                "{key} after {after} and both SDKs"
            );
        }
    }
}

fn all_keys() -> BTreeSet<String> {
    KEYS.iter()
        .chain([&BYSTANDER])
        .map(|key| (*key).to_owned())
        .collect()
}

fn each_key<'a>(bytes: &'a [u8], content_type: &'a str) -> Vec<(&'a str, &'a [u8], &'a str)> {
    KEYS.iter().map(|key| (*key, bytes, content_type)).collect()
}

// README: S84
#[test]
fn the_js_sdk_reads_what_python_overwrote() {
    let shared = Shared::new();
    let mut python = shared.start(Flavour::Python);
    for key in KEYS {
        python.set(Some(STORE), key, b"as Python wrote it", TEXT);
        assert_eq!(shared.mount.read(STORE, key), b"as Python wrote it");
    }
    shared.agree_on(
        &each_key(b"as Python wrote it", TEXT),
        "an overwrite by Python",
    );
    // The process that wrote goes on with what the daemon has put in order.
    for key in KEYS {
        assert_eq!(
            python.value(Some(STORE), key),
            Given::text("as Python wrote it")
        );
        python.set(Some(STORE), key, b"and again", TEXT);
    }
    shared.agree_on(
        &each_key(b"and again", TEXT),
        "a second overwrite by Python",
    );
    python.finish();
    shared.mount.unmount();
}

// README: S84
#[test]
fn the_js_sdk_reads_what_python_gave_another_type() {
    let shared = Shared::new();
    let mut python = shared.start(Flavour::Python);
    for key in KEYS {
        python.set(Some(STORE), key, b"\x89\x00bytes", "application/x-own");
    }
    shared.agree_on(
        &each_key(b"\x89\x00bytes", "application/x-own"),
        "a new type by Python",
    );
    python.finish();
}

// README: S84
#[test]
fn python_reads_what_the_js_sdk_overwrote() {
    let shared = Shared::new();
    let mut js = shared.start(Flavour::Js);
    for key in KEYS {
        js.set(
            Some(STORE),
            key,
            b"as JS wrote it, longer than before",
            TEXT,
        );
        assert_eq!(
            shared.mount.read(STORE, key),
            b"as JS wrote it, longer than before"
        );
    }
    shared.agree_on(
        &each_key(b"as JS wrote it, longer than before", TEXT),
        "an overwrite by JS",
    );
    for key in KEYS {
        js.set(Some(STORE), key, b"again", TEXT);
    }
    shared.agree_on(&each_key(b"again", TEXT), "a second overwrite by JS");
    js.finish();
}

// README: S84
#[test]
fn python_reads_what_the_js_sdk_gave_another_type() {
    let shared = Shared::new();
    let mut js = shared.start(Flavour::Js);
    for key in KEYS {
        js.set_json(Some(STORE), key, &json!(["now", "json"]));
    }
    let text = b"[\n  \"now\",\n  \"json\"\n]";
    shared.agree_on(&each_key(text, JSON), "a new type by JS");
    for key in KEYS {
        assert_eq!(
            js.value(Some(STORE), key),
            Given::Json(json!(["now", "json"])),
            "{key}"
        );
    }
    js.finish();
}

#[test]
fn a_file_that_a_running_js_process_named_after_its_key_stays_where_it_looks() {
    let shared = Shared::new();
    let mut js = shared.start(Flavour::Js);
    let mut own: Vec<(&str, &str, &[u8], &str)> = vec![
        (
            "photo.jpg",
            "photo",
            b"\xff\xd8\xff\xe0 not really",
            "image/jpeg",
        ),
        ("data.json", "data", b"{\"a\": 1}", "application/json"),
        ("page.html", "page", b"<p>", "text/html"),
    ];
    for (key, _, bytes, content_type) in &own {
        js.set(Some(STORE), key, bytes, content_type);
    }
    let agree = |own: &[(&str, &str, &[u8], &str)], after: &str| {
        // A fresh process knows them by what is left of the name when the extension is taken off, and so do all others.
        for (_, shown, bytes, _) in own {
            eventually(after, || shared.mount.list(STORE).contains(*shown));
            assert_eq!(
                shared.mount.read(STORE, shown),
                *bytes,
                "{shown} after {after}"
            );
        }
        let mut wanted = each_key(b"as the mount wrote it", TEXT);
        let types: Vec<String> = own
            .iter()
            .map(|(_, shown, _, _)| shared.mount.content_type(STORE, shown))
            .collect();
        wanted.extend(
            own.iter()
                .zip(&types)
                .map(|((_, shown, bytes, _), content_type)| {
                    (*shown, *bytes, content_type.as_str())
                }),
        );
        shared.agree_on(&wanted, after);
    };
    agree(&own, "what JS added");
    for (key, _, bytes, _) in &own {
        assert!(js.get(Some(STORE), key).unwrap().holds(bytes), "{key}");
    }
    shared
        .mount
        .write(STORE, "photo", b"\xff\xd8\xff\xe0 edited");
    own[0].2 = b"\xff\xd8\xff\xe0 edited";
    agree(&own, "an edit of what JS added");
    assert!(js.get(Some(STORE), "photo.jpg").unwrap().holds(own[0].2));
    assert_eq!(js.list(Some(STORE)).len(), KEYS.len() + 1 + own.len());
    js.finish();
}

// README: S84
#[test]
fn the_js_sdk_finds_no_record_that_python_deleted() {
    let shared = Shared::new();
    let mut python = shared.start(Flavour::Python);
    for key in &KEYS[..2] {
        python.delete(Some(STORE), key);
    }
    shared.agree_on(
        &[(KEYS[2], b"as the mount wrote it", TEXT)],
        "a deletion by Python",
    );
    // It does not come back later either: not by another deletion, nor by the next mount.
    python.delete(Some(STORE), KEYS[2]);
    shared.agree_on(&[], "the deletion of all by Python");
    python.set(Some(STORE), KEYS[0], b"made again", TEXT);
    shared.agree_on(
        &[(KEYS[0], b"made again", TEXT)],
        "a deletion and a new record by Python",
    );
    python.finish();
    let Shared { mount, project } = shared;
    mount.unmount();
    let mount = project.mount(Layout::Dual);
    assert_eq!(
        mount.list(STORE),
        BTreeSet::from([KEYS[0].to_owned(), BYSTANDER.to_owned()])
    );
}

// README: S84
#[test]
fn python_finds_no_record_that_the_js_sdk_deleted() {
    let shared = Shared::new();
    let mut js = shared.start(Flavour::Js);
    for key in &KEYS[..2] {
        js.delete(Some(STORE), key);
    }
    shared.agree_on(
        &[(KEYS[2], b"as the mount wrote it", TEXT)],
        "a deletion by JS",
    );
    js.delete(Some(STORE), KEYS[2]);
    shared.agree_on(&[], "the deletion of all by JS");
    js.set(Some(STORE), KEYS[1], b"made again", TEXT);
    shared.agree_on(
        &[(KEYS[1], b"made again", TEXT)],
        "a deletion and a new record by JS",
    );
    js.finish();
}

#[test]
fn both_sdks_and_the_mount_take_turns_at_one_record() {
    let shared = Shared::new();
    let mut js = shared.start(Flavour::Js);
    let mut python = shared.start(Flavour::Python);
    let key = KEYS[1];
    for round in 0..6 {
        let text = format!("round {round}");
        match round % 3 {
            0 => python.set(Some(STORE), key, text.as_bytes(), TEXT),
            1 => js.set(Some(STORE), key, text.as_bytes(), TEXT),
            _ => shared.mount.write(STORE, key, text.as_bytes()),
        }
        assert_eq!(
            String::from_utf8(shared.mount.read(STORE, key)).unwrap(),
            text
        );
        shared.mount.sync();
        assert_eq!(
            python.value(Some(STORE), key),
            Given::text(&text),
            "Python after round {round}"
        );
        assert_eq!(
            js.value(Some(STORE), key),
            Given::text(&text),
            "JS after round {round}"
        );
    }
    let mut wanted = each_key(b"as the mount wrote it", TEXT);
    wanted[1].1 = b"round 5";
    shared.agree_on(&wanted, "six rounds");
    js.finish();
    python.finish();
}
