//! Edits that wait for others, or take the place of others, and the moments in which a kill may come between.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, names_in, notes_in, options, until};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

fn never() -> Options {
    Options {
        debounce: Duration::from_secs(3600),
        ..options()
    }
}

fn soon(milliseconds: u64) -> Options {
    Options {
        debounce: Duration::from_millis(milliseconds),
        ..options()
    }
}

/// A world with `old.txt`, which was read, and a backend that does not answer the next puts before the gate is open.
fn with_old(options: Options) -> (World, cached::Mount, Gate) {
    let world = World::new();
    world.put("old.txt", b"bytes");
    let mount = world.mount_with("one", options);
    assert_eq!(mount.text("old.txt"), "bytes");
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())));
    (world, mount, gate)
}

fn wait() {
    std::thread::sleep(Duration::from_millis(600));
}

/// Puts the notes back as they were before some of them were struck out, as a kill leaves them, with the bytes of one.
fn lay(world: &World, lines: &[&Value], bytes: &[u8]) {
    let spool = world.spool("one");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(spool.join("notes"), text).unwrap();
    let number = lines[0]["data"].as_u64().unwrap();
    fs::write(spool.join(format!("bytes/{number}")), bytes).unwrap();
}

fn bytes_of(world: &World, note: &Value) -> Vec<u8> {
    let number = note["data"].as_u64().unwrap();
    fs::read(world.spool("one").join(format!("bytes/{number}"))).unwrap()
}

#[test]
fn a_record_that_is_renamed_twice_stays_there_until_its_last_name_was_sent() {
    let (world, mount, gate) = with_old(soon(100));
    mount.rename("old.txt", "b.txt").unwrap();
    mount.rename("b.txt", "c.txt").unwrap();
    wait();
    assert_eq!(world.keys_there(), ["old.txt"]);
    gate.open();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["c.txt"]);
}

#[test]
fn a_record_that_is_renamed_and_written_twice_stays_there_until_that_was_sent() {
    let (world, mount, gate) = with_old(soon(100));
    world.behind.clear();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).key("new.txt"));
    mount.rename("old.txt", "new.txt").unwrap();
    mount.write("new.txt", b"newer").unwrap();
    mount.write("new.txt", b"newest").unwrap();
    mount.write("another.txt", b"x").unwrap();
    until("another one is there", || {
        world.there("another.txt").is_some()
    });
    wait();
    assert_eq!(world.keys_there(), ["another.txt", "old.txt"]);
    gate.open();
    mount.sync().unwrap();
    assert_eq!(world.there("new.txt").unwrap(), b"newest");
    assert_eq!(world.there("old.txt"), None);
}

// README: S115
#[test]
fn a_record_that_is_renamed_and_written_stays_there_until_that_was_sent_also_after_a_kill() {
    let (world, mount, gate) = with_old(never());
    mount.rename("old.txt", "new.txt").unwrap();
    mount.write("new.txt", b"newer").unwrap();
    mount.write("new.txt", b"newest").unwrap();
    mount.kill();
    let mount = world.mount();
    wait();
    assert_eq!(world.keys_there(), ["old.txt"]);
    gate.open();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["new.txt"]);
    assert_eq!(world.there("new.txt").unwrap(), b"newest");
}

#[test]
fn a_record_that_is_renamed_stays_there_when_the_one_it_replaces_went_meanwhile() {
    let (world, mount, gate) = with_old(soon(1));
    world.put("target.txt", b"target");
    until("it is seen", || mount.exists("target.txt"));
    assert_eq!(mount.text("target.txt"), "target");
    world.behind.clear();
    let second = Gate::closed();
    for gate in [&gate, &second] {
        world
            .behind
            .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).times(1));
    }
    mount.rename("old.txt", "target.txt").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    mount.write("target.txt", b"newer").unwrap();
    world.delete("target.txt");
    gate.open();
    wait();
    assert_eq!(world.keys_there(), ["old.txt"]);
    second.open();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["target.txt"]);
}

#[test]
fn nothing_is_removed_there_when_what_should_come_first_has_lost_its_bytes() {
    for left in [None, Some(b"by".as_slice())] {
        let (world, mount, gate) = with_old(never());
        gate.open();
        mount.rename("old.txt", "new.txt").unwrap();
        mount.kill();
        let spool = world.spool("one");
        let number = notes_in(&spool)[0]["data"].as_u64().unwrap();
        let path = spool.join(format!("bytes/{number}"));
        match left {
            None => fs::remove_file(&path).unwrap(),
            Some(left) => fs::write(&path, left).unwrap(),
        }
        let mount = world.mount();
        mount.sync().unwrap();
        assert_eq!(world.keys_there(), ["old.txt"], "{left:?}");
        let kept = fs::read_to_string(spool.join("notes.bad")).unwrap();
        assert!(kept.contains("\"delete\""), "{kept}");
    }
}

/// Two edits of a record: the first was sent without an answer. Their notes, oldest first.
fn with_two_tries(world: &World, mount: &cached::Mount) -> Vec<Value> {
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::FailAfter(Kind::Io)).times(1));
    mount.write("a.txt", b"old").unwrap();
    until("the first is there", || world.there("a.txt").is_some());
    until("that is not known", || world.count(Verb::Put) == 1);
    std::thread::sleep(Duration::from_millis(50));
    mount.write("a.txt", b"new").unwrap();
    let notes = notes_in(&world.spool("one"));
    assert_eq!(notes.len(), 2);
    notes
}

// README: S115
#[test]
fn a_kill_while_edits_go_out_of_the_spool_leaves_the_newest_version_there() {
    let world = World::new();
    let slow = Options {
        backoff: Duration::from_millis(300),
        ..soon(1)
    };
    let mount = world.mount_with("one", slow);
    let notes = with_two_tries(&world, &mount);
    let newest = bytes_of(&world, &notes[1]);
    mount.sync().unwrap();
    mount.kill();
    // The older one goes first.
    lay(&world, &[&notes[1]], &newest);
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"new");
    assert_eq!(world.keys_there(), ["a.txt"]);
}

#[test]
fn a_kill_after_a_conflict_copy_was_saved_makes_no_second_one() {
    let world = World::new();
    world.put("a.txt", b"v0");
    let mount = world.mount_with("one", never());
    assert_eq!(mount.text("a.txt"), "v0");
    mount.write("a.txt", b"ours").unwrap();
    let note = notes_in(&world.spool("one")).remove(0);
    let bytes = bytes_of(&world, &note);
    world.put("a.txt", b"theirs");
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Io)).skip(1));
    let _ = mount.sync();
    let copy = notes_in(&world.spool("one"));
    assert_eq!(copy.len(), 1);
    mount.kill();
    world.behind.clear();
    lay(&world, &[&note, &copy[0]], &bytes);
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.keys_there().len(), 2, "{:?}", world.keys_there());
    assert_eq!(world.there("a.txt").unwrap(), b"theirs");
}

#[test]
fn a_conflict_copy_that_cannot_be_saved_leaves_the_edit_unsent() {
    let world = World::new();
    world.put("a.txt", b"v0");
    let mount = world.mount_with("one", soon(1));
    assert_eq!(mount.text("a.txt"), "v0");
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).times(1));
    mount.write("a.txt", b"ours").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    world.put("a.txt", b"their version");
    let (bytes, away) = {
        let spool = world.spool("one");
        (spool.join("bytes"), spool.join("away"))
    };
    fs::rename(&bytes, &away).unwrap();
    gate.open();
    wait();
    assert_eq!(mount.pending(), 1);
    assert_eq!(world.keys_there(), ["a.txt"]);
    fs::rename(&away, &bytes).unwrap();
    mount.sync().unwrap();
    let there = world.keys_there();
    assert_eq!(there.len(), 2, "{there:?}");
    assert_eq!(world.there(&there[0]).unwrap(), b"ours");
    assert_eq!(world.there("a.txt").unwrap(), b"their version");
}

// README: S120
#[test]
fn the_conflict_copy_of_an_input_has_a_name_that_every_server_takes() {
    let world = World::new();
    for key in ["INPUT", &"k".repeat(215)] {
        world.put(key, b"v0");
        let mount = world.mount_with("one", never());
        assert_eq!(mount.text(key), "v0");
        mount.write(key, b"ours").unwrap();
        world.put(key, b"theirs");
        mount.sync().unwrap();
        let mut there = world.keys_there();
        there.retain(|other| other != key && other.contains("conflict-"));
        assert_eq!(there.len(), 1, "{there:?}");
        assert!(
            there[0].len() <= 200 && !there[0].starts_with("INPUT."),
            "{there:?}"
        );
        world.delete(key);
        world.delete(&there[0]);
        drop(mount);
    }
}

#[test]
fn bytes_that_are_kept_never_take_the_place_of_others() {
    let world = World::new();
    let spool = world.spool("one");
    for round in 0..2 {
        let mount = world.mount_with("one", never());
        mount
            .write("a.txt", format!("round {round}").as_bytes())
            .unwrap();
        mount.kill();
        let number = notes_in(&spool)[0]["data"].as_u64().unwrap();
        fs::write(
            spool.join(format!("bytes/{number}")),
            format!("cut {round}"),
        )
        .unwrap();
        drop(world.mount_with("one", never()));
    }
    let bad = names_in(&spool).into_iter();
    let bad: Vec<_> = bad
        .filter(|it| it.ends_with(".bad") && it != "notes.bad")
        .collect();
    let mut kept: Vec<_> = bad
        .iter()
        .map(|it| fs::read_to_string(spool.join(it)).unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["cut 0", "cut 1"]);
}

#[test]
fn bytes_that_an_earlier_version_kept_beside_a_note_stay() {
    let world = World::new();
    let spool = world.spool("one");
    fs::create_dir_all(spool.join("drafts")).unwrap();
    fs::write(spool.join("0000000000000007.bad"), "{broken").unwrap();
    fs::write(spool.join("0000000000000007.data"), "kept bytes").unwrap();
    for _ in 0..2 {
        drop(world.mount());
        let kept = fs::read_to_string(spool.join("0000000000000007.data")).unwrap();
        assert_eq!(kept, "kept bytes");
    }
}
