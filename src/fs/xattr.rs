//! Extended attributes: the content type, ours that show state, and what users keep on their files.

use super::handle::lock;
use super::inode::{Guessed, Spot};
use super::{CONTROL, Fs, ROOT, control};
use crate::error::{Error, Kind, Result};
use crate::record::file_name::is_scratch;
use crate::record::{ContentType, ETag, StoreName};
use crate::volume::Now;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The attribute that is the content type: the name that freedesktop.org gives it.
pub(super) const MIME_TYPE: &str = "user.mime_type";
/// Attributes with this prefix are ours: readable by name, never listed.
const OURS: &str = "user.storefs.";

/// Where an attribute lives.
enum On {
    Store(StoreName),
    Record { store: StoreName, name: Box<str> },
    Nothing,
}

fn no_attribute(name: &str) -> Error {
    Error::new("read the attribute", name, Kind::NoAttribute)
}

/// Whether the name can be answered without looking at the file: only `user.` attributes exist here. To say that there is
/// none would make `ls` ask again for every file.
fn is_foreign(name: &str) -> bool {
    !name.starts_with("user.")
}

fn check_name(name: &str) -> Result<()> {
    if is_foreign(name) {
        return Err(Error::new("use the attribute", name, Kind::Unsupported));
    }
    Ok(())
}

impl Fs {
    fn on(&self, ino: u64) -> Result<On> {
        if ino == ROOT || ino == CONTROL || control::is_control(ino) {
            return Ok(On::Nothing);
        }
        let table = lock(&self.table);
        if let Some(store) = table.store(ino) {
            return Ok(On::Store(store.clone()));
        }
        match table.spot(ino) {
            Some(spot) => Ok(On::Record {
                store: spot.store,
                name: spot.name,
            }),
            None => Err(Error::new("use the attributes of", "", Kind::Stale)),
        }
    }

    /// The descriptor's path of an inode's file: the draft's or open one's, else the record's.
    fn file_path<T>(&self, ino: u64, each: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let (open, spot) = {
            let table = lock(&self.table);
            let inode = table
                .get(ino)
                .ok_or_else(|| Error::new("use", "", Kind::Stale))?;
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            (inode.open.clone().filter(|_| held), table.spot(ino))
        };
        if let Some(open) = open {
            return each(&format!("/proc/self/fd/{}", open.file.as_raw_fd()));
        }
        let spot = spot.ok_or_else(|| Error::new("use", "", Kind::Stale))?;
        let (fd, _) = self.volume.handle(&spot.store, &spot.name)?;
        each(&format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }

    /// The value of an attribute.
    pub fn getxattr(self: &Arc<Self>, ino: u64, name: &str) -> Now<Vec<u8>> {
        let on = match check_name(name).and_then(|()| self.on(ino)) {
            Ok(on) => on,
            Err(e) => return Now::err(e),
        };
        match on {
            On::Nothing => Now::err(no_attribute(name)),
            On::Store(store) => {
                let value = match name.strip_prefix(OURS) {
                    Some("url") => {
                        let url = self.volume.url(&store, None);
                        return url.then(|url| Ok(url.into_bytes()));
                    }
                    Some("id") => Ok(self
                        .volume
                        .store_id(&store)
                        .unwrap_or_else(|| store.as_str().to_owned())
                        .into_bytes()),
                    Some("name") => Ok(store.as_str().as_bytes().to_vec()),
                    _ => Err(no_attribute(name)),
                };
                value.into()
            }
            On::Record { store, name: key } if name == MIME_TYPE => self
                .content_type(ino, &store, &key)
                .then(|found| Ok(found.as_str().as_bytes().to_vec())),
            On::Record { store, name: key } if name.starts_with(OURS) => {
                let drafting = lock(&self.table)
                    .get(ino)
                    .is_some_and(|inode| inode.drafting);
                let which = name.strip_prefix(OURS).unwrap_or_default();
                if which == "url" {
                    let url = self.volume.url(&store, Some(&key));
                    return url.then(|url| Ok(url.into_bytes()));
                }
                match self.volume.shown(&store, &key, which) {
                    Some(shown) if !drafting => shown.into(),
                    _ => self.our_attribute(ino, name).into(),
                }
            }
            On::Record { .. } if !self.volume.has_descriptors() => Now::err(
                self.no_plain_attributes(name)
                    .err()
                    .unwrap_or_else(|| no_attribute(name)),
            ),
            On::Record { .. } => self
                .file_path(ino, |path| match xattr::get_deref(path, name) {
                    Ok(Some(value)) => Ok(value),
                    Ok(None) => Err(no_attribute(name)),
                    Err(e) => Err(Error::io("read the attribute", name, e)),
                })
                .into(),
        }
    }

    fn content_type(self: &Arc<Self>, ino: u64, store: &StoreName, key: &str) -> Now<ContentType> {
        if let Some(file) = self.nameless(ino) {
            return self.nameless_type(file, key).into();
        }
        let open = lock(&self.table)
            .get(ino)
            .and_then(|inode| inode.open.clone().filter(|_| inode.drafting));
        let Some(open) = open else {
            return self.volume.content_type(store, key);
        };
        if let Some(explicit) = open.writing().explicit.clone() {
            return Now::ok(explicit);
        }
        let key = key.to_owned();
        // A draft has the type of the record that it replaces, else a guess from what is there so far.
        self.volume
            .content_type(store, &key)
            .finally(move |stored| {
                let decided = || {
                    let bytes = crate::record::Body::File(open.file.clone());
                    ContentType::decide(None, stored.ok().as_ref(), &key, &bytes)
                        .map_err(|e| Error::io("read", &*key, e))
                };
                Now::Ready(decided())
            })
    }

    fn our_attribute(&self, ino: u64, name: &str) -> Result<Vec<u8>> {
        let (drafting, open) = {
            let table = lock(&self.table);
            let inode = table.get(ino).ok_or_else(|| no_attribute(name))?;
            (inode.drafting, inode.open.clone())
        };
        match name.strip_prefix(OURS) {
            Some("state") => Ok(if drafting {
                b"dirty".to_vec()
            } else {
                b"clean".to_vec()
            }),
            Some("etag") => {
                let file = match open {
                    Some(open) => open.stat()?,
                    None => {
                        let spot = lock(&self.table)
                            .spot(ino)
                            .ok_or_else(|| no_attribute(name))?;
                        self.volume.known(&spot.store, &spot.name)?.file
                    }
                };
                let times = (i128::from(file.modified_ns), i128::from(file.changed_ns));
                let tag = ETag::of_file(file.inode, file.size, times);
                Ok(tag.as_str().as_bytes().to_vec())
            }
            _ => Err(no_attribute(name)),
        }
    }

    /// Sets an attribute. `flags` as setxattr(2) has them.
    pub fn setxattr(self: &Arc<Self>, ino: u64, name: &str, value: &[u8], flags: i32) -> Now<()> {
        let on = match check_name(name).and_then(|()| self.on(ino)) {
            Ok(on) => on,
            Err(e) => return Now::err(e),
        };
        let On::Record { store, name: key } = on else {
            return Now::err(Error::new("set the attribute", name, Kind::NotPermitted));
        };
        if self.volume.read_only() {
            return Now::err(Error::new("set the attribute", name, Kind::ReadOnly));
        }
        if name.starts_with(OURS) {
            let why = "attributes with this prefix show what storefs knows";
            return Now::err(Error::because(
                "set the attribute",
                name,
                Kind::NotPermitted,
                why,
            ));
        }
        if name != MIME_TYPE {
            return self.set_plain(ino, name, value, flags).into();
        }
        if flags & libc::XATTR_CREATE != 0 {
            return Now::err(Error::new("set the attribute", name, Kind::Exists));
        }
        let to = match ContentType::parse(value) {
            Ok(to) => to,
            Err(e) => {
                self.refuse(&key, &e);
                return Now::err(e);
            }
        };
        self.set_type(ino, &store, &key, Some(to))
    }

    fn set_plain(&self, ino: u64, name: &str, value: &[u8], flags: i32) -> Result<()> {
        use rustix::fs::XattrFlags;
        self.no_plain_attributes(name)?;
        let flags = XattrFlags::from_bits_truncate(flags.cast_unsigned());
        self.file_path(ino, |path| {
            rustix::fs::setxattr(path, name, value, flags)
                .map_err(|e| Error::io("set the attribute", name, e))
        })
    }

    fn set_type(
        self: &Arc<Self>,
        ino: u64,
        store: &StoreName,
        key: &str,
        to: Option<ContentType>,
    ) -> Now<()> {
        if let Some(file) = self.nameless(ino) {
            return self.set_nameless_type(&file, key, to.as_ref()).into();
        }
        let open = lock(&self.table)
            .get(ino)
            .and_then(|inode| inode.open.clone());
        if let Some(open) = open {
            let mut writing = open.writing();
            if writing.draft.is_some() {
                writing.explicit.clone_from(&to);
                // A copy is given up when nothing is written into it, so the record gets the type, too.
                if !writing.copied {
                    return Now::ok(());
                }
            }
            // What is still written in place does not change it back.
            if writing.writers > 0 {
                writing.explicit.clone_from(&to);
            }
        }
        let set = self.volume.set_content_type(store, key, to.as_ref());
        let this = self.clone();
        set.then(move |()| {
            if let Some(inode) = lock(&this.table).get_mut(ino) {
                inode.guessed = None;
            }
            Ok(())
        })
    }

    /// Removes an attribute; without its type a record returns to the guess.
    pub fn removexattr(self: &Arc<Self>, ino: u64, name: &str) -> Now<()> {
        let on = match check_name(name).and_then(|()| self.on(ino)) {
            Ok(on) => on,
            Err(e) => return Now::err(e),
        };
        let On::Record { store, name: key } = on else {
            return Now::err(no_attribute(name));
        };
        if self.volume.read_only() {
            return Now::err(Error::new("remove the attribute", name, Kind::ReadOnly));
        }
        if name.starts_with(OURS) {
            return Now::err(Error::new("remove the attribute", name, Kind::NotPermitted));
        }
        if name == MIME_TYPE {
            return self.set_type(ino, &store, &key, None);
        }
        if let Err(e) = self.no_plain_attributes(name) {
            return Now::err(e);
        }
        self.file_path(ino, |path| {
            rustix::fs::removexattr(path, name)
                .map_err(|e| Error::io("remove the attribute", name, e))
        })
        .into()
    }

    /// What a rename does to the type of a file that this mount made and nobody gave one: editors save so over a record, and
    /// others under a new name. None when the file keeps what it has, else the type that it gets.
    pub(super) fn type_to_keep(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        (source, target): (&Spot, &Spot),
    ) -> Option<Option<ContentType>> {
        let table = lock(&self.table);
        let guessed = table.find(from.0, from.1)?.guessed.clone()?;
        let is_new = table.find(to.0, to.1).is_none();
        drop(table);
        let kept = match is_new {
            true => self.type_of_new_name(source, to.1)?,
            false => {
                let replaced = self.volume.content_type(&target.store, &target.name);
                replaced.wait().ok()?
            }
        };
        Some(self.is_still(&guessed, source).then_some(kept))
    }

    /// Whether a file has still the type that was guessed here: another mount may have set one.
    fn is_still(&self, guessed: &Guessed, spot: &Spot) -> bool {
        let (store, name) = (&spot.store, &*spot.name);
        let now = || self.volume.content_type(store, name).wait();
        match guessed {
            Guessed::Kept(kept) => now().is_ok_and(|now| now == *kept),
            // Without one of its own it takes that of the record it replaces by itself.
            Guessed::Unknown if is_scratch(name) => false,
            Guessed::Unknown => {
                let guess = || {
                    let opened = self.volume.open(store, name, false, true).wait().ok()?;
                    ContentType::guess(name, &*opened.file).ok()
                };
                now().is_ok_and(|now| guess() == Some(now))
            }
        }
    }

    /// Lets type and sidecar follow what was written in place.
    pub(super) fn written_in_place(&self, ino: u64, spot: &Spot) -> Result<()> {
        let guessed = lock(&self.table)
            .get(ino)
            .and_then(|inode| inode.guessed.clone())
            .filter(|_| !is_scratch(&spot.name));
        let now = || {
            self.volume
                .content_type(&spot.store, &spot.name)
                .wait()
                .ok()
        };
        let was_guessed = match &guessed {
            Some(Guessed::Kept(kept)) => now().as_ref() == Some(kept),
            Some(Guessed::Unknown) => true,
            None => false,
        };
        self.volume.written_in_place(&spot.store, &spot.name)?;
        if guessed.is_some() {
            // What the new bytes made of a guess is one too.
            let now = was_guessed.then(now).flatten().map(Guessed::Kept);
            let mut table = lock(&self.table);
            // One that was set meanwhile is no guess.
            if let Some(inode) = table.get_mut(ino).filter(|inode| inode.guessed.is_some()) {
                inode.guessed = now;
            }
        }
        Ok(())
    }

    /// The names of an inode's attributes, each ended by a NUL.
    pub fn listxattr(self: &Arc<Self>, ino: u64) -> Now<Vec<u8>> {
        let names = || {
            let On::Record { .. } = self.on(ino)? else {
                return Ok(Vec::new());
            };
            let mut list = Vec::from(MIME_TYPE.as_bytes());
            list.push(0);
            if !self.volume.has_descriptors() {
                return Ok(list);
            }
            let kept = self.file_path(ino, |path| match xattr::list_deref(path) {
                Ok(names) => Ok(names.collect::<Vec<_>>()),
                // A file system without attributes has none.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
                Err(e) => Err(Error::io("list the attributes of", "", e)),
            })?;
            for name in kept {
                let bytes = name.as_encoded_bytes();
                let shown = bytes.starts_with(b"user.")
                    && !bytes.starts_with(OURS.as_bytes())
                    && bytes != MIME_TYPE.as_bytes();
                if shown {
                    list.extend_from_slice(bytes);
                    list.push(0);
                }
            }
            Ok(list)
        };
        names().into()
    }
}
