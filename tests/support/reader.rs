//! Somebody who uses a mount.

use super::wait_until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that keeps a file of a mount open until it is dropped.
pub struct Reader(Child);

impl Reader {
    /// Returns once the file is open.
    pub fn of(path: &Path) -> Self {
        let child = Command::new("tail")
            .args(["-f", "--"])
            .arg(path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let fds = PathBuf::from(format!("/proc/{}/fd", child.id()));
        wait_until("the reader has the file open", || {
            let open = fs::read_dir(&fds).into_iter().flatten().flatten();
            open.filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|target| target == path)
        });
        Self(child)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
