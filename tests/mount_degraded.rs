//! Storage folders on disks that cannot hold all that storefs uses: extended attributes, symbolic links, hard links,
//! owners, names that differ in case alone. Nothing is lost there, and what is missing is said once.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use support::{Disk, Mount, World, set_xattr, type_of, wait_until};

const NO_ATTRIBUTES: &str = "content types follow from names and bytes";
const NO_LINKS: &str = "has no symbolic links";
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

fn warnings(mount: &Mount, about: &str) -> usize {
    let log = mount.log();
    log.lines().filter(|line| line.contains(about)).count()
}

#[track_caller]
fn read(mount: &Mount, inside: &str) -> String {
    fs::read_to_string(mount.path(inside))
        .unwrap_or_else(|why| panic!("{inside}: {why}\n{}", mount.log()))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn temporaries(world: &World) -> usize {
    let processes = fs::read_dir(world.storage().join(".storefs/tmp")).unwrap();
    processes
        .map(|process| fs::read_dir(process.unwrap().path()).unwrap().count())
        .sum()
}

/// What any program does to a store, on any disk: nothing of it may be lost.
#[track_caller]
fn everyday_work(mount: &Mount) {
    let at = |name: &str| mount.path("default").join(name);
    fs::write(at("OUTPUT"), r#"{"first":1}"#).unwrap();
    fs::write(at("OUTPUT"), r#"{"second":2}"#).unwrap();
    assert_eq!(read(mount, "default/OUTPUT"), r#"{"second":2}"#);
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(at("log"))
        .unwrap();
    log.write_all(b"a line\n").unwrap();
    drop(log);
    let mut log = OpenOptions::new().append(true).open(at("log")).unwrap();
    log.write_all(b"another\n").unwrap();
    drop(log);
    assert_eq!(read(mount, "default/log"), "a line\nanother\n");
    let exclusive = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(at("once"))
    };
    exclusive().unwrap().write_all(b"once").unwrap();
    assert_eq!(exclusive().unwrap_err().kind(), ErrorKind::AlreadyExists);
    // A rename to a free name, over a record, and one that may not replace.
    fs::rename(at("once"), at("moved")).unwrap();
    fs::write(at("other"), "other").unwrap();
    fs::rename(at("moved"), at("other")).unwrap();
    assert_eq!(read(mount, "default/other"), "once");
    fs::write(at("kept"), "kept").unwrap();
    mount.sh("cd $MNT/default; mv -n kept other || true; cat kept other | grep -qx keptonce");
    mount.sh("cd $MNT/default; mv -n kept free; test ! -e kept; grep -qx kept free");
    // Between stores, and a store itself.
    fs::create_dir(mount.path("made")).unwrap();
    fs::rename(at("free"), mount.path("made/free")).unwrap();
    fs::rename(mount.path("made"), mount.path("named")).unwrap();
    assert_eq!(read(mount, "named/free"), "kept");
    fs::remove_file(mount.path("named/free")).unwrap();
    // A FUSE disk keeps a removed file under a hidden name until the last handle on it has been let go.
    wait_until("the emptied store can be removed", || {
        fs::remove_dir(mount.path("named")).is_ok()
    });
    // As editors do.
    fs::write(at("text~"), "scratch").unwrap();
    fs::rename(at("text~"), at("text")).unwrap();
    assert_eq!(read(mount, "default/text"), "scratch");
    mount.sh(
        "sed -i s/scratch/edited/ $MNT/default/text; cp -a $MNT/default/text $MNT/default/copy",
    );
    assert_eq!(read(mount, "default/copy").trim(), "edited");
    fs::remove_file(at("copy")).unwrap();
}

const AFTERWARDS: [(&str, &str); 5] = [
    ("INPUT", r#"{"url":"x"}"#),
    ("OUTPUT", r#"{"second":2}"#),
    ("log", "a line\nanother\n"),
    ("other", "once"),
    ("text", "edited"),
];

#[track_caller]
fn nothing_is_lost(mount: &Mount) {
    for (key, bytes) in AFTERWARDS {
        assert_eq!(read(mount, &format!("default/{key}")), bytes, "{key}");
    }
    let keys = AFTERWARDS.map(|(key, _)| key);
    assert_eq!(names(&mount.path("default")), keys);
}

#[test]
fn without_attributes_layout_plain_keeps_types_that_follow_from_name_and_bytes_and_warns_once() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    let disk = Disk::without_attributes();
    fs::write(disk.world().source("default/INPUT"), AFTERWARDS[0].1).unwrap();
    let mount = disk.world().mount(&["-o", "layout=plain"]);
    everyday_work(&mount);
    nothing_is_lost(&mount);
    for (key, bytes, shown) in [
        ("page.html", "<h1>x</h1>", "text/html; charset=utf-8"),
        ("no-extension", "words", TEXT),
        ("INPUT", AFTERWARDS[0].1, JSON),
    ] {
        fs::write(mount.path("default").join(key), bytes).unwrap();
        assert_eq!(type_of(&mount.path("default").join(key)), shown, "{key}");
    }
    // A type that cannot be kept is refused when it is set on a record, and not kept when it is set on a draft.
    let refused = xattr::set(
        mount.path("default/OUTPUT"),
        "user.mime_type",
        b"text/x-own",
    );
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    for name in ["one", "two"] {
        let path = mount.path("default").join(name);
        let mut file = File::create(&path).unwrap();
        set_xattr(&path, "user.mime_type", "text/x-own");
        file.write_all(b"words").unwrap();
        drop(file);
        assert_eq!(read(&mount, &format!("default/{name}")), "words");
        assert_eq!(type_of(&path), TEXT);
    }
    // The one length that needs an attribute.
    let long = "k".repeat(255);
    fs::write(mount.path("default").join(&long), "255").unwrap();
    assert_eq!(read(&mount, &format!("default/{long}")), "255");
    let longer = fs::write(mount.path("default").join("k".repeat(256)), "256");
    assert_eq!(longer.unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    for key in [&*long, "one", "two", "page.html", "no-extension"] {
        fs::remove_file(mount.path("default").join(key)).unwrap();
    }
    assert_eq!(warnings(&mount, NO_ATTRIBUTES), 1, "{}", mount.log());
    assert_eq!(temporaries(disk.world()), 0);
    mount.unmount();
    let again = disk.world().mount(&[]);
    nothing_is_lost(&again);
    again.unmount();
}

#[test]
fn without_attributes_the_layouts_of_the_sdks_keep_every_type_and_warn_of_nothing() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    for layout in ["js", "python", "dual"] {
        let disk = Disk::without_attributes();
        fs::write(disk.world().source("default/INPUT.json"), AFTERWARDS[0].1).unwrap();
        let options = format!("layout={layout}");
        let mount = disk.world().mount(&["-o", &options]);
        everyday_work(&mount);
        let path = mount.path("default/OUTPUT");
        assert_eq!(type_of(&path), JSON, "{layout}");
        set_xattr(&path, "user.mime_type", "text/x-own");
        fs::rename(mount.path("default/log"), mount.path("default/log.json")).unwrap();
        fs::rename(mount.path("default/log.json"), mount.path("default/log")).unwrap();
        assert_eq!(temporaries(disk.world()), 0, "{layout}");
        assert!(!mount.log().contains("WARN"), "{layout}: {}", mount.log());
        mount.unmount();
        let again = disk.world().mount(&["-o", &options]);
        nothing_is_lost(&again);
        assert_eq!(
            type_of(&again.path("default/OUTPUT")),
            "text/x-own",
            "{layout}"
        );
        assert_eq!(type_of(&again.path("default/log")), TEXT, "{layout}");
        again.unmount();
    }
}

/// As the Python SDK writes: a temporary file, renamed.
fn python_writes(store: &Path, file: &str, text: &str) {
    let temporary = store.join(format!(".{file}.tmp"));
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, store.join(file)).unwrap();
}

#[test]
fn without_attributes_what_python_writes_over_a_record_of_both_sdks_is_what_the_mount_shows() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    let disk = Disk::without_attributes();
    let mount = disk.world().mount(&["-o", "layout=dual"]);
    fs::write(mount.path("default/OUTPUT"), r#"{"by":"mount"}"#).unwrap();
    let store = disk.world().source("default");
    python_writes(&store, "OUTPUT", r#"{"by": "python"}"#);
    let sidecar =
        r#"{"key": "OUTPUT", "content_type": "application/json; charset=utf-8", "size": 16}"#;
    python_writes(&store, "OUTPUT.__metadata__.json", sidecar);
    mount.sync();
    assert_eq!(read(&mount, "default/OUTPUT"), r#"{"by": "python"}"#);
    assert_eq!(type_of(&mount.path("default/OUTPUT")), JSON);
    // Written through the mount it is one record for both again.
    fs::write(mount.path("default/OUTPUT"), r#"{"by":"mount again"}"#).unwrap();
    assert_eq!(
        fs::read_to_string(store.join("OUTPUT")).unwrap(),
        r#"{"by":"mount again"}"#
    );
    assert_eq!(
        fs::read_to_string(store.join("OUTPUT.json")).unwrap(),
        r#"{"by":"mount again"}"#
    );
    // As its removal does. Without a mark the value is anybody's, and stays.
    fs::remove_file(store.join("OUTPUT")).unwrap();
    fs::remove_file(store.join("OUTPUT.__metadata__.json")).unwrap();
    mount.sync();
    assert_eq!(read(&mount, "default/OUTPUT"), r#"{"by":"mount again"}"#);
    mount.unmount();
}

#[test]
fn without_links_layout_dual_becomes_js_with_one_warning_and_nothing_is_lost() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    for options in ["layout=auto", "layout=dual,no_passthrough"] {
        let (disk, is_exfat) = Disk::without_links_or_attributes();
        fs::write(disk.world().source("default/INPUT.json"), AFTERWARDS[0].1).unwrap();
        let mount = disk.world().mount(&["-o", options]);
        everyday_work(&mount);
        nothing_is_lost(&mount);
        set_xattr(
            &mount.path("default/OUTPUT"),
            "user.mime_type",
            "text/x-own",
        );
        assert_eq!(temporaries(disk.world()), 0);
        assert_eq!(
            warnings(&mount, NO_LINKS),
            usize::from(is_exfat),
            "{}",
            mount.log()
        );
        assert_eq!(warnings(&mount, "ERROR"), 0, "{}", mount.log());
        if is_exfat {
            let layout = mount.status()["backend"]["stores"][0]["layout"].clone();
            assert_eq!(layout, "js", "{}", mount.status());
            let store = names(&disk.world().source("default"));
            assert!(store.contains(&"log.txt".to_owned()), "{store:?}");
            assert!(!store.contains(&"log".to_owned()), "{store:?}");
        }
        mount.unmount();
        let again = disk.world().mount(&["-o", options]);
        nothing_is_lost(&again);
        assert_eq!(type_of(&again.path("default/OUTPUT")), "text/x-own");
        again.unmount();
    }
}

#[test]
fn without_hard_links_layouts_plain_and_python_lose_nothing_either() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    for layout in ["plain", "python"] {
        let (disk, _) = Disk::without_links_or_attributes();
        fs::write(disk.world().source("default/INPUT"), AFTERWARDS[0].1).unwrap();
        let options = format!("layout={layout}");
        let mount = disk.world().mount(&["-o", &options]);
        everyday_work(&mount);
        nothing_is_lost(&mount);
        assert!(warnings(&mount, "WARN") <= 1, "{layout}: {}", mount.log());
        assert_eq!(warnings(&mount, "ERROR"), 0, "{layout}: {}", mount.log());
        mount.unmount();
        let again = disk.world().mount(&["-o", &options]);
        nothing_is_lost(&again);
        again.unmount();
    }
}

#[test]
fn a_key_that_the_disk_takes_for_another_one_does_not_replace_it() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    let (disk, is_exfat) = Disk::without_links_or_attributes();
    let mount = disk.world().mount(&["-o", "layout=js"]);
    fs::write(mount.path("default/OUTPUT"), "upper").unwrap();
    let lower = fs::write(mount.path("default/output"), "lower");
    match is_exfat {
        true => {
            assert_eq!(lower.unwrap_err().kind(), ErrorKind::AlreadyExists);
            fs::write(mount.path("default/other"), "other").unwrap();
            let renamed = fs::rename(mount.path("default/other"), mount.path("default/output"));
            assert_eq!(renamed.unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(read(&mount, "default/other"), "other");
            let log = mount.log();
            assert!(
                log.contains("does not tell this name from that of the record OUTPUT"),
                "{log}"
            );
        }
        false => assert_eq!(read(&mount, "default/output"), "lower"),
    }
    assert_eq!(read(&mount, "default/OUTPUT"), "upper");
    mount.unmount();
}

/// Takes all room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while io::Write::write_all(&mut file, &[b'x'; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_that_cannot_swap_files_keeps_the_old_record() {
    if !support::is_root() {
        return; // only root can mount such a disk
    }
    let (disk, is_exfat) = Disk::without_links_or_attributes();
    let mount = disk.world().mount(&["-o", "layout=js,no_passthrough"]);
    let path = mount.path("default/OUTPUT");
    fs::write(&path, "the old value").unwrap();
    set_xattr(&path, "user.mime_type", "text/x-own");
    if is_exfat {
        fill(&disk.world().storage().join("filler"));
        let big = vec![b'y'; 1 << 20];
        assert_eq!(
            fs::write(&path, big).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }
    assert_eq!(read(&mount, "default/OUTPUT"), "the old value");
    assert_eq!(type_of(&path), "text/x-own");
    if is_exfat {
        fs::remove_file(disk.world().storage().join("filler")).unwrap();
    }
    wait_until("there is room again", || {
        fs::write(&path, "the new value").is_ok()
    });
    assert_eq!(read(&mount, "default/OUTPUT"), "the new value");
    mount.unmount();
}
