//! An SDK that writes while two openings of the folder mend what it leaves: its last value is the record's value. No
//! kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{JSON, TEXT, World, options};
use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storefs::backend::dir::{Layout, Store};
use storefs::record::ContentType;

const ROUNDS: usize = 24;
/// So many values one after the other, before the record is looked at.
const BURST: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the SDK is told to keep as a record: bytes that tell their number, and a type.
fn value(n: usize) -> (String, &'static str) {
    match n % 3 {
        0 => (format!("{{\"n\":{n}}}"), JSON),
        _ => (format!("number {n}, {}", "x".repeat(n % 50)), TEXT),
    }
}

/// As the Python SDK does it: a temporary file renamed to the key, then the same for the sidecar.
fn python_sets(world: &World, key: &str, n: usize) {
    let (text, content_type) = value(n);
    let put = |file: &str, text: &str| {
        let temporary = world.path(&format!("{file}.w{n:07x}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, world.path(file)).unwrap();
    };
    put(key, &text);
    let size = text.len();
    let sidecar =
        format!(r#"{{"key": "{key}", "content_type": "{content_type}", "size": {size}}}"#);
    put(&format!("{key}.__metadata__.json"), &sidecar);
}

/// As the JavaScript SDK does it: in place, under its lock.
fn javascript_sets(world: &World, key: &str, n: usize) {
    let (text, content_type) = value(n);
    let file = match content_type {
        JSON => format!("{key}.json"),
        _ => format!("{key}.txt"),
    };
    let lock = world.path(&format!("{file}.lock"));
    let until = Instant::now() + PATIENCE;
    while let Err(why) = fs::create_dir(&lock) {
        assert_eq!(why.kind(), ErrorKind::AlreadyExists);
        assert!(
            Instant::now() < until,
            "{} is never let go of",
            lock.display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    // Times are coarse. The newest value is the one with the newest time, so this one gets that.
    let at = |file: &str| {
        fs::metadata(world.path(file))
            .and_then(|about| about.modified())
            .ok()
    };
    loop {
        fs::write(world.path(&file), &text).unwrap();
        let others = [key, &format!("{key}.json"), &format!("{key}.txt")];
        let newer = |other: &&str| *other != file && at(other) >= at(&file);
        let is_link = fs::symlink_metadata(world.path(key)).is_ok_and(|about| about.is_symlink());
        if !others
            .iter()
            .filter(|other| **other != key || !is_link)
            .any(newer)
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::remove_dir(&lock).unwrap();
}

/// Looks at the store, and so mends it, until it is told to stop.
fn look_on(store: &Store, key: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let _ = store.find(key);
        let _ = store.mended();
    }
}

/// Gives two openings, and writes of each kind in turn by the mount's own hand, to a writer beside them.
fn beside_two_openings(key: &'static str, writes: impl Fn(&World, usize)) {
    let world = World::new(Layout::Dual);
    world
        .write_as(
            key,
            b"first",
            Some(TEXT),
            &storefs::backend::dir::CommitIf::Any,
        )
        .unwrap();
    let (_second, other) = world.again(options(Layout::Dual));
    let stop = Arc::new(AtomicBool::new(false));
    let lookers: Vec<_> = [world.store.clone(), other.clone()]
        .into_iter()
        .map(|store| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || look_on(&store, key, &stop))
        })
        .collect();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for round in 0..ROUNDS {
            let last = (round + 1) * BURST;
            for n in last - BURST + 1..=last {
                writes(&world, n);
            }
            settles_on(&world, &other, key, last);
        }
    }));
    stop.store(true, Ordering::Relaxed);
    for looker in lookers {
        looker.join().unwrap();
    }
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(world.temporaries(), 0);
}

/// Both openings, Python by the key and JavaScript by its file come to the last value.
#[track_caller]
fn settles_on(world: &World, other: &Store, key: &str, n: usize) {
    let (text, content_type) = value(n);
    let until = Instant::now() + PATIENCE;
    let extension = if content_type == JSON { "json" } else { "txt" };
    let files = [key.to_owned(), format!("{key}.{extension}")];
    loop {
        let stored = files
            .clone()
            .map(|file| fs::read_to_string(world.path(&file)).unwrap_or_default());
        let kind = other
            .find(key)
            .and_then(|(place, _)| other.content_type(key, &place))
            .unwrap_or_else(|_| ContentType::stored("none"));
        let whole = world.store.mended().unwrap_or_default();
        if whole && stored.iter().all(|stored| *stored == text) && kind.as_str() == content_type {
            break;
        }
        assert!(
            Instant::now() < until,
            "value {n} of {key} was lost: {stored:?}, {kind:?}, {:?}",
            world.files()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_value_that_python_writes_is_lost_while_it_is_mended() {
    beside_two_openings("note", |world, n| python_sets(world, "note", n));
}

#[test]
fn no_value_that_javascript_writes_is_lost_while_it_is_mended() {
    beside_two_openings("note", |world, n| javascript_sets(world, "note", n));
}

#[test]
fn no_value_is_lost_when_python_and_javascript_take_turns() {
    beside_two_openings("note", |world, n| match n / BURST % 2 {
        0 => python_sets(world, "note", n),
        _ => javascript_sets(world, "note", n),
    });
}

/// What is left when a mend gave Python's value its new names before Python's sidecar came: that is the newer one, and the
/// file behind the link belongs to it until the JavaScript SDK writes there.
#[test]
fn a_value_that_javascript_writes_behind_the_link_is_not_of_the_type_in_an_older_sidecar_of_python()
{
    let world = World::new(Layout::Dual);
    let any = storefs::backend::dir::CommitIf::Any;
    world
        .write_as("note", b"1234567", Some(TEXT), &any)
        .unwrap();
    let (_second, other) = world.again(options(Layout::Dual));
    let sidecar = format!(r#"{{"key": "note", "content_type": "{JSON}", "size": 7}}"#);
    fs::write(world.path("new"), sidecar).unwrap();
    fs::rename(world.path("new"), world.path("note.__metadata__.json")).unwrap();
    let kind = |store: &Store| {
        let (place, _) = store.find("note").unwrap();
        store.content_type("note", &place).unwrap()
    };
    assert_eq!(kind(&other).as_str(), JSON);
    assert!(world.path("note.json").exists() && !world.path("note.txt").exists());

    world
        .write_as("note", b"1234567", Some(TEXT), &any)
        .unwrap();
    let sidecar = format!(r#"{{"key": "note", "content_type": "{JSON}", "size": 3}}"#);
    fs::write(world.path("new"), sidecar).unwrap();
    fs::rename(world.path("new"), world.path("note.__metadata__.json")).unwrap();
    javascript_sets(&world, "note", 1);
    settles_on(&world, &other, "note", 1);
    settles_on(&world, &world.store, "note", 1);
}
