//! What is written through a mount, a fresh process of the real SDKs lists and reads with the right bytes and type.
//! Must never compare with anything but what the SDKs themselves say.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use sdk::project::{Layout, Mounted, Project};
use sdk::{Case, Flavour, Sdk, cases};

const JSON: &str = "application/json; charset=utf-8";

/// Writes all cases; a type that is not `type/subtype` is refused, and the record then keeps the guess.
fn write_all(mount: &Mounted, store: &str) -> Vec<Case> {
    let mut written = cases();
    for case in &mut written {
        mount.write(store, &case.key, &case.bytes);
        let set = mount.set_type(store, &case.key, &case.content_type);
        if case.has_valid_type() {
            set.unwrap_or_else(|error| panic!("type of {}: {error}", case.id));
        } else {
            assert_eq!(
                set.unwrap_err().kind(),
                std::io::ErrorKind::InvalidInput,
                "{}",
                case.id
            );
            case.content_type = "text/plain; charset=utf-8".to_owned();
        }
    }
    written
}

fn check_read(layout: Layout, flavour: Flavour, sdk: &mut Sdk, store: Option<&str>, case: &Case) {
    let read = sdk
        .get(store, &case.key)
        .unwrap_or_else(|| panic!("{flavour:?} finds no {}", case.id));
    assert!(
        layout.same_type(&case.content_type, &read.content_type),
        "{layout:?}, {flavour:?}, {}: {} instead of {}",
        case.id,
        read.content_type,
        case.content_type
    );
    if flavour == Flavour::Python && case.unreadable_for_python() {
        return;
    }
    assert!(
        read.holds(&case.bytes),
        "{layout:?}, {flavour:?}, {}: {read:?}",
        case.id
    );
}

fn the_cases_arrive(layout: Layout) {
    let project = Project::new();
    let mount = project.mount(layout);
    mount.make_store("default");
    let written = write_all(&mount, "default");
    let keys: BTreeSet<String> = written.iter().map(|case| case.key.clone()).collect();
    assert_eq!(mount.list("default"), keys);
    for case in &written {
        assert_eq!(mount.read("default", &case.key), case.bytes, "{}", case.id);
        let shown = mount.content_type("default", &case.key);
        assert!(
            layout.same_type(&case.content_type, &shown),
            "{layout:?}, the mount, {}: {shown}",
            case.id
        );
    }
    mount.sync();
    for &flavour in layout.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        assert_eq!(sdk.list(None), keys, "{layout:?}, {flavour:?}");
        for case in &written {
            check_read(layout, flavour, &mut sdk, None, case);
        }
        sdk.finish();
    }
    // The SDKs have left their own files and times there by now.
    mount.sync();
    assert_eq!(mount.list("default"), keys);
    mount.unmount();
}

// README: S88
#[test]
fn all_cases_written_in_layout_js_are_read_by_the_js_sdk() {
    the_cases_arrive(Layout::Js);
}

// README: S88
#[test]
fn all_cases_written_in_layout_python_are_read_by_the_python_sdk() {
    the_cases_arrive(Layout::Python);
}

// README: S88
#[test]
fn all_cases_written_in_layout_dual_are_read_by_both_sdks() {
    the_cases_arrive(Layout::Dual);
}

/// Copies a file with `cp`, which reports what close() answers; gives what it complained about.
fn copy(mount: &Mounted, key: &str) -> Result<(), String> {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), b"{\"long\": true}").unwrap();
    let output = Command::new("cp")
        .env("LC_ALL", "C")
        .arg(source.path())
        .arg(mount.path("default", key))
        .output()
        .unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn keys_end_where_the_layout_ends(layout: Layout, fits: &[String], too_long: &[String]) {
    let project = Project::new();
    let mount = project.mount(layout);
    mount.make_store("default");
    for key in fits {
        copy(&mount, key)
            .unwrap_or_else(|error| panic!("{layout:?}, {} characters: {error}", key.len()));
    }
    for key in too_long {
        let error = copy(&mount, key).expect_err("a key that the layout cannot hold was taken");
        assert!(
            error.contains("File name too long"),
            "{layout:?}, {} characters: {error}",
            key.len()
        );
    }
    let keys: BTreeSet<String> = fits.iter().cloned().collect();
    assert_eq!(mount.list("default"), keys);
    mount.sync();
    for &flavour in layout.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        assert_eq!(sdk.list(None), keys, "{layout:?}, {flavour:?}");
        for key in fits {
            let read = sdk.get(None, key).unwrap();
            assert_eq!(read.content_type, JSON);
            assert!(read.holds(b"{\"long\": true}"));
        }
        sdk.finish();
    }
    // The next write by the SDK itself needs room for its lock or its temporary.
    for &flavour in layout.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        for key in fits {
            sdk.set_json(None, key, &serde_json::json!("again"));
        }
        sdk.finish();
    }
}

// README: S79
#[test]
fn a_key_as_long_as_the_js_sdk_can_hold_is_kept_and_a_longer_one_is_refused() {
    keys_end_where_the_layout_ends(
        Layout::Js,
        &["k".repeat(219), "l".repeat(245)],
        &["m".repeat(246), "n".repeat(256)],
    );
}

// README: S79
#[test]
fn a_key_as_long_as_the_python_sdk_can_hold_is_kept_and_a_longer_one_is_refused() {
    // In a Python file name each of ! ' ( ) takes three bytes.
    keys_end_where_the_layout_ends(
        Layout::Python,
        &["k".repeat(219), "!".repeat(73)],
        &["m".repeat(220), "(".repeat(74), "n".repeat(245)],
    );
}

// README: S79
#[test]
fn a_key_as_long_as_both_sdks_can_hold_is_kept_and_a_longer_one_is_refused() {
    keys_end_where_the_layout_ends(
        Layout::Dual,
        &["k".repeat(219), "!".repeat(73)],
        &["m".repeat(220), "(".repeat(74), "n".repeat(245)],
    );
}

fn keys_that_want_one_file_stay_apart(layout: Layout) {
    let pairs: [(&str, &[u8]); 5] = [
        ("index", b"<p>index</p>"),
        ("index.html", b"<p>index.html</p>"),
        ("both.txt", b"with txt"),
        ("both", b"without"),
        ("both.txt.txt", b"twice"),
    ];
    let project = Project::new();
    let mount = project.mount(layout);
    mount.make_store("default");
    for (key, bytes) in pairs {
        let content_type = if key.starts_with("index") {
            "text/html"
        } else {
            "text/plain"
        };
        mount.write_typed("default", key, bytes, content_type);
    }
    let keys: BTreeSet<String> = pairs.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(mount.list("default"), keys);
    mount.sync();
    for &flavour in layout.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        assert_eq!(sdk.list(None), keys, "{layout:?}, {flavour:?}");
        for (key, bytes) in pairs {
            let read = sdk.get(None, key).unwrap();
            assert!(
                read.holds(bytes),
                "{layout:?}, {flavour:?}, {key}: {read:?}"
            );
        }
        sdk.finish();
    }
    for (key, bytes) in pairs {
        assert_eq!(mount.read("default", key), bytes, "{key}");
    }
}

#[test]
fn keys_that_want_the_same_file_name_stay_apart_in_every_layout() {
    for layout in [Layout::Js, Layout::Python, Layout::Dual] {
        keys_that_want_one_file_stay_apart(layout);
    }
}

#[test]
fn a_large_record_and_a_named_store_are_read_by_both_sdks() {
    let big: Vec<u8> = (0..2 * 1024 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let project = Project::new();
    let mount = project.mount(Layout::Dual);
    mount.make_store("my-store");
    mount.write_typed("my-store", "big", &big, "application/octet-stream");
    mount.sync();
    for &flavour in Layout::Dual.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        assert!(
            sdk.get(Some("my-store"), "big").unwrap().holds(&big),
            "{flavour:?}"
        );
        sdk.finish();
    }
}
