//! Folders that somebody prepared with ill will, or broke. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{SDKS, World, name, options};
use std::fs;
use std::os::unix::fs::symlink;
use storefs::backend::dir::{Folder, FolderOptions, Layout};
use storefs::error::Kind;
use tempfile::TempDir;

const SECRET: &str = "the secret";

/// A store with a secret beside it.
fn world(layout: Layout) -> World {
    let world = World::new(layout);
    fs::write(world.storage("secret"), SECRET).unwrap();
    world
}

/// Reads every listed name in every way there is; none may give the secret away.
fn nothing_leaks(world: &World) {
    for key in world.names() {
        let (place, _) = world.store.find(&key).unwrap();
        if let Ok(file) = world.store.open(&place, false) {
            let text = std::io::read_to_string(file).unwrap_or_default();
            assert!(!text.contains(SECRET), "{key}");
            let _ = world.store.content_type(&key, &place);
        }
    }
}

#[test]
fn hostile_sidecars_lead_nowhere() {
    let huge = format!(
        "{{\"key\": \"a\", \"content_type\": \"{}\"}}",
        "x".repeat(1 << 20)
    );
    let deep = "[".repeat(100_000);
    let cases: [(&str, &str); 12] = [
        ("a", "not JSON at all"),
        ("a", "\"\""),
        ("a", "[1, 2]"),
        ("a", &huge),
        ("a", &deep),
        ("a", r#"{"key": 5, "content_type": {}}"#),
        (
            "a",
            r#"{"key": "../../secret", "content_type": "text/plain"}"#,
        ),
        (
            "a",
            r#"{"key": "a", "content_type": "text/plain", "extension": "/../../../secret"}"#,
        ),
        (
            "a",
            r#"{"key": "a", "contentType": "text/plain", "extension": "../../secret"}"#,
        ),
        ("..", r#"{"key": "..", "content_type": "text/plain"}"#),
        (
            "%2E%2E%2Fsecret",
            r#"{"key": "../secret", "content_type": "text/plain"}"#,
        ),
        (
            "a",
            r#"{"key": "OTHER", "content_type": "image/png", "extension": "txt"}"#,
        ),
    ];
    for layout in SDKS {
        for (stem, text) in cases {
            let world = world(layout);
            world.put_file("OTHER.txt", "other");
            world.put_file(&format!("{stem}.__metadata__.json"), text);
            nothing_leaks(&world);
            assert_eq!(world.names(), ["OTHER"], "{layout:?} {text:.80}");
            assert_eq!(world.type_of("OTHER"), "text/plain; charset=utf-8");
            // The names in question can still be written and read.
            world.write("a", b"{}").unwrap();
            assert_eq!(world.read("a"), b"{}");
            let (_folder, store) = world.again(options(layout));
            assert_eq!(store.find("a").unwrap().1.size, 2, "{layout:?} {text:.80}");
            assert_eq!(fs::read_to_string(world.storage("secret")).unwrap(), SECRET);
        }
    }
}

#[test]
fn links_are_followed_only_where_they_are_ours() {
    for layout in SDKS {
        let world = world(layout);
        let sidecar = |key: &str| format!(r#"{{"key": "{key}", "content_type": "text/plain"}}"#);
        for (link, to) in [
            ("out", "../../secret"),
            ("absolute", "/etc/passwd"),
            ("root", "/"),
            ("self", "self"),
            ("chain", "out"),
            ("up", "../default/real.txt"),
        ] {
            symlink(to, world.path(link)).unwrap();
            world.put_file(&format!("{link}.__metadata__.json"), sidecar(link));
            symlink(to, world.path(&format!("{link}2.txt"))).unwrap();
        }
        world.put_file("real.txt", "real");
        nothing_leaks(&world);
        assert_eq!(world.names(), ["real"], "{layout:?}");
        // A link to a name beside it may be one of ours that lost its file.
        assert!(!world.has("self"));
        world.write("self", b"{}").unwrap();
        assert_eq!(world.read("self"), b"{}", "{layout:?}");
        for key in ["out", "absolute", "up"] {
            assert!(!world.has(key));
            let written = world.write(key, b"{}");
            // The JavaScript SDK's file has another name than the link.
            match layout {
                Layout::Js => assert_eq!(world.read(key), b"{}", "{key}"),
                Layout::Plain | Layout::Python | Layout::Dual => assert_eq!(
                    written.unwrap_err().kind(),
                    Kind::Exists,
                    "{layout:?} {key}"
                ),
            }
            assert!(world.path(key).is_symlink(), "{layout:?} {key}");
        }
        assert_eq!(fs::read_to_string(world.storage("secret")).unwrap(), SECRET);
        assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
    }
}

#[test]
fn what_is_no_file_is_no_record() {
    for layout in SDKS {
        let world = world(layout);
        fs::create_dir(world.path("directory.json")).unwrap();
        let fifo = |file: &str| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mkfifoat(rustix::fs::CWD, world.path(file), mode).unwrap();
        };
        fifo("fifo.json");
        fifo("b.__metadata__.json");
        fifo("c");
        world.put_file(
            "c.__metadata__.json",
            r#"{"key": "c", "content_type": "text/plain"}"#,
        );
        assert_eq!(world.names(), Vec::<String>::new(), "{layout:?}");
        for key in ["directory", "fifo", "b", "c"] {
            assert_eq!(world.store.find(key).unwrap_err().kind(), Kind::NotFound);
        }
        let _ = world.write("directory", b"{}");
        let _ = world.write("fifo", b"{}");
        assert!(world.path("directory.json").is_dir());
        assert_eq!(world.temporaries(), 0);
    }
}

#[test]
fn temporaries_and_leftovers_of_the_sdks_are_not_shown() {
    let world = World::at(TempDir::new().unwrap(), FolderOptions::default());
    world.put_file("OUTPUT.json", "{}");
    world.put_file("OUTPUT.x3k_9abc.tmp", "half");
    world.put_file("OUTPUT.__metadata__.json.04mun168.json.tmp", "half");
    world.put_file("__metadata__.json", "{}");
    fs::create_dir(world.path("OUTPUT.json.lock")).unwrap();
    assert_eq!(world.names(), ["OUTPUT"]);
    let stores = world.folder.stores_path();
    for leftover in [
        "__CRAWLEE_TEMPORARY_0__",
        "__OLD_DEFAULT_0__",
        "__CRAWLEE_MIGRATING_KEY_VALUE_STORE__",
        ".hidden",
    ] {
        fs::create_dir(stores.join(leftover)).unwrap();
    }
    symlink("default", stores.join("linked")).unwrap();
    symlink("/etc", stores.join("etc")).unwrap();
    fs::write(stores.join("file"), "x").unwrap();
    assert_eq!(world.folder.stores().unwrap(), [name("default")]);
    for no_store in ["linked", "etc", "file"] {
        let error = world.folder.store(&name(no_store)).unwrap_err();
        assert_eq!(error.kind(), Kind::StoreNotFound);
    }
}

#[test]
fn a_link_where_our_folder_should_be_is_refused() {
    for link in [".storefs", "key_value_stores"] {
        let root = TempDir::new().unwrap();
        let elsewhere = TempDir::new().unwrap();
        symlink(elsewhere.path(), root.path().join(link)).unwrap();
        Folder::open(root.path(), FolderOptions::default()).unwrap_err();
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}

// README: S83
#[test]
fn a_lock_that_was_left_behind_is_no_obstacle_for_long() {
    let world = World::new(Layout::Js);
    world.write("a", b"{}").unwrap();
    let lock = world.path("a.json.lock");
    fs::create_dir(&lock).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(11);
    fs::File::open(&lock).unwrap().set_modified(old).unwrap();
    world.write("a", b"[]").unwrap();
    assert_eq!(world.read("a"), b"[]");
    assert!(!lock.exists());
    // One that is held is waited for, and stays its owner's.
    fs::create_dir(&lock).unwrap();
    world.write("a", b"[1]").unwrap();
    assert_eq!(world.read("a"), b"[1]");
    assert!(lock.exists());
}
