//! The feed of a store's changes: the last few thousand are kept, and whoever missed more is told to look again. It never
//! holds back a writer for a slow listener.

use super::random;
use crate::error::{Error, Kind, Result};
use crate::record::{ETag, Key};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// So many changes of a store are kept for those who come back.
const KEPT: usize = 4096;
/// So many changes wait for one listener beside those that are kept.
const AHEAD: usize = 64;

/// The changes of one store, as they happen. It ends when the store does.
pub type Feed = mpsc::Receiver<ChangeEvent>;

/// A place in a feed. Printed and parsed as `<epoch>-<number>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FeedPosition {
    /// Which run of the feed: numbers of another one mean nothing.
    pub epoch: u64,
    /// Rises with every change.
    pub number: u64,
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.number)
    }
}

impl FromStr for FeedPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (epoch, number) = text.split_once('-')?;
            Some(Self {
                epoch: u64::from_str_radix(epoch, 16).ok()?,
                number: number.parse().ok()?,
            })
        };
        parse().ok_or_else(|| {
            Error::because(
                "use the feed position",
                format!("{text:?}"),
                Kind::Invalid,
                "it is one that the feed gave, as <epoch>-<number>",
            )
        })
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeKind {
    /// A record came or got other bytes or another type.
    Put,
    /// A record went.
    Delete,
    /// What was missed cannot be told: list again.
    Reset,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeEvent {
    /// Where in the feed it is; a feed after this position goes on with the next one.
    pub position: FeedPosition,
    /// Which record; none of a reset.
    pub key: Option<Key>,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The version that a put left, when it is known.
    pub etag: Option<ETag>,
}

/// The last changes of one store. Dropped, it ends the feeds.
#[derive(Debug)]
pub(super) struct Ring {
    kept: Arc<Mutex<Kept>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    epoch: u64,
    /// The number of the last change.
    last: u64,
    events: VecDeque<ChangeEvent>,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            kept: Arc::new(Mutex::new(Kept {
                epoch: random::number()?,
                last: 0,
                events: VecDeque::new(),
            })),
            newest: watch::Sender::new(0),
        })
    }

    /// Tells a change.
    pub(super) fn tell(&self, key: Option<Key>, kind: ChangeKind, etag: Option<ETag>) {
        let mut kept = lock(&self.kept);
        kept.last += 1;
        if kind == ChangeKind::Reset {
            kept.events.clear();
        }
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        let position = kept.position();
        kept.events.push_back(ChangeEvent {
            position,
            key,
            kind,
            etag,
        });
        let last = kept.last;
        drop(kept);
        // Two tellers may come here in the other order; what counts is that there is something new.
        self.newest
            .send_modify(|newest| *newest = last.max(*newest));
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// The changes after a position, or from now on. Called within the runtime that is to carry them.
    pub(super) fn listen(&self, after: Option<FeedPosition>) -> Feed {
        let (send, feed) = mpsc::channel(AHEAD);
        let newest = self.newest.subscribe();
        let kept = self.kept.clone();
        let after = after.unwrap_or_else(|| lock(&kept).position());
        tokio::spawn(carry(kept, newest, after, send));
        feed
    }
}

impl Kept {
    fn position(&self) -> FeedPosition {
        FeedPosition {
            epoch: self.epoch,
            number: self.last,
        }
    }

    /// What comes after a position: one piece of it, or a reset.
    fn after(&self, position: FeedPosition) -> Vec<ChangeEvent> {
        let first = self.last - self.events.len() as u64;
        let known = position.epoch == self.epoch && (first..=self.last).contains(&position.number);
        if !known {
            return vec![ChangeEvent {
                position: self.position(),
                key: None,
                kind: ChangeKind::Reset,
                etag: None,
            }];
        }
        let seen = usize::try_from(position.number - first).unwrap_or(usize::MAX);
        self.events.iter().skip(seen).take(AHEAD).cloned().collect()
    }
}

/// Carries changes to one listener, until it is gone or the ring is.
async fn carry(
    kept: Arc<Mutex<Kept>>,
    mut newest: watch::Receiver<u64>,
    mut position: FeedPosition,
    send: mpsc::Sender<ChangeEvent>,
) {
    loop {
        let events = lock(&kept).after(position);
        if events.is_empty() {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() && lock(&kept).after(position).is_empty() { return },
                () = send.closed() => return,
            }
        }
        for event in events {
            position = event.position;
            if send.send(event).await.is_err() {
                return;
            }
        }
    }
}
