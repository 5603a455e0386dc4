//! The SDKs' layouts as they are written: exactly which files there are after every operation. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{HTML, JSON, SDKS, TEXT, World, name, options};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use storefs::backend::dir::{Area, CommitIf, Layout};
use storefs::record::ContentType;

fn files(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sidecar(world: &World, stem: &str) -> serde_json::Value {
    let text = fs::read_to_string(world.path(&format!("{stem}.__metadata__.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn put(world: &World, key: &str, bytes: &[u8], content_type: &str) {
    world
        .write_as(key, bytes, Some(content_type), &CommitIf::Any)
        .unwrap();
}

#[test]
fn a_javascript_record_is_one_file_with_its_types_extension() {
    let world = World::new(Layout::Js);
    world.write("OUTPUT", b"{}").unwrap();
    put(&world, "page.html", b"<p>", HTML);
    put(&world, "a!'()", b"x", TEXT);
    assert_eq!(
        world.files(),
        files(&["OUTPUT.json", "page.html.html", "a!'().txt"])
    );
    assert_eq!(world.type_of("OUTPUT"), JSON);
    // A type that the extension does not tell needs a sidecar, and only that one.
    put(&world, "events", b"{}", "application/x-ndjson");
    assert_eq!(
        sidecar(&world, "events")["contentType"],
        "application/x-ndjson"
    );
    assert_eq!(sidecar(&world, "events")["extension"], "bin");
    put(&world, "events", b"{}", JSON);
    assert_eq!(
        world.files(),
        files(&["OUTPUT.json", "page.html.html", "a!'().txt", "events.json"])
    );
}

#[test]
fn a_default_charset_needs_no_sidecar_and_is_shown_as_it_was_set() {
    let world = World::new(Layout::Js);
    put(&world, "page", b"<p>", "text/html");
    assert_eq!(world.files(), files(&["page.html"]));
    assert_eq!(world.type_of("page"), "text/html");
    let (_folder, store) = world.again(options(Layout::Js));
    let (place, _) = store.find("page").unwrap();
    assert_eq!(
        store.content_type("page", &place).unwrap().as_str(),
        "text/html"
    );
}

#[test]
fn a_python_record_is_a_file_and_a_sidecar_as_the_sdk_writes_it() {
    let world = World::new(Layout::Python);
    world.write("it's(1)!", b"{}").unwrap();
    let stem = "it%27s%281%29%21";
    assert_eq!(
        world.files(),
        files(&[stem, &format!("{stem}.__metadata__.json")])
    );
    let text = fs::read_to_string(world.path(&format!("{stem}.__metadata__.json"))).unwrap();
    assert_eq!(
        text,
        "{\n  \"key\": \"it's(1)!\",\n  \"content_type\": \"application/json; charset=utf-8\",\n  \"size\": 2\n}"
    );
}

#[test]
fn a_dual_record_is_a_value_a_link_and_a_sidecar_for_both() {
    let world = World::new(Layout::Dual);
    world.write("a!", b"{}").unwrap();
    assert_eq!(
        world.files(),
        files(&["a!.json", "a%21", "a%21.__metadata__.json"])
    );
    assert_eq!(
        fs::read_link(world.path("a%21")).unwrap().to_str(),
        Some("a!.json")
    );
    let expected = serde_json::json!({
        "key": "a!", "content_type": JSON, "size": 2, "contentType": JSON, "extension": "json"
    });
    assert_eq!(sidecar(&world, "a%21"), expected);
    put(&world, "a!", b"words", TEXT);
    assert_eq!(
        world.files(),
        files(&["a!.txt", "a%21", "a%21.__metadata__.json"])
    );
    assert_eq!(
        fs::read_link(world.path("a%21")).unwrap().to_str(),
        Some("a!.txt")
    );
    assert_eq!(sidecar(&world, "a%21")["size"], 5);
    assert_eq!(world.names(), ["a!"]);
}

#[test]
fn two_keys_that_want_one_file_name_get_two() {
    for (first, second) in [("index", "index.html"), ("index.html", "index")] {
        let world = World::new(Layout::Dual);
        put(&world, first, first.as_bytes(), HTML);
        put(&world, second, second.as_bytes(), HTML);
        let (_folder, store) = world.again(options(Layout::Dual));
        for key in [first, second] {
            assert_eq!(world.read(key), key.as_bytes());
            assert_eq!(world.type_of(key), HTML);
            let (place, _) = store.find(key).unwrap();
            assert_eq!(fs::read(world.path(&place.file)).unwrap(), key.as_bytes());
        }
        assert_eq!(sidecar(&world, "index")["extension"], "htm");
        assert_eq!(world.files().len(), 6, "{:?}", world.files());
        world.store.remove("index.html").unwrap();
        assert_eq!(
            world.files(),
            files(&["index", "index.htm", "index.__metadata__.json"])
        );
    }
}

#[test]
fn removing_and_renaming_leaves_nothing_behind() {
    for layout in SDKS {
        let world = World::new(layout);
        put(&world, "a(1)", b"one", "application/x-special");
        put(&world, "b.txt", b"two", TEXT);
        world.store.rename("a(1)", &world.store, "c", true).unwrap();
        assert_eq!(
            (world.read("c"), world.type_of("c")),
            (b"one".to_vec(), "application/x-special".to_owned())
        );
        assert!(!world.has("a(1)"));
        world
            .store
            .rename("c", &world.store, "b.txt", false)
            .unwrap();
        assert_eq!(world.read("b.txt"), b"one");
        assert_eq!(world.type_of("b.txt"), "application/x-special");
        assert_eq!(world.names(), ["b.txt"]);
        let clean = World::new(layout);
        put(&clean, "b.txt", b"one", "application/x-special");
        assert_eq!(world.files(), clean.files(), "{layout:?}");
        world.store.remove("b.txt").unwrap();
        assert_eq!(world.files(), files(&[]), "{layout:?}");
        assert_eq!(world.temporaries(), 0);
    }
}

#[test]
fn a_record_moves_between_stores_of_any_two_layouts() {
    for from in [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual] {
        for to in [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual] {
            let world = World::new(from);
            world
                .write_as("r.json", b"abc", Some("text/csv"), &CommitIf::Any)
                .unwrap();
            // Each folder of options opens the stores it knows in its own layout.
            let (folder, _) = world.again(options(to));
            let target = folder.create_store(&name("other"), 0o755).unwrap();
            world
                .store
                .rename("r.json", &target, "x.html", true)
                .unwrap();
            assert_eq!(world.files(), files(&[]), "{from:?} {to:?}");
            let (place, stat) = target.find("x.html").unwrap();
            assert_eq!(stat.size, 3);
            let moved = target.content_type("x.html", &place).unwrap();
            assert_eq!(moved.as_str(), "text/csv", "{from:?} {to:?}");
            target.rename("x.html", &target, "#x#", false).unwrap();
            assert_eq!(target.find("#x#").unwrap().0.area, Area::Scratch);
            target.rename("#x#", &target, "back", false).unwrap();
            let (place, _) = target.find("back").unwrap();
            assert_eq!(
                target.content_type("back", &place).unwrap().as_str(),
                "text/csv"
            );
            target.remove("back").unwrap();
            assert_eq!(
                fs::read_dir(world.storage("key_value_stores/other"))
                    .unwrap()
                    .count(),
                0
            );
        }
    }
}

#[test]
fn a_changed_type_keeps_the_bytes_and_the_inode() {
    for layout in SDKS {
        let world = World::new(layout);
        world.write("a", b"{}").unwrap();
        xattr::set(
            world.path(&world.store.find("a").unwrap().0.file),
            "user.note",
            b"n",
        )
        .unwrap();
        let inode = world.store.find("a").unwrap().1.inode;
        for content_type in ["image/png", "no type at all", TEXT, "text/plain"] {
            let to = ContentType::stored(content_type);
            let (place, stat) = world.store.set_content_type("a", Some(&to)).unwrap();
            assert_eq!((stat.inode, stat.size), (inode, 2), "{layout:?}");
            assert_eq!(world.type_of("a"), content_type, "{layout:?}");
            assert_eq!(
                world.attribute(&place.file, "user.note").as_deref(),
                Some("n")
            );
        }
        world.store.set_content_type("a", None).unwrap();
        assert_eq!(world.type_of("a"), JSON);
        let clean = World::new(layout);
        clean.write("a", b"{}").unwrap();
        assert_eq!(world.files(), clean.files(), "{layout:?}");
    }
}

#[test]
fn a_new_version_takes_mode_and_attributes_of_the_old_one_also_under_another_name() {
    for layout in SDKS {
        let world = World::new(layout);
        world.write("a", b"{}").unwrap();
        let old = world.path(&world.store.find("a").unwrap().0.file);
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
        xattr::set(&old, "user.note", b"n").unwrap();
        put(&world, "a", b"words", TEXT);
        let (place, stat) = world.store.find("a").unwrap();
        assert_eq!(stat.mode & 0o7777, 0o640);
        assert_eq!(
            world.attribute(&place.file, "user.note").as_deref(),
            Some("n")
        );
    }
}

#[test]
fn what_is_written_in_place_is_told_by_the_sidecar_too() {
    for layout in [Layout::Python, Layout::Dual] {
        let world = World::new(layout);
        world.write("a", b"{}").unwrap();
        let place = world.store.find("a").unwrap().0;
        let file = world.store.open(&place, true).unwrap();
        file.write_all_at(b"no JSON any more", 0).unwrap();
        let (_, stat) = world.store.written_in_place("a").unwrap();
        assert_eq!(stat.size, 16);
        assert_eq!(sidecar(&world, "a")["size"], 16);
        assert_eq!(world.type_of("a"), TEXT);
        let expected = World::new(layout);
        put(&expected, "a", b"no JSON any more", TEXT);
        assert_eq!(world.files(), expected.files());
    }
}

#[test]
fn a_listing_goes_on_where_it_stopped_while_records_come_and_go() {
    let world = World::new(Layout::Dual);
    for n in 0..300 {
        world.write(&format!("k{n:03}"), b"{}").unwrap();
    }
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let mut piece = Vec::new();
        world
            .store
            .list(after, &mut |listed| {
                assert!(listed.next > 0 && listed.next < 1 << 62);
                piece.push((listed.name.to_owned(), listed.next));
                piece.len() < 7
            })
            .unwrap();
        let Some((first, next)) = piece.last() else {
            break;
        };
        world.store.remove(first).unwrap();
        if seen.len() < 300 {
            world.put_file(&format!("by-somebody-{}.json", seen.len()), "{}");
        }
        after = *next;
        seen.extend(piece.into_iter().map(|(name, _)| name));
    }
    seen.retain(|name| name.starts_with('k'));
    seen.sort();
    assert_eq!(
        seen,
        (0..300).map(|n| format!("k{n:03}")).collect::<Vec<_>>()
    );
}

#[test]
fn nothing_is_left_locked_and_modes_are_for_everybody() {
    let world = World::new(Layout::Dual);
    for bytes in [&b"{}"[..], b"words", b"{}"] {
        world.write("a", bytes).unwrap();
    }
    assert_eq!(world.files(), files(&["a", "a.txt", "a.__metadata__.json"]));
    for file in ["a.txt", "a.__metadata__.json"] {
        assert_eq!(
            fs::metadata(world.path(file)).unwrap().mode() & 0o777,
            0o644,
            "{file}"
        );
    }
}
