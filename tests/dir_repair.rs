//! A store for both SDKs after one of them rewrote it, done here by hand as the SDK leaves it. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{JSON, TEXT, World, options};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};
use storefs::backend::dir::{CommitIf, FolderOptions, Layout};

/// A dual store with the records `a!` and `other`.
fn world() -> World {
    let world = World::new(Layout::Dual);
    world.write("other", b"[]").unwrap();
    world
        .write_as("a!", b"ours", Some(TEXT), &CommitIf::Any)
        .unwrap();
    world
}

/// The files of the two records, with this value file of `a!`.
fn files(value: &str) -> BTreeSet<String> {
    [
        value,
        "a%21",
        "a%21.__metadata__.json",
        "other",
        "other.json",
        "other.__metadata__.json",
    ]
    .map(str::to_owned)
    .into()
}

fn only_other() -> BTreeSet<String> {
    ["other", "other.json", "other.__metadata__.json"]
        .map(str::to_owned)
        .into()
}

fn python_sidecar(content_type: &str, size: usize) -> String {
    format!(
        "{{\n  \"key\": \"a!\",\n  \"content_type\": \"{content_type}\",\n  \"size\": {size}\n}}"
    )
}

/// Puts a file in place by a rename, as the Python SDK does.
fn replace(world: &World, file: &str, bytes: &str) {
    fs::write(world.storage("new"), bytes).unwrap();
    fs::rename(world.storage("new"), world.path(file)).unwrap();
}

fn assert_dual(world: &World, value: &str, bytes: &str, content_type: &str) {
    assert_eq!(world.names(), ["a!", "other"]);
    assert_eq!(world.read("a!"), bytes.as_bytes());
    assert_eq!(world.type_of("a!"), content_type);
    assert_eq!(world.files(), files(value));
    assert_eq!(
        fs::read_link(world.path("a%21")).unwrap().to_str(),
        Some(value)
    );
    assert_eq!(fs::read(world.path(value)).unwrap(), bytes.as_bytes());
    let text = fs::read_to_string(world.path("a%21.__metadata__.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let extension = value.rsplit_once('.').unwrap().1;
    let expected = serde_json::json!({
        "key": "a!", "content_type": content_type, "size": bytes.len(),
        "contentType": content_type, "extension": extension
    });
    assert_eq!(told, expected);
    assert_eq!(world.temporaries(), 0);
}

#[test]
fn python_over_dual_of_the_same_type_is_mended() {
    let world = world();
    replace(&world, "a%21", "Python's");
    replace(&world, "a%21.__metadata__.json", &python_sidecar(TEXT, 8));
    assert_dual(&world, "a!.txt", "Python's", TEXT);
}

#[test]
fn python_over_dual_of_another_type_is_mended() {
    let world = world();
    replace(&world, "a%21", "{\"by\": 1}");
    // Between its two renames the new bytes are there under the old type.
    assert_eq!(world.read("a!"), b"{\"by\": 1}");
    replace(&world, "a%21.__metadata__.json", &python_sidecar(JSON, 9));
    assert_dual(&world, "a!.json", "{\"by\": 1}", JSON);
}

#[test]
fn nothing_is_mended_while_python_is_writing() {
    let world = world();
    replace(&world, "a%21", "Python's");
    replace(&world, "a%21.__metadata__.json", &python_sidecar(TEXT, 8));
    world.put_file("a%21.x3k_9abc.tmp", "next");
    assert_eq!(world.read("a!"), b"Python's");
    assert_eq!(world.names(), ["a!", "a!.txt", "other"]);
    assert!(world.files().contains("a!.txt"));
    fs::remove_file(world.path("a%21.x3k_9abc.tmp")).unwrap();
    assert_dual(&world, "a!.txt", "Python's", TEXT);
}

#[test]
fn javascript_over_dual_of_the_same_type_is_seen_and_its_size_mended() {
    let world = world();
    fs::write(world.path("a!.txt"), "by JavaScript").unwrap();
    assert_eq!(world.read("a!"), b"by JavaScript");
    let before = SystemTime::now() - Duration::from_secs(5);
    let file = fs::File::options()
        .write(true)
        .open(world.path("a!.txt"))
        .unwrap();
    file.set_modified(before).unwrap();
    world.store.find("a!").unwrap();
    assert_dual(&world, "a!.txt", "by JavaScript", TEXT);
}

#[test]
fn javascript_over_dual_of_another_type_is_mended_once_its_lock_is_gone() {
    let world = world();
    fs::create_dir(world.path("a!.json.lock")).unwrap();
    world.put_file("a!.json", "{}");
    assert_eq!(world.read("a!"), b"{}");
    assert_eq!(world.type_of("a!"), JSON);
    assert!(world.files().contains("a!.txt"));
    fs::remove_dir(world.path("a!.json.lock")).unwrap();
    assert_dual(&world, "a!.json", "{}", JSON);
}

#[test]
fn a_record_that_javascript_removed_is_gone_whole() {
    let world = world();
    fs::remove_file(world.path("a!.txt")).unwrap();
    assert!(!world.has("a!"));
    assert_eq!(world.files(), only_other());
}

#[test]
fn a_record_that_python_removed_does_not_come_back() {
    for seen in [true, false] {
        let world = world();
        fs::remove_file(world.path("a%21")).unwrap();
        fs::remove_file(world.path("a%21.__metadata__.json")).unwrap();
        // Also for somebody who never saw it whole.
        if !seen {
            let (_folder, store) = world.again(options(Layout::Dual));
            store.find("a!").unwrap_err();
        }
        assert!(!world.has("a!"));
        assert_eq!(world.files(), only_other());
    }
}

#[test]
fn a_value_that_was_written_again_after_python_removed_it_is_kept() {
    let world = world();
    fs::remove_file(world.path("a%21")).unwrap();
    fs::remove_file(world.path("a%21.__metadata__.json")).unwrap();
    fs::write(world.path("a!.txt"), "by JavaScript").unwrap();
    assert_dual(&world, "a!.txt", "by JavaScript", TEXT);
}

#[test]
fn pythons_none_is_no_record() {
    let world = world();
    replace(&world, "a%21", "");
    replace(
        &world,
        "a%21.__metadata__.json",
        &python_sidecar("application/x-none", 0),
    );
    assert!(!world.has("a!"));
    assert_eq!(world.names(), ["other"]);
    assert!(!world.files().contains("a!.txt"));
    world
        .write_as("a!", b"again", Some(TEXT), &CommitIf::Absent)
        .unwrap();
    assert_dual(&world, "a!.txt", "again", TEXT);
}

#[test]
fn an_older_value_that_is_not_ours_is_shown_and_never_removed() {
    let root = tempfile::TempDir::new().unwrap();
    let stores = root.path().join("storage/key_value_stores/default");
    fs::create_dir_all(&stores).unwrap();
    fs::write(stores.join("a!.txt"), "by JavaScript, older").unwrap();
    fs::write(stores.join("x.txt"), "JavaScript").unwrap();
    fs::write(stores.join("a%21"), "by Python").unwrap();
    fs::write(
        stores.join("a%21.__metadata__.json"),
        python_sidecar(TEXT, 9),
    )
    .unwrap();
    let old = SystemTime::now() - Duration::from_secs(50);
    let file = fs::File::options()
        .write(true)
        .open(stores.join("a!.txt"))
        .unwrap();
    file.set_modified(old).unwrap();
    let world = World::at(root, FolderOptions::default());
    assert_eq!(world.store.layout(), Layout::Dual);
    assert_eq!(world.names(), ["a!", "a!.txt", "x"]);
    assert_eq!(world.read("a!"), b"by Python");
    assert_eq!(world.read("a!.txt"), b"by JavaScript, older");
    let (place, _) = world.store.find("a!.txt").unwrap();
    world.store.open(&place, true).unwrap_err();
}

#[test]
fn a_read_only_folder_is_read_right_and_mended_by_nobody() {
    let world = world();
    replace(&world, "a%21", "Python's");
    replace(&world, "a%21.__metadata__.json", &python_sidecar(JSON, 8));
    let before = world.files();
    let read_only = FolderOptions {
        read_only: true,
        ..options(Layout::Dual)
    };
    let (_folder, store) = world.again(read_only);
    let (place, stat) = store.find("a!").unwrap();
    assert_eq!(
        (
            stat.size,
            store.content_type("a!", &place).unwrap().as_str()
        ),
        (8, JSON)
    );
    assert_eq!(world.files(), before);
    assert!(
        !fs::symlink_metadata(world.path("a%21"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn changes_by_somebody_else_are_told_once() {
    let world = world();
    assert_eq!(world.store.refresh(None).unwrap(), Vec::<String>::new());
    world.put_file("new.json", "{}");
    fs::remove_file(world.path("a!.txt")).unwrap();
    let mut told = world.store.refresh(Some(&["new.json", "a!.txt"])).unwrap();
    told.sort();
    assert_eq!(told, ["a!", "new"]);
    assert_eq!(world.store.refresh(None).unwrap(), Vec::<String>::new());
    // What a look in between took in is told too.
    world.put_file("later.json", "{}");
    assert!(world.has("later"));
    assert_eq!(
        world.store.refresh(Some(&["later.json"])).unwrap(),
        ["later"]
    );
    // Our own writes are nobody else's.
    world.write("mine", b"{}").unwrap();
    assert_eq!(
        world.store.refresh(Some(&[])).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn a_value_whose_sidecar_python_is_about_to_write_is_not_taken_for_javascripts() {
    let world = world();
    fs::write(world.path("pic.png"), "bytes").unwrap();
    // Whoever looks now mends what there is to mend.
    assert!(world.has("other"));
    assert!(!world.files().contains("pic"));
    let sidecar = "{\"key\": \"pic.png\", \"content_type\": \"image/png\", \"size\": 5}";
    replace(&world, "pic.png.__metadata__.json", sidecar);
    assert_eq!(world.names(), ["a!", "other", "pic.png"]);
    assert_eq!(world.type_of("pic.png"), "image/png");
}

// README: S84
#[test]
fn a_value_that_has_nothing_beside_it_is_mended_after_half_a_second() {
    let world = world();
    fs::write(world.path("pic.png"), "bytes").unwrap();
    assert!(world.has("other"));
    let until = SystemTime::now() + Duration::from_secs(20);
    while !world.files().contains("pic") {
        assert!(SystemTime::now() < until, "it is never mended");
        std::thread::sleep(Duration::from_millis(100));
        world.has("other");
    }
    assert_eq!(world.names(), ["a!", "other", "pic"]);
}
