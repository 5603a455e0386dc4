//! The signals that a run takes from others. It never decides what becomes of them.

use crate::error::{Error, Result};
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::Signals;
use std::io;
use tokio::sync::mpsc;

/// Signals of this process, in the order they came.
pub(in crate::actor) fn signals() -> Result<mpsc::UnboundedReceiver<i32>> {
    let fault = |why: io::Error| Error::io("take signals", "", why);
    let mut signals = Signals::new([
        SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT,
    ])
    .map_err(fault)?;
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if sender.send(signal).is_err() {
                    break;
                }
            }
        })
        .map_err(fault)?;
    Ok(receiver)
}

/// Whether this signal asks for the end of the run.
pub(super) fn is_end(signal: i32) -> bool {
    [SIGTERM, SIGINT, SIGHUP, SIGQUIT].contains(&signal)
}
