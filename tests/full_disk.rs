//! A disk that fills up at every step of a write: the old record stays whole, the program is told, and when there is
//! room again everything works.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use support::{Mount, SmallDisk, World, type_of, wait_until};

const OLD: &str = "the old value";

/// Takes all room, in whole pages.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let page = [b'x'; 4096];
    loop {
        match io::Write::write(&mut file, &page) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

/// Gives all room back, also while a child that another test is starting still has the descriptor.
fn make_room(ballast: &Path) {
    let file = File::options().write(true).open(ballast).unwrap();
    file.set_len(0).unwrap();
    fs::remove_file(ballast).unwrap();
}

/// The record has its old value and type, through the mount and for whoever reads the folder.
#[track_caller]
fn old_record_is_whole(mount: &Mount, layout: &str, step: &str) {
    let path = mount.path("default/OUTPUT");
    assert_eq!(fs::read_to_string(&path).unwrap(), OLD, "{layout}, {step}");
    assert_eq!(type_of(&path), "text/x-old", "{layout}, {step}");
    let beside = fs::read_dir(mount.source("default")).unwrap();
    let found = beside.flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("OUTPUT") && !name.contains("__metadata__")
    });
    let bytes = fs::read_to_string(found.unwrap().path()).unwrap();
    assert_eq!(bytes, OLD, "{layout}, {step}: in the folder");
}

fn begin(mount: &Mount) {
    let path = mount.path("default/OUTPUT");
    fs::write(&path, OLD).unwrap();
    xattr::set(&path, "user.mime_type", b"text/x-old").unwrap();
}

#[track_caller]
fn works_again(mount: &Mount, layout: &str) {
    let path = mount.path("default/OUTPUT");
    fs::write(&path, "the new value").unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "the new value",
        "{layout}"
    );
    fs::write(mount.path("default/NEW"), "another").unwrap();
    assert_eq!(
        fs::read_to_string(mount.path("default/NEW")).unwrap(),
        "another",
        "{layout}"
    );
}

fn temporaries(world: &World) -> usize {
    let processes = fs::read_dir(world.storage().join(".storefs/tmp")).unwrap();
    processes
        .map(|process| fs::read_dir(process.unwrap().path()).unwrap().count())
        .sum()
}

// README: S22
#[test]
fn a_disk_without_room_keeps_the_old_record() {
    if !support::is_root() {
        return; // only root can mount a small disk
    }
    for layout in ["plain", "dual", "js", "python"] {
        for way in ["", ",no_passthrough"] {
            let disk = SmallDisk::new("size=1m");
            let world = disk.world();
            let mount = world.mount(&["-o", &format!("layout={layout}{way}")]);
            begin(&mount);
            let ballast = world.root().join("ballast");
            fill(&ballast);
            let all = fs::metadata(&ballast).unwrap().len();
            let mut refused = 0;
            let new = "y".repeat(20_000);
            // From no room at all to room for everything.
            for pages in [0, 1, 2, 4, 5, 6, 8] {
                let step = format!("{pages} pages{way}");
                let file = File::options().write(true).open(&ballast).unwrap();
                file.set_len(all - pages * 4096).unwrap();
                let content = wrote(&mount, "OUTPUT", &new);
                let now = fs::read_to_string(mount.path("default/OUTPUT")).unwrap();
                if content {
                    assert!(
                        now == new,
                        "{layout}, {step}: the program was told all is well"
                    );
                } else if way.is_empty() && now != OLD {
                    // The kernel wrote by itself, so only the program knows that something is missing.
                    assert!(new.starts_with(&now), "{layout}, {step}: {now}");
                } else {
                    refused += 1;
                    old_record_is_whole(&mount, layout, &step);
                }
                file.set_len(0).unwrap();
                begin(&mount);
                fill(&ballast);
            }
            assert!(
                refused > 2 || way.is_empty(),
                "{layout}{way}: the disk was never full"
            );
            make_room(&ballast);
            works_again(&mount, layout);
            assert_eq!(temporaries(world), 0, "{layout}{way}");
            mount.unmount();
        }
    }
}

// README: S22
#[test]
fn a_disk_without_inodes_keeps_the_old_record() {
    if !support::is_root() {
        return; // only root can mount a small disk
    }
    for layout in ["plain", "dual", "js", "python"] {
        let disk = SmallDisk::new("size=4m,nr_inodes=64");
        let world = disk.world();
        let mount = world.mount(&["-o", &format!("layout={layout}")]);
        begin(&mount);
        let mut ballast = Vec::new();
        loop {
            let path = world.root().join(format!("ballast-{}", ballast.len()));
            match File::create(&path) {
                Ok(_) => ballast.push(path),
                Err(why) => {
                    assert_eq!(why.raw_os_error(), Some(libc::ENOSPC));
                    break;
                }
            }
        }
        let mut refused = 0;
        // One inode after the other becomes free, until the write succeeds.
        loop {
            let step = format!("{refused} inodes");
            let written = wrote(&mount, "OUTPUT", "the new value");
            let now = fs::read_to_string(mount.path("default/OUTPUT")).unwrap();
            if now == "the new value" {
                assert!(
                    written,
                    "{layout}, {step}: it was written, and the program was told it was not"
                );
                break;
            }
            assert!(
                !written,
                "{layout}, {step}: it was not written, and the program was not told"
            );
            old_record_is_whole(&mount, layout, &step);
            refused += 1;
            fs::remove_file(ballast.pop().unwrap()).unwrap();
        }
        assert!(refused > 0, "{layout}: there was an inode left");
        for path in ballast {
            fs::remove_file(path).unwrap();
        }
        works_again(&mount, layout);
        assert_eq!(temporaries(world), 0, "{layout}");
        mount.unmount();
    }
}

// README: S22
#[test]
fn who_is_told_at_close_that_a_write_failed_reads_the_old_record_at_once() {
    if !support::is_root() {
        return; // only root can mount a small disk
    }
    for layout in ["plain", "dual"] {
        let disk = SmallDisk::new("size=1m");
        let mount = disk
            .world()
            .mount(&["-o", &format!("layout={layout},no_passthrough")]);
        begin(&mount);
        let ballast = disk.world().root().join("ballast");
        fill(&ballast);
        // A second descriptor keeps the handle, so that the kernel does not give it back after the first close. The program
        // is one of its own: no child of this one has its descriptors.
        let script = "import errno, os, sys
record, ballast = sys.argv[1:]
def refused(call, *args):
    try:
        call(*args)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
    else:
        raise AssertionError(f'{call} did not fail')
def value():
    with open(record) as file:
        return file.read(), os.getxattr(record, 'user.mime_type')
fd = os.open(record, os.O_WRONLY | os.O_TRUNC)
held = os.dup(fd)
refused(os.write, fd, b'y' * 20000)
refused(os.close, fd)
old = ('the old value', b'text/x-old')
assert value() == old, value()
# What is written now has no place any more.
os.truncate(ballast, 0)
os.ftruncate(held, 0)
assert os.write(held, b'more') == 4
refused(os.fsync, held)
refused(os.close, held)
assert value() == old, value()";
        let mut python = Command::new("python3");
        python
            .args(["-c", script])
            .arg(mount.path("default/OUTPUT"))
            .arg(&ballast);
        let said = python.output().unwrap();
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{layout}: {stderr}\n{}", mount.log());
        old_record_is_whole(&mount, layout, "after the last close");
        works_again(&mount, layout);
        wait_until("the lost file is gone", || temporaries(disk.world()) == 0);
        mount.unmount();
    }
}

/// Writes with a program that looks at what every call says. Whether it was content.
fn wrote(mount: &Mount, key: &str, text: &str) -> bool {
    let script = "import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
data = sys.argv[2].encode()
while data:
    data = data[os.write(fd, data):]
os.close(fd)";
    let mut python = Command::new("python3");
    let path = mount.path("default").join(key);
    let said = python.args(["-c", script]).arg(path).arg(text).output();
    let content = said.unwrap().status.success();
    // The kernel tells of the last close a moment after it; until then the name leads to what was being written.
    wait_until("the file is closed", || {
        let state = xattr::get(mount.path("default").join(key), "user.storefs.state");
        matches!(state, Ok(Some(state)) if state == b"clean")
    });
    content
}
