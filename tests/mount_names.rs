//! Keys as file names at their limits, and what is refused. No name is ever changed on its way.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::support::wait_until;
use kernel::{DUAL, Mount, PLAIN, PLAIN_DAEMON, errno, names_in};
use std::fs;
use std::path::Path;

// README: S6, S7
#[test]
fn every_legal_character_works() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let keys = [
            "a",
            "Z9",
            "-dash",
            "_under",
            "!bang",
            "it's",
            "(round)",
            ".hidden",
            "...",
            "trailing.",
            "UP.JSON",
            "up.json",
            "page.html",
            "a.b.c",
            "-rf",
            "!-_.'()",
        ];
        for key in keys {
            fs::write(mount.path("default").join(key), key).unwrap();
        }
        let mut wanted = keys.map(str::to_owned);
        wanted.sort();
        assert_eq!(mount.names(), wanted, "{way}");
        for key in keys {
            assert_eq!(mount.read(key), key, "{way}");
        }
        for key in keys {
            fs::remove_file(mount.path("default").join(key)).unwrap();
        }
        assert_eq!(names_in(&mount.backing("default")), [""; 0], "{way}");
    }
}

// README: S7
#[test]
fn a_key_of_256_characters_is_a_record_in_layout_plain() {
    for way in [PLAIN, PLAIN_DAEMON] {
        let mut mount = Mount::new(way);
        let longest = "k".repeat(251) + ".json";
        let other = "k".repeat(250) + "x.json";
        for key in [&longest, &other] {
            fs::write(mount.path("default").join(key), &key[245..]).unwrap();
        }
        assert_eq!(mount.names(), [longest.clone(), other.clone()], "{way}");
        mount.stop();
        mount.start();
        assert_eq!(
            mount.names(),
            [longest.clone(), other.clone()],
            "{way}: after a remount"
        );
        assert_eq!(mount.read(&longest), longest[245..], "{way}");
        assert!(
            mount.content_type(&other).starts_with("application/json"),
            "{way}"
        );
        let short = mount.path("default/short");
        fs::rename(mount.path("default").join(&longest), &short).unwrap();
        fs::rename(&short, mount.path("default").join(&longest)).unwrap();
        assert_eq!(mount.read(&longest), longest[245..], "{way}");
        for key in [&longest, &other] {
            fs::remove_file(mount.path("default").join(key)).unwrap();
        }
        assert_eq!(names_in(&mount.backing("default")), [""; 0], "{way}");
    }
}

// README: S7
#[test]
fn a_name_of_257_characters_is_too_long() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let path = mount.path("default").join("k".repeat(257));
        assert_eq!(errno(fs::write(&path, "x")), libc::ENAMETOOLONG, "{way}");
        assert_eq!(errno(fs::metadata(&path)), libc::ENAMETOOLONG, "{way}");
        assert_eq!(mount.names(), [""; 0], "{way}");
    }
}

// README: S79
#[test]
fn a_key_the_dual_layout_cannot_hold_is_refused_with_advice() {
    let mount = Mount::new(DUAL);
    let fits = "k".repeat(219);
    fs::write(mount.path("default").join(&fits), "x").unwrap();
    assert_eq!(mount.read(&fits), "x");
    for key in ["k".repeat(220), "k".repeat(256), "'".repeat(74)] {
        let refused = fs::write(mount.path("default").join(&key), "x");
        assert_eq!(errno(refused), libc::ENAMETOOLONG, "{key}");
    }
    assert_eq!(mount.names(), [fits]);
    wait_until("the log gives the advice", || {
        mount.log().contains("layout=plain")
    });
}

// README: S72
#[test]
fn the_limit_of_names_is_what_statfs_says() {
    for (way, limit) in [(PLAIN, 256), (DUAL, 219)] {
        let mount = Mount::new(way);
        let stat = rustix::fs::statvfs(mount.path("default")).unwrap();
        assert_eq!(stat.f_namemax, limit, "{way}");
    }
}

// README: S66, S67, S68
#[test]
fn a_store_is_made_renamed_and_removed_like_a_directory() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("mkdir \"$MNT/shop\"; echo x > \"$MNT/shop/a\"; mv \"$MNT/shop\" \"$MNT/store\"");
        assert_eq!(names_in(&mount.root()), ["default", "store"], "{way}");
        assert!(
            mount.backing("store").is_dir() && !mount.backing("shop").exists(),
            "{way}"
        );
        assert_eq!(
            fs::read_to_string(mount.path("store/a")).unwrap(),
            "x\n",
            "{way}"
        );
        assert_eq!(
            errno(fs::remove_dir(mount.path("store"))),
            libc::ENOTEMPTY,
            "{way}"
        );
        assert_eq!(
            errno(fs::create_dir(mount.path("store"))),
            libc::EEXIST,
            "{way}"
        );
        assert_eq!(
            errno(fs::create_dir(mount.path(".dot"))),
            libc::EINVAL,
            "{way}"
        );
        mount.sh("rm \"$MNT/store/a\"; rmdir \"$MNT/store\"");
        assert_eq!(names_in(&mount.root()), ["default"], "{way}");
        assert!(!mount.backing("store").exists(), "{way}");
    }
}

// README: S33, S60
#[test]
fn what_another_program_does_in_the_folder_is_seen() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let ending = if way.layout == "plain" { "" } else { ".txt" };
        let beside = |key: &str| mount.backing("default").join(format!("{key}{ending}"));
        fs::write(beside("one"), "1").unwrap();
        fs::write(beside("two"), "22").unwrap();
        mount.sync();
        assert_eq!(mount.names(), ["one", "two"], "{way}");
        assert_eq!(mount.read("two"), "22", "{way}");
        fs::write(beside("two"), "longer than before").unwrap();
        fs::remove_file(beside("one")).unwrap();
        fs::rename(beside("two"), beside("three")).unwrap();
        mount.sync();
        assert_eq!(mount.names(), ["three"], "{way}");
        assert_eq!(mount.read("three"), "longer than before", "{way}");
        assert_eq!(
            fs::metadata(mount.path("default/three")).unwrap().len(),
            18,
            "{way}"
        );
        fs::create_dir(mount.backing("fresh")).unwrap();
        fs::write(mount.backing("fresh").join(format!("a{ending}")), "x").unwrap();
        mount.sync();
        assert_eq!(names_in(&mount.root()), ["default", "fresh"], "{way}");
        assert_eq!(
            fs::read_to_string(mount.path("fresh/a")).unwrap(),
            "x",
            "{way}"
        );
    }
}

// README: S48
#[test]
fn a_file_that_a_link_in_the_folder_points_to_is_not_handed_out() {
    for way in [PLAIN, PLAIN_DAEMON, DUAL] {
        let mount = Mount::new(way);
        let secret = mount.outside().join("secret");
        fs::write(&secret, "secret").unwrap();
        let folder = mount.backing("default");
        std::os::unix::fs::symlink(&secret, folder.join("absolute")).unwrap();
        std::os::unix::fs::symlink(
            Path::new("../../../outside/secret"),
            folder.join("relative.txt"),
        )
        .unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        mount.sync();
        for key in ["absolute", "relative.txt", "relative", "folder/x"] {
            assert!(
                fs::read(mount.path("default").join(key)).is_err(),
                "{way}: {key}"
            );
            // Writing under that name may make a record of its own, but never goes through the link.
            let _ = fs::write(mount.path("default").join(key), "mine");
            assert_eq!(
                fs::read_to_string(&secret).unwrap(),
                "secret",
                "{way}: {key}"
            );
        }
    }
}

// README: S26
#[test]
fn a_file_that_was_renamed_is_there_at_once() {
    let mount = Mount::new(PLAIN_DAEMON);
    let folder = mount.path("default");
    // What the daemon is told of the folder comes while others rename.
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                let to = folder.join(format!("record-{writer}.txt"));
                for round in 0..1500 {
                    let from = folder.join(format!(".record-{writer}.txt.{round:06}"));
                    fs::write(&from, "bytes").unwrap();
                    fs::rename(&from, &to).unwrap();
                    let there = fs::symlink_metadata(&to).map(|about| about.len());
                    assert_eq!(there.map_err(|e| e.to_string()), Ok(5), "round {round}");
                    fs::remove_file(&to).unwrap();
                }
            });
        }
    });
}
