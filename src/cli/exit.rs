//! What the program ends with: the exit code of a failure and the one line that tells it. It never ends the process.

use crate::error::{Error, Kind, Result};
use std::io::{self, Write};

/// Wrong usage.
pub(super) const USAGE: u8 = 2;

/// A failure as a person and a script see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub code: u8,
    /// What was tried, on what, why it failed and what to do. May hold several lines.
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: code(error.kind()),
            message: error.to_string(),
        }
    }
}

impl Failure {
    /// Tells it on standard error.
    pub(super) fn tell(&self) {
        let _ = writeln!(io::stderr(), "storefs: {}", self.message.trim_end());
    }
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// How a write to standard output went. A reader that has gone away is no failure.
pub(super) fn printed(done: io::Result<()>) -> Result<()> {
    match done {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("print on", "standard output", why))
        }
        _ => Ok(()),
    }
}

/// The exit code of a kind: 2 wrong usage, 3 not finished in time, 1 any other failure.
pub(super) fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Invalid => USAGE,
        Kind::TimedOut => 3,
        Kind::NotFound
        | Kind::StoreNotFound
        | Kind::NoAttribute
        | Kind::NameTooLong
        | Kind::Exists
        | Kind::NotEmpty
        | Kind::Denied
        | Kind::NotPermitted
        | Kind::ReadOnly
        | Kind::NoSpace
        | Kind::TooLarge
        | Kind::Changed
        | Kind::Stale
        | Kind::CrossDevice
        | Kind::Unsupported
        | Kind::Range
        | Kind::Busy
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::Loop
        | Kind::Exhausted
        | Kind::Offline
        | Kind::Corrupt
        | Kind::Io => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_code_of_its_kind_and_the_words_of_its_error() {
        let late = Failure::from(Error::because("sync", "/m", Kind::TimedOut, "after 2s"));
        assert_eq!((late.code, late.message.as_str()), (3, "sync /m: after 2s"));
        assert_eq!(Failure::from(Error::new("x", "y", Kind::Invalid)).code, 2);
        assert_eq!(Failure::from(Error::new("x", "y", Kind::Busy)).code, 1);
    }
}
