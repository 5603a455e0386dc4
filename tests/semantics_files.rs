//! What README.md says of reading, writing, owners and locks, through the real kernel.
//! Must never need an SDK.
#![allow(clippy::unwrap_used)]

#[path = "kernel/mod.rs"]
mod kernel;

use kernel::support::{World, set_xattr, type_of, wait_until, xattr_of};
use kernel::{DUAL, EVERY, Mount, PLAIN, PLAIN_DAEMON, errno, names_in};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a script as `nobody`, with `MNT` set.
fn as_nobody(mount: &Path, script: &str) {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .args(["bash", "-euo", "pipefail", "-c", script])
        .env("MNT", mount);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A mount that every user may use, in a world that every user may enter.
fn for_all(layout: &str, more: &str) -> (World, kernel::support::Mount) {
    let world = World::new();
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = world.mount(&["-o", &format!("layout={layout},allow_other{more}")]);
    fs::set_permissions(mount.path("default"), fs::Permissions::from_mode(0o777)).unwrap();
    (world, mount)
}

// README: S12, S16
#[test]
fn a_file_being_written_is_seen_growing_in_its_mount_and_nowhere_else() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let mut file = File::create(mount.path("default/OUTPUT")).unwrap();
        file.write_all(b"ne").unwrap();
        assert_eq!(mount.read("OUTPUT"), "ne", "{way}");
        assert_eq!(
            fs::metadata(mount.path("default/OUTPUT")).unwrap().len(),
            2,
            "{way}"
        );
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"old\n", "{way}");
        file.write_all(b"w").unwrap();
        assert_eq!(mount.read("OUTPUT"), "new", "{way}");
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"old\n", "{way}");
        drop(file);
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"new", "{way}");
    }
}

// README: S14, S15
#[test]
fn fsync_gives_the_file_its_place_before_the_close() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let mut file = File::create(mount.path("default/OUTPUT")).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"old\n", "{way}");
        file.sync_all().unwrap();
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"new", "{way}");
        file.write_all(b"er").unwrap();
        drop(file);
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"newer", "{way}");
        File::open(mount.path("default"))
            .unwrap()
            .sync_all()
            .unwrap();
    }
}

// README: S18
#[test]
fn what_is_opened_without_truncation_is_written_in_place() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("printf 0123456789 > OUTPUT");
        let inode = |mount: &Mount| {
            let found = fs::metadata(mount.backing("default").join("OUTPUT"));
            found.unwrap().ino()
        };
        let first = inode(&mount);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(mount.path("default/OUTPUT"))
            .unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        file.write_all(b"xx").unwrap();
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"01xx456789", "{way}");
        // As vim saves with `backupcopy=yes`: others see the middle.
        file.set_len(0).unwrap();
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"", "{way}");
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"saved").unwrap();
        drop(file);
        mount.sh("printf more >> OUTPUT; truncate -s 7 OUTPUT");
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"savedmo", "{way}");
        assert_eq!(inode(&mount), first, "{way}");
    }
}

// README: S24, S34
#[test]
fn of_two_mounts_that_create_exclusively_one_wins() {
    for layout in ["plain", "dual"] {
        let world = World::new();
        let option = format!("layout={layout}");
        let mounts = [
            world.mount_at("one", &["-o", &option]),
            world.mount_at("two", &["-o", &option]),
        ];
        for round in 0..30 {
            let name = format!("default/lock-{round}");
            let won: usize = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..4)
                    .map(|n| mounts[n % 2].path(&name))
                    .map(|path| scope.spawn(move || usize::from(File::create_new(path).is_ok())))
                    .collect();
                tries.into_iter().map(|each| each.join().unwrap()).sum()
            });
            assert_eq!(won, 1, "{layout}: {name}");
        }
        // Held open, the name is taken for the other mount before any byte of it is in the folder.
        let held = File::create_new(mounts[0].path("default/held")).unwrap();
        let refused = File::create_new(mounts[1].path("default/held"));
        assert_eq!(errno(refused), libc::EEXIST, "{layout}");
        drop(held);
        fs::write(mounts[0].path("default/seen"), "by both").unwrap();
        mounts[1].sync();
        let read = fs::read_to_string(mounts[1].path("default/seen"));
        assert_eq!(read.unwrap(), "by both", "{layout}");
    }
}

// README: S27
#[test]
fn a_file_renamed_while_it_is_written_becomes_the_record_of_its_new_name() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let mut file = File::create_new(mount.path("default/young")).unwrap();
        file.write_all(b"ne").unwrap();
        fs::rename(mount.path("default/young"), mount.path("default/OUTPUT")).unwrap();
        assert!(!mount.path("default/young").exists(), "{way}");
        assert_eq!(mount.read("OUTPUT"), "ne", "{way}");
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"old\n", "{way}");
        file.write_all(b"w").unwrap();
        drop(file);
        assert_eq!(mount.beside("OUTPUT").unwrap(), b"new", "{way}");
        assert_eq!(mount.names(), ["OUTPUT"], "{way}");
    }
}

// README: S26
#[test]
fn a_renamed_record_keeps_bytes_times_and_type_also_in_another_store() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("mkdir \"$MNT/other\"; echo x > a.json; touch -d 2001-02-03T04:05:06Z a.json");
        set_xattr(
            &mount.path("default/a.json"),
            "user.mime_type",
            "text/x-mine",
        );
        for to in ["default/b.txt", "other/c", "default/d.csv"] {
            let from = if to == "default/b.txt" {
                "default/a.json"
            } else if to == "other/c" {
                "default/b.txt"
            } else {
                "other/c"
            };
            fs::rename(mount.path(from), mount.path(to)).unwrap();
            let path = mount.path(to);
            assert_eq!(fs::read_to_string(&path).unwrap(), "x\n", "{way}: {to}");
            assert_eq!(type_of(&path), "text/x-mine", "{way}: {to}");
            let modified = fs::metadata(&path).unwrap().mtime();
            assert_eq!(modified, 981_173_106, "{way}: {to}");
            assert!(!mount.path(from).exists(), "{way}: {from}");
        }
    }
}

// README: S28
#[test]
fn a_new_version_takes_mode_owner_and_attributes_of_the_old_one() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT; chmod 640 OUTPUT; chown 65534:65534 OUTPUT");
        let path = mount.path("default/OUTPUT");
        set_xattr(&path, "user.note", "mine");
        mount.sh("echo new > OUTPUT");
        let about = fs::metadata(&path).unwrap();
        assert_eq!(
            (about.mode() & 0o7777, about.uid(), about.gid()),
            (0o640, 65534, 65534),
            "{way}"
        );
        assert_eq!(xattr_of(&path, "user.note"), "mine", "{way}");
        assert_eq!(mount.read("OUTPUT"), "new\n", "{way}");
    }
}

// README: S29, S30
#[test]
fn a_new_record_belongs_to_its_maker_and_a_users_write_drops_set_user_bits() {
    for (layout, more) in [("plain", ""), ("plain", ",no_passthrough"), ("dual", "")] {
        let (_world, mount) = for_all(layout, more);
        as_nobody(
            &mount.path(""),
            "umask 027; echo x > \"$MNT/default/theirs\"",
        );
        let path = mount.path("default/theirs");
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid()), (65534, 65534), "{layout}{more}");
        assert_eq!(about.mode() & 0o7777, 0o640, "{layout}{more}");
        for write in [
            "echo y >> \"$MNT/default/theirs\"",
            "truncate -s 1 \"$MNT/default/theirs\"",
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o6775)).unwrap();
            as_nobody(&mount.path(""), write);
            let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o775, "{layout}{more}: {write}");
        }
    }
}

// README: S31
#[test]
fn reading_gives_the_current_version_whoever_wrote_it() {
    for way in [PLAIN, PLAIN_DAEMON, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo first > OUTPUT");
        let beside = if way.layout == "plain" {
            mount.backing("default").join("OUTPUT")
        } else {
            mount.backing("default").join("OUTPUT.txt")
        };
        let aside = mount.outside().join("aside");
        for round in 0..40 {
            let text = format!("version {round} {}\n", "x".repeat(round));
            if round % 2 == 0 {
                fs::write(&beside, &text).unwrap();
            } else {
                fs::write(&aside, &text).unwrap();
                fs::rename(&aside, &beside).unwrap();
            }
            let mut read = String::new();
            let mut file = File::open(mount.path("default/OUTPUT")).unwrap();
            file.read_to_string(&mut read).unwrap();
            assert_eq!(read, text, "{way}");
        }
    }
}

// README: S35
#[test]
fn locks_hold_in_one_mount_and_are_not_seen_elsewhere() {
    let world = World::new();
    let one = world.mount_at("one", &["-o", "layout=plain"]);
    let two = world.mount_at("two", &["-o", "layout=plain"]);
    fs::write(one.path("default/A"), "x").unwrap();
    two.sync();
    let held = File::open(one.path("default/A")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let free = |path: PathBuf| {
        let file = File::open(path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    };
    assert!(!free(one.path("default/A")));
    assert!(free(two.path("default/A")));
    assert!(free(world.source("default/A")));
    drop(held);
    // A child that another test is just starting has a copy of the descriptor for a moment.
    wait_until("the lock goes with its file", || {
        free(one.path("default/A"))
    });
    let script = "import fcntl, subprocess, sys
file = open(sys.argv[1], 'r+')
fcntl.lockf(file, fcntl.LOCK_EX)
other = 'import fcntl, sys; fcntl.lockf(open(sys.argv[1], \"r+\"), fcntl.LOCK_EX | fcntl.LOCK_NB)'
busy = subprocess.run([sys.executable, '-c', other, sys.argv[1]], stderr=subprocess.DEVNULL).returncode
free = subprocess.run([sys.executable, '-c', other, sys.argv[2]]).returncode
assert (busy, free) == (1, 0), (busy, free)";
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    command.args([one.path("default/A"), two.path("default/A")]);
    assert!(command.status().unwrap().success());
}

// README: S58, S59
#[test]
fn attributes_that_begin_user_storefs_cannot_be_set() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo x > a");
        let path = mount.path("default/a");
        for name in ["user.storefs.state", "user.storefs.mine"] {
            let set = xattr::set(&path, name, b"x");
            assert_eq!(errno(set), libc::EPERM, "{way}: {name}");
        }
        assert_eq!(xattr_of(&path, "user.storefs.state"), "clean", "{way}");
        assert!(!xattr_of(&path, "user.storefs.etag").is_empty(), "{way}");
        let writing = File::create(&path).unwrap();
        assert_eq!(xattr_of(&path, "user.storefs.state"), "dirty", "{way}");
        drop(writing);
        for name in ["user.storefs.id", "user.storefs.name"] {
            assert_eq!(xattr_of(&mount.path("default"), name), "default", "{way}");
        }
        let acl = Command::new("setfacl")
            .args(["-m", "u:nobody:r"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&acl.stderr).into_owned();
        assert!(said.contains("not supported"), "{way}: {said}");
    }
}

// README: S65, S69
#[test]
fn removing_leaves_no_file_and_the_mountpoint_takes_none() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo '{}' > a; rm a");
        assert_eq!(names_in(&mount.backing("default")), [""; 0], "{way}");
        assert_eq!(
            errno(fs::remove_file(mount.path("default/a"))),
            libc::ENOENT
        );
        mount.sh("echo x > b");
        assert_eq!(
            errno(fs::write(mount.path("file"), "x")),
            libc::EPERM,
            "{way}"
        );
        let renamed = fs::rename(mount.path("default/b"), mount.path("b"));
        assert_eq!(errno(renamed), libc::EPERM, "{way}");
        assert_eq!(mount.names(), ["b"], "{way}");
    }
}
