//! The verb `umount`: asks the daemon to unmount, and does it itself when there is no daemon any more. It never touches
//! a mount that is not ours.

use super::args::UmountArgs;
use super::config::Surroundings;
use super::exit::Failure;
use super::mounts::{self, Entry};
use super::progress::Progress;
use super::{Outcome, busy, reach};
use crate::control::Request;
use crate::error::{Error, Kind, Result};
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

const OP: &str = "unmount";
/// How often a mount in use is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the daemon may take to end after the kernel let go.
const ENDING: Duration = Duration::from_secs(10);
/// A daemon that does not answer is not waited for longer when nothing waits for it.
const SILENCE_LAZY: Duration = Duration::from_secs(3);

/// `storefs umount`.
pub(super) fn umount(args: &UmountArgs, here: &Surroundings) -> Outcome {
    let entry = reach::find(OP, &args.mountpoint, here)?;
    let until = Instant::now() + args.timeout.unwrap_or_default();
    loop {
        match attempt(&entry, args.lazy, args.timeout, here) {
            Err(why) if why.kind() == Kind::Busy && Instant::now() < until => thread::sleep(AGAIN),
            Err(why) if why.kind() == Kind::Busy => {
                return Err(Error::because(
                    OP,
                    entry.mountpoint.display().to_string(),
                    Kind::Busy,
                    format!(
                        "{} (close them, or umount --lazy)",
                        busy::describe(&busy::holders(&entry, None))
                    ),
                )
                .into());
            }
            Ok(left) if left > 0 && !args.lazy => return Err(not_sent(&entry, left)),
            outcome => return Ok(outcome.map(drop)?),
        }
    }
}

/// What is unmounted all the same; the next mount sends it.
fn not_sent(entry: &Entry, left: usize) -> Failure {
    let why = format!(
        "unmounted, but {left} not sent yet; they stay saved, and the next mount of this source (with the same cache=, if this \
         one had it) sends them"
    );
    let mountpoint = entry.mountpoint.display().to_string();
    Error::because(OP, mountpoint, Kind::TimedOut, why).into()
}

/// How many edits are left to be sent.
fn attempt(
    entry: &Entry,
    lazy: bool,
    drain: Option<Duration>,
    here: &Surroundings,
) -> Result<usize> {
    match reach::connect(OP, entry, here) {
        Ok(client) => {
            let silence = if lazy { SILENCE_LAZY } else { reach::SILENCE };
            let mut client = client.unless_silent_for(silence);
            let request = Request::Umount {
                lazy,
                drain: drain.and_then(|drain| u64::try_from(drain.as_millis()).ok()),
            };
            let mut progress = Progress::on_terminal();
            let asked = client.ask(&request, None, &mut |note| progress.show(note));
            drop(progress);
            let left = match asked {
                Err(_) if client.was_silent() => return silent(entry, client.peer(), lazy),
                // The daemon may have ended before it could answer.
                Err(why) if why.kind() != Kind::Io || is_there(entry)? => return Err(why),
                Err(_) => 0,
                Ok(left) => left
                    .as_u64()
                    .and_then(|left| left.try_into().ok())
                    .unwrap_or(0),
            };
            if !lazy && !client.wait_for_end(Some(ENDING)) {
                let still = format!(
                    "unmounted {}; its daemon is still ending",
                    entry.mountpoint.display()
                );
                let _ = writeln!(io::stderr(), "storefs: {still}");
            }
            Ok(left)
        }
        Err(why) if why.kind() == Kind::NotFound => {
            if reach::is_held_up(entry, here) {
                return mounts::abort(entry).map(|()| 0);
            }
            // No daemon, so nobody can read what is still open: a dead mount is detached.
            let lazy = lazy || mounts::is_dead(&entry.mountpoint);
            mounts::unmount(&entry.mountpoint, lazy).map(|()| 0)
        }
        Err(why) => Err(why),
    }
}

/// The daemon lives and does not answer; it may be stopped.
fn silent(entry: &Entry, pid: Option<i32>, lazy: bool) -> Result<usize> {
    let shown = entry.mountpoint.display();
    let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
    if !lazy {
        let silence = humantime::format_duration(reach::SILENCE);
        let why = format!(
            "its daemon (pid {pid}) does not answer: nothing came from it for {silence} (if it is stopped: kill -CONT {pid}; \
             storefs umount --lazy {shown} detaches the mount without it)"
        );
        return Err(Error::because(OP, shown.to_string(), Kind::TimedOut, why));
    }
    if is_there(entry)? {
        mounts::unmount(&entry.mountpoint, true)?;
    }
    let _ = writeln!(
        io::stderr(),
        "storefs: detached {shown}; its daemon (pid {pid}) does not answer, and ends when it goes on (kill -CONT {pid})"
    );
    Ok(0)
}

fn is_there(entry: &Entry) -> Result<bool> {
    Ok(mounts::all()?
        .iter()
        .any(|other| other.id == entry.id && other.is_ours()))
}
