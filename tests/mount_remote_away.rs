//! Mounts of a server, by the real kernel: a server that goes away, kills, tokens, and two who write one record.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use rustix::process::Signal;
use shop::{Shop, text};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::{said, wait_until, xattr_of};

// README: S115
#[test]
fn unmounting_sends_what_waits() {
    let shop = Shop::open();
    let mount = shop.mount_with("mnt", "debounce=10m");
    fs::write(mount.path("default/LAST"), "word").unwrap();
    assert_eq!(shop.behind("default", "LAST"), None);
    assert_eq!(
        xattr_of(&mount.path("default/LAST"), "user.storefs.state"),
        "dirty"
    );
    mount.unmount();
    assert_eq!(shop.behind("default", "LAST").unwrap(), b"word");
}

// README: S116, S117
#[test]
fn a_server_that_is_away_is_read_from_the_cache_and_written_to_later() {
    let mut shop = Shop::open();
    let mut mount = shop.mount("mnt");
    fs::write(mount.path("default/known"), "before").unwrap();
    mount.sync();
    assert_eq!(text(&mount.path("default/known")), "before");
    shop.close();
    fs::write(mount.path("default/new"), "while it was away").unwrap();
    assert_eq!(text(&mount.path("default/known")), "before");
    assert_eq!(mount.sh("ls $MNT/default"), "known\nnew\n");
    let late = said(&mut mount.storefs(&["sync", "--timeout", "1s"]));
    assert_eq!(late.code, Some(3), "{late:?}");
    let status = mount.status().to_string();
    assert!(status.contains("offlineSince"), "{status}");
    let left = said(&mut mount.storefs(&["umount", "--timeout", "1s"]));
    assert_eq!(left.code, Some(3), "{left:?}");
    assert!(left.err.contains("next mount"), "{left:?}");
    assert_eq!(mount.wait().code(), Some(3), "{}", mount.log());
    // It mounts without the server too.
    let mount = shop.mount("mnt");
    assert_eq!(
        mount.sh("cat $MNT/default/known $MNT/default/new"),
        "beforewhile it was away"
    );
    shop.start();
    mount.sync();
    assert_eq!(shop.behind("default", "new").unwrap(), b"while it was away");
    mount.unmount();
}

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
    const KILLS: usize = 20;
    let shop = Shop::open();
    let mut closed = Vec::new();
    let mut unsent = 0;
    for round in 0..KILLS {
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
        let spool = shop.world.root().join("cache-mnt/spool");
        unsent += usize::from(fs::read_dir(spool).unwrap().count() > 1);
    }
    assert!(
        unsent * 4 >= KILLS * 3,
        "only {unsent} kills met unsent edits"
    );
    let mount = shop.mount("mnt");
    mount.sync();
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
    mount.unmount();
}

// README: S118
#[test]
fn a_wrong_token_mounts_nothing_and_is_in_no_message() {
    let shop = Shop::open();
    let mut command = shop.command("mnt", "");
    let said = shop.refused(command.env("APIFY_TOKEN", "s3cr3t-and-wrong"));
    assert!(said.err.contains("token"), "{said:?}");
    assert!(!said.err.contains("s3cr3t"), "{said:?}");
    assert_eq!(support::mountinfo(&shop.world.root().join("mnt")), None);
    let mount = shop.mount("mnt");
    let shown = fs::read(format!("/proc/{}/cmdline", mount.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&shown).contains(&shop.token));
    let line = support::mountinfo(&shop.world.root().join("mnt")).unwrap();
    assert!(
        line.contains(&shop.url()) && !line.contains(&shop.token),
        "{line}"
    );
    assert!(!mount.log().contains(&shop.token));
    mount.unmount();
}

// README: S118
#[test]
fn after_a_hangup_the_token_of_the_file_is_the_one_that_is_shown() {
    let shop = Shop::open();
    let file = shop.world.root().join("token");
    fs::write(&file, &shop.token).unwrap();
    shop.world.sh("chmod 600 token");
    let mount = shop.mount_with("mnt", &format!("token-file={}", file.display()));
    fs::write(mount.path("default/a"), "1").unwrap();
    mount.sync();
    let new = said(&mut shop.world.storefs(&[
        "token",
        "new",
        "--user",
        "ann",
        "--tokens",
        "tokens.json",
    ]));
    assert_eq!(new.code, Some(0), "{new:?}");
    let listed = said(
        &mut shop
            .world
            .storefs(&["token", "list", "--tokens", "tokens.json"]),
    );
    let old = shop.token.split('_').nth(1).unwrap();
    assert!(listed.out.contains(old), "{listed:?}");
    let revoked =
        said(
            &mut shop
                .world
                .storefs(&["token", "revoke", old, "--tokens", "tokens.json"]),
        );
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    fs::write(mount.path("default/b"), "2").unwrap();
    let late = said(&mut mount.storefs(&["sync", "--timeout", "2s"]));
    assert_ne!(late.code, Some(0), "{late:?}");
    assert_eq!(shop.behind("default", "b"), None);
    fs::write(&file, new.out.trim()).unwrap();
    mount.signal(Signal::HUP);
    wait_until("the token is read again", || {
        mount.log().contains("read the token again")
    });
    mount.sync();
    assert_eq!(shop.behind("default", "b").unwrap(), b"2");
    mount.unmount();
}

// README: S120
#[test]
fn two_mounts_that_write_one_record_lose_neither() {
    let shop = Shop::open();
    let (one, two) = (
        shop.mount_with("one", "debounce=10m"),
        shop.mount_with("two", "debounce=10m"),
    );
    fs::write(one.path("default/doc.txt"), "base").unwrap();
    one.sync();
    assert_eq!(text(&one.path("default/doc.txt")), "base");
    wait_until("both have read it", || {
        fs::read_to_string(two.path("default/doc.txt")).is_ok_and(|text| text == "base")
    });
    fs::write(one.path("default/doc.txt"), "of one").unwrap();
    fs::write(two.path("default/doc.txt"), "of two").unwrap();
    one.sync();
    two.sync();
    let names = shop
        .world
        .sh("ls $SRC/key_value_stores/default | grep -v __metadata__ | grep conflict");
    assert_eq!(
        names
            .lines()
            .filter(|name| !name.ends_with(".txt.txt"))
            .count(),
        1,
        "{names}"
    );
    assert_eq!(text(&one.path("default/doc.txt")), "of one");
    let copy = two.sh("cat $MNT/default/doc.conflict-*");
    assert_eq!(copy, "of two");
    one.unmount();
    two.unmount();
}
