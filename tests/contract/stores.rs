//! Clauses on stores: making, finding, renaming, deleting.

use super::{World, kind, record};
use storefs::backend::{ListQuery, NewStore, StoreChange, StoreInfo, StoreRef};
use storefs::error::{Kind, Result};
use storefs::record::key::StoreId;
use storefs::record::store::is_api_id;
use storefs::record::{Access, Precondition, StoreName};

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
    let third = if world.remote { "a-0" } else { "a.b" };
    let mut made: Vec<_> = ["default", "b", third, "A", "my-store-2", "a-b"]
        .map(|name| world.create(name).id)
        .into();
    made.sort();
    assert_eq!(all(world), made);
    let page = world.wait(world.backend.stores(Some(&made[2]))).unwrap();
    let rest: Vec<_> = page.stores.into_iter().map(|store| store.id).collect();
    assert_eq!(rest, made[3..]);
}

/// All that is told of a store.
fn info(world: &World, id: &StoreId) -> StoreInfo {
    let reference = StoreRef::Id(id.clone());
    world.wait(world.backend.store(&reference)).unwrap()
}

fn by_name(world: &World, owner: Option<&str>, wanted: &str) -> Result<StoreId> {
    let reference = StoreRef::Name {
        owner: owner.map(str::to_owned),
        name: name(wanted),
    };
    let found = world.wait(world.backend.store(&reference));
    found.map(|store| store.id)
}

fn make(world: &World, owner: Option<&str>, called: Option<&str>) -> (StoreInfo, bool) {
    let new = NewStore {
        name: called.map(name),
        owner: owner.map(str::to_owned),
        ..NewStore::default()
    };
    world.wait(world.backend.create_store(new)).unwrap()
}

fn update(world: &World, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
    world.wait(world.backend.update_store(id, change))
}

pub fn a_renamed_store_keeps_its_id_and_its_records(world: &World) {
    let id = world.create("old").id;
    world.put(&record(&id, "k"), b"kept", "text/html; charset=utf-8");
    let new = update(world, &id, renamed("new")).unwrap();
    assert_eq!((new.id.clone(), new.name), (id.clone(), Some(name("new"))));
    let (bytes, meta) = world.get(&record(&id, "k")).unwrap();
    assert_eq!(bytes, b"kept");
    assert_eq!(
        meta.content_type.unwrap().as_str(),
        "text/html; charset=utf-8"
    );
    assert_eq!(kind(by_name(world, None, "old")), Kind::StoreNotFound);
    assert_eq!(by_name(world, None, "new").unwrap(), id);
    let same = update(world, &id, StoreChange::default()).unwrap();
    assert_eq!(same.name, Some(name("new")));
    let again = update(world, &id, renamed("new")).unwrap();
    assert_eq!(again.name, Some(name("new")), "a rename onto itself");
    let respelt = update(world, &id, renamed("NEW")).unwrap();
    assert_eq!(respelt.name, Some(name("NEW")));
    assert_eq!(world.get(&record(&id, "k")).unwrap().0, b"kept");
}

pub fn a_taken_name_is_refused(world: &World) {
    let one = world.create("one").id;
    let two = world.create("two").id;
    world.put(&record(&one, "k"), b"1", "text/plain; charset=utf-8");
    world.put(&record(&two, "k"), b"2", "text/plain; charset=utf-8");
    for taken in ["two", "Two"] {
        let refused = update(world, &one, renamed(taken));
        assert_eq!(kind(refused), Kind::Exists, "{taken}");
    }
    assert_eq!(info(world, &one).name, Some(name("one")));
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
    assert_ne!(again, id, "an id is never given again");
    assert!(world.keys(&again, ListQuery::default()).is_empty());
    assert_eq!(kind(world.get(&record(&id, "k0"))), Kind::StoreNotFound);
}

pub fn unnamed_stores_are_reached_by_id(world: &World) {
    let (one, two) = (make(world, None, None), make(world, None, None));
    assert!(one.1 && two.1, "each is a new one");
    let (one, two) = (one.0, two.0);
    assert_ne!(one.id, two.id);
    assert_eq!((&one.name, &two.name), (&None, &None));
    world.put(&record(&one.id, "k"), b"1", "text/plain; charset=utf-8");
    assert_eq!(world.get(&record(&one.id, "k")).unwrap().0, b"1");
    assert!(world.keys(&two.id, ListQuery::default()).is_empty());
    assert_eq!(info(world, &one.id).id, one.id);
    let named = update(world, &one.id, renamed("christened")).unwrap();
    assert_eq!(
        (named.id, named.name),
        (one.id.clone(), Some(name("christened")))
    );
    assert_eq!(world.get(&record(&one.id, "k")).unwrap().0, b"1");
    let unnamed = StoreChange {
        name: Some(None),
        ..StoreChange::default()
    };
    assert_eq!(update(world, &one.id, unnamed).unwrap().name, None);
    assert_eq!(
        kind(by_name(world, None, "christened")),
        Kind::StoreNotFound
    );
    assert_eq!(world.get(&record(&one.id, "k")).unwrap().0, b"1");
}

pub fn ids_are_spelt_as_the_platform_spells_them(world: &World) {
    let owner = (!world.remote).then_some("aB3dE5gH7jK9mN1pQ");
    let ids = [
        make(world, None, Some("default")).0.id,
        make(world, None, None).0.id,
        make(world, owner, Some("mine")).0.id,
    ];
    for id in &ids {
        assert!(is_api_id(id.as_str()), "{id}");
    }
}

pub fn a_name_is_one_name_in_any_letter_case(world: &World) {
    let (made, new) = make(world, None, Some("Shop"));
    assert!(new);
    let (again, new) = make(world, None, Some("sHOP"));
    assert!(!new, "it is the same store");
    assert_eq!((&again.id, &again.name), (&made.id, &Some(name("Shop"))));
    assert_eq!(by_name(world, None, "SHOP").unwrap(), made.id);
}

pub fn two_owners_may_have_stores_of_one_name(world: &World) {
    if world.remote {
        let new = NewStore {
            name: Some(name("shared")),
            owner: Some("aB3dE5gH7jK9mN1pQ".to_owned()),
            ..NewStore::default()
        };
        let refused = world.wait(world.backend.create_store(new));
        assert_eq!(kind(refused), Kind::NotPermitted);
        return;
    }
    let owners = [None, Some("aB3dE5gH7jK9mN1pQ"), Some("zZ3dE5gH7jK9mN1pQ")];
    let ids = owners.map(|owner| {
        let (made, new) = make(world, owner, Some("shared"));
        assert!(new);
        assert_eq!(
            (made.owner.as_deref(), made.name),
            (owner, Some(name("shared")))
        );
        let value = owner.unwrap_or("nobody");
        world.put(&record(&made.id, "k"), value.as_bytes(), "text/plain");
        made.id
    });
    for (owner, id) in owners.iter().zip(&ids) {
        assert_eq!(by_name(world, *owner, "shared").unwrap(), *id);
        let value = owner.unwrap_or("nobody").as_bytes();
        assert_eq!(world.get(&record(id, "k")).unwrap().0, value);
        assert_eq!(make(world, *owner, Some("SHARED")).0.id, *id);
    }
    let stranger = by_name(world, Some("qQ3dE5gH7jK9mN1pQ"), "shared");
    assert_eq!(kind(stranger), Kind::StoreNotFound);
    // Where one leaves the name, the others keep it.
    update(world, &ids[0], renamed("left")).unwrap();
    assert_eq!(by_name(world, owners[1], "shared").unwrap(), ids[1]);
    let back = update(world, &ids[0], renamed("shared")).unwrap();
    assert_eq!(back.name, Some(name("shared")));
}

pub fn what_is_said_of_a_store_is_kept(world: &World) {
    let schema = serde_json::json!({"collections": {"images": {"keyPrefix": "image-"}}});
    // The API has no way to say these.
    let id = |id: &str| (!world.remote).then(|| id.to_owned());
    let new = NewStore {
        name: Some(name("described")),
        owner: id("aB3dE5gH7jK9mN1pQ"),
        schema: Some(schema.clone()),
        run: id("rU3dE5gH7jK9mN1pQ"),
        actor: id("aC3dE5gH7jK9mN1pQ"),
    };
    let made = world.wait(world.backend.create_store(new)).unwrap().0;
    let told = info(world, &made.id);
    assert_eq!(told, made);
    assert_eq!(told.owner, id("aB3dE5gH7jK9mN1pQ"));
    assert_eq!(told.run, id("rU3dE5gH7jK9mN1pQ"));
    assert_eq!(told.actor, id("aC3dE5gH7jK9mN1pQ"));
    assert_eq!(told.schema, Some(schema));
    assert_eq!(told.access, Access::FollowUser);
    assert!(
        told.secret
            .as_ref()
            .is_some_and(|secret| secret.len() >= 20)
    );
    assert!(told.created.is_some() && told.modified >= told.created);
    let change = StoreChange {
        title: Some(Some("What people call it".into())),
        access: Some(Access::AnyoneWithName),
        schema: Some(None),
        name: None,
    };
    let changed = update(world, &made.id, change).unwrap();
    assert_eq!(changed.title.as_deref(), Some("What people call it"));
    assert_eq!(changed.access, Access::AnyoneWithName);
    assert_eq!((&changed.schema, &changed.name), (&None, &told.name));
    assert_eq!(
        (&changed.secret, &changed.owner),
        (&told.secret, &told.owner)
    );
    let untitled = StoreChange {
        title: Some(None),
        ..StoreChange::default()
    };
    let untitled = update(world, &made.id, untitled).unwrap();
    assert_eq!(
        (untitled.title, untitled.access),
        (None, Access::AnyoneWithName)
    );
}

pub fn uses_are_counted(world: &World) {
    let id = world.store();
    world.put(&record(&id, "a"), b"1", "text/plain");
    world.put(&record(&id, "b"), b"2", "text/plain");
    world.get(&record(&id, "a")).unwrap();
    world.delete(&record(&id, "a"), Precondition::None).unwrap();
    world.keys(&id, ListQuery::default());
    let told = info(world, &id);
    let counts = told.counts;
    assert_eq!(
        [counts.reads, counts.writes, counts.deletes, counts.lists],
        [1, 2, 1, 1]
    );
    assert!(told.accessed >= told.created);
}
