//! Random operations on a tree over a backend that fails in every way, beside a plain map of what must be seen; with
//! remounts and kills in between. `STOREFS_SEED` runs one again.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::chance::{Chance, with_seeds};
use cached::{Done, Mount, World, options};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Rule, Verb};
use storefs::error::Kind;
use storefs::fs::Change;
use storefs::volume::cached::Options;

const NAMES: [&str; 7] = ["a.txt", "b.json", "c", "d.png", "e.part", "f", "a.txt~"];

fn is_scratch(name: &str) -> bool {
    name.ends_with('~')
}

/// Failures that a faulty backend excuses.
fn is_excused(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Io | Kind::TimedOut | Kind::Offline | Kind::Corrupt | Kind::Stale
    )
}

struct Run {
    world: World,
    mount: Option<Mount>,
    chance: Chance,
    expected: BTreeMap<&'static str, Vec<u8>>,
    faulty: bool,
    options: Options,
    log: Vec<String>,
    number: u32,
}

impl Run {
    fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    /// Whether it was done; failures are excused only while the backend fails.
    #[track_caller]
    fn done(&self, what: &str, done: Done) -> bool {
        match done {
            Ok(()) => true,
            Err(kind) if self.faulty && is_excused(kind) => false,
            Err(kind) => panic!("{what}: {kind:?}\n{}", self.log.join("\n")),
        }
    }

    /// It was not found, as it should be.
    #[track_caller]
    fn missing(&self, name: &str) {
        let there = self.expected.contains_key(name);
        assert!(
            !there,
            "{name} is not found\n{}\n{}",
            self.mount().queue(),
            self.log.join("\n")
        );
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.number += 1;
        let repeat = *self.chance.of(&[0, 1, 1, 3, 300]);
        format!("{{\"number\": {}}}\n", self.number)
            .repeat(repeat)
            .into_bytes()
    }

    fn set_faults(&mut self) {
        self.world.behind.clear();
        let was_faulty = self.faulty;
        self.faulty = !self.chance.one_in(3);
        if !self.faulty {
            if was_faulty {
                self.wait_out_the_pause();
            }
            return;
        }
        for _ in 0..self.chance.below(4) {
            let kind = *self.chance.of(&[Kind::Io, Kind::TimedOut, Kind::Offline]);
            let verbs = [
                Verb::Put,
                Verb::Put,
                Verb::Put,
                Verb::Delete,
                Verb::Get,
                Verb::Head,
                Verb::List,
            ];
            let verb = *self.chance.of(&verbs);
            let fault = match self.chance.below(5) {
                0 => Fault::Fail(kind),
                1 | 2 => Fault::FailAfter(kind),
                3 => Fault::Delay(Duration::from_millis(self.chance.next() % 30)),
                _ => Fault::BreakOff(self.chance.next() % 200),
            };
            let times = self.chance.below(6);
            self.log.push(format!("{verb:?} {fault:?} x{times}"));
            self.world.behind.add(Rule::on(verb, fault).times(times));
        }
    }

    /// A backend that could not be reached is not asked again for a while, also when it could be reached by now.
    fn wait_out_the_pause(&self) {
        std::thread::sleep(self.options.offline_pause + Duration::from_millis(5));
    }

    fn step(&mut self) {
        let name = *self.chance.of(&NAMES);
        let other = *self.chance.of(&NAMES);
        let what = self.chance.below(18);
        self.log.push(format!("{what}: {name} {other}"));
        match what {
            0..=3 => {
                let bytes = self.bytes();
                let done = self.mount().write(name, &bytes);
                if self.done("write", done) {
                    self.expected.insert(name, bytes);
                }
            }
            4 => {
                let bytes = self.bytes();
                let done = self.mount().append(name, &bytes);
                if self.done("append", done) {
                    self.expected.entry(name).or_default().extend(bytes);
                }
            }
            5 => self.edit(name),
            6 => self.resize(name),
            7 | 8 => match self.mount().remove(name) {
                Err(Kind::NotFound) => self.missing(name),
                done => {
                    if self.done("remove", done) {
                        self.expected.remove(name);
                    }
                }
            },
            9 | 10 => match self.mount().rename(name, other) {
                Err(Kind::NotFound) => self.missing(name),
                done => {
                    if self.done("rename", done)
                        && let Some(bytes) = self.expected.remove(name)
                    {
                        self.expected.insert(other, bytes);
                    }
                }
            },
            11 => match self.mount().set_type(name, "application/x-test") {
                Err(Kind::NotFound) => self.missing(name),
                done => drop(self.done("set the type", done)),
            },
            12 => self.list(),
            13 => self.set_faults(),
            14 => self.remount(),
            15 => {
                let done = self.mount().sync();
                self.done("sync", done);
            }
            16 => std::thread::sleep(Duration::from_millis(self.chance.next() % 60)),
            _ => self.keep_writing(name),
        }
        let read = *self.chance.of(&NAMES);
        self.read(read);
    }

    /// In place, through a handle that was opened without truncation.
    fn edit(&mut self, name: &'static str) {
        let handle = match self.mount().open(name, libc::O_RDWR) {
            Err(Kind::NotFound) => return self.missing(name),
            Err(kind) => {
                self.done("open", Err(kind));
                return;
            }
            Ok(handle) => handle,
        };
        let bytes = self.expected.get_mut(name).unwrap();
        let at = if bytes.is_empty() {
            0
        } else {
            self.chance.below(bytes.len())
        };
        let end = bytes.len().max(at + 3);
        bytes.resize(end, 0);
        bytes[at..at + 3].copy_from_slice(b"###");
        self.mount().write_at(handle, at as u64, b"###").unwrap();
        self.mount().close(handle).unwrap();
    }

    fn resize(&mut self, name: &'static str) {
        let size = self.chance.below(40);
        let change = Change {
            size: Some(size as u64),
            ..Change::default()
        };
        match self.mount().set(name, change) {
            Err(Kind::NotFound) => self.missing(name),
            done => {
                if self.done("resize", done.map(drop)) {
                    self.expected.get_mut(name).unwrap().resize(size, 0);
                }
            }
        }
    }

    /// A descriptor that is closed more than once, with writes in between.
    fn keep_writing(&mut self, name: &'static str) {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
        let handle = match self.mount().open(name, flags) {
            Ok(handle) => handle,
            Err(kind) => {
                self.done("open", Err(kind));
                return;
            }
        };
        let mut all = Vec::new();
        for _ in 0..3 {
            let bytes = self.bytes();
            self.mount()
                .write_at(handle, all.len() as u64, &bytes)
                .unwrap();
            all.extend(bytes);
            self.mount().flush(handle).unwrap();
            assert_eq!(self.mount().read_all(handle).unwrap(), all);
            if self.chance.one_in(3) {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        self.mount().fs.release(handle);
        self.expected.insert(name, all);
    }

    fn read(&self, name: &'static str) {
        match (self.mount().read(name), self.expected.get(name)) {
            (Ok(read), Some(bytes)) => {
                assert!(
                    read == *bytes,
                    "{name}: {} bytes, not {}\n{}",
                    read.len(),
                    bytes.len(),
                    self.log.join("\n")
                );
            }
            (Err(Kind::NotFound), None) => {}
            (Err(kind), _) if self.faulty && is_excused(kind) => {}
            (read, expected) => {
                panic!("{name}: {read:?} not {expected:?}\n{}", self.log.join("\n"))
            }
        }
    }

    fn list(&self) {
        match self.mount().list() {
            Ok(listed) => {
                let listed: BTreeSet<_> = listed.iter().map(String::as_str).collect();
                let expected: BTreeSet<_> = self.expected.keys().copied().collect();
                assert_eq!(listed, expected, "{}", self.log.join("\n"));
            }
            Err(kind) => drop(self.done("list", Err(kind))),
        }
    }

    fn remount(&mut self) {
        self.mount.take().unwrap().kill();
        self.mount = Some(self.world.mount_with("one", self.options.clone()));
    }

    fn finish(&mut self) {
        self.world.behind.clear();
        self.faulty = false;
        if self.chance.one_in(2) {
            self.remount();
        }
        self.wait_out_the_pause();
        let synced = self.mount().sync();
        assert_eq!(
            synced,
            Ok(()),
            "{}\n{}",
            self.mount().volume_status(),
            self.log.join("\n")
        );
        self.list();
        for name in NAMES {
            self.read(name);
        }
        let keys: BTreeSet<_> = self.world.keys_there().into_iter().collect();
        let records = self.expected.keys().filter(|name| !is_scratch(name));
        let expected: BTreeSet<_> = records.map(|name| (*name).to_owned()).collect();
        assert_eq!(keys, expected, "{}", self.log.join("\n"));
        for key in keys {
            let there = self.world.there(&key).unwrap();
            assert!(
                there == self.expected[key.as_str()],
                "{key}\n{}",
                self.log.join("\n")
            );
        }
        let spool = self.world.spool("one");
        assert_eq!(cached::notes_in(&spool).len(), 0, "{}", self.log.join("\n"));
        let left = cached::bytes_in(&spool);
        assert!(left.is_empty(), "{left:?}\n{}", self.log.join("\n"));
    }
}

fn run(seed: u64) {
    let world = World::new();
    let mut chance = Chance::new(seed);
    for name in NAMES.iter().filter(|name| !is_scratch(name)) {
        if chance.one_in(2) {
            world.put(name, b"");
        }
    }
    let mut expected = BTreeMap::new();
    for name in NAMES
        .iter()
        .filter(|name| world.there(name.trim_end_matches('~')).is_some())
    {
        if !is_scratch(name) {
            let bytes = format!("there before as {name}").into_bytes();
            world.put(name, &bytes);
            expected.insert(*name, bytes);
        }
    }
    let options = Options {
        cache_size: *chance.of(&[0, 2000, 1 << 30]),
        debounce: Duration::from_millis(*chance.of(&[0, 5, 40])),
        parting: Duration::from_millis(20),
        young: Duration::from_millis(100),
        patience: Duration::from_secs(10),
        look_patience: Duration::from_secs(5),
        ..options()
    };
    let mount = world.mount_with("one", options.clone());
    let mut run = Run {
        world,
        mount: Some(mount),
        chance,
        expected,
        faulty: false,
        options,
        log: vec![format!("seed {seed}")],
        number: 0,
    };
    for _ in 0..60 {
        run.step();
    }
    run.finish();
}

#[test]
fn random_operations_over_a_faulty_backend_are_seen_here_at_once_and_there_in_the_end() {
    with_seeds(40, run);
}
