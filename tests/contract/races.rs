//! Clauses on preconditions, alone and among racing writers. Backends that check and write in two steps skip the races.

use super::{World, kind, noise, record, tag};
use std::io::Read;
use std::sync::{Arc, Barrier};
use storefs::backend::Backend;
use storefs::error::{Kind, Result};
use storefs::record::{Body, ContentType, Precondition, RecordId};

const BINARY: &str = "application/octet-stream";
const RACERS: u64 = 16;

/// Runs the same thing on 16 threads that start together.
fn race<T: Send + 'static>(
    world: &World,
    run: impl Fn(u64, Arc<dyn Backend>, tokio::runtime::Handle) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let start = Arc::new(Barrier::new(usize::try_from(RACERS).unwrap()));
    let threads: Vec<_> = (0..RACERS)
        .map(|n| {
            let (start, run) = (start.clone(), run.clone());
            let (backend, runtime) = (world.backend.clone(), world.runtime.handle().clone());
            std::thread::spawn(move || {
                start.wait();
                run(n, backend, runtime)
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// A racer's own bytes: of its own length too, so that a mixture cannot look like any of them.
fn bytes_of(racer: u64) -> Vec<u8> {
    noise(20_000 + usize::try_from(racer).unwrap() * 1000, racer + 100)
}

fn put_race(world: &World, id: &RecordId, only_if: Precondition) -> Vec<Result<()>> {
    let id = id.clone();
    race(world, move |n, backend, runtime| {
        let content_type = ContentType::stored(BINARY);
        let put = backend.put(&id, Body::from(bytes_of(n)), &content_type, only_if.clone());
        runtime.block_on(put).map(drop)
    })
}

/// Asserts that one racer won, that the others were told so, and returns the winner.
fn one_winner(results: &[Result<()>], losers: &[Kind]) -> u64 {
    let winners: Vec<_> = (0..)
        .zip(results)
        .filter(|(_, result)| result.is_ok())
        .collect();
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(losers.contains(&error.kind()), "{error:?}");
    }
    assert_eq!(winners.len(), 1, "{} winners", winners.len());
    winners[0].0
}

pub fn only_an_absent_record_is_created(world: &World) {
    let id = record(&world.store(), "new");
    let create = |bytes: &[u8]| world.try_put(&id, bytes, BINARY, Precondition::Absent);
    create(b"first").unwrap();
    assert_eq!(kind(create(b"second")), Kind::Changed);
    assert_eq!(world.get(&id).unwrap().0, b"first");
    world.delete(&id, Precondition::None).unwrap();
    create(b"third").unwrap();
    assert_eq!(world.get(&id).unwrap().0, b"third");
}

pub fn only_the_version_meant_is_replaced(world: &World) {
    let store = world.store();
    let id = record(&store, "edited");
    let first = world.put(&id, b"first", BINARY);
    let edit = |bytes: &[u8], base| world.try_put(&id, bytes, BINARY, Precondition::Match(base));
    let second = edit(b"second", tag(&first)).unwrap();
    assert_eq!(kind(edit(b"late", tag(&first))), Kind::Changed);
    assert_eq!(world.get(&id).unwrap().0, b"second");
    edit(b"third", tag(&second)).unwrap();
    assert_eq!(world.get(&id).unwrap().0, b"third");
    let missing = record(&store, "missing");
    let result = world.try_put(&missing, b"x", BINARY, Precondition::Match(tag(&second)));
    assert_eq!(kind(result), Kind::Changed);
    assert_eq!(kind(world.head(&missing)), Kind::NotFound);
}

pub fn only_the_version_meant_is_deleted(world: &World) {
    let id = record(&world.store(), "doomed");
    let first = tag(&world.put(&id, b"first", BINARY));
    let second = tag(&world.put(&id, b"second", BINARY));
    assert_eq!(
        kind(world.delete(&id, Precondition::Match(first))),
        Kind::Changed
    );
    assert_eq!(kind(world.delete(&id, Precondition::Absent)), Kind::Changed);
    assert_eq!(world.get(&id).unwrap().0, b"second");
    world
        .delete(&id, Precondition::Match(second.clone()))
        .unwrap();
    let again = world.delete(&id, Precondition::Match(second));
    assert_eq!(kind(again), Kind::NotFound);
}

pub fn of_16_creators_one_wins(world: &World) {
    if !world.properties().conditional_put {
        return;
    }
    let id = record(&world.store(), "raced");
    let results = put_race(world, &id, Precondition::Absent);
    let winner = one_winner(&results, &[Kind::Changed]);
    assert!(world.get(&id).unwrap().0 == bytes_of(winner));
}

pub fn of_16_editors_of_a_version_one_wins(world: &World) {
    if !world.properties().conditional_put {
        return;
    }
    let id = record(&world.store(), "raced");
    let base = tag(&world.put(&id, b"base", BINARY));
    let results = put_race(world, &id, Precondition::Match(base));
    let winner = one_winner(&results, &[Kind::Changed]);
    assert!(world.get(&id).unwrap().0 == bytes_of(winner));
}

pub fn of_16_deleters_one_wins(world: &World) {
    if !world.properties().conditional_put {
        return;
    }
    let id = record(&world.store(), "raced");
    let base = tag(&world.put(&id, b"base", BINARY));
    let target = id.clone();
    let results = race(world, move |_, backend, runtime| {
        runtime.block_on(backend.delete(&target, Precondition::Match(base.clone())))
    });
    one_winner(&results, &[Kind::Changed, Kind::NotFound]);
    assert_eq!(kind(world.head(&id)), Kind::NotFound);
}

pub fn racing_writers_leave_one_whole_record(world: &World) {
    let store = world.store();
    let id = record(&store, "raced");
    for result in put_race(world, &id, Precondition::None) {
        result.unwrap();
    }
    let (left, meta) = world.get(&id).unwrap();
    assert!((0..RACERS).any(|n| left == bytes_of(n)), "a mixture");
    assert_eq!(tag(&meta), tag(&world.head(&id).unwrap()));
    assert_eq!(world.keys(&store, Default::default()), ["raced"]);
}

pub fn no_increment_of_16_counters_is_lost(world: &World) {
    if !world.properties().conditional_put {
        return;
    }
    const EACH: u64 = 12;
    let id = record(&world.store(), "count");
    world.put(&id, b"0", "text/plain; charset=utf-8");
    let target = id.clone();
    race(world, move |_, backend, runtime| {
        for _ in 0..EACH {
            while !increment(&*backend, &runtime, &target) {}
        }
    });
    let count = String::from_utf8(world.get(&id).unwrap().0).unwrap();
    assert_eq!(count, (RACERS * EACH).to_string());
}

/// Adds one to the number in a record, if nobody else does so at the same time.
pub fn increment(backend: &dyn Backend, runtime: &tokio::runtime::Handle, id: &RecordId) -> bool {
    let mut fetched = runtime.block_on(backend.get(id, None)).unwrap();
    let mut text = String::new();
    fetched.bytes.read_to_string(&mut text).unwrap();
    let next = text.parse::<u64>().unwrap() + 1;
    let content_type = ContentType::stored("text/plain; charset=utf-8");
    let put = backend.put(
        id,
        Body::from(next.to_string().as_bytes()),
        &content_type,
        Precondition::Match(tag(&fetched.meta)),
    );
    match runtime.block_on(put) {
        Ok(_) => true,
        Err(error) if error.kind() == Kind::Changed => false,
        Err(error) => panic!("{error:?}"),
    }
}
