//! Two mounts on one backend: no version is lost, and no conflict is made where there is none.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{Mount, World, options, until};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

fn slow() -> Options {
    Options {
        debounce: Duration::from_secs(60),
        ..options()
    }
}

fn conflict_of(world: &World, key: &str) -> Vec<String> {
    let (stem, _) = key.rsplit_once('.').unwrap_or((key, ""));
    let start = format!("{stem}.conflict-");
    let mut keys = world.keys_there();
    keys.retain(|key| key.starts_with(&start));
    keys
}

fn two(world: &World) -> (Mount, Mount) {
    (
        world.mount_with("one", slow()),
        world.mount_with("two", slow()),
    )
}

#[test]
fn the_second_writer_of_a_version_that_both_read_gets_a_conflict_copy() {
    let world = World::new();
    world.put_as("a.json", b"{\"v\": 0}", "application/json; charset=utf-8");
    let (one, two) = two(&world);
    assert_eq!(one.text("a.json"), "{\"v\": 0}");
    assert_eq!(two.text("a.json"), "{\"v\": 0}");
    one.write("a.json", b"{\"v\": 1}").unwrap();
    two.write("a.json", b"{\"v\": 2}").unwrap();
    one.sync().unwrap();
    two.sync().unwrap();
    assert_eq!(world.there("a.json").unwrap(), b"{\"v\": 1}");
    let [copy] = conflict_of(&world, "a.json").try_into().unwrap();
    assert!(copy.ends_with("Z-box.json"), "{copy}");
    assert_eq!(world.there(&copy).unwrap(), b"{\"v\": 2}");
    assert_eq!(world.type_there(&copy), "application/json; charset=utf-8");
    assert_eq!(two.text("a.json"), "{\"v\": 1}");
    assert_eq!(two.text(&copy), "{\"v\": 2}");
    until("the other mount lists it", || {
        one.list().unwrap() == [copy.clone(), "a.json".to_owned()]
    });
    assert_eq!(two.volume_status()["conflicts"], 1);
}

#[test]
fn who_did_not_read_a_record_overwrites_it() {
    let world = World::new();
    world.put("a.txt", b"old");
    let (one, two) = two(&world);
    one.write("a.txt", b"one").unwrap();
    two.write("a.txt", b"two").unwrap();
    one.sync().unwrap();
    two.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"two");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn who_writes_again_and_again_makes_no_conflict_with_itself() {
    let world = World::new();
    let mount = world.mount();
    for number in 0..20 {
        mount
            .write("a.txt", format!("{number}").as_bytes())
            .unwrap();
        if number % 3 == 0 {
            mount.sync().unwrap();
        }
        let read = mount.text("a.txt");
        assert_eq!(read, number.to_string());
    }
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"19");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn an_upload_that_was_taken_without_an_answer_is_no_conflict_with_the_next_one() {
    let world = World::new();
    world.put("a.txt", b"base");
    let mount = world.mount_with("one", slow());
    assert_eq!(mount.text("a.txt"), "base");
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::FailAfter(Kind::Io)).times(1));
    mount.write("a.txt", b"first").unwrap();
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).times(1));
    let volume = mount.volume.clone();
    let runtime = world.runtime.clone();
    let sync = std::thread::spawn(move || {
        use storefs::volume::Volume;
        runtime
            .block_on(volume.sync(None).into_wait())
            .map_err(|e| e.kind())
    });
    world.runtime.block_on(gate.until_arrived(1));
    assert_eq!(world.there("a.txt").unwrap(), b"first");
    mount.write("a.txt", b"second").unwrap();
    gate.open();
    sync.join().unwrap().unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"second");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn an_upload_that_was_taken_just_before_a_kill_is_no_conflict() {
    let world = World::new();
    world.put("a.txt", b"base");
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "base");
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::HangAfter(gate.clone())).times(1));
    mount.write("a.txt", b"first").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    mount.kill();
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"first");
    mount.append("a.txt", b" more").unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"first more");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn an_edit_of_a_record_that_was_removed_meanwhile_makes_it_again() {
    let world = World::new();
    world.put("a.txt", b"base");
    let mount = world.mount_with("one", slow());
    assert_eq!(mount.text("a.txt"), "base");
    mount.write("a.txt", b"ours").unwrap();
    world.delete("a.txt");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"ours");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn a_removal_does_not_take_a_version_that_nobody_here_has_seen() {
    let world = World::new();
    world.put("a.txt", b"base");
    let mount = world.mount_with("one", slow());
    assert_eq!(mount.text("a.txt"), "base");
    mount.remove("a.txt").unwrap();
    assert!(!mount.exists("a.txt"));
    world.put("a.txt", b"theirs");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"theirs");
    assert_eq!(mount.text("a.txt"), "theirs");
}

#[test]
fn of_two_exclusive_creations_neither_is_lost() {
    let world = World::new();
    let (one, two) = two(&world);
    let exclusive = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    for (mount, bytes) in [(&one, b"one"), (&two, b"two")] {
        let handle = mount.open("a.txt", exclusive).unwrap();
        mount.write_at(handle, 0, bytes).unwrap();
        mount.close(handle).unwrap();
    }
    one.sync().unwrap();
    two.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"one");
    let [copy] = conflict_of(&world, "a.txt").try_into().unwrap();
    assert_eq!(world.there(&copy).unwrap(), b"two");
}

#[test]
fn the_conflict_name_of_the_longest_key_is_a_legal_key() {
    let world = World::new();
    let key = format!("{}.json", "k".repeat(251));
    world.put_as(&key, b"{}", "application/json; charset=utf-8");
    let (one, two) = two(&world);
    one.read(&key).unwrap();
    two.read(&key).unwrap();
    one.write(&key, b"{\"v\": 1}").unwrap();
    two.write(&key, b"{\"v\": 2}").unwrap();
    one.sync().unwrap();
    two.sync().unwrap();
    let keys = world.keys_there();
    assert_eq!(keys.len(), 2);
    let copy = keys.iter().find(|other| **other != key).unwrap();
    assert!(copy.len() <= 256 && copy.ends_with("Z-box.json"), "{copy}");
    assert_eq!(world.there(copy).unwrap(), b"{\"v\": 2}");
}

#[test]
fn with_writing_through_a_conflict_is_the_answer_to_the_close() {
    let world = World::new();
    world.put("a.txt", b"base");
    let through = Options {
        write_through: true,
        ..options()
    };
    let mount = world.mount_with("one", through);
    assert_eq!(mount.text("a.txt"), "base");
    let handle = mount.open("a.txt", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    mount.write_at(handle, 0, b"ours").unwrap();
    world.put("a.txt", b"theirs");
    assert_eq!(mount.flush(handle), Err(Kind::Changed));
    mount.fs.release(handle);
    assert_eq!(world.there("a.txt").unwrap(), b"theirs");
    let [copy] = conflict_of(&world, "a.txt").try_into().unwrap();
    assert_eq!(world.there(&copy).unwrap(), b"ours");
}

#[test]
fn a_change_of_one_mount_is_seen_by_the_other_at_its_next_open() {
    let world = World::new();
    let (one, two) = two(&world);
    one.write("a.txt", b"first").unwrap();
    one.sync().unwrap();
    until("the other sees it", || {
        two.read("a.txt") == Ok(b"first".to_vec())
    });
    let held = two.open("a.txt", libc::O_RDONLY).unwrap();
    one.write("a.txt", b"second version").unwrap();
    one.sync().unwrap();
    until("the other sees it", || {
        two.read("a.txt") == Ok(b"second version".to_vec())
    });
    assert_eq!(two.read_all(held).unwrap(), b"first");
    two.close(held).unwrap();
    one.remove("a.txt").unwrap();
    one.sync().unwrap();
    until("the other sees it", || !two.exists("a.txt"));
}

#[test]
fn the_kernel_is_told_of_a_change_by_somebody_else() {
    let world = World::new();
    world.put("a.txt", b"first");
    let mount = world.mount();
    let (send, notices) = std::sync::mpsc::channel();
    mount.fs.send_notices_to(send);
    let ino = mount.look("a.txt").unwrap().ino;
    assert_eq!(mount.text("a.txt"), "first");
    world.put("a.txt", b"second");
    world.put("b.txt", b"new");
    let mut told = String::new();
    until("it is told", || {
        told.extend(notices.try_iter().map(|notice| format!("{notice:?} ")));
        told.contains(&format!("({ino})")) || told.contains("\"a.txt\"")
    });
    let dir = mount.dir("default").unwrap();
    until("the new name is told", || {
        told.extend(notices.try_iter().map(|notice| format!("{notice:?} ")));
        told.contains(&format!("Contents({dir})")) || told.contains("\"b.txt\"")
    });
    assert_eq!(mount.text("a.txt"), "second");
}

#[test]
fn a_failure_that_will_not_pass_is_told_once_by_the_next_close() {
    let world = World::new();
    let mount = world.mount();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Denied)));
    mount.write("a.txt", b"first").unwrap();
    until("it fails", || {
        mount.attribute("a.txt", "user.storefs.error").is_ok()
    });
    assert_eq!(mount.append("a.txt", b" more"), Err(Kind::Denied));
    assert_eq!(mount.text("a.txt"), "first more");
    world.behind.clear();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"first more");
}
