//! Mounts of a server, by the real kernel: what programs write there, and what others then see.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use shop::{Shop, text};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use support::{Mount, World, said, type_of, wait_until};

// README: S110, S111, S112
#[test]
fn what_one_mount_writes_the_server_and_another_mount_have_after_a_sync() {
    let shop = Shop::open();
    let (one, two) = (shop.mount("one"), shop.mount("two"));
    one.sh("mkdir $MNT/shared
        echo '{\"a\": 1}' > $MNT/shared/IN
        head -c 3000000 /dev/urandom > blob
        cp blob $MNT/shared/blob
        setfattr -n user.mime_type -v text/csv $MNT/shared/IN");
    one.sync();
    assert_eq!(shop.behind("shared", "IN").unwrap(), b"{\"a\": 1}\n");
    assert_eq!(text(&two.path("shared/IN")), "{\"a\": 1}\n");
    assert_eq!(type_of(&two.path("shared/IN")), "text/csv");
    two.sh("cmp blob $MNT/shared/blob
        test $(stat -c %s $MNT/shared/blob) = 3000000
        mv $MNT/shared/IN $MNT/default/OUT
        rm $MNT/shared/blob");
    two.sync();
    assert_eq!(text(&one.path("default/OUT")), "{\"a\": 1}\n");
    assert_eq!(type_of(&one.path("default/OUT")), "text/csv");
    assert_eq!(one.sh("ls $MNT/shared"), "");
    one.unmount();
    two.unmount();
}

// README: S113
#[test]
fn what_is_put_by_the_api_is_seen_by_a_mount_that_has_read_it_before() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    fs::write(mount.path("default/KEY"), "of the mount").unwrap();
    mount.sync();
    assert_eq!(text(&mount.path("default/KEY")), "of the mount");
    let put = format!(
        "curl -sf -X PUT -H 'Authorization: Bearer {}' -H 'content-type: text/plain' --data-binary 'by the api' \
         {}/v2/key-value-stores/default/records/KEY",
        shop.token,
        shop.url()
    );
    mount.sh(&put);
    wait_until("the change is pushed", || {
        text(&mount.path("default/KEY")) == "by the api"
            && fs::metadata(mount.path("default/KEY")).unwrap().len() == 10
    });
    mount.unmount();
}

// README: S113
#[test]
fn a_record_that_did_not_change_is_read_out_of_the_kernels_memory_and_a_changed_one_is_not() {
    let shop = Shop::open();
    let (one, two) = (shop.mount("one"), shop.mount("two"));
    let reads = || two.status()["requests"]["read"].as_u64().unwrap();
    let path = two.path("default/note");
    for round in 0..12 {
        // Each value is as long as the one before it.
        let value = format!("value {round:02}");
        fs::write(one.path("default/note"), &value).unwrap();
        one.sync();
        wait_until("the change is pushed", || text(&path) == value);
        wait_until("it is read without a request", || {
            let before = reads();
            assert_eq!(text(&path), value);
            reads() == before
        });
    }
    // What is written here is in the kernel's memory too, and is of the new version.
    fs::write(&path, "value of two").unwrap();
    assert_eq!(text(&path), "value of two");
    two.sync();
    wait_until("the change is pushed", || {
        text(&one.path("default/note")) == "value of two"
    });
    one.unmount();
    two.unmount();
}

// README: S114
#[test]
fn each_way_in_which_programs_write_a_file_is_one_put() {
    let shop = Shop::open();
    // The programs may be slow where others use the processors.
    let mount = shop.mount_with("mnt", "debounce=10m");
    mount.sh("cd $MNT/default
        echo one > echo
        (echo a; echo b) > group
        cp /etc/hostname copy
        printf 'x\\n' | tee tee > /dev/null
        dd if=/dev/zero of=dd bs=4096 count=64 status=none
        curl -s -o curl file:///etc/hostname
        python3 -c 'open(\"python\", \"w\").write(\"p\")'
        \"$(command -v vim || command -v vim.tiny)\" -u NONE -es -c 'normal iv' -c 'wq' vim
        echo '4913 leaves nothing' > plain");
    mount.sync();
    for key in [
        "echo", "group", "copy", "tee", "dd", "curl", "python", "vim", "plain",
    ] {
        assert_eq!(shop.requests("PUT", key), 1, "{key}");
    }
    mount.sh("cd $MNT/default; sed -i s/one/two/ echo");
    mount.sync();
    assert_eq!(shop.requests("PUT", "echo"), 2);
    assert_eq!(shop.behind("default", "echo").unwrap(), b"two\n");
    let names = mount.sh("ls -A $SRC/key_value_stores/default | grep -E '^(sed|4913|[.])' || true");
    assert_eq!(names, "");
    mount.unmount();
}

// README: S114
#[test]
fn a_second_rsync_sends_nothing() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    mount.sh(
        "mkdir from; for i in $(seq 20); do echo $i > from/file-$i; done
        rsync -a from/ $MNT/default/",
    );
    mount.sync();
    let sent: usize = (1..=20)
        .map(|i| shop.requests("PUT", &format!("file-{i}")))
        .sum();
    assert_eq!(sent, 20);
    let listed = mount.sh("rsync -ai from/ $MNT/default/");
    assert!(!listed.contains("file-"), "{listed}");
    mount.unmount();
}

/// Writes records through a mount until it fails, and counts those whose `close` returned.
// README: S119
#[test]
fn two_mounts_do_not_share_a_cache() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    let cache = shop.world.root().join("cache-mnt");
    let mut second = shop.world.storefs(&[
        "mount",
        "--foreground",
        "-o",
        &format!("cache={}", cache.display()),
        &shop.url(),
        "other",
    ]);
    let said = shop.refused(second.env("APIFY_TOKEN", &shop.token));
    assert!(said.err.contains("cache-mnt"), "{said:?}");
    assert!(!shop.world.root().join("other").exists());
    mount.unmount();
}

// README: S115, S119
#[test]
fn what_waits_for_one_server_is_never_sent_to_another() {
    let (mut first, second) = (Shop::open(), Shop::open());
    let cache = first.world.root().join("cache");
    let path = first.world.root().join("mnt");
    let at = |shop: &Shop| {
        let options = format!("cache={},debounce=10m", cache.display());
        let mut command =
            shop.world
                .storefs(&["mount", "--foreground", "-o", &options, &shop.url()]);
        command.arg(&path).env("APIFY_TOKEN", &shop.token);
        command
    };
    let mut mount = Mount::start(at(&first), &path, &first.world.storage());
    fs::write(mount.path("default/mine"), "for the first alone").unwrap();
    first.close();
    let left = said(&mut mount.storefs(&["umount", "--timeout", "1s"]));
    assert_eq!(left.code, Some(3), "{left:?}");
    mount.wait();
    let refused = second.refused(&mut at(&second));
    assert!(refused.err.contains(&first.url()), "{refused:?}");
    assert!(refused.err.contains("cache="), "{refused:?}");
    first.start();
    let mount = Mount::start(at(&first), &path, &first.world.storage());
    mount.sync();
    mount.unmount();
    let sent = first.behind("default", "mine").unwrap();
    assert_eq!(sent, b"for the first alone");
}

// README: S4, S121
#[test]
fn a_memory_source_is_for_trying_out() {
    let world = World::new();
    let mut command = world.storefs(&["mount", "--foreground", "memory:"]);
    command.arg(world.root().join("mnt"));
    let mount = Mount::start(command, &world.root().join("mnt"), &world.storage());
    mount.sh("echo '{}' > $MNT/default/OUTPUT; mkdir $MNT/s; echo x > $MNT/s/KEY; test $(cat $MNT/s/KEY) = x");
    mount.unmount();
}

#[test]
fn an_unmount_that_fails_changes_nothing_of_how_the_next_one_sends() {
    let shop = Shop::open();
    let mount = shop.mount_with("mnt", "debounce=10m,drain=1m");
    mount.sh("for n in $(seq 50); do echo $n > $MNT/default/k$n; done");
    let held = std::fs::File::open(mount.path("default/k1")).unwrap();
    let busy = said(&mut mount.storefs(&["umount", "--timeout", "1ms"]));
    assert!(busy.err.contains("in use"), "{busy:?}");
    drop(held);
    mount.unmount();
    for n in 1..=50 {
        let sent = shop.behind("default", &format!("k{n}"));
        assert_eq!(sent, Some(format!("{n}\n").into_bytes()));
    }
}

// README: S121
#[test]
fn options_of_one_kind_of_source_are_refused_for_the_other() {
    let shop = Shop::open();
    let local = said(
        &mut shop
            .world
            .storefs(&["mount", "-o", "write=through", "storage", "mnt"]),
    );
    assert_eq!(local.code, Some(2), "{local:?}");
    assert!(local.err.contains("remote"), "{local:?}");
    let mut remote = shop.command("mnt", "layout=plain");
    let remote = said(&mut remote);
    assert_eq!(remote.code, Some(2), "{remote:?}");
    for named in ["s3://bucket", "s3:bucket", "gs:b", "az:b", "s3:"] {
        let later = said(&mut shop.world.storefs(&["mount", named, "mnt"]));
        assert_eq!(later.code, Some(1), "{later:?}");
        assert!(later.err.contains("not supported yet"), "{later:?}");
    }
    fs::create_dir_all(shop.world.root().join("s3:x/key_value_stores/default")).unwrap();
    let mut folder = shop
        .world
        .storefs(&["mount", "--foreground", "./s3:x", "mnt"]);
    folder.env("HOME", shop.world.root());
    let path = shop.world.root().join("mnt");
    support::Mount::start(folder, &path, &shop.world.root().join("s3:x")).unmount();
}

// README: S121
#[test]
fn what_a_killed_mount_of_memory_left_goes_with_the_next_one() {
    let world = World::new();
    let temp = world.root().join("tmp");
    fs::create_dir(&temp).unwrap();
    let start = |name: &str| {
        let path = world.root().join(name);
        let mut command = world.storefs(&["mount", "--foreground", "memory:"]);
        command.arg(&path).env("TMPDIR", &temp);
        Mount::start(command, &path, &world.storage())
    };
    let left = || fs::read_dir(&temp).unwrap().count();
    let (mut killed, held) = (start("a"), start("b"));
    for mount in [&killed, &held] {
        fs::write(mount.path("default/x"), "1").unwrap();
    }
    killed.kill();
    support::detach(&world.root().join("a"));
    assert_eq!(left(), 2);
    let mut next = start("c");
    assert_eq!(left(), 2);
    next.kill();
    support::detach(&world.root().join("c"));
    let mut run = world.storefs(&["run", "memory:", "--", "true"]);
    let run = said(run.env("TMPDIR", &temp));
    assert_eq!((run.code, left()), (Some(0), 1), "{run:?}");
    assert_eq!(text(&held.path("default/x")), "1");
    held.unmount();
    assert_eq!(left(), 0);
}

// README: S114
#[test]
fn a_program_that_reads_a_record_and_then_writes_it_meets_one_inode() {
    let shop = Shop::open();
    let mount = shop.mount("one");
    let path = mount.path("default/read-and-written");
    for round in 0..8 {
        fs::write(&path, format!("{round}")).unwrap();
        mount.sync();
        for _ in 0..5 {
            let before = fs::metadata(&path).unwrap().ino();
            assert_eq!(text(&path), format!("{round}"));
            let file = File::options().write(true).open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().ino(), before, "round {round}");
            drop(file);
            assert_eq!(fs::metadata(&path).unwrap().ino(), before, "round {round}");
        }
        fs::remove_file(&path).unwrap();
    }
}
