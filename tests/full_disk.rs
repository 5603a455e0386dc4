//! A disk that fills up at every step of a write: the old record stays whole, the program is told, and when there is
//! room again everything works.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Mount, World, mountinfo, type_of};

/// A small disk in memory with a world on it. Dropped, it is detached.
struct SmallDisk {
    world: Option<World>,
    disk: PathBuf,
    _temp: tempfile::TempDir,
}

impl SmallDisk {
    /// `options` as tmpfs takes them: `size=`, `nr_inodes=`.
    fn new(options: &str) -> Self {
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

    fn world(&self) -> &World {
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

/// Takes all room, in whole pages.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let page = [b'x'; 4096];
    loop {
        match io::Write::write(&mut file, &page) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

fn is_full<T>(done: &io::Result<T>) -> bool {
    matches!(done, Err(why) if why.raw_os_error() == Some(libc::ENOSPC))
}

/// The record has its old value and type, through the mount and for whoever reads the folder.
#[track_caller]
fn old_record_is_whole(mount: &Mount, layout: &str, step: &str) {
    let path = mount.path("default/OUTPUT");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "the old value",
        "{layout}, {step}"
    );
    assert_eq!(type_of(&path), "text/x-old", "{layout}, {step}");
    let file = "OUTPUT";
    let beside = fs::read_dir(mount.source("default")).unwrap();
    let found = beside.flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with(file) && !name.contains("__metadata__")
    });
    let bytes = fs::read_to_string(found.unwrap().path()).unwrap();
    assert_eq!(bytes, "the old value", "{layout}, {step}: in the folder");
}

fn begin(mount: &Mount) {
    let path = mount.path("default/OUTPUT");
    fs::write(&path, "the old value").unwrap();
    xattr::set(&path, "user.mime_type", b"text/x-old").unwrap();
}

#[track_caller]
fn works_again(mount: &Mount, layout: &str) {
    let path = mount.path("default/OUTPUT");
    fs::write(&path, "the new value").unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "the new value",
        "{layout}"
    );
    fs::write(mount.path("default/NEW"), "another").unwrap();
    assert_eq!(
        fs::read_to_string(mount.path("default/NEW")).unwrap(),
        "another",
        "{layout}"
    );
}

fn temporaries(world: &World) -> usize {
    let processes = fs::read_dir(world.storage().join(".storefs/tmp")).unwrap();
    processes
        .map(|process| fs::read_dir(process.unwrap().path()).unwrap().count())
        .sum()
}

// README: S22
#[test]
fn a_disk_without_room_keeps_the_old_record() {
    if !support::is_root() {
        return; // only root can mount a small disk
    }
    for layout in ["plain", "dual", "js", "python"] {
        for way in ["", ",no_passthrough"] {
            let disk = SmallDisk::new("size=1m");
            let world = disk.world();
            let mount = world.mount(&["-o", &format!("layout={layout}{way}")]);
            begin(&mount);
            let ballast = world.root().join("ballast");
            fill(&ballast);
            let all = fs::metadata(&ballast).unwrap().len();
            let mut refused = 0;
            // From no room at all to room for everything.
            for pages in 0..12 {
                let file = fs::OpenOptions::new().write(true).open(&ballast).unwrap();
                file.set_len(all - pages * 4096).unwrap();
                let step = format!("{pages} pages{way}");
                let written = fs::write(mount.path("default/OUTPUT"), vec![b'y'; 20_000]);
                if written.is_ok() {
                    // Closing a file says nothing through this call, so look what became of it.
                    let now = fs::read(mount.path("default/OUTPUT")).unwrap();
                    let whole = now == vec![b'y'; 20_000] || now == b"the old value";
                    assert!(whole, "{layout}, {step}: neither the old nor the new value");
                    if now.len() == 20_000 {
                        file.set_len(0).unwrap();
                        begin(&mount);
                        fill(&ballast);
                        continue;
                    }
                } else {
                    assert!(is_full(&written), "{layout}, {step}: {written:?}");
                }
                refused += 1;
                old_record_is_whole(&mount, layout, &step);
                let made = fs::write(mount.path("default/YOUNG"), vec![b'z'; 20_000]);
                if is_full(&made) {
                    let there = fs::metadata(mount.path("default/YOUNG")).map(|found| found.len());
                    let _ = fs::remove_file(mount.path("default/YOUNG"));
                    assert_ne!(there.ok(), Some(20_000), "{layout}, {step}");
                } else {
                    fs::remove_file(mount.path("default/YOUNG")).unwrap();
                }
            }
            assert!(refused > 3, "{layout}{way}: the disk was never full");
            fs::remove_file(&ballast).unwrap();
            works_again(&mount, layout);
            assert_eq!(temporaries(world), 0, "{layout}{way}");
            mount.unmount();
        }
    }
}

// README: S22
#[test]
fn a_disk_without_inodes_keeps_the_old_record() {
    if !support::is_root() {
        return; // only root can mount a small disk
    }
    for layout in ["plain", "dual", "js", "python"] {
        let disk = SmallDisk::new("size=4m,nr_inodes=64");
        let world = disk.world();
        let mount = world.mount(&["-o", &format!("layout={layout}")]);
        begin(&mount);
        let mut ballast = Vec::new();
        loop {
            let path = world.root().join(format!("ballast-{}", ballast.len()));
            match fs::File::create(&path) {
                Ok(_) => ballast.push(path),
                Err(why) => {
                    assert_eq!(why.raw_os_error(), Some(libc::ENOSPC));
                    break;
                }
            }
        }
        let mut refused = 0;
        // One inode after the other becomes free, until the write succeeds.
        loop {
            let step = format!("{refused} inodes");
            let written = sh_write(&mount, "OUTPUT", "the new value");
            let now = fs::read_to_string(mount.path("default/OUTPUT")).unwrap();
            if now == "the new value" {
                assert!(
                    written,
                    "{layout}, {step}: it was written, and the program was told it was not"
                );
                break;
            }
            assert!(
                !written,
                "{layout}, {step}: it was not written, and the program was not told"
            );
            old_record_is_whole(&mount, layout, &step);
            refused += 1;
            fs::remove_file(ballast.pop().unwrap()).unwrap();
        }
        assert!(refused > 0, "{layout}: there was an inode left");
        for path in ballast {
            fs::remove_file(path).unwrap();
        }
        works_again(&mount, layout);
        assert_eq!(temporaries(world), 0, "{layout}");
        mount.unmount();
    }
}

/// Writes with a program that looks at what close(2) says. Whether it was content.
fn sh_write(mount: &Mount, key: &str, text: &str) -> bool {
    let script = "import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, sys.argv[2].encode())
os.close(fd)";
    let said = Command::new("python3")
        .args(["-c", script])
        .arg(mount.path("default").join(key))
        .arg(text)
        .output();
    said.unwrap().status.success()
}
