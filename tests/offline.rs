//! A backend that cannot be reached: what is here is shown, what is written waits, and nothing hangs.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{Mount, World, options, until};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

fn cut(world: &World) {
    world.behind.add(Rule::any(Fault::Fail(Kind::Offline)));
}

#[test]
fn offline_what_was_read_is_read_and_what_is_written_is_sent_later() {
    let world = World::new();
    world.put("a.txt", b"first");
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "first");
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    cut(&world);
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(mount.text("a.txt"), "first");
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    mount.write("a.txt", b"second").unwrap();
    mount.write("b.txt", b"new").unwrap();
    assert_eq!(mount.text("a.txt"), "second");
    assert_eq!(mount.list().unwrap(), ["a.txt", "b.txt"]);
    until("it says so", || {
        mount.volume_status()["offlineSince"].is_string()
    });
    // While it is being tried again it says that.
    until("the record says so", || {
        mount.attribute("b.txt", "user.storefs.state").unwrap() == "offline"
    });
    assert_eq!(mount.pending(), 2);
    world.behind.clear();
    until("both are sent", || mount.pending() == 0);
    assert_eq!(world.there("a.txt").unwrap(), b"second");
    assert_eq!(world.there("b.txt").unwrap(), b"new");
    assert!(mount.volume_status()["offlineSince"].is_null());
}

#[test]
fn a_mount_without_its_backend_lists_and_reads_what_an_earlier_one_did() {
    let world = World::new();
    world.put("a.txt", b"first");
    world.put("b.txt", b"never read");
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "first");
    assert_eq!(mount.list().unwrap(), ["a.txt", "b.txt"]);
    mount.kill();
    cut(&world);
    let mount = world.mount();
    assert_eq!(mount.list().unwrap(), ["a.txt", "b.txt"]);
    assert_eq!(mount.text("a.txt"), "first");
    assert_eq!(mount.look("b.txt").unwrap().size, 10);
    assert_eq!(mount.read("b.txt"), Err(Kind::Offline));
    assert_eq!(mount.read("c.txt"), Err(Kind::NotFound));
    mount.write("c.txt", b"made offline").unwrap();
    mount.remove("a.txt").unwrap();
    mount.kill();
    let mount = world.mount();
    assert_eq!(mount.list().unwrap(), ["b.txt", "c.txt"]);
    assert_eq!(mount.text("c.txt"), "made offline");
    world.behind.clear();
    std::thread::sleep(Duration::from_millis(100));
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["b.txt", "c.txt"]);
}

#[test]
fn while_it_cannot_be_reached_one_upload_finds_out_for_all() {
    let world = World::new();
    let mount = world.mount();
    assert!(mount.list().unwrap().is_empty());
    cut(&world);
    for number in 0..50 {
        mount.write(&format!("{number}.txt"), b"bytes").unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    // A connection's worth of them may begin before the first failure; after that it is one for each pause.
    assert!(world.count(Verb::Put) < 40, "{}", world.count(Verb::Put));
    world.behind.clear();
    until("all are sent", || mount.pending() == 0);
    assert_eq!(world.keys_there().len(), 50);
}

#[test]
fn only_an_authoritative_answer_takes_a_record_away() {
    let world = World::new();
    world.put("a.txt", b"first");
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "first");
    for kind in [Kind::Io, Kind::TimedOut, Kind::Offline, Kind::Denied] {
        world.behind.add(Rule::any(Fault::Fail(kind)));
        std::thread::sleep(Duration::from_millis(80));
        let looked = mount.look("a.txt");
        assert_ne!(looked.err(), Some(Kind::NotFound), "{kind:?}");
        world.behind.clear();
    }
    std::thread::sleep(Duration::from_millis(80));
    until("it is read again", || {
        mount.read("a.txt") == Ok(b"first".to_vec())
    });
    world.delete("a.txt");
    until("it is gone", || !mount.exists("a.txt"));
}

#[test]
fn an_fsync_that_does_not_get_through_says_so_and_the_edit_stays() {
    let world = World::new();
    let impatient = Options {
        patience: Duration::from_millis(200),
        ..options()
    };
    let mount = world.mount_with("one", impatient);
    assert!(mount.list().unwrap().is_empty());
    world.behind.add(Rule::on(Verb::Put, Fault::Fail(Kind::Io)));
    mount.write("a.txt", b"bytes").unwrap();
    assert_eq!(mount.fsync("a.txt"), Err(Kind::TimedOut));
    assert_eq!(mount.sync(), Err(Kind::TimedOut));
    assert_eq!(mount.pending(), 1);
    world.behind.clear();
    assert_eq!(mount.fsync("a.txt"), Ok(()));
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
}

#[test]
fn an_upload_that_can_never_work_is_told_by_fsync_at_once_and_given_up_by_removing_the_file() {
    let world = World::new();
    let mount = world.mount();
    assert!(mount.list().unwrap().is_empty());
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::TooLarge)));
    mount.write("a.txt", b"bytes").unwrap();
    assert_eq!(mount.fsync("a.txt"), Err(Kind::TooLarge));
    assert!(
        mount
            .attribute("a.txt", "user.storefs.error")
            .unwrap()
            .contains("too large")
    );
    mount.remove("a.txt").unwrap();
    mount.sync().unwrap();
    assert_eq!(mount.pending(), 0);
    assert!(mount.list().unwrap().is_empty());
}

#[test]
fn who_waits_for_all_is_told_when_an_edit_waits_for_one_that_fails() {
    let world = World::new();
    world.put("a.txt", b"first");
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "first");
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Denied)));
    // The removal of the old name is not sent before the new one is there.
    mount.rename("a.txt", "b.txt").unwrap();
    let sending = mount.volume.send_all(Duration::from_millis(300));
    let sent = async { tokio::time::timeout(Duration::from_secs(60), sending).await };
    let sent = world.runtime.block_on(sent).unwrap();
    assert!(sent.is_err());
    assert_eq!(world.there("a.txt").unwrap(), b"first");
}

/// A scratch file that was opened again and is being written in place.
fn written_on(mount: &Mount) -> u64 {
    mount.write("note~", b"first").unwrap();
    let handle = mount.open("note~", libc::O_RDWR).unwrap();
    mount.write_at(handle, 5, b", second").unwrap();
    handle
}

#[test]
fn what_is_written_into_a_scratch_file_that_becomes_a_record_meanwhile_is_sent() {
    let world = World::new();
    let mount = world.mount();
    let handle = written_on(&mount);
    mount.rename("note~", "note").unwrap();
    mount.write_at(handle, 13, b", third").unwrap();
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("note").unwrap(), b"first, second, third");
    assert_eq!(mount.text("note"), "first, second, third");
    assert_eq!(mount.list().unwrap(), ["note"]);
    drop(mount);
    assert_eq!(world.mount().text("note"), "first, second, third");
}

#[test]
fn a_scratch_file_that_is_written_in_place_keeps_all_of_it_on_this_machine() {
    let world = World::new();
    let mount = world.mount();
    let handle = written_on(&mount);
    mount.close(handle).unwrap();
    assert_eq!(mount.text("note~"), "first, second");
    mount.sync().unwrap();
    assert!(world.keys_there().is_empty());
    drop(mount);
    assert_eq!(world.mount().text("note~"), "first, second");
}
