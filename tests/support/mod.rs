//! What tests on a real mount stand on: a storage folder of their own, the program mounting it, a shell. Whatever
//! happens in a test, nothing of it stays mounted, running or on disk.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod disk;
mod mount;
mod reader;
mod shell;
mod small_disk;
mod unprivileged;

pub use disk::Disk;
pub use mount::{Mount, detach};
pub use reader::Reader;
pub use shell::{Said, said, sh_in};
pub use small_disk::SmallDisk;
pub use unprivileged::as_nobody;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The program under test.
pub const STOREFS: &str = env!("CARGO_BIN_EXE_storefs");

/// How long anything may take before a test gives up on it. Far more than needed, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Variables of SDKs and of storefs, which tests set themselves or not at all.
const VARIABLES: [&str; 4] = ["APIFY_", "ACTOR_", "CRAWLEE_", "STOREFS_"];

/// A temporary directory with a storage folder in it.
pub struct World {
    temp: tempfile::TempDir,
    root: PathBuf,
}

impl World {
    /// With an empty storage folder, on the disk that holds temporary files.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory, for directories of very many files.
    pub fn in_memory() -> Self {
        Self::below(Path::new("/dev/shm"))
    }

    /// Below a directory of the caller's.
    pub fn below(base: &Path) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("storefs-test-")
            .tempdir_in(base)
            .unwrap();
        let root = temp.path().canonicalize().unwrap();
        let world = Self { temp, root };
        fs::create_dir_all(world.storage().join("key_value_stores/default")).unwrap();
        world
    }

    /// The temporary directory; free for the test's own files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The storage folder.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// A path below `key_value_stores/`, as an SDK would find it.
    pub fn source(&self, inside: &str) -> PathBuf {
        self.storage().join("key_value_stores").join(inside)
    }

    /// Copies a folder of `tests/fixtures` over the storage folder.
    pub fn with_fixture(self, name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name);
        assert!(from.is_dir(), "no fixture {}", from.display());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(self.storage())
            .status();
        assert!(copied.unwrap().success());
        self
    }

    /// The program in the world's directory, without the variables of the machine it runs on. Logs, unsent edits and cached
    /// bytes go with the world.
    pub fn storefs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(STOREFS);
        clean(&mut command).current_dir(&self.root).args(arguments);
        command
            .env("STATE_DIRECTORY", self.root.join("state"))
            .env("CACHE_DIRECTORY", self.root.join("cached"));
        command
    }

    /// Mounts the storage folder at `mnt`; see [`World::mount_at`].
    pub fn mount(&self, arguments: &[&str]) -> Mount {
        self.mount_at("mnt", arguments)
    }

    /// Mounts the storage folder at this name in the world's directory, with more arguments such as `-o layout=plain`.
    /// Returns when the mount answers; panics with the log when it does not.
    pub fn mount_at(&self, name: &str, arguments: &[&str]) -> Mount {
        let mut command = self.storefs(&["mount", "--foreground"]);
        command
            .args(arguments)
            .arg(self.storage())
            .arg(self.root.join(name));
        Mount::start(command, &self.root.join(name), &self.storage())
    }

    /// Runs a bash script in the world's directory with `SRC` set; panics when it fails. Returns what it printed.
    pub fn sh(&self, script: &str) -> String {
        sh_in(&self.root, &[("SRC", &self.storage())], script)
    }
}

/// Takes the variables out of a command's environment that would change what the program does.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| VARIABLES.iter().any(|prefix| name.starts_with(prefix)));
        if ours {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET")
}

/// Waits until the condition holds, with no more than a moment between two looks; panics when it never does.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An extended attribute as text; panics when there is none.
#[track_caller]
pub fn xattr_of(path: &Path, name: &str) -> String {
    match xattr::get(path, name) {
        Ok(Some(value)) => String::from_utf8(value).unwrap(),
        other => panic!("{name} of {}: {other:?}", path.display()),
    }
}

/// The content type of a record of a mount.
#[track_caller]
pub fn type_of(path: &Path) -> String {
    xattr_of(path, "user.mime_type")
}

/// Sets an extended attribute.
#[track_caller]
pub fn set_xattr(path: &Path, name: &str, value: &str) {
    if let Err(why) = xattr::set(path, name, value.as_bytes()) {
        panic!("{name}={value} of {}: {why}", path.display());
    }
}

/// The line of /proc/self/mountinfo of the mount that is seen at this path.
pub fn mountinfo(path: &Path) -> Option<String> {
    let text = fs::read("/proc/self/mountinfo").unwrap();
    let text = String::from_utf8_lossy(&text);
    let path = path.to_string_lossy().replace(' ', "\\040");
    let found = text
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(&path));
    found.map(str::to_owned)
}

/// Says past what the test harness keeps to itself that something is not tested on this machine.
pub fn say_untested(what: &str) {
    let _ = writeln!(io::stderr(), "\n*** NOT TESTED HERE: {what}\n");
}

/// Whether tests may make disks here. What is left out without that is said.
#[track_caller]
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let place = std::panic::Location::caller();
        say_untested(&format!("{place} needs root"));
    }
    root
}
