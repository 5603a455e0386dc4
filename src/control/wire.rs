//! What goes over the control socket: JSON, one line each. It never opens one.

use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The longest line that is read.
pub(super) const MAX_LINE: u64 = 16 << 20;

/// What is asked.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Wait until everything is handled, in one store or in all.
    Sync {
        /// The store's name as the mount shows it.
        #[serde(default)]
        store: Option<String>,
    },
    /// Tell how the mount is.
    Status,
    /// Unmount.
    Umount {
        /// Detach now, let go when the last user has gone.
        #[serde(default)]
        lazy: bool,
        /// How many milliseconds it may take to send what waits; without it the mount decides.
        #[serde(default)]
        drain: Option<u64>,
    },
    /// Run another command in the place of the one that runs.
    Metamorph(Metamorph),
}

impl Request {
    /// What it is, without anything it carries.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::Status => "status",
            Self::Umount { .. } => "umount",
            Self::Metamorph(_) => "metamorph",
        }
    }
}

/// The command that takes the place of another, and its input.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Metamorph {
    /// The program and its arguments.
    pub command: Vec<Text>,
    /// Where it starts.
    pub directory: Text,
    /// The environment that it gets, beside what a run sets.
    pub environment: Vec<(Text, Text)>,
    /// The file that holds the input: the number of a descriptor of whoever asks, open until the answer.
    pub input: Option<i32>,
    /// The input's content type.
    pub content_type: String,
}

/// Text of the system, which need not be UTF-8. It may be a secret of somebody's environment, so no log shows it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

impl From<&OsStr> for Text {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Text> for OsString {
    fn from(text: Text) -> Self {
        Self::from_vec(text.0)
    }
}

/// What is answered: any number of `Progress`, then one of the others.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// Something to show while waiting; nothing to show when it is empty, which says only that somebody lives.
    Progress(String),
    /// It is done.
    Done(Value),
    /// It failed.
    Failed {
        /// Why, for the program.
        reason: Reason,
        /// Why, for people.
        why: String,
    },
}

/// The kinds of failure that whoever asks can tell apart.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reason {
    Busy,
    Late,
    Missing,
    Wrong,
    Other,
}

impl From<Kind> for Reason {
    fn from(kind: Kind) -> Self {
        if kind == Kind::Busy {
            Self::Busy
        } else if kind == Kind::TimedOut {
            Self::Late
        } else if kind == Kind::StoreNotFound || kind == Kind::NotFound {
            Self::Missing
        } else if kind == Kind::Invalid {
            Self::Wrong
        } else {
            Self::Other
        }
    }
}

impl From<Reason> for Kind {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Busy => Self::Busy,
            Reason::Late => Self::TimedOut,
            Reason::Missing => Self::StoreNotFound,
            Reason::Wrong => Self::Invalid,
            Reason::Other => Self::Io,
        }
    }
}

impl Line {
    /// The answer to what went wrong.
    pub(super) fn failed(error: &Error) -> Self {
        Self::Failed {
            reason: error.kind().into(),
            why: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_environment_is_shown() {
        let text = |text: &str| Text::from(OsStr::new(text));
        let request = Request::Metamorph(Metamorph {
            command: vec![text("program")],
            directory: text("/"),
            environment: vec![(text("APIFY_TOKEN"), text("secret"))],
            input: None,
            content_type: "application/json".to_owned(),
        });
        let shown = format!("{request:?} {}", request.verb());
        assert!(shown.contains("metamorph"), "{shown}");
        let bytes = format!("{:?}", b"secret").replace(['[', ']'], "");
        for secret in ["secret", "APIFY_TOKEN", &bytes] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
