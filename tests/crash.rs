//! The daemon is killed under load, over and over: what a program was told is written is there and whole, nothing is there
//! in part, and nothing is left behind. `STOREFS_KILLS` says how often (scripts/soak.sh asks for many).
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::support::{PATIENCE, World, said, wait_until};
use kernel::{DUAL, DUAL_DAEMON, Mount, PLAIN, PLAIN_DAEMON, Way};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const KINDS: [&str; 5] = ["new", "over", "save", "line", "drop"];

/// What is known of a name: the number of the value that was acknowledged last (`None`: that it is gone), and the change
/// that was under way, if any.
#[derive(Debug, Default, Clone)]
struct Known {
    settled: Option<u64>,
    trying: Option<Option<u64>>,
}

/// Everything the writers said, over all kills.
#[derive(Default)]
struct Ledger {
    records: BTreeMap<String, Known>,
    lines: u64,
    line_tried: bool,
    highest: u64,
    acknowledged: usize,
}

impl Ledger {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [step @ ("try" | "did"), what, name, number] = words[..] else {
            panic!("a writer said {line:?}");
        };
        let number: u64 = number.parse().unwrap();
        self.highest = self.highest.max(number);
        let done = step == "did";
        self.acknowledged += usize::from(done);
        if what == "line" {
            self.lines += u64::from(done);
            self.line_tried = !done;
            return;
        }
        let target = (what == "put").then_some(number);
        let known = self.records.entry(name.to_owned()).or_default();
        if done {
            known.settled = target;
            known.trying = None;
        } else {
            known.trying = Some(target);
        }
    }
}

struct Writers {
    children: Vec<Child>,
    said: Receiver<(usize, String)>,
}

impl Writers {
    fn start(folder: &Path, first: u64) -> Self {
        let (sender, said) = channel();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash_writer/writer.py");
        let start = |(number, kind): (usize, &&str)| {
            let mut child = Command::new("python3")
                .arg(script)
                .arg(folder)
                .args([kind, first.to_string().as_str()])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let sender = sender.clone();
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    if sender.send((number, line)).is_err() {
                        return;
                    }
                }
            });
            child
        };
        let children = KINDS.iter().enumerate().map(start).collect();
        Self { children, said }
    }
}

impl Writers {
    /// Takes what they say until each has `enough` acknowledged changes.
    fn work(&mut self, ledger: &mut Ledger, enough: usize, way: Way) {
        let mut acknowledged = [0; KINDS.len()];
        while acknowledged.iter().any(|&done| done < enough) {
            let Ok((writer, line)) = self.said.recv_timeout(PATIENCE) else {
                panic!("{way}: the writers stand still at {acknowledged:?}");
            };
            let kind = KINDS[writer];
            assert!(!line.starts_with("stopped"), "{way}: {kind} {line}");
            acknowledged[writer] += usize::from(line.starts_with("did"));
            ledger.take(&line);
        }
    }

    /// Takes what they say until the last has stopped, by the failure of what it was doing.
    fn end(&mut self, ledger: &mut Ledger, way: Way) {
        let mut stopped = BTreeSet::new();
        while stopped.len() < KINDS.len() {
            let Ok((writer, line)) = self.said.recv_timeout(PATIENCE) else {
                panic!("{way}: the kill stopped only {stopped:?} of the writers");
            };
            if line.starts_with("stopped") {
                stopped.insert(writer);
            } else {
                ledger.take(&line);
            }
        }
        for child in &mut self.children {
            child.wait().unwrap();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lets five programs write until each has `enough` acknowledged changes, kills the daemon and takes all that they said.
fn work_and_kill(mount: &mut Mount, ledger: &mut Ledger, enough: usize) {
    let way = mount.way;
    let mut writers = Writers::start(&mount.path("default"), ledger.highest);
    writers.work(ledger, enough, way);
    assert!(
        mount.kill(),
        "{way}: the daemon was dead before it was killed"
    );
    writers.end(ledger, way);
}

/// The number of a whole value; why it is none otherwise.
fn number_of(value: &[u8]) -> Result<u64, String> {
    let end = value
        .iter()
        .position(|&b| b == b'\n')
        .ok_or("no first line")?;
    let head = std::str::from_utf8(&value[..end]).map_err(|e| e.to_string())?;
    let words: Vec<&str> = head.split(' ').collect();
    let [number, length, digest] = words[..] else {
        return Err(format!("first line {head:?}"));
    };
    let body = &value[end + 1..];
    if length.parse() != Ok(body.len()) {
        return Err(format!("{} bytes where {length} were written", body.len()));
    }
    if hex(&Sha256::digest(body)) != digest {
        return Err("a body that is not the one that was written".to_owned());
    }
    number.parse().map_err(|_| format!("number {number:?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares the mount with what the writers were told, and takes what is found as the new truth.
fn check(mount: &Mount, ledger: &mut Ledger) {
    let way = mount.way;
    let names: BTreeSet<String> = mount.names().into_iter().collect();
    for name in names.iter().filter(|name| *name != "log") {
        let value = fs::read(mount.path("default").join(name))
            .unwrap_or_else(|e| panic!("{way}: {name}: {e}"));
        let number = number_of(&value).unwrap_or_else(|why| panic!("{way}: {name} has {why}"));
        // What was half made or half removed when the daemon died is mended, or goes, while it is looked at.
        wait_until(
            &format!("{way}: the folder has {name} as the mount"),
            || {
                let shown = fs::read(mount.path("default").join(name)).ok();
                mount.beside(name) == shown && shown.is_none_or(|shown| shown == value)
            },
        );
        if name.starts_with('.') {
            continue; // closed and not yet renamed: a record like any other, and whole
        }
        let known = ledger.records.get(name);
        let known = known.unwrap_or_else(|| panic!("{way}: nobody wrote {name}"));
        let allowed = known.settled == Some(number) || known.trying == Some(Some(number));
        assert!(
            allowed,
            "{way}: {name} is number {number}, known is {known:?}"
        );
    }
    // Asked again: a record that was mended away above is as absent as one that never showed.
    let names: BTreeSet<String> = mount.names().into_iter().collect();
    for (name, known) in &mut ledger.records {
        if !names.contains(name) {
            let allowed = known.settled.is_none() || known.trying == Some(None);
            assert!(allowed, "{way}: {name} is lost, known is {known:?}");
        }
        let value = fs::read(mount.path("default").join(name)).ok();
        known.settled = value.map(|value| number_of(&value).unwrap());
        known.trying = None;
    }
    let log = fs::read_to_string(mount.path("default/log")).unwrap();
    assert!(log.ends_with('\n'), "{way}: the log ends in part of a line");
    let mut lines = 0;
    for line in log.lines() {
        let (number, digest) = line.split_once(' ').unwrap_or((line, ""));
        assert_eq!(
            hex(&Sha256::digest(number)),
            digest,
            "{way}: line {line:?} of the log"
        );
        lines += 1;
    }
    let most = ledger.lines + u64::from(ledger.line_tried);
    assert!(
        (ledger.lines..=most).contains(&lines),
        "{way}: {lines} lines of {}",
        ledger.lines
    );
    ledger.lines = lines;
    ledger.line_tried = false;
}

/// Removes the records that only grow in number, and the log that only grows.
fn tidy(mount: &Mount, ledger: &mut Ledger) {
    let names: Vec<String> = ledger
        .records
        .keys()
        .filter(|name| name.starts_with("new-"))
        .cloned()
        .collect();
    for name in names {
        if fs::metadata(mount.path("default").join(&name)).is_ok() {
            fs::remove_file(mount.path("default").join(&name)).unwrap();
        }
        ledger.records.remove(&name);
    }
    fs::remove_file(mount.path("default/log")).unwrap();
    ledger.lines = 0;
}

fn survives(way: Way, kills: usize) {
    let mut mount = Mount::new(way);
    let mut ledger = Ledger::default();
    for round in 0..kills {
        let before = ledger.acknowledged;
        work_and_kill(&mut mount, &mut ledger, 1 + round * 7 % 12);
        let done = ledger.acknowledged - before;
        assert!(
            done >= KINDS.len(),
            "{way}: only {done} changes before kill {round}"
        );
        mount.start();
        assert_eq!(
            mount.temporaries(),
            [""; 0].map(std::path::PathBuf::from),
            "{way}: after kill {round}"
        );
        check(&mount, &mut ledger);
        if round % 4 == 3 {
            tidy(&mount, &mut ledger);
        }
    }
    println!(
        "{way}: {kills} kills, {} acknowledged changes",
        ledger.acknowledged
    );
}

/// A fourth of all kills that are asked for.
fn kills() -> usize {
    let asked = std::env::var("STOREFS_KILLS").ok();
    let asked: usize = asked.map_or(20, |number| number.parse().unwrap());
    asked.div_ceil(4)
}

// README: S15, S21
#[test]
fn acknowledged_writes_survive_kills_in_layout_plain() {
    survives(PLAIN, kills());
}

// README: S15, S21
#[test]
fn acknowledged_writes_survive_kills_in_layout_plain_without_passthrough() {
    survives(PLAIN_DAEMON, kills());
}

// README: S15, S21
#[test]
fn acknowledged_writes_survive_kills_in_layout_dual() {
    survives(DUAL, kills());
}

// README: S15, S21
#[test]
fn acknowledged_writes_survive_kills_in_layout_dual_without_passthrough() {
    survives(DUAL_DAEMON, kills());
}

/// A mount in the background, which is let go of whatever happens.
struct Background<'a>(&'a World);

impl Background<'_> {
    /// Mounts; gives the daemon's process.
    fn start(&self) -> Pid {
        let words = ["mount", "-o", "layout=plain", "storage", "mnt"];
        let said = said(&mut self.0.storefs(&words));
        assert_eq!(said.code, Some(0), "{said:?}");
        let status = said_json(self.0.storefs(&["status", "--json", "mnt"]));
        Pid::from_raw(status["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let by_force = UnmountFlags::FORCE | UnmountFlags::DETACH;
        while rustix::mount::unmount(self.0.root().join("mnt"), by_force).is_ok() {}
    }
}

fn said_json(mut command: Command) -> serde_json::Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_new_mount_takes_the_place_of_one_that_was_killed_under_load() {
    let world = World::new();
    let place = Background(&world);
    let mut ledger = Ledger::default();
    let mut daemon = place.start();
    for round in 0..kills() {
        let mut writers = Writers::start(&world.root().join("mnt/default"), ledger.highest);
        writers.work(&mut ledger, 1 + round * 5 % 12, PLAIN);
        rustix::process::kill_process(daemon, Signal::KILL).unwrap();
        // No help from here: whoever hangs in the dead mount is freed by the new one, or never.
        daemon = place.start();
        writers.end(&mut ledger, PLAIN);
    }
    let said = said(&mut world.storefs(&["umount", "mnt"]));
    assert_eq!(said.code, Some(0), "{said:?}");
}
