//! Stores as directories: their other spellings, and the ids that the API gave them.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::support::World;
use kernel::{DUAL, Mount, PLAIN, errno, names_in};
use std::fs;
use std::path::{Path, PathBuf};
use storefs::backend::Backend;
use storefs::backend::dir::{DirBackend, Folder, FolderOptions};

/// Has the API give ids to the stores of a folder; the one of this store.
fn give_ids(storage: &Path, store: &str) -> String {
    let folder = Folder::open(storage, FolderOptions::default()).unwrap();
    let backend = DirBackend::new(folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let page = runtime.block_on(backend.stores(None)).unwrap();
    let is_it = |name: Option<&str>| name == Some(store);
    let found = page.stores.iter();
    let found = found.filter(|info| is_it(info.name.as_ref().map(|name| name.as_str())));
    let ids: Vec<_> = found.map(|info| info.id.to_string()).collect();
    assert_eq!(ids.len(), 1, "{store}: {ids:?}");
    ids[0].clone()
}

fn storage(mount: &Mount) -> PathBuf {
    let store = mount.backing("default");
    store.ancestors().nth(2).unwrap().to_owned()
}

fn id_shown(mount: &Mount, store: &str) -> String {
    let shown = xattr::get(mount.path(store), "user.storefs.id").unwrap();
    String::from_utf8(shown.unwrap()).unwrap()
}

// README: S2, S66
#[test]
fn a_store_in_other_letter_case_is_a_link_to_its_directory() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("mkdir \"$MNT/results\"; echo x > \"$MNT/Results/a\"; cat \"$MNT/results/a\"");
        let target = fs::read_link(mount.path("RESULTS")).unwrap();
        assert_eq!(target, Path::new("results"), "{way}");
        assert_eq!(names_in(&mount.root()), ["default", "results"], "{way}");
        let made = fs::create_dir(mount.path("Results"));
        assert_eq!(errno(made), libc::EEXIST, "{way}");
        let moved = fs::rename(mount.path("RESULTS"), mount.path("other"));
        assert_eq!(errno(moved), libc::EPERM, "{way}");
        let removed = fs::remove_file(mount.path("RESULTS"));
        assert_eq!(errno(removed), libc::EPERM, "{way}");
        mount.sh("rm \"$MNT/results/a\"; rmdir \"$MNT/results\"; mkdir \"$MNT/RESULTS\"");
        assert_eq!(names_in(&mount.root()), ["RESULTS", "default"], "{way}");
        assert!(mount.path("RESULTS").symlink_metadata().unwrap().is_dir());
        let target = fs::read_link(mount.path("results")).unwrap();
        assert_eq!(target, Path::new("RESULTS"), "{way}");
    }
}

#[test]
fn two_stores_of_an_sdk_whose_names_differ_in_case_are_two_directories() {
    let mount = Mount::new(DUAL);
    for name in ["Both", "both"] {
        fs::create_dir(mount.backing(name)).unwrap();
        fs::write(mount.path(name).join("a"), name).unwrap();
    }
    for name in ["Both", "both"] {
        assert_eq!(
            fs::read_to_string(mount.path(name).join("a")).unwrap(),
            name
        );
    }
    assert_eq!(names_in(&mount.root()), ["Both", "both", "default"]);
}

// README: S2, S59
#[test]
fn the_id_that_the_api_gave_a_store_is_shown_and_leads_to_it() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh("mkdir \"$MNT/results\"; echo x > \"$MNT/results/a\"");
        assert_eq!(id_shown(&mount, "results"), "results", "{way}");
        let missing = fs::metadata(mount.path("aB3dE5gH7jK9mN1pQ"));
        assert_eq!(errno(missing), libc::ENOENT, "{way}");
        let id = give_ids(&storage(&mount), "results");
        assert_eq!(id_shown(&mount, "results"), id, "{way}");
        let there = fs::read_to_string(mount.path(&id).join("a")).unwrap();
        assert_eq!(there, "x\n", "{way}");
        let target = fs::read_link(mount.path(&id)).unwrap();
        assert_eq!(target, Path::new("results"), "{way}");
        mount.sh("mv \"$MNT/results\" \"$MNT/moved\"");
        let target = fs::read_link(mount.path(&id)).unwrap();
        assert_eq!(target, Path::new("moved"), "{way}");
        assert_eq!(id_shown(&mount, "moved"), id, "{way}");
    }
}

// README: S2, S3
#[test]
fn the_default_store_can_be_named_by_the_id_that_the_api_gave_it() {
    let world = World::new();
    fs::create_dir_all(world.source("shop")).unwrap();
    fs::write(world.source("shop").join("a.txt"), "x").unwrap();
    let storage = world.source("shop");
    let id = give_ids(storage.ancestors().nth(2).unwrap(), "shop");
    let mount = world.mount(&["-o", &format!("default={id}")]);
    let target = fs::read_link(mount.path("default")).unwrap();
    assert_eq!(target, Path::new("shop"));
    assert!(!world.source(&id).exists());
    mount.unmount();
}

#[test]
fn status_names_a_store_as_it_is_called_now() {
    let world = World::new();
    let mount = world.mount(&[]);
    fs::create_dir(mount.path("before")).unwrap();
    fs::write(mount.path("before/OUTPUT"), "1").unwrap();
    fs::rename(mount.path("before"), mount.path("after")).unwrap();
    let status = mount.status();
    let stores = status["backend"]["stores"].as_array().unwrap();
    let names: Vec<_> = stores.iter().map(|store| &store["name"]).collect();
    assert_eq!(names, ["after", "default"]);
}
