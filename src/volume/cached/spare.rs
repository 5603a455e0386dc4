//! Small files that are free to be written again. To make a file is slow where many were removed a moment ago: ext4 passes over
//! every inode that was freed within the last minutes (`recently_deleted` in its `ialloc.c`).

use std::fs::{self, File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are kept. Each holds a block of the file system, mostly 4 KiB.
const MOST: usize = 256;

/// Free files. Nobody has one of them open.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<PathBuf>>);

impl Spare {
    fn free(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a file of this text. It is a free one, or a new one at `path`; where it is now is told. What stood in a free
    /// one may be back after a power failure, so whoever reads the text must be able to tell.
    pub(super) fn write(&self, path: PathBuf, text: &[u8]) -> (PathBuf, Result<()>) {
        let free = self.free().pop();
        if let Some(free) = free {
            match rewrite(&free, text) {
                Ok(()) => return (free, Ok(())),
                Err(e) => tracing::debug!("{} is not written again: {e}", free.display()),
            }
            let _ = fs::remove_file(&free);
        }
        let made = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        let written = made.and_then(|file| file.write_all_at(text, 0));
        (path, written)
    }

    /// A file is not needed any more. It is removed, or is free from now on and called `to`.
    pub(super) fn give(&self, path: &Path, to: PathBuf) -> Result<()> {
        let mut free = self.free();
        if free.len() >= MOST {
            drop(free);
            return fs::remove_file(path);
        }
        fs::rename(path, &to)?;
        free.push(to);
        Ok(())
    }
}

fn rewrite(path: &Path, text: &[u8]) -> Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(text, 0)?;
    let length = text.len() as u64;
    // Not cut to nothing first: ext4 writes such a file out when it is closed.
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_was_given_is_written_again_and_holds_the_new_text_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let spare = Spare::default();
        let (first, written) = spare.write(at("first"), b"a long text");
        written.unwrap();
        spare.give(&first, at("free")).unwrap();
        let (second, written) = spare.write(at("second"), b"short");
        written.unwrap();
        assert_eq!(second, at("free"));
        assert_eq!(fs::read(&second).unwrap(), b"short");
        let (third, written) = spare.write(at("third"), b"none is free");
        written.unwrap();
        assert_eq!(third, at("third"));
    }

    #[test]
    fn a_free_file_that_somebody_removed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let spare = Spare::default();
        spare.write(at("first"), b"1").1.unwrap();
        spare.give(&at("first"), at("free")).unwrap();
        fs::remove_file(at("free")).unwrap();
        let (path, written) = spare.write(at("new"), b"2");
        written.unwrap();
        assert_eq!(
            (path.as_path(), fs::read(&path).unwrap()),
            (at("new").as_path(), b"2".to_vec())
        );
    }

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let spare = Spare::default();
        for number in 0..MOST + 3 {
            let path = dir.path().join("used");
            fs::write(&path, b"").unwrap();
            spare
                .give(&path, dir.path().join(number.to_string()))
                .unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MOST);
    }
}
