//! What cards say, where they may be written, and files that only look like cards.
#![allow(clippy::unwrap_used)]

mod cards;

use cards::{World, name};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use storefs::backend::dir::DirBackend;
use storefs::backend::{Backend, NewStore, StoreChange};
use storefs::error::Kind;
use tempfile::TempDir;

#[test]
fn a_card_that_is_none_is_left_alone_and_stops_nothing() {
    let world = World::new(&["default", "shop"]);
    let outside = world.root.path().join("outside.json");
    fs::write(&outside, "untouched").unwrap();
    let ids = world.ids(&world.open());
    let card = |id: &str| world.cards().join(format!("{id}.json"));
    let good = fs::read_to_string(card(ids["shop"].as_str())).unwrap();
    let bad = |n: usize| format!("BAD0000000000000{n}");
    fs::write(card(&bad(0)), "{").unwrap();
    fs::write(card(&bad(1)), [0xff; 1000]).unwrap();
    fs::create_dir(card(&bad(2))).unwrap();
    symlink(&outside, card(&bad(3))).unwrap();
    fs::write(card(&bad(4)), "[".repeat(100_000)).unwrap();
    // Another store's id, and a directory that is none of ours.
    fs::write(card(&bad(5)), &good).unwrap();
    fs::write(
        card(&bad(6)),
        good.replace(ids["shop"].as_str(), &bad(6))
            .replace("\"dir\":\"shop\"", "\"dir\":\"../../outside\""),
    )
    .unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(card(&bad(7)))
        .status();
    assert!(fifo.unwrap().success());
    // A copy under an id of its own: the older card of a directory holds.
    let copy = good
        .replace(ids["shop"].as_str(), &bad(8))
        .replace("\"created\":1", "\"created\":2");
    fs::write(card(&bad(8)), copy).unwrap();
    fs::write(world.cards().join("notes.txt"), "a person's").unwrap();
    let backend = world.open();
    assert_eq!(world.ids(&backend), ids);
    for n in 0..9 {
        let id = name(&bad(n));
        assert_eq!(
            world.by_id(&backend, &id).unwrap_err().kind(),
            Kind::StoreNotFound,
            "{n}"
        );
        assert!(
            fs::symlink_metadata(card(&bad(n))).is_ok(),
            "{n} was removed"
        );
    }
    // The store whose card was broken gets another id and is served.
    fs::write(card(ids["shop"].as_str()), "").unwrap();
    let backend = world.open();
    let shop = world.named(&backend, "shop").unwrap();
    assert_eq!(
        shop.secret.is_some(),
        world.put(&backend, &shop.id, "k").is_ok()
    );
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}

#[test]
fn cards_are_never_looked_for_outside_of_the_folder() {
    let world = World::new(&["default"]);
    let outside = TempDir::new().unwrap();
    fs::create_dir(world.storage().join(".storefs")).unwrap();
    symlink(outside.path(), world.cards()).unwrap();
    let backend = world.open();
    let id = world.named(&backend, "default").unwrap().id;
    world.put(&backend, &id, "k").unwrap();
    assert_eq!(world.by_id(&backend, &id).unwrap().id, id);
    world.create(&backend, None, "made");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_only_read_shows_the_same_ids_each_time_and_is_not_written_to() {
    let world = World::new(&["default", "shop"]);
    let open = || DirBackend::new(world.folder(true));
    let (first, second) = (world.ids(&open()), world.ids(&open()));
    assert_eq!(first, second);
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 2);
    assert!(!world.storage().join(".storefs").exists());
    let backend = open();
    let refused = world
        .runtime
        .block_on(backend.create_store(NewStore::default()));
    assert_eq!(refused.unwrap_err().kind(), Kind::ReadOnly);
    let title = StoreChange {
        title: Some(Some("t".into())),
        ..StoreChange::default()
    };
    let refused = world
        .runtime
        .block_on(backend.update_store(&first["shop"], title));
    assert_eq!(refused.unwrap_err().kind(), Kind::ReadOnly);
    // Once the cards are there, they hold.
    let written = world.ids(&world.open());
    assert_eq!(world.ids(&open()), written);
}

#[test]
fn uses_of_two_openings_add_up() {
    let world = World::new(&["default"]);
    let (one, two) = (world.open(), world.open());
    let id = world.ids(&one)["default"].clone();
    for backend in [&one, &two] {
        for key in ["a", "b", "c"] {
            world.put(backend, &id, key).unwrap();
        }
        world.runtime.block_on(backend.flush()).unwrap();
        world.runtime.block_on(backend.flush()).unwrap();
    }
    let told = world.by_id(&world.open(), &id).unwrap();
    assert_eq!(told.counts.writes, 6);
    assert!(told.accessed.is_some());
}

#[test]
fn a_change_by_one_process_is_seen_by_the_other() {
    let world = World::new(&["default"]);
    let (one, two) = (world.open(), world.open());
    let id = world.ids(&one)["default"].clone();
    for title in ["first", "second", "third"] {
        let change = StoreChange {
            title: Some(Some(title.into())),
            ..StoreChange::default()
        };
        world
            .runtime
            .block_on(one.update_store(&id, change))
            .unwrap();
        assert_eq!(
            world.by_id(&two, &id).unwrap().title.as_deref(),
            Some(title)
        );
    }
}
