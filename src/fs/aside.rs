//! Changes of attributes where records are not local files: bytes change in a copy, the rest is kept by the volume.

use super::change::{apply, drop_privileges};
use super::handle::{OpenFile, Stamp, lock};
use super::inode::Spot;
use super::open::TRIES;
use super::{Caller, Change, Fs};
use crate::error::{Error, Kind, Result};
use crate::record::now_ns;
use crate::volume::{Now, Touch};
use std::os::fd::AsFd;
use std::sync::Arc;

/// What the volume has to keep of a change.
fn touch_of(change: &Change) -> Touch {
    let now = now_ns();
    Touch {
        mode: change.mode,
        uid: change.uid,
        gid: change.gid,
        accessed_ns: change.accessed.map(|at| at.unwrap_or(now)),
        modified_ns: change.modified.map(|at| at.unwrap_or(now)),
    }
}

impl Fs {
    pub(super) fn change_aside(
        self: &Arc<Self>,
        ino: u64,
        change: Change,
        handle: Option<u64>,
        caller: Caller,
    ) -> Now<()> {
        if self.volume.read_only() {
            return Now::err(Error::new("change", "", Kind::ReadOnly));
        }
        let by_handle = handle
            .and_then(|number| self.handles.get(number))
            .filter(|handle| handle.file.ino == ino && handle.writer)
            .map(|handle| handle.file.clone());
        let (open, spot, parent, is_store) = {
            let table = lock(&self.table);
            let Some(inode) = table.get(ino) else {
                return Now::err(Error::new("change", "", Kind::Stale));
            };
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            let open = inode.open.clone().filter(|_| held);
            let spot = table.spot(ino);
            (
                by_handle.or(open),
                spot,
                inode.parent,
                table.store(ino).is_some(),
            )
        };
        if is_store {
            // Times and modes of stores are not kept anywhere.
            return Now::ok(());
        }
        let Some(spot) = spot else {
            return Now::err(Error::new("change", "", Kind::Stale));
        };
        match open {
            Some(open) if open.writable => self.change_open(&open, &spot, change, handle, caller),
            Some(_) if change.size.is_some() => {
                // Who reads keeps the version.
                let given = self.give_new_inode(ino, parent, &spot);
                let stale = Error::new("truncate", &*spot.name, Kind::Stale);
                Now::err(given.err().unwrap_or(stale))
            }
            open => self.change_named(ino, open, spot, change, TRIES),
        }
    }

    /// Through a file that is being written.
    fn change_open(
        &self,
        open: &Arc<OpenFile>,
        spot: &Spot,
        change: Change,
        handle: Option<u64>,
        caller: Caller,
    ) -> Now<()> {
        let sealed = open.is_sealed();
        let done = || {
            if sealed && change.size.is_none() {
                return Ok(());
            }
            let mut writing = open.writing();
            // Times and modes alone are no reason to send a copy that nobody wrote into.
            let unwritten =
                writing.copied && change.size.is_none() && !open.is_changed(&writing)?;
            if unwritten {
                apply(open.bytes().as_fd(), &change, &spot.name)?;
                writing.stamp = Stamp::from(&open.stat()?);
                return Ok(());
            }
            drop(writing);
            let file = self.bytes_to_write(open)?;
            drop_privileges(file.as_fd(), change.size.is_some(), caller)?;
            apply(file.as_fd(), &change, &spot.name)?;
            drop(file);
            if change.size == Some(0) {
                // What was missing in it is gone with the rest.
                open.writing().failed = None;
            }
            if handle.is_none() && change.size.is_some() && open.writing().copied {
                self.commit(open, false)?;
            }
            Ok(())
        };
        if let Err(e) = done() {
            return Now::err(e);
        }
        let copied = open.writing().copied;
        if (sealed || copied) && change.size.is_none() {
            return self.keep(Some(open.clone()), spot, touch_of(&change));
        }
        Now::ok(())
    }

    fn keep(&self, open: Option<Arc<OpenFile>>, spot: &Spot, touch: Touch) -> Now<()> {
        self.volume
            .touch(&spot.store, &spot.name, touch)
            .then(move |()| {
                if let Some(open) = open {
                    open.now_shows(|stat| touch.apply(stat));
                }
                Ok(())
            })
    }

    /// By name, with nobody writing.
    fn change_named(
        self: &Arc<Self>,
        ino: u64,
        open: Option<Arc<OpenFile>>,
        spot: Spot,
        change: Change,
        tries: u32,
    ) -> Now<()> {
        let Some(size) = change.size else {
            return self.keep(open, &spot, touch_of(&change));
        };
        let this = self.clone();
        let opened = self.volume.open(&spot.store, &spot.name, true, false);
        let resized = opened.then(move |opened| {
            let subject = || format!("{}/{}", spot.store, spot.name);
            opened
                .file
                .set_len(size)
                .map_err(|e| Error::io("truncate", subject(), e))?;
            if let Some(mut draft) = opened.draft {
                draft.only_over(opened.stat.file.inode);
                let commit = this
                    .volume
                    .commit(&mut draft, &spot.store, &spot.name, None);
                let committed = match commit {
                    // A writer was faster, and what he wrote must stay: this is done to his version.
                    Err(e) if e.kind() == Kind::NotFound => return Ok(Err((this, spot))),
                    done => done?,
                };
                if let Some(inode) = lock(&this.table).get_mut(ino) {
                    inode.version = committed.file.inode;
                    inode.told = 0;
                }
            }
            Ok(Ok((this, spot)))
        });
        resized.and_then(move |done| match done {
            Ok((this, spot)) => this.keep(None, &spot, touch_of(&change)),
            Err((this, spot)) if tries > 0 => this.change_named(ino, None, spot, change, tries - 1),
            Err((_, spot)) => Now::err(Error::new("truncate", &*spot.name, Kind::Busy)),
        })
    }

    /// Records of such a volume have no attributes of users.
    pub(super) fn no_plain_attributes(&self, name: &str) -> Result<()> {
        if self.volume.has_descriptors() {
            return Ok(());
        }
        let why = "records of this source keep their type and no other attributes";
        Err(Error::because(
            "use the attribute",
            name,
            Kind::Unsupported,
            why,
        ))
    }
}
