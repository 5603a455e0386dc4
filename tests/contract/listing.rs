//! Clauses on listings: order, pages, prefixes.

use super::{World, assert_size, record};
use std::collections::BTreeSet;
use storefs::backend::ListQuery;
use storefs::record::key::StoreId;
use storefs::record::{Key, Precondition};

const KEYS: [&str; 14] = [
    "B", "a", "A", "a.b", "a-b", "a!", "a'", "(", "a0", "ab", "b.json", "a_b", "z", "a(1)",
];

fn filled(world: &World) -> (StoreId, Vec<String>) {
    let store = world.store();
    for key in KEYS {
        world.put(
            &record(&store, key),
            key.as_bytes(),
            "text/plain; charset=utf-8",
        );
    }
    let mut sorted: Vec<_> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    sorted.sort();
    (store, sorted)
}

pub fn keys_are_listed_in_byte_order(world: &World) {
    let (store, sorted) = filled(world);
    assert_eq!(world.keys(&store, ListQuery::default()), sorted);
}

pub fn pages_of_any_size_make_the_whole_listing(world: &World) {
    let (store, sorted) = filled(world);
    for limit in [1, 2, 3, KEYS.len() - 1, KEYS.len(), KEYS.len() + 1] {
        let query = ListQuery {
            limit,
            ..ListQuery::default()
        };
        assert_eq!(world.keys(&store, query), sorted, "in pages of {limit}");
    }
    let exact = ListQuery {
        limit: KEYS.len(),
        ..ListQuery::default()
    };
    let page = world.wait(world.backend.list(&store, exact)).unwrap();
    assert_eq!(page.next, None, "the last page says that it is the last");
}

pub fn a_prefix_and_a_start_narrow_the_listing(world: &World) {
    let (store, sorted) = filled(world);
    for prefix in ["", "a", "a.", "a!", "b", "zz", "A", "a.b", "(", "~"] {
        for after in [
            None,
            Some("a"),
            Some("a-"),
            Some("a.b"),
            Some("0"),
            Some("zzz"),
            Some("!"),
        ] {
            for limit in [2, 1000] {
                let query = ListQuery {
                    after: after.map(|after| Key::new(after).unwrap()),
                    prefix: prefix.to_owned(),
                    limit,
                };
                let wanted: Vec<_> = sorted
                    .iter()
                    .filter(|key| key.starts_with(prefix))
                    .filter(|key| after.is_none_or(|after| key.as_str() > after))
                    .cloned()
                    .collect();
                assert_eq!(
                    world.keys(&store, query),
                    wanted,
                    "{prefix:?} after {after:?}"
                );
            }
        }
    }
}

pub fn a_listing_tells_what_head_tells(world: &World) {
    let (store, _) = filled(world);
    let listed = world.backend.list(&store, ListQuery::default());
    for (key, meta) in world.wait(listed).unwrap().records {
        assert_size(world, &meta, key.as_str().len());
        let head = world.head(&record(&store, key.as_str())).unwrap();
        if world.properties().exact_sizes {
            assert_eq!(meta, head, "{key}");
            continue;
        }
        // What a listing does not tell it leaves out; what it tells is right.
        assert!(meta.etag.is_none() || meta.etag == head.etag, "{key}");
        assert!(
            meta.content_type.is_none() || meta.content_type == head.content_type,
            "{key}"
        );
        assert!(
            meta.modified.is_none() || meta.modified == head.modified,
            "{key}"
        );
    }
}

pub fn an_empty_store_has_no_keys(world: &World) {
    let store = world.store();
    let page = world.wait(world.backend.list(&store, ListQuery::default()));
    let page = page.unwrap();
    assert!(page.records.is_empty() && page.next.is_none());
}

pub fn a_listing_has_every_write_before_it(world: &World) {
    let store = world.store();
    let mut there = BTreeSet::new();
    let mut state = 7_u32;
    for round in 0..60 {
        for _ in 0..5 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = format!("k{}", (state >> 16) % 40);
            let id = record(&store, &key);
            if there.contains(&key) && state.is_multiple_of(3) {
                world.delete(&id, Precondition::None).unwrap();
                there.remove(&key);
            } else {
                world.put(&id, round.to_string().as_bytes(), "text/plain");
                there.insert(key);
            }
        }
        let query = ListQuery {
            limit: 7,
            ..ListQuery::default()
        };
        let wanted: Vec<_> = there.iter().cloned().collect();
        assert_eq!(world.keys(&store, query), wanted, "round {round}");
    }
}

pub fn a_store_made_again_is_listed_afresh(world: &World) {
    let (store, sorted) = filled(world);
    assert_eq!(world.keys(&store, ListQuery::default()), sorted);
    world.wait(world.backend.delete_store(&store)).unwrap();
    let again = world.store();
    world.put(&record(&again, "only"), b"x", "text/plain");
    assert_eq!(world.keys(&again, ListQuery::default()), ["only"]);
}
