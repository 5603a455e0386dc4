//! Reading records that are not here yet: at once, no more than is needed, and one version only.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::bare::Bare;
use cached::{World, names_in, options, until};
use std::sync::Arc;
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

const BIG: usize = 12 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8).collect()
}

#[test]
fn a_long_record_is_read_from_its_start_without_waiting_for_its_end() {
    let world = World::new();
    world.put("big.bin", &pattern(BIG));
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend.clone(), "one", options());
    let handle = mount.open("big.bin", libc::O_RDONLY).unwrap();
    assert_eq!(mount.read_at(handle, 0, 1000).unwrap(), pattern(1000));
    assert!(backend.asked() <= 4 << 20, "{}", backend.asked());
    mount.close(handle).unwrap();
}

#[test]
fn the_tail_of_a_long_record_does_not_fetch_the_rest() {
    let world = World::new();
    world.put("big.bin", &pattern(BIG));
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend.clone(), "one", options());
    assert_eq!(mount.look("big.bin").unwrap().size, BIG as u64);
    let handle = mount.open("big.bin", libc::O_RDONLY).unwrap();
    let tail = mount.read_at(handle, BIG as u64 - 1000, 4096).unwrap();
    assert_eq!(tail, pattern(BIG)[BIG - 1000..]);
    assert!(backend.asked() <= 2 << 20, "{}", backend.asked());
    mount.close(handle).unwrap();
}

#[test]
fn to_read_on_to_the_end_fetches_every_byte_once_and_keeps_them() {
    let world = World::new();
    world.put("big.bin", &pattern(BIG));
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend.clone(), "one", options());
    assert!(mount.read("big.bin").unwrap() == pattern(BIG));
    assert_eq!(backend.asked(), BIG as u64);
    assert!(mount.read("big.bin").unwrap() == pattern(BIG));
    assert_eq!(backend.asked(), BIG as u64);
    mount.kill();
    let mount = world.mount_over(backend.clone(), "one", options());
    assert!(mount.read("big.bin").unwrap() == pattern(BIG));
    assert_eq!(backend.asked(), BIG as u64);
}

#[test]
fn who_stops_reading_on_gets_little_more_and_can_read_elsewhere_at_once() {
    const HUGE: usize = 160 << 20;
    const READ: usize = 12 << 20;
    let world = World::new();
    let bytes = pattern(HUGE);
    world.put("huge.bin", &bytes);
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend.clone(), "one", options());
    let handle = mount.open("huge.bin", libc::O_RDONLY).unwrap();
    for at in (0..READ).step_by(1 << 20) {
        let piece = mount.read_at(handle, at as u64, 1 << 20).unwrap();
        assert!(piece == bytes[at..at + (1 << 20)]);
    }
    // The rest was asked for, and waits.
    assert!(backend.asked() >= HUGE as u64);
    let far = HUGE - (1 << 20);
    assert!(mount.read_at(handle, far as u64, 1000).unwrap() == bytes[far..far + 1000]);
    let cached = mount.volume_status()["cachedBytes"].as_u64().unwrap();
    assert!(cached < (READ + (40 << 20)) as u64, "{cached}");
    // Whoever comes back to it finds it, however long it waited.
    let middle = HUGE / 2;
    for at in (middle..middle + READ).step_by(1 << 20) {
        let piece = mount.read_at(handle, at as u64, 1 << 20).unwrap();
        assert!(piece == bytes[at..at + (1 << 20)]);
    }
    mount.close(handle).unwrap();
    assert!(mount.read("huge.bin").unwrap() == bytes);
    assert_eq!(mount.volume_status()["cachedBytes"], HUGE as u64);
}

// README: S113
#[test]
fn short_records_that_are_read_in_order_are_fetched_before_they_are_opened() {
    let world = World::new();
    let keys: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        world.put(key, key.as_bytes());
    }
    world.put("l-long", &pattern(100_000));
    let mount = world.mount();
    assert_eq!(mount.list().unwrap().len(), 61);
    let fetched = || world.count(Verb::Get);
    for key in ["k09", "k50", "k30", "k31"] {
        assert_eq!(mount.read(key).unwrap(), key.as_bytes());
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fetched(), 4, "who jumps about gets what he opens");
    mount.read("k32").unwrap();
    until("the next ones come by themselves", || fetched() == 7);
    for key in &keys[33..] {
        assert_eq!(mount.read(key).unwrap(), key.as_bytes());
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fetched(), 31, "each once, and the long one not at all");
    // What changed meanwhile is not shown as it was.
    for key in &keys[..3] {
        mount.read(key).unwrap();
    }
    until("the next ones come", || fetched() == 36);
    world.put("k03", b"changed");
    until("the new version is read", || {
        mount.read("k03").unwrap() == b"changed"
    });
}

// README: S113
#[test]
fn short_records_that_are_read_by_their_numbers_are_fetched_before_they_are_opened() {
    let world = World::new();
    for n in 1..=30 {
        world.put(&format!("page-{n}.html"), b"x");
    }
    let mount = world.mount();
    assert_eq!(mount.list().unwrap().len(), 30);
    let fetched = || world.count(Verb::Get);
    for n in 1..=30 {
        mount.read(&format!("page-{n}.html")).unwrap();
        if n == 8 {
            until("those with the next numbers come", || fetched() == 30);
        }
    }
    assert_eq!(fetched(), 30);
}

#[test]
fn many_readers_of_one_record_share_what_is_fetched() {
    let world = World::new();
    world.put("big.bin", &pattern(BIG));
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend.clone(), "one", options());
    let expected = pattern(BIG);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(mount.read("big.bin").unwrap() == expected));
        }
    });
    assert_eq!(backend.asked(), BIG as u64);
}

#[test]
fn a_body_that_breaks_off_is_fetched_on_from_there() {
    let world = World::new();
    world.put("a.bin", &pattern(100_000));
    let mount = world.mount();
    for left in [0, 1, 30_000, 70_000] {
        world
            .behind
            .add(Rule::on(Verb::Get, Fault::BreakOff(left)).times(1));
    }
    assert!(mount.read("a.bin").unwrap() == pattern(100_000));
}

#[test]
fn a_version_that_goes_while_it_is_read_is_stale_and_never_mixed() {
    let world = World::new();
    world.put("big.bin", &pattern(BIG));
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend, "one", options());
    let handle = mount.open("big.bin", libc::O_RDONLY).unwrap();
    mount.read_at(handle, 0, 1000).unwrap();
    world.put("big.bin", &vec![7; BIG]);
    assert_eq!(
        mount.read_at(handle, BIG as u64 - 1000, 1000),
        Err(Kind::Stale)
    );
    assert_eq!(mount.read_at(handle, 0, 1000).unwrap(), pattern(1000));
    mount.close(handle).unwrap();
    until("the new version is read", || {
        let handle = mount.open("big.bin", libc::O_RDONLY).unwrap();
        let read = mount.read_at(handle, 0, 10);
        mount.close(handle).unwrap();
        read == Ok(vec![7; 10])
    });
}

#[test]
fn without_ranges_and_sizes_a_record_is_whole_when_it_is_open() {
    let world = World::new();
    world.put_as("a.json", b"{\"a\": 1}", "application/json; charset=utf-8");
    let backend = Arc::new(Bare::new(&world.behind, false));
    let mount = world.mount_over(backend, "one", options());
    assert_eq!(mount.list().unwrap(), ["a.json"]);
    assert_eq!(mount.text("a.json"), "{\"a\": 1}");
    assert_eq!(mount.look("a.json").unwrap().size, 8);
    assert_eq!(
        mount.attribute("a.json", "user.mime_type").unwrap(),
        "application/json; charset=utf-8"
    );
    mount.write("a.json", b"{\"b\": 2}").unwrap();
    mount.sync().unwrap();
    assert_eq!(
        world.type_there("a.json"),
        "application/json; charset=utf-8"
    );
    world.put_as("a.json", b"{\"c\": 3}", "application/json; charset=utf-8");
    until("the change is seen", || {
        mount.read("a.json") == Ok(b"{\"c\": 3}".to_vec())
    });
}

#[test]
fn without_conditions_a_conflict_is_looked_for_before_writing() {
    let world = World::new();
    world.put("a.txt", b"base");
    let slow = Options {
        debounce: Duration::from_secs(60),
        ..options()
    };
    let backend = Arc::new(Bare::new(&world.behind, false));
    let mount = world.mount_over(backend, "one", slow);
    assert_eq!(mount.text("a.txt"), "base");
    mount.write("a.txt", b"ours").unwrap();
    world.put("a.txt", b"theirs");
    mount.sync().unwrap();
    assert_eq!(world.there("a.txt").unwrap(), b"theirs");
    let keys = world.keys_there();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(world.there(&keys[0]).unwrap(), b"ours");
}

#[test]
fn a_backend_that_does_not_answer_holds_up_a_look_for_a_moment_only() {
    let world = World::new();
    world.put("a.txt", b"first");
    let patient = Options {
        offline_pause: Duration::from_secs(30),
        ..options()
    };
    let backend = Arc::new(Bare::new(&world.behind, true));
    let mount = world.mount_over(backend, "one", patient);
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    world.behind.add(Rule::any(Fault::Hang(Gate::closed())));
    std::thread::sleep(Duration::from_millis(80));
    let start = std::time::Instant::now();
    assert_eq!(mount.read("a.txt"), Err(Kind::Offline));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let start = std::time::Instant::now();
    assert_eq!(mount.read("a.txt"), Err(Kind::Offline));
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn cached_bytes_go_when_there_are_too_many_and_unsent_ones_never() {
    let world = World::new();
    for number in 0..20 {
        world.put(&format!("{number}.bin"), &pattern(100_000));
    }
    let small = Options {
        cache_size: 500_000,
        debounce: Duration::from_secs(60),
        ..options()
    };
    let mount = world.mount_with("one", small);
    mount.write("unsent.bin", &pattern(450_000)).unwrap();
    let cached = || names_in(&world.cache("one").join("bytes")).len();
    for number in 0..20 {
        assert_eq!(mount.read(&format!("{number}.bin")).unwrap().len(), 100_000);
    }
    // What was opened a moment ago stays a little longer.
    until("the oldest are gone", || cached() <= 3);
    assert_eq!(mount.read("0.bin").unwrap().len(), 100_000);
    assert!(mount.read("unsent.bin").unwrap() == pattern(450_000));
    mount.sync().unwrap();
    assert!(world.there("unsent.bin").unwrap() == pattern(450_000));
}

#[test]
fn bytes_of_a_version_that_is_gone_are_not_kept() {
    let world = World::new();
    world.put("a.bin", &pattern(1000));
    world.put("b.bin", &pattern(1000));
    let mount = world.mount();
    let cached = || names_in(&world.cache("one").join("bytes")).len();
    mount.read("a.bin").unwrap();
    mount.read("b.bin").unwrap();
    assert_eq!(cached(), 2);
    for round in 0..5 {
        let bytes = vec![round; 500];
        world.put("a.bin", &bytes);
        until("the change is seen", || {
            mount.read("a.bin") == Ok(bytes.clone())
        });
        // What is gone goes a moment after it is known.
        until("the old bytes are gone", || cached() == 2);
    }
    world.delete("b.bin");
    until("it is gone", || !mount.exists("b.bin"));
    until("its bytes are gone", || cached() == 1);
    assert_eq!(mount.volume_status()["cachedBytes"], 500);
}
