//! A running process of the real SDKs and a mount over the same folder see what the other one does.
//! Must never wait a fixed time: what is not promised at once is waited for, and the wait says what it waits for.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use sdk::project::{Layout, Mounted, Project, eventually};
use sdk::{Flavour, Given, Sdk};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

fn names(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// A store with a text and a JSON record, made through the mount.
fn two_records(mount: &Mounted) {
    mount.make_store("default");
    mount.write_typed("default", "notes", b"old", TEXT);
    mount.write_typed("default", "OUTPUT", b"{\"v\": 1}", JSON);
}

/// Each way to overwrite through the mount, and what the record then holds.
fn overwrite(mount: &Mounted, way: usize) -> &'static [u8] {
    let path = mount.path("default", "notes");
    match way {
        0 => fs::write(&path, "truncated and written").unwrap(),
        1 => {
            // What sed -i and editors do: a scratch name, then a rename onto the record.
            let scratch = mount.path("default", "notes~");
            fs::write(&scratch, "renamed onto it").unwrap();
            fs::rename(&scratch, &path).unwrap();
        }
        _ => {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, b", and appended").unwrap();
        }
    }
    [
        b"truncated and written".as_slice(),
        b"renamed onto it",
        b"renamed onto it, and appended",
    ][way]
}

fn a_running_process_sees_overwrites(flavour: Flavour, layout: Layout) {
    let project = Project::new();
    let mount = project.mount(layout);
    two_records(&mount);
    let mut sdk = Sdk::start(flavour, &project.root());
    assert_eq!(sdk.value(None, "notes"), Given::text("old"));
    for way in 0..3 {
        let now = overwrite(&mount, way);
        // Closed here, so seen there: nothing to wait for.
        assert_eq!(
            sdk.value(None, "notes"),
            Given::Text(now.to_vec()),
            "{flavour:?}, {layout:?}, way {way}"
        );
    }
    mount.write("default", "OUTPUT", b"{\"v\": 2}");
    assert_eq!(sdk.value(None, "OUTPUT"), Given::Json(json!({"v": 2})));
    assert_eq!(
        sdk.list(None),
        names(&["OUTPUT", "notes"]),
        "{flavour:?}, {layout:?}"
    );
    sdk.finish();
}

// README: S85
#[test]
fn a_running_js_process_sees_what_the_mount_overwrites() {
    a_running_process_sees_overwrites(Flavour::Js, Layout::Js);
    a_running_process_sees_overwrites(Flavour::Js, Layout::Dual);
}

// README: S85
#[test]
fn a_running_python_process_sees_what_the_mount_overwrites() {
    a_running_process_sees_overwrites(Flavour::Python, Layout::Python);
    a_running_process_sees_overwrites(Flavour::Python, Layout::Dual);
}

// README: S86
#[test]
fn a_running_js_process_is_not_disturbed_by_a_new_record_of_the_mount() {
    for layout in [Layout::Js, Layout::Dual] {
        let project = Project::new();
        let mount = project.mount(layout);
        two_records(&mount);
        let mut sdk = Sdk::start(Flavour::Js, &project.root());
        assert_eq!(sdk.list(None), names(&["OUTPUT", "notes"]));
        mount.write_typed("default", "new.html", b"<p>", "text/html");
        // It has scanned the folder once, and looks at no new name in it ...
        assert_eq!(sdk.list(None), names(&["OUTPUT", "notes"]));
        // ... but a store that it has not opened yet is scanned then.
        mount.make_store("later");
        mount.write_typed("later", "new.html", b"<p>", "text/html");
        assert_eq!(sdk.list(Some("later")), names(&["new.html"]));
        sdk.set(None, "own", b"still works", TEXT);
        assert_eq!(mount.read("default", "own"), b"still works");
        sdk.finish();
    }
}

// README: S86, S87
#[test]
fn a_running_python_process_sees_new_records_deletions_and_changed_types() {
    for layout in [Layout::Python, Layout::Dual] {
        let project = Project::new();
        let mount = project.mount(layout);
        two_records(&mount);
        let mut sdk = Sdk::start(Flavour::Python, &project.root());
        assert_eq!(sdk.list(None), names(&["OUTPUT", "notes"]));

        mount.write_typed("default", "it's-new.html", b"<p>new</p>", "text/html");
        assert_eq!(
            sdk.list(None),
            names(&["OUTPUT", "it's-new.html", "notes"]),
            "{layout:?}"
        );
        let read = sdk.get(None, "it's-new.html").unwrap();
        assert_eq!(
            (read.content_type.as_str(), read.value),
            ("text/html", Given::text("<p>new</p>"))
        );

        mount.write_typed("default", "notes", b"{\"now\": \"json\"}", JSON);
        let read = sdk.get(None, "notes").unwrap();
        assert_eq!(
            (read.content_type.as_str(), read.value),
            (JSON, Given::Json(json!({"now": "json"}))),
            "{layout:?}"
        );

        mount.remove("default", "OUTPUT");
        assert!(!sdk.exists(None, "OUTPUT"), "{layout:?}");
        assert_eq!(sdk.get(None, "OUTPUT"), None);

        fs::rename(
            mount.path("default", "notes"),
            mount.path("default", "moved"),
        )
        .unwrap();
        assert_eq!(
            sdk.list(None),
            names(&["it's-new.html", "moved"]),
            "{layout:?}"
        );
        assert_eq!(
            sdk.value(None, "moved"),
            Given::Json(json!({"now": "json"}))
        );
        sdk.finish();
    }
}

/// What an SDK does, the mount shows: bytes of a known record at once, names and types when the folder's events are handled.
fn the_mount_sees_a_running_process(flavour: Flavour, layout: Layout) {
    let what = format!("{flavour:?}, {layout:?}");
    let project = Project::new();
    let mount = project.mount(layout);
    two_records(&mount);
    let mut sdk = Sdk::start(flavour, &project.root());
    assert_eq!(sdk.list(None), names(&["OUTPUT", "notes"]));
    mount.read("default", "notes");

    for round in 0..5 {
        let text = format!("overwritten {round} {}", "x".repeat(round * 1000));
        sdk.set(None, "notes", text.as_bytes(), TEXT);
        assert_eq!(
            String::from_utf8(mount.read("default", "notes")).unwrap(),
            text,
            "{what}"
        );
        eventually("the size of an overwritten record", || {
            fs::metadata(mount.path("default", "notes")).unwrap().len() == text.len() as u64
        });
    }

    sdk.set(None, "data.v1", b"\x00\xff", "application/octet-stream");
    eventually("a new record", || mount.list("default").contains("data.v1"));
    assert_eq!(mount.read("default", "data.v1"), b"\x00\xff", "{what}");
    assert_eq!(
        mount.content_type("default", "data.v1"),
        "application/octet-stream",
        "{what}"
    );

    sdk.set_json(None, "notes", &json!({"now": ["json"]}));
    eventually("a changed type", || {
        mount.content_type("default", "notes") == JSON
    });
    let read: serde_json::Value = serde_json::from_slice(&mount.read("default", "notes")).unwrap();
    assert_eq!(read, json!({"now": ["json"]}), "{what}");
    // The JS SDK leaves the file of the old type behind, where a record can have but one file under its key.
    let old_value: &[&str] = if layout == Layout::Js {
        &["notes.txt"]
    } else {
        &[]
    };
    let listed = |keys: &[&str]| mount.list("default") == names(&[keys, old_value].concat());
    eventually("one record of each key", || {
        listed(&["OUTPUT", "data.v1", "notes"])
    });

    sdk.delete(None, "data.v1");
    sdk.delete(None, "OUTPUT");
    eventually("a deletion", || listed(&["notes"]));
    eventually("a deleted name", || {
        !mount.path("default", "OUTPUT").exists()
    });

    // After `storefs sync` there is nothing left to wait for.
    sdk.set(None, "after-sync", b"1", TEXT);
    mount.sync();
    assert!(
        listed(&["after-sync", "notes"]),
        "{what}: {:?}",
        mount.list("default")
    );
    assert_eq!(mount.content_type("default", "after-sync"), TEXT, "{what}");
    sdk.finish();
    mount.unmount();
}

// README: S89
#[test]
fn the_mount_sees_what_a_running_js_process_does() {
    the_mount_sees_a_running_process(Flavour::Js, Layout::Js);
    the_mount_sees_a_running_process(Flavour::Js, Layout::Dual);
}

// README: S89
#[test]
fn the_mount_sees_what_a_running_python_process_does() {
    the_mount_sees_a_running_process(Flavour::Python, Layout::Python);
    the_mount_sees_a_running_process(Flavour::Python, Layout::Dual);
}
