//! Several renames that are done together or taken back, and a link among them. No bytes are written here: what is renamed lies
//! ready before the first step.

use super::swap::{Held, exchange_if};
use super::temp::TempDir;
use super::{FileStat, disk};
use rustix::fs::{self, AtFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The renames done so far.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    into: BorrowedFd<'a>,
    temp: &'a TempDir,
    /// No new bytes come in: what somebody else put there meanwhile is newer, and stays.
    yields: bool,
    done: Vec<Step<'a>>,
}

#[derive(Debug)]
struct Step<'a> {
    from_dir: BorrowedFd<'a>,
    from: String,
    to: String,
    replaced: Replaced,
    /// The file itself, where the steps yield.
    placed: Option<Held>,
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
    /// `yields`: the steps bring no new bytes, so a file that somebody else put in their way ends them with EBUSY.
    pub(super) fn new(into: BorrowedFd<'a>, temp: &'a TempDir, yields: bool) -> Self {
        Self {
            into,
            temp,
            yields,
            done: Vec::new(),
        }
    }

    /// Renames a file into the directory. `there`: a file of this name is expected, and comes back if a later step
    /// fails. Otherwise one is EEXIST when `new`, and replaced too when not. `known` tells the files that steps which
    /// yield may replace.
    pub(super) fn put(
        &mut self,
        from_dir: BorrowedFd<'a>,
        from: &str,
        to: &str,
        there: bool,
        new: bool,
        known: &dyn Fn(&FileStat) -> bool,
    ) -> rustix::io::Result<()> {
        let placed = match self.yields {
            true => Some(Held::open(from_dir, from)?),
            false => None,
        };
        let replaced = if there {
            self.swap(from_dir, from, to, known)?
        } else {
            match disk::rename(from_dir, from, self.into, to, true) {
                Ok(()) => Replaced::Nothing,
                Err(Errno::EXIST) if !new && self.is_replaceable(to) => {
                    self.swap(from_dir, from, to, known)?
                }
                Err(error) => return Err(error),
            }
        };
        self.done.push(Step {
            from_dir,
            from: from.to_owned(),
            to: to.to_owned(),
            replaced,
            placed,
        });
        Ok(())
    }

    /// Makes a link in the directory: at once where nothing has its name, else aside, as `from` among the temporaries, and
    /// renamed. The rest is as for `put`.
    pub(super) fn link(
        &mut self,
        target: &str,
        from: &str,
        to: &str,
        there: bool,
        known: &dyn Fn(&FileStat) -> bool,
    ) -> rustix::io::Result<()> {
        if !there && !self.yields {
            match fs::symlinkat(target, self.into, to) {
                Ok(()) => {
                    self.done.push(Step {
                        from_dir: self.temp.dir(),
                        from: from.to_owned(),
                        to: to.to_owned(),
                        replaced: Replaced::Nothing,
                        placed: None,
                    });
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        fs::symlinkat(target, self.temp.dir(), from)?;
        self.put(self.temp.dir(), from, to, there, false, known)
    }

    /// A directory or a device of that name is no record, and stays. So does a link to elsewhere, which is not ours.
    fn is_replaceable(&self, file: &str) -> bool {
        disk::stat(self.into, file).is_ok_and(|stat| {
            stat.is_file() || (stat.is_link() && !disk::leads_elsewhere(self.into, file))
        })
    }

    fn swap(
        &self,
        from_dir: BorrowedFd<'_>,
        from: &str,
        to: &str,
        known: &dyn Fn(&FileStat) -> bool,
    ) -> rustix::io::Result<Replaced> {
        let swapped = match self.yields {
            true => exchange_if((from_dir, from), (self.into, to), known),
            false => fs::renameat_with(from_dir, from, self.into, to, RenameFlags::EXCHANGE)
                .map(|()| true),
        };
        match swapped {
            Ok(true) => Ok(Replaced::Swapped),
            Ok(false) => Err(Errno::BUSY),
            // Nothing to swap with, or a file system that cannot.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                self.replace(from_dir, from, to, known)
            }
            Err(error) => Err(error),
        }
    }

    /// Without swapping: what is replaced gets a second name first. What somebody else puts there at that very moment is
    /// not noticed.
    fn replace(
        &self,
        from_dir: BorrowedFd<'_>,
        from: &str,
        to: &str,
        known: &dyn Fn(&FileStat) -> bool,
    ) -> rustix::io::Result<Replaced> {
        let kept = self.temp.name();
        if self.yields
            && let Some(there) = disk::stat_if_there(self.into, to)?
            && !known(&there)
        {
            return Err(Errno::BUSY);
        }
        let replaced = match fs::linkat(self.into, to, self.temp.dir(), &kept, AtFlags::empty()) {
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
            self.take_back(step);
        }
    }

    fn take_back(&self, step: &Step<'_>) {
        let (to, from) = (&*step.to, &*step.from);
        let is_placed = |stat: &FileStat| step.placed.as_ref().is_none_or(|placed| placed.is(stat));
        let done = match &step.replaced {
            Replaced::Nothing => disk::rename(self.into, to, step.from_dir, from, true).map(|()| {
                let taken = disk::stat(step.from_dir, from);
                if taken.is_ok_and(|taken| !is_placed(&taken)) {
                    // Somebody else's newer file. If it cannot go back, there is a still newer one.
                    let _ = disk::rename(step.from_dir, from, self.into, to, true);
                }
            }),
            Replaced::Swapped => {
                exchange_if((step.from_dir, from), (self.into, to), &is_placed).map(drop)
            }
            // The new file keeps a name until the old one has its own again.
            Replaced::Kept(kept) if disk::stat(self.into, to).is_ok_and(|now| is_placed(&now)) => {
                fs::linkat(self.into, to, step.from_dir, from, AtFlags::empty())
                    .and_then(|()| disk::rename(self.temp.dir(), kept, self.into, to, false))
            }
            Replaced::Kept(kept) => disk::remove(self.temp.dir(), kept),
            Replaced::Gone => return,
        };
        if let Err(error) = done {
            tracing::error!("cannot take back the rename to {to}: {error}");
        }
    }
}
