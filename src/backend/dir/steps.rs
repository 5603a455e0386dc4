//! Several renames that are done together or taken back. Nothing is written here: what is renamed lies ready before the
//! first step.

use super::disk;
use super::temp::TempDir;
use rustix::fs::{self, AtFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The renames done so far.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    into: BorrowedFd<'a>,
    temp: &'a TempDir,
    done: Vec<Step<'a>>,
}

#[derive(Debug)]
struct Step<'a> {
    from_dir: BorrowedFd<'a>,
    from: String,
    to: String,
    replaced: Replaced,
}

/// Where the file is whose name a step took.
#[derive(Debug)]
enum Replaced {
    /// There was none.
    Nothing,
    /// It has the new one's former name.
    Swapped,
    /// Under this name among the temporaries: the file system cannot swap.
    Kept(String),
    /// Nowhere: the file system can neither swap nor give a second name.
    Gone,
}

impl<'a> Steps<'a> {
    pub(super) fn new(into: BorrowedFd<'a>, temp: &'a TempDir) -> Self {
        Self {
            into,
            temp,
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
        let replaced = if there {
            self.swap(from_dir, from, to)?
        } else {
            match disk::rename(from_dir, from, self.into, to, true) {
                Ok(()) => Replaced::Nothing,
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
            replaced,
        });
        Ok(())
    }

    /// A directory or a device of that name is no record, and stays.
    fn is_replaceable(&self, file: &str) -> bool {
        disk::stat(self.into, file).is_ok_and(|stat| stat.is_file() || stat.is_link())
    }

    fn swap(&self, from_dir: BorrowedFd<'_>, from: &str, to: &str) -> rustix::io::Result<Replaced> {
        match fs::renameat_with(from_dir, from, self.into, to, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(Replaced::Swapped),
            // Nothing to swap with, or a file system that cannot.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                let kept = self.temp.name();
                let replaced =
                    match fs::linkat(self.into, to, self.temp.dir(), &kept, AtFlags::empty()) {
                        Ok(()) => Replaced::Kept(kept),
                        Err(Errno::NOENT) => Replaced::Nothing,
                        Err(error) if disk::no_hard_links(error) => Replaced::Gone,
                        Err(error) => return Err(error),
                    };
                let done = disk::rename(from_dir, from, self.into, to, false);
                if let (Err(_), Replaced::Kept(kept)) = (&done, &replaced) {
                    let _ = disk::remove(self.temp.dir(), kept);
                }
                done.map(|()| replaced)
            }
            Err(error) => Err(error),
        }
    }

    /// All steps worked: what they replaced goes.
    pub(super) fn finish(self) {
        for (at, step) in self.done.iter().enumerate() {
            match &step.replaced {
                Replaced::Nothing | Replaced::Gone => {}
                Replaced::Kept(kept) => {
                    let _ = disk::remove(self.temp.dir(), kept);
                }
                Replaced::Swapped => {
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
        }
    }

    /// Takes every step back, the last one first. Where what a step replaced is gone, the new file stays: a record is
    /// better than none.
    pub(super) fn undo(self) {
        for step in self.done.iter().rev() {
            let back = || disk::rename(self.into, &step.to, step.from_dir, &step.from, false);
            let done = match &step.replaced {
                Replaced::Nothing => back(),
                Replaced::Swapped => fs::renameat_with(
                    self.into,
                    &*step.to,
                    step.from_dir,
                    &*step.from,
                    RenameFlags::EXCHANGE,
                ),
                // The new file keeps a name until the old one has its own again.
                Replaced::Kept(kept) => fs::linkat(
                    self.into,
                    &*step.to,
                    step.from_dir,
                    &*step.from,
                    AtFlags::empty(),
                )
                .and_then(|()| disk::rename(self.temp.dir(), kept, self.into, &step.to, false)),
                Replaced::Gone => continue,
            };
            if let Err(error) = done {
                tracing::error!("cannot take back the rename to {}: {error}", step.to);
            }
        }
    }
}
