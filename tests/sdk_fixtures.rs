//! Folders that the real SDKs wrote once: every record that its own SDK reads back is right through a mount, and stays so when copied through it.
//! Must never change the recorded folders: each test works on a copy.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use sdk::project::{Layout, Mounted, Project};
use sdk::{Flavour, Given, Sdk, hex};

/// A recorded folder, and the field of its manifest that says what its own SDK reads back.
#[derive(Clone, Copy)]
struct Tree {
    name: &'static str,
    fresh: &'static str,
    layout: Layout,
}

const TREES: [Tree; 3] = [
    Tree {
        name: "js-memory-storage",
        fresh: "fresh_js_memory_storage",
        layout: Layout::Js,
    },
    Tree {
        name: "py-crawlee-1",
        fresh: "fresh_py_apify_4.1_reader",
        layout: Layout::Python,
    },
    Tree {
        name: "ours-dual",
        fresh: "fresh_js_memory_storage",
        layout: Layout::Dual,
    },
];

/// A record as the manifest has it.
#[derive(Clone, Debug)]
struct Recorded {
    sha256: String,
    content_type: String,
}

/// store -> key -> record
type Records = BTreeMap<String, BTreeMap<String, Recorded>>;

impl Tree {
    fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(self.name)
    }

    /// What the tree's own SDK reads back in a new process.
    fn records(self) -> Records {
        let manifest: Value =
            serde_json::from_slice(&fs::read(self.folder().join("manifest.json")).unwrap())
                .unwrap();
        let mut records = Records::new();
        for record in manifest["records"].as_array().unwrap() {
            let fresh = &record[self.fresh];
            if fresh["found"] != true || fresh["sameBytes"] != true {
                continue;
            }
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            let recorded = Recorded {
                sha256: word(&record["sha256"]),
                content_type: word(&fresh["contentType"]),
            };
            records
                .entry(word(&record["store"]))
                .or_default()
                .insert(word(&record["key"]), recorded);
        }
        assert!(
            records["default"].len() > 40,
            "{}: the manifest has too few records",
            self.name
        );
        records
    }

    /// Copies the tree to be the storage folder of a project.
    fn copy_to(self, project: &Project) {
        let status = Command::new("cp")
            .args(["-a", "--no-preserve=ownership"])
            .arg(self.folder().join("storage/."))
            .arg(project.root())
            .status()
            .unwrap();
        assert!(status.success());
        let status = Command::new("chmod")
            .args(["-R", "u+w"])
            .arg(project.root())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// Checks every record through a mount.
fn all_are_right(what: &str, mount: &Mounted, records: &Records, layout: Layout) {
    for (store, keys) in records {
        for (key, recorded) in keys {
            let bytes = mount.read(store, key);
            assert_eq!(
                hex(&Sha256::digest(&bytes)),
                recorded.sha256,
                "{what}: {store}/{key}"
            );
            let shown = mount.content_type(store, key);
            assert!(
                layout.same_type(&recorded.content_type, &shown),
                "{what}: {store}/{key}: {shown} instead of {}",
                recorded.content_type
            );
        }
        let listed = mount.list(store);
        let missing: Vec<&String> = keys.keys().filter(|key| !listed.contains(*key)).collect();
        assert!(
            missing.is_empty(),
            "{what}: {store} does not list {missing:?}"
        );
    }
}

/// Whether a layout can hold a key at all.
fn fits(layout: Layout, key: &str) -> bool {
    let encoded: usize = key
        .bytes()
        .map(|byte| if b"!'()".contains(&byte) { 3 } else { 1 })
        .sum();
    match layout {
        Layout::Plain => true,
        Layout::Js => key.len() <= 245,
        Layout::Python | Layout::Dual => encoded <= 219,
    }
}

/// Copies all stores of one mount into another, as `cp -a` does, and gives the names that it could not copy.
fn copy_through(from: &Mounted, to: &Mounted, stores: &BTreeSet<String>) -> BTreeSet<String> {
    let mut refused = BTreeSet::new();
    for store in stores {
        to.make_store(store);
        let output = Command::new("cp")
            .env("LC_ALL", "C")
            .arg("-a")
            .arg(from.at().join(store).join("."))
            .arg(to.at().join(store))
            .output()
            .unwrap();
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            assert!(
                line.contains("File name too long"),
                "cp -a of {store}: {line}"
            );
            refused.insert(
                line.rsplit('/')
                    .next()
                    .unwrap()
                    .split('\'')
                    .next()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    refused
}

/// What the SDK of a layout says about the copy.
fn the_sdk_reads(
    what: &str,
    project: &Project,
    records: &Records,
    source: &Mounted,
    layout: Layout,
) {
    for &flavour in layout.flavours() {
        let mut sdk = Sdk::start(flavour, &project.root());
        // Python opens a store by a name that follows its own rule, or the default one.
        for (store, keys) in records
            .iter()
            .filter(|(store, _)| flavour == Flavour::Js || !store.contains(['_', '.']))
        {
            let name = Some(store.as_str()).filter(|store| *store != "default");
            let listed = sdk.list(name);
            for (key, recorded) in keys {
                let what = format!("{what}, {flavour:?}: {store}/{key}");
                assert!(listed.contains(key), "{what} is not listed");
                let read = sdk.get(name, key).unwrap();
                assert!(
                    layout.same_type(&recorded.content_type, &read.content_type),
                    "{what}: {} instead of {}",
                    read.content_type,
                    recorded.content_type
                );
                let bytes = source.read(store, key);
                // Python gives nothing for text that is not UTF-8, also from its own stores.
                let undecodable = recorded.content_type.starts_with("text/")
                    && std::str::from_utf8(&bytes).is_err();
                let python_gives_nothing = flavour == Flavour::Python && undecodable;
                if python_gives_nothing {
                    assert_eq!(read.value, Given::Nothing, "{what}");
                } else {
                    assert!(read.holds(&bytes), "{what}: {read:?}");
                }
            }
        }
        sdk.finish();
    }
}

fn a_tree_stays_right_when_copied_into(tree: Tree, layout: Layout) {
    let what = format!("{} into {}", tree.name, layout.name());
    let original = Project::new();
    tree.copy_to(&original);
    let source = original.mount_with("", &[]);
    let mut records = tree.records();
    let copied = Project::new();
    let target = copied.mount(layout);
    let refused = copy_through(&source, &target, &records.keys().cloned().collect());
    // A listing can hold more than the SDK reads back: what a write that failed halfway has left.
    let listed: BTreeSet<String> = records
        .keys()
        .flat_map(|store| source.list(store))
        .collect();
    let too_long: BTreeSet<String> = listed
        .into_iter()
        .filter(|key| !fits(layout, key))
        .collect();
    assert_eq!(refused, too_long, "{what}");
    for keys in records.values_mut() {
        keys.retain(|key, _| fits(layout, key));
        if let Some(bad) = keys
            .get_mut("badct")
            .filter(|recorded| !recorded.content_type.contains('/'))
        {
            // Shown as it is, but no type that can be set: the copy is guessed anew.
            bad.content_type = "text/plain; charset=utf-8".to_owned();
        }
    }
    // Where the JS SDK wrote the tree, its types have lost what a file name cannot keep; the mount shows them as that SDK does.
    all_are_right(&what, &target, &records, layout);
    target.sync();
    the_sdk_reads(&what, &copied, &records, &source, layout);
    target.unmount();
}

#[test]
fn every_record_of_a_recorded_tree_is_right_through_a_mount() {
    for tree in TREES {
        let project = Project::new();
        tree.copy_to(&project);
        let mount = project.mount_with("", &[]);
        // The mount shows the types as the tree's own SDK does, to the letter.
        all_are_right(tree.name, &mount, &tree.records(), Layout::Plain);
        mount.unmount();
    }
}

#[test]
fn every_record_of_a_recorded_tree_is_right_in_its_own_layout() {
    for tree in TREES {
        let project = Project::new();
        tree.copy_to(&project);
        let mount = project.mount(tree.layout);
        all_are_right(tree.name, &mount, &tree.records(), Layout::Plain);
    }
}

#[test]
fn a_recorded_tree_copied_into_layout_plain_stays_right() {
    for tree in TREES {
        a_tree_stays_right_when_copied_into(tree, Layout::Plain);
    }
}

#[test]
fn a_recorded_tree_copied_into_layout_js_is_read_by_the_js_sdk() {
    for tree in TREES {
        a_tree_stays_right_when_copied_into(tree, Layout::Js);
    }
}

#[test]
fn a_recorded_tree_copied_into_layout_python_is_read_by_the_python_sdk() {
    for tree in TREES {
        a_tree_stays_right_when_copied_into(tree, Layout::Python);
    }
}

#[test]
fn a_recorded_tree_copied_into_layout_dual_is_read_by_both_sdks() {
    for tree in TREES {
        a_tree_stays_right_when_copied_into(tree, Layout::Dual);
    }
}
