//! What is known of a failure beyond its kind: whether to try again, when, and whether the write may have been done all the
//! same. It never decides to try again; `retry` does.

use crate::error::{Error, Kind};
use std::fmt;
use std::time::Duration;

/// The cause of an error, with what a caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    why: String,
    passing: bool,
    unsure: bool,
    silent: bool,
    after: Option<Duration>,
}

impl Trouble {
    /// A failure that stays what it is, however often it is tried.
    pub fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            passing: false,
            unsure: false,
            silent: false,
            after: None,
        }
    }

    /// A failure that may be gone at the next try.
    pub fn passing(why: impl Into<String>) -> Self {
        Self {
            passing: true,
            ..Self::lasting(why)
        }
    }

    /// Nobody knows whether what was asked for was done.
    #[must_use]
    pub fn unsure(mut self, unsure: bool) -> Self {
        self.unsure = unsure;
        self
    }

    /// The other side said nothing at all.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// How long the other side asks to be left alone.
    #[must_use]
    pub fn after(mut self, after: Option<Duration>) -> Self {
        self.after = after;
        self
    }

    /// The error of this trouble.
    pub fn error(self, op: &'static str, subject: impl Into<String>, kind: Kind) -> Error {
        Error::caused(op, subject, kind, self)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Trouble {}

fn of(error: &Error) -> Option<&Trouble> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Whether the same may succeed at the next try. An error that says nothing of it is judged by its kind.
pub fn is_passing(error: &Error) -> bool {
    match of(error) {
        Some(trouble) => trouble.passing,
        None => matches!(
            error.kind(),
            Kind::Offline | Kind::TimedOut | Kind::Busy | Kind::Io
        ),
    }
}

/// Whether a write that failed so may have been done all the same. Whoever sends another one under a condition has to find
/// out first, or takes the own write for that of somebody else.
pub fn is_unsure(error: &Error) -> bool {
    match of(error) {
        Some(trouble) => trouble.unsure,
        None => matches!(error.kind(), Kind::TimedOut | Kind::Io),
    }
}

/// Whether the other side said nothing at all, so that nobody knows whether it is there.
pub fn is_silent(error: &Error) -> bool {
    of(error).is_some_and(|trouble| trouble.silent)
}

/// How long the other side asked to be left alone.
pub fn wait_asked(error: &Error) -> Option<Duration> {
    of(error)?.after
}

/// The same error of a write of which an earlier try may have been done.
pub(super) fn made_unsure(error: Error) -> Error {
    let trouble = match of(&error) {
        Some(trouble) => trouble.clone(),
        None => {
            let why = match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => error.kind().reason().to_owned(),
            };
            Trouble {
                passing: is_passing(&error),
                ..Trouble::lasting(why)
            }
        }
    };
    let (op, subject, kind) = (error.op(), error.subject().to_owned(), error.kind());
    trouble.unsure(true).error(op, subject, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_made_unsure_says_the_same_as_before() {
        for error in [
            Error::new("put", "s/k", Kind::Denied),
            Error::because("put", "s/k", Kind::Io, "it broke"),
            Trouble::passing("503")
                .after(Some(Duration::from_secs(1)))
                .error("put", "s/k", Kind::Io),
        ] {
            let (text, passing, after) =
                (error.to_string(), is_passing(&error), wait_asked(&error));
            let unsure = made_unsure(error);
            assert!(is_unsure(&unsure));
            assert_eq!(
                (unsure.to_string(), is_passing(&unsure), wait_asked(&unsure)),
                (text, passing, after)
            );
        }
    }
}
