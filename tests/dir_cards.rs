//! The cards of a folder's stores: an id stays with its store, whatever is done to the folder, and with no other one.
#![allow(clippy::unwrap_used)]

mod cards;

use cards::{OWNER, World, name};
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Barrier};
use storefs::backend::StoreRef;
use storefs::error::Kind;

#[test]
fn an_id_is_given_at_first_sight_and_kept_over_restarts() {
    let world = World::new(&["default", "shop"]);
    fs::write(world.store("shop").join("__metadata__.json"), "{}").unwrap();
    let before = world.snapshot();
    let first = world.all(&world.open());
    assert_eq!(first.len(), 2);
    for _ in 0..3 {
        assert_eq!(world.all(&world.open()), first);
    }
    for store in &first {
        assert!(store.created.is_some() && store.secret.is_some() && store.owner.is_none());
    }
    assert_eq!(world.snapshot(), before, "an SDK's file was touched");
}

#[test]
fn a_mount_alone_makes_no_cards() {
    let world = World::new(&["default"]);
    let folder = world.folder(false);
    let store = folder.create_store(&name("made"), 0o755).unwrap();
    let mut draft = folder.draft(0o644).unwrap();
    let any = storefs::backend::dir::CommitIf::Any;
    store.commit(&mut draft, "k", None, &any, true).unwrap();
    store.remove("k").unwrap();
    folder
        .rename_store(&name("made"), &name("renamed"), true)
        .unwrap();
    folder.remove_store(&name("renamed")).unwrap();
    assert!(!world.cards().exists());
}

#[test]
fn openings_that_see_a_store_first_at_the_same_time_agree_on_its_id() {
    for _ in 0..5 {
        let names: Vec<String> = (0..20).map(|n| format!("store-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let world = Arc::new(World::new(&names));
        let start = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (world, start) = (world.clone(), start.clone());
                let backend = world.open();
                std::thread::spawn(move || {
                    start.wait();
                    world.ids(&backend)
                })
            })
            .collect();
        let mut seen: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        seen.dedup();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].values().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(fs::read_dir(world.cards()).unwrap().count(), 20);
    }
}

#[test]
fn openings_that_make_a_store_at_the_same_time_make_one() {
    let world = Arc::new(World::new(&[]));
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (world, start) = (world.clone(), start.clone());
            let backend = world.open();
            std::thread::spawn(move || {
                start.wait();
                let called = ["shop", "SHOP"][n % 2];
                world.create(&backend, Some(OWNER), called).id
            })
        })
        .collect();
    let ids: BTreeSet<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn an_id_follows_a_rename_in_the_folder() {
    let world = World::new(&["old", "other"]);
    let running = world.open();
    let ids = world.ids(&running);
    world.put(&running, &ids["old"], "k").unwrap();
    fs::rename(world.store("old"), world.store("new")).unwrap();
    // The name that is free now goes to another store.
    fs::create_dir(world.store("old")).unwrap();
    for backend in [running, world.open()] {
        let moved = world.by_id(&backend, &ids["old"]).unwrap();
        assert_eq!(moved.name, Some(name("new")));
        let now = world.ids(&backend);
        assert_eq!((&now["new"], &now["other"]), (&ids["old"], &ids["other"]));
        assert_ne!(now["old"], ids["old"]);
        world.put(&backend, &ids["old"], "k2").unwrap();
    }
    assert!(world.store("new").join("k2.txt").exists() || world.store("new").join("k2").exists());
    assert_eq!(fs::read_dir(world.store("old")).unwrap().count(), 0);
}

#[test]
fn stores_that_swap_their_names_keep_their_ids() {
    let world = World::new(&["a", "b"]);
    let backend = world.open();
    let ids = world.ids(&backend);
    fs::rename(world.store("a"), world.store("c")).unwrap();
    fs::rename(world.store("b"), world.store("a")).unwrap();
    fs::rename(world.store("c"), world.store("b")).unwrap();
    for backend in [backend, world.open()] {
        let now = world.ids(&backend);
        assert_eq!((&now["a"], &now["b"]), (&ids["b"], &ids["a"]));
    }
}

#[test]
fn a_new_directory_never_gets_the_id_of_one_that_is_gone() {
    let world = World::new(&["keep"]);
    let backend = world.open();
    let mut seen = BTreeSet::new();
    for round in 0..30 {
        // The disk likes to give the same inode number again.
        let called = format!("store-{round}");
        fs::create_dir(world.store(&called)).unwrap();
        let id = world.named(&backend, &called).unwrap().id;
        assert!(seen.insert(id.clone()), "{called} got an id that was given");
        fs::remove_dir(world.store(&called)).unwrap();
        let gone = world.by_id(&backend, &id);
        assert_eq!(gone.unwrap_err().kind(), Kind::StoreNotFound);
    }
}

#[test]
fn a_store_that_an_sdk_purges_keeps_its_id() {
    let world = World::new(&["default"]);
    let backend = world.open();
    let id = world.ids(&backend)["default"].clone();
    world.put(&backend, &id, "k").unwrap();
    // As the JavaScript SDK does it.
    fs::rename(world.store("default"), world.store("__OLD_DEFAULT_0__")).unwrap();
    fs::create_dir(world.store("default")).unwrap();
    fs::remove_dir_all(world.store("__OLD_DEFAULT_0__")).unwrap();
    for backend in [backend, world.open()] {
        assert_eq!(world.named(&backend, "default").unwrap().id, id);
        world.put(&backend, &id, "k2").unwrap();
    }
    assert!(fs::read_dir(world.store("default")).unwrap().count() > 0);
}

#[test]
fn what_a_mount_does_to_stores_is_done_to_their_cards() {
    let world = World::new(&["default"]);
    let (backend, folder) = (world.open(), world.folder(false));
    let made = world.create(&backend, Some(OWNER), "shop").id;
    folder
        .rename_store(&name("shop"), &name("market"), true)
        .unwrap();
    let moved = world.by_id(&backend, &made).unwrap();
    assert_eq!(
        (moved.name, moved.owner.as_deref()),
        (Some(name("market")), Some(OWNER))
    );
    folder.remove_store(&name("market")).unwrap();
    assert_eq!(
        world.by_id(&backend, &made).unwrap_err().kind(),
        Kind::StoreNotFound
    );
    folder.create_store(&name("market"), 0o755).unwrap();
    let again = world.named(&backend, "market").unwrap();
    assert_ne!(again.id, made, "the store was removed and made again");
    assert_eq!(again.owner, None);
    // An empty store that another one is renamed over is gone.
    let other = world.create(&backend, None, "other").id;
    folder
        .rename_store(&name("other"), &name("market"), false)
        .unwrap();
    assert_eq!(
        world.by_id(&backend, &other).unwrap().name,
        Some(name("market"))
    );
    assert_eq!(
        world.by_id(&backend, &again.id).unwrap_err().kind(),
        Kind::StoreNotFound
    );
}

#[test]
fn the_second_owner_of_a_name_has_a_directory_named_as_the_id() {
    let world = World::new(&["shop"]);
    let backend = world.open();
    let mine = world.create(&backend, Some(OWNER), "Shop");
    assert_eq!(mine.name, Some(name("Shop")));
    assert!(world.store(mine.id.as_str()).is_dir());
    let reference = StoreRef::Name {
        owner: Some(OWNER.into()),
        name: name("shop"),
    };
    for backend in [backend, world.open()] {
        assert_eq!(world.find(&backend, reference.clone()).unwrap(), mine);
        assert_ne!(world.named(&backend, "shop").unwrap().id, mine.id);
    }
}
