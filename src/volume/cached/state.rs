//! The state of a record between here and its backend, as a pure function. It knows neither disk nor network nor time.

use crate::record::{ETag, Precondition};

/// So many edits without an answer are remembered for one record. Past that the oldest is given up: then a refusal it caused
/// makes a conflict copy, which loses nothing.
const MOST_TRIED: usize = 8;

/// What the backend has under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remote {
    /// Not known, or known without a tag.
    Unknown,
    /// No record.
    Absent,
    /// This version.
    At(ETag),
}

impl Remote {
    /// What must hold for a write that is made on this.
    pub fn precondition(&self) -> Precondition {
        match self {
            Self::Unknown => Precondition::None,
            Self::Absent => Precondition::Absent,
            Self::At(tag) => Precondition::Match(tag.clone()),
        }
    }
}

/// What an edit does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The record gets these bytes.
    Put,
    /// The record goes.
    Delete,
}

/// One saved edit. A deletion is one like any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edit {
    /// Its number in the spool.
    pub seq: u64,
    /// What it does.
    pub change: Change,
}

/// Where a record stands. Of a million records nearly all are clean, so what the others have is in boxes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Here and there agree. Only these bytes may be evicted.
    Clean {
        /// What is there.
        remote: Remote,
    },
    /// Saved here and not accepted there yet.
    Dirty(Box<Dirty>),
    /// On its way.
    Uploading(Box<Uploading>),
}

/// An edit that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dirty {
    /// The version that the edit was made on.
    pub base: Remote,
    /// The newest edit.
    pub edit: Edit,
    /// Edits that were sent, so that one of them may be what is there. The newest may be among them.
    pub tried: Vec<Edit>,
}

/// An edit on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uploading {
    /// The version that the edit was made on.
    pub base: Remote,
    /// The edit that is being sent.
    pub sent: Edit,
    /// One that was saved since.
    pub newer: Option<Edit>,
    /// As in `Dirty`.
    pub tried: Vec<Edit>,
}

/// What happens to a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An edit was saved, made on this version if nothing else was saved before it.
    Saved(Edit, Remote),
    /// Its edit is being sent.
    Started,
    /// The backend took it and has this now.
    Accepted(Remote),
    /// The backend has this by somebody else, so it did not take the edit.
    Refused(Remote),
    /// The backend did not take it because it has this, which is an earlier edit of ours.
    Ours(Remote),
    /// It was not taken; or nobody knows, when `maybe`.
    Failed {
        /// It may have been taken although no answer came.
        maybe: bool,
    },
    /// The backend was seen to have this.
    Seen(Remote),
}

/// What follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where the record stands now.
    pub state: State,
    /// Edits that are not needed any more.
    pub forget: Vec<Edit>,
    /// There is something to send.
    pub enqueue: bool,
    /// An edit that becomes a record of its own, under its conflict name.
    pub rename_aside: Option<Edit>,
    /// What is shown under the name is another version now.
    pub invalidate: bool,
}

/// An event that cannot happen in this state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Illegal {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl Step {
    fn to(state: State) -> Self {
        Self {
            state,
            forget: Vec::new(),
            enqueue: false,
            rename_aside: None,
            invalidate: false,
        }
    }

    fn dirty(base: Remote, edit: Edit, tried: Vec<Edit>) -> Self {
        Self {
            enqueue: true,
            ..Self::to(State::Dirty(Box::new(Dirty { base, edit, tried })))
        }
    }

    fn forgetting(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        for edit in edits {
            if !self.forget.contains(&edit) {
                self.forget.push(edit);
            }
        }
        self
    }
}

impl State {
    /// The newest edit that is not accepted yet.
    pub fn newest(&self) -> Option<Edit> {
        match self {
            Self::Clean { .. } => None,
            Self::Dirty(dirty) => Some(dirty.edit),
            Self::Uploading(sending) => Some(sending.newer.unwrap_or(sending.sent)),
        }
    }

    /// Every edit that the spool has to keep.
    pub fn edits(&self) -> Vec<Edit> {
        let (first, second, tried) = match self {
            Self::Clean { .. } => return Vec::new(),
            Self::Dirty(dirty) => (dirty.edit, None, &dirty.tried),
            Self::Uploading(sending) => (sending.sent, sending.newer, &sending.tried),
        };
        let mut all = vec![first];
        all.extend(second);
        all.extend(tried.iter().filter(|edit| **edit != first));
        all
    }

    /// Edits that may be what the backend has, when it refuses the one that is being sent.
    pub fn tried(&self) -> Vec<Edit> {
        match self {
            Self::Uploading(sending) => {
                let sent = sending.sent;
                let others = sending.tried.iter().filter(|edit| **edit != sent);
                others.copied().chain([sent]).collect()
            }
            Self::Clean { .. } | Self::Dirty(_) => Vec::new(),
        }
    }

    /// What follows an event.
    pub fn next(self, event: Event) -> Result<Step, Box<Illegal>> {
        Ok(match (self, event) {
            (Self::Clean { remote }, Event::Seen(now)) => Step {
                invalidate: remote != now,
                ..Step::to(Self::Clean { remote: now })
            },
            // What is saved here stays what is shown; only a refusal tells of a conflict.
            (state, Event::Seen(_)) => Step::to(state),
            (Self::Clean { .. }, Event::Saved(edit, base)) => Step::dirty(base, edit, Vec::new()),
            (Self::Dirty(dirty), Event::Saved(newer, _)) => {
                let Dirty { base, edit, tried } = *dirty;
                let forget = (!tried.contains(&edit)).then_some(edit);
                Step::dirty(base, newer, tried).forgetting(forget)
            }
            (Self::Uploading(mut sending), Event::Saved(edit, _)) => {
                let replaced = sending.newer.replace(edit);
                Step::to(Self::Uploading(sending)).forgetting(replaced)
            }
            (Self::Dirty(dirty), Event::Started) => {
                let Dirty { base, edit, tried } = *dirty;
                Step::to(Self::Uploading(Box::new(Uploading {
                    base,
                    sent: edit,
                    newer: None,
                    tried,
                })))
            }
            (
                Self::Uploading(sending),
                event @ (Event::Accepted(_)
                | Event::Refused(_)
                | Event::Ours(_)
                | Event::Failed { .. }),
            ) => answered(*sending, event),
            (state, event) => return Err(Box::new(Illegal { state, event })),
        })
    }
}

/// What follows the end of a sending.
fn answered(sending: Uploading, event: Event) -> Step {
    let Uploading {
        base,
        sent,
        newer,
        mut tried,
    } = sending;
    let newest = newer.unwrap_or(sent);
    match event {
        Event::Accepted(remote) => match newer {
            // The newer one may have been saved before anybody knew this base: what it was made on is told apart by the
            // bytes, so they stay until it is accepted itself.
            Some(newer) => Step::dirty(remote, newer, vec![sent])
                .forgetting(tried.into_iter().filter(|edit| *edit != sent)),
            None => Step::to(State::Clean { remote })
                .forgetting([sent])
                .forgetting(tried),
        },
        Event::Ours(remote) => {
            let old = tried.into_iter().chain([sent]);
            let old: Vec<_> = old.filter(|edit| *edit != newest).collect();
            Step::dirty(remote, newest, Vec::new()).forgetting(old)
        }
        Event::Refused(theirs) => {
            let old = tried.into_iter().chain([sent]);
            let old: Vec<_> = old.filter(|edit| *edit != newest).collect();
            match (newest.change, theirs) {
                // Somebody removed what this was made on: it is made again.
                (Change::Put, Remote::Absent) => {
                    Step::dirty(Remote::Absent, newest, Vec::new()).forgetting(old)
                }
                (Change::Put, theirs) => Step {
                    rename_aside: Some(newest),
                    invalidate: true,
                    ..Step::to(State::Clean { remote: theirs }).forgetting(old)
                },
                // What somebody else made since is not what was to be removed.
                (Change::Delete, theirs) => Step {
                    invalidate: theirs != Remote::Absent,
                    ..Step::to(State::Clean { remote: theirs })
                        .forgetting(old.into_iter().chain([newest]))
                },
            }
        }
        Event::Failed { maybe } => {
            let mut forget = Vec::new();
            if maybe && !tried.contains(&sent) {
                tried.push(sent);
                if tried.len() > MOST_TRIED {
                    let oldest = tried.remove(0);
                    forget.extend((oldest != newest).then_some(oldest));
                }
            }
            if newer.is_some() && !tried.contains(&sent) {
                forget.push(sent);
            }
            Step::dirty(base, newest, tried).forgetting(forget)
        }
        // The callers hand over ends of sendings only.
        Event::Saved(..) | Event::Started | Event::Seen(_) => Step::dirty(base, newest, tried),
    }
}
