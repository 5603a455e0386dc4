//! Uploads that are put off by newer edits, that take long, and that stand still.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, options, until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

// README: S111
#[test]
fn a_record_that_is_edited_all_the_time_is_sent_all_the_same() {
    let world = World::new();
    let options = Options {
        debounce: Duration::from_millis(100),
        ..options()
    };
    let mount = world.mount_with("one", options);
    let mut edits = 0;
    until("a version is there", || {
        // Each edit comes before the last one is due.
        mount
            .write("OUTPUT", format!("{edits}").as_bytes())
            .unwrap();
        edits += 1;
        world.there("OUTPUT").is_some()
    });
    // They were put together all the same.
    assert!(world.count(Verb::Put) < 3 && edits > 10, "{edits} edits");
    mount.sync().unwrap();
    let last = (edits - 1).to_string();
    assert_eq!(world.there("OUTPUT").unwrap(), last.as_bytes());
}

// README: S122
#[test]
fn who_waits_for_a_slow_upload_waits_as_long_as_it_moves() {
    for write_through in [true, false] {
        let world = World::new();
        let options = Options {
            write_through,
            patience: Duration::from_millis(300),
            ..options()
        };
        let mount = world.mount_with("one", options);
        // Four times as long as nothing may move.
        let crawl = Fault::Crawl(10, Duration::from_millis(60), None);
        world.behind.add(Rule::on(Verb::Put, crawl).times(1));
        let bytes = [b'x'; 200];
        let handle = mount.open("slow", libc::O_CREAT | libc::O_WRONLY).unwrap();
        mount.write_at(handle, 0, &bytes).unwrap();
        mount.close(handle).unwrap();
        mount.fsync("slow").unwrap();
        assert_eq!(world.there("slow").unwrap(), bytes);
        assert_eq!(world.count(Verb::Put), 1);
    }
}

// README: S122
#[test]
fn who_waits_for_an_upload_that_stands_still_is_told_so_soon() {
    let world = World::new();
    let options = Options {
        write_through: true,
        patience: Duration::from_millis(300),
        ..options()
    };
    let mount = world.mount_with("one", options);
    let gate = Gate::closed();
    world
        .behind
        .add(Rule::on(Verb::Put, Fault::Hang(gate.clone())).times(1));
    assert_eq!(mount.write("still", b"bytes"), Err(Kind::TimedOut));
    gate.open();
    until("it was sent after all", || world.there("still").is_some());
}

// README: S122
#[test]
fn who_waits_for_a_record_that_is_refused_every_time_is_told_so_in_the_end() {
    for write_through in [true, false] {
        let world = World::new();
        let options = Options {
            write_through,
            patience: Duration::from_millis(300),
            ..options()
        };
        let mount = world.mount_with("one", options);
        // Its bytes move all the time.
        let refusal = Fault::Crawl(10, Duration::from_millis(20), Some(Kind::Io));
        world
            .behind
            .add(Rule::on(Verb::Put, refusal).key("refused"));
        let handle = mount
            .open("refused", libc::O_CREAT | libc::O_WRONLY)
            .unwrap();
        mount.write_at(handle, 0, &[b'x'; 100]).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            // And other records are sent.
            threads.spawn(|| {
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    mount
                        .write("other", format!("{number}").as_bytes())
                        .unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let (tell, told) = channel::<()>();
            let waits = threads.spawn(|| {
                let closed = mount.close(handle);
                assert_eq!(closed.is_err(), write_through);
                assert_eq!(mount.fsync("refused"), Err(Kind::TimedOut));
                assert_eq!(mount.sync(), Err(Kind::TimedOut));
                drop(tell);
            });
            let ended = told.recv_timeout(Duration::from_secs(30));
            over.store(true, Ordering::Relaxed);
            assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
            waits.join().unwrap();
        });
        assert!(world.there("other").is_some() && world.there("refused").is_none());
    }
}
