//! The verbs umount, sync and status on a mount that lives, and on one that is in use.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Reader, World, mountinfo, said, wait_until};

fn record(world: &World) {
    fs::write(world.source("default/OUTPUT.json"), "{\"a\":1}").unwrap();
}

// README: S43
#[test]
fn umount_of_a_busy_mount_names_the_processes_and_leaves_it() {
    let world = World::new();
    record(&world);
    let mount = world.mount(&[]);
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    let busy = said(&mut mount.storefs(&["umount"]));
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(
        busy.err
            .contains(&format!("tail (pid {}: default/OUTPUT)", reader.pid())),
        "{busy:?}"
    );
    assert!(busy.err.contains("--lazy"), "{busy:?}");
    assert!(mount.path("default/OUTPUT").exists());
    drop(reader);
    mount.unmount();
}

#[test]
fn umount_of_a_mount_that_is_somebodys_working_directory_says_so() {
    let world = World::new();
    let mount = world.mount(&[]);
    let mut sleeper = Command::new("sleep")
        .arg("600")
        .current_dir(mount.path("default"))
        .spawn()
        .unwrap();
    let busy = said(&mut mount.storefs(&["umount"]));
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    assert_eq!(busy.code, Some(1), "{busy:?}");
    assert!(
        busy.err.contains("sleep (pid") && busy.err.contains("working directory"),
        "{busy:?}"
    );
}

// README: S43
#[test]
fn umount_with_a_timeout_waits_until_the_mount_is_free() {
    let world = World::new();
    record(&world);
    let mut command = world.storefs(&["mount", "--foreground", "storage", "mnt"]);
    command.env("STOREFS_LOG", "debug");
    let mut mount = support::Mount::start(command, &world.root().join("mnt"), &world.storage());
    let reader = Reader::of(&mount.path("default/OUTPUT"));
    let umount = mount
        .storefs(&["umount", "--timeout", "60s"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the daemon was asked in vain", || {
        mount.log().contains("refused over the control socket")
    });
    drop(reader);
    let output = umount.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(mount.wait().success());
}

// README: S43
#[test]
fn a_lazy_umount_detaches_at_once_and_the_open_file_stays_readable() {
    let world = World::new();
    record(&world);
    let mut mount = world.mount(&[]);
    let file = fs::File::open(mount.path("default/OUTPUT")).unwrap();
    let lazy = said(&mut mount.storefs(&["umount", "--lazy"]));
    assert_eq!(lazy.code, Some(0), "{lazy:?}");
    assert_eq!(mountinfo(&world.root().join("mnt")), None);
    assert_eq!(std::io::read_to_string(&file).unwrap(), "{\"a\":1}");
    // The place is free for the next mount while the old one still ends.
    let next = world.mount(&[]);
    assert!(next.path("default/OUTPUT").exists());
    drop(file);
    assert!(mount.wait().success(), "{}", mount.log());
    next.sync();
    next.unmount();
}

// README: S43
#[test]
fn umount_of_a_mount_whose_daemon_is_stopped_fails_in_time_and_leaves_it() {
    let world = World::new();
    record(&world);
    let mount = world.mount(&[]);
    mount.signal(Signal::STOP);
    let since = Instant::now();
    let mut sync = mount.storefs(&["sync"]);
    let sync = std::thread::spawn(move || said(&mut sync));
    let late = said(&mut mount.storefs(&["umount", "--timeout", "3s"]));
    let sync = sync.join().unwrap();
    mount.signal(Signal::CONT);
    assert_eq!(sync.code, Some(3), "{sync:?}");
    assert!(sync.err.contains("nobody answers"), "{sync:?}");
    assert_eq!(late.code, Some(3), "{late:?}");
    let pid = format!("(pid {}) does not answer", mount.pid());
    assert!(late.err.contains(&pid), "{late:?}");
    assert!(late.err.contains("--lazy"), "{late:?}");
    assert!(since.elapsed() < Duration::from_secs(45), "{late:?}");
    // Who has given up does not get what was asked for later.
    mount.sync();
    assert_eq!(
        fs::read_to_string(mount.path("default/OUTPUT")).unwrap(),
        "{\"a\":1}"
    );
    mount.unmount();
}

// README: S43
#[test]
fn a_lazy_umount_does_not_wait_for_a_daemon_that_is_stopped() {
    let world = World::new();
    let mut mount = world.mount(&[]);
    mount.signal(Signal::STOP);
    let lazy = said(&mut mount.storefs(&["umount", "--lazy"]));
    assert_eq!(mountinfo(&world.root().join("mnt")), None);
    // A mount that takes its place is not touched when it goes on.
    let next = world.mount(&[]);
    mount.signal(Signal::CONT);
    assert_eq!(lazy.code, Some(0), "{lazy:?}");
    assert!(lazy.err.contains("does not answer"), "{lazy:?}");
    assert!(mount.wait().success(), "{}", mount.log());
    next.sync();
    next.unmount();
}

// README: S46
#[test]
fn umount_8_ends_the_process_well() {
    let world = World::new();
    let mut mount = world.mount(&[]);
    mount.sh("umount \"$MNT\"");
    assert!(mount.wait().success(), "{}", mount.log());
    assert!(!world.root().join("mnt").exists());
}

// README: S46
#[test]
fn what_was_written_is_in_the_folder_after_unmount() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain"]);
    for number in 0..50 {
        fs::write(
            mount.path(&format!("default/R{number}")),
            number.to_string(),
        )
        .unwrap();
    }
    mount.unmount();
    for number in 0..50 {
        assert_eq!(
            fs::read_to_string(world.source(&format!("default/R{number}"))).unwrap(),
            number.to_string()
        );
    }
}

#[test]
fn sync_waits_for_a_store_and_refuses_one_that_is_not_there() {
    let world = World::new();
    let mount = world.mount(&[]);
    let known = said(mount.storefs(&["sync"]).arg("default"));
    assert_eq!(known.code, Some(0), "{known:?}");
    let unknown = said(mount.storefs(&["sync"]).arg("nowhere"));
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.err.contains("nowhere"), "{unknown:?}");
}

// README: S33
#[test]
fn sync_makes_changes_by_others_visible() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain"]);
    assert!(!mount.path("default/NEW").exists());
    fs::write(world.source("default/NEW"), "1").unwrap();
    mount.sync();
    assert!(mount.path("default/NEW").exists());
    fs::remove_file(world.source("default/NEW")).unwrap();
    mount.sync();
    assert!(!mount.path("default/NEW").exists());
}

#[test]
fn status_shows_the_mount_as_lines_json_and_in_the_list() {
    let world = World::new();
    let mount = world.mount(&[]);
    let status = mount.status();
    assert_eq!(
        status["mountpoint"],
        world.root().join("mnt").to_str().unwrap()
    );
    assert_eq!(status["source"], world.storage().to_str().unwrap());
    assert_eq!(status["state"], "mounted");
    assert_eq!(status["pid"], mount.pid());
    let lines = said(&mut mount.storefs(&["status"]));
    assert!(lines.out.contains("state: mounted\n"), "{lines:?}");
    let list = said(&mut world.storefs(&["status"]));
    let row = list
        .out
        .lines()
        .find(|line| line.starts_with(world.root().join("mnt").to_str().unwrap()));
    assert!(row.is_some_and(|row| row.contains("mounted")), "{list:?}");
    let all: serde_json::Value =
        serde_json::from_str(&said(&mut world.storefs(&["status", "--json"])).out).unwrap();
    let pid = u64::from(mount.pid());
    assert!(all.as_array().unwrap().iter().any(|one| one["pid"] == pid));
}

#[test]
fn a_mount_whose_paths_are_no_text_is_shown_as_mounted() {
    let world = World::new();
    let folder = world.root().join(OsStr::from_bytes(b"not \xff text"));
    fs::create_dir_all(folder.join("storage/key_value_stores/default")).unwrap();
    let path = folder.join("mnt");
    for source in [folder.join("storage"), "memory:".into()] {
        let mut command = world.storefs(&["mount", "--foreground"]);
        command.arg(&source).arg(&path).env("TMPDIR", &folder);
        let mount = support::Mount::start(command, &path, &folder.join("storage"));
        let status = mount.status();
        assert_eq!(status["state"], "mounted", "{status}");
        let shown = path.display().to_string();
        assert_eq!(status["mountpoint"], shown, "{status}");
        let backend = serde_json::to_string(&status["backend"]).unwrap();
        assert!(backend.contains("not \u{fffd} text"), "{backend}");
        let list = said(&mut world.storefs(&["status"]));
        let row = list.out.lines().find(|line| line.starts_with(&shown));
        assert!(row.is_some_and(|row| row.contains("mounted")), "{list:?}");
        mount.sync();
        mount.unmount();
    }
}
