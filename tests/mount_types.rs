//! Content types through the real kernel: set, guessed, kept and contradicted, as extended attributes.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::{DUAL, EVERY, Mount, PLAIN, PLAIN_DAEMON, errno, text};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

const TYPE: &str = "user.mime_type";
const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

/// A record of `default`, written now.
fn written(mount: &Mount, key: &str, value: &[u8]) -> PathBuf {
    let path = mount.path("default").join(key);
    fs::write(&path, value).unwrap();
    path
}

fn set(path: &PathBuf, value: &str) -> Result<(), Errno> {
    rustix::fs::setxattr(path, TYPE, value.as_bytes(), XattrFlags::empty())
}

// README: S50
#[test]
fn a_type_is_guessed_from_the_name_and_else_from_the_bytes() {
    for way in EVERY {
        let mount = Mount::new(way);
        for (key, value, wanted) in [
            ("page.html", &b"<p>"[..], "text/html"),
            ("styles.css", b"a{}", "text/css"),
            ("data.json", b"{}", "application/json"),
            ("shot.png", PNG, "image/png"),
            ("a", b"{\"a\":1}", JSON),
            ("b", b"[1,2]\n", JSON),
            ("c", b"just words\n", TEXT),
            ("d", b"\xff\xfe\x00\x01\x80", "application/octet-stream"),
            ("e", PNG, "image/png"),
            ("f", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf"),
        ] {
            written(&mount, key, value);
            let found = mount.content_type(key);
            let same = found == wanted || found.starts_with(&format!("{wanted};"));
            assert!(same, "{way}: {key} is {found}, not {wanted}");
        }
    }
}

#[test]
fn a_type_that_is_set_is_what_others_see() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = written(&mount, "OUTPUT", b"words");
        set(&path, "text/x-set; a=b").unwrap();
        assert_eq!(mount.content_type("OUTPUT"), "text/x-set; a=b", "{way}");
        if way.layout == "plain" {
            let beside = xattr::get(mount.backing("default").join("OUTPUT"), TYPE).unwrap();
            assert_eq!(text(&beside.unwrap()), "text/x-set; a=b", "{way}");
        } else {
            let sidecar =
                fs::read(mount.backing("default").join("OUTPUT.__metadata__.json")).unwrap();
            let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
            assert_eq!(sidecar["content_type"], "text/x-set; a=b", "{way}");
            assert_eq!(sidecar["contentType"], "text/x-set; a=b", "{way}");
            assert_eq!(sidecar["size"], 5, "{way}");
        }
        assert_eq!(
            mount.beside("OUTPUT").as_deref(),
            Some(&b"words"[..]),
            "{way}"
        );
        let shown = mount.sh("getfattr --absolute-names --only-values -n user.mime_type OUTPUT");
        assert_eq!(shown, "text/x-set; a=b", "{way}");
    }
}

// README: S50
#[test]
fn a_type_set_on_a_file_that_is_being_written_is_kept() {
    for way in EVERY {
        let mount = Mount::new(way);
        let mut file = File::create(mount.path("default/draft.html")).unwrap();
        rustix::fs::fsetxattr(&file, TYPE, b"application/x-set", XattrFlags::empty()).unwrap();
        file.write_all(b"{}").unwrap();
        drop(file);
        assert_eq!(
            mount.content_type("draft.html"),
            "application/x-set",
            "{way}"
        );
    }
}

// README: S50
#[test]
fn a_type_is_kept_while_the_new_bytes_do_not_contradict_it() {
    for way in EVERY {
        let mount = Mount::new(way);
        // Set by hand and never contradicted.
        let path = written(&mount, "odd", b"words");
        set(&path, "application/x-kept").unwrap();
        written(&mount, "odd", b"\xff\x00 other bytes");
        assert_eq!(mount.content_type("odd"), "application/x-kept", "{way}");
        // JSON stays JSON for JSON, and is text for text.
        written(&mount, "a", b"{\"n\":1}");
        written(&mount, "a", b"[2]");
        assert_eq!(mount.content_type("a"), JSON, "{way}");
        written(&mount, "a", b"no json at all");
        assert_eq!(mount.content_type("a"), TEXT, "{way}");
        written(&mount, "a", b"{\"n\":1}");
        assert_eq!(mount.content_type("a"), TEXT, "{way}: JSON is text too");
        // Text is contradicted by bytes that are no text; an image by another beginning.
        written(&mount, "a", b"\xff\xfe\x00\x80");
        assert_eq!(mount.content_type("a"), "application/octet-stream", "{way}");
        written(&mount, "shot", PNG);
        written(&mount, "shot", b"not an image");
        assert_eq!(mount.content_type("shot"), TEXT, "{way}");
        assert_eq!(mount.read("shot"), "not an image", "{way}");
        assert_eq!(
            mount.beside("shot").as_deref(),
            Some(&b"not an image"[..]),
            "{way}"
        );
    }
}

#[test]
fn an_edit_in_place_that_contradicts_the_type_changes_it() {
    for way in EVERY {
        let mount = Mount::new(way);
        written(&mount, "a", b"{\"n\":1}");
        mount.sh("printf ' and words' >> a");
        assert_eq!(mount.content_type("a"), TEXT, "{way}");
        assert_eq!(mount.read("a"), "{\"n\":1} and words", "{way}");
        assert_eq!(
            text(&mount.beside("a").unwrap()),
            "{\"n\":1} and words",
            "{way}"
        );
    }
}

#[test]
fn a_rename_carries_the_type() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = written(&mount, "a", b"words");
        set(&path, "text/x-mine").unwrap();
        fs::rename(&path, mount.path("default/b.json")).unwrap();
        assert_eq!(mount.content_type("b.json"), "text/x-mine", "{way}");
        // A file under a scratch name has no type: over a record it takes the record's.
        mount.sh("echo new > '#b#'; mv '#b#' b.json");
        assert_eq!(mount.content_type("b.json"), "text/x-mine", "{way}");
        mount.sh("echo '{}' > fresh~; mv fresh~ fresh.json");
        let fresh = mount.content_type("fresh.json");
        assert!(fresh.starts_with("application/json"), "{way}: {fresh}");
    }
}

// README: S57
#[test]
fn removing_the_type_returns_to_the_guess() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let path = written(&mount, "a", b"{\"n\":1}");
        set(&path, "text/x-mine").unwrap();
        rustix::fs::removexattr(&path, TYPE).unwrap();
        assert_eq!(mount.content_type("a"), JSON, "{way}");
        assert_eq!(mount.read("a"), "{\"n\":1}", "{way}");
    }
}

// README: S56, S57
#[test]
fn a_type_that_is_none_is_refused() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let path = written(&mount, "a", b"words");
        let long = format!("text/{}", "x".repeat(260));
        for bad in [
            "",
            "text",
            "text/",
            "/html",
            "text/ht ml",
            "text/html\n",
            "text/ž",
            &long,
        ] {
            assert_eq!(set(&path, bad), Err(Errno::INVAL), "{way}: {bad:?}");
        }
        assert_eq!(mount.content_type("a"), TEXT, "{way}");
        let create = rustix::fs::setxattr(&path, TYPE, b"text/html", XattrFlags::CREATE);
        assert_eq!(
            create,
            Err(Errno::EXIST),
            "{way}: a record always has a type"
        );
        let replace = rustix::fs::setxattr(&path, TYPE, b"text/html", XattrFlags::REPLACE);
        assert_eq!(replace, Ok(()), "{way}");
        assert_eq!(mount.content_type("a"), "text/html", "{way}");
    }
}

// README: S58, S59
#[test]
fn only_the_type_and_the_users_own_attributes_are_listed() {
    for way in [PLAIN, PLAIN_DAEMON] {
        let mount = Mount::new(way);
        let path = written(&mount, "a", b"words");
        rustix::fs::setxattr(&path, "user.note", b"mine", XattrFlags::empty()).unwrap();
        let listed: Vec<_> = xattr::list(&path).unwrap().collect();
        let mut listed: Vec<_> = listed.iter().map(|name| name.to_string_lossy()).collect();
        listed.sort();
        assert_eq!(listed, [TYPE, "user.note"], "{way}");
        let state = xattr::get(&path, "user.storefs.state").unwrap();
        assert_eq!(
            state.map(|value| text(&value)).as_deref(),
            Some("clean"),
            "{way}"
        );
        assert!(
            xattr::get(&path, "user.storefs.etag").unwrap().is_some(),
            "{way}"
        );
        assert_eq!(xattr::get(&path, "user.none").unwrap(), None, "{way}");
        // A replaced record keeps what the user had set.
        written(&mount, "a", b"other words");
        assert_eq!(
            xattr::get(&path, "user.note").unwrap().as_deref(),
            Some(&b"mine"[..]),
            "{way}"
        );
    }
}

// README: S58
#[test]
fn attributes_of_the_system_are_not_supported() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let path = written(&mount, "a", b"words");
        for name in [
            "security.capability",
            "trusted.x",
            "system.posix_acl_access",
        ] {
            let mut space = [0_u8; 64];
            let got = rustix::fs::getxattr(&path, name, &mut space);
            assert_eq!(got.err(), Some(Errno::OPNOTSUPP), "{way}: get {name}");
        }
        for name in ["security.x", "trusted.x"] {
            let put = rustix::fs::setxattr(&path, name, b"1", XattrFlags::empty());
            assert_eq!(put, Err(Errno::OPNOTSUPP), "{way}: set {name}");
        }
        mount.sh("ls -l a > /dev/null; echo more >> a; [[ $(cat a) == wordsmore ]]");
    }
}

// README: S59
#[test]
fn a_stores_attributes_say_which_it_is() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let id = xattr::get(mount.path("default"), "user.storefs.id").unwrap();
        assert_eq!(id.as_deref(), Some(&b"default"[..]), "{way}");
        let missing = fs::metadata(mount.path("default/none"));
        assert_eq!(errno(missing), libc::ENOENT, "{way}");
    }
}

// README: S25
#[test]
fn a_descriptor_of_what_lost_its_name_says_and_changes_no_other_records_type() {
    for way in EVERY {
        let mount = Mount::new(way);
        for lost_by in ["rename", "remove"] {
            let path = written(&mount, "OUTPUT", b"words");
            let old = File::options().read(true).write(true).open(&path).unwrap();
            match lost_by {
                "rename" => fs::rename(written(&mount, "other", b"more words"), &path).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            set(&written(&mount, "OUTPUT", b"words"), "text/x-new").unwrap();
            let what = format!("{way}, {lost_by}");
            let mut told = [0; 100];
            let length = rustix::fs::fgetxattr(&old, TYPE, &mut told).unwrap();
            assert_eq!(&told[..length], TEXT.as_bytes(), "{what}");
            rustix::fs::fsetxattr(&old, TYPE, b"image/png", XattrFlags::empty()).unwrap();
            assert_eq!(mount.content_type("OUTPUT"), "text/x-new", "{what}");
            rustix::fs::fremovexattr(&old, TYPE).unwrap();
            assert_eq!(mount.content_type("OUTPUT"), "text/x-new", "{what}");
            fs::remove_file(&path).unwrap();
        }
    }
}
