//! Two mounts that read and write the same few records over a failing backend: every version that nobody read before
//! writing over it is still there in the end, under its name or a conflict name. `STOREFS_SEED` runs one again.
#![allow(clippy::unwrap_used)]

mod cached;

use cached::chance::{Chance, with_seeds};
use cached::{Mount, World, options};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storefs::backend::faulty::{Fault, Rule, Verb};
use storefs::error::Kind;
use storefs::volume::cached::Options;

const NAMES: [&str; 3] = ["a.txt", "b", "c.json"];

fn version(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.strip_prefix("version ")?.trim().parse().ok()
}

struct Rivals {
    world: World,
    mounts: [Option<Mount>; 2],
    options: Options,
    chance: Chance,
    next: u32,
    /// Versions that a writer had read before it wrote.
    superseded: BTreeSet<u32>,
    written: BTreeMap<u32, &'static str>,
    log: Vec<String>,
}

impl Rivals {
    fn step(&mut self) {
        let which = self.chance.below(2);
        let name = *self.chance.of(&NAMES);
        match self.chance.below(12) {
            0 => {
                self.mounts[which].take().unwrap().kill();
                let folders = ["one", "two"][which];
                self.mounts[which] = Some(self.world.mount_with(folders, self.options.clone()));
                self.log.push(format!("{which} is killed"));
            }
            1 => self.faults(),
            2 => std::thread::sleep(Duration::from_millis(self.chance.next() % 40)),
            3 => {
                let _ = self.mounts[which].as_ref().unwrap().sync();
                self.log.push(format!("{which} syncs"));
            }
            4 => self.aside(which, name),
            _ => self.write(which, name),
        }
    }

    fn faults(&mut self) {
        self.world.behind.clear();
        for _ in 0..self.chance.below(3) {
            let kind = *self.chance.of(&[Kind::Io, Kind::TimedOut, Kind::Offline]);
            let fault = match self.chance.below(4) {
                0 => Fault::Fail(kind),
                1 | 2 => Fault::FailAfter(kind),
                _ => Fault::Delay(Duration::from_millis(self.chance.next() % 30)),
            };
            let verb = *self
                .chance
                .of(&[Verb::Put, Verb::Put, Verb::Head, Verb::Get]);
            let times = self.chance.below(5);
            self.log.push(format!("{verb:?} {fault:?} x{times}"));
            self.world.behind.add(Rule::on(verb, fault).times(times));
        }
    }

    /// Reads what is there and writes over it.
    fn write(&mut self, which: usize, name: &'static str) {
        let mount = self.mounts[which].as_ref().unwrap();
        let read = match mount.read(name) {
            Ok(bytes) => version(&bytes),
            Err(Kind::NotFound) => None,
            // Who cannot read does not write.
            Err(_) => return,
        };
        self.next += 1;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let flags = if read.is_none() {
            flags | libc::O_EXCL
        } else {
            flags
        };
        let Ok(handle) = mount.open(name, flags) else {
            return;
        };
        let text = format!("version {}\n", self.next);
        mount.write_at(handle, 0, text.as_bytes()).unwrap();
        mount.close(handle).unwrap();
        self.log.push(format!(
            "{which} writes {} over {read:?} as {name}",
            self.next
        ));
        self.superseded.extend(read);
        self.written.insert(self.next, name);
    }

    /// Saves as editors do.
    fn aside(&mut self, which: usize, name: &'static str) {
        let mount = self.mounts[which].as_ref().unwrap();
        let Ok(bytes) = mount.read(name) else { return };
        let read = version(&bytes);
        let temporary = format!(".{name}.Ab12Cd");
        self.next += 1;
        let text = format!("version {}\n", self.next);
        if mount.write(&temporary, text.as_bytes()).is_err() {
            return;
        }
        let done = mount.rename(&temporary, name);
        self.log.push(format!(
            "{which} renames {} over {read:?} as {name}: {done:?}",
            self.next
        ));
        match done {
            Ok(()) => {
                self.written.insert(self.next, name);
                self.superseded.extend(read);
            }
            // Who is told that it was not done still has the file.
            Err(_) => assert_eq!(mount.read(&temporary), Ok(text.into_bytes())),
        }
    }

    fn finish(mut self) {
        self.world.behind.clear();
        std::thread::sleep(Duration::from_millis(20));
        for mount in &self.mounts {
            let synced = mount.as_ref().unwrap().sync();
            assert_eq!(synced, Ok(()), "{}", self.log.join("\n"));
        }
        let mut there = BTreeSet::new();
        for key in self.world.keys_there() {
            there.extend(version(&self.world.there(&key).unwrap()));
        }
        self.superseded.retain(|version| !there.contains(version));
        for (version, name) in &self.written {
            let kept = there.contains(version) || self.superseded.contains(version);
            assert!(
                kept,
                "{version} of {name} is lost; there is {there:?} in {:?}\n{}",
                self.world.keys_there(),
                self.log.join("\n")
            );
        }
        for mount in self.mounts.iter_mut() {
            mount.take().unwrap().kill();
        }
        for folders in ["one", "two"] {
            let spool = self.world.spool(folders);
            assert_eq!(cached::notes_in(&spool).len(), 0, "{}", self.log.join("\n"));
            let left = cached::bytes_in(&spool);
            assert!(left.is_empty(), "{left:?}\n{}", self.log.join("\n"));
        }
    }
}

fn run(seed: u64) {
    let world = World::new();
    let mut chance = Chance::new(seed);
    let options = Options {
        debounce: Duration::from_millis(*chance.of(&[0, 5, 40])),
        young: Duration::from_millis(100),
        patience: Duration::from_secs(10),
        look_patience: Duration::from_secs(5),
        ..options()
    };
    let mounts = ["one", "two"].map(|folders| Some(world.mount_with(folders, options.clone())));
    let mut rivals = Rivals {
        world,
        mounts,
        options,
        chance,
        next: 0,
        superseded: BTreeSet::new(),
        written: BTreeMap::new(),
        log: vec![format!("seed {seed}")],
    };
    for _ in 0..40 {
        rivals.step();
    }
    rivals.finish();
}

#[test]
fn no_version_is_lost_between_two_mounts() {
    with_seeds(60, run);
}
