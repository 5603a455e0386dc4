//! What runs that are over left unsent: volumes of their own, which are sent beside another one and removed when they are
//! empty. It never takes what a run that lives still uses.

use super::spool::take_folder;
use super::{Cached, Inner, Options, wait};
use crate::error::Kind;
use crate::record::{Meta, RecordId};
use crate::volume::Volume;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How often it is looked at whether everything was tried.
const LOOKS: Duration = Duration::from_millis(50);

/// A folder that was left alone for so long.
const OLD: Duration = Duration::from_secs(3600);

/// What one run left.
#[derive(Debug)]
pub(super) struct Rest {
    /// Until everything is sent.
    volume: Option<Cached>,
    spool: PathBuf,
    cache: PathBuf,
}

/// Removes the spool and the cache of a volume that is gone, unless something in the spool was not sent.
pub fn remove_spent(spool: &Path, cache: &Path) {
    let _ = fs::remove_dir_all(cache);
    if holds_edits(spool) {
        return;
    }
    for name in [super::spool::BYTES, super::scratch::NAME] {
        let _ = fs::remove_dir_all(spool.join(name));
    }
    for name in [super::notes::NAME, "lock"] {
        let _ = fs::remove_file(spool.join(name));
    }
    let _ = fs::remove_dir(spool);
}

/// Whether there is anything in a spool beside what makes it one.
fn holds_edits(spool: &Path) -> bool {
    let mut entries = fs::read_dir(spool).into_iter().flatten().flatten();
    entries.any(|entry| {
        let name = entry.file_name();
        let empty = || entry.metadata().is_ok_and(|found| found.len() == 0);
        let none = name == super::notes::NAME && empty();
        // Nobody but the run could see its scratch files.
        name != "lock" && name != super::spool::BYTES && name != super::scratch::NAME && !none
    })
}

/// Whether nothing has changed in a folder for so long that no run can just have begun with it.
fn is_old(folder: &Path) -> bool {
    let changed = fs::metadata(folder).and_then(|found| found.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > OLD))
}

/// Removes the caches of runs whose spools are gone, as after a machine that lost its power.
fn remove_orphans(unsent: &Path, caches: &Path) {
    for entry in fs::read_dir(caches).into_iter().flatten().flatten() {
        if !unsent.join(entry.file_name()).exists() && is_old(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Cached {
    /// Sends what runs have left in the folders in `unsent`, too. The cache of each has the same name in `caches`.
    pub fn send_rests(&self, unsent: &Path, caches: &Path) {
        let options = Options {
            default_store: None,
            write_through: false,
            ..self.inner.options.clone()
        };
        remove_orphans(unsent, caches);
        for entry in fs::read_dir(unsent).into_iter().flatten().flatten() {
            let (spool, cache) = (entry.path(), caches.join(entry.file_name()));
            if !holds_edits(&spool) {
                // It may be that of a run which has just begun, and which must find its folder free.
                if is_old(&spool)
                    && let Ok(_lock) = take_folder(&spool)
                {
                    remove_spent(&spool, &cache);
                }
                continue;
            }
            let (backend, runtime) = (self.inner.backend.clone(), self.inner.runtime.clone());
            match Self::open(backend, &cache, &spool, options.clone(), runtime) {
                Ok(volume) if volume.unsent() == 0 => {
                    drop(volume);
                    remove_spent(&spool, &cache);
                }
                Ok(volume) => {
                    tracing::info!("an earlier run left unsent records: {}", spool.display());
                    let (left, above) = (volume.inner.clone(), Arc::downgrade(&self.inner));
                    self.inner.rests().push(Rest {
                        volume: Some(volume),
                        spool: spool.clone(),
                        cache,
                    });
                    let task = self.inner.runtime.spawn(send(left, above, spool));
                    self.inner.keep_task(task);
                }
                // That run lives, or another mount sends it.
                Err(why) if why.kind() == Kind::Busy => {}
                Err(why) => tracing::warn!("what an earlier run left is not sent: {why}"),
            }
        }
    }

    /// Tells that this program has stored a record there by itself.
    pub async fn changed_beside(&self, id: &RecordId, to: &Meta) {
        self.inner.changed_beside(id, to).await;
    }

    /// Tells that this program has removed a record there by itself.
    pub fn removed_beside(&self, id: &RecordId) {
        self.inner.removed_beside(id);
    }

    /// How many edits of its own wait to be sent.
    pub fn unsent(&self) -> usize {
        self.inner.index().pending(None).len()
    }

    /// Whether the newest edit of this record waits to be sent.
    pub fn waits(&self, id: &RecordId) -> bool {
        let index = self.inner.index();
        let record = index.record(id);
        record.is_some_and(|record| record.state.newest().is_some())
    }

    /// How many edits of earlier runs wait to be sent.
    pub fn unsent_of_others(&self) -> usize {
        self.inner.unsent_of_others()
    }

    /// What says that something still waits, and why.
    pub fn not_sent(&self) -> crate::error::Error {
        self.inner.not_sent("send what was written")
    }

    /// Sends what waits. Ends with `Kind::TimedOut` when nothing has worked for so long; the rest stays saved.
    pub async fn send_all(&self, limit: Duration) -> crate::error::Result<()> {
        let inner = &self.inner;
        let limit = limit.max(wait::KICKS);
        loop {
            let before = inner.progress.borrow().accepted;
            if let Ok(Ok(())) = tokio::time::timeout(limit, inner.wait_all(None)).await {
                return Ok(());
            }
            // A long record may take its time, as long as nothing fails.
            let works = inner.progress.borrow().accepted != before;
            if !works && (inner.is_offline() || inner.all_tried()) {
                return Err(self.not_sent());
            }
        }
    }

    /// Waits until what earlier runs left was sent and is gone, or was at least tried, but no longer than this.
    pub async fn try_rests(&self, limit: Duration) {
        let failed = |volume: &Self| {
            let inner = &volume.inner;
            volume.unsent() > 0 && (inner.is_offline() || inner.all_tried())
        };
        let tried = async {
            while !self
                .inner
                .rests()
                .iter()
                .all(|rest| rest.volume.as_ref().is_some_and(failed))
            {
                tokio::time::sleep(LOOKS).await;
            }
        };
        let _ = tokio::time::timeout(limit, tried).await;
    }
}

impl Inner {
    pub(super) fn rests(&self) -> MutexGuard<'_, Vec<Rest>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unsent_of_others(&self) -> usize {
        let rests = self.rests();
        let volumes = rests.iter().filter_map(|rest| rest.volume.as_ref());
        volumes.map(Cached::unsent).sum()
    }

    /// The folders of runs that left something unsent.
    pub(super) fn rest_folders(&self) -> Vec<PathBuf> {
        let rests = self.rests();
        rests.iter().map(|rest| rest.spool.clone()).collect()
    }

    /// The lines of the queues of earlier runs.
    pub(super) fn rest_queues(&self) -> String {
        let rests = self.rests();
        let volumes = rests.iter().filter_map(|rest| rest.volume.as_ref());
        volumes.map(Volume::queue).collect()
    }

    /// Waits for what earlier runs left.
    pub(super) async fn wait_rests(&self) -> crate::error::Result<()> {
        let inners: Vec<_> = {
            let rests = self.rests();
            let volumes = rests.iter().filter_map(|rest| rest.volume.as_ref());
            volumes.map(|volume| volume.inner.clone()).collect()
        };
        for inner in inners {
            inner.wait_all(None).await?;
        }
        Ok(())
    }

    /// Whether everything that waits has failed before.
    fn all_tried(&self) -> bool {
        let index = self.index();
        let pending = index.pending(None);
        pending.iter().all(|(id, _)| {
            let record = index.record(id);
            let waits_for = |seq| index.is_unsettled(seq);
            record.is_some_and(|record| {
                // What is sent after another edit is not tried as long as that one fails.
                let after = record.newest_note().and_then(|note| note.after);
                record.failure.is_some() || after.is_some_and(waits_for)
            })
        })
    }
}

/// Sends what a run left until that is done, and removes its folders.
async fn send(left: Arc<Inner>, above: Weak<Inner>, spool: PathBuf) {
    while let Err(why) = left.wait_all(None).await {
        tracing::warn!("what an earlier run left: {why}");
        tokio::time::sleep(wait::KICKS).await;
    }
    let Some(above) = above.upgrade() else { return };
    let volume = {
        let mut rests = above.rests();
        let rest = rests.iter_mut().find(|rest| rest.spool == spool);
        rest.and_then(|rest| Some((rest.volume.take()?, rest.cache.clone())))
    };
    drop(left);
    if let Some((volume, cache)) = volume {
        tracing::info!("what an earlier run left is sent: {}", spool.display());
        let folder = spool.clone();
        let removed = tokio::task::spawn_blocking(move || {
            drop(volume);
            remove_spent(&folder, &cache);
        });
        if let Err(why) = removed.await {
            tracing::warn!("{} stays: {why}", spool.display());
        }
        above.rests().retain(|rest| rest.spool != spool);
    }
}
