//! What a mount refuses: the error each program sees, the log line, the entry in `storefs status`, and that nothing is
//! lost by it.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use support::{Mount, World, as_nobody, said, type_of, wait_until};

/// Both ways to keep records whose rules differ most.
const LAYOUTS: [&str; 2] = ["plain", "dual"];

#[track_caller]
fn errno<T>(done: io::Result<T>) -> i32 {
    match done {
        Ok(_) => 0,
        Err(why) => why.raw_os_error().unwrap(),
    }
}

fn mounted(layout: &str) -> (World, Mount) {
    let world = World::new();
    let mount = world.mount(&["-o", &format!("layout={layout}")]);
    fs::write(mount.path("default/OUTPUT"), "mine").unwrap();
    (world, mount)
}

/// The record is as it was, alone in its store.
#[track_caller]
fn nothing_is_lost(mount: &Mount) {
    assert_eq!(fs::read(mount.path("default/OUTPUT")).unwrap(), b"mine");
    assert_eq!(names_in(&mount.path("default")), ["OUTPUT"]);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// The name is told as refused in the log and in status, with a reason.
#[track_caller]
fn is_told(mount: &Mount, name: &str, why: &str) {
    let told = |text: &str| text.contains(name) && text.contains(why);
    wait_until(&format!("the log names {name} and says {why:?}"), || {
        mount.log().lines().any(told)
    });
    let status = mount.status();
    let refused = status["refused"].as_array().unwrap();
    assert!(
        refused.iter().any(|entry| told(&entry.to_string())),
        "{name}: {status:#}"
    );
}

// README: S7, S8
#[test]
fn a_name_that_is_no_key_is_refused_with_the_rule() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        for name in [
            "my report.pdf",
            "a:b",
            "tab\there",
            "umlaut-ä",
            "100%",
            "a*",
        ] {
            let path = mount.path("default").join(name);
            assert_eq!(
                errno(fs::write(&path, "x")),
                libc::EINVAL,
                "{layout}: {name}"
            );
            assert_eq!(errno(fs::metadata(&path)), libc::ENOENT, "{layout}: {name}");
            assert_eq!(
                errno(fs::rename(mount.path("default/OUTPUT"), &path)),
                libc::EINVAL,
                "{layout}: {name}"
            );
        }
        is_told(&mount, "my report.pdf", "a-z A-Z 0-9");
        nothing_is_lost(&mount);
    }
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let (_world, mount) = mounted("plain");
    let path = mount
        .path("default")
        .join(std::ffi::OsStr::from_bytes(b"bad\xff"));
    assert_eq!(errno(fs::write(&path, "x")), libc::EINVAL);
    assert_ne!(errno(fs::metadata(&path)), 0);
    nothing_is_lost(&mount);
}

// README: S66
#[test]
fn a_store_whose_name_is_none_is_refused() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        for name in [
            "my store",
            ".hidden",
            "__CRAWLEE_TEMPORARY_1__",
            "a_b",
            "-a",
        ] {
            let made = fs::create_dir(mount.path(name));
            if made.is_ok() {
                // What is made is a store like any other.
                fs::write(mount.path(name).join("KEY"), "x").unwrap();
                assert!(mount.source(name).is_dir(), "{layout}: {name}");
                continue;
            }
            assert_eq!(errno(made), libc::EINVAL, "{layout}: {name}");
            assert!(!mount.source(name).exists(), "{layout}: {name}");
            assert_eq!(
                errno(fs::rename(mount.path("default"), mount.path(name))),
                libc::EINVAL,
                "{layout}: {name}"
            );
        }
        is_told(&mount, ".hidden", "does not begin with a dot");
        nothing_is_lost(&mount);
    }
}

// README: S73, S74, S75, S76
#[test]
fn a_store_holds_records_and_nothing_else() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        let (new, old) = (mount.path("default/NEW"), mount.path("default/OUTPUT"));
        assert_eq!(errno(fs::create_dir(&new)), libc::EPERM, "{layout}: mkdir");
        assert_eq!(
            errno(fs::hard_link(&old, &new)),
            libc::EPERM,
            "{layout}: link"
        );
        assert_eq!(
            errno(symlink("OUTPUT", &new)),
            libc::EPERM,
            "{layout}: symlink"
        );
        for kind in [
            FileType::Fifo,
            FileType::Socket,
            FileType::CharacterDevice,
            FileType::BlockDevice,
        ] {
            let made = mknodat(CWD, &new, kind, Mode::RUSR, 0).map_err(io::Error::from);
            assert_eq!(errno(made), libc::EPERM, "{layout}: {kind:?}");
        }
        assert_eq!(
            errno(fs::remove_dir(&old)),
            libc::ENOTDIR,
            "{layout}: rmdir"
        );
        assert_eq!(
            errno(fs::write(mount.path("file"), "x")),
            libc::EPERM,
            "{layout}: a record without a store"
        );
        assert_eq!(
            errno(fs::rename(&old, mount.path("file"))),
            libc::EPERM,
            "{layout}: out of its store"
        );
        assert_eq!(
            errno(fs::remove_dir(mount.path("default"))),
            libc::ENOTEMPTY,
            "{layout}: rmdir of a full store"
        );
        assert_eq!(
            errno(fs::rename(
                mount.path("default"),
                mount.path("default/inside")
            )),
            libc::EINVAL,
            "{layout}"
        );
        nothing_is_lost(&mount);
    }
}

// README: S64
#[test]
fn records_are_never_exchanged() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        fs::write(mount.path("default/OTHER"), "other").unwrap();
        let pair = (mount.path("default/OUTPUT"), mount.path("default/OTHER"));
        let done = renameat_with(CWD, &pair.0, CWD, &pair.1, RenameFlags::EXCHANGE)
            .map_err(io::Error::from);
        assert_eq!(errno(done), libc::EINVAL, "{layout}");
        let done = renameat_with(CWD, &pair.0, CWD, &pair.1, RenameFlags::NOREPLACE)
            .map_err(io::Error::from);
        assert_eq!(errno(done), libc::EEXIST, "{layout}");
        assert_eq!(fs::read(&pair.1).unwrap(), b"other", "{layout}");
        fs::remove_file(&pair.1).unwrap();
        nothing_is_lost(&mount);
    }
}

#[test]
fn what_is_no_content_type_is_refused_and_the_old_one_stays() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        let path = mount.path("default/OUTPUT");
        let before = type_of(&path);
        let long = format!("text/{}", "x".repeat(251));
        for bad in [
            "",
            "text",
            "text/",
            "/plain",
            "text plain",
            "text/plain; charset",
            "text/pl\nain",
            "é/x",
            &long,
        ] {
            let set = xattr::set(&path, "user.mime_type", bad.as_bytes());
            assert_eq!(errno(set), libc::EINVAL, "{layout}: {bad:?}");
        }
        assert_eq!(type_of(&path), before, "{layout}");
        is_told(&mount, "OUTPUT", "type/subtype");
        let longest = format!("text/{}", "x".repeat(250));
        xattr::set(&path, "user.mime_type", longest.as_bytes()).unwrap();
        assert_eq!(type_of(&path), longest, "{layout}");
        nothing_is_lost(&mount);
    }
}

#[test]
fn attributes_that_are_not_the_users_are_refused() {
    for layout in LAYOUTS {
        let (_world, mount) = mounted(layout);
        let path = mount.path("default/OUTPUT");
        // rw-r--r--, as setfacl(1) would set it
        let acl = [
            &[2_u8, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[32, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        for name in ["security.test", "trusted.test", "system.posix_acl_access"] {
            let set = xattr::set(&path, name, &acl);
            assert_eq!(errno(set), libc::EOPNOTSUPP, "{layout}: {name}");
            let got = xattr::get(&path, name);
            assert_eq!(errno(got), libc::EOPNOTSUPP, "{layout}: {name}");
        }
        assert_eq!(
            errno(xattr::set(&path, "user.storefs.state", b"x")),
            libc::EPERM,
            "{layout}"
        );
        assert_eq!(
            errno(xattr::remove(&path, "user.storefs.state")),
            libc::EPERM,
            "{layout}"
        );
        assert_eq!(
            errno(xattr::set(mount.path("default"), "user.note", b"x")),
            libc::EPERM,
            "{layout}: on a store"
        );
        nothing_is_lost(&mount);
    }
}

// README: S61
#[test]
fn a_read_only_mount_changes_nothing() {
    for layout in LAYOUTS {
        let (world, mount) = mounted(layout);
        mount.unmount();
        let _ = fs::remove_dir_all(world.storage().join(".storefs"));
        // A plain store is told by its marker, which is gone with the folder.
        let before = world.sh("find \"$SRC\" -printf '%P %y %T@ %C@ %s\\n' | sort");
        let mount = world.mount(&["-o", &format!("ro,layout={layout}")]);
        let path = mount.path("default/OUTPUT");
        nothing_is_lost(&mount);
        let refused = [
            ("write", fs::write(&path, "x")),
            (
                "append",
                fs::OpenOptions::new().append(true).open(&path).map(drop),
            ),
            ("create", fs::write(mount.path("default/NEW"), "x")),
            ("scratch", fs::write(mount.path("default/OUTPUT~"), "x")),
            ("unlink", fs::remove_file(&path)),
            ("rename", fs::rename(&path, mount.path("default/NEW"))),
            ("mkdir", fs::create_dir(mount.path("new"))),
            (
                "rename of a store",
                fs::rename(mount.path("default"), mount.path("new")),
            ),
            (
                "chmod",
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)),
            ),
            ("type", xattr::set(&path, "user.mime_type", b"text/html")),
        ];
        for (what, done) in refused {
            assert_eq!(errno(done), libc::EROFS, "{layout}: {what}");
        }
        nothing_is_lost(&mount);
        mount.unmount();
        assert_eq!(
            world.sh("find \"$SRC\" -printf '%P %y %T@ %C@ %s\\n' | sort"),
            before,
            "{layout}"
        );
    }
}

#[test]
fn a_folder_that_may_not_be_read_is_said_so() {
    if !support::is_root() {
        return; // to begin with, nobody but root can prepare this
    }
    let world = World::new();
    let script = r#"
chmod 0 "$SRC/key_value_stores"
code=0; storefs mount "$SRC" "$MNT" 2> err || code=$?
chmod 700 "$SRC/key_value_stores"
cat err; echo "code $code"
storefs mount "$SRC" "$MNT" > /dev/null
echo hello > "$MNT/default/OUTPUT"
chmod 0 "$SRC/key_value_stores/default"
cat "$MNT/default/OUTPUT" 2>&1 || true
ls "$MNT/default" 2>&1 || true
chmod 700 "$SRC/key_value_stores/default"
cat "$MNT/default/OUTPUT"
storefs umount "$MNT"
"#;
    let said = as_nobody(&world, script);
    assert!(said.contains("ermission denied"), "{said}");
    assert!(!said.contains("code 0\n"), "{said}");
    assert!(said.ends_with("hello\n"), "{said}");
    assert!(
        !said.contains("No such file"),
        "a closed folder is not an empty one: {said}"
    );
}

#[test]
fn a_folder_that_is_not_there_is_said_so() {
    let world = World::new();
    let said = said(
        world
            .storefs(&["mount", "no/such", "mnt"])
            .env("LC_ALL", "C"),
    );
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("no/such"), "{said:?}");
    assert!(!world.root().join("mnt").exists());
}
