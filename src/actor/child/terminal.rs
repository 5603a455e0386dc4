//! The terminal of a run: who of the run's processes it listens to. It never takes it from anybody else.

use crate::sys;
use rustix::process::{self, Pid, WaitId, WaitIdOptions};
use std::fs::File;
use std::os::fd::AsFd;

/// The terminal of this process.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    own: Pid,
    /// The group of the command that was given it.
    given: Option<Pid>,
}

impl Terminal {
    /// The terminal of this process, if it has one.
    pub fn of_process() -> Option<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty");
        let file = file.ok()?;
        Some(Self {
            file,
            own: process::getpgrp(),
            given: None,
        })
    }

    pub(super) fn is_ours(&self) -> bool {
        sys::foreground_of(self.file.as_fd()) == Some(self.own)
    }

    /// Whether the command has it, or passed it on.
    pub(super) fn is_given(&self) -> bool {
        self.given.is_some()
    }

    pub(super) fn give(&mut self, group: Pid) {
        let done = sys::set_foreground_of(self.file.as_fd(), group);
        self.given = done.ok().map(|()| group);
    }

    pub(super) fn take_back(&self) {
        // Whoever else has it by now, most likely a shell, keeps it.
        if self.given.is_some() && sys::foreground_of(self.file.as_fd()) == self.given {
            let _ = sys::set_foreground_of(self.file.as_fd(), self.own);
        }
    }

    /// The command that was given it has ended. Itself a shell, it may have passed it on to a job of its own, and ended without
    /// taking that back.
    pub(super) fn end_of_command(&mut self) {
        let now = sys::foreground_of(self.file.as_fd()).filter(|now| *now != self.own);
        if self.given.is_some() && now.is_some_and(is_of_the_run) {
            let _ = sys::set_foreground_of(self.file.as_fd(), self.own);
        }
        self.given = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Whether nobody is left in a group, or somebody whose parent has ended in this run: such a process is a child of ours.
fn is_of_the_run(group: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    process::test_kill_process_group(group).is_err()
        || process::waitid(WaitId::Pgid(Some(group)), options).is_ok()
}
