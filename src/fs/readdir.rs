//! Listings of the root, of stores and of the control directory. Offsets stay valid while the directory changes.

use super::attr::{Attr, FileKind};
use super::handle::lock;
use super::{CONTROL, Fs, ROOT, control};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::volume::Now;
use std::sync::Arc;

/// Offsets: 1 and 2 are `.` and `..`; a store's entries follow as the volume numbers them; then come drafts and links.
const DOTS: u64 = 2;
const DRAFTS: u64 = 1 << 62;
const INPUT_LINK: u64 = 7 << 60;

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where to go on after it.
    pub next: u64,
    /// Its kind.
    pub kind: FileKind,
    /// Its inode, 0 when it has none yet.
    pub ino: u64,
    /// Its attributes when they were asked for. The kernel counts this as one lookup if it takes the entry.
    pub attr: Option<Attr>,
}

type Each<'a> = &'a mut dyn FnMut(DirEntry<'_>) -> bool;

impl Fs {
    /// Gets ready to list a directory.
    pub fn opendir(self: &Arc<Self>, ino: u64) -> Now<()> {
        if ino == ROOT {
            return self.volume.prepare_list(None);
        }
        if ino == CONTROL {
            return Now::ok(());
        }
        let store = lock(&self.table).store(ino).cloned();
        match store {
            Some(store) => self.volume.prepare_list(Some(&store)),
            None => Now::err(Error::new("list", "", Kind::NotADirectory)),
        }
    }

    /// Calls `each` for the entries after an offset (0: all) until it returns false, which says that this entry did not
    /// fit. With `plus` each comes with its attributes.
    pub fn readdir(
        self: &Arc<Self>,
        ino: u64,
        offset: u64,
        plus: bool,
        each: Each<'_>,
    ) -> Result<()> {
        for (number, (name, target)) in [(".", ino), ("..", ROOT)].into_iter().enumerate() {
            let next = number as u64 + 1;
            let entry = DirEntry {
                name,
                next,
                kind: FileKind::Directory,
                ino: target,
                attr: None,
            };
            if offset < next && !each(entry) {
                return Ok(());
            }
        }
        let store = lock(&self.table).store(ino).cloned();
        match store {
            _ if ino == ROOT => self.list_root(offset, plus, each),
            _ if ino == CONTROL => self.list_control(offset, each),
            Some(store) => self.list_store(ino, &store, offset, plus, each),
            None => Err(Error::new("list", "", Kind::NotADirectory)),
        }
    }

    fn list_root(self: &Arc<Self>, offset: u64, plus: bool, each: Each<'_>) -> Result<()> {
        let mut names: Vec<String> = self
            .volume
            .stores()?
            .iter()
            .filter(|store| self.store_shown(store))
            .map(|store| store.as_str().to_owned())
            .collect();
        if !names.iter().any(|name| name == "default")
            && self.options.default_store.as_str() != "default"
        {
            names.push("default".to_owned());
        }
        names.sort_unstable();
        // The place in the sorted list is the offset: stores come and go rarely, and one that moves is shown again
        // rather than left out.
        for (index, name) in names.iter().enumerate() {
            let next = DOTS + 1 + index as u64;
            if next <= offset {
                continue;
            }
            let link = name == "default" && self.options.default_store.as_str() != "default";
            let kind = if link {
                FileKind::Link
            } else {
                FileKind::Directory
            };
            let attr = if plus {
                self.lookup(ROOT, name).wait().ok()
            } else {
                None
            };
            if plus && attr.is_none() {
                continue;
            }
            let ino = attr.map_or(0, |attr| attr.ino);
            if !each(DirEntry {
                name,
                next,
                kind,
                ino,
                attr,
            }) {
                if let Some(attr) = attr {
                    self.forget(attr.ino, 1);
                }
                break;
            }
        }
        Ok(())
    }

    fn list_store(
        self: &Arc<Self>,
        parent: u64,
        store: &StoreName,
        offset: u64,
        plus: bool,
        each: Each<'_>,
    ) -> Result<()> {
        let input_link = *store == self.options.default_store && &*self.input_key() != "INPUT";
        let mut full = false;
        if offset < DRAFTS {
            let after = offset.saturating_sub(DOTS);
            self.volume.list(store, after, plus, &mut |entry| {
                if input_link && entry.name == "INPUT" {
                    return true;
                }
                let next = entry.next + DOTS;
                let mut attr = None;
                if let Some(stat) = &entry.stat {
                    let before = self.known(parent, entry.name);
                    match self.enter_record(parent, entry.name, stat, true, before) {
                        Some(entered) => attr = Some(entered),
                        None => match self.lookup(parent, entry.name).wait() {
                            Ok(found) => attr = Some(found),
                            Err(_) => return true,
                        },
                    }
                }
                let kind = attr.map_or(FileKind::Regular, |attr| attr.kind);
                let ino = attr.map_or(0, |attr| attr.ino);
                full = !each(DirEntry {
                    name: entry.name,
                    next,
                    kind,
                    ino,
                    attr,
                });
                if full && let Some(attr) = attr {
                    self.forget(attr.ino, 1);
                }
                !full
            })?;
        }
        if full {
            return Ok(());
        }
        self.list_drafts((parent, store), offset, plus, input_link, each);
        Ok(())
    }

    fn known(&self, parent: u64, name: &str) -> Option<(u64, u64, bool)> {
        let table = lock(&self.table);
        table
            .find(parent, name)
            .map(|inode| (inode.ino, inode.version, inode.drafting))
    }

    /// What is in the tree but not on disk: records that are being written for the first time, and the link to the input.
    fn list_drafts(
        self: &Arc<Self>,
        (parent, store): (u64, &StoreName),
        offset: u64,
        plus: bool,
        input_link: bool,
        each: Each<'_>,
    ) {
        let mut rest: Vec<(u64, Box<str>, FileKind)> = Vec::new();
        {
            let table = lock(&self.table);
            for ino in table.fresh_in(parent) {
                if let Some(inode) = table.get(ino) {
                    let next = DRAFTS + (ino >> 32 << 24 | ino & 0xff_ffff) % (1 << 61);
                    rest.push((next, inode.name.clone(), FileKind::Regular));
                }
            }
        }
        if input_link {
            rest.push((INPUT_LINK, "INPUT".into(), FileKind::Link));
        }
        rest.sort_unstable_by_key(|(next, ..)| *next);
        for (next, name, kind) in rest {
            if next <= offset {
                continue;
            }
            // Another version may have got the name since, or before a rename: then it was listed with the others.
            if next != INPUT_LINK && self.volume.known(store, &name).is_ok() {
                continue;
            }
            let attr = if plus {
                self.lookup(parent, &name).wait().ok()
            } else {
                None
            };
            if plus && attr.is_none() {
                continue;
            }
            let ino = attr.map_or(0, |attr| attr.ino);
            if !each(DirEntry {
                name: &name,
                next,
                kind,
                ino,
                attr,
            }) {
                if let Some(attr) = attr {
                    self.forget(attr.ino, 1);
                }
                return;
            }
        }
    }

    fn list_control(self: &Arc<Self>, offset: u64, each: Each<'_>) -> Result<()> {
        for (index, (name, ino)) in control::files(&self.input_key()).enumerate() {
            let next = DOTS + 1 + index as u64;
            let entry = DirEntry {
                name,
                next,
                kind: FileKind::Regular,
                ino,
                attr: self.control_attr(ino).ok(),
            };
            if next > offset && !each(entry) {
                break;
            }
        }
        Ok(())
    }
}
