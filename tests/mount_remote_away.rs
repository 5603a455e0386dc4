//! Mounts of a server, by the real kernel: a server that goes away, tokens, and two who write one record.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use rustix::process::Signal;
use shop::{Shop, text};
use std::fs;
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
    // The reason is known as soon as the first try has failed.
    let is_told = (0..20).any(|_| {
        let late = said(&mut mount.storefs(&["sync", "--timeout", "1s"]));
        assert_eq!(late.code, Some(3), "{late:?}");
        assert!(late.err.contains("not finished within 1s"), "{late:?}");
        late.err.contains("no connection to")
    });
    assert!(is_told);
    let status = mount.status().to_string();
    assert!(status.contains("offlineSince"), "{status}");
    let left = said(&mut mount.storefs(&["umount", "--timeout", "1s"]));
    assert_eq!(left.code, Some(3), "{left:?}");
    assert!(
        left.err
            .contains("next mount of this source (with the same cache="),
        "{left:?}"
    );
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

// README: S116
#[test]
fn after_a_server_was_away_for_long_a_mount_goes_on_by_itself() {
    let mut shop = Shop::open();
    let mount = shop.mount("mnt");
    fs::write(mount.path("default/known"), "before").unwrap();
    mount.sync();
    shop.close();
    for round in 0..40 {
        fs::write(mount.path("default/again"), format!("text {round}")).unwrap();
        fs::write(mount.path(&format!("default/new-{round}")), "new").unwrap();
        // So that some tries fail in between.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    fs::remove_file(mount.path("default/known")).unwrap();
    assert!(mount.status().to_string().contains("offlineSince"));
    shop.start();
    // Nobody asks for it.
    wait_until("all is sent", || {
        let there = |key: &str| shop.behind("default", key);
        there("again").is_some_and(|bytes| bytes == b"text 39")
            && (0..40).all(|round| there(&format!("new-{round}")).is_some())
            && there("known").is_none()
    });
    assert_eq!(shop.requests("PUT", "again"), 1);
    mount.unmount();
}

// README: S117
#[test]
fn a_server_that_was_never_seen_and_does_not_answer_is_refused() {
    let mut shop = Shop::open();
    shop.close();
    let token = shop.token.clone();
    for token in [Some(token.as_str()), None] {
        let mut command = shop.command("mnt", "");
        match token {
            Some(token) => command.env("APIFY_TOKEN", token),
            None => command.env_remove("APIFY_TOKEN"),
        };
        let said = shop.refused(&mut command);
        assert!(said.err.contains("nothing is kept here"), "{said:?}");
        assert!(said.err.contains(&shop.url()), "{said:?}");
        assert_eq!(support::mountinfo(&shop.world.root().join("mnt")), None);
        assert!(!shop.world.root().join("mnt").exists());
    }
    // One that answers wants a token, which is another matter.
    shop.start();
    let said = shop.refused(shop.command("mnt", "").env_remove("APIFY_TOKEN"));
    assert!(said.err.contains("APIFY_TOKEN"), "{said:?}");
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

// README: S120
#[test]
fn a_write_without_having_read_is_a_plain_overwrite() {
    let shop = Shop::open();
    let (one, two) = (
        shop.mount_with("one", "debounce=10m"),
        shop.mount_with("two", "debounce=10m"),
    );
    let behind = |name: &str| shop.behind("default", name).unwrap();
    let copies = || {
        shop.world
            .sh("ls $SRC/key_value_stores/default | grep -c conflict || true")
    };
    one.sh("echo 1 > $MNT/default/doc.txt; echo 1 > $MNT/default/other.txt");
    one.sync();
    two.sh("ls $MNT/default; echo 2 > $MNT/default/doc.txt
        echo 2 > $MNT/default/new; mv $MNT/default/new $MNT/default/other.txt");
    two.sync();
    for name in ["doc.txt", "other.txt"] {
        assert_eq!(behind(name), b"2\n", "{name}");
    }
    // What it wrote last it may write over, as often as it likes.
    two.sh("echo 3 > $MNT/default/doc.txt");
    two.sync();
    assert_eq!((behind("doc.txt"), copies().trim()), (b"3\n".to_vec(), "0"));
    // The other one wrote last what is no more.
    one.sh("echo 4 > $MNT/default/doc.txt");
    one.sync();
    assert_eq!(behind("doc.txt"), b"3\n");
    assert_eq!(one.sh("cat $MNT/default/doc.conflict-*"), "4\n");
    one.unmount();
    two.unmount();
}
