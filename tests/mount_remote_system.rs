//! Mounts of a server as a system makes them: by systemd, by mount(8), with disks that are full, and with the tools that people
//! use.
#![allow(clippy::unwrap_used)]

mod shop;
mod support;

use rustix::mount::{MountFlags, UnmountFlags};
use shop::{Shop, text};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Mount, STOREFS, mountinfo, said, type_of, wait_until};

/// The line of the unit that begins so.
fn of_unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/storefs@.service");
    let unit = fs::read_to_string(path).unwrap();
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("the unit has no {name}"))
        .to_owned()
}

#[test]
fn the_unit_of_systemd_mounts_reloads_and_ends() {
    let shop = Shop::open();
    let token = shop.world.root().join("token");
    fs::write(&token, &shop.token).unwrap();
    shop.world.sh("chmod 600 token");
    assert_eq!(of_unit("Type"), "notify");
    let start = of_unit("ExecStart");
    let arguments: Vec<String> = start
        .strip_prefix("/usr/local/bin/storefs ")
        .unwrap()
        .split(' ')
        .map(|word| match word {
            "${SOURCE}" => shop.url(),
            "${MOUNTPOINT}" => shop.world.root().join("mnt").display().to_string(),
            other => other.to_owned(),
        })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let name = shop.world.root().join("notify");
    let socket = UnixDatagram::bind(&name).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let cache = shop.world.root().join("cache");
    let mut command = shop.world.storefs(&arguments);
    command.env("NOTIFY_SOCKET", &name).env(
        "STOREFS_OPTIONS",
        format!("token-file={},cache={}", token.display(), cache.display()),
    );
    let mut mount = Mount::start(
        command,
        &shop.world.root().join("mnt"),
        &shop.world.storage(),
    );
    let word = || {
        let mut word = [0; 64];
        let length = socket.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    assert_eq!(word(), "READY=1");
    mount.sh("echo bytes > $MNT/default/KEY");
    assert_eq!(of_unit("ExecReload"), "/bin/kill -HUP $MAINPID");
    mount.signal(rustix::process::Signal::HUP);
    wait_until("the token is read again", || {
        mount.log().contains("read the token again")
    });
    mount.signal(rustix::process::Signal::TERM);
    assert_eq!(word(), "STOPPING=1");
    assert!(mount.wait().success(), "{}", mount.log());
    assert_eq!(shop.behind("default", "KEY").unwrap(), b"bytes\n");
    // Where systemd is, it says whether the file is a unit.
    let checked = Command::new("systemd-analyze")
        .arg("verify")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/storefs@.service"))
        .output();
    if let Ok(output) = checked {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !said.contains("storefs@") || said.contains("not executable"),
            "{said}"
        );
    }
}

#[test]
fn mount_8_mounts_a_server_as_a_line_of_fstab_would() {
    let shop = Shop::open();
    let token = shop.world.root().join("token");
    fs::write(&token, &shop.token).unwrap();
    shop.world.sh("chmod 600 token; mkdir mnt");
    // Only the name that mount(8) looks for is needed in /sbin.
    let script = format!(
        "set -e; mount -t tmpfs none \"$(readlink -f /sbin)\"
        ln -s '{STOREFS}' /sbin/mount.fuse.storefs
        mount -t fuse.storefs {url} mnt -o _netdev,nofail,cache=$PWD/cache,token-file=$PWD/token
        grep ' fuse.storefs ' /proc/mounts
        echo bytes > mnt/default/KEY
        umount mnt",
        url = shop.url()
    );
    let mut command = Command::new("unshare");
    support::clean(&mut command)
        .args(["--mount", "--propagation", "private", "bash", "-c", &script])
        .current_dir(shop.world.root())
        .env("HOME", shop.world.root());
    let said = said(&mut command);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains(&shop.url()) && !said.out.contains(&shop.token),
        "{said:?}"
    );
    wait_until("what was written is sent", || {
        shop.behind("default", "KEY")
            .is_some_and(|bytes| bytes == b"bytes\n")
    });
}

/// A small disk in memory. Dropped, it is detached.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf, options: &str) -> Self {
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "storefs-test",
            &path,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if mountinfo(&self.0).is_some() {
            let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}

#[test]
fn where_the_disk_of_the_spool_is_full_a_writer_is_told_and_the_old_record_stays() {
    let shop = Shop::open();
    let disk = SmallDisk::at(shop.world.root().join("cache-mnt"), "size=12m");
    let mount = shop.mount("mnt");
    mount.sh("echo old > $MNT/default/OUTPUT; echo other > $MNT/default/other");
    mount.sync();
    mount.sh("! dd if=/dev/zero of=$MNT/default/OUTPUT bs=1M count=30 status=none");
    mount.sh("! cp /dev/zero $MNT/default/new 2>/dev/null");
    assert_eq!(text(&mount.path("default/OUTPUT")), "old\n");
    mount.sync();
    assert_eq!(shop.behind("default", "OUTPUT").unwrap(), b"old\n");
    assert_eq!(shop.behind("default", "new"), None);
    // Nothing is left of what failed, and it goes on.
    mount.sh("head -c 3000000 /dev/urandom > three; cp three $MNT/default/OUTPUT; cmp three $MNT/default/OUTPUT");
    mount.sync();
    mount.sh("cmp three $SRC/key_value_stores/default/OUTPUT");
    mount.unmount();
    drop(disk);
}

#[test]
fn a_save_that_failed_for_want_of_room_works_when_there_is_some() {
    let shop = Shop::open();
    let disk = SmallDisk::at(shop.world.root().join("cache-mnt"), "size=4m");
    let mount = shop.mount("mnt");
    // The bytes have a place; what would tell of them cannot get one.
    mount.sh(r#"python3 - <<'E'
import errno, os
f = os.open(os.environ["MNT"] + "/default/KEY", os.O_WRONLY | os.O_CREAT)
os.write(f, b"bytes")
filler = open("cache-mnt/filler", "wb", buffering=0)
try:
    while True:
        filler.write(bytes(4096))
except OSError as e:
    assert e.errno == errno.ENOSPC, e
try:
    os.fsync(f)
    raise SystemExit("it cannot have been saved")
except OSError as e:
    assert e.errno == errno.ENOSPC, e
filler.close()
os.remove("cache-mnt/filler")
os.write(f, b" and more")
os.fsync(f)
os.close(f)
E"#);
    assert_eq!(shop.behind("default", "KEY").unwrap(), b"bytes and more");
    mount.sync();
    assert_eq!(mount.sh("ls $MNT/default"), "KEY\n");
    mount.unmount();
    drop(disk);
}

#[test]
fn where_the_disk_of_the_cache_is_full_what_is_read_is_right_or_an_error() {
    let shop = Shop::open();
    shop.world.sh(&format!(
        "head -c 30000000 /dev/urandom > big; head -c 100000 /dev/urandom > small
        for f in big small; do curl -sf -X PUT -H 'Authorization: Bearer {}' -H 'content-type: application/octet-stream' \\
            --data-binary @$f {}/v2/key-value-stores/default/records/$f; done",
        shop.token,
        shop.url()
    ));
    let disk = SmallDisk::at(shop.world.root().join("cache-mnt"), "size=12m");
    let mount = shop.mount("mnt");
    mount.sh("if cat $MNT/default/big > copy 2>/dev/null; then cmp big copy; else cmp -n $(stat -c %s copy) big copy; fi
        cmp small $MNT/default/small
        echo bytes > $MNT/default/new");
    mount.sync();
    assert_eq!(shop.behind("default", "new").unwrap(), b"bytes\n");
    mount.unmount();
    drop(disk);
}

// README: S110
#[test]
fn the_tools_that_people_use_do_what_they_do_elsewhere() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    mount.sh(r#"cd $MNT/default
        mkdir ../../from; cd ../../from; echo '{"a": 1}' > a.json; head -c 300000 /dev/urandom > b.bin; touch -d 2020-01-02 a.json b.bin
        cp -a . $MNT/default/; cmp b.bin $MNT/default/b.bin; test $(stat -c %Y $MNT/default/a.json) = $(stat -c %Y a.json)
        tar cf - . | tar xf - -C $MNT/default; cmp b.bin $MNT/default/b.bin
        tar cf ../t.tar -C $MNT/default a.json b.bin; mkdir ../out; tar xf ../t.tar -C ../out; diff -r . ../out
        cp $MNT/default/b.bin ../b; cmp ../b b.bin
        rsync -a ./ $MNT/default/; test -z "$(rsync -ai ./ $MNT/default/ | grep '^[<>c]f')"
        $(command -v vim || command -v vim.tiny) -u NONE -es -c 'normal iby vim' -c wq $MNT/default/notes.txt || true
        test "$(cat $MNT/default/notes.txt)" = 'by vim'
        sed -i 's/by vim/by sed/' $MNT/default/notes.txt; test "$(cat $MNT/default/notes.txt)" = 'by sed'
        echo more >> $MNT/default/notes.txt; test $(wc -l < $MNT/default/notes.txt) = 2
        curl -s --xattr -o $MNT/default/curled file:///etc/hostname; cmp /etc/hostname $MNT/default/curled
        node -e 'const fs = require("fs"); const d = process.env.MNT + "/default/";
            fs.writeFileSync(d + "node.json", JSON.stringify({ b: 2 })); fs.appendFileSync(d + "node.json", "\n");
            if (JSON.parse(fs.readFileSync(d + "node.json")).b !== 2 || !fs.readdirSync(d).includes("node.json")) process.exit(1);
            fs.renameSync(d + "node.json", d + "node-2.json"); fs.copyFileSync(d + "node-2.json", d + "node-3.json"); fs.unlinkSync(d + "node-2.json")'
        python3 - <<'E'
import mmap, os, pathlib, shutil
d = pathlib.Path(os.environ["MNT"]) / "default"
(d / "py.txt").write_text("text")
assert (d / "py.txt").read_text() == "text"
shutil.copy(d / "py.txt", d / "py-2.txt")
os.replace(d / "py-2.txt", d / "py-3.txt")
with open(d / "map", "w+b") as f:
    f.truncate(10000)
    with mmap.mmap(f.fileno(), 10000) as m:
        m[0:5] = b"first"
        m[9000:9004] = b"last"
with open(d / "map", "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
    assert m[0:5] == b"first" and m[9000:9004] == b"last" and len(m) == 10000
E"#);
    mount.sync();
    let left = mount.sh("ls $MNT/default");
    assert_eq!(
        left,
        "a.json\nb.bin\ncurled\nmap\nnode-3.json\nnotes.txt\npy-3.txt\npy.txt\n"
    );
    assert_eq!(shop.behind("default", "map").unwrap()[9000..9004], *b"last");
    assert_eq!(
        type_of(&mount.path("default/a.json")),
        "application/json; charset=utf-8"
    );
    let cloned = mount.sh(
        "git init -q repo; ! git clone -q repo $MNT/default/clone 2>&1; ! git clone -q repo $MNT/cloned 2>&1",
    );
    assert!(cloned.contains("Operation not permitted"), "{cloned}");
    assert_eq!(mount.sh("ls $MNT/default"), left);
    mount.unmount();
}
