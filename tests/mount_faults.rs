//! Mounts of a server behind a bad wire: nothing waits longer than its deadline, nothing that is read is wrong, and what was
//! closed meanwhile is on the server afterwards. The bounds here say that something ends, not how fast it is.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;
mod wire;

use shop::{Shop, text};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::{Mount, wait_until};
use wire::{Fault, Wire};

/// What asks for names ends after three seconds; a machine that is busy gets more.
const LOOK: Duration = Duration::from_secs(25);
/// What moves bytes ends after thirty seconds without progress.
const MOVE: Duration = Duration::from_secs(120);

/// A server, and a wire to it that mounts go through.
fn shop() -> (Shop, Wire) {
    let mut shop = Shop::open();
    let wire = Wire::to(&shop.url());
    shop.front = Some(wire.url());
    (shop, wire)
}

fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes
}

/// A record that the server got from somebody else.
fn put(shop: &Shop, key: &str, bytes: &[u8]) {
    let file = shop.world.root().join("put");
    fs::write(&file, bytes).unwrap();
    shop.world.sh(&format!(
        "curl -sf -X PUT -H 'Authorization: Bearer {}' -H 'content-type: application/octet-stream' \
         --data-binary @put {}/v2/key-value-stores/default/records/{key}",
        shop.token,
        shop.url()
    ));
}

/// How a process ends; panics when it does not in this time.
#[track_caller]
fn ends(what: &str, child: &mut Child, within: Duration) -> ExitStatus {
    let until = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("{what} has not ended after {within:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn shell(mount: &Mount, script: &str) -> Child {
    Command::new("bash")
        .args(["-c", script])
        .env("MNT", mount.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a script; panics when it has not ended in this time. Whether it worked, and what it printed.
#[track_caller]
fn run(mount: &Mount, script: &str, within: Duration) -> (bool, String) {
    let mut child = shell(mount, script);
    let status = ends(script, &mut child, within);
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    (status.success(), said)
}

/// Reads a byte, says so, and reads on to the end when it is told; what it says last is the number of the error.
const READER: &str = "
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
os.read(f, 1)
print('ready', flush=True)
sys.stdin.readline()
try:
    while os.read(f, 1 << 20):
        pass
    print('all', flush=True)
except OSError as e:
    print(e.errno, flush=True)
";

/// Somebody who has begun to read.
struct Reading {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Reading {
    fn begin(path: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", READER])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut reading = Self { child, said };
        assert_eq!(reading.line(), "ready");
        reading
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn goes_on(&mut self) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(b"go on\n").unwrap();
    }
}

/// Waits until the server's folder has these bytes.
#[track_caller]
fn arrives(shop: &Shop, key: &str, bytes: &[u8]) {
    let until = Instant::now() + MOVE;
    while shop.behind("default", key).as_deref() != Some(bytes) {
        assert!(Instant::now() < until, "{key} never came");
        thread::sleep(Duration::from_millis(20));
    }
}

// README: S122
#[test]
fn nobody_waits_for_ever_for_a_server_that_takes_connections_and_never_answers() {
    let (shop, wire) = shop();
    put(&shop, "long.bin", &bytes(24 << 20));
    put(&shop, "unread", b"unread");
    let mount = shop.mount_with("mnt", "ttl=100ms");
    fs::write(mount.path("default/known"), "known").unwrap();
    mount.sync();
    assert_eq!(text(&mount.path("default/known")), "known");
    let mut waiting = Reading::begin(&mount.path("default/long.bin"));
    let mut killed = Reading::begin(&mount.path("default/long.bin"));
    wire.set(Fault::Dead);
    // What is known of the store is old by now.
    thread::sleep(Duration::from_secs(2));
    waiting.goes_on();
    killed.goes_on();
    let (walked, _) = run(
        &mount,
        "df $MNT && cd $MNT/default && df . && stat $MNT/default",
        LOOK,
    );
    assert!(walked);
    assert!(
        waiting.child.try_wait().unwrap().is_none(),
        "nobody was waiting meanwhile"
    );
    let (_, listed) = run(&mount, "ls $MNT/default", LOOK);
    assert!(listed.is_empty() || listed.contains("known"), "{listed}");
    run(
        &mount,
        "ls -l $MNT $MNT/default; stat $MNT/default/nothing",
        LOOK,
    );
    let (worked, _) = run(&mount, "cat $MNT/default/unread", LOOK);
    assert!(!worked, "nobody can have answered");
    let (_, known) = run(&mount, "cat $MNT/default/known", LOOK);
    assert_eq!(known, "known");
    let (worked, _) = run(&mount, "echo meanwhile > $MNT/default/new", LOOK);
    assert!(worked);
    let fsync = "python3 -c 'import os
f = os.open(os.environ[\"MNT\"] + \"/default/synced\", os.O_WRONLY | os.O_CREAT)
os.write(f, b\"bytes\")
try: os.fsync(f)
except OSError as e: print(e.errno)
os.close(f)'";
    let mut syncing = shell(&mount, fsync);
    killed.child.kill().unwrap();
    ends("a process that was killed", &mut killed.child, MOVE);
    ends("a read", &mut waiting.child, MOVE);
    let last = waiting.line();
    assert!(
        [libc::EIO, libc::ENETUNREACH, libc::ETIMEDOUT]
            .map(|it| it.to_string())
            .contains(&last),
        "{last}"
    );
    ends("an fsync", &mut syncing, MOVE);
    let mut number = String::new();
    syncing
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut number)
        .unwrap();
    assert_eq!(number.trim(), libc::ETIMEDOUT.to_string());
    wire.set(Fault::None);
    arrives(&shop, "new", b"meanwhile\n");
    arrives(&shop, "synced", b"bytes");
    wait_until("what was not read can be read", || {
        run(&mount, "cat $MNT/default/unread", LOOK) == (true, "unread".to_owned())
    });
    mount.unmount();
}

// README: S19
#[test]
fn what_had_not_come_of_a_version_that_was_replaced_is_stale_and_what_had_come_stays() {
    let (shop, wire) = shop();
    let (old, new) = (bytes(48 << 20), bytes(48 << 20));
    put(&shop, "long.bin", &old);
    let mount = shop.mount("mnt");
    let path = mount.path("default/long.bin");
    wire.set(Fault::Narrow(2 << 20));
    let file = File::open(&path).unwrap();
    let mut first = vec![0; 1000];
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == old[..1000]);
    put(&shop, "long.bin", &new);
    let end = (48 << 20) - 1000;
    let mut last = vec![0; 1000];
    let failed = file.read_exact_at(&mut last, end).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ESTALE));
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == old[..1000]);
    wire.set(Fault::None);
    wait_until("who opens it again has the new version", || {
        let file = File::open(&path).unwrap();
        file.read_exact_at(&mut last, end).is_ok() && last == new[new.len() - 1000..]
    });
    drop(file);
    mount.unmount();
}

// README: S122
#[test]
fn a_record_whose_bytes_stop_coming_fails_and_is_whole_the_next_time() {
    let (shop, wire) = shop();
    let long = bytes(6 << 20);
    put(&shop, "long.bin", &long);
    let mount = shop.mount("mnt");
    assert_eq!(mount.sh("ls $MNT/default"), "long.bin\n");
    wire.set(Fault::Swallow(300_000));
    let file = File::open(mount.path("default/long.bin"));
    // The first bytes may be there, and then they are right.
    if let Ok(file) = file {
        let mut first = vec![0; 1000];
        if file.read_exact_at(&mut first, 0).is_ok() {
            assert!(first == long[..1000]);
        }
    }
    let (worked, _) = run(&mount, "cat $MNT/default/long.bin > /dev/null", MOVE);
    assert!(!worked, "it cannot have come");
    wire.set(Fault::None);
    let copy = shop.world.root().join("copy");
    wait_until("it comes", || {
        fs::copy(mount.path("default/long.bin"), &copy).is_ok()
    });
    assert!(fs::read(&copy).unwrap() == long);
    mount.unmount();
}

#[test]
fn over_connections_that_are_cut_again_and_again_bytes_are_right_or_not_there() {
    let (shop, wire) = shop();
    let (long, short) = (bytes(3 << 20), bytes(200_000));
    put(&shop, "long.bin", &long);
    let mount = shop.mount("mnt");
    assert_eq!(mount.sh("ls $MNT/default"), "long.bin\n");
    wire.set(Fault::CutAnswers(400_000));
    let copy = shop.world.root().join("copy");
    wait_until("it comes in pieces", || {
        fs::copy(mount.path("default/long.bin"), &copy).is_ok()
    });
    assert!(fs::read(&copy).unwrap() == long);
    // Nothing of this length can get there.
    wire.set(Fault::CutRequests(100_000));
    let mut file = File::create(mount.path("default/short.bin")).unwrap();
    file.write_all(&short).unwrap();
    drop(file);
    let queued = || text(&mount.path(".storefs/queue"));
    wait_until("it was tried and is kept", || {
        let queue = queued();
        queue.contains("short.bin") && !queue.contains("\"error\":null")
    });
    assert_eq!(shop.behind("default", "short.bin"), None);
    assert!(fs::read(mount.path("default/short.bin")).unwrap() == short);
    wire.set(Fault::None);
    mount.sync();
    assert!(shop.behind("default", "short.bin").unwrap() == short);
    mount.unmount();
}

#[test]
fn a_slow_and_a_narrow_wire_only_take_longer() {
    let (shop, wire) = shop();
    let (one, two) = (shop.mount("one"), shop.mount("two"));
    for fault in [
        Fault::Slow(Duration::from_millis(150)),
        Fault::Narrow(400_000),
    ] {
        wire.set(fault);
        one.sh("head -c 500000 /dev/urandom > blob
            cp blob $MNT/default/blob
            mkdir -p $MNT/other
            for i in 1 2 3; do echo $i > $MNT/other/$i; done");
        one.sync();
        two.sh("cmp blob $MNT/default/blob
            test \"$(cat $MNT/other/*)\" = \"$(seq 3)\"
            mv $MNT/other/1 $MNT/default/one
            rm $MNT/default/blob $MNT/other/*");
        two.sync();
        wait_until("the other mount sees it", || {
            one.sh("ls $MNT/other; ls $MNT/default") == "one\n"
        });
        one.sh("rm $MNT/default/one");
        one.sync();
    }
    wire.set(Fault::None);
    one.unmount();
    two.unmount();
}
