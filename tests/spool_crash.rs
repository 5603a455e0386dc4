//! A process that ends between any two steps of saving or sending: nothing that was accepted is lost, nothing is left over.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, names_in, notes_in, options};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

/// What is in a spool in which nothing waits.
const SPOOL: [&str; 3] = ["bytes", "lock", "notes"];

fn never() -> Options {
    Options {
        debounce: Duration::from_secs(3600),
        ..options()
    }
}

/// A world whose spool holds one edit, and where its bytes are.
fn with_one_edit() -> (World, PathBuf) {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("a.txt", b"bytes").unwrap();
    mount.kill();
    let spool = world.spool("one");
    let notes = notes_in(&spool);
    let number = notes[0]["data"].as_u64().unwrap();
    (world, spool.join(format!("bytes/{number}")))
}

fn add_to_notes(spool: &Path, text: &[u8]) {
    let notes = fs::OpenOptions::new()
        .append(true)
        .open(spool.join("notes"));
    notes.unwrap().write_all(text).unwrap();
}

#[test]
fn bytes_without_a_note_were_never_saved_and_are_removed() {
    let (world, bytes) = with_one_edit();
    fs::remove_file(world.spool("one").join("notes")).unwrap();
    assert!(bytes.exists());
    let mount = world.mount();
    assert!(!mount.exists("a.txt"));
    assert_eq!(names_in(&world.spool("one")), SPOOL);
}

#[test]
fn a_note_without_bytes_is_of_an_edit_that_was_sent() {
    let (world, bytes) = with_one_edit();
    // As after a power failure: the removal was on disk, and not yet that the line was struck out.
    fs::remove_file(bytes).unwrap();
    let mount = world.mount();
    assert!(!mount.exists("a.txt"));
    assert_eq!(mount.pending(), 0);
    assert_eq!(names_in(&world.spool("one")), SPOOL);
    assert_eq!(notes_in(&world.spool("one")).len(), 0);
}

#[test]
fn a_draft_and_a_note_without_an_end_were_never_saved() {
    let (world, _) = with_one_edit();
    let spool = world.spool("one");
    fs::write(spool.join("bytes/99"), b"half a record").unwrap();
    add_to_notes(&spool, br#"{"seq":100,"data":99,"store":"x","#);
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    assert_eq!(names_in(&spool), SPOOL);
    assert_eq!(notes_in(&spool).len(), 0);
}

#[test]
fn a_note_that_cannot_be_used_is_put_aside_with_its_bytes_and_the_rest_is_sent() {
    let (world, _) = with_one_edit();
    let spool = world.spool("one");
    let mut cut = notes_in(&spool).remove(0);
    cut["seq"] = 901.into();
    cut["data"] = 911.into();
    add_to_notes(&spool, format!("{cut}\n{{\"store\":\n").as_bytes());
    fs::write(spool.join("bytes/911"), b"cut").unwrap();
    fs::write(spool.join("bytes/912"), b"somebody's bytes").unwrap();
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    mount.kill();
    drop(world.mount());
    let left = names_in(&spool);
    let bad = ["911.bad", "912.bad"];
    assert_eq!(
        left,
        [bad[0], bad[1], "bytes", "lock", "notes", "notes.bad"]
    );
    assert_eq!(fs::read(spool.join(bad[1])).unwrap(), b"somebody's bytes");
    let kept = fs::read_to_string(spool.join("notes.bad")).unwrap();
    let kept: Vec<_> = kept.lines().collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.contains(&"{\"store\":") && kept.iter().any(|line| line.contains("901")));
}

#[test]
fn edits_that_each_have_a_file_for_their_note_are_sent() {
    let (world, bytes) = with_one_edit();
    let spool = world.spool("one");
    // How they were kept before there was one file for all notes.
    let mut note = notes_in(&spool).remove(0);
    note["seq"] = 7.into();
    note.as_object_mut().unwrap().remove("data");
    fs::write(spool.join("0000000000000007.json"), note.to_string()).unwrap();
    fs::rename(&bytes, spool.join("0000000000000007.data")).unwrap();
    fs::remove_file(spool.join("notes")).unwrap();
    fs::create_dir(spool.join("drafts")).unwrap();
    let mount = world.mount();
    assert_eq!(mount.text("a.txt"), "bytes");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    assert_eq!(names_in(&spool), SPOOL);
}

#[test]
fn an_old_note_that_is_of_another_edit_is_kept_with_the_bytes() {
    let (world, bytes) = with_one_edit();
    let spool = world.spool("one");
    let note = notes_in(&spool).remove(0);
    assert_ne!(note["seq"], 7);
    fs::write(spool.join("0000000000000007.json"), note.to_string()).unwrap();
    fs::rename(&bytes, spool.join("0000000000000007.data")).unwrap();
    fs::remove_file(spool.join("notes")).unwrap();
    fs::create_dir(spool.join("drafts")).unwrap();
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt"), None);
    assert_eq!(fs::read(spool.join("7.bad")).unwrap(), b"bytes");
    let kept = fs::read_to_string(spool.join("notes.bad")).unwrap();
    assert_eq!(kept, format!("{note}\n"));
}

#[test]
fn a_note_that_names_no_bytes_is_kept() {
    let (world, bytes) = with_one_edit();
    let spool = world.spool("one");
    let mut note = notes_in(&spool).remove(0);
    note.as_object_mut().unwrap().remove("data");
    fs::write(spool.join("notes"), format!("{note}\n")).unwrap();
    let mount = world.mount();
    assert!(!mount.exists("a.txt"));
    let kept = spool.join(bytes.file_name().unwrap());
    let kept = fs::read(kept.with_extension("bad")).unwrap();
    assert_eq!(kept, b"bytes");
    assert!(spool.join("notes.bad").exists());
}

#[test]
fn the_file_of_notes_does_not_grow_for_ever() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("first.txt", b"stays").unwrap();
    let notes = world.spool("one").join("notes");
    let mut largest = 0;
    for round in 0..6000 {
        mount.write("a.txt", format!("{round}").as_bytes()).unwrap();
        largest = largest.max(fs::metadata(&notes).unwrap().len());
    }
    let left = fs::metadata(&notes).unwrap().len();
    assert!(left < largest && largest < 1_500_000, "{left} {largest}");
    mount.kill();
    let mount = world.mount();
    assert_eq!(mount.text("first.txt"), "stays");
    assert_eq!(mount.text("a.txt"), "5999");
    mount.sync().unwrap();
    assert_eq!(fs::metadata(&notes).unwrap().len(), 0);
}

#[test]
fn a_kill_before_during_and_after_an_upload_loses_nothing_and_repeats_nothing_wrong() {
    type Make = fn(Gate) -> Fault;
    for make in [Fault::Hang as Make, Fault::HangAfter as Make] {
        let world = World::new();
        let mount = world.mount();
        let gate = Gate::closed();
        world
            .behind
            .add(Rule::on(Verb::Put, make(gate.clone())).times(1));
        mount.write("a.txt", b"first").unwrap();
        world.runtime.block_on(gate.until_arrived(1));
        mount.write("a.txt", b"second").unwrap();
        mount.kill();
        let mount = world.mount();
        assert_eq!(mount.text("a.txt"), "second");
        mount.sync().unwrap();
        assert_eq!(world.there("a.txt").unwrap(), b"second");
        assert_eq!(world.keys_there(), ["a.txt"]);
        assert_eq!(names_in(&world.spool("one")), SPOOL);
    }
}

#[test]
fn a_kill_between_the_two_halves_of_a_rename_leaves_both_names_or_the_new_one() {
    let world = World::new();
    world.put("old.txt", b"bytes");
    let mount = world.mount_with("one", never());
    mount.rename("old.txt", "new.txt").unwrap();
    assert_eq!(mount.list().unwrap(), ["new.txt"]);
    mount.kill();
    // The removal was saved last: without it both are there.
    let notes = world.spool("one").join("notes");
    let text = fs::read_to_string(&notes).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    fs::write(&notes, format!("{}\n", lines[0])).unwrap();
    let mount = world.mount();
    assert_eq!(mount.text("new.txt"), "bytes");
    assert_eq!(mount.text("old.txt"), "bytes");
}

#[test]
fn a_removal_survives_a_kill() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount_with("one", never());
    mount.remove("a.txt").unwrap();
    mount.kill();
    let mount = world.mount_with("one", never());
    assert!(!mount.exists("a.txt"));
    assert!(mount.list().unwrap().is_empty());
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt"), None);
}

#[test]
fn a_lost_index_costs_requests_and_nothing_else() {
    let (world, _) = with_one_edit();
    world.put("b.txt", b"there");
    let cache = world.cache("one");
    for name in names_in(&cache)
        .iter()
        .filter(|name| name.starts_with("index.db"))
    {
        fs::write(
            cache.join(name),
            b"this is no database, whatever it is called",
        )
        .unwrap();
    }
    let mount = world.mount();
    assert_eq!(mount.list().unwrap(), ["a.txt", "b.txt"]);
    assert_eq!(mount.text("a.txt"), "bytes");
    assert_eq!(mount.text("b.txt"), "there");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
}

#[test]
fn attributes_and_scratch_files_survive_a_kill() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    let change = storefs::fs::Change {
        mode: Some(0o600),
        modified: Some(Some(1_000_000_000_000_000_000)),
        ..storefs::fs::Change::default()
    };
    let attr = mount.set("a.txt", change).unwrap();
    assert_eq!(
        (attr.mode, attr.modified_ns),
        (0o600, 1_000_000_000_000_000_000)
    );
    mount.write(".#lock~", b"scratch").unwrap();
    mount.kill();
    let mount = world.mount();
    let attr = mount.look("a.txt").unwrap();
    assert_eq!(
        (attr.mode, attr.modified_ns),
        (0o600, 1_000_000_000_000_000_000)
    );
    assert_eq!(mount.text(".#lock~"), "scratch");
    assert_eq!(world.keys_there(), ["a.txt"]);
    assert_eq!(world.count(Verb::Put), 0);
}

#[test]
fn two_volumes_never_share_a_folder() {
    let world = World::new();
    let mount = world.mount();
    let handle = world.runtime.handle().clone();
    let (cache, spool) = (world.cache("one"), world.spool("other"));
    let open = |cache: &_, spool: &_| {
        let backend = world.behind.clone();
        storefs::volume::Cached::open(backend, cache, spool, options(), handle.clone())
    };
    let refused = open(&cache, &spool).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(
        refused
            .to_string()
            .contains("another storefs uses this folder"),
        "{refused}"
    );
    let refused = open(&world.cache("other"), &world.spool("one")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    drop(mount);
}

#[test]
fn files_of_the_volume_are_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (world, bytes) = with_one_edit();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let spool = world.spool("one");
    assert_eq!(mode(&spool), 0o700);
    assert_eq!(mode(&world.cache("one")), 0o700);
    assert_eq!(mode(&bytes), 0o600);
    assert_eq!(mode(&spool.join("notes")), 0o600);
}

#[test]
fn after_a_kill_an_edit_still_knows_the_version_that_it_was_made_on() {
    let world = World::new();
    let mount = world.mount();
    let first = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(first.clone())).times(1));
    mount.write("a.txt", b"first").unwrap();
    world.runtime.block_on(first.until_arrived(1));
    mount.write("a.txt", b"second").unwrap();
    // The first is taken, and the second made on it; that is on its way when the process ends.
    let second = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(second.clone())).times(1));
    first.open();
    world.runtime.block_on(second.until_arrived(1));
    assert_eq!(world.there("a.txt").unwrap(), b"first");
    mount.kill();
    world.put("a.txt", b"of somebody else");
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"of somebody else");
    let keys = world.keys_there();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let copy = keys.iter().find(|key| key.contains("conflict")).unwrap();
    assert_eq!(world.there(copy).unwrap(), b"second");
}

#[test]
fn a_rename_sends_the_new_name_first_also_when_that_is_written_again() {
    let world = World::new();
    world.put("old.txt", b"bytes");
    let mount = world.mount();
    assert_eq!(mount.text("old.txt"), "bytes");
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).times(1));
    mount.rename("old.txt", "new.txt").unwrap();
    mount.write("new.txt", b"newer").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    // The removal is due by now, and nothing is under the new name.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.keys_there(), ["old.txt"]);
    gate.open();
    mount.sync().unwrap();
    assert_eq!(world.keys_there(), ["new.txt"]);
    assert_eq!(world.there("new.txt").unwrap(), b"newer");
}
