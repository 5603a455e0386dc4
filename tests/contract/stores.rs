//! Clauses on stores: making, finding, renaming, deleting.

use super::{World, kind, record};
use storefs::backend::{ListQuery, NewStore, StoreChange, StoreRef};
use storefs::error::Kind;
use storefs::record::key::StoreId;
use storefs::record::{Precondition, StoreName};

fn name(name: &str) -> StoreName {
    StoreName::new(name).unwrap()
}

fn renamed(to: &str) -> StoreChange {
    StoreChange::rename(name(to))
}

/// All stores, page by page.
fn all(world: &World) -> Vec<StoreId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = world.wait(world.backend.stores(after.as_ref())).unwrap();
        ids.extend(page.stores.into_iter().map(|store| store.id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

pub fn a_store_that_is_missing_is_said_to_be_missing(world: &World) {
    let missing = name("missing");
    let id = record(&missing, "k");
    let backend = &world.backend;
    let kinds = [
        kind(world.wait(backend.store(&StoreRef::Id(missing.clone())))),
        kind(world.wait(backend.store(&StoreRef::name(missing.clone())))),
        kind(world.wait(backend.list(&missing, ListQuery::default()))),
        kind(world.wait(backend.update_store(&missing, renamed("other")))),
        kind(world.wait(backend.delete_store(&missing))),
        kind(world.head(&id)),
        kind(world.get(&id)),
        kind(world.try_put(&id, b"x", "text/plain", Precondition::None)),
        kind(world.delete(&id, Precondition::None)),
    ];
    assert_eq!(kinds, [Kind::StoreNotFound; 9]);
    assert!(all(world).is_empty(), "asking made a store");
}

pub fn creating_a_store_twice_gives_the_same_store(world: &World) {
    let first = world.create("twice");
    world.put(
        &record(&first.id, "k"),
        b"kept",
        "text/plain; charset=utf-8",
    );
    let second = world.create("twice");
    assert_eq!((&first.id, &first.name), (&second.id, &second.name));
    assert_eq!(first.name, Some(name("twice")));
    assert_eq!(world.get(&record(&second.id, "k")).unwrap().0, b"kept");
    for reference in [
        StoreRef::Id(first.id.clone()),
        StoreRef::name(name("twice")),
    ] {
        let found = world.wait(world.backend.store(&reference)).unwrap();
        assert_eq!((&found.id, &found.name), (&first.id, &first.name));
    }
}

pub fn stores_are_listed_once_in_order(world: &World) {
    let mut made: Vec<_> = ["default", "b", "a.b", "A", "my-store-2", "a-b"]
        .map(|name| world.create(name).id)
        .into();
    made.sort();
    assert_eq!(all(world), made);
    let page = world.wait(world.backend.stores(Some(&made[2]))).unwrap();
    let rest: Vec<_> = page.stores.into_iter().map(|store| store.id).collect();
    assert_eq!(rest, made[3..]);
}

pub fn a_renamed_store_keeps_its_records(world: &World) {
    let old = world.create("old");
    world.put(&record(&old.id, "k"), b"kept", "text/html; charset=utf-8");
    let update = world.backend.update_store(&old.id, renamed("new"));
    let new = world.wait(update).unwrap();
    assert_eq!(new.name, Some(name("new")));
    let (bytes, meta) = world.get(&record(&new.id, "k")).unwrap();
    assert_eq!(bytes, b"kept");
    assert_eq!(
        meta.content_type.unwrap().as_str(),
        "text/html; charset=utf-8"
    );
    let gone = StoreRef::name(name("old"));
    assert_eq!(
        kind(world.wait(world.backend.store(&gone))),
        Kind::StoreNotFound
    );
    let same = world.backend.update_store(&new.id, StoreChange::default());
    assert_eq!(world.wait(same).unwrap().name, new.name);
    let again = world.backend.update_store(&new.id, renamed("new"));
    assert_eq!(
        world.wait(again).unwrap().name,
        new.name,
        "a rename onto itself"
    );
}

pub fn a_taken_name_is_refused(world: &World) {
    let one = world.create("one").id;
    let two = world.create("two").id;
    world.put(&record(&one, "k"), b"1", "text/plain; charset=utf-8");
    world.put(&record(&two, "k"), b"2", "text/plain; charset=utf-8");
    let update = world.backend.update_store(&one, renamed("two"));
    assert_eq!(kind(world.wait(update)), Kind::Exists);
    assert_eq!(world.get(&record(&one, "k")).unwrap().0, b"1");
    assert_eq!(world.get(&record(&two, "k")).unwrap().0, b"2");
}

pub fn a_deleted_store_takes_its_records_along(world: &World) {
    let id = world.create("doomed").id;
    let kept = world.create("kept").id;
    for n in 0..5 {
        world.put(&record(&id, &format!("k{n}")), b"x", "image/png");
    }
    world.wait(world.backend.delete_store(&id)).unwrap();
    assert_eq!(all(world), [kept]);
    assert_eq!(kind(world.get(&record(&id, "k0"))), Kind::StoreNotFound);
    let again = world.create("doomed").id;
    assert!(world.keys(&again, ListQuery::default()).is_empty());
}

pub fn unnamed_stores_are_reached_by_id(world: &World) {
    let make = || {
        let made = world.backend.create_store(NewStore::default());
        world.wait(made).unwrap().0
    };
    let (one, two) = (make(), make());
    assert_ne!(one.id, two.id);
    for store in [&one, &two] {
        // On a disk a directory has a name in any case; then it is the id.
        let name = store.name.as_ref();
        assert!(name.is_none_or(|name| *name == store.id));
    }
    world.put(&record(&one.id, "k"), b"1", "text/plain; charset=utf-8");
    assert_eq!(world.get(&record(&one.id, "k")).unwrap().0, b"1");
    assert!(world.keys(&two.id, ListQuery::default()).is_empty());
    let found = world.wait(world.backend.store(&StoreRef::Id(one.id.clone())));
    assert_eq!(found.unwrap().id, one.id);
    let named = world.backend.update_store(&one.id, renamed("christened"));
    let named = world.wait(named).unwrap();
    assert_eq!(named.name, Some(name("christened")));
    assert_eq!(world.get(&record(&named.id, "k")).unwrap().0, b"1");
}
