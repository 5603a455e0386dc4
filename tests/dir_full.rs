//! A disk that is full at any step of a write: the old record stays whole and nothing is left over. Each test mounts a
//! small tmpfs of its own, so it needs root. No kernel mount of ours.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{JSON, TEXT, World, options};
use rustix::fs::StatVfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CString;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use storefs::backend::dir::{CommitIf, Layout};
use storefs::error::Kind;
use storefs::record::ContentType;
use tempfile::TempDir;

/// More of everything than a test needs.
const PLENTY: (u64, u64) = (4096, 4096);
const ALL: [Layout; 4] = [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual];

/// A small disk, gone with its owner.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let at = TempDir::new().unwrap();
        let data = limits(PLENTY);
        mount(
            "tmpfs",
            at.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(&*data),
        )
        .unwrap();
        Self(at)
    }

    fn used(&self) -> (u64, u64) {
        let StatVfs {
            f_blocks,
            f_bfree,
            f_files,
            f_ffree,
            ..
        } = rustix::fs::statvfs(self.0.path()).unwrap();
        (f_blocks - f_bfree, f_files - f_ffree)
    }

    /// Lets so many pages and inodes be.
    fn limit(&self, to: (u64, u64)) {
        mount_remount(self.0.path(), MountFlags::empty(), &*limits(to)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn limits((pages, inodes): (u64, u64)) -> CString {
    CString::new(format!("size={},nr_inodes={inodes}", pages * 4096)).unwrap()
}

/// A store with the record `a`, on a disk of its own.
fn world(layout: Layout) -> (Disk, World) {
    let disk = Disk::new();
    let world = World::at(TempDir::new_in(disk.0.path()).unwrap(), options(layout));
    world
        .write_as("a", b"{\"old\": 1}", Some(JSON), &CommitIf::Any)
        .unwrap();
    (disk, world)
}

/// Commits with so little left, and says whether it worked. What failed left everything as it was.
fn commit_with(layout: Layout, pages: u64, inodes: u64, key: &str) -> bool {
    let (disk, world) = world(layout);
    let before = (world.files(), world.names());
    let mut draft = world.folder.draft(0o644).unwrap();
    let bytes = "words ".repeat(2000);
    draft.file.write_all_at(bytes.as_bytes(), 0).unwrap();
    let content_type = ContentType::stored(TEXT);
    let commit = |draft: &mut _| {
        world
            .store
            .commit(draft, key, Some(&content_type), &CommitIf::Any, true)
    };
    let (used_pages, used_inodes) = disk.used();
    disk.limit((used_pages + pages, used_inodes + inodes));
    let worked = match commit(&mut draft) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), Kind::NoSpace, "{layout:?}: {error:?}");
            assert_eq!((world.files(), world.names()), before, "{layout:?}");
            assert_eq!(world.read("a"), b"{\"old\": 1}");
            assert_eq!(world.type_of("a"), JSON);
            assert_eq!(
                world.temporaries(),
                1,
                "{layout:?}: more than the draft is left"
            );
            disk.limit(PLENTY);
            commit(&mut draft).unwrap();
            false
        }
    };
    disk.limit(PLENTY);
    assert_eq!(world.read(key), bytes.as_bytes());
    assert_eq!(world.type_of(key), TEXT);
    assert_eq!(world.temporaries(), 0);
    let (_folder, store) = world.again(options(layout));
    assert_eq!(store.find(key).unwrap().1.size, bytes.len() as u64);
    worked
}

#[test]
fn a_full_disk_at_any_step_of_a_commit_leaves_the_old_record_whole() {
    for layout in ALL {
        for key in ["a", "b"] {
            let mut failures = 0;
            for left in 0..6 {
                failures += u32::from(!commit_with(layout, left, 100, key));
                failures += u32::from(!commit_with(layout, 100, left, key));
            }
            // A plain record needs nothing but its draft.
            assert!(failures > 0 || layout == Layout::Plain || (layout, key) == (Layout::Js, "b"));
            assert!(commit_with(layout, 100, 100, key));
        }
    }
}

#[test]
fn a_full_disk_refuses_a_draft_and_its_bytes_and_keeps_the_record() {
    for layout in ALL {
        let (disk, world) = world(layout);
        let (pages, inodes) = disk.used();
        disk.limit((pages, inodes));
        assert_eq!(world.folder.draft(0o644).unwrap_err().kind(), Kind::NoSpace);
        disk.limit((pages, inodes + 100));
        let draft = world.folder.draft(0o644).unwrap();
        let error = draft.file.write_all_at(&[b'x'; 10_000], 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        drop(draft);
        assert_eq!(
            (world.temporaries(), world.names()),
            (0, vec!["a".to_owned()])
        );
        assert_eq!(world.read("a"), b"{\"old\": 1}");
    }
}

#[test]
fn a_full_disk_at_any_step_of_a_rename_or_a_changed_type_changes_nothing() {
    for layout in ALL {
        for left in 0..6 {
            for renames in [true, false] {
                let (disk, world) = world(layout);
                world
                    .write_as("b", b"target", Some(TEXT), &CommitIf::Any)
                    .unwrap();
                let before = world.files();
                let (pages, inodes) = disk.used();
                disk.limit((pages + left / 3, inodes + left));
                let png = ContentType::stored("image/png");
                let result = if renames {
                    world.store.rename("a", &world.store, "b", false)
                } else {
                    world.store.set_content_type("a", Some(&png))
                };
                disk.limit(PLENTY);
                match result {
                    Ok(_) if renames => assert_eq!(world.names(), ["b"]),
                    Ok(_) => assert_eq!(world.type_of("a"), "image/png"),
                    Err(error) => {
                        assert_eq!(error.kind(), Kind::NoSpace, "{layout:?}: {error:?}");
                        assert_eq!(world.files(), before, "{layout:?} {left}");
                        assert_eq!(world.read("a"), b"{\"old\": 1}");
                        assert_eq!(
                            (world.read("b"), world.type_of("b")),
                            (b"target".to_vec(), TEXT.to_owned())
                        );
                        assert_eq!(world.type_of("a"), JSON);
                    }
                }
                assert_eq!(world.temporaries(), 0, "{layout:?} {left}");
            }
        }
    }
}

#[test]
fn a_store_on_another_disk_than_the_folder_is_read_and_says_why_it_is_not_written() {
    let disk = Disk::new();
    let world = World::new(Layout::Plain);
    let at: PathBuf = world.storage("key_value_stores/other");
    std::fs::create_dir(&at).unwrap();
    mount_bind(disk.0.path(), &at);
    std::fs::write(at.join("a"), "there").unwrap();
    let store = world.folder.store(&dir_world::name("other")).unwrap();
    let found = store.find("a").map(|(_, stat)| stat.size);
    let mut draft = world.folder.draft(0o644).unwrap();
    let written = store.commit(&mut draft, "b", None, &CommitIf::Any, false);
    unmount(&at, UnmountFlags::DETACH).unwrap();
    assert_eq!(found.unwrap(), 5);
    let error = written.unwrap_err();
    assert_eq!(error.kind(), Kind::CrossDevice);
    assert!(error.to_string().contains("another disk"), "{error}");
}

fn mount_bind(from: &std::path::Path, to: &std::path::Path) {
    rustix::mount::mount_bind(from, to).unwrap();
}
