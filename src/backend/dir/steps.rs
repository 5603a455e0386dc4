//! Several renames that are done together or taken back. Nothing is written here: what is renamed lies ready before the
//! first step.

use super::disk;
use rustix::fs::{self, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The renames done so far.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    into: BorrowedFd<'a>,
    done: Vec<Step<'a>>,
}

#[derive(Debug)]
struct Step<'a> {
    from_dir: BorrowedFd<'a>,
    from: String,
    to: String,
    /// The old file has the new one's former name.
    swapped: bool,
}

impl<'a> Steps<'a> {
    pub(super) fn new(into: BorrowedFd<'a>) -> Self {
        Self {
            into,
            done: Vec::new(),
        }
    }

    /// Renames a file into the directory. `there`: a file of this name is expected, and comes back if a later step
    /// fails. Otherwise one is EEXIST when `new`, and replaced too when not.
    pub(super) fn put(
        &mut self,
        from_dir: BorrowedFd<'a>,
        from: &str,
        to: &str,
        there: bool,
        new: bool,
    ) -> rustix::io::Result<()> {
        let swapped = if there {
            self.swap(from_dir, from, to)?
        } else {
            match disk::rename(from_dir, from, self.into, to, true) {
                Ok(()) => false,
                Err(Errno::EXIST) if !new && self.is_replaceable(to) => {
                    self.swap(from_dir, from, to)?
                }
                Err(error) => return Err(error),
            }
        };
        self.done.push(Step {
            from_dir,
            from: from.to_owned(),
            to: to.to_owned(),
            swapped,
        });
        Ok(())
    }

    /// A directory or a device of that name is no record, and stays.
    fn is_replaceable(&self, file: &str) -> bool {
        disk::stat(self.into, file).is_ok_and(|stat| stat.is_file() || stat.is_link())
    }

    fn swap(&self, from_dir: BorrowedFd<'_>, from: &str, to: &str) -> rustix::io::Result<bool> {
        match fs::renameat_with(from_dir, from, self.into, to, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            // Nothing to swap with, or a file system that cannot.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                disk::rename(from_dir, from, self.into, to, false).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// All steps worked: what they replaced goes.
    pub(super) fn finish(self) {
        for (at, step) in self
            .done
            .iter()
            .enumerate()
            .filter(|(_, step)| step.swapped)
        {
            // A file that was in the directory itself has left its name, which a later step may have taken.
            let inside = step.from_dir.as_raw_fd() == self.into.as_raw_fd();
            let taken = inside
                && self.done[at + 1..]
                    .iter()
                    .any(|later| later.to == step.from);
            if !taken {
                let _ = disk::remove(step.from_dir, &step.from);
            }
        }
    }

    /// Takes every step back, the last one first.
    pub(super) fn undo(self) {
        for step in self.done.iter().rev() {
            let back = if step.swapped {
                fs::renameat_with(
                    self.into,
                    &*step.to,
                    step.from_dir,
                    &*step.from,
                    RenameFlags::EXCHANGE,
                )
            } else {
                disk::rename(self.into, &step.to, step.from_dir, &step.from, false)
            };
            if let Err(error) = back {
                tracing::error!("cannot take back the rename to {}: {error}", step.to);
            }
        }
    }
}
