//! The daemon of a mount of a server is killed under a writing load, over and over: what a program has closed is on the server
//! after the next mount, whole and once. `STOREFS_KILLS` says how often (scripts/soak.sh asks for many).
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use shop::Shop;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::wait_until;

/// Writes records through a mount until it fails, and tells those whose `close` returned well: Rust's own `fs::write`
/// does not look at that.
const WRITER: &str = r#"
import os, sys
n = 0
while True:
    f = os.open(f"{sys.argv[1]}/r{sys.argv[2]}-{n}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(f, str(n).encode() * 40)
    os.close(f)
    n += 1
    print(n, flush=True)
"#;

/// Prints the records whose type is not the one that their bytes show: digits are JSON, unless they begin with zeroes.
const TYPES: &str = r#"python3 - "$MNT/default" <<'E'
import os, sys
for name in os.listdir(sys.argv[1]):
    path = os.path.join(sys.argv[1], name)
    wanted = b"application/json; charset=utf-8" if open(path).read(1) not in "0" else b"text/plain; charset=utf-8"
    if os.getxattr(path, "user.mime_type") != wanted and os.path.getsize(path) > 0:
        print(name, os.getxattr(path, "user.mime_type"))
E"#;

fn kills() -> usize {
    let asked = std::env::var("STOREFS_KILLS").ok();
    asked.map_or(20, |number| number.parse().unwrap())
}

/// How many edits wait in the spool.
fn edits(shop: &Shop) -> usize {
    let notes = shop.world.root().join("cache-mnt/spool/notes");
    let notes = fs::read_to_string(notes).unwrap();
    // The last may be torn. One that is struck out begins with another character.
    let whole = notes.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter(|line| line.starts_with('{')).count()
}

fn write_on(path: &Path, round: usize, closed: &Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    let mut writer = Command::new("python3")
        .args(["-c", WRITER])
        .arg(path)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let closed = Arc::clone(closed);
    thread::spawn(move || {
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            closed.store(line.parse().unwrap(), Ordering::SeqCst);
        }
        writer.wait().unwrap();
    })
}

// README: S115
#[test]
fn no_record_whose_close_returned_is_lost_by_a_kill() {
    let kills = kills();
    let shop = Shop::open();
    let mut closed = Vec::new();
    let mut unsent = 0;
    for round in 0..kills {
        let mut mount = shop.mount_with("mnt", "debounce=50ms");
        let count = Arc::new(AtomicUsize::new(0));
        let writing = write_on(&mount.path("default"), round, &count);
        // The kills come at other moments of the writing each time.
        wait_until("some records are written", || {
            count.load(Ordering::SeqCst) >= 3 + 5 * (round % 7)
        });
        mount.kill();
        support::detach(&shop.world.root().join("mnt"));
        writing.join().unwrap();
        closed.push(count.load(Ordering::SeqCst));
        unsent += usize::from(edits(&shop) > 0);
    }
    assert!(
        unsent * 4 >= kills * 3,
        "only {unsent} of {kills} kills met unsent edits"
    );
    let mount = shop.mount("mnt");
    mount.sync();
    assert_eq!(edits(&shop), 0, "something is still in the spool");
    let mut there = 0;
    for (round, closed) in closed.iter().enumerate() {
        for n in 0..*closed {
            let key = format!("r{round}-{n}");
            let bytes = shop
                .behind("default", &key)
                .unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(bytes, n.to_string().repeat(40).as_bytes(), "{key}");
            there += 1;
        }
        // The one that was being written may be there, whole or as far as it had come.
        there += usize::from(
            shop.behind("default", &format!("r{round}-{closed}"))
                .is_some(),
        );
    }
    let listed = mount.sh("ls $MNT/default | wc -l");
    assert_eq!(listed.trim(), there.to_string(), "something is there twice");
    assert_eq!(mount.sh(TYPES), "", "these have another type");
    println!("{kills} kills, {unsent} with unsent edits, {there} records");
    mount.unmount();
}
