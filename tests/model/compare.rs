//! What the mount shows and what is on disk, against the reference.

use super::kernel::Kernel;
use super::operation::{KEYS, NOTE, Name};
use super::reference::{Reference, Version};
use super::types;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use storefs::backend::dir::{Area, Folder, FolderOptions, Layout, Listed};
use storefs::error::Kind;
use storefs::fs::FileKind;
use storefs::record::StoreName;
use storefs::record::file_name::plain_encode;

/// What others see in the folder: all records whole, old or new, and nothing else.
pub fn disk(folder: &Path, layout: Layout, reference: &Reference) {
    let stores = folder.join("key_value_stores");
    assert_eq!(names_in(&stores), reference.stores(), "stores on disk");
    for store in reference.stores() {
        let records = reference.on_disk(store).into_iter();
        let records: BTreeMap<&str, &Version> =
            records.filter(|(key, _)| !types::is_scratch(key)).collect();
        match layout {
            Layout::Plain => plain(&stores.join(store), &records),
            Layout::Js | Layout::Python | Layout::Dual => fresh(folder, layout, store, &records),
        }
    }
    let temporaries = || -> usize {
        names_in(&folder.join(".storefs/tmp"))
            .iter()
            .map(|process| names_in(&folder.join(".storefs/tmp").join(process)).len())
            .sum()
    };
    // Where the folder is watched a store may just be mended, which has a temporary for a moment. One that is left stays.
    let mut tries = 0;
    while temporaries() != reference.drafts() && tries < 100 {
        std::thread::sleep(Duration::from_millis(20));
        tries += 1;
    }
    assert_eq!(temporaries(), reference.drafts(), "temporaries");
}

/// A plain store as any program sees it.
fn plain(folder: &Path, records: &BTreeMap<&str, &Version>) {
    let mut files: Vec<_> = records
        .keys()
        .map(|key| plain_encode(key).into_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(names_in(folder), files, "records in {}", folder.display());
    for (key, version) in records {
        let path = folder.join(&*plain_encode(key));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(
            text(&bytes),
            text(&version.bytes),
            "bytes of {}",
            path.display()
        );
        let stored = xattr::get(&path, "user.mime_type").unwrap();
        let stored = stored.map(|stored| text(&stored));
        assert_eq!(stored, version.stored, "type of {}", path.display());
    }
}

/// A store as somebody sees it who comes to the folder now and only reads.
fn fresh(folder: &Path, layout: Layout, store: &str, records: &BTreeMap<&str, &Version>) {
    let options = FolderOptions {
        layout: Some(layout),
        read_only: true,
        input_keys: vec!["INPUT".to_owned()],
    };
    let opened = Folder::open(folder, options).unwrap();
    let opened = opened.store(&StoreName::new(store).unwrap()).unwrap();
    let mut listed = Vec::new();
    let mut each = |entry: Listed<'_>| {
        if entry.area == Area::Store {
            listed.push(entry.name.to_owned());
        }
        true
    };
    opened.list(0, &mut each).unwrap();
    listed.sort_unstable();
    let keys: Vec<_> = records.keys().copied().collect();
    assert_eq!(listed, keys, "records in {store}");
    for (key, version) in records {
        let (place, _) = opened.find(key).unwrap();
        let mut bytes = Vec::new();
        let mut file = opened.open(&place, false).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(
            text(&bytes),
            text(&version.bytes),
            "bytes on disk of {store}/{key}"
        );
        let found = opened.content_type(key, &place).unwrap();
        assert_eq!(
            Some(found.as_str()),
            version.stored.as_deref(),
            "type on disk of {store}/{key}"
        );
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| format!("{bytes:02x?}"))
}

/// Every open file has the bytes of the version it opened.
pub fn handles(kernel: &Kernel, reference: &Reference) {
    for (handle, open) in &reference.handles {
        let version = reference.nodes[open.node].version;
        let expected = &reference.versions[version].bytes;
        assert_eq!(
            text(&kernel.read(*handle)),
            text(expected),
            "bytes of handle {handle}"
        );
    }
}

/// One name's attributes.
pub fn name(kernel: &mut Kernel, reference: &Reference, name: Name) {
    let found = kernel.lookup(name);
    let Some(version) = reference.shown(name) else {
        assert_eq!(
            found.map(|attr| attr.ino),
            Err(Kind::NotFound),
            "{name:?} is not there"
        );
        return;
    };
    let version = &reference.versions[version];
    let attr = found.unwrap_or_else(|why| panic!("{name:?}: {why:?}"));
    assert_eq!(attr.size, version.bytes.len() as u64, "size of {name:?}");
    assert_eq!(u32::from(attr.mode), version.mode, "mode of {name:?}");
    assert_eq!((attr.kind, attr.links), (FileKind::Regular, 1), "{name:?}");
    if let Some(seconds) = version.modified {
        assert_eq!(
            attr.modified_ns,
            seconds * 1_000_000_000,
            "time of {name:?}"
        );
    }
}

/// Everything that the mount shows.
pub fn tree(kernel: &mut Kernel, reference: &Reference) {
    assert_eq!(kernel.stores(), reference.stores(), "stores");
    for store in reference.stores() {
        let mut listed: Vec<_> = kernel
            .page(store, 2, usize::MAX, false, &*KEYS)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        listed.sort_unstable();
        assert_eq!(listed, reference.listed(store), "listing of {store}");
        for key in *KEYS {
            let at = Name { store, key };
            name(kernel, reference, at);
            let Some(version) = reference.shown(at) else {
                continue;
            };
            let note = reference.versions[version].note;
            let expected = note.map(str::to_owned).ok_or(Kind::NoAttribute);
            assert_eq!(kernel.get_xattr(at, NOTE), expected, "attribute of {at:?}");
            assert_eq!(
                kernel.has_note(at),
                Ok(note.is_some()),
                "attributes of {at:?}"
            );
            let shown = kernel.get_xattr(at, "user.mime_type").ok();
            assert_eq!(shown, reference.shown_type(at), "type of {at:?}");
        }
    }
}
