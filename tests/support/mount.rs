//! A program that mounts, and its end.

use super::{STOREFS, clean, mountinfo, sh_in, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A mount of the program, in the foreground. Dropped, it is detached, its process killed and its mountpoint removed.
pub struct Mount {
    path: PathBuf,
    source: PathBuf,
    child: Child,
    log: Arc<Mutex<String>>,
    /// The mountpoint was there before.
    stays: bool,
}

impl Mount {
    /// Starts the command, which mounts at `path`, and waits for the line that says so.
    #[track_caller]
    pub fn start(mut command: Command, path: &Path, source: &Path) -> Self {
        let stays = path.exists();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut mount = Self {
            path: path.to_owned(),
            source: source.to_owned(),
            child,
            log,
            stays,
        };
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        if !line.starts_with("mounted ") {
            let ended = mount.child.wait();
            panic!(
                "{command:?} did not mount: {ended:?} {line:?}\n{}",
                mount.log()
            );
        }
        // Read on, so that the program can never wait for us.
        collect(out, Arc::clone(&mount.log));
        mount
    }

    /// A path below the mountpoint.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.path.join(inside)
    }

    /// A path below `key_value_stores/` of the source.
    pub fn source(&self, inside: &str) -> PathBuf {
        self.source.join("key_value_stores").join(inside)
    }

    /// The process of the mount.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until everything written, and every event of the folder, is handled: `storefs sync`.
    #[track_caller]
    pub fn sync(&self) {
        let output = self.storefs(&["sync"]).output().unwrap();
        assert!(output.status.success(), "sync: {output:?}\n{}", self.log());
    }

    /// `storefs status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.storefs(&["status", "--json"]).output().unwrap();
        assert!(
            output.status.success(),
            "status: {output:?}\n{}",
            self.log()
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A command on this mount; the mountpoint is put after the arguments.
    pub fn storefs(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(STOREFS);
        clean(&mut command).args(arguments).arg(&self.path);
        command
    }

    /// Runs a bash script in the mountpoint's parent with `MNT` and `SRC` set; panics when it fails. Returns what it
    /// printed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let places: [(&str, &Path); 2] = [("MNT", &self.path), ("SRC", &self.source)];
        sh_in(self.path.parent().unwrap(), &places, script)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills the process as a crash would, and leaves the dead mount.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the mount's process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Unmounts with `storefs umount` and asserts that the process ends well.
    #[track_caller]
    pub fn unmount(mut self) {
        let output = self.storefs(&["umount"]).output().unwrap();
        assert!(
            output.status.success(),
            "umount: {output:?}\n{}",
            self.log()
        );
        let status = self.wait();
        assert!(status.success(), "{status:?}\n{}", self.log());
        assert_eq!(mountinfo(&self.path), None);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.path);
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        detach(&self.path);
        if !self.stays {
            let _ = std::fs::remove_dir(&self.path);
        }
        if thread::panicking() {
            eprintln!(
                "--- log of the mount at {} ---\n{}",
                self.path.display(),
                self.log()
            );
        }
    }
}

/// Lets go of a mount, if there is one, whoever uses it.
pub fn detach(path: &Path) {
    if mountinfo(path).is_some() {
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    }
}

fn collect(from: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
}
