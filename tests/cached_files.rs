//! Files of a cached mount as programs see them: versions, types, names, stores.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, options, until};
use std::time::Duration;
use storefs::backend::{Backend, NewStore};
use storefs::error::Kind;
use storefs::fs::{Change, ROOT};
use storefs::record::StoreName;
use storefs::volume::cached::Options;

fn never() -> Options {
    Options {
        debounce: Duration::from_secs(3600),
        ..options()
    }
}

#[test]
fn who_has_a_version_open_keeps_it_whatever_is_written() {
    let world = World::new();
    world.put("a.txt", b"first version");
    let mount = world.mount();
    let held = mount.open("a.txt", libc::O_RDONLY).unwrap();
    mount.write("a.txt", b"second").unwrap();
    mount.append("a.txt", b" and third").unwrap();
    assert_eq!(mount.text("a.txt"), "second and third");
    assert_eq!(mount.read_all(held).unwrap(), b"first version");
    mount.remove("a.txt").unwrap();
    assert!(!mount.exists("a.txt"));
    assert_eq!(mount.read_all(held).unwrap(), b"first version");
    mount.close(held).unwrap();
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_never_sent() {
    let world = World::new();
    let mount = world.mount();
    let handle = mount.open("a.txt", libc::O_CREAT | libc::O_RDWR).unwrap();
    mount.write_at(handle, 0, b"bytes").unwrap();
    mount.remove("a.txt").unwrap();
    mount.write_at(handle, 5, b" more").unwrap();
    assert_eq!(mount.read_all(handle).unwrap(), b"bytes more");
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert!(world.keys_there().is_empty());
}

#[test]
fn nobody_sees_a_record_before_it_is_finished() {
    let world = World::new();
    world.put("a.txt", b"old");
    let (one, two) = (world.mount(), world.mount_with("two", options()));
    let handle = one.open("a.txt", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    one.write_at(handle, 0, b"half of it").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(two.text("a.txt"), "old");
    one.write_at(handle, 10, b" and the rest").unwrap();
    one.close(handle).unwrap();
    one.sync().unwrap();
    until("the whole is seen", || {
        two.read("a.txt") == Ok(b"half of it and the rest".to_vec())
    });
}

#[test]
fn what_is_written_after_a_close_of_a_copied_descriptor_is_a_further_edit() {
    let world = World::new();
    let mount = world.mount();
    let handle = mount.open("a.txt", libc::O_CREAT | libc::O_RDWR).unwrap();
    for round in 1..=3 {
        let at = (round - 1) * 5;
        mount.write_at(handle, at, b"line\n").unwrap();
        mount.flush(handle).unwrap();
        mount.sync().unwrap();
        assert_eq!(
            world.there("a.txt").unwrap(),
            b"line\n".repeat(round as usize)
        );
        // What was sent is not touched by the next write.
        assert_eq!(
            mount.read_all(handle).unwrap(),
            b"line\n".repeat(round as usize)
        );
    }
    mount.close(handle).unwrap();
    assert_eq!(mount.text("a.txt"), "line\nline\nline\n");
}

#[test]
fn opening_for_writing_and_writing_nothing_sends_nothing() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    for flags in [libc::O_RDWR, libc::O_WRONLY | libc::O_APPEND] {
        let handle = mount.open("a.txt", flags).unwrap();
        mount.close(handle).unwrap();
    }
    assert_eq!(mount.text("a.txt"), "bytes");
    mount.sync().unwrap();
    assert_eq!(world.count(storefs::backend::faulty::Verb::Put), 0);
}

#[test]
fn lines_that_two_descriptors_append_are_all_there() {
    let world = World::new();
    let mount = world.mount();
    mount.write("log.txt", b"").unwrap();
    let flags = libc::O_WRONLY | libc::O_APPEND;
    let handles = [
        mount.open("log.txt", flags).unwrap(),
        mount.open("log.txt", flags).unwrap(),
    ];
    for round in 0..40 {
        mount
            .write_at(handles[round % 2], 0, format!("{round}\n").as_bytes())
            .unwrap();
    }
    for handle in handles {
        mount.close(handle).unwrap();
    }
    let all: String = (0..40).map(|round| format!("{round}\n")).collect();
    assert_eq!(mount.text("log.txt"), all);
}

#[test]
fn the_type_is_kept_until_the_bytes_contradict_it() {
    let world = World::new();
    world.put_as("OUTPUT", b"{}", "application/json; x=y");
    let mount = world.mount();
    let type_of = |name| mount.attribute(name, "user.mime_type").unwrap();
    mount.write("OUTPUT", b"[1, 2]").unwrap();
    assert_eq!(type_of("OUTPUT"), "application/json; x=y");
    mount.write("OUTPUT", b"no json at all").unwrap();
    assert_eq!(type_of("OUTPUT"), "text/plain; charset=utf-8");
    mount.set_type("OUTPUT", "text/x-mine").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.type_there("OUTPUT"), "text/x-mine");
    assert_eq!(world.there("OUTPUT").unwrap(), b"no json at all");
    let ino = mount.look("OUTPUT").unwrap().ino;
    mount
        .wait(mount.fs.removexattr(ino, "user.mime_type"))
        .unwrap();
    mount.sync().unwrap();
    assert_eq!(world.type_there("OUTPUT"), "text/plain; charset=utf-8");
}

#[test]
fn a_type_set_on_a_record_that_was_never_read_rewrites_it_whole() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    mount.set_type("a.txt", "text/x-mine").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.type_there("a.txt"), "text/x-mine");
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
}

#[test]
fn other_attributes_are_not_kept() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    let ino = mount.look("a.txt").unwrap().ino;
    let set = mount.wait(mount.fs.setxattr(ino, "user.note", b"x", 0));
    assert_eq!(set, Err(Kind::Unsupported));
    assert_eq!(
        mount.attribute("a.txt", "user.note"),
        Err(Kind::Unsupported)
    );
    assert_eq!(
        mount.attribute("a.txt", "user.storefs.state").unwrap(),
        "clean"
    );
    assert!(
        !mount
            .attribute("a.txt", "user.storefs.etag")
            .unwrap()
            .is_empty()
    );
    let list = mount.wait(mount.fs.listxattr(ino)).unwrap();
    assert_eq!(list, b"user.mime_type\0");
}

#[test]
fn a_file_can_be_cut_and_grown_by_name_and_through_a_descriptor() {
    let world = World::new();
    world.put("a.txt", b"0123456789");
    let mount = world.mount();
    let size = |size| Change {
        size: Some(size),
        ..Change::default()
    };
    assert_eq!(mount.set("a.txt", size(4)).unwrap().size, 4);
    assert_eq!(mount.text("a.txt"), "0123");
    let handle = mount.open("a.txt", libc::O_RDWR).unwrap();
    let ino = mount.look("a.txt").unwrap().ino;
    let cut = mount
        .fs
        .setattr(ino, size(2), Some(handle), cached::caller());
    assert_eq!(mount.wait(cut).unwrap().size, 2);
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"01");
}

#[test]
fn scratch_names_stay_here_and_illegal_names_are_refused() {
    let world = World::new();
    let mount = world.mount();
    for name in ["a.txt~", "#a.txt#", ".~lock.a.txt#", "~$a.txt"] {
        mount.write(name, b"scratch").unwrap();
        assert_eq!(mount.text(name), "scratch");
    }
    assert_eq!(mount.list().unwrap().len(), 4);
    assert_eq!(mount.write("my report.pdf", b"x"), Err(Kind::Invalid));
    assert_eq!(mount.write(&"k".repeat(257), b"x"), Err(Kind::NameTooLong));
    mount.rename("a.txt~", "a.txt").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["a.txt"]);
    let refused = mount.fs.status()["refused"].to_string();
    assert!(refused.contains("my report.pdf"), "{refused}");
}

#[test]
fn a_scratch_file_becomes_a_record_with_all_that_was_written_into_it() {
    let world = World::new();
    let mount = world.mount();
    mount.write("a.txt~", b"first").unwrap();
    mount.append("a.txt~", b" and more").unwrap();
    mount.rename("a.txt~", "a.txt").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"first and more");
    assert!(!mount.exists("a.txt~"));
    // What is still being made is finished under its new name.
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let handle = mount.open("b.txt~", flags).unwrap();
    mount.write_at(handle, 0, b"one").unwrap();
    mount.rename("b.txt~", "b.txt").unwrap();
    mount.write_at(handle, 3, b" two").unwrap();
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("b.txt").unwrap(), b"one two");
}

#[test]
fn a_record_renamed_to_a_scratch_name_goes_from_the_backend_a_little_later() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    mount.rename("a.txt", "a.txt~").unwrap();
    assert_eq!(mount.list().unwrap(), ["a.txt~"]);
    std::thread::sleep(Duration::from_millis(100));
    assert!(world.there("a.txt").is_some());
    until("it goes", || world.there("a.txt").is_none());
    assert_eq!(mount.text("a.txt~"), "bytes");
}

#[test]
fn read_only_nothing_can_be_changed() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let read_only = Options {
        read_only: true,
        ..options()
    };
    let mount = world.mount_with("one", read_only);
    assert_eq!(mount.text("a.txt"), "bytes");
    assert_eq!(mount.write("a.txt", b"x"), Err(Kind::ReadOnly));
    assert_eq!(mount.write("b.txt", b"x"), Err(Kind::ReadOnly));
    assert_eq!(mount.remove("a.txt"), Err(Kind::ReadOnly));
    assert_eq!(mount.rename("a.txt", "b.txt"), Err(Kind::ReadOnly));
    assert_eq!(mount.set_type("a.txt", "text/x-mine"), Err(Kind::ReadOnly));
}

#[test]
fn stores_are_made_renamed_and_removed_only_when_that_is_allowed_and_they_are_empty() {
    let world = World::new();
    let allowed = Options {
        allow_store_delete: true,
        ..options()
    };
    let mount = world.mount_with("one", allowed);
    let caller = cached::caller();
    mount
        .wait(mount.fs.mkdir(ROOT, "made", 0o755, caller))
        .unwrap();
    assert_eq!(
        mount
            .wait(mount.fs.mkdir(ROOT, "made", 0o755, caller))
            .err(),
        Some(Kind::Exists)
    );
    mount
        .wait(mount.fs.rename((ROOT, "made"), (ROOT, "other"), 0))
        .unwrap();
    assert_eq!(mount.dir("made"), Err(Kind::StoreNotFound));
    assert!(mount.dir("other").is_ok());
    mount.write("a.txt", b"bytes").unwrap();
    assert_eq!(
        mount.wait(mount.fs.rmdir(ROOT, "default")),
        Err(Kind::NotEmpty)
    );
    mount.wait(mount.fs.rmdir(ROOT, "other")).unwrap();
    assert_eq!(mount.dir("other"), Err(Kind::StoreNotFound));
    let plain = world.mount_with("two", options());
    assert_eq!(
        plain.wait(plain.fs.rmdir(ROOT, "default")),
        Err(Kind::NotPermitted)
    );
}

#[test]
fn an_unnamed_store_has_its_id_for_a_directory_or_is_called_default() {
    let world = World::new();
    let unnamed = world
        .runtime
        .block_on(world.behind.inner().create_store(NewStore::default()));
    let id = unnamed.unwrap().0.id;
    let mount = world.mount();
    assert!(mount.dir(id.as_str()).is_ok());
    assert!(mount.list_of(id.as_str()).unwrap().is_empty());
    let taken = world.runtime.block_on(world.behind.inner().store(
        &storefs::backend::StoreRef::name(StoreName::new("default").unwrap()),
    ));
    let named = taken.unwrap().id;
    world
        .runtime
        .block_on(world.behind.inner().delete_store(&named))
        .unwrap();
    let as_default = Options {
        default_store: Some(id.clone()),
        ..options()
    };
    let mount = world.mount_with("two", as_default);
    assert!(mount.dir("default").is_ok());
    let link = mount.dir(id.as_str()).unwrap();
    assert_eq!(mount.wait(mount.fs.readlink(link)).unwrap(), b"default");
    mount.write("a.txt", b"bytes").unwrap();
    mount.sync().unwrap();
    let record = storefs::record::RecordId {
        store: id,
        key: storefs::record::Key::new("a.txt").unwrap(),
    };
    assert!(
        world
            .runtime
            .block_on(world.behind.inner().head(&record))
            .is_ok()
    );
}

#[test]
fn a_store_that_goes_is_an_error_and_never_an_empty_directory() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount_with("one", never());
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    mount.write("b.txt", b"unsent").unwrap();
    world
        .runtime
        .block_on(world.behind.inner().delete_store(&world.store))
        .unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let dir = mount.list();
    assert!(dir.is_err(), "{dir:?}");
    assert_eq!(mount.pending(), 1);
    assert!(mount.sync().is_err());
}
