//! A fresh storage folder with a mount over it, and the reading of records through that mount.
//! Must never leave a mount behind, also when a test fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Flavour;

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
    folder: tempfile::TempDir,
}

impl Project {
    /// An empty one; the storage folder is made by the first mount or SDK.
    pub fn new() -> Project {
        Project {
            folder: tempfile::Builder::new()
                .prefix("storefs-sdk-")
                .tempdir()
                .unwrap(),
        }
    }

    /// The storage folder, as an SDK is told about it.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// A path beside the storage folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of a store on disk, without the mount.
    pub fn store_folder(&self, store: &str) -> PathBuf {
        self.root().join("key_value_stores").join(store)
    }

    /// Mounts with `-o layout=`.
    pub fn mount(&self, layout: Layout) -> Mounted {
        self.mount_with(&format!("layout={}", layout.name()), &[])
    }

    /// Mounts with these options and, over the cleaned ones, this environment.
    pub fn mount_with(&self, options: &str, env: &[(&str, &str)]) -> Mounted {
        fs::create_dir_all(self.root()).unwrap();
        Mounted::new(&self.root(), &self.folder.path().join("mnt"), options, env)
    }
}

/// A mount in the foreground of its own process; unmounted when dropped.
pub struct Mounted {
    at: PathBuf,
    daemon: Child,
}

impl Mounted {
    fn new(root: &Path, at: &Path, options: &str, env: &[(&str, &str)]) -> Mounted {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_storefs"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["ACTOR_", "APIFY_", "CRAWLEE_"]
                .iter()
                .any(|p| text.starts_with(p))
            {
                command.env_remove(&name);
            }
        }
        command
            .args(["mount", "--foreground"])
            .arg(root)
            .arg(at)
            .envs(env.iter().copied());
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        let daemon = command.stdin(Stdio::null()).spawn().unwrap();
        let mut mounted = Mounted {
            at: at.to_owned(),
            daemon,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while !mounted.is_mounted() {
            if let Some(status) = mounted.daemon.try_wait().unwrap() {
                panic!(
                    "storefs mount {} {} ended with {status}",
                    root.display(),
                    at.display()
                );
            }
            assert!(
                Instant::now() < end,
                "storefs mount {} did not get ready",
                at.display()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        mounted
    }

    fn is_mounted(&self) -> bool {
        let at = fs::canonicalize(&self.at).unwrap_or_else(|_| self.at.clone());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == at.to_str())
    }

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
    pub fn sync(&self) {
        let output = Command::new(env!("CARGO_BIN_EXE_storefs"))
            .arg("sync")
            .arg(&self.at)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "storefs sync: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Unmounts and waits for the daemon to end well.
    pub fn unmount(mut self) {
        let output = Command::new("umount").arg(&self.at).output().unwrap();
        assert!(
            output.status.success(),
            "umount: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let status = self.daemon.wait().unwrap();
        assert!(status.success(), "storefs mount ended with {status}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(&self.at)
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Waits for something that another process does, and says what it was when it does not come.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
