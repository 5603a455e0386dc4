//! Where the log goes: standard error, which in the background is a file. It never holds a token or a record's bytes.

use super::config::Surroundings;
use super::lines;
use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use tracing_subscriber::EnvFilter;

const FILTER: &str = "STOREFS_LOG";
/// What is logged by default. The FUSE library warns of every mount that others ended; that is no fault.
const DEFAULT: &str = "info,fuser=error";
/// A log longer than this is put aside as `.old` when the next mount starts.
const MAX_LOG: u64 = 10 << 20;

/// What is logged beside the output of a command.
const QUIET: &str = "warn,fuser=off,access=off";

/// Starts logging to standard error, filtered as `STOREFS_LOG` says.
pub(super) fn start(here: &Surroundings) {
    start_with(here, DEFAULT);
}

/// The same, but by default only what somebody has to know.
pub(super) fn start_quiet(here: &Surroundings) {
    start_with(here, QUIET);
}

fn start_with(here: &Surroundings, default: &str) {
    let wanted = here.var(FILTER).map(|text| text.to_string_lossy());
    let filter = wanted.as_deref().map(EnvFilter::try_new);
    let (filter, fault) = match filter {
        Some(Ok(filter)) => (filter, None),
        Some(Err(why)) => (EnvFilter::new(default), Some(why)),
        None => (EnvFilter::new(default), None),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines::Lines)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if started.is_ok()
        && let Some(why) = fault
    {
        tracing::warn!("{FILTER} is not understood, so `info` is logged: {why}");
    }
}

/// Opens a log for appending (0600, its directory 0700, both made when missing).
pub(super) fn open(path: &Path) -> Result<File> {
    const OP: &str = "open the log";
    let fault = |why: io::Error| Error::io(OP, path.display().to_string(), why);
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fault)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|about| about.len() > MAX_LOG) {
        fs::rename(path, path.with_extension("log.old")).map_err(fault)?;
    }
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(fault)
}

/// Opens the log of a background mount again, after somebody moved it away.
pub(super) fn reopen(path: &Path) -> Result<()> {
    let file = open(path)?;
    rustix::stdio::dup2_stderr(&file)
        .map_err(|why| Error::io("reopen the log", path.display().to_string(), why))
}
