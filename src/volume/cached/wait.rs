//! Waiting for what was saved to be sent: fsync, sync, unmount, and closes that write through.

use super::upload::may_be_accepted;
use super::{Inner, Progress};
use crate::error::{Error, Kind, Result};
use crate::record::RecordId;
use crate::record::key::StoreId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often who waits for everything looks for what was saved since.
pub(super) const KICKS: Duration = Duration::from_millis(100);

/// Waits for uploads to end, and gives up when none works or moves for too long.
struct Watch {
    progress: watch::Receiver<Progress>,
    /// Uploads that worked, and moves of others, when it was last looked at.
    seen: (u64, u64),
    /// How far the edit had come that is waited for, since it failed.
    farthest: (u64, u64),
    patience: Duration,
    until: Instant,
}

/// What makes it worth while to wait longer.
enum Hope {
    /// Any upload that works or moves: it may be the turn of others.
    Any,
    /// What was waited for has failed since. It must come farther than that.
    Own((u64, u64)),
    None,
}

impl Watch {
    /// Returns after the next end of an upload, or when one has moved; false when it was waited for long enough.
    async fn moved(&mut self, hope: impl FnOnce() -> Hope) -> bool {
        let until = tokio::time::Instant::from_std(self.until);
        match tokio::time::timeout_at(until, self.progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
        let now = seen(&self.progress.borrow_and_update());
        let moved = now != std::mem::replace(&mut self.seen, now);
        let hopeful = match hope() {
            Hope::Any => moved,
            Hope::Own(mark) => mark > std::mem::replace(&mut self.farthest, mark),
            Hope::None => false,
        };
        if hopeful {
            self.until = Instant::now() + self.patience;
        }
        true
    }
}

fn seen(progress: &Progress) -> (u64, u64) {
    (progress.accepted, progress.moves)
}

/// How a waiting for one edit stands.
enum Standing {
    Sent,
    /// It became a record of its own.
    Aside(RecordId, u64),
    Waits,
    Failed(Error),
}

impl Inner {
    /// What says that something still waits.
    pub(super) fn not_sent(&self, op: &'static str) -> Error {
        let index = self.index();
        let pending = index.pending(None);
        let failure = pending.iter().find_map(|(id, _)| {
            let failure = index.record(id)?.failure.as_ref()?;
            Some(format!(" ({})", failure.text))
        });
        let why = format!(
            "{} not sent yet{}; they stay saved and are tried again",
            pending.len(),
            failure.unwrap_or_default()
        );
        Error::because(op, "", Kind::TimedOut, why)
    }

    /// Waits until everything of a store, or everything, is sent. Ends when nothing moves for too long.
    pub(super) async fn wait_all(self: &Arc<Self>, store: Option<&StoreId>) -> Result<()> {
        let mut watch = self.watch();
        let before = {
            let index = self.index();
            let newest = index.waiting(store).map(|(_, edit)| edit.seq).max();
            newest.unwrap_or_default()
        };
        let started = self.next_attempt();
        self.kick(store, false);
        let mut kicked = Instant::now();
        while self.index().is_pending(store) {
            // Not for longer than that at a time: what was saved meanwhile may be due much later.
            let hope = || self.hope_for_all(store, before, started);
            if tokio::time::timeout(KICKS, watch.moved(hope)).await == Ok(false) {
                return Err(self.not_sent("sync"));
            }
            // What was saved meanwhile need not wait either.
            if kicked.elapsed() > KICKS {
                kicked = Instant::now();
                self.kick(store, true);
            }
        }
        Ok(())
    }

    /// When all that is left of what waited before has failed since, what works is other records.
    fn hope_for_all(&self, store: Option<&StoreId>, before: u64, started: u64) -> Hope {
        let index = self.index();
        let mut left = index
            .waiting(store)
            .filter(|(_, edit)| edit.seq <= before)
            .peekable();
        let has_failed = |id: &RecordId| {
            let failure = index.record(id).and_then(|record| record.failure.as_ref());
            failure.is_some_and(|failure| failure.attempt > started)
        };
        match left.peek().is_none() || left.any(|(id, _)| !has_failed(id)) {
            true => Hope::Any,
            false => Hope::None,
        }
    }

    /// The same, and what earlier runs left with it.
    pub(super) async fn wait_for(self: &Arc<Self>, store: Option<&StoreId>) -> Result<()> {
        self.wait_all(store).await?;
        match store {
            None => self.wait_rests().await,
            Some(_) => Ok(()),
        }
    }

    fn watch(&self) -> Watch {
        let mut progress = self.progress.subscribe();
        let seen = seen(&progress.borrow_and_update());
        Watch {
            progress,
            seen,
            farthest: (0, 0),
            patience: self.options.patience,
            until: Instant::now() + self.options.patience,
        }
    }

    /// Waits until an edit of a record is sent. A failure that will not pass by itself is the answer at once.
    pub(super) async fn wait_record(self: &Arc<Self>, id: &RecordId, seq: u64) -> Result<()> {
        let (mut id, mut seq) = (id.clone(), seq);
        let mut watch = self.watch();
        let (mut asides, mut failed) = (0, false);
        let started = self.next_attempt();
        self.kick_record(&id);
        loop {
            match self.standing(&id, seq, started) {
                Standing::Sent if asides > 0 && self.options.write_through => {
                    let why = "somebody else changed the record; ours is kept beside it";
                    return Err(Error::because("write", id.to_string(), Kind::Changed, why));
                }
                Standing::Sent => return Ok(()),
                Standing::Failed(error) => return Err(error),
                Standing::Aside(other, edit) if asides < 4 => {
                    (id, seq) = (other, edit);
                    asides += 1;
                    self.kick_record(&id);
                    continue;
                }
                Standing::Aside(..) | Standing::Waits => {}
            }
            let hope = || {
                let index = self.index();
                let failure = index.record(&id).and_then(|record| record.failure.as_ref());
                failed |= failure.is_some_and(|failure| failure.attempt > started);
                drop(index);
                match failed {
                    true => Hope::Own(self.farthest(&id)),
                    false => Hope::Any,
                }
            };
            if !watch.moved(hope).await {
                let index = self.index();
                let failure = index.record(&id).and_then(|record| record.failure.clone());
                let why = failure.map_or_else(
                    || "no answer yet; it stays saved and is sent later".to_owned(),
                    |failure| format!("{}; it stays saved and is tried again", failure.text),
                );
                return Err(Error::because("fsync", id.to_string(), Kind::TimedOut, why));
            }
        }
    }

    fn standing(&self, id: &RecordId, seq: u64, since: u64) -> Standing {
        let index = self.index();
        let Some(record) = index.record(id) else {
            return Standing::Sent;
        };
        if let Some((edit, key)) = record.aside.as_deref()
            && *edit >= seq
        {
            let store = id.store.clone();
            let other = RecordId {
                store,
                key: key.clone(),
            };
            // Its edits have newer numbers.
            return Standing::Aside(other, seq);
        }
        if record.is_clean() && !record.notes.is_empty() {
            return Standing::Waits;
        }
        if record.done >= seq || record.is_clean() {
            return Standing::Sent;
        }
        // It may have failed before anybody waited for it.
        let through = self.options.write_through;
        match &record.failure {
            Some(failure)
                if (failure.attempt > since || through && failure.seq >= seq)
                    && self.is_answer(failure.kind) =>
            {
                let then = match may_be_accepted(failure.kind) {
                    true => "it stays saved and is sent later",
                    false => "it stays saved, remove the file to give it up",
                };
                let why = format!("{}; {then}", failure.text);
                Standing::Failed(Error::because("write", id.to_string(), failure.kind, why))
            }
            _ => Standing::Waits,
        }
    }

    /// Whether who waits for an upload is told of this failure at once: it will not pass by itself, or somebody waits for the
    /// backend itself, which cannot be reached.
    fn is_answer(&self, kind: Kind) -> bool {
        !may_be_accepted(kind) || (self.options.write_through && kind == Kind::Offline)
    }
}
