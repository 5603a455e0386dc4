//! Clauses on the feed of a store's changes. Backends without one skip them.

use super::{World, kind, record, tag};
use std::time::Duration;
use storefs::backend::{ChangeEvent, ChangeKind, Feed, FeedPosition};
use storefs::error::Kind;
use storefs::record::key::StoreId;
use storefs::record::{ETag, Precondition, StoreName};

const TEXT: &str = "text/plain; charset=utf-8";

fn follow(world: &World, store: &StoreId, after: Option<FeedPosition>) -> Feed {
    world.wait(world.backend.changes(store, after)).unwrap()
}

/// The next change; a feed that tells nothing for long fails the test.
fn next(world: &World, feed: &mut Feed) -> Option<ChangeEvent> {
    let next = async { tokio::time::timeout(Duration::from_secs(10), feed.recv()).await };
    world.wait(next).expect("nothing was told")
}

fn shown(event: &ChangeEvent) -> (ChangeKind, Option<&str>, Option<ETag>) {
    let key = event.key.as_ref().map(|key| key.as_str());
    (event.kind, key, event.etag.clone())
}

pub fn a_feed_tells_every_change_in_order(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let store = world.store();
    world.put(&record(&store, "before"), b"x", TEXT);
    let mut feed = follow(world, &store, None);
    let a = world.put(&record(&store, "a"), b"1", TEXT);
    let b = world.put(&record(&store, "b"), b"2", "image/png");
    let again = world.put(&record(&store, "a"), b"33", TEXT);
    world
        .delete(&record(&store, "b"), Precondition::None)
        .unwrap();
    let wanted = [
        (ChangeKind::Put, Some("a"), Some(tag(&a))),
        (ChangeKind::Put, Some("b"), Some(tag(&b))),
        (ChangeKind::Put, Some("a"), Some(tag(&again))),
        (ChangeKind::Delete, Some("b"), None),
    ];
    let mut last: Option<FeedPosition> = None;
    for wanted in wanted {
        let event = next(world, &mut feed).unwrap();
        assert_eq!(shown(&event), wanted);
        if let Some(last) = last {
            assert_eq!(event.position.epoch, last.epoch);
            assert!(event.position.number > last.number);
        }
        last = Some(event.position);
    }
}

pub fn a_feed_goes_on_where_it_was_left(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let store = world.store();
    let mut feed = follow(world, &store, None);
    for n in 0..10 {
        world.put(&record(&store, &format!("k{n}")), b"x", TEXT);
    }
    let mut positions = Vec::new();
    for _ in 0..10 {
        positions.push(next(world, &mut feed).unwrap().position);
    }
    drop(feed);
    world.put(&record(&store, "missed"), b"x", TEXT);
    for (n, position) in positions.iter().enumerate() {
        let spelt: FeedPosition = position.to_string().parse().unwrap();
        assert_eq!(spelt, *position, "a position is what it prints");
        let mut feed = follow(world, &store, Some(spelt));
        let mut wanted: Vec<_> = (n + 1..10).map(|n| format!("k{n}")).collect();
        wanted.push("missed".to_owned());
        for key in wanted {
            let event = next(world, &mut feed).unwrap();
            assert_eq!(shown(&event).1, Some(&*key));
            assert_eq!(event.kind, ChangeKind::Put);
        }
    }
}

pub fn whoever_missed_too_much_is_told_to_look_again(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let store = world.store();
    let mut feed = follow(world, &store, None);
    world.put(&record(&store, "k"), b"x", TEXT);
    let known = next(world, &mut feed).unwrap().position;
    let unknown = [
        FeedPosition {
            epoch: known.epoch ^ 1,
            number: known.number,
        },
        FeedPosition {
            epoch: known.epoch,
            number: known.number + 1000,
        },
    ];
    for position in unknown {
        let mut feed = follow(world, &store, Some(position));
        let reset = next(world, &mut feed).unwrap();
        assert_eq!(shown(&reset), (ChangeKind::Reset, None, None));
        assert_eq!(reset.position.epoch, known.epoch);
        let meta = world.put(&record(&store, "k"), position.to_string().as_bytes(), TEXT);
        let event = next(world, &mut feed).unwrap();
        assert_eq!(
            shown(&event),
            (ChangeKind::Put, Some("k"), Some(tag(&meta)))
        );
    }
    for wrong in ["", "1", "x-1", "1-x", "-", "1-"] {
        assert_eq!(
            kind(wrong.parse::<FeedPosition>()),
            Kind::Invalid,
            "{wrong}"
        );
    }
}

pub fn every_listener_is_told(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let (store, other) = (world.store(), world.create("other").id);
    let mut feeds: Vec<Feed> = (0..5).map(|_| follow(world, &store, None)).collect();
    let mut elsewhere = follow(world, &other, None);
    let there = world.put(&record(&other, "there"), b"x", TEXT);
    let here = world.put(&record(&store, "here"), b"x", TEXT);
    for feed in &mut feeds {
        let event = next(world, feed).unwrap();
        assert_eq!(
            shown(&event),
            (ChangeKind::Put, Some("here"), Some(tag(&here)))
        );
    }
    let event = next(world, &mut elsewhere).unwrap();
    assert_eq!(
        shown(&event),
        (ChangeKind::Put, Some("there"), Some(tag(&there)))
    );
}

pub fn a_slow_listener_holds_nobody_back_and_misses_nothing_that_is_kept(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let store = world.store();
    let mut feed = follow(world, &store, None);
    for n in 0..300 {
        world.put(&record(&store, &format!("k{n:03}")), b"x", TEXT);
    }
    for n in 0..300 {
        let event = next(world, &mut feed).unwrap();
        assert_eq!(shown(&event).1, Some(&*format!("k{n:03}")));
    }
}

pub fn a_feed_ends_with_its_store(world: &World) {
    if !world.properties().change_feed {
        return;
    }
    let store = world.store();
    let mut feed = follow(world, &store, None);
    world.wait(world.backend.delete_store(&store)).unwrap();
    assert_eq!(next(world, &mut feed), None);
    let missing = StoreName::new("missing").unwrap();
    let kinds =
        [&store, &missing].map(|store| kind(world.wait(world.backend.changes(store, None))));
    assert_eq!(kinds, [Kind::StoreNotFound; 2]);
}
