//! Which layout a store has, by what is found in it, in the folder and beside it. It only looks.

use super::names::STORE_FILE;
use super::scan::Evidence;
use super::shared::Shared;
use super::{Layout, disk};
use crate::record::StoreName;
use rustix::fs::FileType;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// Where the SDKs keep their storages of each kind.
const STORAGES: [&str; 3] = ["key_value_stores", "datasets", "request_queues"];
/// So many storages of each kind are asked at most.
const ASKED: usize = 100;

/// Whether the store is plain: by a marker, or because everything is written so. A marker holds against any option:
/// a plain store read as another one would lose its types and merge its keys.
pub(super) fn is_plain(shared: &Shared, name: &StoreName) -> bool {
    shared.options.layout == Some(Layout::Plain) || shared.is_marked_plain(name)
}

/// The layout of an SDK store: what its files show, else what the folder shows, else both SDKs'.
pub(super) fn decide(shared: &Shared, dir: BorrowedFd<'_>, mut evidence: Evidence) -> Layout {
    if let Some(layout) = shared.options.layout {
        return layout;
    }
    if evidence.store_file {
        evidence = evidence.and(store_file(dir));
    }
    evidence
        .layout()
        .or_else(|| folder(shared).layout())
        .or_else(|| project(shared).layout())
        .unwrap_or(Layout::Dual)
}

impl Evidence {
    fn and(self, other: Self) -> Self {
        Self {
            js: self.js | other.js,
            python: self.python | other.python,
            dual: self.dual | other.dual,
            store_file: self.store_file | other.store_file,
        }
    }

    /// None without any evidence. Where both SDKs have been, both shall read what is written.
    pub(super) fn layout(self) -> Option<Layout> {
        match (self.dual, self.js, self.python) {
            (true, ..) | (_, true, true) => Some(Layout::Dual),
            (_, true, _) => Some(Layout::Js),
            (_, _, true) => Some(Layout::Python),
            (false, false, false) => None,
        }
    }
}

/// Which SDK wrote a storage's own file.
fn store_file(dir: BorrowedFd<'_>) -> Evidence {
    let mut text = String::new();
    let read = disk::open_file(dir, STORE_FILE, false)
        .map(|file| file.take(64 * 1024).read_to_string(&mut text));
    if !matches!(read, Ok(Ok(_))) {
        return Evidence::default();
    }
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(&text) else {
        return Evidence::default();
    };
    // An old Python SDK (0.6) names its values as JavaScript's does; it is the one with a user id in snake case.
    let python = fields.contains_key("accessed_at");
    let old = fields.contains_key("user_id");
    Evidence {
        js: fields.contains_key("accessedAt") || (python && old),
        python: python && !old,
        ..Evidence::default()
    }
}

/// What the other storages of the folder show.
fn folder(shared: &Shared) -> Evidence {
    let mut evidence = Evidence::default();
    for kind in STORAGES {
        let Ok(storages) = disk::open_dir(shared.root.as_fd(), kind) else {
            continue;
        };
        let mut names = Vec::new();
        let _ = disk::walk(storages.as_fd(), 0, &mut |entry| {
            if entry.kind == FileType::Directory {
                names.push(entry.name.to_owned());
            }
            Ok(names.len() < ASKED)
        });
        for name in names {
            if let Ok(storage) = disk::open_dir(storages.as_fd(), &name) {
                evidence = evidence.and(store_file(storage.as_fd()));
            }
        }
    }
    evidence
}

/// What the project shows that the folder is in.
fn project(shared: &Shared) -> Evidence {
    let Some(project) = shared
        .path
        .canonicalize()
        .ok()
        .and_then(|path| path.parent().map(ToOwned::to_owned))
    else {
        return Evidence::default();
    };
    let has = |file: &str| project.join(file).is_file();
    Evidence {
        js: has("package.json"),
        python: has("pyproject.toml") || has("requirements.txt"),
        ..Evidence::default()
    }
}
