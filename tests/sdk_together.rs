//! Running SDK processes and a mount write to one store at the same time, and afterwards all agree.
//! Must never say who wins where two write one record; only that somebody does, whole.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sdk::project::{Layout, Project};
use sdk::{Flavour, Given, Sdk};

const TEXT: &str = "text/plain; charset=utf-8";
const STORE: &str = "shared";

/// Long enough to be written in several pieces, and easy to find half of.
fn page(letter: u8) -> Vec<u8> {
    vec![letter; 40_000]
}

/// Both SDKs with the store open. The JS SDK reads every file when it opens one, and fails on the temporaries of Python.
fn both_opened(root: &Path) -> [Sdk; 2] {
    [Flavour::Js, Flavour::Python].map(|flavour| {
        let mut sdk = Sdk::start(flavour, root);
        sdk.list(Some(STORE));
        sdk
    })
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.len() == 40_000 && bytes.iter().all(|byte| byte == &bytes[0])
}

#[test]
fn what_three_writers_add_at_once_all_of_them_have_in_the_end() {
    const EACH: usize = 60;
    let project = Project::new();
    let mount = project.mount(Layout::Dual);
    mount.make_store(STORE);
    mount.write_typed(STORE, "first", b"by the mount", TEXT);
    let root = project.root();
    let [js, python] = both_opened(&root);
    let add = |mut sdk: Sdk, who: &str| {
        for number in 0..EACH {
            let key = format!("{who}.{number}");
            sdk.set(Some(STORE), &key, format!("by {key}").as_bytes(), TEXT);
        }
        sdk.finish();
    };
    std::thread::scope(|scope| {
        scope.spawn(move || add(js, "js"));
        scope.spawn(move || add(python, "python"));
        scope.spawn(|| {
            for number in 0..EACH {
                let key = format!("mount.{number}");
                mount.write_typed(STORE, &key, format!("by {key}").as_bytes(), TEXT);
                // Somebody looks all the time, so that the daemon has cause to mend.
                mount.list(STORE);
            }
        });
    });
    let writers = ["js", "python", "mount"];
    let mut keys: BTreeSet<String> = writers
        .iter()
        .flat_map(|who| (0..EACH).map(move |number| format!("{who}.{number}")))
        .collect();
    keys.insert("first".to_owned());
    mount.sync();
    assert_eq!(mount.list(STORE), keys);
    // The last ones were still fresh at that look; what an SDK may be in the middle of is mended at a later one.
    support::wait_until("both SDKs list all records", || {
        mount.sync();
        mount.list(STORE);
        let mut fresh = [
            Sdk::start(Flavour::Js, &root),
            Sdk::start(Flavour::Python, &root),
        ];
        fresh.iter_mut().all(|sdk| sdk.lists(Some(STORE), &keys))
    });
    let mut fresh = [
        Sdk::start(Flavour::Js, &root),
        Sdk::start(Flavour::Python, &root),
    ];
    for key in keys.iter().filter(|key| *key != "first") {
        let wanted = format!("by {key}");
        assert_eq!(mount.read(STORE, key), wanted.as_bytes());
        assert_eq!(mount.content_type(STORE, key), TEXT, "{key}");
        for sdk in &mut fresh {
            assert_eq!(sdk.value(Some(STORE), key), Given::text(&wanted), "{key}");
        }
    }
}

// README: S83
#[test]
fn a_record_that_three_write_at_once_is_whole_and_the_same_for_all_in_the_end() {
    let project = Project::new();
    let mount = project.mount(Layout::Dual);
    mount.make_store(STORE);
    mount.write_typed(STORE, "page.v1", &page(b'a'), TEXT);
    let root = project.root();
    let [js, python] = both_opened(&root);
    let overwrite = |mut sdk: Sdk, letters: std::ops::RangeInclusive<u8>| {
        for letter in letters {
            sdk.set(Some(STORE), "page.v1", &page(letter), TEXT);
        }
        sdk.finish();
    };
    std::thread::scope(|scope| {
        scope.spawn(move || overwrite(js, b'A'..=b'Z'));
        scope.spawn(move || overwrite(python, b'a'..=b'z'));
        scope.spawn(|| {
            for digit in (b'0'..=b'9').cycle().take(40) {
                mount.write(STORE, "page.v1", &page(digit));
            }
        });
    });
    // What an SDK may be in the middle of is mended at a later look.
    let one = BTreeSet::from(["page.v1".to_owned()]);
    support::wait_until("one record of that key", || {
        mount.sync();
        mount.list(STORE) == one
    });
    let last = mount.read(STORE, "page.v1");
    assert!(is_whole(&last), "{} bytes", last.len());
    for flavour in [Flavour::Js, Flavour::Python] {
        support::wait_until("the SDK has what the mount shows", || {
            mount.sync();
            let shown = mount.read(STORE, "page.v1");
            let mut fresh = Sdk::start(flavour, &root);
            fresh.lists(Some(STORE), &one)
                && fresh.value(Some(STORE), "page.v1") == Given::Text(shown)
        });
    }
    assert_eq!(mount.read(STORE, "page.v1"), last);
}

#[test]
fn a_running_process_never_reads_half_of_what_the_mount_writes() {
    for (flavour, layout) in [
        (Flavour::Js, Layout::Js),
        (Flavour::Js, Layout::Dual),
        (Flavour::Python, Layout::Python),
        (Flavour::Python, Layout::Dual),
    ] {
        let project = Project::new();
        let mount = project.mount(layout);
        mount.make_store(STORE);
        mount.write_typed(STORE, "page", &page(b'a'), TEXT);
        let mut sdk = Sdk::start(flavour, &project.root());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for letter in (b'a'..=b'z').cycle() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    mount.write(STORE, "page", &page(letter));
                }
            });
            let reads: Vec<Given> = (0..60).map(|_| sdk.value(Some(STORE), "page")).collect();
            done.store(true, Ordering::Relaxed);
            for read in reads {
                let Given::Text(bytes) = read else {
                    panic!("{flavour:?}, {layout:?}: {read:?}")
                };
                assert!(
                    is_whole(&bytes),
                    "{flavour:?}, {layout:?}: {} bytes",
                    bytes.len()
                );
            }
        });
        let temporaries = fs::read_dir(project.store_folder(STORE))
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .ends_with(".lock")
            });
        assert_eq!(temporaries.count(), 0, "a lock was left behind");
        sdk.finish();
    }
}
