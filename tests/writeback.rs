//! Edits are saved here first and reach the backend in the background, with as few requests as can be.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, names_in, notes_in, options, until};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Rule, Verb};
use storefs::error::Kind;
use storefs::fs::Change;
use storefs::volume::Volume;
use storefs::volume::cached::Options;

/// Nothing is sent unless somebody waits for it.
fn never() -> Options {
    Options {
        debounce: Duration::from_secs(3600),
        ..options()
    }
}

#[test]
fn what_is_there_can_be_listed_and_read() {
    let world = World::new();
    world.put("a.txt", b"first");
    world.put("b.txt", b"second");
    let mount = world.mount();
    assert_eq!(mount.list().unwrap(), ["a.txt", "b.txt"]);
    assert_eq!(mount.text("a.txt"), "first");
    assert_eq!(mount.look("b.txt").unwrap().size, 6);
    assert_eq!(mount.read("c.txt"), Err(Kind::NotFound));
}

#[test]
fn what_is_written_can_be_read_at_once_and_is_there_after_a_sync() {
    let world = World::new();
    let mount = world.mount();
    mount.write("OUTPUT", b"{\"a\": 1}").unwrap();
    assert_eq!(mount.text("OUTPUT"), "{\"a\": 1}");
    assert_eq!(mount.list().unwrap(), ["OUTPUT"]);
    mount.sync().unwrap();
    assert_eq!(world.there("OUTPUT").unwrap(), b"{\"a\": 1}");
    assert_eq!(
        world.type_there("OUTPUT"),
        "application/json; charset=utf-8"
    );
    assert_eq!(mount.pending(), 0);
    assert_eq!(mount.text("OUTPUT"), "{\"a\": 1}");
    assert_eq!(names_in(&world.spool("one")), ["bytes", "lock", "notes"]);
    assert_eq!(notes_in(&world.spool("one")).len(), 0);
    assert_eq!(names_in(&world.spool("one").join("bytes")), [""; 0]);
}

#[test]
fn what_cp_makes_is_sent_soon_and_what_mkstemp_makes_waits_for_its_name() {
    let world = World::new();
    let patient = Options {
        debounce: Duration::from_millis(1),
        young: Duration::from_secs(3600),
        ..options()
    };
    let mount = world.mount_with("one", patient);
    let exclusive = libc::O_CREAT | libc::O_EXCL;
    for (name, access) in [("temporary", libc::O_RDWR), ("copy", libc::O_WRONLY)] {
        let handle = mount.open(name, exclusive | access).unwrap();
        mount.write_at(handle, 0, b"bytes").unwrap();
        mount.close(handle).unwrap();
    }
    until("the copy is there", || world.there("copy").is_some());
    assert_eq!(world.keys_there(), ["copy"]);
    mount.rename("temporary", "name").unwrap();
    until("the name is there", || world.there("name").is_some());
    assert_eq!(world.keys_there(), ["copy", "name"]);
}

#[test]
fn to_create_write_and_close_is_one_put() {
    let world = World::new();
    let mount = world.mount();
    mount.write("a.txt", b"bytes").unwrap();
    mount.sync().unwrap();
    assert_eq!(mount.text("a.txt"), "bytes");
    assert_eq!(world.count(Verb::Put), 1);
    assert_eq!(world.count(Verb::Get), 0);
    assert_eq!(world.count(Verb::Head), 0);
    assert_eq!(world.count(Verb::Delete), 0);
}

#[test]
fn a_failed_upload_is_tried_again_until_it_works() {
    let world = World::new();
    let mount = world.mount();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Io)).times(3));
    mount.write("a.txt", b"bytes").unwrap();
    until("it is sent", || world.there("a.txt").is_some());
    assert_eq!(world.count(Verb::Put), 4);
}

#[test]
fn an_edit_survives_a_kill() {
    let world = World::new();
    let slow = storefs::volume::cached::Options {
        debounce: std::time::Duration::from_secs(60),
        ..options()
    };
    let mount = world.mount_with("one", slow);
    mount.write("a.txt", b"bytes").unwrap();
    mount.kill();
    assert_eq!(world.there("a.txt"), None);
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "bytes");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
}

#[test]
fn a_listing_is_one_request_for_each_thousand_keys_and_none_for_a_file() {
    let world = World::new();
    for number in 0..2500 {
        world.put(&format!("{number}.txt"), b"bytes");
    }
    let mount = world.mount();
    assert_eq!(mount.list().unwrap().len(), 2500);
    for number in 0..2500 {
        assert_eq!(mount.look(&format!("{number}.txt")).unwrap().size, 5);
    }
    assert_eq!(mount.list().unwrap().len(), 2500);
    // The look at the store before is one page of it.
    assert!(world.count(Verb::List) <= 4, "{}", world.count(Verb::List));
    assert_eq!(world.count(Verb::Head), 0);
    assert_eq!(world.count(Verb::Get), 0);
}

#[test]
fn many_small_appends_are_few_uploads() {
    let world = World::new();
    let calm = Options {
        debounce: Duration::from_millis(500),
        ..options()
    };
    let mount = world.mount_with("one", calm);
    for number in 0..30 {
        mount
            .append("log.txt", format!("line {number}\n").as_bytes())
            .unwrap();
    }
    mount.sync().unwrap();
    let all: String = (0..30).map(|number| format!("line {number}\n")).collect();
    assert_eq!(world.there("log.txt").unwrap(), all.as_bytes());
    assert!(world.count(Verb::Put) <= 3, "{}", world.count(Verb::Put));
}

#[test]
fn editors_that_save_aside_cost_one_put() {
    let world = World::new();
    world.put_as("INPUT", b"{\"old\": 1}", "application/json; charset=utf-8");
    let mount = world.mount();
    // vim: the old file becomes a backup, a new one is written, the backup goes.
    assert_eq!(mount.text("INPUT"), "{\"old\": 1}");
    mount.rename("INPUT", "INPUT~").unwrap();
    assert_eq!(mount.text("INPUT~"), "{\"old\": 1}");
    mount.write("INPUT", b"{\"new\": 1}").unwrap();
    mount.remove("INPUT~").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("INPUT").unwrap(), b"{\"new\": 1}");
    assert_eq!(world.type_there("INPUT"), "application/json; charset=utf-8");
    assert_eq!(world.count(Verb::Put), 1);
    // rsync, sed and others: a file that mkstemp makes is renamed over the old one.
    let exclusive = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    for (round, temporary) in [".INPUT.Ab12Cd", "sedAb12Cd"].iter().enumerate() {
        let handle = mount.open(temporary, exclusive).unwrap();
        mount.write_at(handle, 0, b"{\"newer\": 1}").unwrap();
        mount.close(handle).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        mount.rename(temporary, "INPUT").unwrap();
        mount.sync().unwrap();
        assert_eq!(world.count(Verb::Put), 2 + round, "{temporary}");
    }
    assert_eq!(world.type_there("INPUT"), "application/json; charset=utf-8");
    assert_eq!(world.keys_there(), ["INPUT"]);
    assert_eq!(world.count(Verb::Delete), 0);
}

#[test]
fn what_is_made_and_removed_in_a_moment_costs_no_request() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    assert!(mount.list().unwrap().is_empty());
    mount.write("a.txt", b"bytes").unwrap();
    mount.rename("a.txt", "b.txt").unwrap();
    mount.remove("b.txt").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.count(Verb::Put) + world.count(Verb::Delete), 0);
}

#[test]
fn a_rename_before_the_upload_is_one_put_under_the_new_name() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("a.txt", b"bytes").unwrap();
    mount.rename("a.txt", "b.txt").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["b.txt"]);
    assert_eq!(world.count(Verb::Put), 1);
    assert_eq!(world.count(Verb::Delete), 0);
}

#[test]
fn a_rename_after_the_upload_puts_the_new_name_before_the_old_one_goes() {
    let world = World::new();
    world.put_as("a.txt", b"bytes", "text/x-mine");
    let mount = world.mount();
    mount.rename("a.txt", "b.json").unwrap();
    assert_eq!(mount.list().unwrap(), ["b.json"]);
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["b.json"]);
    assert_eq!(world.type_there("b.json"), "text/x-mine");
    let calls = world.behind.calls();
    let writes: Vec<_> = calls
        .iter()
        .map(|call| call.verb)
        .filter(|verb| [Verb::Put, Verb::Delete].contains(verb))
        .collect();
    assert_eq!(writes, [Verb::Put, Verb::Delete]);
}

#[test]
fn a_removal_that_is_followed_by_a_new_record_is_one_put() {
    let world = World::new();
    world.put("a.txt", b"old");
    let mount = world.mount_with("one", never());
    mount.remove("a.txt").unwrap();
    mount.write("a.txt", b"new").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"new");
    assert_eq!(world.count(Verb::Put), 1);
    assert_eq!(world.count(Verb::Delete), 0);
}

#[test]
fn a_young_record_waits_and_is_sent_in_the_end() {
    let world = World::new();
    let quick = Options {
        young: Duration::from_millis(400),
        ..options()
    };
    let mount = world.mount_with("one", quick);
    mount.write("a.part", b"bytes").unwrap();
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(world.there("a.part"), None);
    until("it is sent", || world.there("a.part").is_some());
}

#[test]
fn attributes_alone_are_never_sent() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    let change = Change {
        modified: Some(Some(5_000_000_000)),
        mode: Some(0o640),
        ..Change::default()
    };
    let attr = mount.set("a.txt", change).unwrap();
    assert_eq!((attr.modified_ns, attr.mode), (5_000_000_000, 0o640));
    let handle = mount.open("a.txt", libc::O_WRONLY).unwrap();
    let ino = mount.look("a.txt").unwrap().ino;
    let change = Change {
        modified: Some(Some(6_000_000_000)),
        ..Change::default()
    };
    mount
        .wait(
            mount
                .fs
                .setattr(ino, change, Some(handle), cached::caller()),
        )
        .unwrap();
    mount.close(handle).unwrap();
    assert_eq!(mount.look("a.txt").unwrap().modified_ns, 6_000_000_000);
    mount.sync().unwrap();
    assert_eq!(world.count(Verb::Put), 0);
}

#[test]
fn a_close_that_writes_through_is_one_put_or_an_error() {
    let world = World::new();
    let through = Options {
        write_through: true,
        ..options()
    };
    let mount = world.mount_with("one", through);
    mount.write("a.txt", b"bytes").unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    assert_eq!(world.count(Verb::Put), 1);
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Denied)));
    assert_eq!(mount.write("a.txt", b"more"), Err(Kind::Denied));
}

#[test]
fn an_fsync_waits_for_the_backend_unless_it_is_local() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("a.txt", b"bytes").unwrap();
    mount.fsync("a.txt").unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    let local = Options {
        fsync_local: true,
        ..never()
    };
    let mount = world.mount_with("two", local);
    mount.write("b.txt", b"bytes").unwrap();
    mount.fsync("b.txt").unwrap();
    assert_eq!(world.there("b.txt"), None);
    assert_eq!(mount.pending(), 1);
}

#[test]
fn when_too_much_waits_a_write_waits_and_then_fails_before_it_writes_anything() {
    let world = World::new();
    let tight = Options {
        unsent_size: 1000,
        patience: Duration::from_millis(300),
        ..options()
    };
    let mount = world.mount_with("one", tight);
    world.behind.add(Rule::on(Verb::Put, Fault::Fail(Kind::Io)));
    mount.write("a.txt", &[b'a'; 800]).unwrap();
    let handle = mount.open("b.txt", libc::O_CREAT | libc::O_WRONLY).unwrap();
    mount.write_at(handle, 0, &[b'b'; 100]).unwrap();
    assert_eq!(
        mount.write_at(handle, 100, &[b'c'; 500]),
        Err(Kind::NoSpace)
    );
    // Bytes are missing in it, as after a write on a full disk; what was there before stays.
    assert_eq!(mount.close(handle), Err(Kind::NoSpace));
    assert_eq!(mount.read("b.txt"), Err(Kind::NotFound));
    assert_eq!(mount.write("a.txt", &[b'b'; 900]), Err(Kind::NoSpace));
    assert_eq!(mount.read("a.txt").unwrap(), [b'a'; 800]);
    let started = std::time::Instant::now();
    world.behind.clear();
    mount.write("c.txt", &[b'c'; 900]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    mount.sync().unwrap();
    assert_eq!(world.there("c.txt").unwrap().len(), 900);
}

#[test]
fn a_drain_sends_what_it_can_in_its_time_and_says_what_is_left() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("a.txt", b"bytes").unwrap();
    let drain = |time| {
        world
            .runtime
            .block_on(mount.volume.drain(Duration::from_millis(time)).into_wait())
    };
    drain(5000).unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    world.behind.add(Rule::on(Verb::Put, Fault::Fail(Kind::Io)));
    mount.write("b.txt", b"bytes").unwrap();
    let left = drain(100).unwrap_err();
    assert_eq!(left.kind(), Kind::TimedOut);
    assert!(left.to_string().contains("1 not sent yet"), "{left}");
    assert!(
        mount.queue().contains("\"key\":\"b.txt\""),
        "{}",
        mount.queue()
    );
}

#[test]
fn a_record_is_renamed_into_another_store_unless_it_is_very_long() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    let made = mount
        .fs
        .mkdir(storefs::fs::ROOT, "other", 0o755, cached::caller());
    let other = mount.wait(made).unwrap().ino;
    let dir = mount.dir("default").unwrap();
    mount.write("a.txt", b"bytes").unwrap();
    mount
        .wait(mount.fs.rename((dir, "a.txt"), (other, "b.txt"), 0))
        .unwrap();
    assert_eq!(mount.list_of("other").unwrap(), ["b.txt"]);
    assert!(mount.list().unwrap().is_empty());
    mount.write("long.bin", b"").unwrap();
    let change = Change {
        size: Some(65 << 20),
        ..Change::default()
    };
    mount.set("long.bin", change).unwrap();
    let moved = mount.wait(mount.fs.rename((dir, "long.bin"), (other, "long.bin"), 0));
    assert_eq!(moved, Err(Kind::CrossDevice));
    mount.remove("long.bin").unwrap();
    mount.sync().unwrap();
    assert!(world.keys_there().is_empty());
}
