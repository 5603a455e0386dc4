//! A process that does nothing but wait for the end of this one, and cleans up after it when it was killed. It never does
//! anything while this one lives.

use crate::error::{Error, Result};
use crate::serve::Run;
use crate::sys;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const OP: &str = "start the guard of the run";
/// Says that there is nothing to clean up any more.
const DONE: &str = "done\n";
/// Signals that would end the guard and are meant for the run.
const ENDING: [i32; 6] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];
/// Says, with a number behind it, which process group a command has. A command says it by itself.
pub(super) const GROUP: &[u8] = b"group ";

/// A path as it is noted in JSON: as text where it is that, else as its bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Spelled", into = "Spelled")]
pub struct AnyPath(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelled {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Spelled> for AnyPath {
    fn from(spelled: Spelled) -> Self {
        Self(match spelled {
            Spelled::Text(text) => text.into(),
            Spelled::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

impl From<AnyPath> for Spelled {
    fn from(path: AnyPath) -> Self {
        match path.0.into_os_string().into_string() {
            Ok(text) => Self::Text(text),
            Err(other) => Self::Bytes(other.into_vec()),
        }
    }
}

impl From<PathBuf> for AnyPath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<&Path> for AnyPath {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl std::ops::Deref for AnyPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for AnyPath {
    fn as_ref(&self) -> &Path {
        self
    }
}

/// What a run that was killed leaves behind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Left {
    /// The run's id.
    pub run: String,
    /// The folder of its own on this machine, which holds this description, too.
    pub home: AnyPath,
    /// Where it mounted.
    pub mountpoint: Option<AnyPath>,
    /// Whether that directory was made for it.
    pub made: bool,
    /// Its control socket.
    pub socket: Option<AnyPath>,
    /// The folder in which servers of the source keep what they know of runs.
    pub server: AnyPath,
    /// A source that was only for this run.
    pub source: Option<AnyPath>,
    /// What it has not sent to a server yet, and its cached bytes.
    #[serde(default)]
    pub spool: Option<(AnyPath, AnyPath)>,
    /// How it ended, when that could not be kept yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Run>,
    /// The process group of its command. Known to the guard alone, since numbers are used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<i32>,
}

/// The guard, as this process knows it.
#[derive(Debug)]
pub struct Guard {
    pipe: File,
    process: Pid,
}

impl Guard {
    /// Divides the process while it has one thread only. The other one calls `bury` when this one is killed.
    pub fn start(bury: impl FnOnce(&Left)) -> Result<Self> {
        let fault = |why: rustix::io::Errno| Error::io(OP, "", why);
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(fault)?;
        match sys::fork().map_err(|why| Error::io(OP, "", why))? {
            Some(process) => Ok(Self {
                pipe: writer.into(),
                process,
            }),
            None => {
                // Only one end may stay open here, or the end of the other process would never be seen.
                drop(writer);
                watch(reader, bury)
            }
        }
    }

    /// Tells what there is to clean up by now.
    pub fn tell(&self, left: &Left) {
        let Ok(mut line) = serde_json::to_vec(left) else {
            return;
        };
        line.push(b'\n');
        self.say(&line);
    }

    /// Where commands say which group they have.
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    fn say(&self, line: &[u8]) {
        if let Err(why) = (&self.pipe).write_all(line) {
            tracing::debug!("the guard of the run is gone: {why}");
        }
    }

    /// Everything is cleaned up; the guard ends.
    pub fn dismiss(self) {
        self.say(DONE.as_bytes());
        drop(self.pipe);
        let _ = rustix::process::waitpid(Some(self.process), rustix::process::WaitOptions::empty());
    }
}

/// What there is to clean up by then.
fn noted(line: &str, left: Option<Left>) -> Option<Left> {
    match line.as_bytes().strip_prefix(GROUP) {
        Some(number) => left.map(|left| Left {
            group: std::str::from_utf8(number)
                .ok()
                .and_then(|number| number.parse().ok())
                .or(left.group),
            ..left
        }),
        None => serde_json::from_str(line).ok().or(left),
    }
}

/// The life of the guard.
fn watch(reader: OwnedFd, bury: impl FnOnce(&Left)) -> ! {
    // Whoever ends the run, and all of its processes with it, as systemd does, still wants it cleaned up.
    for signal in ENDING {
        sys::ignore(signal);
    }
    // Out of reach of the terminal and of what is sent to the group.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(c"storefs-guard");
    if let Ok(nowhere) = File::options().read(true).write(true).open("/dev/null") {
        // Whoever waits for the end of our output must not wait for the guard.
        let _ = rustix::stdio::dup2_stdin(&nowhere);
        let _ = rustix::stdio::dup2_stdout(&nowhere);
        let _ = rustix::stdio::dup2_stderr(&nowhere);
        sys::close_all_but([reader.as_fd(), nowhere.as_fd()]);
    }
    let mut left = None;
    for line in BufReader::new(File::from(reader))
        .lines()
        .map_while(std::result::Result::ok)
    {
        if line == DONE.trim_end() {
            std::process::exit(0);
        }
        left = noted(&line, left);
    }
    if let Some(left) = left {
        bury(&left);
    }
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_noted_as_they_are_whether_text_or_not() {
        let not_text = PathBuf::from(OsString::from_vec(b"/mnt/\xff".to_vec()));
        for path in [PathBuf::from("/mnt/ü"), not_text] {
            let told = Left {
                home: path.clone().into(),
                spool: Some((path.clone().into(), path.clone().into())),
                ..Left::default()
            };
            let left = noted(&serde_json::to_string(&told).unwrap(), None).unwrap();
            assert_eq!((&*left.home, &*left.spool.unwrap().1), (&*path, &*path));
        }
        let before = r#"{"run":"r","home":"/h","mountpoint":"/m","made":true,"socket":null,"server":"/s","source":null}"#;
        assert_eq!(
            &*noted(before, None).unwrap().mountpoint.unwrap(),
            Path::new("/m")
        );
    }

    #[test]
    fn a_group_is_noted_with_what_was_told_before() {
        let told = Left {
            run: "r".to_owned(),
            ..Left::default()
        };
        let line = serde_json::to_string(&told).unwrap();
        assert!(noted("group 7", None).is_none());
        let left = noted(&line, None);
        let left = noted("group 7", left);
        assert_eq!(left.as_ref().unwrap().group, Some(7));
        assert_eq!(left.as_ref().unwrap().run, "r");
        let left = noted("group", noted("group x", left));
        assert_eq!(left.as_ref().unwrap().group, Some(7));
        // The command has ended.
        assert_eq!(noted(&line, left).unwrap().group, None);
    }
}
