//! Folders that somebody prepared against whoever mounts them: links to elsewhere, pipes, directories, and sidecars full
//! of lies. Nothing from elsewhere is ever read or written, and what is sound stays readable.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Mount, World, wait_until};

const SECRET: &str = "a secret from elsewhere";
const LAYOUTS: [&str; 4] = ["plain", "dual", "js", "python"];

/// A world with a secret beside its storage folder.
fn prepared() -> (World, PathBuf) {
    let world = World::new();
    let secret = world.root().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::write(world.source("default/SOUND.txt"), "sound").unwrap();
    (world, secret)
}

/// No name below the mountpoint gives the secret, and the secret is as it was.
#[track_caller]
fn keeps_the_secret(mount: &Mount, secret: &Path) {
    let found = Command::new("grep")
        .args(["-rsl", SECRET])
        .arg(mount.path(""))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert_eq!(fs::read_to_string(secret).unwrap(), SECRET);
}

fn mount(world: &World, layout: &str) -> Mount {
    world.mount(&["-o", &format!("layout={layout}")])
}

fn errno<T>(done: io::Result<T>) -> i32 {
    done.map_or_else(|why| why.raw_os_error().unwrap(), |_| 0)
}

// README: S48
#[test]
fn links_out_of_a_store_lead_nowhere() {
    for layout in LAYOUTS {
        let (world, secret) = prepared();
        let store = world.source("default");
        symlink(&secret, store.join("ABSOLUTE")).unwrap();
        symlink("../../../secret", store.join("RELATIVE")).unwrap();
        symlink(&secret, store.join("INPUT")).unwrap();
        symlink("../../../secret", store.join("INPUT.json")).unwrap();
        symlink(world.root(), store.join("FOLDER")).unwrap();
        let mount = mount(&world, layout);
        for name in [
            "ABSOLUTE",
            "RELATIVE",
            "INPUT",
            "INPUT.json",
            "FOLDER",
            "FOLDER/secret",
        ] {
            let path = mount.path("default").join(name);
            assert_ne!(errno(fs::read(&path)), 0, "{layout}: {name}");
            // Whatever becomes of a write, it does not go through the link.
            let _ = fs::write(&path, "overwritten");
            let _ = fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .map(|mut file| io::Write::write_all(&mut file, b"more"));
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o777));
            let _ = xattr::set(&path, "user.mime_type", b"text/html");
            let _ = fs::rename(mount.path("default").join("SOUND.txt"), &path);
            let _ = fs::rename(&path, mount.path("default").join("SOUND.txt"));
            assert_eq!(
                fs::read_to_string(&secret).unwrap(),
                SECRET,
                "{layout}: {name}"
            );
        }
        for name in ["ABSOLUTE", "RELATIVE"] {
            let made = fs::write(mount.path("default").join(name), "overwritten");
            assert_eq!(errno(made), libc::EEXIST, "{layout}: {name}");
            let link = world.source("default").join(name);
            assert!(link.is_symlink(), "{layout}: {name}");
        }
        // The log is read beside the test.
        wait_until("the log tells of the link", || {
            mount.log().contains("link of this name")
        });
        let _ = fs::remove_file(mount.path("default/ABSOLUTE"));
        keeps_the_secret(&mount, &secret);
        assert_eq!(
            fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(xattr::get(&secret, "user.mime_type").unwrap(), None);
        // A record can be written and removed beside them.
        fs::write(mount.path("default/NEW"), "new").unwrap();
        assert_eq!(
            fs::read(mount.path("default/NEW")).unwrap(),
            b"new",
            "{layout}"
        );
    }
}

#[test]
fn links_in_the_place_of_folders_lead_nowhere() {
    for layout in LAYOUTS {
        let (world, secret) = prepared();
        let elsewhere = world.root().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::copy(&secret, elsewhere.join("SECRET.txt")).unwrap();
        symlink(&elsewhere, world.source("other")).unwrap();
        symlink("/", world.source("slash")).unwrap();
        let mount = mount(&world, layout);
        for store in ["other", "slash"] {
            assert_ne!(
                errno(fs::read_dir(mount.path(store))),
                0,
                "{layout}: {store}"
            );
            let _ = fs::write(mount.path(store).join("NEW"), "x");
            let _ = fs::remove_dir(mount.path(store));
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1, "{layout}");
        keeps_the_secret(&mount, &secret);
    }
}

#[test]
fn our_own_folder_as_a_link_is_not_written_through() {
    for layout in LAYOUTS {
        let (world, secret) = prepared();
        let elsewhere = world.root().join("elsewhere");
        fs::create_dir_all(elsewhere.join("tmp/old")).unwrap();
        fs::write(elsewhere.join("tmp/old/precious"), "precious").unwrap();
        symlink(&elsewhere, world.storage().join(".storefs")).unwrap();
        let mounted = support::said(&mut world.storefs(&[
            "mount",
            "-o",
            &format!("layout={layout}"),
            "storage",
            "mnt",
        ]));
        if mounted.code == Some(0) {
            let _ = fs::write(world.root().join("mnt/default/NEW"), "x");
            let _ = support::said(&mut world.storefs(&["umount", "mnt"]));
        }
        assert_eq!(
            fs::read_to_string(elsewhere.join("tmp/old/precious")).unwrap(),
            "precious",
            "{layout}: {mounted:?}"
        );
        assert_eq!(
            fs::read_dir(&elsewhere).unwrap().count(),
            1,
            "{layout}: {mounted:?}"
        );
        assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    }
}

#[test]
fn pipes_directories_and_sockets_in_a_store_are_no_records_and_hold_nobody_up() {
    for layout in LAYOUTS {
        let (world, secret) = prepared();
        let store = world.source("default");
        mknodat(CWD, store.join("PIPE"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        mknodat(CWD, store.join("PIPE.json"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(store.join("SOCKET")).unwrap();
        fs::create_dir(store.join("FOLDER")).unwrap();
        fs::create_dir(store.join("FOLDER.txt")).unwrap();
        fs::write(store.join("FOLDER/inside"), "inside").unwrap();
        let mount = mount(&world, layout);
        let listed: Vec<_> = fs::read_dir(mount.path("default"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(listed.len(), 1, "{layout}: {listed:?}");
        for name in ["PIPE", "PIPE.json", "SOCKET", "FOLDER", "FOLDER.txt"] {
            let path = mount.path("default").join(name);
            assert_ne!(errno(fs::read(&path)), 0, "{layout}: {name}");
            // To write may be refused; to be answered matters.
            let _ = fs::write(&path, "x");
            let _ = fs::remove_file(&path);
            let _ = fs::rename(&path, mount.path("default/RENAMED"));
        }
        assert_eq!(
            fs::read_to_string(store.join("FOLDER/inside")).unwrap(),
            "inside",
            "{layout}"
        );
        keeps_the_secret(&mount, &secret);
    }
}

#[test]
fn sidecars_that_are_broken_or_lie_cost_no_bytes() {
    let deep = "[".repeat(100_000);
    let long = format!(
        r#"{{"key":"A","contentType":"text/{}"}}"#,
        "x".repeat(1 << 20)
    );
    let sidecars = [
        "",
        "not JSON",
        "null",
        "[]",
        "{}",
        r#"{"key": 7, "contentType": [], "extension": {}, "size": "many", "filename": 1}"#,
        r#"{"key": "A", "content_type": null, "size": -1}"#,
        r#"{"key": "../../../secret", "contentType": "text/plain", "extension": "txt"}"#,
        r#"{"key": "A", "contentType": "text/plain", "extension": "../../../../secret"}"#,
        r#"{"key": "A", "contentType": "text/plain", "extension": "txt/../../../../secret"}"#,
        r#"{"key": "A", "contentType": "text/plain", "extension": "/etc/passwd"}"#,
        r#"{"key": "A\u0000B", "contentType": "text/plain\r\nX: y", "extension": "tx\u0000t"}"#,
        r#"{"key": "A", "content_type": "text/plain", "size": 18446744073709551615, "filename": "../../../secret"}"#,
        &deep,
        &long,
    ];
    for layout in ["dual", "js", "python"] {
        for sidecar in sidecars {
            let (world, secret) = prepared();
            let store = world.source("default");
            for (value, beside) in [
                ("A", "A.__metadata__.json"),
                ("A.txt", "A.__metadata__.json"),
                ("B.bin", "B.__metadata__.json"),
            ] {
                fs::write(store.join(value), "the bytes").unwrap();
                fs::write(store.join(beside), sidecar).unwrap();
            }
            let mount = mount(&world, layout);
            let shown = &sidecar[..sidecar.len().min(60)];
            keeps_the_secret(&mount, &secret);
            let found = Command::new("grep")
                .args(["-rl", "the bytes"])
                .arg(mount.path("default"))
                .output()
                .unwrap();
            let found = String::from_utf8(found.stdout).unwrap();
            assert!(
                found.contains("/A"),
                "{layout}, {shown}: the bytes of A are gone: {found}"
            );
            assert!(
                found.contains("/B"),
                "{layout}, {shown}: the bytes of B are gone: {found}"
            );
            fs::write(mount.path("default/A"), "new bytes").unwrap();
            assert_eq!(
                fs::read_to_string(mount.path("default/A")).unwrap(),
                "new bytes",
                "{layout}, {shown}"
            );
            fs::remove_file(mount.path("default/A")).unwrap();
            keeps_the_secret(&mount, &secret);
        }
    }
}

// README: S48
#[test]
fn a_daemon_of_root_never_gives_others_a_file_from_elsewhere() {
    if !support::is_root() {
        return; // it is about daemons of root
    }
    let (world, secret) = prepared();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = world.root().join("own");
    fs::write(&own, "nobody's own").unwrap();
    for path in [
        &world.storage(),
        &world.source(""),
        &world.source("default"),
        &own,
    ] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    for layout in ["plain", "dual"] {
        let mount = world.mount(&["-o", &format!("allow_other,layout={layout}")]);
        let store = world.source("default");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The owner of the folder swaps a file and a link to root's secret as fast as it can.
            scope.spawn(|| {
                let (link, file) = (world.root().join("link"), world.root().join("file"));
                while !done.load(Ordering::Relaxed) {
                    symlink(&secret, &link).unwrap();
                    fs::rename(&link, store.join("SWAP.txt")).unwrap();
                    fs::write(&file, "nobody's own").unwrap();
                    fs::rename(&file, store.join("SWAP.txt")).unwrap();
                }
            });
            // The store itself, too.
            scope.spawn(|| {
                let elsewhere = world.root().join("elsewhere");
                let _ = fs::create_dir(&elsewhere);
                fs::copy(&secret, elsewhere.join("SWAP.txt")).unwrap();
                let (link, kept) = (world.source("../link"), world.source("../kept"));
                while !done.load(Ordering::Relaxed) {
                    fs::create_dir_all(world.source("swap")).unwrap();
                    fs::write(world.source("swap/SWAP.txt"), "nobody's own").unwrap();
                    symlink(&elsewhere, &link).unwrap();
                    fs::rename(world.source("swap"), &kept).unwrap();
                    fs::rename(&link, world.source("swap")).unwrap();
                    fs::remove_file(world.source("swap")).unwrap();
                    fs::remove_dir_all(&kept).unwrap();
                }
            });
            let script = format!(
                "for i in $(seq 300); do
                     cat {0}/default/SWAP.txt {0}/swap/SWAP.txt {0}/default/SWAP {0}/swap/SWAP
                     echo overwritten > {0}/default/SWAP.txt
                     echo more >> {0}/swap/SWAP.txt
                 done 2> {1} || true",
                mount.path("").display(),
                "/dev/null",
            );
            let nobody = Command::new("setpriv")
                .args([
                    "--reuid=nobody",
                    "--regid=nogroup",
                    "--clear-groups",
                    "--inh-caps=-all",
                    "--",
                    "bash",
                    "-c",
                    &script,
                ])
                .output();
            done.store(true, Ordering::Relaxed);
            let out = String::from_utf8_lossy(&nobody.unwrap().stdout).into_owned();
            assert!(
                out.contains("nobody's own"),
                "{layout}: nobody read anything at all"
            );
            assert!(!out.contains(SECRET), "{layout}: the secret got out");
        });
        assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET, "{layout}");
        assert_eq!(
            fs::read_to_string(world.root().join("elsewhere/SWAP.txt")).unwrap(),
            SECRET,
            "{layout}"
        );
        mount.unmount();
        let _ = fs::remove_dir_all(world.root().join("elsewhere"));
    }
}

#[test]
fn a_record_that_is_replaced_by_a_link_under_an_open_mount_is_gone() {
    for layout in LAYOUTS {
        let (world, secret) = prepared();
        let mount = world.mount(&["-o", &format!("ttl=0,layout={layout}")]);
        fs::write(mount.path("default/OUTPUT"), "mine").unwrap();
        let files: Vec<_> = fs::read_dir(world.source("default"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        for file in files
            .iter()
            .filter(|file| file.to_str().unwrap().contains("OUTPUT"))
        {
            // A lock may have been there for a moment.
            if fs::remove_file(file).is_ok() {
                symlink(&secret, file).unwrap();
            }
        }
        wait_until("the link is no record", || {
            fs::read(mount.path("default/OUTPUT")).is_err()
        });
        let _ = fs::write(mount.path("default/OUTPUT"), "through the link");
        keeps_the_secret(&mount, &secret);
    }
}
