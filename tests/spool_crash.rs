//! A process that ends between any two steps of saving or sending: nothing that was accepted is lost, nothing is left over.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, names_in, options};
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

/// A world whose spool holds one edit, and that edit's number.
fn with_one_edit() -> (World, String) {
    let world = World::new();
    let mount = world.mount_with("one", never());
    mount.write("a.txt", b"bytes").unwrap();
    mount.kill();
    let names = names_in(&world.spool("one"));
    let note = names.iter().find(|name| name.ends_with(".json")).unwrap();
    let number = note.trim_end_matches(".json").to_owned();
    (world, number)
}

#[test]
fn bytes_without_a_note_were_never_saved_and_are_removed() {
    let (world, number) = with_one_edit();
    fs::remove_file(world.spool("one").join(format!("{number}.json"))).unwrap();
    let mount = world.mount();
    assert!(!mount.exists("a.txt"));
    assert_eq!(names_in(&world.spool("one")), ["drafts", "lock"]);
}

#[test]
fn a_draft_and_a_note_under_a_temporary_name_are_removed() {
    let (world, _) = with_one_edit();
    let drafts = world.spool("one").join("drafts");
    fs::write(drafts.join("99"), b"half a note").unwrap();
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    let left: Vec<_> = fs::read_dir(&drafts).unwrap().map(Result::unwrap).collect();
    // The file of a note that is not needed any more may be there, to be used for another.
    assert!(
        left.iter()
            .all(|entry| fs::read(entry.path()).unwrap() != b"half a note")
    );
}

#[test]
fn a_note_that_cannot_be_read_is_put_aside_with_its_bytes_and_the_rest_is_sent() {
    let (world, number) = with_one_edit();
    let spool = world.spool("one");
    fs::write(spool.join("0000000000000900.json"), b"{\"store\":").unwrap();
    fs::write(spool.join("0000000000000900.data"), b"somebody's bytes").unwrap();
    fs::copy(
        spool.join(format!("{number}.json")),
        spool.join("0000000000000901.json"),
    )
    .unwrap();
    fs::write(spool.join("0000000000000901.data"), b"cut").unwrap();
    let mount = world.mount();
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"bytes");
    let left = names_in(&spool);
    for name in [
        "0000000000000900.bad",
        "0000000000000900.data",
        "0000000000000901.bad",
    ] {
        assert!(left.contains(&name.to_owned()), "{left:?}");
    }
    mount.kill();
    drop(world.mount());
    assert_eq!(
        fs::read(spool.join("0000000000000900.data")).unwrap(),
        b"somebody's bytes"
    );
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
        assert_eq!(names_in(&world.spool("one")), ["drafts", "lock"]);
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
    let spool = world.spool("one");
    let notes: Vec<_> = names_in(&spool)
        .into_iter()
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(notes.len(), 2);
    fs::remove_file(spool.join(&notes[1])).unwrap();
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
    let (world, number) = with_one_edit();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let spool = world.spool("one");
    assert_eq!(mode(&spool), 0o700);
    assert_eq!(mode(&world.cache("one")), 0o700);
    for end in ["data", "json"] {
        assert_eq!(mode(&spool.join(format!("{number}.{end}"))), 0o600, "{end}");
    }
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
