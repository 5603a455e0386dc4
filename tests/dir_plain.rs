//! The plain layout of a local folder, at the level of the library. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{World, name, options};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use storefs::backend::dir::{Area, CommitIf, Folder, FolderOptions, Layout, Origin, Place};
use storefs::error::Kind;
use storefs::record::ContentType;
use tempfile::TempDir;

#[test]
fn a_record_is_one_file_of_its_own_name() {
    let world = World::new(Layout::Plain);
    let place = world.write("OUTPUT", br#"{"a":1}"#).unwrap();
    assert_eq!((&*place.file, place.area), ("OUTPUT", Area::Store));
    assert_eq!(fs::read(world.path("OUTPUT")).unwrap(), br#"{"a":1}"#);
    assert_eq!(world.read("OUTPUT"), br#"{"a":1}"#);
    assert_eq!(world.type_of("OUTPUT"), "application/json; charset=utf-8");
    assert_eq!(world.names(), ["OUTPUT"]);
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 1);
    assert_eq!(world.temporaries(), 0);
    let mode = fs::metadata(world.path("OUTPUT")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o644);
}

#[test]
fn a_type_that_the_name_says_is_not_stored() {
    let world = World::new(Layout::Plain);
    world.write("page.html", b"<p>").unwrap();
    assert_eq!(world.attribute("page.html", "user.mime_type"), None);
    assert_eq!(world.type_of("page.html"), "text/html; charset=utf-8");
    world
        .write_as("page.html", b"<p>", Some("text/plain"), &CommitIf::Any)
        .unwrap();
    assert_eq!(
        world.attribute("page.html", "user.mime_type").as_deref(),
        Some("text/plain")
    );
    world.write("page.html", b"<b>").unwrap();
    assert_eq!(world.type_of("page.html"), "text/plain");
    world.write("page.html", b"\xff\xfe").unwrap();
    assert_eq!(world.type_of("page.html"), "text/html; charset=utf-8");
}

#[test]
fn a_set_type_stays_until_it_is_removed() {
    let world = World::new(Layout::Plain);
    world.write("a.json", b"{}").unwrap();
    let to = ContentType::stored("text/csv");
    world.store.set_content_type("a.json", Some(&to)).unwrap();
    assert_eq!(world.type_of("a.json"), "text/csv");
    world.store.set_content_type("a.json", None).unwrap();
    assert_eq!(world.type_of("a.json"), "application/json; charset=utf-8");
    let missing = world.store.set_content_type("b", Some(&to)).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[test]
fn a_new_version_takes_mode_and_attributes_of_the_old_one() {
    let world = World::new(Layout::Plain);
    world.write("a", b"1").unwrap();
    fs::set_permissions(world.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    xattr::set(world.path("a"), "user.note", b"kept").unwrap();
    world.write("a", b"2").unwrap();
    assert_eq!(world.read("a"), b"2");
    assert_eq!(world.attribute("a", "user.note").as_deref(), Some("kept"));
    assert_eq!(
        fs::metadata(world.path("a")).unwrap().mode() & 0o7777,
        0o640
    );
}

#[test]
fn only_one_of_two_makes_a_new_record() {
    let world = World::new(Layout::Plain);
    world.write_as("a", b"1", None, &CommitIf::Absent).unwrap();
    let again = world.write_as("a", b"2", None, &CommitIf::Absent);
    assert_eq!(again.unwrap_err().kind(), Kind::Exists);
    assert_eq!(world.read("a"), b"1");
    assert_eq!(world.temporaries(), 0);
}

#[test]
fn what_is_written_after_a_commit_goes_in_place() {
    let world = World::new(Layout::Plain);
    let mut draft = world.folder.draft(0o600).unwrap();
    draft.file.write_all_at(b"one", 0).unwrap();
    world
        .store
        .commit(&mut draft, "a", None, &CommitIf::Any, false)
        .unwrap();
    draft.file.write_all_at(b" two", 3).unwrap();
    assert_eq!(world.read("a"), b"one two");
    drop(draft);
    assert_eq!(world.read("a"), b"one two");
}

#[test]
fn the_longest_key_is_kept_and_longer_ones_are_refused() {
    let world = World::new(Layout::Plain);
    for length in [254, 255, 256] {
        let key = "k".repeat(length);
        world.write(&key, length.to_string().as_bytes()).unwrap();
        assert_eq!(world.read(&key), length.to_string().as_bytes());
        assert!(world.names().contains(&key));
    }
    let long = world.write(&"k".repeat(257), b"").unwrap_err();
    assert_eq!(long.kind(), Kind::NameTooLong);
    let key = "k".repeat(256);
    world
        .store
        .rename(&key, &world.store, "short", true)
        .unwrap();
    world
        .store
        .rename("short", &world.store, &key, true)
        .unwrap();
    assert_eq!(world.names().iter().filter(|name| **name == key).count(), 1);
    world.store.remove(&key).unwrap();
    assert_eq!(world.names().len(), 2);
}

#[test]
fn a_rename_carries_the_type() {
    let world = World::new(Layout::Plain);
    world.write("a.json", b"{}").unwrap();
    world
        .store
        .rename("a.json", &world.store, "b.txt", false)
        .unwrap();
    assert_eq!(world.type_of("b.txt"), "application/json; charset=utf-8");
    assert_eq!(world.names(), ["b.txt"]);
    let other = world.folder.create_store(&name("other"), 0o755).unwrap();
    world.store.rename("b.txt", &other, "c", false).unwrap();
    let (place, _) = other.find("c").unwrap();
    let carried = other.content_type("c", &place).unwrap();
    assert_eq!(carried.as_str(), "application/json; charset=utf-8");
    world.write("x", b"1").unwrap();
    let taken = other.rename("c", &world.store, "x", true).unwrap_err();
    assert_eq!(taken.kind(), Kind::Exists);
    let missing = world
        .store
        .rename("nothing", &other, "x", false)
        .unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[test]
fn scratch_files_stay_out_of_the_store() {
    let world = World::new(Layout::Plain);
    world.write("a.txt", b"one").unwrap();
    world
        .store
        .rename("a.txt", &world.store, "a.txt~", false)
        .unwrap();
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 0);
    assert_eq!(world.names(), ["a.txt~"]);
    assert_eq!(world.read("a.txt~"), b"one");
    world.write("a.txt", b"two").unwrap();
    assert_eq!(world.names(), ["a.txt", "a.txt~"]);
    world
        .store
        .rename("a.txt~", &world.store, "b", false)
        .unwrap();
    assert_eq!(world.type_of("b"), "text/plain; charset=utf-8");
    world.write("#b#", b"auto").unwrap();
    let again = Folder::open(&world.storage(""), options(Layout::Plain)).unwrap();
    let store = again.store(&name("default")).unwrap();
    assert_eq!(store.find("#b#").unwrap().0.area, Area::Scratch);
    store.remove("#b#").unwrap();
    assert_eq!(world.names(), ["a.txt", "b"]);
}

#[test]
fn nothing_but_regular_files_of_the_store_is_reached() {
    let world = World::new(Layout::Plain);
    fs::write(world.storage("secret"), b"s").unwrap();
    symlink("../../secret", world.path("link")).unwrap();
    symlink("/etc/passwd", world.path("absolute")).unwrap();
    fs::create_dir(world.path("directory")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        world.path("fifo"),
        rustix::fs::Mode::from_raw_mode(0o644),
    )
    .unwrap();
    assert_eq!(world.names(), Vec::<String>::new());
    for file in ["link", "absolute", "directory", "fifo"] {
        assert_eq!(world.store.find(file).unwrap_err().kind(), Kind::NotFound);
        let place = Place {
            file: file.into(),
            area: Area::Store,
            origin: Origin::Record,
        };
        world.store.open(&place, false).unwrap_err();
        world.write(file, b"x").unwrap_err();
    }
    assert_eq!(fs::read(world.storage("secret")).unwrap(), b"s");
    assert_eq!(world.temporaries(), 0);
}

#[test]
fn a_name_that_is_no_key_is_listed_encoded_and_only_read() {
    let world = World::new(Layout::Plain);
    fs::write(world.path("my report.pdf"), b"%PDF").unwrap();
    assert_eq!(world.names(), ["my%20report.pdf"]);
    assert_eq!(world.read("my%20report.pdf"), b"%PDF");
    let (place, _) = world.store.find("my%20report.pdf").unwrap();
    assert_eq!(place.origin, Origin::Foreign);
    world.store.open(&place, true).unwrap_err();
    assert_eq!(
        world.store.remove("my%20report.pdf").unwrap_err().kind(),
        Kind::NotPermitted
    );
    assert_eq!(
        world.store.find("my report.pdf").unwrap_err().kind(),
        Kind::Invalid
    );
    assert_eq!(world.store.find("..").unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_listing_goes_on_where_it_stopped_while_names_come_and_go() {
    let world = World::new(Layout::Plain);
    for n in 0..300 {
        world.write(&format!("k{n:03}"), b"").unwrap();
    }
    let mut seen = Vec::new();
    let mut after = 0;
    let mut round = 0;
    loop {
        let mut piece = Vec::new();
        world
            .store
            .list(after, &mut |listed| {
                assert!(listed.next > 0 && listed.next < 1 << 62);
                piece.push((listed.name.to_owned(), listed.next));
                piece.len() < 7
            })
            .unwrap();
        let Some((_, next)) = piece.last() else {
            break;
        };
        after = *next;
        seen.extend(piece.into_iter().map(|(name, _)| name));
        world.write(&format!("new{round}"), b"").unwrap();
        world.store.remove(&format!("new{round}")).unwrap();
        round += 1;
    }
    seen.retain(|name| name.starts_with('k'));
    seen.sort();
    assert_eq!(
        seen,
        (0..300).map(|n| format!("k{n:03}")).collect::<Vec<_>>()
    );
}

#[test]
fn stores_are_made_renamed_and_removed() {
    let world = World::new(Layout::Plain);
    let again = world
        .folder
        .create_store(&name("default"), 0o755)
        .unwrap_err();
    assert_eq!(again.kind(), Kind::Exists);
    world.write("a", b"1").unwrap();
    world.write("a~", b"1").unwrap();
    let full = world.folder.remove_store(&name("default")).unwrap_err();
    assert_eq!(full.kind(), Kind::NotEmpty);
    world
        .folder
        .rename_store(&name("default"), &name("other"), true)
        .unwrap();
    let other = world.folder.store(&name("other")).unwrap();
    assert_eq!(other.find("a~").unwrap().0.area, Area::Scratch);
    other.remove("a").unwrap();
    world.folder.remove_store(&name("other")).unwrap();
    assert_eq!(world.folder.stores().unwrap(), []);
    let gone = world.folder.store(&name("other")).unwrap_err();
    assert_eq!(gone.kind(), Kind::StoreNotFound);
    let left = |dir: &str| fs::read_dir(world.storage(dir)).unwrap().count();
    assert_eq!((left(".storefs/scratch"), left(".storefs/layouts")), (0, 0));
}

#[test]
fn a_directory_that_was_replaced_is_another_store() {
    let world = World::new(Layout::Plain);
    world.write("a", b"1").unwrap();
    let same = world.folder.store(&name("default")).unwrap();
    assert!(Arc::ptr_eq(&same, &world.store));
    let stores = world.folder.stores_path();
    fs::rename(stores.join("default"), stores.join("__OLD_DEFAULT_1__")).unwrap();
    fs::create_dir(stores.join("default")).unwrap();
    let new = world.folder.store(&name("default")).unwrap();
    assert!(!Arc::ptr_eq(&new, &world.store));
    assert_eq!(new.find("a").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.folder.stores().unwrap(), [name("default")]);
}

/// A look that nothing changed since is not made again; every way in which a store loses its place changes something.
#[test]
fn a_store_that_was_at_its_place_for_long_is_missed_at_once() {
    let world = World::new(Layout::Plain);
    world.write("a", b"1").unwrap();
    let stores = world.folder.stores_path();
    let away = world.storage("elsewhere");
    let steps: [&dyn Fn(); 3] = [
        &|| {
            fs::rename(stores.join("default"), stores.join("other")).unwrap();
            fs::create_dir(stores.join("default")).unwrap();
        },
        &|| {
            fs::remove_dir(stores.join("default")).unwrap();
            fs::create_dir(stores.join("default")).unwrap();
        },
        &|| {
            fs::rename(&stores, &away).unwrap();
            fs::create_dir_all(stores.join("default")).unwrap();
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        // Past the time within which a change may not show in a directory's times.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let before = world.folder.store(&name("default")).unwrap();
        for _ in 0..3 {
            let again = world.folder.store(&name("default")).unwrap();
            assert!(Arc::ptr_eq(&again, &before), "step {number}");
        }
        step();
        let after = world.folder.store(&name("default")).unwrap();
        assert!(!Arc::ptr_eq(&after, &before), "step {number}");
        assert_eq!(after.find("a").unwrap_err().kind(), Kind::NotFound);
    }
    std::thread::sleep(std::time::Duration::from_millis(1200));
    world.folder.store(&name("default")).unwrap();
    fs::remove_dir(stores.join("default")).unwrap();
    let gone = world.folder.store(&name("default")).unwrap_err();
    assert_eq!(gone.kind(), Kind::StoreNotFound);
}

// README: S78
#[test]
fn a_store_stays_plain_without_the_option() {
    let world = World::new(Layout::Plain);
    world.write("page.html", b"x").unwrap();
    let folder = Folder::open(&world.storage(""), FolderOptions::default()).unwrap();
    let store = folder.store(&name("default")).unwrap();
    assert_eq!(store.layout(), Layout::Plain);
    assert_eq!(
        store.find("page.html").unwrap().0.file.as_ref(),
        "page.html"
    );
}

#[test]
fn a_read_only_folder_is_left_as_it_is() {
    let world = World::new(Layout::Plain);
    world.write("a", b"1").unwrap();
    fs::write(world.storage("mark"), b"").unwrap();
    let read_only = FolderOptions {
        layout: Some(Layout::Plain),
        read_only: true,
        ..FolderOptions::default()
    };
    let before = fs::read_dir(world.storage(".storefs/tmp")).unwrap().count();
    let folder = Folder::open(&world.storage(""), read_only.clone()).unwrap();
    let store = folder.store(&name("default")).unwrap();
    assert_eq!(store.find("a").unwrap().1.size, 1);
    assert_eq!(folder.draft(0o644).unwrap_err().kind(), Kind::ReadOnly);
    assert_eq!(store.remove("a").unwrap_err().kind(), Kind::ReadOnly);
    let made = folder.create_store(&name("b"), 0o755).unwrap_err();
    assert_eq!(made.kind(), Kind::ReadOnly);
    let place = store.find("a").unwrap().0;
    assert_eq!(store.open(&place, true).unwrap_err().kind(), Kind::ReadOnly);
    let after = fs::read_dir(world.storage(".storefs/tmp")).unwrap().count();
    assert_eq!(before, after);
    let empty = TempDir::new().unwrap();
    let folder = Folder::open(empty.path(), read_only).unwrap();
    assert_eq!(folder.stores().unwrap(), []);
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn temporaries_of_a_dead_process_are_removed_and_those_of_a_living_one_stay() {
    let world = World::new(Layout::Plain);
    let tmp = world.storage(".storefs/tmp");
    fs::create_dir(tmp.join("dead")).unwrap();
    fs::write(tmp.join("dead/1"), b"x").unwrap();
    let draft = world.folder.draft(0o644).unwrap();
    draft.file.as_ref().write_all(b"mine").unwrap();
    let second = Folder::open(&world.storage(""), options(Layout::Plain)).unwrap();
    assert!(!tmp.join("dead").exists());
    assert_eq!(world.temporaries(), 1);
    drop(draft);
    assert_eq!(world.temporaries(), 0);
    drop(second);
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
}
