//! Going to the background: the same program with the same arguments in a session of its own, and a pipe that tells
//! when the mount answers. It never leaves the caller without an answer.

use super::config::BACKGROUND;
use super::exit::Failure;
use super::log;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the background process says on the pipe, once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ready,
    Failed { code: u8, message: String },
}

/// Starts the background process and returns its number once its mount answers. It logs to `log`.
pub(super) fn start(argv: &[OsString], log: &Path) -> std::result::Result<u32, Failure> {
    const OP: &str = "start in the background";
    let fault = |why: io::Error| Error::io(OP, "", why);
    let is_new = !log.exists();
    let log_file = open_log(log)?;
    if let Err(why) = crate::sys::keep_descriptors_from_children() {
        tracing::debug!("the background process inherits open files: {why}");
    }
    let mut command = Command::new(program());
    if let Some((name, rest)) = argv.split_first() {
        command.arg0(name).args(rest);
    }
    let mut child = command
        .env(BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .map_err(fault)?;
    let mut said = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut said).map_err(fault)?;
    }
    match serde_json::from_str(&said) {
        Ok(Word::Ready) => Ok(child.id()),
        Ok(Word::Failed { code, message }) => {
            if is_new {
                // It says nothing that is not said here.
                let _ = fs::remove_file(log);
            }
            Err(Failure { code, message })
        }
        Err(_) => {
            let status = child.wait().map_err(fault)?;
            let why = format!(
                "the background process ended early, {status} (see {})",
                log.display()
            );
            Err(Error::because(OP, "", Kind::Io, why).into())
        }
    }
}

/// This program's file. The name in /proc is kept for when it was replaced or removed since.
fn program() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// The log, or nowhere when it cannot be written: a mount is worth more than its log.
fn open_log(path: &Path) -> Result<File> {
    log::open(path).or_else(|why| {
        Failure::from(why).tell();
        const NOWHERE: &str = "/dev/null";
        let opened = OpenOptions::new().write(true).open(NOWHERE);
        opened.map_err(|why| Error::io("open", NOWHERE, why))
    })
}

/// In the background process: leaves the caller's session, terminal and directory. Called once every path is resolved.
pub(super) fn detach() -> Result<()> {
    const OP: &str = "leave the terminal";
    rustix::process::setsid().map_err(|why| Error::io(OP, "", why))?;
    rustix::process::chdir("/").map_err(|why| Error::io(OP, "", why))
}

/// In the background process: tells the caller that the mount answers.
pub(super) fn tell_ready() {
    tell(&Word::Ready);
}

/// In the background process: tells the caller of a failure, if it still waits.
pub(super) fn tell_outcome<T>(outcome: &std::result::Result<T, Failure>) {
    if let Err(failure) = outcome {
        tell(&Word::Failed {
            code: failure.code,
            message: failure.message.clone(),
        });
    }
}

/// Says the word and closes the pipe: standard output leads nowhere from then on.
fn tell(word: &Word) {
    if let Ok(text) = serde_json::to_vec(word) {
        let mut out = io::stdout();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
}
