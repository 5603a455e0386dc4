//! How often the kernel has to ask. These counts do not depend on the machine; its own requests are counted in the mount.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{Mount, World, is_root, type_of};

const FILES: u64 = 100;

/// A test that starts a program while another has a file open closes that file once more in the child, and the kernel says
/// so. Counts are taken one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All requests since the mount began, but those that nobody waits for.
fn requests(mount: &Mount) -> BTreeMap<String, u64> {
    let status = mount.status();
    let counted = status["requests"].as_object().unwrap();
    counted
        .iter()
        .filter(|(name, _)| *name != "forget" && *name != "release")
        .map(|(name, count)| (name.clone(), count.as_u64().unwrap()))
        .collect()
}

/// What an action made the kernel ask, without what was asked for no operation at all.
fn asked(mount: &Mount, action: impl FnOnce()) -> BTreeMap<String, u64> {
    mount.sync();
    let before = requests(mount);
    action();
    let after = requests(mount);
    after
        .into_iter()
        .map(|(name, count)| (name.clone(), count - before[&name]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn sum(asked: &BTreeMap<String, u64>) -> u64 {
    asked.values().sum()
}

fn mounted(world: &World) -> Mount {
    assert!(
        is_root(),
        "these counts are those of a mount by root, with passthrough"
    );
    let mount = world.mount(&["-o", "layout=plain"]);
    assert_eq!(mount.status()["passthrough"], true);
    mount
}

fn name(number: u64) -> String {
    format!("record-{number:05}")
}

fn write(directory: &Path, number: u64) {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(directory.join(name(number)))
        .unwrap();
    file.write_all(&[b'x'; 1024]).unwrap();
}

/// A mount with records that the kernel knows and has read.
fn warm(world: &World) -> Mount {
    let default = world.source("default");
    fs::create_dir_all(&default).unwrap();
    for number in 0..FILES {
        write(&default, number);
    }
    let mount = mounted(world);
    let store = mount.path("default");
    for _ in 0..2 {
        for number in 0..FILES {
            read(&store.join(name(number)));
            fs::metadata(store.join(name(number))).unwrap();
        }
    }
    mount
}

fn read(path: &Path) {
    let mut bytes = [0; 4096];
    let mut file = fs::File::open(path).unwrap();
    assert_eq!(file.read(&mut bytes).unwrap(), 1024);
}

#[test]
fn opening_reading_and_closing_a_known_record_is_one_request() {
    let _alone = alone();
    let world = World::new();
    let mount = warm(&world);
    let store = mount.path("default");
    let asked = asked(&mount, || {
        (0..FILES).for_each(|number| read(&store.join(name(number))));
    });
    assert_eq!(asked, BTreeMap::from([("open".to_owned(), FILES)]));
}

#[test]
fn a_record_that_was_just_made_is_opened_without_being_looked_up_again() {
    let _alone = alone();
    let world = World::new();
    let mount = mounted(&world);
    let store = mount.path("default");
    (0..FILES).for_each(|number| write(&store, number));
    let asked = asked(&mount, || {
        (0..FILES).for_each(|number| read(&store.join(name(number))));
    });
    assert_eq!(asked, BTreeMap::from([("open".to_owned(), FILES)]));
}

#[test]
fn a_known_record_is_described_without_a_request() {
    let _alone = alone();
    let world = World::new();
    let mount = warm(&world);
    let store = mount.path("default");
    let asked = asked(&mount, || {
        for number in 0..FILES {
            assert_eq!(fs::metadata(store.join(name(number))).unwrap().len(), 1024);
        }
    });
    assert_eq!(sum(&asked), 0, "{asked:?}");
}

#[test]
fn creating_writing_and_closing_a_record_is_at_most_four_requests() {
    let _alone = alone();
    let world = World::new();
    let mount = warm(&world);
    let store = mount.path("default");
    let asked = asked(&mount, || {
        (FILES..2 * FILES).for_each(|number| write(&store, number));
    });
    assert!(sum(&asked) <= 4 * FILES, "{asked:?}");
    assert_eq!(asked["create"], FILES);
    assert_eq!(
        type_of(&store.join(name(FILES))),
        "text/plain; charset=utf-8"
    );
}

#[test]
fn a_rename_is_two_requests_and_a_removal_one() {
    let _alone = alone();
    let world = World::new();
    let mount = warm(&world);
    let store = mount.path("default");
    let renamed = asked(&mount, || {
        for number in 0..FILES {
            let to = store.join(format!("other-{number}"));
            fs::rename(store.join(name(number)), to).unwrap();
        }
    });
    let expected = [("lookup".to_owned(), FILES), ("rename".to_owned(), FILES)];
    assert_eq!(renamed, BTreeMap::from(expected));
    let removed = asked(&mount, || {
        for number in 0..FILES {
            fs::remove_file(store.join(format!("other-{number}"))).unwrap();
        }
    });
    assert_eq!(removed, BTreeMap::from([("unlink".to_owned(), FILES)]));
}

#[test]
fn a_long_listing_of_ten_thousand_records_asks_a_few_times_and_later_hardly_at_all() {
    const MANY: u64 = 10_000;
    let _alone = alone();
    let world = World::in_memory();
    let default = world.source("default");
    fs::create_dir_all(&default).unwrap();
    for number in 0..MANY {
        fs::write(default.join(name(number)), b"x").unwrap();
    }
    let mount = mounted(&world);
    let list = |mount: &Mount| {
        let lines = mount.sh("ls -l $MNT/default | wc -l");
        assert_eq!(lines.trim(), (MANY + 1).to_string());
    };
    let cold = asked(&mount, || list(&mount));
    assert!(sum(&cold) <= 250, "{cold:?}");
    assert!(
        cold.get("lookup").copied().unwrap_or(0) < 10,
        "a listing looks up no file: {cold:?}"
    );
    // The kernel may drop what it keeps of a directory when memory is short, so the best of a few counts.
    let warm: Vec<_> = (0..3).map(|_| asked(&mount, || list(&mount))).collect();
    assert!(warm.iter().any(|warm| sum(warm) <= 5), "{warm:?}");
}

/// The kernel makes room for more descriptors while everybody waits.
#[test]
fn a_mount_and_a_run_have_room_for_all_their_files_from_the_beginning() {
    let world = World::new();
    let mount = mounted(&world);
    let room = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("FDSize:"));
        line.unwrap()[7..].trim().parse::<u64>().unwrap()
    };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(16_384).min(16_384);
    assert!(room(&mount.status()["pid"].to_string()) >= wanted);
    let shown = world.sh(&format!(
        "mkdir other; {} run other -- sh -c 'echo $PPID; grep FDSize /proc/$PPID/status' 2>/dev/null",
        support::STOREFS
    ));
    let size = shown.lines().last().unwrap().split_whitespace().last();
    assert!(size.unwrap().parse::<u64>().unwrap() >= wanted, "{shown}");
}
