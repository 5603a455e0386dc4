//! Edits are saved here first and reach the backend in the background, with as few requests as can be.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, names_in, options, until};
use storefs::backend::faulty::{Fault, Rule, Verb};
use storefs::error::Kind;

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
    assert_eq!(names_in(&world.spool("one")), ["drafts", "lock"]);
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
