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
        let (open, spot, is_store) = {
            let table = lock(&self.table);
            let Some(inode) = table.get(ino) else {
                return Now::err(Error::new("change", "", Kind::Stale));
            };
            let held = inode.handles > 0 || inode.drafting || !inode.linked;
            let open = inode.open.clone().filter(|_| held);
            (open, table.spot(ino), table.store(ino).is_some())
        };
        if is_store {
            // Times and modes of stores are not kept anywhere.
            return Now::ok(());
        }
        let Some(spot) = spot else {
            return Now::err(Error::new("change", "", Kind::Stale));
        };
        match (by_handle, open) {
            (Some(open), _) if change.size.is_some() => {
                self.resize(&open, &spot, &change, caller).into()
            }
            (None, _) if change.size.is_some() => self.resize_named(ino, spot, change, caller),
            (Some(open), _) => self.change_open(open, &spot, &change),
            (None, Some(open)) if open.writable => self.change_open(open, &spot, &change),
            (None, open) => self.keep(open, &spot, touch_of(&change)),
        }
    }

    /// The length of a file that is open for writing, and what comes with it.
    fn resize(&self, open: &OpenFile, spot: &Spot, change: &Change, caller: Caller) -> Result<()> {
        let file = self.bytes_to_write(open)?;
        drop_privileges(file.as_fd(), true, caller)?;
        apply(file.as_fd(), change, &spot.name)?;
        drop(file);
        if change.size == Some(0) {
            // What was missing in it is gone with the rest.
            open.writing().failed = None;
        }
        Ok(())
    }

    /// By name: as a program does that opens the file for it, so that it meets other writers as any other writer does.
    fn resize_named(
        self: &Arc<Self>,
        ino: u64,
        spot: Spot,
        change: Change,
        caller: Caller,
    ) -> Now<()> {
        let this = self.clone();
        let parent = self.parent_of(ino);
        let again = self.clone();
        let opened = self.open_there(parent, &spot.name, libc::O_WRONLY, caller);
        let opened = opened.finally(move |opened| match opened {
            // It lost its name while it was open.
            Err(e) if e.kind() == Kind::NotFound => {
                let open = lock(&again.table)
                    .get(ino)
                    .filter(|inode| inode.handles > 0)
                    .and_then(|inode| inode.open.clone());
                match open.filter(|open| open.writable) {
                    Some(open) => again.share(open, false, (libc::O_WRONLY, caller), TRIES),
                    None => Now::err(e),
                }
            }
            opened => Now::Ready(opened),
        });
        opened.then(move |opened| {
            let file = &opened.open.file;
            let resized = this.resize(file, &spot, &change, caller);
            let done = resized.and_then(|()| {
                // What somebody else is still making is finished by him.
                let copied = file.writing().copied;
                if copied {
                    this.commit(file, false)?;
                }
                Ok(())
            });
            this.let_go(opened.handle, false);
            done
        })
    }

    /// Modes and times of a file that is being written, or was.
    fn change_open(&self, open: Arc<OpenFile>, spot: &Spot, change: &Change) -> Now<()> {
        let applied = || {
            // While this is held nothing is committed.
            let mut writing = open.writing();
            let (sealed, copied) = (open.is_sealed(), writing.copied);
            if !sealed {
                // They alone are no reason to send a copy that nobody wrote into.
                let unwritten = copied && !open.is_changed(&writing)?;
                apply(open.bytes().as_fd(), change, &spot.name)?;
                if unwritten {
                    writing.stamp = Stamp::from(&open.stat()?);
                }
            }
            Ok(sealed || copied)
        };
        match applied() {
            Ok(true) => self.keep(Some(open.clone()), spot, touch_of(change)),
            Ok(false) => Now::ok(()),
            Err(e) => Now::err(e),
        }
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
