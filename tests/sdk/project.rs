//! A fresh storage folder with a mount over it, and the reading of records through that mount.
//! Must never leave a mount behind, also when a test fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Flavour;
use crate::support::{Mount, World};

pub use crate::support::wait_until as eventually;

/// The layouts a store folder can have on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Plain,
    Js,
    Python,
    Dual,
}

impl Layout {
    /// As `-o layout=` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Plain => "plain",
            Layout::Js => "js",
            Layout::Python => "python",
            Layout::Dual => "dual",
        }
    }

    /// The SDKs that read this layout.
    pub fn flavours(self) -> &'static [Flavour] {
        match self {
            Layout::Plain => &[],
            Layout::Js => &[Flavour::Js],
            Layout::Python => &[Flavour::Python],
            Layout::Dual => &[Flavour::Js, Flavour::Python],
        }
    }

    /// Whether a record of type `got` is right where `wanted` was set: the JS layout keeps a type in the file's extension, and so adds the default charset.
    pub fn same_type(self, wanted: &str, got: &str) -> bool {
        match self {
            Layout::Js => {
                super::without_default_charset(wanted) == super::without_default_charset(got)
            }
            Layout::Plain | Layout::Python | Layout::Dual => wanted == got,
        }
    }
}

/// A folder for one test: `storage` is the source, `mnt` the mountpoint.
pub struct Project {
    world: World,
}

impl Project {
    /// A storage folder with nothing in it, as a new project has it.
    pub fn new() -> Project {
        let world = World::new();
        fs::remove_dir_all(world.storage().join("key_value_stores")).unwrap();
        Project { world }
    }

    /// The storage folder, as an SDK is told about it.
    pub fn root(&self) -> PathBuf {
        self.world.storage()
    }

    /// A path beside the storage folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.world.root().join(name)
    }

    /// The folder of a store on disk, without the mount.
    pub fn store_folder(&self, store: &str) -> PathBuf {
        self.world.source(store)
    }

    /// Mounts with `-o layout=`.
    pub fn mount(&self, layout: Layout) -> Mounted {
        self.mount_with(&format!("layout={}", layout.name()), &[])
    }

    /// Mounts with these options and this environment.
    pub fn mount_with(&self, options: &str, env: &[(&str, &str)]) -> Mounted {
        let at = self.world.root().join("mnt");
        let mut command = self.world.storefs(&["mount", "--foreground"]);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        command.arg(self.root()).arg(&at).envs(env.iter().copied());
        let mount = Mount::start(command, &at, &self.root());
        Mounted { at, mount }
    }
}

/// A mount in the foreground of its own process; unmounted when dropped.
pub struct Mounted {
    at: PathBuf,
    mount: Mount,
}

impl Mounted {
    /// The mountpoint.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// The path of a record.
    pub fn path(&self, store: &str, key: &str) -> PathBuf {
        self.at.join(store).join(key)
    }

    /// Makes a store unless it is there.
    pub fn make_store(&self, store: &str) {
        let path = self.at.join(store);
        if !path.exists() {
            fs::create_dir(path).unwrap();
        }
    }

    /// Writes a record as `echo > file` does.
    pub fn write(&self, store: &str, key: &str, bytes: &[u8]) {
        fs::write(self.path(store, key), bytes)
            .unwrap_or_else(|error| panic!("write {store}/{key}: {error}"));
    }

    /// Writes a record and then sets its type, as `cp` and `setfattr` do.
    pub fn write_typed(&self, store: &str, key: &str, bytes: &[u8], content_type: &str) {
        self.write(store, key, bytes);
        self.set_type(store, key, content_type)
            .unwrap_or_else(|error| {
                panic!("set the type of {store}/{key} to {content_type}: {error}")
            });
    }

    /// Sets the type of a record, as `setfattr` does.
    pub fn set_type(&self, store: &str, key: &str, content_type: &str) -> std::io::Result<()> {
        xattr::set(
            self.path(store, key),
            "user.mime_type",
            content_type.as_bytes(),
        )
    }

    /// The bytes of a record, as `cat` gives them.
    pub fn read(&self, store: &str, key: &str) -> Vec<u8> {
        fs::read(self.path(store, key))
            .unwrap_or_else(|error| panic!("read {store}/{key}: {error}"))
    }

    /// The content type that the mount shows.
    pub fn content_type(&self, store: &str, key: &str) -> String {
        let value = xattr::get(self.path(store, key), "user.mime_type")
            .unwrap_or_else(|error| panic!("type of {store}/{key}: {error}"));
        String::from_utf8(value.unwrap_or_else(|| panic!("{store}/{key} has no type"))).unwrap()
    }

    /// Removes a record, as `rm` does.
    pub fn remove(&self, store: &str, key: &str) {
        fs::remove_file(self.path(store, key))
            .unwrap_or_else(|error| panic!("remove {store}/{key}: {error}"));
    }

    /// The names `ls -A` gives for a store.
    pub fn list(&self, store: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.at.join(store))
            .unwrap_or_else(|error| panic!("list {store}: {error}"));
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Waits until the mount has taken in what other processes did in the folder.
    #[track_caller]
    pub fn sync(&self) {
        self.mount.sync();
    }

    /// Unmounts and checks that the program ends well.
    #[track_caller]
    pub fn unmount(self) {
        self.mount.unmount();
    }
}
