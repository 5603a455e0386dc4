//! The run's input: what is written to `default/INPUT` through a mount is what the real SDKs' `getInput()` returns.
//! Must never prepare a folder in a way that a project would not have it.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;

use sdk::project::{Layout, Project, eventually};
use sdk::{Flavour, Given, Sdk, Start};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

fn names(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn inputs() -> [(&'static str, &'static [u8], Given); 3] {
    let bytes = b"\x00\x01\xfe\xff no text";
    [
        (
            JSON,
            b"{\"url\": \"https://example.com\"}\n",
            Given::Json(json!({"url": "https://example.com"})),
        ),
        (TEXT, b"just words\n", Given::text("just words\n")),
        (
            "application/octet-stream",
            bytes,
            Given::Bytes(bytes.to_vec()),
        ),
    ]
}

/// Writes an input with the shell, lets each SDK of the layout start on it, and looks at it again.
fn the_input_arrives(layout: Layout) {
    for (content_type, bytes, wanted) in inputs() {
        for purge in [false, true] {
            let what = format!("{layout:?}, {content_type}, purge {purge}");
            let project = Project::new();
            let mount = project.mount(layout);
            mount.make_store("default");
            let source = project.beside("input");
            fs::write(&source, bytes).unwrap();
            let status = Command::new("sh")
                .args(["-c", "cat \"$1\" > \"$2\"", "sh"])
                .arg(&source)
                .arg(mount.path("default", "INPUT"))
                .status()
                .unwrap();
            assert!(status.success(), "{what}");
            assert_eq!(
                mount.content_type("default", "INPUT"),
                content_type,
                "{what}"
            );
            mount.sync();
            for &flavour in layout.flavours() {
                let mut sdk = Sdk::start_with(
                    flavour,
                    &Start {
                        root: &project.root(),
                        purge,
                        env: &[],
                    },
                );
                assert_eq!(sdk.input(), wanted, "{what}, {flavour:?}");
                sdk.finish();
                mount.sync();
                assert_eq!(
                    mount.list("default"),
                    names(&["INPUT"]),
                    "{what} after {flavour:?}"
                );
                assert_eq!(
                    mount.read("default", "INPUT"),
                    bytes,
                    "{what} after {flavour:?}"
                );
                assert_eq!(
                    mount.content_type("default", "INPUT"),
                    content_type,
                    "{what} after {flavour:?}"
                );
            }
        }
    }
}

#[test]
fn an_input_written_in_layout_js_is_what_get_input_returns() {
    the_input_arrives(Layout::Js);
}

#[test]
fn an_input_written_in_layout_python_is_what_get_input_returns() {
    the_input_arrives(Layout::Python);
}

// README: S80
#[test]
fn an_input_written_in_layout_dual_is_what_both_sdks_get() {
    the_input_arrives(Layout::Dual);
}

#[test]
fn an_input_file_put_there_by_hand_is_shown_and_edited_as_input() {
    for (file, content, edited) in [
        ("INPUT.json", "{\"a\": 1}", "{\"a\": 2}"),
        ("INPUT", "{\"a\": 1}", "{\"a\": 2}"),
        ("INPUT.txt", "words", "more words"),
    ] {
        let project = Project::new();
        fs::create_dir_all(project.store_folder("default")).unwrap();
        fs::write(project.store_folder("default").join(file), content).unwrap();
        let mount = project.mount_with("", &[]);
        assert_eq!(mount.list("default"), names(&["INPUT"]), "{file}");
        assert_eq!(mount.read("default", "INPUT"), content.as_bytes(), "{file}");
        mount.write("default", "INPUT", edited.as_bytes());
        // The file that was there is the one that is edited: two of them would stop the Python SDK.
        assert_eq!(
            fs::read_to_string(project.store_folder("default").join(file)).unwrap(),
            edited
        );
        let wanted = serde_json::from_str(edited).map_or_else(|_| Given::text(edited), Given::Json);
        let mut python = Sdk::start(Flavour::Python, &project.root());
        assert_eq!(python.input(), wanted, "{file}");
        python.finish();
        // A file without extension is text to the JS SDK, unless a sidecar says more.
        let mut js = Sdk::start(Flavour::Js, &project.root());
        let given = js.input();
        assert!(
            given == wanted || file == "INPUT" && given == Given::text(edited),
            "{file}: {given:?}"
        );
        js.finish();
        mount.sync();
        assert_eq!(mount.list("default"), names(&["INPUT"]), "{file}");
    }
}

/// Python names the file instead of the key in the sidecar that it then writes; the record is INPUT all the same.
fn an_input_set_by(writer: Flavour, layout: Layout) {
    let project = Project::new();
    let mount = project.mount(layout);
    mount.make_store("default");
    mount.write("default", "INPUT", b"{\"by\": \"the mount\"}");
    let mut sdk = Sdk::start(writer, &project.root());
    assert_eq!(sdk.input(), Given::Json(json!({"by": "the mount"})));
    sdk.set_json(None, "INPUT", &json!({"by": "an SDK"}));
    sdk.finish();
    mount.sync();
    let what = format!("{layout:?}, {writer:?}");
    assert_eq!(mount.list("default"), names(&["INPUT"]), "{what}");
    let shown: serde_json::Value = serde_json::from_slice(&mount.read("default", "INPUT")).unwrap();
    assert_eq!(shown, json!({"by": "an SDK"}), "{what}");
    assert_eq!(mount.content_type("default", "INPUT"), JSON, "{what}");
    mount.sync();
    for &reader in layout.flavours() {
        let mut fresh = Sdk::start(reader, &project.root());
        assert_eq!(
            fresh.input(),
            Given::Json(json!({"by": "an SDK"})),
            "{what}, {reader:?}"
        );
        if reader == Flavour::Js {
            assert_eq!(fresh.list(None), names(&["INPUT"]), "{what}");
        }
        fresh.finish();
    }
}

#[test]
fn an_input_that_an_sdk_sets_is_shown_and_given_to_the_other() {
    an_input_set_by(Flavour::Python, Layout::Dual);
    an_input_set_by(Flavour::Js, Layout::Dual);
    an_input_set_by(Flavour::Python, Layout::Python);
    an_input_set_by(Flavour::Js, Layout::Js);
}

/// At its first open of the default store an SDK throws away all but the input; JS puts a new folder in its place.
fn a_purge_is_followed(flavour: Flavour, layout: Layout) {
    let what = format!("{flavour:?}, {layout:?}");
    let project = Project::new();
    let mount = project.mount(layout);
    mount.make_store("default");
    mount.make_store("kept");
    mount.write("default", "INPUT", b"{\"n\": 1}");
    mount.write("default", "OUTPUT", b"from the last run");
    mount.write("kept", "OUTPUT", b"in a named store");
    assert_eq!(mount.read("default", "OUTPUT"), b"from the last run");

    let mut sdk = Sdk::start_with(
        flavour,
        &Start {
            root: &project.root(),
            purge: true,
            env: &[],
        },
    );
    assert_eq!(sdk.input(), Given::Json(json!({"n": 1})), "{what}");
    eventually("the old records are gone", || {
        mount.list("default") == names(&["INPUT"])
    });
    eventually("the old record is not found", || {
        fs::metadata(mount.path("default", "OUTPUT")).is_err()
    });
    sdk.set(None, "RESULT", b"from this run", TEXT);
    eventually("the new record is there", || {
        mount.list("default") == names(&["INPUT", "RESULT"])
    });
    assert_eq!(mount.read("default", "INPUT"), b"{\"n\": 1}", "{what}");
    assert_eq!(mount.read("default", "RESULT"), b"from this run", "{what}");
    assert_eq!(mount.read("kept", "OUTPUT"), b"in a named store", "{what}");

    // What is written now goes where the SDK looks, not into the folder that was moved away.
    mount.write("default", "RESULT", b"edited");
    assert_eq!(sdk.value(None, "RESULT"), Given::text("edited"), "{what}");
    mount.write("default", "NOTE", b"new");
    sdk.finish();
    let mut fresh = Sdk::start(flavour, &project.root());
    assert_eq!(
        fresh.list(None),
        names(&["INPUT", "NOTE", "RESULT"]),
        "{what}"
    );
    assert_eq!(fresh.value(None, "NOTE"), Given::text("new"), "{what}");
    fresh.finish();

    let stores: BTreeSet<String> = fs::read_dir(mount.at())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(stores, names(&["default", "kept"]), "{what}");
    mount.unmount();
}

#[test]
fn a_purge_by_the_js_sdk_at_start_is_followed_while_mounted() {
    a_purge_is_followed(Flavour::Js, Layout::Js);
    a_purge_is_followed(Flavour::Js, Layout::Dual);
}

#[test]
fn a_purge_by_the_python_sdk_at_start_is_followed_while_mounted() {
    a_purge_is_followed(Flavour::Python, Layout::Python);
    a_purge_is_followed(Flavour::Python, Layout::Dual);
}

// README: S37, S38
#[test]
fn after_a_metamorph_input_is_a_link_to_what_get_input_returns() {
    for layout in [Layout::Js, Layout::Python, Layout::Dual] {
        let project = Project::new();
        let first = project.mount(layout);
        first.make_store("default");
        first.write("default", "INPUT", b"{\"run\": \"first\"}");
        first.write("default", "INPUT-METAMORPH-1", b"{\"run\": \"second\"}");
        first.unmount();

        let env = &[("ACTOR_INPUT_KEY", "INPUT-METAMORPH-1")];
        let mount = project.mount_with(&format!("layout={}", layout.name()), env);
        assert_eq!(
            fs::read_link(mount.path("default", "INPUT"))
                .unwrap()
                .to_str(),
            Some("INPUT-METAMORPH-1")
        );
        assert_eq!(
            mount.read(".storefs", "INPUT"),
            b"{\"run\": \"first\"}",
            "{layout:?}"
        );
        mount.write("default", "INPUT", b"{\"run\": \"second, edited\"}");
        assert_eq!(
            mount.read("default", "INPUT-METAMORPH-1"),
            b"{\"run\": \"second, edited\"}",
            "{layout:?}"
        );
        for &flavour in layout.flavours() {
            let mut sdk = Sdk::start_with(
                flavour,
                &Start {
                    root: &project.root(),
                    purge: false,
                    env,
                },
            );
            let Given::Json(input) = sdk.input() else {
                panic!("{layout:?}, {flavour:?}: no JSON input")
            };
            let shown: serde_json::Value =
                serde_json::from_slice(&mount.read("default", "INPUT")).unwrap();
            assert_eq!(shown, input, "{layout:?}, {flavour:?}");
            assert_eq!(input, json!({"run": "second, edited"}));
            sdk.finish();
        }
        assert_eq!(
            mount.read(".storefs", "INPUT"),
            b"{\"run\": \"first\"}",
            "{layout:?}"
        );
        mount.unmount();
    }
}
