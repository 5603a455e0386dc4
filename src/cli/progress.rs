//! How something that takes long is getting on, for a person at a terminal. It never writes into a file or a pipe.

use std::io::{self, IsTerminal, Write};

/// A line on standard error that is written over as things go on; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    on: bool,
    shown: bool,
}

impl Progress {
    /// Shows something only when standard error is a terminal.
    pub(super) fn on_terminal() -> Self {
        let on = io::stderr().is_terminal();
        Self { on, shown: false }
    }

    /// Shows how it is now.
    pub(super) fn show(&mut self, note: &str) {
        if self.on {
            self.shown = true;
            // Back to the start of the line, and the rest of it cleared (ECMA-48).
            let _ = write!(io::stderr(), "\r{note}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
