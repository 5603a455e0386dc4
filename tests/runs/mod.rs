//! Runs of commands, started as a person starts them. Whatever happens in a test, nothing of one goes on or stays mounted:
//! a run that is killed is cleaned up by its guard, and that is waited for.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

use crate::support::{STOREFS, Said, World, clean, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A run in the background.
pub struct Running {
    child: Child,
    out: File,
    err: File,
}

impl Running {
    /// Starts `storefs run` with these arguments in a world's directory.
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        let run = command(world, arguments);
        // A shell that starts the tests in the background has them ignore some signals.
        let mut command = within(&run, &["env", "--default-signal=HUP,INT,QUIT"], world);
        Self::of(&mut command, Stdio::null())
    }

    /// Starts a command that is a run.
    pub fn of(command: &mut Command, input: Stdio) -> Self {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = command
            .stdin(input)
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its guard, once that is ready.
    #[track_caller]
    pub fn guard(&self) -> Pid {
        let pid = self.pid().as_raw_nonzero();
        let is_guard = |child: &&str| {
            let name = fs::read_to_string(format!("/proc/{child}/comm"));
            name.is_ok_and(|name| name == "storefs-guard\n")
        };
        let mut found = None;
        wait_until("the guard is ready", || {
            let list = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(list).unwrap();
            let guard = children.split_whitespace().find(is_guard);
            found = guard.and_then(|guard| Pid::from_raw(guard.parse().unwrap()));
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        text(&self.out)
    }

    /// What it has complained so far, and what its command has with `--output`.
    pub fn err(&self) -> String {
        text(&self.err)
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn until_out(&mut self, wanted: &str) {
        wait_until(wanted, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(
                    self.out().contains(wanted),
                    "{status}: {}\n{}",
                    self.out(),
                    self.err()
                );
            }
            self.out().contains(wanted)
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(mut self) -> Said {
        // Far more than needed: an SDK that compresses a long record on a busy machine takes its time.
        let until = Instant::now() + Duration::from_secs(240);
        let mut status = None;
        while status.is_none() {
            assert!(Instant::now() < until, "it does not end: {}", self.err());
            std::thread::sleep(Duration::from_millis(5));
            status = self.child.try_wait().unwrap();
        }
        Said {
            code: status.unwrap().code(),
            out: self.out(),
            err: self.err(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let mounts = mounts_of(&self.child);
            let _ = self.child.kill();
            let _ = self.child.wait();
            for mount in mounts {
                // Not asserted, since a test may be failing already.
                for _ in 0..400 {
                    if crate::support::mountinfo(&mount).is_none() {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                crate::support::detach(&mount);
            }
        }
    }
}

/// Where the command of a run has its mount, as its environment says.
fn mounts_of(child: &Child) -> Vec<PathBuf> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(children).unwrap_or_default();
    let of_child = |pid: &str| {
        let env = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let found = env
            .split(|byte| *byte == 0)
            .find_map(|pair| pair.strip_prefix(b"ACTOR_MOUNT="))?;
        Some(PathBuf::from(String::from_utf8_lossy(found).into_owned()))
    };
    children.split_whitespace().filter_map(of_child).collect()
}

fn text(mut file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    let _ = file.read_at(&mut bytes, 0);
    let _ = &mut file;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `storefs run` in a world's directory, with its `storage` as the source unless the arguments name one.
pub fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.storefs(&["run"]);
    let path = std::env::var("PATH").unwrap_or_default();
    let programs = Path::new(STOREFS).parent().unwrap();
    command
        .args(arguments)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("LC_ALL", "C");
    command
}

/// The command as an argument of another one.
pub fn within(run: &Command, outer: &[&str], world: &World) -> Command {
    let mut command = Command::new(outer[0]);
    command
        .args(&outer[1..])
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(world.root());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn run(world: &World, arguments: &[&str]) -> Said {
    Running::start(world, arguments).ended()
}

/// Runs a bash script (`set -euo pipefail`) with these options to its end; panics when it fails. What it printed.
#[track_caller]
pub fn script(world: &World, options: &[&str], script: &str) -> String {
    let said = attempt(world, options, script);
    assert_eq!(said.code, Some(0), "{script}\n{said:#?}");
    said.out
}

/// The same for a script that may fail.
#[track_caller]
pub fn attempt(world: &World, options: &[&str], script: &str) -> Said {
    let bash = ["--", "bash", "-euo", "pipefail", "-c", script];
    run(world, &[options, &bash].concat())
}

/// The runs that the world's folder knows, the oldest first.
pub fn kept(world: &World) -> Vec<Value> {
    let folder = world.storage().join(".storefs/serve/runs");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<Value> = entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".json"))
        .map(|entry| serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap())
        .collect();
    runs.sort_by_key(|run| run["started"].as_str().unwrap().to_owned());
    runs
}

/// The only run that the folder knows.
#[track_caller]
pub fn only_run(world: &World) -> Value {
    let mut runs = kept(world);
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// The folder of the default store of the last run.
pub fn store_of_last(world: &World) -> PathBuf {
    let runs = kept(world);
    world.source(runs.last().unwrap()["store"].as_str().unwrap())
}

/// The mounts that are below the folder of runs of root, of this run.
pub fn mount_of(id: &str) -> PathBuf {
    PathBuf::from(format!("/run/storefs/runs/{id}/mnt"))
}

/// What the scripts use: `js` and `py` take requests and print the answers of a process of that SDK, `actor` is the client.
pub fn prelude(tools: &Path) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let (tests, tools) = (tests.display(), tools.display());
    format!(
        r#"
        export STOREFS_TEST_TOOLS={tools} PYTHONDONTWRITEBYTECODE=1 HOME=$PWD/home TESTS={tests}
        export APIFY_DISABLE_KEYRING=1 APIFY_CLI_DISABLE_TELEMETRY=1 APIFY_CLI_SKIP_UPDATE_CHECK=1 CI=1
        mkdir -p home
        js() {{ printf '%s\n' "$@" | node {tests}/sdk/js.mjs 2>>errors | tail -n +2; }}
        py() {{ printf '%s\n' "$@" | {tools}/py/bin/python {tests}/sdk/py.py 2>>errors | tail -n +2; }}
        actor() {{ node {tools}/cli/node_modules/.bin/actor "$@" 2>>errors; }}
        type_of() {{ getfattr --only-values --absolute-names -n user.mime_type "$1"; echo; }}
        "#
    )
}
