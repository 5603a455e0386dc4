//! The one task that owns the schedule: what is due is sent, in order for each record and side by side for different ones.

use super::Inner;
use super::record::Failure;
use super::state::Event;
use crate::backend::pace::in_background;
use crate::error::{Error, Kind};
use crate::record::RecordId;
use crate::record::key::StoreId;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The longest pause after failures is this many times the first.
const LONGEST: u32 = 25;
/// How long to wait for an edit that must be sent before.
const BEHIND: Duration = Duration::from_millis(50);

/// Whether the backend may take an edit later that it does not take now for this reason, without anybody doing something.
pub(super) fn may_be_accepted(kind: Kind) -> bool {
    super::remote::may_pass(kind) || matches!(kind, Kind::Changed | Kind::Busy)
}

/// Sends what is due until the volume is dropped, and what is being sent with it.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut sending = JoinSet::new();
    loop {
        inner.plan_until(None);
        while let Ok(permit) = inner.connections.clone().try_acquire_owned() {
            let Some(id) = inner.take_due() else { break };
            let inner = inner.clone();
            sending.spawn(async move {
                inner.send(&id).await;
                drop(permit);
            });
        }
        let free = inner.connections.available_permits() > 0;
        let next = inner.next_due().filter(|_| free);
        let far = Instant::now() + Duration::from_secs(3600);
        inner.plan_until(next);
        let due = tokio::time::Instant::from_std(next.unwrap_or(far));
        tokio::select! {
            () = inner.schedule.notified() => {}
            Some(_) = sending.join_next(), if !sending.is_empty() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

impl Inner {
    fn take_due(&self) -> Option<RecordId> {
        let now = Instant::now();
        let paused = self.paused_until();
        let mut index = self.index();
        // While the backend cannot be reached, one upload finds out for all.
        if paused.is_some_and(|until| until > now || !index.in_flight.is_empty()) {
            return None;
        }
        loop {
            let (due, id) = index.queue.first().cloned()?;
            if due > now {
                return None;
            }
            index.queue.pop_first();
            index.is_sent_now(&id);
            let after = index
                .record(&id)
                .and_then(|record| record.newest_note()?.after);
            if after.is_some_and(|seq| index.is_unsettled(seq)) {
                index.enqueue(&id, now + BEHIND);
                continue;
            }
            // Its end puts it back into the queue when there is more.
            if index.in_flight.insert(id.clone()) {
                return Some(id);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let paused = self.paused_until();
        let index = self.index();
        let (due, _) = index.queue.first()?;
        if paused.is_some() && !index.in_flight.is_empty() {
            return None;
        }
        Some((*due).max(paused.unwrap_or(*due)))
    }

    /// The task sleeps until then; without a time it may be about to sleep for longer than it should.
    fn plan_until(&self, time: Option<Instant>) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Something is due earlier than was planned.
    pub(super) fn reschedule(&self) {
        self.schedule.notify_one();
    }

    /// What is in the queue since just now is due then. The task is woken only where it would sleep for longer.
    pub(super) fn reschedule_for(&self, due: Instant) {
        let planned = *self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        if planned.is_none_or(|planned| due < planned) {
            self.reschedule();
        }
    }

    /// Everything of a store, or everything, is tried at once; with `fresh` only what was never tried.
    pub(super) fn kick(&self, store: Option<&StoreId>, fresh: bool) {
        if !fresh {
            self.end_pause();
        }
        let now = Instant::now();
        {
            let mut index = self.index();
            let ids: Vec<_> = index
                .queue
                .iter()
                .filter(|(due, id)| *due > now && store.is_none_or(|store| *store == id.store))
                .map(|(_, id)| id.clone())
                .collect();
            for id in ids {
                let tried = index.record(&id).is_some_and(|record| record.tries > 0);
                if !(fresh && tried) {
                    index.enqueue(&id, now);
                }
            }
        }
        self.reschedule();
    }

    /// A record is tried at once.
    pub(super) fn kick_record(&self, id: &RecordId) {
        self.end_pause();
        {
            let mut index = self.index();
            let queued = index
                .record(id)
                .is_some_and(|record| index.queue.contains(&(record.due(), id.clone())));
            if queued {
                index.enqueue(id, Instant::now());
            } else if let Some(record) = index.record_mut(id) {
                // It is being sent; what was saved since follows at once.
                record.due = Some(Instant::now());
            }
        }
        self.reschedule();
    }

    /// The backend answers again: what failed is tried at once.
    pub(super) fn all_due(&self) {
        self.kick(None, false);
    }

    /// Sends the newest edit of a record, and does what follows.
    async fn send(self: &Arc<Self>, id: &RecordId) {
        let attempt = self.next_attempt();
        let Some(parcel) = self.begin(id) else {
            return self.land(id);
        };
        let delivery = self.deliver(id, &parcel);
        // Where a close waits for it, it is in the foreground.
        let answer = match self.options.write_through {
            true => delivery.await,
            false => in_background(delivery).await,
        };
        let settled = answer.and_then(|answer| self.settle(id, &parcel, answer));
        let worked = settled.is_ok();
        if worked {
            self.forget_farthest(id);
        }
        if let Err(error) = settled {
            self.failed(id, &error, attempt, parcel.edit.seq);
        }
        self.land(id);
        self.progress.send_modify(|progress| {
            progress.ended += 1;
            progress.accepted += u64::from(worked);
        });
        self.reschedule();
    }

    fn failed(&self, id: &RecordId, error: &Error, attempt: u64, seq: u64) {
        let kind = error.kind();
        let maybe = super::remote::may_pass(kind);
        let dropped = self.apply(id, Event::Failed { maybe });
        let pause = {
            let mut index = self.index();
            let Some(record) = index.record_mut(id) else {
                return;
            };
            record.tries = record.tries.saturating_add(1);
            let doubled = 2u32.saturating_pow(record.tries.min(16) - 1).min(LONGEST);
            let pause = if kind == Kind::Offline || !may_be_accepted(kind) {
                self.options.offline_pause
            } else {
                self.options.backoff * doubled
            };
            record.failure = Some(Box::new(Failure {
                attempt,
                seq,
                kind,
                text: error.to_string(),
            }));
            record.due = Some(Instant::now() + pause);
            if kind == Kind::Denied
                && let Some(store) = index.stores.get_mut(&id.store)
            {
                store.denied = true;
            }
            pause
        };
        self.forget(dropped);
        tracing::warn!("{id} was not sent: {error}; it is saved and tried again in {pause:?}");
    }
}
