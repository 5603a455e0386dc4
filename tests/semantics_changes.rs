//! What README.md says of renames, types that are kept, and files that must not be where SDKs look.
//! Must never need an SDK.
#![allow(clippy::unwrap_used)]

#[path = "kernel/mod.rs"]
mod kernel;

use kernel::support::{World, set_xattr, type_of};
use kernel::{DUAL, DUAL_DAEMON, EVERY, Mount, PLAIN, errno, names_in};
use rustix::fs::{CWD, RenameFlags, SeekFrom, renameat_with, seek};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

const PNG: &[u8] =
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

// README: S55
#[test]
fn a_file_without_a_type_of_its_own_takes_that_of_the_record_it_replaces() {
    for way in EVERY {
        let mount = Mount::new(way);
        let note = mount.path("default/note");
        mount.sh("echo '{\"old\":1}' > note; setfattr -n user.mime_type -v text/x-kept note");
        mount.sh("sed -i s/old/new/ note");
        assert_eq!(type_of(&note), "text/x-kept", "{way}");
        mount.sh("echo words > young; mv young note");
        assert_eq!(type_of(&note), "text/x-kept", "{way}");
        assert_eq!(mount.read("note"), "words\n", "{way}");
        // Bytes that cannot be text.
        fs::write(mount.path("default/young"), PNG).unwrap();
        mount.sh("mv young note");
        assert_eq!(type_of(&note), "image/png", "{way}");
        // By way of a temporary name and another one, edited in place at each.
        mount.sh("setfattr -n user.mime_type -v text/x-kept note");
        mount.sh("echo '[1' > .young.AbC123; echo ']' >> .young.AbC123; mv .young.AbC123 young");
        mount.sh("echo more >> young; mv young younger; echo still >> younger; mv younger note");
        assert_eq!(type_of(&note), "text/x-kept", "{way}");
        assert_eq!(mount.read("note"), "[1\n]\nmore\nstill\n", "{way}");
        // A type that was given goes before all.
        mount.sh("echo words > young; setfattr -n user.mime_type -v text/x-given young");
        mount.sh("mv young note");
        assert_eq!(type_of(&note), "text/x-given", "{way}");
        // So does one that an older record brings.
        mount.sh(
            "echo old > other; setfattr -n user.mime_type -v text/x-other other; mv other note",
        );
        assert_eq!(type_of(&note), "text/x-other", "{way}");
    }
}

// README: S52
#[test]
fn an_emptied_record_keeps_its_type_until_bytes_come_that_contradict_it() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let path = mount.path("default/data");
        mount.sh("echo '{}' > data");
        set_xattr(&path, "user.mime_type", "application/json");
        mount.sh(": > data");
        assert_eq!(type_of(&path), "application/json", "{way}");
        mount.sh("echo '[1]' > data");
        assert_eq!(type_of(&path), "application/json", "{way}");
        mount.sh("echo 'no json' > data");
        assert_eq!(type_of(&path), "text/plain; charset=utf-8", "{way}");
    }
}

// README: S63
#[test]
fn holes_are_found_and_ranges_are_copied() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = mount.path("default/sparse.bin");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        let data = seek(&file, SeekFrom::Data(0)).unwrap();
        assert!(data > 0 && data <= 1 << 20, "{way}: data at {data}");
        assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 0, "{way}");
        let copy = File::create(mount.path("default/copy.bin")).unwrap();
        let (mut from, mut to) = (1 << 20, 5);
        let count = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 3);
        assert_eq!(count.unwrap(), 3, "{way}");
        drop((file, copy));
        assert_eq!(mount.beside("copy.bin").unwrap(), b"\0\0\0\0\0end", "{way}");
    }
}

// README: S68
#[test]
fn a_store_renamed_onto_another_replaces_an_empty_one_only() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        for store in ["full", "empty", "moved"] {
            fs::create_dir(mount.path(store)).unwrap();
        }
        fs::write(mount.path("full/a"), "x").unwrap();
        fs::write(mount.path("moved/b"), "y").unwrap();
        let rename = |from: &str, to: &str, flags| {
            renameat_with(CWD, mount.path(from), CWD, mount.path(to), flags)
                .err()
                .map(rustix::io::Errno::raw_os_error)
        };
        let (none, no_replace) = (RenameFlags::empty(), RenameFlags::NOREPLACE);
        assert_eq!(
            rename("moved", "full", none),
            Some(libc::ENOTEMPTY),
            "{way}"
        );
        let taken = rename("moved", "empty", no_replace);
        assert_eq!(taken, Some(libc::EEXIST), "{way}");
        assert_eq!(rename("moved", "empty", none), None, "{way}");
        assert_eq!(names_in(&mount.root()), ["default", "empty", "full"]);
        let read = fs::read_to_string(mount.path("empty/b"));
        assert_eq!(read.unwrap(), "y", "{way}");
        let removed = fs::remove_dir(mount.path("full"));
        assert_eq!(errno(removed), libc::ENOTEMPTY, "{way}");
    }
}

// README: S82
#[test]
fn no_temporary_file_is_ever_in_a_store() {
    for way in [PLAIN, DUAL, DUAL_DAEMON] {
        let mount = Mount::new(way);
        let folder = mount.backing("default");
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while !done.load(Ordering::Relaxed) {
                    seen.extend(names_in(&folder));
                }
                seen
            });
            mount.sh(
                "for i in $(seq 60); do echo \"{\\\"n\\\":$i}\" > OUTPUT; sed -i s/n/m/ OUTPUT; done; cp OUTPUT copy; rm copy",
            );
            done.store(true, Ordering::Relaxed);
            looking.join().unwrap()
        });
        assert!(!folder.join("__metadata__.json").exists(), "{way}");
        let mine = |name: &String| {
            let of_a_record = ["OUTPUT", "copy", "sed"]
                .iter()
                .any(|key| name.starts_with(key));
            // The SDK's own lock is a directory, which no SDK takes for a record.
            let ending = name.rsplit('.').next().unwrap_or("");
            let known = way.layout == "plain"
                || !name.contains('.')
                || ["json", "txt", "lock"].contains(&ending);
            of_a_record && known
        };
        assert!(seen.iter().all(mine), "{way}: {seen:?}");
    }
}

// README: S78
#[test]
fn a_store_that_was_made_plain_stays_so() {
    let world = World::new();
    let first = world.mount(&["-o", "layout=plain"]);
    fs::create_dir(first.path("made")).unwrap();
    fs::write(first.path("default/page"), "<p>").unwrap();
    set_xattr(&first.path("default/page"), "user.mime_type", "text/x-mine");
    first.unmount();
    for options in ["layout=auto", "layout=dual"] {
        let mount = world.mount(&["-o", options]);
        assert_eq!(type_of(&mount.path("default/page")), "text/x-mine");
        fs::write(mount.path("default/OUTPUT"), "{}").unwrap();
        fs::write(mount.path("made/OUTPUT"), "{}").unwrap();
        assert_eq!(names_in(&world.source("default")), ["OUTPUT", "page"]);
        assert_eq!(names_in(&world.source("made")), ["OUTPUT"], "{options}");
        mount.unmount();
    }
}
