//! When a file is finished, and what happens then. A draft is never made visible before that.

use super::handle::{Handle, OpenFile, Stamp, lock};
use super::inode::{Guessed, Spot};
use super::{Fs, Notice, processes};
use crate::error::{Error, Kind, Result};
use crate::record::{ETag, StoreName};
use crate::volume::Now;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Fs {
    /// A descriptor of the handle was closed by this thread. The kernel says so for every descriptor, also for those
    /// that a child inherited, so this is not yet the end: what was written is committed when the process that opened the
    /// file has closed it and none of its children still has it.
    pub fn flush(self: &Arc<Self>, number: u64, thread: u32) -> Now<()> {
        let handle = match self.handle(number) {
            Ok(handle) => handle,
            Err(e) => return Now::err(e),
        };
        if !handle.writer || handle.text.is_some() {
            return Now::ok(());
        }
        if self.volume.has_descriptors() {
            // What was committed is where it belongs.
            return match self.flush_writer(&handle, thread) {
                // What is written with O_SYNC or O_DSYNC is on the disk, but where the kernel writes it not yet in its place.
                Ok(true) if handle.durable => self.fsync(number, false),
                Ok(_) => Now::ok(()),
                Err(e) => self.when_seen(&handle, e),
            };
        }
        let spot = lock(&self.table).spot(handle.file.ino);
        // A commit makes a new try, so what became of the one before is asked first.
        let earlier = spot
            .as_ref()
            .and_then(|spot| self.volume.failure(&spot.store, &spot.name));
        let committed = match self.flush_writer(&handle, thread) {
            Ok(committed) => committed,
            Err(e) => return self.when_seen(&handle, e),
        };
        match (spot, earlier) {
            (_, Some(e)) if !handle.told_failure.swap(true, Ordering::Relaxed) => Now::err(e),
            (Some(spot), _) if committed => self.volume.closed(&spot.store, &spot.name),
            _ => Now::ok(()),
        }
    }

    /// Who is told that a write failed finds what was there before at once: the kernel forgets the lost file first.
    fn when_seen(self: &Arc<Self>, handle: &Handle, failure: Error) -> Now<()> {
        if handle.file.writing().lost.is_none() {
            return Now::err(failure);
        }
        let this = self.clone();
        Now::blocking(move || {
            this.deliver_notices();
            Err(failure)
        })
    }

    /// True when the file was found to be finished.
    fn flush_writer(&self, handle: &Handle, thread: u32) -> Result<bool> {
        let file = &handle.file;
        let (changed, drafting) = {
            let writing = file.writing();
            (
                file.is_changed(&writing)?,
                writing.draft.is_some() && !writing.copied,
            )
        };
        let spot = lock(&self.table).spot(file.ino);
        let Some(spot) = spot.filter(|_| changed || drafting) else {
            return Ok(false);
        };
        let end = spot.end();
        let source = &self.options.source;
        let (opener, trace) = (handle.opener, processes::Trace { end: &end, source });
        let own = processes::same(thread, opener);
        // A shell closes the descriptor that it opened before anything is written through a copy of it. What nobody has
        // written yet is finished only if its opener says so; for the rest the release does.
        let finished = match (own, changed) {
            (true, true) => true,
            (true, false) | (false, true) => !processes::holds(opener, &trace),
            (false, false) => false,
        };
        if !finished || processes::a_child_holds(opener, &trace) {
            return Ok(false);
        }
        self.commit(file, true).inspect_err(|_| {
            let failed = file.writing().has_lost_bytes();
            let table = lock(&self.table);
            let alone = table.get(file.ino).is_some_and(|inode| inode.handles <= 1);
            drop(table);
            if failed && alone {
                self.lose(file);
            }
        })?;
        Ok(true)
    }

    /// Makes the draft the record of its name, or lets type and sidecar follow what was written in place. `finished`
    /// also commits a draft that was never written.
    pub(super) fn commit(&self, file: &Arc<OpenFile>, finished: bool) -> Result<()> {
        let mut writing = file.writing();
        let stat = file.stat()?;
        let changed = file.is_changed(&writing)?;
        let drafting = writing.draft.is_some();
        let due = changed || (finished && drafting && !writing.copied);
        if !due {
            return Ok(());
        }
        if let Some(kind) = writing.lost {
            return Err(missing_bytes(&self.name_of(file.ino), kind));
        }
        let (spot, superseded) = {
            let table = lock(&self.table);
            let inode = table.get(file.ino);
            let named = inode.is_some_and(|inode| inode.linked || inode.superseded);
            let superseded = inode.is_some_and(|inode| inode.superseded);
            (table.spot(file.ino).filter(|_| named), superseded)
        };
        let spot = spot.filter(|_| {
            // A newer draft took the name before anything was written into this one, so there is nothing to keep of it.
            changed || !superseded
        });
        let Some(spot) = spot else {
            // Unlinked while it was open: its bytes go with the last handle.
            writing.stamp = Stamp::from(&stat);
            return Ok(());
        };
        if !drafting {
            let named = self.volume.known(&spot.store, &spot.name);
            if named.is_ok_and(|named| named.file.inode == stat.inode) {
                self.written_in_place(file.ino, &spot)?;
                if let Some(explicit) = &writing.explicit {
                    let set = self
                        .volume
                        .set_content_type(&spot.store, &spot.name, Some(explicit));
                    set.wait()?;
                }
            }
            writing.stamp = Stamp::from(&file.stat()?);
            return Ok(());
        }
        if let Some(kind) = writing.failed {
            return Err(missing_bytes(&spot.name, kind));
        }
        let explicit = writing.explicit.clone();
        let join = writing.join.filter(|join| join.is_due(changed, superseded));
        let Some(draft) = writing.draft.as_mut() else {
            return Ok(());
        };
        let committed = file.while_still(|layer| {
            let committed = self.commit_or_join(draft, &spot, explicit.as_ref(), join)?;
            if let (Some(layer), Ok(committed)) = (layer, &committed) {
                layer.sealed = Some(committed.file);
                file.wrote.store(false, Ordering::Relaxed);
            }
            Ok::<_, Error>(committed)
        })?;
        let committed = match committed {
            Ok(committed) => committed,
            Err(join) => return self.join(file, &mut writing, join, &spot),
        };
        let decided = draft.content_type().cloned();
        writing.join = None;
        let guessed = writing.explicit.is_none();
        writing.draft = None;
        writing.copied = false;
        writing.explicit = None;
        writing.stamp = Stamp::from(&committed.file);
        let claim = writing.claim.take();
        self.counters.committed();
        {
            let mut table = lock(&self.table);
            let made = table.settle_fresh(file.ino);
            if self.volume.has_descriptors() {
                // What is written after this goes into the record itself.
                table.is_in_place(file.ino);
            }
            if let Some(inode) = table.get_mut(file.ino) {
                inode.drafting = false;
                let kept = decided.map_or(Guessed::Unknown, Guessed::Kept);
                inode.guessed = (made && guessed).then_some(kept);
                inode.version = committed.file.inode;
                if made {
                    // How long it is the kernel knows by what it wrote; nothing else changed that it keeps.
                    inode.told = if changed {
                        committed.file.changed_ns
                    } else {
                        0
                    };
                }
            }
        }
        if superseded {
            self.name_changed(file.ino, &spot);
        }
        if !changed {
            // Without a write the kernel still has the times of the draft.
            self.notify(Notice::Attributes(file.ino));
        }
        self.give_back(claim);
        Ok(())
    }

    fn name_of(&self, ino: u64) -> Box<str> {
        let table = lock(&self.table);
        table
            .get(ino)
            .map_or_else(Box::default, |inode| inode.name.clone())
    }

    /// A superseded draft took the name on disk: an inode that has it in the kernel must be looked up again.
    pub(super) fn name_changed(&self, ino: u64, spot: &Spot) {
        let parent = lock(&self.table).get(ino).map(|inode| inode.parent);
        if let Some(parent) = parent {
            self.notify(Notice::Entry {
                parent,
                name: spot.name.clone(),
            });
        }
    }

    fn give_back(&self, claim: Option<(StoreName, Box<str>)>) {
        if let Some((store, name)) = claim {
            self.volume.release_claim(&store, &name);
        }
    }

    /// A handle is gone. What is still a draft is committed.
    pub fn release(&self, number: u64) {
        self.let_go(number, true);
    }

    /// The same. Without `commits` only the last handle commits what is left.
    pub(super) fn let_go(&self, number: u64, commits: bool) {
        let Some(handle) = self.handles.remove(number) else {
            return;
        };
        let file = &handle.file;
        if handle.text.is_some() {
            return;
        }
        let last = lock(&self.table)
            .get(file.ino)
            .is_none_or(|inode| inode.handles <= 1);
        // A file that is made by opening it for reading only, as locks are, is finished by its last reader.
        let drafting = || file.writing().draft.is_some();
        if ((handle.writer && commits) || (last && drafting()))
            && let Err(e) = self.commit(file, true)
        {
            self.counters.failed_commit(&e);
            tracing::error!("a record that was being written is lost: {e}");
            if last {
                self.lose(file);
            }
        }
        if handle.beside
            && let Some(inode) = lock(&self.table).get_mut(file.ino)
        {
            inode.beside = inode.beside.saturating_sub(1);
        }
        if handle.writer {
            let mut writing = file.writing();
            writing.writers = writing.writers.saturating_sub(1);
            if writing.writers == 0 && writing.draft.is_none() {
                // The record has it by now. Who sets another one later, or none, is not to be overruled.
                writing.explicit = None;
            }
        }
        if last {
            // A draft that replaced nothing still has its claim.
            self.abandon(file);
        }
        self.count_down(file, handle.tag.as_ref());
    }

    /// One handle less. With the last one a copy goes that was not committed, since nothing was written into it or that could
    /// not be saved. `tag` is of the only version of which the kernel may have bytes now.
    pub(super) fn count_down(&self, file: &OpenFile, tag: Option<&ETag>) {
        let mut writing = file.writing();
        let mut table = lock(&self.table);
        let mut unwritten = None;
        if let Some(inode) = table.get_mut(file.ino) {
            // Whoever opened it meanwhile may be writing into the copy.
            if inode.handles <= 1 && writing.copied {
                unwritten = writing.draft.take();
                writing.copied = false;
                inode.drafting &= unwritten.is_none();
            }
            // The kernel dropped what it had when it was told of the handle, unless that was kept.
            inode.paged = tag.cloned();
        }
        let dropped = table.released(file.ino);
        drop((table, writing));
        drop((unwritten, dropped));
    }

    /// Gives up a draft that could not be committed: its name leads to what is on disk again.
    pub(super) fn lose(&self, file: &OpenFile) {
        self.abandon(file);
        {
            let mut writing = file.writing();
            writing.lost = writing.failed.filter(|_| writing.draft.is_some());
        }
        let spot = {
            let mut table = lock(&self.table);
            let spot = table.spot(file.ino);
            table.unlink(file.ino);
            spot
        };
        if let Some(spot) = spot {
            self.name_changed(file.ino, &spot);
        }
    }

    /// Forgets a draft that lost its name. Its claim is given back.
    pub(super) fn abandon(&self, file: &OpenFile) {
        let claim = file.writing().claim.take();
        self.give_back(claim);
    }

    /// Forces what was written through a handle to disk. A draft is committed first: what a program has made durable
    /// must be there after a crash.
    pub fn fsync(self: &Arc<Self>, number: u64, data_only: bool) -> Now<()> {
        let handle = match self.handle(number) {
            Ok(handle) => handle,
            Err(e) => return Now::err(e),
        };
        if handle.text.is_some() {
            return Now::ok(());
        }
        let this = self.clone();
        let spot = {
            let table = lock(&self.table);
            let ino = handle.file.ino;
            // What was unlinked has no name to keep; its store may be gone too.
            let named = table
                .get(ino)
                .is_some_and(|inode| inode.linked || inode.superseded);
            table.spot(ino).filter(|_| named)
        };
        let named = spot.clone();
        let synced = Now::blocking(move || {
            let file = &handle.file;
            if handle.writer {
                this.commit(file, true)?;
            }
            let bytes = file.bytes();
            let done = if data_only {
                bytes.sync_data()
            } else {
                bytes.sync_all()
            };
            let subject =
                named.map_or_else(String::new, |spot| format!("{}/{}", spot.store, spot.name));
            done.map_err(|e| Error::io("fsync", subject, e))?;
            Ok(handle.writer)
        });
        let this = self.clone();
        synced.and_then(move |wrote| match spot {
            Some(spot) if wrote => this.volume.sync_record(&spot.store, &spot.name),
            _ => Now::ok(()),
        })
    }

    /// Forces a store, or with the root every store, to disk.
    pub fn fsync_directory(self: &Arc<Self>, ino: u64) -> Now<()> {
        let store = lock(&self.table).store(ino).cloned();
        self.volume.sync(store.as_ref())
    }

    /// Commits what any handle still has as a draft, for an unmount that does not wait for the handles.
    pub fn commit_all(self: &Arc<Self>) {
        for file in self.handles.writers() {
            if let Err(e) = self.commit(&file, true) {
                self.counters.failed_commit(&e);
                tracing::error!("a record that was being written is lost: {e}");
            }
        }
    }
}

fn missing_bytes(name: &str, kind: Kind) -> Error {
    let why = "a write into it failed; what was there before stays";
    Error::because("write", name, kind, why)
}

/// Why a handle cannot be used for something.
pub(super) fn not_open_for(op: &'static str) -> Error {
    Error::because(
        op,
        "",
        Kind::NotPermitted,
        "the handle is not open for this",
    )
}
