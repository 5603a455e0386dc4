//! A storage folder in a temporary directory, for tests of the folder backend without a kernel mount.
// Each test program that takes this module in uses its own part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use storefs::backend::dir::{CommitIf, Folder, FolderOptions, Layout, Place, Store};
use storefs::error::Result;
use storefs::record::{ContentType, StoreName};
use tempfile::TempDir;

pub const JSON: &str = "application/json; charset=utf-8";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";
/// The layouts of the SDKs.
pub const SDKS: [Layout; 3] = [Layout::Js, Layout::Python, Layout::Dual];

/// A folder with the store `default`.
pub struct World {
    pub root: TempDir,
    pub folder: Arc<Folder>,
    pub store: Arc<Store>,
}

pub fn options(layout: Layout) -> FolderOptions {
    FolderOptions {
        layout: Some(layout),
        ..FolderOptions::default()
    }
}

pub fn name(text: &str) -> StoreName {
    StoreName::new(text).unwrap()
}

impl World {
    pub fn new(layout: Layout) -> Self {
        Self::at(TempDir::new().unwrap(), options(layout))
    }

    /// In a folder of its own inside of `root`, so that nothing beside it tells of a project.
    pub fn at(root: TempDir, options: FolderOptions) -> Self {
        let folder = Folder::open(&root.path().join("storage"), options).unwrap();
        let store = folder
            .store(&name("default"))
            .or_else(|_| folder.create_store(&name("default"), 0o755))
            .unwrap();
        Self {
            root,
            folder,
            store,
        }
    }

    /// The same folder as another process would open it.
    pub fn again(&self, options: FolderOptions) -> (Arc<Folder>, Arc<Store>) {
        let folder = Folder::open(&self.root.path().join("storage"), options).unwrap();
        let store = folder.store(&name("default")).unwrap();
        (folder, store)
    }

    /// A file of the folder.
    pub fn storage(&self, path: &str) -> PathBuf {
        self.root.path().join("storage").join(path)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.stores_path().join("default").join(file)
    }

    pub fn write(&self, key: &str, bytes: &[u8]) -> Result<Place> {
        self.write_as(key, bytes, None, &CommitIf::Any)
    }

    pub fn write_as(
        &self,
        key: &str,
        bytes: &[u8],
        content_type: Option<&str>,
        only_if: &CommitIf,
    ) -> Result<Place> {
        let mut draft = self.folder.draft(0o644).unwrap();
        draft.file.write_all_at(bytes, 0).unwrap();
        let content_type = content_type.map(ContentType::stored);
        let (place, stat) =
            self.store
                .commit(&mut draft, key, content_type.as_ref(), only_if, true)?;
        assert_eq!(stat.size, bytes.len() as u64);
        Ok(place)
    }

    pub fn read(&self, key: &str) -> Vec<u8> {
        let (place, _) = self.store.find(key).unwrap();
        let mut bytes = Vec::new();
        let mut file = self.store.open(&place, false).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Whether a record is found.
    pub fn has(&self, key: &str) -> bool {
        self.store.find(key).is_ok()
    }

    /// The names of everything in the store's directory.
    pub fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Puts a file into the store as somebody else would.
    pub fn put_file(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).unwrap();
    }

    pub fn type_of(&self, key: &str) -> String {
        let (place, _) = self.store.find(key).unwrap();
        let found = self.store.content_type(key, &place).unwrap();
        found.as_str().to_owned()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.store
            .list(0, &mut |listed| {
                names.push(listed.name.to_owned());
                true
            })
            .unwrap();
        names.sort();
        names
    }

    pub fn attribute(&self, file: &str, name: &str) -> Option<String> {
        let value = xattr::get(self.path(file), name).unwrap()?;
        Some(String::from_utf8(value).unwrap())
    }

    pub fn temporaries(&self) -> usize {
        let mut count = 0;
        for dir in fs::read_dir(self.storage(".storefs/tmp")).unwrap() {
            count += fs::read_dir(dir.unwrap().path()).unwrap().count();
        }
        count
    }
}
