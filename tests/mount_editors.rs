//! Editors and the names they use for a moment. A record never shows a half-saved text, and no store ever sees a backup,
//! lock or autosave file.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::support::wait_until;
use kernel::{DUAL, EVERY, Mount, PLAIN, PLAIN_DAEMON, errno, names_in, text, values};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

#[test]
fn sed_in_place_replaces_the_record() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo 'one old line' > note");
        let watch = mount.watch("note");
        mount.sh("sed -i s/old/new/ note");
        assert_eq!(
            watch.seen(),
            values(["one old line\n", "one new line\n"]),
            "{way}"
        );
        assert_eq!(
            mount.content_type("note"),
            "text/plain; charset=utf-8",
            "{way}"
        );
        assert_eq!(mount.names(), ["note"], "{way}");
        assert_eq!(mount.read("note"), "one new line\n", "{way}");
    }
}

// README: S55
#[test]
fn perl_in_place_replaces_the_record() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo '{\"old\": 1}' > note; perl -pi -e 's/old/new/' note");
        assert_eq!(mount.read("note"), "{\"new\": 1}\n", "{way}");
        assert_eq!(
            mount.content_type("note"),
            "application/json; charset=utf-8",
            "{way}"
        );
        assert_eq!(mount.names(), ["note"], "{way}");
        // With a backup, which is a scratch name: local to the mount and in no store.
        mount.sh(
            "perl -pi'*~' -e 's/new/newest/' note; grep -q newest note; grep -q '\"new\"' note~",
        );
        let beside = mount.beside("note").map(|b| text(&b));
        assert_eq!(beside.as_deref(), Some("{\"newest\": 1}\n"), "{way}");
        no_scratch_beside(&mount);
    }
}

// README: S18
#[test]
fn vim_saves_with_every_way_it_has() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh(
            "echo '{\"a\": \"old\"}' > data; setfattr -n user.mime_type -v application/x-kept data",
        );
        for (settings, word) in [
            ("backupcopy=auto", "first"),
            ("backupcopy=yes writebackup", "second"),
            ("backupcopy=no writebackup", "third"),
            ("backupcopy=no backup", "fourth"),
            ("nobackup nowritebackup", "fifth"),
        ] {
            mount.sh(&format!(
                "\"$(command -v vim || command -v vim.tiny)\" -es -u NONE -N -c 'set swapfile {settings}' \
                 -c '%s/: \".*\"/: \"{word}\"/' -c wq data < /dev/null"
            ));
            let whole = format!("{{\"a\": \"{word}\"}}\n");
            assert_eq!(mount.read("data"), whole, "{way}: {settings}");
            let beside = mount.beside("data").map(|b| text(&b));
            assert_eq!(beside, Some(whole), "{way}: {settings}");
        }
        no_scratch_beside(&mount);
        let names = mount.names();
        assert!(
            names.iter().all(|name| name == "data" || name == "data~"),
            "{way}: {names:?}"
        );
    }
}

// README: S12
#[test]
fn an_editor_that_truncates_and_writes_never_shows_a_part() {
    for way in EVERY {
        let mount = Mount::new(way);
        let long: String = "line\n".repeat(40_000);
        mount.sh("echo short > text");
        let watch = mount.watch("text");
        let path = mount.path("default/text");
        for value in [&long, "short again\n"] {
            // As nano saves: open with truncation, many writes, fsync, close.
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            for part in value.as_bytes().chunks(4096) {
                file.write_all(part).unwrap();
            }
            drop(file);
            assert_eq!(fs::read_to_string(&path).unwrap(), *value, "{way}");
        }
        assert!(
            watch
                .seen()
                .is_subset(&values(["short\n", &long, "short again\n"])),
            "{way}"
        );
    }
}

// README: S14
#[test]
fn an_fsync_before_the_close_does_not_show_a_part_later() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > text");
        let path = mount.path("default/text");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(mount.beside("text").as_deref(), Some(&b"new"[..]), "{way}");
    }
}

// README: S14
#[test]
fn a_file_opened_to_be_durable_has_its_place_with_each_write_or_at_its_close() {
    for (way, at_once) in [(PLAIN, false), (DUAL, false), (PLAIN_DAEMON, true)] {
        for flag in [libc::O_SYNC, libc::O_DSYNC] {
            let mount = Mount::new(way);
            mount.sh("echo old > text");
            let path = mount.path("default/text");
            let mut options = OpenOptions::new();
            options.write(true).truncate(true).custom_flags(flag);
            let mut file = options.open(&path).unwrap();
            file.write_all(b"new").unwrap();
            let beside = mount.beside("text").unwrap();
            assert!(!at_once || beside == b"new", "{way}: {beside:?}");
            drop(file);
            assert_eq!(mount.beside("text").as_deref(), Some(&b"new"[..]), "{way}");
        }
    }
}

#[test]
fn a_save_by_rename_reaches_readers_of_both_versions() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > text; setfattr -n user.mime_type -v text/x-kept text");
        let mut before = File::open(mount.path("default/text")).unwrap();
        // As emacs, VS Code and most libraries save: a new file beside it, renamed over.
        mount.sh("echo new > .text.AbC123; mv .text.AbC123 text");
        let mut kept = String::new();
        before.read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "old\n", "{way}");
        assert_eq!(mount.read("text"), "new\n", "{way}");
        assert_eq!(mount.names(), ["text"], "{way}");
        drop(before);
        assert_eq!(
            mount.beside("text").as_deref(),
            Some(&b"new\n"[..]),
            "{way}"
        );
    }
}

// README: S25
#[test]
fn an_unlinked_open_file_lives_on_and_never_comes_back() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo text > note");
        let path = mount.path("default/note");
        let mut file = File::options().read(true).append(true).open(&path).unwrap();
        let mut draft = File::create(mount.path("default/draft")).unwrap();
        draft.write_all(b"never committed").unwrap();
        fs::remove_file(&path).unwrap();
        fs::remove_file(mount.path("default/draft")).unwrap();
        file.write_all(b"more").unwrap();
        draft.write_all(b", still not").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut value = String::new();
        file.read_to_string(&mut value).unwrap();
        assert_eq!(value, "text\nmore", "{way}");
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{way}");
        drop((file, draft));
        mount.sync();
        assert_eq!(mount.names(), [""; 0], "{way}");
        assert_eq!(names_in(&mount.backing("default")), [""; 0], "{way}");
    }
}

// README: S10
#[test]
fn scratch_files_stay_with_the_mount() {
    for way in [PLAIN, DUAL] {
        let mut mount = Mount::new(way);
        let names = [
            "note~",
            "#note#",
            ".~lock.note.odt#",
            "~$note.docx",
            ".#lock",
        ];
        for name in names {
            let path = mount.path("default").join(name);
            fs::write(&path, name).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), name, "{way}");
        }
        no_scratch_beside(&mount);
        mount.stop();
        mount.start();
        for name in names {
            let path = mount.path("default").join(name);
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                name,
                "{way}: kept over a remount"
            );
            fs::remove_file(&path).unwrap();
            assert!(!path.exists(), "{way}");
        }
        mount.stop();
        mount.start();
        for name in names {
            assert!(
                !mount.path("default").join(name).exists(),
                "{way}: {name} is gone for good"
            );
        }
    }
}

// README: S10
#[test]
fn a_link_under_a_scratch_name_is_an_emacs_lock() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo text > note; ln -s 'me@host.1234:5678' '.#note'; [[ $(readlink '.#note') == me@host.1234:5678 ]]");
        no_scratch_beside(&mount);
        mount.sh("rm '.#note'; test ! -L '.#note'");
        // The kernel keeps where a link leads, but not beyond the link itself.
        mount.sh("for n in 1 2 3; do ln -s to-$n '.#note'; [[ $(readlink '.#note') == to-$n ]]; rm '.#note'; done");
        mount.sh("ln -s mine '.#note'; [[ $(readlink '.#note') == mine ]]");
        let kept = mount.world.storage().join(".storefs/scratch");
        let script = "found=$(find . -name '.#note') && rm \"$found\" && ln -s others \"$found\"";
        let replaced = Command::new("bash")
            .args(["-c", script])
            .current_dir(kept)
            .status();
        assert!(replaced.unwrap().success(), "{way}");
        let link = mount.path("default/.#note");
        wait_until("the link is the other one", || {
            fs::read_link(&link).unwrap() == Path::new("others")
        });
        // Nor does asking through a descriptor of the old link make the new one's attributes stand for it.
        let script =
            "found=$(find . -name '.#note') && rm \"$found\" && ln -s elsewhere \"$found\"";
        let mut held = OpenOptions::new();
        held.read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
        let held = held.open(&link).unwrap();
        let replaced = Command::new("bash")
            .args(["-c", script])
            .current_dir(mount.world.storage().join(".storefs/scratch"))
            .status();
        assert!(replaced.unwrap().success(), "{way}");
        wait_until("the descriptor or the name tells of another link", || {
            let asked = held.metadata().map(|found| found.len());
            !matches!(asked, Ok(6)) || fs::read_link(&link).unwrap() != Path::new("others")
        });
        wait_until("the link is the new one", || {
            fs::read_link(&link).unwrap() == Path::new("elsewhere")
        });
        mount.sh("rm '.#note'");
        let said = mount.sh_fails("ln -s note other");
        assert!(said.contains("Operation not permitted"), "{way}: {said}");
    }
}

#[test]
fn a_record_renamed_to_a_scratch_name_leaves_the_store_and_comes_back() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > note; setfattr -n user.mime_type -v text/x-kept note; mv note note~");
        assert_eq!(mount.sh("cat note~"), "old\n", "{way}");
        assert_eq!(mount.beside("note"), None, "{way}");
        no_scratch_beside(&mount);
        // The name written again: the backup stays.
        mount.sh("echo new > note; [[ $(cat note note~) == $'new\\nold' ]]");
        assert_eq!(
            mount.beside("note").as_deref(),
            Some(&b"new\n"[..]),
            "{way}"
        );
        // And the way back, over the record that is there.
        mount.sh("mv note~ note");
        assert_eq!(mount.read("note"), "old\n", "{way}");
        assert_eq!(
            mount.beside("note").as_deref(),
            Some(&b"old\n"[..]),
            "{way}"
        );
        assert_eq!(mount.names(), ["note"], "{way}");
    }
}

// README: S7
#[test]
fn an_illegal_name_is_refused_and_says_so() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("echo x > note");
        for name in ["my report.pdf", "a:b", "ž", "a@b", "a+b"] {
            let path = mount.path("default").join(name);
            assert_eq!(errno(fs::write(&path, "x")), libc::EINVAL, "{way}: {name}");
            let renamed = fs::rename(mount.path("default/note"), &path);
            assert_eq!(errno(renamed), libc::EINVAL, "{way}: {name}");
            assert_eq!(errno(fs::metadata(&path)), libc::ENOENT, "{way}: {name}");
        }
        assert_eq!(mount.names(), ["note"], "{way}");
        wait_until("the log names the refused name", || {
            mount.log().contains("my report.pdf")
        });
    }
}

/// No name of the store's own directory is one that no key can have.
fn no_scratch_beside(mount: &Mount) {
    let names = names_in(&mount.backing("default"));
    let scratch = |name: &String| name.contains(['~', '#', '$']) || name.contains(".sw");
    assert!(!names.iter().any(scratch), "{}: {names:?}", mount.way);
}
