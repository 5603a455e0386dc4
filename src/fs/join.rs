//! A new record that somebody else has made as well, by the time that the draft of it is finished. Who did not ask for an empty
//! file finds his bytes behind theirs, as on any disk.

use super::Fs;
use super::handle::{Join, OpenFile, Stamp, Writing, lock};
use super::inode::Spot;
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::volume::{Draft, Stat};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// So many bytes are appended at a time.
const PIECE: u64 = 1 << 20;

impl Fs {
    /// Makes a draft the record of its name. The inner error is how it has to join the one that is there instead.
    pub(super) fn commit_or_join(
        &self,
        draft: &mut Draft,
        spot: &Spot,
        content_type: Option<&ContentType>,
        join: Option<Join>,
    ) -> Result<std::result::Result<Stat, Join>> {
        let (store, name) = (&spot.store, &spot.name);
        let Some(join) = join else {
            let committed = self.volume.commit(draft, store, name, content_type);
            return committed.map(Ok);
        };
        match self.volume.commit_new(draft, store, name, content_type) {
            // Where there is no record, its name is only in the way of something else.
            Err(e) if e.kind() == Kind::Exists && self.volume.known(store, name).is_ok() => {
                Ok(Err(join))
            }
            committed => committed.map(Ok),
        }
    }

    /// Appends what is new in the draft to the record that has the name. The draft stays one, for what is still to come.
    pub(super) fn join(
        &self,
        file: &Arc<OpenFile>,
        writing: &mut Writing,
        mut join: Join,
        spot: &Spot,
    ) -> Result<()> {
        join.begun = true;
        writing.join = Some(join);
        let size = file.stat()?.size;
        if join.done < size {
            let fault = |e: std::io::Error| Error::io("append to", &*spot.name, e);
            let there = self.volume.open(&spot.store, &spot.name, true, false);
            let there = there.wait()?.file;
            fcntl_getfl(&there)
                .and_then(|flags| fcntl_setfl(&there, flags | OFlags::APPEND))
                .map_err(|e| fault(e.into()))?;
            while join.done < size {
                let mut piece = vec![0; usize::try_from(PIECE.min(size - join.done)).unwrap_or(0)];
                let append = file.file.read_exact_at(&mut piece, join.done);
                append
                    .and_then(|()| (&*there).write_all(&piece))
                    .map_err(fault)?;
                join.done += piece.len() as u64;
                writing.join = Some(join);
            }
            self.volume.written_in_place(&spot.store, &spot.name)?;
        }
        writing.stamp = Stamp::from(&file.stat()?);
        self.counters.committed();
        let linked = {
            let mut table = lock(&self.table);
            let linked = table.get(file.ino).is_some_and(|inode| inode.linked);
            if linked {
                table.supersede(file.ino);
            }
            linked
        };
        if linked {
            self.name_changed(file.ino, spot);
        }
        Ok(())
    }
}
