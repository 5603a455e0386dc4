//! Several programs that write one record through one mount, or write, read and change it at the same time.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::{World, options, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use storefs::backend::faulty::{Fault, Gate, Rule, Verb};
use storefs::fs::Change;
use storefs::volume::cached::Options;

fn never() -> Options {
    Options {
        debounce: Duration::from_secs(3600),
        ..options()
    }
}

/// Ends another thread of the test, also when this one fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pause() {
    thread::sleep(Duration::from_millis(300));
}

// README: S23
#[test]
fn lines_that_two_programs_append_are_all_there() {
    for size in [10, 4 << 20] {
        let world = World::new();
        let mount = Arc::new(world.mount_with("one", never()));
        mount.write("log", &vec![b'\n'; size]).unwrap();
        thread::scope(|scope| {
            for program in 0..2 {
                let mount = mount.clone();
                scope.spawn(move || {
                    for n in 0..60 {
                        let line = format!("line {program} {n}\n");
                        mount.append("log", line.as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = mount.text("log");
        let found = text.lines().filter(|line| line.starts_with("line"));
        assert_eq!(found.count(), 120, "of {size} bytes");
    }
}

#[test]
fn lines_are_appended_while_another_handle_is_closed() {
    let world = World::new();
    let mount = Arc::new(world.mount_with("one", never()));
    mount.write("log", b"\n").unwrap();
    let flags = libc::O_WRONLY | libc::O_APPEND;
    let stop = AtomicBool::new(false);
    let held = mount.open("log", flags).unwrap();
    let (mut first, mut second) = (0, 0);
    thread::scope(|scope| {
        let closer = scope.spawn(|| {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let handle = mount.open("log", flags).unwrap();
                mount.write_at(handle, 0, b"b\n").unwrap();
                mount.close(handle).unwrap();
                done += 1;
            }
            done
        });
        let ended = Ended(&stop);
        for _ in 0..5000 {
            mount.write_at(held, 0, b"a\n").unwrap();
            first += 1;
        }
        drop(ended);
        second = closer.join().unwrap();
    });
    mount.close(held).unwrap();
    let text = mount.text("log");
    let count = |of: &str| text.lines().filter(|line| *line == of).count();
    assert_eq!((count("a"), count("b")), (first, second));
}

#[test]
fn a_truncation_by_name_takes_no_line_away_that_was_appended_meanwhile() {
    let world = World::new();
    let mount = Arc::new(world.mount_with("one", never()));
    mount.write("log", &vec![b'\n'; 4 << 20]).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut size = 5 << 20;
            while !done.load(Ordering::Relaxed) {
                size += 4000;
                let longer = Change {
                    size: Some(size),
                    ..Change::default()
                };
                let _ = mount.set("log", longer);
            }
        });
        let _ended = Ended(&done);
        for n in 0..100 {
            mount
                .append("log", format!("\nline {n}\n").as_bytes())
                .unwrap();
        }
    });
    let all = mount.read("log").unwrap();
    let text = String::from_utf8_lossy(&all);
    let found = text.lines().filter(|line| line.starts_with("line"));
    assert_eq!(found.count(), 100);
}

#[test]
fn a_write_of_the_same_length_right_after_another_one_stays() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    for n in 0..200 {
        let name = format!("a{n}");
        mount.write(&name, b"aaaa").unwrap();
        let handle = mount.open(&name, libc::O_RDWR).unwrap();
        mount.write_at(handle, 0, b"bbbb").unwrap();
        mount.close(handle).unwrap();
        assert_eq!(mount.text(&name), "bbbb");
    }
}

#[test]
fn a_type_that_is_set_while_a_program_has_the_record_open_stays() {
    let world = World::new();
    world.put("a.txt", b"bytes");
    let mount = world.mount();
    let handle = mount.open("a.txt", libc::O_RDWR).unwrap();
    mount.set_type("a.txt", "text/x-mine").unwrap();
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.type_there("a.txt"), "text/x-mine");
    let handle = mount.open("a.txt", libc::O_RDWR).unwrap();
    mount.set_type("a.txt", "text/x-other").unwrap();
    mount.write_at(handle, 0, b"B").unwrap();
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.type_there("a.txt"), "text/x-other");
    assert_eq!(world.there("a.txt").unwrap(), b"Bytes");
}

#[test]
fn a_type_that_is_removed_takes_nothing_away_that_was_appended_meanwhile() {
    let world = World::new();
    let quick = Options {
        debounce: Duration::ZERO,
        ..options()
    };
    let mount = Arc::new(world.mount_with("one", quick));
    for round in 0..10 {
        let name = format!("r{round}.txt");
        let gate = Gate::closed();
        let hang = Rule::on(Verb::Put, Fault::Hang(gate.clone()));
        world.behind.add(hang.key(&name).times(1));
        world.put_as(&name, &vec![b'x'; 15 << 20], "text/x-mine");
        mount.append(&name, b"first").unwrap();
        world.runtime.block_on(gate.until_arrived(1));
        thread::scope(|scope| {
            scope.spawn(|| {
                let ino = mount.look(&name).unwrap().ino;
                thread::sleep(Duration::from_millis(3 * round));
                let _ = mount.wait(mount.fs.removexattr(ino, "user.mime_type"));
            });
            mount.append(&name, b"the end").unwrap();
        });
        assert!(mount.read(&name).unwrap().ends_with(b"firstthe end"));
        gate.open();
        mount.sync().unwrap();
        assert!(world.there(&name).unwrap().ends_with(b"firstthe end"));
        mount.remove(&name).unwrap();
    }
}

#[test]
fn a_time_that_is_set_while_the_version_before_is_sent_stays() {
    let world = World::new();
    let mount = world.mount();
    let gate = Gate::closed();
    let hang = Rule::on(Verb::Put, Fault::Hang(gate.clone()));
    world.behind.add(hang.times(1));
    mount.write("a.txt", b"first").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    mount.write("a.txt", b"second").unwrap();
    let change = Change {
        modified: Some(Some(5_000_000_000)),
        ..Change::default()
    };
    mount.set("a.txt", change).unwrap();
    gate.open();
    mount.sync().unwrap();
    assert_eq!(mount.look("a.txt").unwrap().modified_ns, 5_000_000_000);
}

#[test]
fn what_somebody_else_made_under_a_name_that_is_given_up_here_is_seen() {
    let world = World::new();
    let mount = world.mount_with("one", never());
    assert!(mount.list().unwrap().is_empty());
    pause();
    mount.write("a.txt", b"ours").unwrap();
    world.put("a.txt", b"theirs");
    pause();
    mount.remove("a.txt").unwrap();
    until("theirs is seen", || mount.exists("a.txt"));
    assert_eq!(mount.text("a.txt"), "theirs");
}

#[test]
fn what_somebody_else_made_while_a_removal_is_under_way_is_seen() {
    let world = World::new();
    world.put("a.txt", b"first");
    let mount = world.mount();
    assert_eq!(mount.list().unwrap(), ["a.txt"]);
    assert_eq!(mount.text("a.txt"), "first");
    pause();
    let gate = Gate::closed();
    let hang = Rule::on(Verb::Delete, Fault::HangAfter(gate.clone()));
    world.behind.add(hang.times(1));
    mount.remove("a.txt").unwrap();
    world.runtime.block_on(gate.until_arrived(1));
    world.put("a.txt", b"theirs");
    pause();
    gate.open();
    mount.sync().unwrap();
    until("theirs is seen", || mount.exists("a.txt"));
    assert_eq!(mount.text("a.txt"), "theirs");
}

#[test]
fn a_record_that_is_open_is_written_and_renamed_when_the_cache_is_full() {
    let world = World::new();
    world.put("a.txt", &[b'x'; 5000]);
    let small = Options {
        cache_size: 1000,
        ..options()
    };
    let mount = world.mount_with("one", small);
    let handle = mount.open("a.txt", libc::O_RDONLY).unwrap();
    assert_eq!(mount.read_all(handle).unwrap().len(), 5000);
    // Longer than bytes are held that were just asked for.
    thread::sleep(Duration::from_millis(4500));
    mount.append("a.txt", b"more").unwrap();
    mount.rename("a.txt", "b.txt").unwrap();
    mount.close(handle).unwrap();
    mount.sync().unwrap();
    assert_eq!(world.there("b.txt").unwrap().len(), 5004);
}
