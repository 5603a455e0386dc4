//! The children of this process beside the command: what a command leaves running becomes one when its parent ends. Their ends
//! are taken note of, so that none stays as a zombie. It never takes the end of a child that this process has started itself.

use rustix::process::{self, Pid, WaitId, WaitIdOptions, WaitOptions};
use std::fs;

/// Children that this process had before the command.
#[derive(Debug, Default)]
pub(in crate::actor) struct Children {
    own: Vec<Pid>,
}

impl Children {
    /// From here on orphans of the command are children of this process.
    pub(super) fn adopt() -> Self {
        let own = of_main_thread();
        if let Err(why) = process::set_child_subreaper(Some(process::getpid())) {
            tracing::debug!("the ends of orphans are not told: {why}");
        }
        Self { own }
    }

    /// Takes note of all orphans that have ended.
    pub(super) fn reap(&self, command: Option<Pid>) {
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(process::waitid(WaitId::All, peek), Ok(Some(_))) {
            return;
        }
        for child in of_main_thread() {
            if Some(child) != command && !self.own.contains(&child) {
                let _ = process::waitpid(Some(child), WaitOptions::NOHANG);
            }
        }
    }
}

/// The children of the main thread. The kernel gives it all orphans. It starts commands and nothing else meanwhile: what other
/// threads start, such as fusermount3, is theirs.
fn of_main_thread() -> Vec<Pid> {
    let main = process::getpid().as_raw_nonzero();
    // Where the kernel does not tell them there are none.
    let list = fs::read_to_string(format!("/proc/self/task/{main}/children"));
    list.unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|number| Pid::from_raw(number.parse().ok()?))
        .collect()
}
