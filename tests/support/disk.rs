//! Disks that cannot hold all that others can.

use super::{World, detach, mountinfo, say_untested};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A disk of some kind with a world on it. Dropped, it is detached, and its loop device is free.
pub struct Disk {
    world: Option<World>,
    path: PathBuf,
    device: Option<String>,
    _temp: tempfile::TempDir,
}

impl Disk {
    fn empty() -> Self {
        let temp = tempfile::Builder::new()
            .prefix("storefs-disk-")
            .tempdir()
            .unwrap();
        let path = temp.path().canonicalize().unwrap().join("disk");
        fs::create_dir(&path).unwrap();
        Self {
            world: None,
            path,
            device: None,
            _temp: temp,
        }
    }

    fn ready(mut self) -> Self {
        self.world = Some(World::below(&self.path));
        self
    }

    /// ramfs has links, and no `user.*` attributes.
    pub fn without_attributes() -> Self {
        let disk = Self::empty();
        run(Command::new("mount")
            .args(["-t", "ramfs", "storefs-test"])
            .arg(&disk.path))
        .unwrap();
        disk.ready()
    }

    /// exFAT by FUSE has neither links nor attributes nor modes, and takes `A` and `a` for one name. Says why when this
    /// machine cannot have one.
    fn without_links() -> Result<Self, String> {
        let mut disk = Self::empty();
        let image = disk.path.with_extension("img");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        run(Command::new("mkfs.exfat").arg(&image))?;
        let device = run(Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&image))?;
        disk.device = Some(device.trim().to_owned());
        // What stays in the background has to let go of our output.
        run(Command::new("mount.exfat-fuse")
            .arg(device.trim())
            .arg(&disk.path)
            .stderr(Stdio::null()))?;
        match mountinfo(&disk.path) {
            Some(_) => Ok(disk.ready()),
            None => Err("mount.exfat-fuse mounted nothing".to_owned()),
        }
    }

    /// The disk without links, or said loudly that there is none and the one without attributes in its place.
    pub fn without_links_or_attributes() -> (Self, bool) {
        match Self::without_links() {
            Ok(disk) => (disk, true),
            Err(why) => {
                // Where the programs are, there is such a disk.
                let there = |program: &str| run(Command::new("which").arg(program)).is_ok();
                assert!(!(there("mkfs.exfat") && there("mount.exfat-fuse")), "{why}");
                say_untested(&format!(
                    "a disk without links (packages exfat-fuse, exfatprogs); one without attributes takes its place: {why}"
                ));
                (Self::without_attributes(), false)
            }
        }
    }

    /// The world on it.
    pub fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.world = None;
        detach(&self.path);
        if let Some(device) = &self.device {
            let _ = run(Command::new("losetup").args(["--detach", device]));
        }
    }
}

/// Runs a command to its end, with what it printed; in words why it did not work.
fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|why| format!("{shown}: {why}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{shown}: {output:?}")),
    }
}
