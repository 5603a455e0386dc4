//! What README.md says of stores, names and the input, through the real kernel.
//! Must never need an SDK.
#![allow(clippy::unwrap_used)]

#[path = "kernel/mod.rs"]
mod kernel;

use kernel::support::{self, World, wait_until};
use kernel::{DUAL, EVERY, Mount, PLAIN, errno, names_in};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const DEFAULT_STORE: [&str; 3] = [
    "ACTOR_DEFAULT_KEY_VALUE_STORE_ID",
    "APIFY_DEFAULT_KEY_VALUE_STORE_ID",
    "CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID",
];
const INPUT_KEY: [&str; 3] = ["ACTOR_INPUT_KEY", "APIFY_INPUT_KEY", "CRAWLEE_INPUT_KEY"];

/// Mounts with these variables and options.
fn mount_with(world: &World, variables: &[(&str, &str)], options: &str) -> support::Mount {
    let mut command: Command = world.storefs(&["mount", "--foreground", "-o", options]);
    command
        .arg(world.storage())
        .arg(world.root().join("mnt"))
        .envs(variables.iter().copied());
    support::Mount::start(command, &world.root().join("mnt"), &world.storage())
}

// README: S3, S5
#[test]
fn the_default_store_is_the_first_that_option_or_environment_names() {
    for first in 0..=DEFAULT_STORE.len() {
        let world = World::new();
        let variables: Vec<(&str, &str)> = DEFAULT_STORE
            .iter()
            .enumerate()
            .skip(first)
            .map(|(at, name)| (*name, ["one", "two", "three"][at]))
            .collect();
        let mount = mount_with(&world, &variables, "layout=plain");
        let link = fs::read_link(mount.path("default")).ok();
        let wanted = variables.first().map(|(_, store)| (*store).into());
        assert_eq!(link, wanted, "{variables:?}");
        fs::write(mount.path("default/OUTPUT"), "x").unwrap();
        let store = variables.first().map_or("default", |(_, store)| store);
        assert!(world.source(store).join("OUTPUT").is_file());
        drop(mount);
        let mount = mount_with(&world, &variables, "layout=plain,default=named");
        assert_eq!(
            fs::read_link(mount.path("default")).unwrap().to_str(),
            Some("named")
        );
    }
}

// README: S5
#[test]
fn a_store_called_default_is_hidden_when_another_is_the_default() {
    let world = World::new();
    fs::write(world.source("default/HIDDEN"), "x").unwrap();
    let mount = world.mount(&["-o", "layout=plain,default=main"]);
    assert_eq!(names_in(&mount.path("")), ["default", "main"]);
    assert_eq!(names_in(&mount.path("default")), [""; 0]);
    assert!(!mount.path("default/HIDDEN").exists());
}

// README: S4
#[test]
fn the_default_store_is_made_at_mount_but_never_by_a_read_only_one() {
    let world = World::new();
    fs::remove_dir_all(world.source("")).unwrap();
    let mount = world.mount(&["-o", "ro"]);
    assert_eq!(names_in(&mount.path("")), [""; 0]);
    drop(mount);
    assert_eq!(names_in(&world.storage()), [""; 0], "nothing was made");
    let mount = world.mount(&["-o", "default=main"]);
    assert!(world.source("main").is_dir());
    assert_eq!(names_in(&mount.path("")), ["default", "main"]);
}

// README: S1, S2
#[test]
fn stores_have_the_names_of_their_directories_and_those_of_a_purge_are_hidden() {
    let world = World::new();
    let stores = ["a b", "shop-1", "žluť"];
    for name in stores {
        fs::create_dir(world.source(name)).unwrap();
    }
    for name in ["__OLD_DEFAULT_1__", "__CRAWLEE_TEMPORARY_0__", ".hidden"] {
        fs::create_dir(world.source(name)).unwrap();
    }
    fs::write(world.source("file"), "no store").unwrap();
    let mount = world.mount(&[]);
    assert_eq!(
        names_in(&mount.path("")),
        ["a b", "default", "shop-1", "žluť"]
    );
    assert!(!mount.path("__OLD_DEFAULT_1__").exists() && !mount.path("file").exists());
    for name in stores {
        fs::write(mount.path(name).join("OUTPUT"), "x").unwrap();
        let deeper = fs::create_dir(mount.path(name).join("deeper"));
        assert_eq!(errno(deeper), libc::EPERM, "{name}");
    }
}

// README: S8
#[test]
fn status_lists_refused_names_with_the_rule() {
    let mount = World::new();
    let mount = mount.mount(&[]);
    assert_eq!(
        errno(fs::write(mount.path("default/my report"), "x")),
        libc::EINVAL
    );
    let status = mount.status();
    let refused = &status["refused"][0];
    assert_eq!(refused["name"], "my report");
    assert!(refused["why"].as_str().unwrap().contains("a-z A-Z 0-9"));
    assert!(mount.log().contains("my report"));
}

// README: S9
#[test]
fn a_name_that_is_no_key_can_be_read_and_not_changed() {
    for way in EVERY {
        let world = World::new();
        fs::write(world.source("default/x y.txt"), "here").unwrap();
        let mount = Mount::of(way, world);
        let [name] = &mount.names()[..] else {
            panic!("{way}: {:?}", mount.names())
        };
        assert!(name.starts_with("x%20y"), "{way}: {name}");
        let path = mount.path("default").join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), "here", "{way}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o222, 0, "{way}");
        assert_eq!(errno(fs::write(&path, "no")), libc::EACCES, "{way}");
        let append = fs::OpenOptions::new().append(true).open(&path);
        assert_eq!(errno(append), libc::EACCES, "{way}");
        let mode = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        assert_eq!(errno(mode), libc::EACCES, "{way}");
        assert_eq!(errno(fs::remove_file(&path)), libc::EPERM, "{way}");
        let renamed = fs::rename(&path, mount.path("default/name"));
        assert_eq!(errno(renamed), libc::EPERM, "{way}");
        fs::write(mount.path("default/name"), "a record").unwrap();
        let replaced = fs::rename(mount.path("default/name"), &path);
        assert_eq!(errno(replaced), libc::EPERM, "{way}");
        let made = fs::write(mount.path("default/z%20z"), "no");
        assert_eq!(errno(made), libc::EINVAL, "{way}");
        let there = fs::read_to_string(mount.backing("default").join("x y.txt"));
        assert_eq!(there.unwrap(), "here", "{way}");
        assert!(!mount.log().contains("is lost"), "{way}: {}", mount.log());
    }
}

// README: S9
#[test]
fn a_name_that_is_not_utf_8_is_listed_and_can_be_read() {
    for way in EVERY {
        let world = World::new();
        let file = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
        fs::write(world.source("default").join(file), "here").unwrap();
        let mount = Mount::of(way, world);
        let [name] = &mount.names()[..] else {
            panic!("{way}: {:?}", mount.names())
        };
        assert!(name.starts_with("caf%E9"), "{way}: {name}");
        let path = mount.path("default").join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), "here", "{way}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 4, "{way}");
        assert_eq!(errno(fs::write(&path, "no")), libc::EACCES, "{way}");
        assert_eq!(errno(fs::remove_file(&path)), libc::EPERM, "{way}");
        let store = fs::remove_dir(mount.path("default"));
        assert_eq!(errno(store), libc::ENOTEMPTY, "{way}");
        let behind = mount.backing("default").join(file);
        fs::write(&behind, "longer").unwrap();
        wait_until("the change is seen", || {
            fs::read_to_string(&path).is_ok_and(|text| text == "longer")
        });
        fs::remove_file(behind).unwrap();
        wait_until("it is gone", || !path.exists() && mount.names().is_empty());
    }
}

// README: S11
#[test]
fn the_control_directory_is_hidden_and_shows_the_mount() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        assert_eq!(names_in(&mount.root()), ["default"], "{way}");
        fs::write(mount.path("default/OUTPUT"), "x").unwrap();
        let control = mount.path(".storefs");
        assert_eq!(names_in(&control), ["metrics", "queue", "status"], "{way}");
        let status: serde_json::Value =
            serde_json::from_slice(&fs::read(control.join("status")).unwrap()).unwrap();
        assert_eq!(status["commits"], 1, "{way}");
        let metrics = fs::read_to_string(control.join("metrics")).unwrap();
        assert!(metrics.contains("storefs_commits_total 1"), "{way}");
        assert_eq!(fs::read_to_string(control.join("queue")).unwrap(), "");
        assert_eq!(
            errno(fs::write(control.join("status"), "x")),
            libc::EPERM,
            "{way}"
        );
    }
}

// README: S36
#[test]
fn the_input_is_the_first_that_option_or_environment_names() {
    for first in 0..INPUT_KEY.len() {
        let world = World::new();
        let variables: Vec<(&str, &str)> = INPUT_KEY
            .iter()
            .enumerate()
            .skip(first)
            .map(|(at, name)| (*name, ["one", "two", "three"][at]))
            .collect();
        let mount = mount_with(&world, &variables, "layout=plain");
        let link = fs::read_link(mount.path("default/INPUT")).unwrap();
        assert_eq!(link.to_str(), Some(variables[0].1), "{variables:?}");
        drop(mount);
        let mount = mount_with(&world, &variables, "layout=plain,input-key=named");
        let link = fs::read_link(mount.path("default/INPUT")).unwrap();
        assert_eq!(link.to_str(), Some("named"), "{variables:?}");
    }
}

// README: S37, S38
#[test]
fn the_link_to_the_input_is_written_through_and_stays() {
    for layout in ["plain", "dual"] {
        let world = World::new();
        let first = world.mount(&["-o", &format!("layout={layout}")]);
        fs::write(first.path("default/INPUT"), "{\"run\":1}").unwrap();
        fs::write(first.path("default/INPUT-METAMORPH-1"), "{\"run\":2}").unwrap();
        first.unmount();
        let options = format!("layout={layout},input-key=INPUT-METAMORPH-1");
        let mount = world.mount(&["-o", &options]);
        let read = |key: &str| fs::read_to_string(mount.path(key)).unwrap();
        assert_eq!(read("default/INPUT"), "{\"run\":2}");
        assert_eq!(read(".storefs/INPUT"), "{\"run\":1}");
        fs::write(mount.path("default/INPUT"), "{\"run\":3}").unwrap();
        assert_eq!(read("default/INPUT-METAMORPH-1"), "{\"run\":3}");
        mount.sh("sed -i s/3/4/ mnt/default/INPUT");
        assert_eq!(read("default/INPUT-METAMORPH-1"), "{\"run\":4}");
        fs::write(mount.path("default/new"), "{\"run\":5}").unwrap();
        fs::rename(mount.path("default/new"), mount.path("default/INPUT")).unwrap();
        assert_eq!(read("default/INPUT-METAMORPH-1"), "{\"run\":5}");
        assert!(!mount.path("default/new").exists());
        let removed = fs::remove_file(mount.path("default/INPUT"));
        assert_eq!(errno(removed), libc::EPERM, "{layout}");
        mount.sync();
        assert!(fs::read_link(mount.path("default/INPUT")).is_ok());
        assert_eq!(read(".storefs/INPUT"), "{\"run\":1}", "{layout}");
    }
}

// README: S32, S34
#[test]
fn where_the_folder_is_watched_changes_are_seen_without_a_sync() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let ending = if way.layout == "plain" { "" } else { ".txt" };
        assert_eq!(mount.names(), [""; 0], "{way}");
        assert!(!mount.path("default/A").exists(), "{way}");
        let beside = mount.backing("default").join(format!("A{ending}"));
        fs::write(&beside, "12345").unwrap();
        wait_until("a name by another is listed", || mount.names() == ["A"]);
        wait_until("its size is told", || {
            fs::metadata(mount.path("default/A")).is_ok_and(|about| about.len() == 5)
        });
        fs::remove_file(&beside).unwrap();
        wait_until("a name that went is gone", || {
            mount.names().is_empty() && !mount.path("default/A").exists()
        });
    }
}

// README: S32, S33
#[test]
fn changes_are_seen_in_every_one_of_very_many_stores() {
    let world = World::in_memory();
    for store in 0..300 {
        let folder = world.source(&format!("s{store}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("A.txt"), "x").unwrap();
    }
    let mount = world.mount(&["-o", "layout=dual"]);
    for store in 0..300 {
        let about = fs::metadata(mount.path(&format!("s{store}/A"))).unwrap();
        assert_eq!(about.len(), 1);
    }
    fs::remove_file(world.source("s0/A.txt")).unwrap();
    fs::write(world.source("s1/A.txt"), "longer").unwrap();
    fs::write(world.source("s2/B.txt"), "new").unwrap();
    mount.sync();
    assert!(!mount.path("s0/A").exists());
    assert_eq!(fs::metadata(mount.path("s1/A")).unwrap().len(), 6);
    assert_eq!(names_in(&mount.path("s2")), ["A", "B"]);
}
