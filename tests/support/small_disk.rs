//! A disk that is soon full.

use super::{World, mountinfo};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A small disk in memory with a world on it. Dropped, it is detached.
pub struct SmallDisk {
    world: Option<World>,
    disk: PathBuf,
    _temp: tempfile::TempDir,
}

impl SmallDisk {
    /// `options` as tmpfs takes them: `size=`, `nr_inodes=`.
    pub fn new(options: &str) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("storefs-full-")
            .tempdir()
            .unwrap();
        let disk = temp.path().canonicalize().unwrap().join("disk");
        fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "storefs-test"])
            .arg(&disk)
            .status();
        assert!(mounted.unwrap().success());
        let world = Some(World::below(&disk));
        Self {
            world,
            disk,
            _temp: temp,
        }
    }

    /// The world on it.
    pub fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.world = None;
        if mountinfo(&self.disk).is_some() {
            let _ = rustix::mount::unmount(&self.disk, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
