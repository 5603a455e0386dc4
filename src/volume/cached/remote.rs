//! Asking the backend: how long, and what its answers and failures mean. It changes nothing there.

use super::{Inner, Offline};
use crate::backend::trouble::is_silent;
use crate::error::{Error, Kind, Result};
use std::future::Future;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

/// While the backend cannot be reached, one look-up is let through to see whether it can again in this part of the pause
/// between uploads.
const PROBES: u32 = 6;

/// Whether the same request may work a moment later.
pub(super) fn may_pass(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Io | Kind::TimedOut | Kind::Corrupt | Kind::Exhausted | Kind::Offline
    )
}

impl Inner {
    /// An answer within this time. Whether the backend can be reached is noted.
    pub(super) async fn within<T>(
        &self,
        time: Duration,
        op: &'static str,
        subject: &str,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(time, asked).await {
            Ok(answer) => self.answered(answer),
            Err(_) => Err(self.unanswered(time, op, subject)),
        }
    }

    /// Notes of an answer whether the backend can be reached.
    pub(super) fn answered<T>(&self, answer: Result<T>) -> Result<T> {
        let failure = answer.as_ref().err();
        self.note_answer(match failure.is_some_and(is_silent) {
            true => Some(Kind::Offline),
            false => failure.map(Error::kind),
        });
        answer
    }

    /// The same of an answer that did not come.
    pub(super) fn unanswered(&self, time: Duration, op: &'static str, subject: &str) -> Error {
        let why = format!("no answer within {} seconds", time.as_secs());
        self.note_answer(Some(Kind::Offline));
        Error::because(op, subject, Kind::TimedOut, why)
    }

    /// The answer to a look-up: soon or not at all.
    pub(super) async fn look<T>(
        &self,
        op: &'static str,
        subject: &str,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.must_answer(op, subject)?;
        let answer = self.within(self.look_patience(), op, subject, asked).await;
        answer.map_err(|e| {
            if e.kind() == Kind::TimedOut && self.is_offline() {
                e.with_kind(Kind::Offline)
            } else {
                e
            }
        })
    }

    /// Somebody waited for the backend in vain for so long, and asks it for something else next.
    pub(super) fn note_silence(&self, waited: Duration) {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        *silence = Some((Instant::now(), waited));
    }

    /// How long a look-up may take. What was waited for before it counts, so that all of a call ends in time.
    fn look_patience(&self) -> Duration {
        let all = self.options.look_patience;
        let silence = *self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        match silence {
            Some((at, waited)) if at.elapsed() < all => all.saturating_sub(waited).max(all / 2),
            _ => all,
        }
    }

    /// Refuses what would only wait for a backend that cannot be reached.
    pub(super) fn must_answer(&self, op: &'static str, subject: &str) -> Result<()> {
        if !self.is_silent() {
            return Ok(());
        }
        let why = "the backend cannot be reached; what is here can be read, and what is written is sent later";
        Err(Error::because(op, subject, Kind::Offline, why))
    }

    fn offline(&self) -> std::sync::MutexGuard<'_, Option<Offline>> {
        self.offline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the backend cannot be reached.
    pub(super) fn offline_since(&self) -> Option<SystemTime> {
        self.offline().map(|offline| offline.since)
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline().is_some()
    }

    /// Until when no upload is tried.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.offline().map(|offline| offline.paused)
    }

    /// The next upload is tried at once.
    pub(super) fn end_pause(&self) {
        if let Some(offline) = self.offline().as_mut() {
            offline.paused = Instant::now();
        }
    }

    /// Whether it cannot be reached and that was tried a moment ago. If not, the caller is who tries.
    fn is_silent(&self) -> bool {
        let mut offline = self.offline();
        match offline.as_mut() {
            None => false,
            Some(offline) if offline.tried.elapsed() < self.options.offline_pause / PROBES => true,
            Some(offline) => {
                offline.tried = Instant::now();
                false
            }
        }
    }

    /// Whether the backend answered; a failure that it sent is an answer.
    pub(super) fn note_answer(&self, failure: Option<Kind>) {
        let mut offline = self.offline();
        if failure == Some(Kind::Offline) {
            let now = Offline {
                since: SystemTime::now(),
                tried: Instant::now(),
                paused: Instant::now() + self.options.offline_pause,
            };
            if offline.is_none() {
                tracing::warn!(
                    "the backend cannot be reached; writes are kept and sent when it can"
                );
            }
            let known = offline.get_or_insert(now);
            known.tried = now.tried;
            known.paused = now.paused;
        } else if offline.take().is_some() {
            drop(offline);
            tracing::info!("the backend can be reached again");
            self.all_due();
        }
    }
}
