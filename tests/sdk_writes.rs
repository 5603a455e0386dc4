//! What the real SDKs write, a mount lists and reads with the right bytes and type.
//! Must never compare with anything but what a fresh process of the SDK itself says.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;

use sdk::project::{Layout, Mounted, Project};
use sdk::{Case, Flavour, Given, Sdk, cases};

/// The store of the one case that the JS SDK cannot list again itself: it looks for `photo.jpg` as `photo.jpeg`.
const POISON: &str = "poison";

fn write_all(
    project: &Project,
    flavour: Flavour,
    store_of: impl Fn(&Case) -> &'static str,
) -> Vec<Case> {
    std::fs::create_dir_all(project.root()).unwrap();
    let mut sdk = Sdk::start(flavour, &project.root());
    let all = cases();
    for case in &all {
        let store = Some(store_of(case)).filter(|store| *store != "default");
        sdk.set(store, &case.key, &case.bytes, &case.content_type);
    }
    sdk.finish();
    all
}

/// Checks each record that a fresh process finds: same bytes, same type through the mount.
fn the_mount_agrees_with(mount: &Mounted, sdk: &mut Sdk, store: &str, all: &[Case]) {
    let name = Some(store).filter(|store| *store != "default");
    let keys = sdk.list(name);
    assert_eq!(mount.list(store), keys);
    for key in &keys {
        let read = sdk.get(name, key).unwrap();
        let bytes = mount.read(store, key);
        assert_eq!(mount.content_type(store, key), read.content_type, "{key}");
        if read.value == Given::Nothing {
            // What Python cannot decode, it does not give; the bytes are those it was given.
            let case = all
                .iter()
                .find(|case| case.key == *key && case.unreadable_for_python())
                .unwrap();
            assert_eq!(bytes, case.bytes, "{key}");
        } else {
            assert!(read.holds(&bytes), "{key}: {read:?}");
        }
    }
}

#[test]
fn all_cases_written_by_the_js_sdk_are_right_through_a_mount() {
    let project = Project::new();
    let store_of = |case: &Case| {
        if case.key == "photo.jpg" {
            POISON
        } else {
            "default"
        }
    };
    let all = write_all(&project, Flavour::Js, store_of);
    let mount = project.mount_with("", &[]);
    let mut fresh = Sdk::start(Flavour::Js, &project.root());
    the_mount_agrees_with(&mount, &mut fresh, "default", &all);
    fresh.finish();
    // A name that the JS SDK wrote itself reads well under that name too, though a fresh process has forgotten it.
    for case in &all {
        assert_eq!(
            mount.read(store_of(case), &case.key),
            case.bytes,
            "{}",
            case.id
        );
    }
    assert_eq!(mount.list(POISON), BTreeSet::from(["photo".to_owned()]));
    assert_eq!(mount.content_type(POISON, "photo.jpg"), "image/jpeg");
    mount.unmount();
}

#[test]
fn all_cases_written_by_the_python_sdk_are_right_through_a_mount() {
    let project = Project::new();
    let all = write_all(&project, Flavour::Python, |_| "default");
    let mount = project.mount_with("", &[]);
    let mut fresh = Sdk::start(Flavour::Python, &project.root());
    the_mount_agrees_with(&mount, &mut fresh, "default", &all);
    fresh.finish();
    for case in &all {
        assert_eq!(
            mount.content_type("default", &case.key),
            case.content_type,
            "{}",
            case.id
        );
        if !case.content_type.contains("json") {
            assert_eq!(mount.read("default", &case.key), case.bytes, "{}", case.id);
        }
    }
    mount.unmount();
}

#[test]
fn values_set_without_a_type_are_right_through_a_mount() {
    let values = [
        ("text", serde_json::json!("a string")),
        ("number", serde_json::json!(42)),
        ("yes", serde_json::json!(true)),
        ("list", serde_json::json!([1, "two"])),
        ("thing", serde_json::json!({"a": {"b": null}})),
    ];
    for flavour in [Flavour::Js, Flavour::Python] {
        let project = Project::new();
        std::fs::create_dir_all(project.root()).unwrap();
        let mut sdk = Sdk::start(flavour, &project.root());
        for (key, value) in &values {
            sdk.set_json(None, key, value);
        }
        sdk.finish();
        let mount = project.mount_with("", &[]);
        let mut fresh = Sdk::start(flavour, &project.root());
        the_mount_agrees_with(&mount, &mut fresh, "default", &[]);
        assert_eq!(mount.list("default").len(), values.len());
        fresh.finish();
    }
}

#[test]
fn what_either_sdk_adds_to_a_store_of_both_is_right_through_the_mount_and_for_the_other() {
    for (writer, reader) in [
        (Flavour::Js, Flavour::Python),
        (Flavour::Python, Flavour::Js),
    ] {
        let project = Project::new();
        let mount = project.mount(Layout::Dual);
        mount.make_store("shared");
        mount.write("shared", "made-by-the-mount", b"first");
        let mut sdk = Sdk::start(writer, &project.root());
        // What the JS SDK names after the key alone is lost to its own next process; not for others to mend.
        let named_after_key = [
            "page.html",
            "page2.html",
            "report.json",
            "report2.json",
            "photo.jpg",
            "json",
        ];
        let all: Vec<Case> = cases()
            .into_iter()
            .filter(|case| !named_after_key.contains(&case.key.as_str()))
            .collect();
        for case in &all {
            sdk.set(Some("shared"), &case.key, &case.bytes, &case.content_type);
        }
        sdk.finish();
        mount.sync();
        let mut keys: BTreeSet<String> = all.iter().map(|case| case.key.clone()).collect();
        keys.insert("made-by-the-mount".to_owned());
        assert_eq!(mount.list("shared"), keys, "after {writer:?}");
        for key in &keys {
            mount.read("shared", key);
        }
        mount.sync();
        let mut fresh = Sdk::start(reader, &project.root());
        assert_eq!(
            fresh.list(Some("shared")),
            keys,
            "{reader:?} after {writer:?}"
        );
        for case in all
            .iter()
            .filter(|case| reader == Flavour::Js || !case.unreadable_for_python())
        {
            let read = fresh.get(Some("shared"), &case.key).unwrap();
            assert_eq!(
                read.content_type,
                mount.content_type("shared", &case.key),
                "{}",
                case.id
            );
            assert!(
                read.holds(&mount.read("shared", &case.key)),
                "{reader:?} after {writer:?}, {}: {read:?}",
                case.id
            );
        }
        fresh.finish();
        mount.unmount();
    }
}
