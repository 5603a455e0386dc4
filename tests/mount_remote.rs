//! Mounts of a server, by the real kernel: what programs write there, what comes of a server that goes away, of kills and
//! of tokens. The server is `storefs serve` in a process of its own.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use support::{Mount, Said, World, said, type_of, wait_until, xattr_of};

const SERVER: &str = "http://127.0.0.1:";

/// A storage folder behind a server, and folders for mounts of it.
struct Shop {
    server: Option<Child>,
    port: String,
    token: String,
    world: World,
}

impl Shop {
    fn open() -> Self {
        let mut shop = Self {
            server: None,
            port: "0".to_owned(),
            token: String::new(),
            world: World::new(),
        };
        shop.start();
        shop
    }

    /// Starts the server, at the port that it had.
    fn start(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.world.root().join("serve.log"))
            .unwrap();
        let mut child = self
            .world
            .storefs(&[
                "serve",
                "storage",
                "--tokens",
                "tokens.json",
                "--listen",
                &listen,
            ])
            .env("USER", "ann")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Kept before anything can fail, so that it is killed in any case.
        self.server = Some(child);
        for line in lines.take(if self.token.is_empty() { 3 } else { 1 }) {
            let line = line.unwrap();
            if let Some(at) = line.find(SERVER) {
                let rest = &line[at + SERVER.len()..];
                self.port = rest.chars().take_while(char::is_ascii_digit).collect();
            }
            if let Some((_, token)) = line.split_once("APIFY_TOKEN=") {
                self.token = token.to_owned();
            }
        }
        assert!(!self.token.is_empty() && self.port != "0");
    }

    /// Kills the server.
    fn close(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn url(&self) -> String {
        format!("{SERVER}{}", self.port)
    }

    /// The command that mounts the server at a name, with a cache of that name.
    fn command(&self, name: &str, options: &str) -> Command {
        let cache = self.world.root().join(format!("cache-{name}"));
        let options = format!("cache={},{options}", cache.display());
        let mut command =
            self.world
                .storefs(&["mount", "--foreground", "-o", &options, &self.url()]);
        command
            .arg(self.world.root().join(name))
            .env("APIFY_TOKEN", &self.token)
            .env("HOME", self.world.root());
        command
    }

    #[track_caller]
    fn mount(&self, name: &str) -> Mount {
        self.mount_with(name, "")
    }

    #[track_caller]
    fn mount_with(&self, name: &str, options: &str) -> Mount {
        let path = self.world.root().join(name);
        Mount::start(self.command(name, options), &path, &self.world.storage())
    }

    /// What a mount that must not come about says.
    fn refused(&self, command: &mut Command) -> Said {
        let said = said(command);
        assert_eq!(said.code, Some(1), "{said:?}");
        said
    }

    /// The bytes of a record as the server's folder has them.
    fn behind(&self, store: &str, file: &str) -> Option<Vec<u8>> {
        fs::read(self.world.source(store).join(file)).ok()
    }

    /// How many requests of this method the server has logged for a key.
    fn requests(&self, method: &str, key: &str) -> usize {
        let log = fs::read_to_string(self.world.root().join("serve.log")).unwrap();
        let end = format!("/records/{key} ");
        let asked = format!(" {method} /");
        log.lines()
            .filter(|line| line.contains(&asked) && line.contains(&end))
            .count()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.close();
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

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

// README: S114
#[test]
fn each_way_in_which_programs_write_a_file_is_one_put() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    mount.sh("cd $MNT/default
        echo one > echo
        (echo a; echo b) > group
        cp /etc/hostname copy
        printf 'x\\n' | tee tee > /dev/null
        dd if=/dev/zero of=dd bs=4096 count=64 status=none
        curl -s -o curl file:///etc/hostname
        python3 -c 'open(\"python\", \"w\").write(\"p\")'
        vim.tiny -u NONE -es -c 'call setline(1, \"v\")' -c 'wq' vim 2>/dev/null || vim -u NONE -es -c 'call setline(1, \"v\")' -c 'wq' vim
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
    let late = said(&mut mount.storefs(&["sync", "--timeout", "1s"]));
    assert_eq!(late.code, Some(3), "{late:?}");
    let status = mount.status().to_string();
    assert!(status.contains("offlineSince"), "{status}");
    let left = said(&mut mount.storefs(&["umount", "--timeout", "1s"]));
    assert_eq!(left.code, Some(3), "{left:?}");
    assert!(left.err.contains("next mount"), "{left:?}");
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

/// Writes records through a mount until it fails, and counts those whose `close` returned.
fn write_on(path: PathBuf, round: usize, closed: Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        loop {
            let n = closed.load(Ordering::SeqCst);
            if fs::write(path.join(format!("r{round}-{n}")), n.to_string().repeat(40)).is_err() {
                return;
            }
            closed.store(n + 1, Ordering::SeqCst);
        }
    })
}

// README: S115
#[test]
fn no_record_whose_close_returned_is_lost_by_a_kill() {
    const KILLS: usize = 20;
    let shop = Shop::open();
    let mut closed = Vec::new();
    let mut unsent = 0;
    for round in 0..KILLS {
        let mut mount = shop.mount_with("mnt", "debounce=50ms");
        let writing = write_on(mount.path("default"), round);
        thread::sleep(std::time::Duration::from_millis(
            40 + 11 * (round as u64 % 9),
        ));
        mount.kill();
        support::detach(&shop.world.root().join("mnt"));
        closed.push(writing.join().unwrap());
        let spool = shop.world.root().join("cache-mnt/spool");
        unsent += usize::from(fs::read_dir(spool).unwrap().count() > 1);
    }
    assert!(
        unsent * 4 >= KILLS * 3,
        "only {unsent} kills met unsent edits"
    );
    let mount = shop.mount("mnt");
    mount.sync();
    let mut there = 0;
    for (round, closed) in closed.iter().enumerate() {
        for n in 0..*closed {
            let key = format!("r{round}-{n}");
            let bytes = shop
                .behind("default", &key)
                .unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(bytes, n.to_string().repeat(40).as_bytes(), "{key}");
            there += 1;
        }
        // The one that was being written may be there, whole or as far as it had come.
        there += usize::from(
            shop.behind("default", &format!("r{round}-{closed}"))
                .is_some(),
        );
    }
    let listed = mount.sh("ls $MNT/default | wc -l");
    assert_eq!(listed.trim(), there.to_string(), "something is there twice");
    mount.unmount();
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

// README: S121
#[test]
fn a_memory_source_is_for_trying_out() {
    let world = World::new();
    let mut command = world.storefs(&["mount", "--foreground", "memory:"]);
    command.arg(world.root().join("mnt"));
    let mount = Mount::start(command, &world.root().join("mnt"), &world.storage());
    mount.sh("mkdir $MNT/s; echo x > $MNT/s/KEY; test $(cat $MNT/s/KEY) = x");
    mount.unmount();
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
    let object = said(&mut shop.world.storefs(&["mount", "s3://bucket", "mnt"]));
    assert_eq!(object.code, Some(1), "{object:?}");
    assert!(object.err.contains("not supported yet"), "{object:?}");
}
