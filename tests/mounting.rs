//! Mounting and its obstacles: places, devices, dead mounts, users.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{Said, World, as_nobody, mountinfo, said};

/// Runs `storefs mount` where it must be refused: exit code, words on standard error, nothing mounted.
#[track_caller]
fn refused(world: &World, arguments: &[&str], code: i32, words: &[&str]) -> Said {
    let said = said(world.storefs(&["mount"]).args(arguments));
    assert_eq!(said.code, Some(code), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is missing: {said:?}");
    }
    said
}

// README: S40
#[test]
fn a_mountpoint_is_made_when_missing_and_removed_at_unmount() {
    let world = World::new();
    let mount = world.mount(&[]);
    assert!(mountinfo(&world.root().join("mnt")).is_some());
    mount.unmount();
    assert!(!world.root().join("mnt").exists());
}

// README: S40
#[test]
fn a_mountpoint_that_was_there_stays_after_unmount() {
    let world = World::new();
    fs::create_dir(world.root().join("mnt")).unwrap();
    world.mount(&[]).unmount();
    assert!(world.root().join("mnt").is_dir());
}

#[test]
fn a_place_with_spaces_and_a_link_to_it_are_the_same_mount() {
    let world = World::new();
    fs::create_dir(world.root().join("my mount")).unwrap();
    std::os::unix::fs::symlink("my mount", world.root().join("link")).unwrap();
    let mount = world.mount_at("my mount", &[]);
    let status = said(&mut world.storefs(&["status", "--json", "link"]));
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.out.contains("my mount"));
    mount.unmount();
}

// README: S41
#[test]
fn source_and_mountpoint_are_kept_apart() {
    let world = World::new();
    refused(
        &world,
        &["storage", "storage/mnt"],
        2,
        &["inside its own source"],
    );
    refused(
        &world,
        &["storage", "storage"],
        2,
        &["inside its own source"],
    );
    refused(
        &world,
        &["-o", "nonempty", "storage", "."],
        2,
        &["hide its own source"],
    );
    assert!(!world.storage().join("mnt").exists());
}

// README: S41
#[test]
fn a_mountpoint_that_is_not_empty_needs_an_option() {
    let world = World::new();
    fs::create_dir(world.root().join("mnt")).unwrap();
    fs::write(world.root().join("mnt/note"), "mine").unwrap();
    refused(
        &world,
        &["storage", "mnt"],
        1,
        &["not empty", "-o nonempty"],
    );
    world.mount(&["-o", "nonempty"]).unmount();
    assert_eq!(
        fs::read_to_string(world.root().join("mnt/note")).unwrap(),
        "mine"
    );
}

// README: S41
#[test]
fn an_occupied_mountpoint_is_refused_and_left_as_it_is() {
    let world = World::new();
    let mount = world.mount(&[]);
    refused(
        &world,
        &["storage", "mnt"],
        1,
        &["mounted there already", "storefs umount"],
    );
    assert!(mount.path("default").is_dir());
    refused(&world, &["storage", "/proc"], 1, &["type proc"]);
}

#[test]
fn places_that_are_no_directories_are_refused() {
    let world = World::new();
    fs::write(world.root().join("file"), "").unwrap();
    refused(&world, &["storage", "file"], 1, &["it is a file"]);
    refused(&world, &["storage", "no/such/place"], 1, &["mkdir -p"]);
}

// README: S42
#[test]
fn a_dead_mount_of_ours_is_cleaned_up_by_the_next() {
    let world = World::new();
    fs::write(world.source("default/OUTPUT.json"), "{}").unwrap();
    let mut dead = world.mount(&[]);
    dead.kill();
    assert_eq!(
        fs::metadata(dead.path("")).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );
    let mount = world.mount(&[]);
    assert_eq!(mount.sh("cat \"$MNT/default/OUTPUT\""), "{}");
    assert!(
        mount.log().contains("cleaned up a dead mount"),
        "{}",
        mount.log()
    );
    let mounts = fs::read("/proc/self/mountinfo").unwrap();
    let mounts = String::from_utf8_lossy(&mounts);
    let here = world.root().join("mnt");
    assert_eq!(mounts.matches(here.to_str().unwrap()).count(), 1);
}

// README: S42
#[test]
fn a_dead_mount_is_shown_and_taken_away_by_umount() {
    let world = World::new();
    let mut dead = world.mount(&[]);
    dead.kill();
    let status = said(&mut dead.storefs(&["status", "--json"]));
    assert!(status.out.contains("\"dead\""), "{status:?}");
    let umount = said(&mut dead.storefs(&["umount"]));
    assert_eq!(umount.code, Some(0), "{umount:?}");
    assert_eq!(mountinfo(&world.root().join("mnt")), None);
    assert!(world.root().join("mnt").is_dir());
}

// README: S34
#[test]
fn two_mounts_of_one_folder_see_each_other() {
    let world = World::new();
    let one = world.mount_at("one", &[]);
    let two = world.mount_at("two", &[]);
    one.sh("echo '{\"from\":\"one\"}' > \"$MNT/default/OUTPUT\"");
    two.sync();
    assert_eq!(
        two.sh("cat \"$MNT/default/OUTPUT\""),
        "{\"from\":\"one\"}\n"
    );
    one.unmount();
    assert!(two.path("default/OUTPUT").exists());
}

#[test]
fn a_read_only_mount_refuses_writes() {
    let world = World::new();
    fs::write(world.source("default/OUTPUT.json"), "{}").unwrap();
    let mount = world.mount(&["-o", "ro"]);
    assert_eq!(fs::read(mount.path("default/OUTPUT")).unwrap(), b"{}");
    let write = fs::write(mount.path("default/OUTPUT"), "x").unwrap_err();
    assert_eq!(write.raw_os_error(), Some(libc::EROFS));
    assert!(
        mountinfo(&mount.path("")).is_none()
            || mountinfo(&world.root().join("mnt"))
                .unwrap()
                .contains(" ro")
    );
}

#[test]
fn the_mount_says_what_it_is_in_the_list_of_mounts() {
    let world = World::new();
    let _mount = world.mount(&[]);
    let line = mountinfo(&world.root().join("mnt")).unwrap();
    assert!(line.contains(" fuse.storefs "), "{line}");
    assert!(line.contains(world.storage().to_str().unwrap()), "{line}");
    assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
}

/// Runs a script as root in namespaces of its own: its mounts and processes end with it.
#[track_caller]
fn in_private_namespace(world: &World, script: &str) -> Said {
    // Logs and sockets of these mounts go with the namespace as well.
    let places = "/var/lib/storefs /run/storefs";
    let private =
        format!("for place in {places}; do mkdir -p $place; mount -t tmpfs none $place; done");
    let script = format!("mount --make-rprivate /; {private}; {script}");
    let mut command = Command::new("unshare");
    support::clean(&mut command)
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .args(["bash", "-uc", &script])
        .env("STOREFS", support::STOREFS)
        .current_dir(world.root());
    said(&mut command)
}

#[test]
fn mount_8_mounts_it_as_a_line_of_fstab_would() {
    let world = World::new();
    fs::write(world.source("default/OUTPUT.json"), "{}").unwrap();
    // Only the name that mount(8) looks for is needed in /sbin.
    let script = r#"set -e
        mount -t tmpfs none "$(readlink -f /sbin)"
        ln -s "$STOREFS" /sbin/mount.fuse.storefs
        mount -t fuse.storefs "$PWD/storage" "$PWD/mnt" -o defaults,noauto,nofail,x-systemd.automount,ro
        grep -c ' fuse.storefs ro,' /proc/mounts
        cat mnt/default/OUTPUT
        umount mnt"#;
    fs::create_dir(world.root().join("mnt")).unwrap();
    let said = in_private_namespace(&world, script);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.ends_with("1\n{}"), "{said:?}");
}

#[test]
fn umount_returns_when_the_disk_of_the_folder_can_be_unmounted() {
    let world = World::new();
    let script = r#"set -e
        mkdir disk mnt
        for round in 1 2 3 4 5; do
            mount -t tmpfs none disk
            mkdir -p disk/default
            "$STOREFS" mount disk mnt >/dev/null
            echo one > mnt/default/OUTPUT
            "$STOREFS" umount mnt
            umount disk
        done"#;
    let said = in_private_namespace(&world, script);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn without_the_device_the_error_says_how_to_get_it() {
    let world = World::new();
    // An empty /dev but for what the shell needs.
    let script = "touch null; mount --bind /dev/null null; mount -t tmpfs none /dev; touch /dev/null; \
                  mount --bind null /dev/null; \"$STOREFS\" mount storage mnt";
    let said = in_private_namespace(&world, script);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("/dev/fuse") && said.err.contains("modprobe fuse"),
        "{said:?}"
    );
    assert!(said.err.contains("--device /dev/fuse"), "{said:?}");
    assert!(!world.root().join("mnt").exists());
}

#[test]
fn a_user_mounts_by_fusermount3_and_reads_writes_and_unmounts() {
    let world = World::new();
    fs::write(world.source("default/INPUT.json"), "{\"a\":1}").unwrap();
    let out = as_nobody(
        &world,
        r#"
        id -un
        storefs mount "$SRC" "$MNT" >/dev/null
        cat "$MNT/default/INPUT"; echo
        echo '{"b":2}' > "$MNT/default/OUTPUT"
        cat "$MNT/default/OUTPUT"
        getfattr --only-values -n user.mime_type "$MNT/default/OUTPUT"; echo
        storefs sync "$MNT"
        storefs umount "$MNT"
        test ! -e "$MNT"
        "#,
    );
    let json = "application/json; charset=utf-8";
    assert_eq!(out, format!("nobody\n{{\"a\":1}}\n{{\"b\":2}}\n{json}\n"));
    let kept: Vec<_> = fs::read_dir(world.source("default"))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        kept.iter()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("OUTPUT"))
    );
}

// README: S46
#[test]
fn a_user_whose_mount_is_unmounted_by_fusermount3_loses_nothing() {
    let world = World::new();
    let out = as_nobody(
        &world,
        r#"
        storefs mount "$SRC" "$MNT" >/dev/null
        pid=$(storefs status --json "$MNT" | grep -oP '"pid": \K[0-9]+')
        echo '{"b":2}' > "$MNT/default/OUTPUT"
        fusermount3 -u "$MNT"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
        storefs mount "$SRC" "$MNT" >/dev/null
        cat "$MNT/default/OUTPUT"
        storefs umount "$MNT"
        "#,
    );
    assert_eq!(out, "{\"b\":2}\n");
}

#[test]
fn a_user_whose_daemon_was_killed_mounts_again_at_the_same_place() {
    let world = World::new();
    let out = as_nobody(
        &world,
        r#"
        storefs mount "$SRC" "$MNT" >/dev/null
        echo '{"b":2}' > "$MNT/default/OUTPUT"
        kill -9 $(storefs status --json "$MNT" | grep -oP '"pid": \K[0-9]+')
        while cat "$MNT/default/OUTPUT" >/dev/null 2>&1; do sleep 0.02; done
        storefs mount "$SRC" "$MNT" >/dev/null
        cat "$MNT/default/OUTPUT"
        storefs umount "$MNT"
        "#,
    );
    assert_eq!(out, "{\"b\":2}\n");
}

#[test]
fn a_user_learns_why_the_device_is_closed_to_him() {
    let world = World::new();
    // The parent of the storage must be open to the user for the device to be the obstacle.
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let copy = world.root().join("storefs");
    fs::copy(support::STOREFS, &copy).unwrap();
    let script = "mkdir dev; mount -t tmpfs -o mode=755 none dev; mknod -m 0600 dev/fuse c 10 229; \
                  mount --bind dev/fuse /dev/fuse; HOME=$PWD setpriv --reuid=nobody --regid=nogroup --clear-groups -- \
                  ./storefs mount storage mnt";
    let said = in_private_namespace(&world, script);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("permission denied") && said.err.contains("/dev/fuse"),
        "{said:?}"
    );
}

#[test]
fn a_user_is_told_what_allow_other_needs() {
    let allowed = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if allowed
        .lines()
        .any(|line| line.trim() == "user_allow_other")
    {
        eprintln!("not checked: this machine lets users allow others");
        return;
    }
    let world = World::new();
    let out = as_nobody(
        &world,
        r#"storefs mount -o allow_other "$SRC" "$MNT" 2>&1 || echo "code $?""#,
    );
    assert!(
        out.contains("user_allow_other") && out.ends_with("code 1\n"),
        "{out}"
    );
}

#[test]
fn a_folder_that_cannot_be_read_is_refused() {
    let world = World::new();
    fs::create_dir(world.root().join("closed")).unwrap();
    fs::set_permissions(
        world.root().join("closed"),
        fs::Permissions::from_mode(0o300),
    )
    .unwrap();
    let out = as_nobody(
        &world,
        r#"storefs mount closed "$MNT" 2>&1 || echo "code $?""#,
    );
    assert!(
        out.contains("Permission denied") && out.ends_with("code 1\n"),
        "{out}"
    );
    assert!(!Path::new(&world.root().join("mnt")).exists());
}

#[test]
fn a_mountpoint_that_vanishes_under_another_namespace_ends_the_mount_well() {
    let world = World::new();
    fs::create_dir(world.root().join("mnt")).unwrap();
    let mut mount = world.mount(&[]);
    // umount(8) from outside, then the directory goes.
    mount.sh("umount \"$MNT\"; rmdir \"$MNT\"");
    let status = mount.wait();
    assert!(status.success(), "{status:?}\n{}", mount.log());
}
