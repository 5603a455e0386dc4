//! The rules of the SDKs' layouts: which one a store has, which keys it keeps, inputs, names in the folder. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{HTML, JSON, SDKS, World, name};
use std::collections::BTreeSet;
use std::fs;
use storefs::backend::dir::{CommitIf, FolderOptions, Layout, Origin};
use storefs::error::Kind;
use tempfile::TempDir;

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

// README: S77
#[test]
fn a_layout_follows_from_what_is_found() {
    let python = r#"{"id":"x","name":null,"accessed_at":"2026-11-23 04:08:39+00:00"}"#;
    let javascript = r#"{"id":"x","name":null,"accessedAt":"2026-11-23T04:08:39Z"}"#;
    let cases: [(&[(&str, &str)], Layout); 10] = [
        (&[], Layout::Dual),
        (
            &[("key_value_stores/default/INPUT.json", "{}")],
            Layout::Dual,
        ),
        (
            &[("key_value_stores/default/OUTPUT.json", "{}")],
            Layout::Js,
        ),
        (
            &[("key_value_stores/default/__metadata__.json", python)],
            Layout::Python,
        ),
        (
            &[("key_value_stores/default/__metadata__.json", javascript)],
            Layout::Js,
        ),
        (
            &[("datasets/default/__metadata__.json", python)],
            Layout::Python,
        ),
        (&[("../package.json", "{}")], Layout::Js),
        (&[("../requirements.txt", "apify")], Layout::Python),
        (
            &[("../package.json", "{}"), ("../pyproject.toml", "")],
            Layout::Dual,
        ),
        (
            &[
                ("key_value_stores/default/OUTPUT.json", "{}"),
                ("key_value_stores/default/__metadata__.json", python),
            ],
            Layout::Dual,
        ),
    ];
    for (made, layout) in cases {
        let root = TempDir::new().unwrap();
        for (path, text) in made {
            let path = root.path().join("storage").join(path);
            fs::create_dir_all(root.path().join("storage")).unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let world = World::at(root, FolderOptions::default());
        assert_eq!(world.store.layout(), layout, "{made:?}");
    }
}

// README: S82
#[test]
fn a_store_is_renamed_with_the_name_that_the_sdks_keep_in_it() {
    let world = World::new(Layout::Js);
    world.write("a", b"{}").unwrap();
    world.put_file(
        "__metadata__.json",
        r#"{"id":"x","name":"default","accessedAt":"then"}"#,
    );
    world
        .folder
        .rename_store(&name("default"), &name("new"), true)
        .unwrap();
    let text = fs::read_to_string(world.storage("key_value_stores/new/__metadata__.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["name"], &told["id"]), (&"new".into(), &"x".into()));
    let store = world.folder.store(&name("new")).unwrap();
    let full = world.folder.remove_store(&name("new")).unwrap_err();
    assert_eq!(full.kind(), Kind::NotEmpty);
    store.remove("a").unwrap();
    // What is no record does not keep the store.
    fs::write(
        world.storage("key_value_stores/new/x.__metadata__.json"),
        "broken",
    )
    .unwrap();
    world.folder.remove_store(&name("new")).unwrap();
    assert!(!world.storage("key_value_stores/new").exists());
}

// README: S81
#[test]
fn a_javascript_file_name_leads_to_its_record_for_reading_only() {
    let world = World::new(Layout::Js);
    world.put_file("page.html", "<p>");
    assert_eq!(world.names(), ["page"]);
    let (place, _) = world.store.find("page.html").unwrap();
    assert_eq!(place.origin, Origin::Alias);
    assert_eq!(world.read("page.html"), b"<p>");
    assert_eq!(world.type_of("page.html"), HTML);
    world.store.open(&place, true).unwrap_err();
    put(&world, "page.html", b"<b>", HTML);
    assert_eq!(world.names(), ["page", "page.html"]);
    assert_eq!(
        (world.read("page"), world.read("page.html")),
        (b"<p>".to_vec(), b"<b>".to_vec())
    );
    assert_eq!(world.files(), files(&["page.html", "page.html.html"]));
}

// README: S80
#[test]
fn an_input_has_one_file_and_keeps_it() {
    for layout in SDKS {
        let world = World::new(layout);
        world.write("INPUT", b"{}").unwrap();
        let mut expected = files(&["INPUT.json"]);
        if layout != Layout::Js {
            expected.insert("INPUT.json.__metadata__.json".to_owned());
            assert_eq!(sidecar(&world, "INPUT.json")["key"], "INPUT");
        }
        assert_eq!(world.files(), expected);
        world.write("INPUT", b"words").unwrap();
        assert!(world.files().contains("INPUT.txt") && !world.files().contains("INPUT.json"));
        assert_eq!(world.names(), ["INPUT"]);
        world.store.remove("INPUT").unwrap();
        assert_eq!(world.files(), files(&[]));
        // One that is there already, under whatever name, is the one that is written.
        for file in ["INPUT", "INPUT.json", "INPUT.xml"] {
            world.put_file(file, "<a/>");
            let kind = if file == "INPUT.json" {
                JSON
            } else {
                "application/xml"
            };
            put(&world, "INPUT", b"{\"b\":1}", kind);
            assert_eq!(
                fs::read(world.path(file)).unwrap(),
                b"{\"b\":1}",
                "{layout:?}"
            );
            assert_eq!(world.names(), ["INPUT"]);
            world.store.remove("INPUT").unwrap();
            assert_eq!(world.files(), files(&[]), "{layout:?}");
        }
    }
}

// README: S79, S80
#[test]
fn keys_that_a_layout_cannot_keep_are_refused() {
    for (layout, fits, too_long) in [
        (Layout::Js, "k".repeat(245), "k".repeat(246)),
        (Layout::Python, "!".repeat(73), "!".repeat(74)),
        (Layout::Dual, "k".repeat(219), "k".repeat(220)),
    ] {
        let world = World::new(layout);
        world.write(&fits, b"{}").unwrap();
        assert_eq!(world.read(&fits), b"{}");
        for result in [
            world.write(&too_long, b"{}").map(drop),
            world.store.may_create(&too_long),
            world
                .store
                .rename(&fits, &world.store, &too_long, true)
                .map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), Kind::NameTooLong);
            assert!(error.to_string().contains("layout=plain"), "{error}");
        }
        for key in ["__metadata__", "a.__metadata__.json", "__metadata__.json"] {
            assert_eq!(world.write(key, b"{}").unwrap_err().kind(), Kind::Invalid);
        }
        let beside = world
            .write("INPUT.bak", b"{}")
            .map_err(|error| error.kind());
        assert_eq!(beside.is_ok(), layout == Layout::Js, "{beside:?}");
        assert_eq!(world.temporaries(), 0);
        assert!(world.has(&fits));
    }
}
