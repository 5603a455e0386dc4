//! One record that several threads open without a pause, to write, to append, to replace and to read it. A version that comes
//! while it is opened must not fail the open.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use shop::Shop;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use support::{Mount, World};

const ROUNDS: u32 = 300;

/// What the threads of one try share.
#[derive(Default)]
struct Hurry {
    over: AtomicBool,
    opened: AtomicU32,
}

impl Hurry {
    /// Does something until the others are done; what it opened counts.
    fn until_over(&self, what: impl Fn() -> io::Result<()>) {
        while !self.over.load(Ordering::Relaxed) {
            what().unwrap();
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends the readers, also when a writer fails.
struct Ends<'a>(&'a Hurry);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Runs each of the writers so many times, each in its own thread, while others read.
fn meet(path: &Path, from: &Path, writers: &[&(dyn Fn(u32) -> io::Result<()> + Sync)]) {
    let hurry = Hurry::default();
    thread::scope(|scope| {
        scope.spawn(|| hurry.until_over(|| fs::read(from).map(drop)));
        scope.spawn(|| {
            hurry.until_over(|| {
                assert!(fs::metadata(path)?.is_file());
                Ok(())
            });
        });
        let _ends = Ends(&hurry);
        let writers = writers.iter().map(|write| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    write(round).unwrap();
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert!(hurry.opened.into_inner() > 0);
}

/// Calls truncate(2), which opens nothing, in one round as often as others do something in all of them.
fn cut(path: &Path, round: u32) -> io::Result<()> {
    if round > 0 {
        return Ok(());
    }
    let script = format!("for (1..{ROUNDS}) {{ truncate($ARGV[0], 1) or die $! }}");
    let done = Command::new("perl")
        .args(["-e", &script])
        .arg(path)
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    match done.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(said.into_owned())),
    }
}

/// A copy of the descriptor is closed, as a shell does that ran a command with it.
fn closed_once(file: &File) -> io::Result<()> {
    file.try_clone().map(drop)
}

fn everything(mount: &Mount, from: &Mount) {
    let at = |name: &str| mount.path("default").join(name);
    let seen = |name: &str| from.path("default").join(name);
    let overwrite = |name: &str, text: String| fs::write(at(name), text);
    fs::write(at("written"), "0").unwrap();
    meet(
        &at("written"),
        &seen("written"),
        &[&|round| overwrite("written", format!("{round}\n"))],
    );
    assert_eq!(fs::read_to_string(at("written")).unwrap(), "299\n");

    fs::write(at("many"), "0").unwrap();
    let write = |round| overwrite("many", format!("{round}\n"));
    meet(&at("many"), &seen("many"), &[&write, &write, &write]);
    let last: u32 = fs::read_to_string(at("many"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(last < ROUNDS);

    fs::write(at("replaced"), "0").unwrap();
    meet(
        &at("replaced"),
        &seen("replaced"),
        &[&|round| {
            fs::write(at("replaced.tmp"), format!("{round}\n"))?;
            fs::rename(at("replaced.tmp"), at("replaced"))
        }],
    );
    assert_eq!(fs::read_to_string(at("replaced")).unwrap(), "299\n");

    fs::write(at("cut"), "12345").unwrap();
    meet(
        &at("cut"),
        &seen("cut"),
        &[&|round| cut(&at("cut"), round), &|round| {
            overwrite("cut", format!("{round}\n"))
        }],
    );

    fs::write(at("emptied"), "").unwrap();
    meet(
        &at("emptied"),
        &seen("emptied"),
        &[&|round| {
            overwrite("emptied", "x".to_owned())?;
            drop(File::create(at("emptied"))?);
            let left = fs::read(at("emptied"))?;
            assert!(left.is_empty(), "round {round}");
            assert_eq!(fs::metadata(at("emptied"))?.len(), 0, "round {round}");
            Ok(())
        }],
    );

    fs::write(at("twice"), "").unwrap();
    meet(
        &at("twice"),
        &seen("twice"),
        &[&|round| {
            let mut file = File::create(at("twice"))?;
            file.write_all(b"a\n")?;
            closed_once(&file)?;
            file.write_all(b"b\n")?;
            drop(file);
            assert_eq!(fs::read(at("twice"))?, b"a\nb\n", "round {round}");
            assert_eq!(fs::metadata(at("twice"))?.len(), 4, "round {round}");
            Ok(())
        }],
    );

    fs::write(at("lines"), "").unwrap();
    let lines = |round| {
        let mut log = OpenOptions::new().append(true).open(at("lines"))?;
        log.write_all(format!("{round}\n").as_bytes())?;
        closed_once(&log)?;
        log.write_all(format!("{round} again\n").as_bytes())
    };
    meet(&at("lines"), &seen("lines"), &[&lines, &lines]);
    let log = fs::read_to_string(at("lines")).unwrap();
    assert_eq!(log.lines().count(), 4 * ROUNDS as usize);

    fs::write(at("log"), "").unwrap();
    let append = |round| {
        let mut log = OpenOptions::new().append(true).open(at("log"))?;
        log.write_all(format!("{round}\n").as_bytes())
    };
    meet(&at("log"), &seen("log"), &[&append, &append]);
    let log = fs::read_to_string(at("log")).unwrap();
    assert_eq!(log.lines().count(), 2 * ROUNDS as usize);
}

// README: S31, S60, S61, S62
#[test]
fn no_open_of_a_record_fails_because_another_version_came() {
    for options in ["layout=plain", "no_passthrough,layout=dual", "ttl=0"] {
        let world = World::new();
        let mount = world.mount(&["-o", options]);
        everything(&mount, &mount);
    }
}

// README: S31
#[test]
fn nor_in_another_mount_of_the_folder() {
    let world = World::new();
    let [one, two] = ["one", "two"].map(|name| world.mount_at(name, &[]));
    everything(&one, &two);
}

// README: S31
#[test]
fn nor_on_a_server() {
    let shop = Shop::open();
    let mount = shop.mount_with("one", "debounce=10ms");
    everything(&mount, &mount);
}
