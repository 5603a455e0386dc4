//! A mount of a fresh folder in one of the ways a folder can be mounted, and shells to work in it. It asserts nothing about
//! what a test is for.
#![allow(dead_code, unused_imports)] // each test program uses its own part of this

#[path = "../support/mod.rs"]
pub(crate) mod support;
mod watch;

pub(crate) use watch::{ABSENT, Watch, values};

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{PATIENCE, World, clean, wait_until};

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

/// A mounted folder with the store `default`. Dropping it unmounts and ends the daemon, whatever state they are in.
pub(crate) struct Mount {
    pub(crate) way: Way,
    live: Option<support::Mount>, // goes before the world it is in
    pub(crate) world: World,
}

impl Mount {
    /// Mounts a new empty folder under the machine's temporary folder.
    pub(crate) fn new(way: Way) -> Self {
        Self::of(way, World::new())
    }

    /// Mounts a world's folder.
    pub(crate) fn of(way: Way, world: World) -> Self {
        let mut mount = Self {
            way,
            live: None,
            world,
        };
        mount.start();
        mount
    }

    /// Starts a daemon on the same folder; returns when the mount answers.
    pub(crate) fn start(&mut self) {
        assert!(self.live.is_none(), "the mount is already there");
        let slow = if self.way.passthrough {
            ""
        } else {
            ",no_passthrough"
        };
        let options = format!("layout={}{slow}", self.way.layout);
        self.live = Some(self.world.mount(&["-o", &options]));
    }

    /// Kills the daemon where it stands and takes its dead mount away. Says whether it was alive until then.
    pub(crate) fn kill(&mut self) -> bool {
        use rustix::mount::UnmountFlags;
        let mut live = self.live.take().unwrap();
        let alive = Path::new(&format!("/proc/{}/exe", live.pid())).exists();
        live.signal(rustix::process::Signal::KILL);
        // By force: the killed process may wait in the kernel for a request that only it could have answered.
        let by_force = UnmountFlags::FORCE | UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(self.root(), by_force);
        live.kill();
        alive
    }

    /// Unmounts and waits for the daemon to end well.
    pub(crate) fn stop(&mut self) {
        self.live.take().unwrap().unmount();
    }

    /// The mountpoint.
    pub(crate) fn root(&self) -> PathBuf {
        self.world.root().join("mnt")
    }

    /// A path below the mountpoint, such as `default/OUTPUT`.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// A folder beside the mount, on an ordinary file system.
    pub(crate) fn outside(&self) -> PathBuf {
        let path = self.world.root().join("outside");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A store's directory in the storage folder.
    pub(crate) fn backing(&self, store: &str) -> PathBuf {
        self.world.source(store)
    }

    /// A record of `default` as a program that reads the folder itself finds it, in both layouts.
    pub(crate) fn beside(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.backing("default").join(key)).ok()
    }

    /// What `storefs status` says of the mount.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        self.live.as_ref().unwrap().status()
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        self.live
            .as_ref()
            .map(support::Mount::log)
            .unwrap_or_default()
    }

    /// Runs a script with bash in `default` of the mount; `$MNT`, `$OUT` (an ordinary folder) and `$BACK` (the store's
    /// directory behind the mount) are set.
    pub(crate) fn try_sh(&self, script: &str) -> Output {
        let mut command = Command::new("timeout");
        clean(&mut command)
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
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let done = self.try_sh(script);
        assert!(
            done.status.success(),
            "{}: {script}\nended with {}\n{}{}",
            self.way,
            done.status,
            text(&done.stdout),
            text(&done.stderr)
        );
        text(&done.stdout)
    }

    /// As `try_sh`, for a script that must fail; gives what it said.
    #[track_caller]
    pub(crate) fn sh_fails(&self, script: &str) -> String {
        let done = self.try_sh(script);
        let said = text(&done.stderr);
        assert!(!done.status.success(), "{}: {script} succeeded", self.way);
        said
    }

    /// A record read through the mount.
    #[track_caller]
    pub(crate) fn read(&self, key: &str) -> String {
        let path = self.path("default").join(key);
        match fs::read(&path) {
            Ok(bytes) => text(&bytes),
            Err(why) => panic!("{}: {}: {why}", self.way, path.display()),
        }
    }

    /// A record's content type as the mount shows it.
    #[track_caller]
    pub(crate) fn content_type(&self, key: &str) -> String {
        support::type_of(&self.path("default").join(key))
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
    #[track_caller]
    pub(crate) fn wait_for(&self, key: &str, value: &str) {
        let what = format!("{}: {key} becomes {value:?}", self.way);
        wait_until(&what, || {
            self.beside(key).as_deref() == Some(value.as_bytes())
        });
    }

    /// Waits until everything that happened in the folder is known to the mount.
    #[track_caller]
    pub(crate) fn sync(&self) {
        self.live.as_ref().unwrap().sync();
    }

    /// Files left in the temporary folder of the storage folder.
    pub(crate) fn temporaries(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.world.storage().join(".storefs/tmp")];
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
#[track_caller]
pub(crate) fn errno<T: fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap_or(0)
}
