//! The program itself in a process of its own, in an environment that is its own too.

use super::Client;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STOREFS: &str = env!("CARGO_BIN_EXE_storefs");

/// A command in an environment of its own.
pub fn storefs(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(STOREFS);
    command
        .args(args)
        .env_clear()
        .env("HOME", home)
        // What a killed server leaves goes with the test.
        .env("TMPDIR", home)
        .env("USER", "ann")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

pub fn run(home: &Path, args: &[&str]) -> Output {
    storefs(home, args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server that is killed at the latest with the test.
pub struct Serving {
    child: Child,
    /// What it printed first.
    pub lines: Vec<String>,
}

impl Serving {
    /// Starts it, and returns when it has printed so many lines.
    pub fn start(home: &Path, args: &[&str], told: usize) -> Self {
        Self::of(storefs(home, args), told)
    }

    /// The same by a command that may have more in its environment.
    pub fn of(mut command: Command, told: usize) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let lines = (0..told).map(|_| {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        });
        let lines = lines.collect();
        Self { child, lines }
    }

    pub fn address(&self) -> String {
        self.lines[0].rsplit_once("http://").unwrap().1.to_owned()
    }

    /// The most memory that it ever had, in KiB.
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words = line.unwrap().split_whitespace().nth(1).unwrap();
        words.parse().unwrap()
    }

    pub fn client(&self, token: &str) -> Client {
        Client::new(self.address().parse().unwrap(), Some(token))
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: rustix::process::Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (status.code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn home() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    (temp, path)
}
