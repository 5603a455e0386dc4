//! Mounts of a server that others use too: three mounts, exclusive creations, stores under other names, and what is deleted or
//! revoked behind a mount.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use rustix::process::Signal;
use shop::{Shop, text};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use support::{Mount, said, wait_until, xattr_of};

/// curl with the token, of a path of the API.
fn api(shop: &Shop, arguments: &str, path: &str) -> String {
    shop.world.sh(&format!(
        "curl -sf -H 'Authorization: Bearer {}' {arguments} '{}{path}'",
        shop.token,
        shop.url()
    ))
}

/// The names in a store of the server's folder, without what SDKs keep beside them.
fn keys_behind(mount: &Mount) -> BTreeSet<String> {
    let listed = mount.sh("ls $MNT/default");
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn what_each_of_three_mounts_writes_the_others_see_and_of_rivals_none_is_lost() {
    let shop = Shop::open();
    let mounts = ["one", "two", "three"].map(|name| shop.mount_with(name, "debounce=10m"));
    for (number, mount) in mounts.iter().enumerate() {
        fs::write(
            mount.path(&format!("default/of-{number}")),
            number.to_string(),
        )
        .unwrap();
        mount.sync();
    }
    fs::write(mounts[0].path("default/shared.txt"), "base").unwrap();
    mounts[0].sync();
    for mount in &mounts {
        for number in 0..3 {
            wait_until("it is seen everywhere", || {
                fs::read_to_string(mount.path(&format!("default/of-{number}")))
                    .is_ok_and(|text| text == number.to_string())
            });
        }
        wait_until("all have read it", || {
            fs::read_to_string(mount.path("default/shared.txt")).is_ok_and(|text| text == "base")
        });
    }
    for (number, mount) in mounts.iter().enumerate() {
        fs::write(mount.path("default/shared.txt"), format!("by {number}")).unwrap();
    }
    for mount in &mounts {
        mount.sync();
    }
    for mount in &mounts {
        let mut texts = BTreeSet::new();
        wait_until("all three texts are there", || {
            texts = keys_behind(mount)
                .iter()
                .filter(|name| name.starts_with("shared"))
                .filter_map(|name| fs::read_to_string(mount.path("default").join(name)).ok())
                .collect();
            texts.len() == 3
        });
        assert_eq!(texts, ["by 0", "by 1", "by 2"].map(str::to_owned).into());
        assert_eq!(text(&mount.path("default/shared.txt")), "by 0");
    }
    for mount in mounts {
        mount.unmount();
    }
}

/// Makes a file that must not be there yet; false when there is one.
fn make(path: &Path, bytes: &str) -> bool {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(bytes.as_bytes()).unwrap();
            true
        }
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::EEXIST), "{e}");
            false
        }
    }
}

// README: S123
#[test]
fn of_two_mounts_that_make_one_file_exclusively_one_has_the_name_and_neither_is_lost() {
    let shop = Shop::open();
    let (one, two) = (shop.mount("one"), shop.mount("two"));
    one.sh("ls $MNT/default");
    two.sh("ls $MNT/default");
    for round in 0..5 {
        let name = format!("default/lock-{round}");
        let both = Barrier::new(2);
        let made = thread::scope(|scope| {
            let tries = [(&one, "one"), (&two, "two")].map(|(mount, bytes)| {
                let (both, path) = (&both, mount.path(&name));
                scope.spawn(move || {
                    both.wait();
                    make(&path, bytes)
                })
            });
            tries.map(|made| made.join().unwrap())
        });
        assert_ne!(made, [false, false], "somebody makes it");
        one.sync();
        two.sync();
        let winner = shop.behind("default", &format!("lock-{round}")).unwrap();
        let copies = one.sh(&format!(
            "cat $MNT/default/lock-{round}.conflict-* 2>/dev/null || true"
        ));
        match made {
            [true, true] => {
                let mut both = [String::from_utf8(winner).unwrap(), copies];
                both.sort();
                assert_eq!(both, ["one", "two"]);
            }
            [first, _] => {
                assert_eq!(winner, if first { b"one" } else { b"two" });
                assert_eq!(copies, "");
            }
        }
    }
    one.unmount();
    two.unmount();
}

// README: S124
#[test]
fn a_store_is_found_by_its_id_in_another_letter_case_and_with_its_owner() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    mount.sh("mkdir $MNT/shared; echo bytes > $MNT/shared/KEY");
    mount.sync();
    let id = xattr_of(&mount.path("shared"), "user.storefs.id");
    let unnamed = api(&shop, "-X POST", "/v2/key-value-stores");
    let unnamed: serde_json::Value = serde_json::from_str(&unnamed).unwrap();
    let unnamed = unnamed["data"]["id"].as_str().unwrap().to_owned();
    for other in [id.as_str(), "SHARED", "Shared", "ann~shared"] {
        assert_eq!(
            fs::read_link(mount.path(other)).unwrap(),
            Path::new("shared"),
            "{other}"
        );
        assert_eq!(text(&mount.path(other).join("KEY")), "bytes\n");
    }
    mount.sh(&format!(
        "echo more > $MNT/{id}/MORE; test -d $MNT/{unnamed}; ! test -L $MNT/{unnamed}"
    ));
    mount.sync();
    assert_eq!(shop.behind("shared", "MORE").unwrap(), b"more\n");
    let names = mount.sh("ls $MNT");
    assert!(!names.contains("SHARED") && !names.contains(&id), "{names}");
    assert!(fs::read_link(mount.path("nobody~shared")).is_err());
    mount.sh(
        "mv $MNT/shared $MNT/renamed; test $(cat $MNT/renamed/KEY) = bytes; ! test -e $MNT/SHARED",
    );
    assert_eq!(
        fs::read_link(mount.path(&id)).unwrap(),
        Path::new("renamed")
    );
    mount.unmount();
}

// README: S125
#[test]
fn the_url_of_a_record_opens_it_without_a_token() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    mount.sh("mkdir $MNT/shared; echo bytes > $MNT/shared/KEY");
    mount.sync();
    let record = xattr_of(&mount.path("shared/KEY"), "user.storefs.url");
    assert!(record.starts_with(&shop.url()), "{record}");
    assert_eq!(shop.world.sh(&format!("curl -sf '{record}'")), "bytes\n");
    let keys = xattr_of(&mount.path("shared"), "user.storefs.url");
    let listed = shop.world.sh(&format!("curl -sf '{keys}'"));
    assert!(listed.contains("\"KEY\""), "{listed}");
    assert!(!record.contains(&shop.token) && !keys.contains(&shop.token));
    assert_eq!(
        xattr_of(&mount.path("shared"), "user.storefs.name"),
        "shared"
    );
    mount.unmount();
}

// README: S126
#[test]
fn what_waits_for_a_store_that_was_deleted_stays_until_it_is_moved_or_removed() {
    let shop = Shop::open();
    let mount = shop.mount_with("mnt", "debounce=10m,ttl=100ms");
    mount.sh("mkdir $MNT/shared; echo sent > $MNT/shared/sent");
    mount.sync();
    mount.sh("echo kept > $MNT/shared/kept; echo other > $MNT/shared/other");
    let id = xattr_of(&mount.path("shared"), "user.storefs.id");
    api(&shop, "-X DELETE", &format!("/v2/key-value-stores/{id}"));
    let late = said(&mut mount.storefs(&["sync", "--timeout", "5s"]));
    assert_eq!(late.code, Some(3), "{late:?}");
    wait_until("its end is known", || {
        let listed = said(std::process::Command::new("ls").arg(mount.path("shared")));
        assert!(
            listed.code != Some(0) || !listed.out.is_empty(),
            "an empty directory: {listed:?}"
        );
        listed.code != Some(0)
    });
    assert_eq!(text(&mount.path("shared/kept")), "kept\n");
    assert!(!xattr_of(&mount.path("shared/kept"), "user.storefs.error").is_empty());
    let queue = text(&mount.path(".storefs/queue"));
    assert!(queue.contains("kept") && queue.contains("other"), "{queue}");
    mount.sh("mv $MNT/shared/kept $MNT/default/kept; rm $MNT/shared/other");
    mount.sync();
    assert_eq!(shop.behind("default", "kept").unwrap(), b"kept\n");
    wait_until("it is gone", || !mount.path("shared").exists());
    mount.unmount();
}

// README: S118
#[test]
fn behind_a_revoked_token_nothing_looks_empty_and_what_is_written_waits() {
    let shop = Shop::open();
    let file = shop.world.root().join("token");
    fs::write(&file, &shop.token).unwrap();
    shop.world.sh("chmod 600 token");
    let mount = shop.mount_with("mnt", &format!("ttl=100ms,token-file={}", file.display()));
    mount.sh("mkdir $MNT/shared; echo sent > $MNT/shared/sent");
    mount.sync();
    let tokens = |arguments: &[&str]| {
        let arguments = [&["token"], arguments, &["--tokens", "tokens.json"]].concat();
        let said = said(&mut shop.world.storefs(&arguments));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out.trim().to_owned()
    };
    let new = tokens(&["new", "--user", "ann"]);
    api(
        &shop,
        "-X PUT --data-binary unread",
        "/v2/key-value-stores/default/records/unread",
    );
    tokens(&["revoke", shop.token.split('_').nth(1).unwrap()]);
    wait_until("the server has seen it", || {
        let asked = format!(
            "curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {}' {}/v2/users/me",
            shop.token,
            shop.url()
        );
        shop.world.sh(&asked) == "401"
    });
    assert!(fs::read(mount.path("default/unread")).is_err());
    for name in ["shared", ""] {
        let listed = said(std::process::Command::new("ls").arg(mount.path(name)));
        assert!(
            listed.code != Some(0) || !listed.out.is_empty(),
            "an empty directory: {listed:?}"
        );
    }
    fs::write(&file, new).unwrap();
    mount.signal(Signal::HUP);
    wait_until("it goes on", || {
        fs::read(mount.path("default/unread")).is_ok_and(|bytes| bytes == b"unread")
    });
    assert_eq!(text(&mount.path("shared/sent")), "sent\n");
    mount.unmount();
}

#[test]
fn times_of_a_server_whose_clock_is_wrong_decide_nothing() {
    let shop = Shop::open();
    let (one, two) = (shop.mount("one"), shop.mount("two"));
    fs::write(one.path("default/doc"), "first").unwrap();
    one.sync();
    for (round, time) in ["2049-01-01", "1971-01-01"].iter().enumerate() {
        // The server tells the times of its files.
        one.sh(&format!(
            "for f in $SRC/key_value_stores/default/doc*; do touch -d {time} $f; done"
        ));
        let (before, after) = (format!("text {round}"), format!("text {round} again"));
        // Another version it is, so it counts as read only from then on.
        wait_until("the other mount knows that time and reads it", || {
            two.sh("stat -c %y $MNT/default/doc")
                .starts_with(&time[..4])
                && fs::read_to_string(two.path("default/doc")).is_ok()
        });
        fs::write(two.path("default/doc"), &before).unwrap();
        two.sync();
        wait_until("it is seen", || {
            fs::read_to_string(one.path("default/doc")).is_ok_and(|text| text == before)
        });
        fs::write(one.path("default/doc"), &after).unwrap();
        one.sync();
        wait_until("it is seen", || {
            fs::read_to_string(two.path("default/doc")).is_ok_and(|text| text == after)
        });
    }
    assert_eq!(one.sh("ls $MNT/default"), "doc\n");
    one.unmount();
    two.unmount();
}
