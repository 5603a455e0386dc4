//! What the `-o` options of a mount do, on a real mount.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use support::{World, as_nobody, said};

fn names(path: std::path::PathBuf) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn owner_group_and_mask_are_shown_as_asked() {
    let world = World::new();
    fs::write(world.source("default/A"), "1").unwrap();
    fs::set_permissions(world.source("default/A"), fs::Permissions::from_mode(0o666)).unwrap();
    let mount = world.mount(&["-o", "layout=plain,uid=12,gid=34,umask=027"]);
    let about = fs::metadata(mount.path("default/A")).unwrap();
    assert_eq!((about.uid(), about.gid()), (12, 34));
    assert_eq!(about.mode() & 0o777, 0o640);
}

#[test]
fn only_the_stores_that_are_named_are_shown() {
    let world = World::new();
    for store in ["a", "b", "c"] {
        fs::create_dir(world.source(store)).unwrap();
    }
    let mount = world.mount(&["-o", "store=a,store=c"]);
    let shown = names(mount.path(""));
    assert!(
        shown.contains(&"a".to_owned()) && shown.contains(&"c".to_owned()),
        "{shown:?}"
    );
    assert!(!shown.contains(&"b".to_owned()), "{shown:?}");
    assert!(!mount.path("b").exists());
}

#[test]
fn the_default_store_may_have_any_name() {
    let world = World::new();
    fs::create_dir(world.source("main")).unwrap();
    fs::write(world.source("main/OUTPUT"), "here").unwrap();
    let mount = world.mount(&["-o", "layout=plain,default=main"]);
    assert_eq!(
        fs::read_to_string(mount.path("default/OUTPUT")).unwrap(),
        "here"
    );
    assert_eq!(
        fs::read_link(mount.path("default")).unwrap().to_str(),
        Some("main")
    );
}

#[test]
fn the_input_may_have_any_key() {
    let world = World::new();
    fs::write(world.source("default/SETTINGS"), "here").unwrap();
    let mount = world.mount(&["-o", "layout=plain,input-key=SETTINGS"]);
    assert_eq!(
        fs::read_to_string(mount.path("default/INPUT")).unwrap(),
        "here"
    );
}

// README: S32
#[test]
fn with_a_ttl_of_0_changes_by_others_are_seen_at_once() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain,ttl=0"]);
    for round in 0..20 {
        let text = "x".repeat(round + 1);
        fs::write(world.source("default/A"), &text).unwrap();
        assert_eq!(
            fs::metadata(mount.path("default/A")).unwrap().len(),
            text.len() as u64
        );
        fs::remove_file(world.source("default/A")).unwrap();
        assert!(!mount.path("default/A").exists());
    }
}

#[test]
fn the_layout_decides_what_is_on_disk() {
    let world = World::new();
    let mount = world.mount(&["-o", "layout=plain"]);
    fs::write(mount.path("default/OUTPUT"), "{\"a\":1}").unwrap();
    mount.unmount();
    assert_eq!(
        fs::read_to_string(world.source("default/OUTPUT")).unwrap(),
        "{\"a\":1}"
    );
    let world = World::new();
    let mount = world.mount(&["-o", "layout=js"]);
    fs::write(mount.path("default/OUTPUT"), "{\"a\":1}").unwrap();
    mount.unmount();
    assert_eq!(
        fs::read_to_string(world.source("default/OUTPUT.json")).unwrap(),
        "{\"a\":1}"
    );
}

#[test]
fn with_noexec_no_program_can_be_run_out_of_the_mount() {
    for (options, runs) in [("noexec", false), ("noexec,exec", true)] {
        let world = World::new();
        let mount = world.mount(&["-o", options]);
        let path = mount.path("default/hello");
        fs::write(&path, "#!/bin/sh\necho hello\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let done = Command::new(&path).output();
        match done {
            Ok(done) => assert!(runs && done.stdout == b"hello\n", "{options}: {done:?}"),
            Err(why) => assert!(
                !runs && why.kind() == ErrorKind::PermissionDenied,
                "{options}: {why}"
            ),
        }
    }
}

// README: S49
#[test]
fn passthrough_can_be_turned_off_with_the_same_results() {
    let world = World::new();
    fs::write(world.source("default/A"), "first").unwrap();
    let mount = world.mount(&["-o", "layout=plain,no_passthrough"]);
    assert_eq!(mount.status()["passthrough"], false);
    assert_eq!(
        mount.sh("cat \"$MNT/default/A\"; echo -n second >> \"$MNT/default/A\""),
        "first"
    );
    assert_eq!(
        fs::read_to_string(world.source("default/A")).unwrap(),
        "firstsecond"
    );
}

/// Processor time that a process has used, in clock ticks.
fn ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

// README: S49
#[test]
fn wake_ups_are_saved_while_requests_come_quickly_and_nothing_is_busy_afterwards() {
    let world = World::new();
    fs::write(world.source("default/A"), "first").unwrap();
    let burst = |mount: &support::Mount| {
        for _ in 0..1000 {
            xattr::get(mount.path("default/A"), "user.mime_type").unwrap();
        }
    };
    let mount = world.mount(&["-o", "layout=plain,no_spin"]);
    burst(&mount);
    assert_eq!(mount.status()["keptAwake"], serde_json::Value::Null);
    mount.unmount();
    let mount = world.mount(&["-o", "layout=plain"]);
    let kept = || mount.status()["keptAwake"].as_u64();
    // None on one processor, and where a control group limits them.
    if kept().is_some() {
        support::wait_until("something is kept awake", || {
            burst(&mount);
            kept() > Some(0)
        });
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let before = ticks_of(mount.pid());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let used = ticks_of(mount.pid()) - before;
    assert!(
        used < 10,
        "{used} ticks of 50 while nobody asked for anything"
    );
}

/// Whether `nobody` can read the file, here and not in a namespace.
fn nobody_reads(path: &std::path::Path) -> bool {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat"])
        .arg(path);
    said(&mut command).code == Some(0)
}

// README: S47
#[test]
fn others_may_use_the_mount_only_with_allow_other() {
    let world = World::new();
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(world.source("default/A"), "open").unwrap();
    fs::set_permissions(world.source("default/A"), fs::Permissions::from_mode(0o644)).unwrap();
    let mount = world.mount(&["-o", "layout=plain"]);
    assert!(!nobody_reads(&mount.path("default/A")));
    mount.unmount();
    let mount = world.mount(&["-o", "layout=plain,allow_other"]);
    assert!(nobody_reads(&mount.path("default/A")));
    // What the disk forbids, the mount forbids as well.
    fs::write(mount.path("default/B"), "closed").unwrap();
    fs::set_permissions(mount.path("default/B"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!nobody_reads(&mount.path("default/B")));
}

#[test]
fn a_user_gets_the_same_options() {
    let world = World::new();
    fs::write(world.source("default/A"), "1").unwrap();
    let out = as_nobody(
        &world,
        r#"
        storefs mount -o layout=plain,ro,umask=077 "$SRC" "$MNT" >/dev/null
        stat -c %a "$MNT/default/A"
        (echo 2 > "$MNT/default/A") 2>/dev/null || echo refused
        storefs umount "$MNT"
        "#,
    );
    assert_eq!(out, "600\nrefused\n");
}
