//! A mount of a server that does no more than the public API's documents say: it tells no lengths, no versions and no changes.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

#[path = "remote/proxy.rs"]
mod proxy;
#[path = "remote/scripted.rs"]
mod scripted;
mod shop;
mod support;

use proxy::Proxy;
use shop::{Shop, text};
use std::fs;
use std::thread;
use std::time::Duration;
use support::said;

/// A server, and a proxy that takes everything away from it that the documents do not know.
fn shop() -> (Shop, Proxy) {
    let mut shop = Shop::open();
    let proxy = Proxy::new(shop.url().strip_prefix("http://").unwrap().parse().unwrap());
    shop.front = Some(format!("http://{}", proxy.address()));
    (shop, proxy)
}

fn put(shop: &Shop, key: &str, bytes: &str) {
    shop.world.sh(&format!(
        "curl -sf -X PUT -H 'Authorization: Bearer {}' -H 'content-type: text/plain' --data-binary '{bytes}' \
         {}/v2/key-value-stores/default/records/{key}",
        shop.token,
        shop.url()
    ));
}

// README: S127
#[test]
fn a_length_that_nobody_tells_is_right_for_who_reads() {
    let (shop, _proxy) = shop();
    for key in ["cat", "cp", "tail", "map", "tar", "rsync"] {
        put(&shop, key, &format!("the text of {key}"));
    }
    let mount = shop.mount("mnt");
    mount.sh("cd $MNT/default; ls -l > /dev/null
        test \"$(cat cat)\" = 'the text of cat'
        cp cp ../../cp; test \"$(cat ../../cp)\" = 'the text of cp'
        test \"$(tail -c 4 tail)\" = tail
        python3 -c 'import mmap; f = open(\"map\", \"rb\"); assert mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:] == b\"the text of map\"'
        tar cf ../../t.tar tar; mkdir ../../out; tar xf ../../t.tar -C ../../out; test \"$(cat ../../out/tar)\" = 'the text of tar'
        rsync -a rsync ../../out/; test \"$(cat ../../out/rsync)\" = 'the text of rsync'");
    mount.unmount();
}

// README: S127
#[test]
fn with_exact_sizes_a_listing_tells_lengths_that_the_server_does_not() {
    let (shop, _proxy) = shop();
    for length in [1, 20, 300] {
        put(&shop, &format!("of-{length}"), &"x".repeat(length));
    }
    let mount = shop.mount_with("mnt", "exact-sizes");
    assert_eq!(
        mount.sh("cd $MNT/default; stat -c '%n %s' *"),
        "of-1 1\nof-20 20\nof-300 300\n"
    );
    assert_eq!(
        mount.sh("find $MNT/default -size +200c -printf '%f\\n'"),
        "of-300\n"
    );
    mount.unmount();
}

// README: S123
#[test]
fn a_file_is_not_made_exclusively_where_the_server_has_it() {
    let (shop, _proxy) = shop();
    let mount = shop.mount_with("mnt", "ttl=100ms");
    mount.sh("ls $MNT/default; ! test -e $MNT/default/lock");
    put(&shop, "lock", "of somebody else");
    // What is known is too old by then.
    thread::sleep(Duration::from_millis(300));
    let made = said(
        std::process::Command::new("bash")
            .args(["-c", "set -o noclobber; echo mine > \"$0\""])
            .arg(mount.path("default/lock")),
    );
    assert_ne!(made.code, Some(0), "{made:?}");
    assert!(made.err.contains("xist"), "{made:?}");
    assert_eq!(text(&mount.path("default/lock")), "of somebody else");
    mount.unmount();
}

// README: S123
#[test]
fn what_was_made_exclusively_is_not_written_over_what_came_since() {
    let (shop, _proxy) = shop();
    let mount = shop.mount_with("mnt", "debounce=10m");
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(mount.path("default/lock"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"mine"))
        .unwrap();
    put(&shop, "lock", "of somebody else");
    mount.sync();
    assert_eq!(shop.behind("default", "lock").unwrap(), b"of somebody else");
    assert_eq!(mount.sh("cat $MNT/default/lock.conflict-*"), "mine");
    mount.unmount();
}
