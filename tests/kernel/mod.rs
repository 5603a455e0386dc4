//! A mount of a fresh folder for one test, and shells to work in it. It never leaves a mount or a daemon behind.
#![allow(dead_code, unused_imports)] // each test program uses its own part of this

mod watch;

pub(crate) use watch::{ABSENT, Watch, values};

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a mount is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) layout: &'static str,
    pub(crate) passthrough: bool,
}

pub(crate) const PLAIN: Way = Way {
    layout: "plain",
    passthrough: true,
};
pub(crate) const PLAIN_DAEMON: Way = Way {
    layout: "plain",
    passthrough: false,
};
pub(crate) const DUAL: Way = Way {
    layout: "dual",
    passthrough: true,
};
pub(crate) const DUAL_DAEMON: Way = Way {
    layout: "dual",
    passthrough: false,
};
/// Both ways to do I/O and both layouts.
pub(crate) const EVERY: [Way; 4] = [PLAIN, PLAIN_DAEMON, DUAL, DUAL_DAEMON];

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let io = if self.passthrough {
            "passthrough"
        } else {
            "daemon I/O"
        };
        write!(f, "layout {}, {io}", self.layout)
    }
}

/// A mounted folder. Dropping it unmounts and ends the daemon, whatever state they are in.
pub(crate) struct Mount {
    pub(crate) way: Way,
    home: tempfile::TempDir,
    options: String,
    daemon: Option<Child>,
}

/// The program under test. `STOREFS_TEST_BINARY` names another one, to run the same tests on a release build.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("STOREFS_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_storefs").into(), PathBuf::from)
}

impl Mount {
    /// Mounts a new empty folder under the machine's temporary folder.
    pub(crate) fn new(way: Way) -> Self {
        Self::with(way, &std::env::temp_dir(), "")
    }

    /// Mounts a new empty folder below `parent`, with more options (`,NAME=VALUE...`).
    pub(crate) fn with(way: Way, parent: &Path, more: &str) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests mount file systems and need /dev/fuse"
        );
        let home = tempfile::Builder::new()
            .prefix("storefs-test.")
            .tempdir_in(parent)
            .unwrap();
        fs::create_dir(home.path().join("source")).unwrap();
        fs::create_dir(home.path().join("mnt")).unwrap();
        let slow = if way.passthrough {
            ""
        } else {
            ",no_passthrough"
        };
        let mut mount = Self {
            way,
            home,
            options: format!("layout={}{slow}{more}", way.layout),
            daemon: None,
        };
        mount.start();
        if !mount.path("default").is_dir() {
            fs::create_dir(mount.path("default")).unwrap();
        }
        mount
    }

    /// Starts a daemon on the same folder and waits until the mount answers.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "the mount is already there");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .unwrap();
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["APIFY_", "CRAWLEE_", "ACTOR_"]
                .iter()
                .any(|p| name.starts_with(p))
            {
                command.env_remove(&*name);
            }
        }
        command
            .args(["mount", "--foreground"])
            .arg(self.source())
            .arg(self.root())
            .args(["-o", &self.options])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let parent = fs::metadata(self.home.path()).unwrap();
        self.daemon = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !is_mounted(&self.root(), parent.dev()) {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(20),
                "{}: the mount did not come up ({ended:?}): {}",
                self.way,
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Kills the daemon where it stands and takes its dead mount away. Says whether it was alive until then.
    pub(crate) fn kill(&mut self) -> bool {
        let mut daemon = self.daemon.take().unwrap();
        let alive = daemon.try_wait().unwrap().is_none();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        detach(&self.root());
        alive
    }

    /// Unmounts the ordinary way and waits for the daemon to end.
    pub(crate) fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let done = Command::new("umount").arg(self.root()).output().unwrap();
        assert!(done.status.success(), "umount: {}", text(&done.stderr));
        let begun = Instant::now();
        while daemon.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(30) {
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                panic!(
                    "{}: the daemon outlives its mount: {}",
                    self.way,
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The mountpoint.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("mnt")
    }

    /// A path below the mountpoint, such as `default/OUTPUT`.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// A folder beside the mount, on an ordinary file system.
    pub(crate) fn outside(&self) -> PathBuf {
        let path = self.home.path().join("outside");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The storage folder that is mounted.
    pub(crate) fn source(&self) -> PathBuf {
        self.home.path().join("source")
    }

    /// A store's directory in the storage folder.
    pub(crate) fn backing(&self, store: &str) -> PathBuf {
        self.source().join("key_value_stores").join(store)
    }

    /// A record of `default` as a program that reads the folder itself finds it, in both layouts.
    pub(crate) fn beside(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.backing("default").join(key)).ok()
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Runs a script with bash in `default` of the mount; `$MNT`, `$OUT` (an ordinary folder) and `$BACK` (the store's
    /// directory behind the mount) are set.
    pub(crate) fn try_sh(&self, script: &str) -> Output {
        Command::new("timeout")
            .args(["60", "bash", "-euo", "pipefail", "-c", script])
            .current_dir(self.path("default"))
            .env("MNT", self.root())
            .env("OUT", self.outside())
            .env("BACK", self.backing("default"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap()
    }

    /// As `try_sh`, for a script that must succeed; gives what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self.try_sh(script);
        assert!(
            done.status.success(),
            "{}: {script}\nended with {}\n{}{}\ndaemon: {}",
            self.way,
            done.status,
            text(&done.stdout),
            text(&done.stderr),
            self.log()
        );
        text(&done.stdout)
    }

    /// As `try_sh`, for a script that must fail; gives what it said.
    pub(crate) fn sh_fails(&self, script: &str) -> String {
        let done = self.try_sh(script);
        let said = text(&done.stderr);
        assert!(!done.status.success(), "{}: {script} succeeded", self.way);
        said
    }

    /// A record read through the mount.
    pub(crate) fn read(&self, key: &str) -> String {
        let path = self.path("default").join(key);
        text(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {}: {e}", self.way, path.display())))
    }

    /// A record's content type as the mount shows it.
    pub(crate) fn content_type(&self, key: &str) -> String {
        let path = self.path("default").join(key);
        let value = xattr::get(&path, "user.mime_type")
            .unwrap_or_else(|e| panic!("{}: type of {key}: {e}", self.way));
        text(&value.unwrap_or_else(|| panic!("{}: {key} has no type", self.way)))
    }

    /// The names in `default`, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names_in(&self.path("default"))
    }

    /// Watches a record of `default` in the folder, as a program beside the mount would see it.
    pub(crate) fn watch(&self, key: &str) -> Watch {
        Watch::start(self.backing("default").join(key))
    }

    /// Waits until a record of `default` has a value in the folder, for closes that nobody waits for.
    pub(crate) fn wait_for(&self, key: &str, value: &str) {
        let begun = Instant::now();
        while self.beside(key).as_deref() != Some(value.as_bytes()) {
            let found = self.beside(key).map(|bytes| text(&bytes));
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{}: {key} never became {value:?}; it is {found:?}",
                self.way
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until everything that happened in the folder is known to the mount.
    pub(crate) fn sync(&self) {
        let done = Command::new(binary())
            .arg("sync")
            .arg(self.root())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "storefs sync: {}",
            text(&done.stderr)
        );
    }

    /// Files left in the temporary folder of the storage folder.
    pub(crate) fn temporaries(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.source().join(".storefs/tmp")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}: log of the daemon:\n{}", self.way, self.log());
        }
        detach(&self.root());
        if let Some(mut daemon) = self.daemon.take() {
            let begun = Instant::now();
            while matches!(daemon.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10)
            {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The names in a directory, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes as text, for messages and comparisons.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The errno of a failed call.
pub(crate) fn errno<T: fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap_or(0)
}

fn is_mounted(root: &Path, parent: u64) -> bool {
    fs::metadata(root).is_ok_and(|meta| meta.dev() != parent)
}

/// Takes a mount away, alive or dead; no harm when there is none.
fn detach(root: &Path) {
    let _ = rustix::mount::unmount(root, rustix::mount::UnmountFlags::DETACH);
}
