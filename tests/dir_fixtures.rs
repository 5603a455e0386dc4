//! Folders that the real SDKs wrote: every record has the bytes and the type that its own SDK reads, and keeps both in a
//! copy in every layout. No kernel mount.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storefs::backend::dir::{CommitIf, Folder, FolderOptions, Layout, Store};
use storefs::error::Kind;
use storefs::record::{ContentType, StoreName};
use tempfile::TempDir;

/// The trees, each with the reader whose view counts in the manifest.
const TREES: [(&str, &str, Layout); 3] = [
    ("js-memory-storage", "fresh_js_memory_storage", Layout::Js),
    ("py-crawlee-1", "fresh_py_apify_4.1_reader", Layout::Python),
    ("ours-dual", "fresh_py_apify_4.1_reader", Layout::Dual),
];

/// What a record has to be.
struct Expected {
    store: String,
    key: String,
    sha256: String,
    content_type: String,
    value_file: Option<String>,
}

fn fixture(tree: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(tree)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The records that the tree's own SDK finds with the right bytes, under the type that its fresh process tells.
fn expected(tree: &str, reader: &str) -> Vec<Expected> {
    let text = fs::read_to_string(fixture(tree).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for record in manifest["records"].as_array().unwrap() {
        let fresh = &record[reader];
        let on_disk = record["stillOnDisk"].as_bool().unwrap_or(true);
        let read = fresh["found"] == true && fresh["sameBytes"] == true;
        if !on_disk || !read || fresh["contentType"] == "application/x-none" {
            continue;
        }
        let text = |name: &str| record[name].as_str().map(str::to_owned);
        all.push(Expected {
            store: text("store").unwrap(),
            key: text("key").unwrap(),
            sha256: text("sha256").unwrap(),
            content_type: fresh["contentType"].as_str().unwrap().to_owned(),
            value_file: text("valueFile"),
        });
    }
    assert!(all.len() > 45, "{tree}: {}", all.len());
    all
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read(store: &Store, key: &str) -> (Vec<u8>, String) {
    let (place, stat) = store
        .find(key)
        .unwrap_or_else(|error| panic!("{key}: {error:?}"));
    let mut bytes = Vec::new();
    let mut file = store.open(&place, false).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, stat.size);
    let content_type = store.content_type(key, &place).unwrap();
    (bytes, content_type.as_str().to_owned())
}

fn names(store: &Store) -> Vec<String> {
    let mut names = Vec::new();
    store
        .list(0, &mut |listed| {
            names.push(listed.name.to_owned());
            true
        })
        .unwrap();
    names
}

fn open(tree: &str) -> (TempDir, Arc<Folder>) {
    let root = TempDir::new().unwrap();
    copy(&fixture(tree).join("storage"), &root.path().join("storage"));
    let folder = Folder::open(&root.path().join("storage"), FolderOptions::default()).unwrap();
    (root, folder)
}

fn store(folder: &Folder, name: &str) -> Arc<Store> {
    let name = StoreName::new(name).unwrap();
    folder
        .store(&name)
        .or_else(|_| folder.create_store(&name, 0o755))
        .unwrap()
}

// README: S56
#[test]
fn every_record_is_what_its_own_sdk_reads() {
    for (tree, reader, layout) in TREES {
        let (_root, folder) = open(tree);
        for record in expected(tree, reader) {
            let store = store(&folder, &record.store);
            let (bytes, content_type) = read(&store, &record.key);
            assert_eq!(sha256(&bytes), record.sha256, "{tree} {}", record.key);
            assert_eq!(content_type, record.content_type, "{tree} {}", record.key);
            let file = store.find(&record.key).unwrap().0.file;
            if let Some(value_file) = record.value_file {
                assert_eq!(&*file, value_file);
            }
            assert_eq!(store.layout(), layout);
            assert!(names(&store).contains(&record.key));
        }
    }
}

#[test]
fn nothing_else_is_listed_but_what_the_sdk_lost_itself() {
    for (tree, reader, _) in TREES {
        let (_root, folder) = open(tree);
        for name in folder.stores().unwrap() {
            let store = folder.store(&name).unwrap();
            let mut listed = names(&store);
            listed.retain(|key| {
                let known = |record: &Expected| record.store == name.as_str() && record.key == *key;
                !expected(tree, reader).iter().any(known)
            });
            // JavaScript's own files `page.html` and the like: another process has them under the shorter key.
            let lost: &[&str] = match (tree, name.as_str()) {
                ("js-memory-storage", "default") => {
                    &["index", "page", "page2", "photo", "report", "report2"]
                }
                ("js-memory-storage", "my-named-store") => &["page"],
                ("py-crawlee-1" | "ours-dual", "default") => &["latin1"],
                _ => &[],
            };
            listed.sort();
            let text = fs::read_to_string(fixture(tree).join("manifest.json")).unwrap();
            let manifest: Value = serde_json::from_str(&text).unwrap();
            let left: Vec<&str> = manifest["errors"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|error| {
                    error["filesLeft"]
                        .as_array()
                        .is_some_and(|files| !files.is_empty())
                })
                .filter_map(|error| error["key"].as_str())
                .collect();
            listed.retain(|key| !left.contains(&&**key));
            assert_eq!(listed, lost, "{tree} {name}");
        }
    }
}

#[test]
fn reading_changes_no_file() {
    for (tree, reader, _) in TREES {
        let (root, folder) = open(tree);
        let before = snapshot(&root.path().join("storage/key_value_stores"));
        for record in expected(tree, reader) {
            read(&store(&folder, &record.store), &record.key);
        }
        let after = snapshot(&root.path().join("storage/key_value_stores"));
        assert_eq!(before, after, "{tree}");
    }
}

fn snapshot(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            let to = fs::read_link(&path).unwrap();
            all.push((path, to.display().to_string()));
        } else if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.push((path.clone(), sha256(&fs::read(&path).unwrap())));
        }
    }
    all.sort();
    all
}

#[test]
fn a_copy_in_every_layout_keeps_bytes_and_types() {
    for (tree, reader, _) in TREES {
        for layout in [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual] {
            let (_root, from) = open(tree);
            let target = TempDir::new().unwrap();
            let options = FolderOptions {
                layout: Some(layout),
                ..FolderOptions::default()
            };
            let to = Folder::open(target.path(), options.clone()).unwrap();
            let mut written = Vec::new();
            for record in expected(tree, reader) {
                let (bytes, content_type) = read(&store(&from, &record.store), &record.key);
                let mut draft = to.draft(0o644).unwrap();
                draft.file.write_all_at(&bytes, 0).unwrap();
                let content_type = ContentType::stored(&content_type);
                let committed = store(&to, &record.store).commit(
                    &mut draft,
                    &record.key,
                    Some(&content_type),
                    &CommitIf::Absent,
                    false,
                );
                match committed {
                    Ok(_) => written.push(record),
                    Err(error) => {
                        assert_eq!(
                            error.kind(),
                            Kind::NameTooLong,
                            "{tree} {layout:?} {}",
                            record.key
                        );
                        assert!(record.key.len() > 200 && layout != Layout::Plain);
                    }
                }
            }
            check(&to, &written, layout);
            // Somebody who has not seen the writing reads the same.
            let options = FolderOptions {
                layout: (layout == Layout::Plain).then_some(layout),
                ..options
            };
            check(
                &Folder::open(target.path(), options).unwrap(),
                &written,
                layout,
            );
        }
    }
}

fn check(folder: &Folder, written: &[Expected], layout: Layout) {
    for record in written {
        let store = store(folder, &record.store);
        let (bytes, content_type) = read(&store, &record.key);
        assert_eq!(sha256(&bytes), record.sha256, "{layout:?} {}", record.key);
        assert_eq!(
            content_type, record.content_type,
            "{layout:?} {}",
            record.key
        );
        let count = written
            .iter()
            .filter(|other| other.store == record.store)
            .count();
        assert_eq!(
            names(&store).len(),
            count,
            "{layout:?} {}: {:?}",
            record.store,
            names(&store)
        );
    }
}
