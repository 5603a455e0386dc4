//! Two processes with one folder: conditional writes stay exact, and ids are agreed on.
#![allow(clippy::unwrap_used)]

mod contract;

use contract::races::increment;
use contract::{World, record};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storefs::backend::dir::{DirBackend, Folder, FolderOptions, Layout};
use storefs::error::Kind;
use storefs::record::Precondition;
use tempfile::TempDir;

const LAYOUTS: [Layout; 4] = [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual];
const TEXT: &str = "text/plain; charset=utf-8";
/// Writers in each of the two processes.
const WRITERS: usize = 8;
const INCREMENTS: usize = 12;
const CREATIONS: usize = 30;
/// Tells the second process where to work.
const PLACE: &str = "STOREFS_TEST_PLACE";

fn open(root: &Path, layout: Layout) -> World {
    let options = FolderOptions {
        layout: Some(layout),
        ..FolderOptions::default()
    };
    let folder = Folder::open(&root.join("storage"), options).unwrap();
    World::new(Arc::new(DirBackend::new(folder)), None)
}

/// Runs this program's own part again as a process of its own.
fn second(root: &Path, layout: Layout) -> Child {
    let at = LAYOUTS.iter().position(|each| *each == layout).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_second_process", "--ignored", "--nocapture"])
        .env(PLACE, format!("{at}:{}", root.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Both sides come here before they begin.
fn meet(root: &Path, own: &str, other: &str) {
    std::fs::write(root.join(own), "").unwrap();
    let start = Instant::now();
    while !root.join(other).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What each process does: it adds to one number, and makes records that only one can make. The names that it made.
fn work(world: &World) -> BTreeSet<String> {
    let store = world.store();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (backend, runtime) = (world.backend.clone(), world.runtime.handle().clone());
                let id = record(&store, "count");
                scope.spawn(move || {
                    for _ in 0..INCREMENTS {
                        while !increment(&*backend, &runtime, &id) {}
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
    });
    let mut made = BTreeSet::new();
    for n in 0..CREATIONS {
        let key = format!("new{n}");
        let put = world.try_put(&record(&store, &key), b"x", TEXT, Precondition::Absent);
        match put {
            Ok(_) => drop(made.insert(key)),
            Err(error) => assert_eq!(error.kind(), Kind::Changed),
        }
    }
    made
}

#[test]
#[ignore = "the other test of this file runs it as a second process"]
fn the_second_process() {
    let place = std::env::var(PLACE).expect("run by the other test");
    let (at, root) = place.split_once(':').unwrap();
    let (layout, root) = (LAYOUTS[at.parse::<usize>().unwrap()], PathBuf::from(root));
    let world = open(&root, layout);
    meet(&root, "second", "first");
    let made: Vec<_> = work(&world).into_iter().collect();
    let id = world.store();
    std::fs::write(root.join("made"), format!("{id}\n{}", made.join("\n"))).unwrap();
}

#[test]
fn two_processes_lose_no_increment_and_make_no_record_twice() {
    for layout in LAYOUTS {
        let root = TempDir::new().unwrap();
        let world = open(root.path(), layout);
        let count = record(&world.store(), "count");
        world.put(&count, b"0", TEXT);
        let mut child = second(root.path(), layout);
        meet(root.path(), "first", "second");
        let mine = work(&world);
        assert!(child.wait().unwrap().success(), "{layout:?}");
        let told = std::fs::read_to_string(root.path().join("made")).unwrap();
        let mut theirs: BTreeSet<String> = told.lines().map(str::to_owned).collect();
        assert!(
            theirs.remove(world.store().as_str()),
            "they agree on the id"
        );
        assert!(mine.is_disjoint(&theirs), "{layout:?}: {mine:?} {theirs:?}");
        assert_eq!(mine.len() + theirs.len(), CREATIONS, "{layout:?}");
        let sum = String::from_utf8(world.get(&count).unwrap().0).unwrap();
        assert_eq!(sum, (2 * WRITERS * INCREMENTS).to_string(), "{layout:?}");
    }
}
