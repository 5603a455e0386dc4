//! The signals that a run takes from others. It never decides what becomes of them.

use crate::error::{Error, Result};
use crate::sys;
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::Signals;
use std::io;
use tokio::sync::mpsc;

/// Signals that are always taken.
const TAKEN: [i32; 6] = [SIGCHLD, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT];
/// Signals that a shell or nohup may have a program ignore.
const MAY_BE_IGNORED: [i32; 3] = [SIGHUP, SIGINT, SIGQUIT];

/// Signals of this process, in the order they came. Those that it was started to ignore, as nohup has it, it goes on to ignore,
/// and so does the command, which inherits that.
pub(in crate::actor) fn signals() -> Result<mpsc::UnboundedReceiver<i32>> {
    let fault = |why: io::Error| Error::io("take signals", "", why);
    let kept = MAY_BE_IGNORED
        .into_iter()
        .filter(|signal| !sys::is_ignored(*signal));
    let mut signals = Signals::new(kept.chain(TAKEN)).map_err(fault)?;
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
