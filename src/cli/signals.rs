//! What signals do to a live mount: TERM and INT unmount it, HUP opens its log and reads its token again. It never ends the process while
//! the kernel may still ask, unless a third signal demands it.

use super::live::Live;
use super::{lines, log};
use crate::control::Served;
use crate::error::{Error, Kind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often a mount in use is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// Takes the signals over from here on; they wait until `watch`.
pub(super) fn take() -> Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|why| Error::io("take signals", "", why))
}

/// Watches in a thread of its own. A mount in use is detached at the second signal or after `drain`.
pub(super) fn watch(mut signals: Signals, live: Arc<Live>, drain: Duration) -> Result<()> {
    let started = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            loop {
                let received: Vec<i32> = signals.wait().collect();
                if received.contains(&SIGHUP) {
                    hang_up(&live);
                }
                if received.iter().any(|signal| *signal != SIGHUP) {
                    terminate(&mut signals, &live, drain);
                }
            }
        });
    started
        .map(|_| ())
        .map_err(|why| Error::io("watch for signals", "", why))
}

fn hang_up(live: &Live) {
    match live.log().map(|path| log::reopen(path)) {
        Some(Ok(())) => tracing::info!("hangup: opened the log again"),
        Some(Err(why)) => tracing::warn!("hangup: {why}"),
        None => tracing::info!("hangup"),
    }
    match live.reload() {
        Some(Ok(())) => tracing::info!("hangup: read the token again"),
        Some(Err(why)) => tracing::warn!("hangup: the token stays as it was: {why}"),
        None => {}
    }
}

/// Unmounts, or says what keeps it busy and goes on trying. Ends the process at a third signal.
fn terminate(signals: &mut Signals, live: &Live, drain: Duration) {
    tracing::info!("asked to end: unmounting");
    let until = Instant::now() + drain;
    let mut told = String::new();
    let mut insistent = false;
    loop {
        match live.unmount(insistent || Instant::now() >= until, None, &mut |_| {}) {
            Ok(_) => break,
            Err(why) if why.kind() == Kind::Busy => {
                let why = why.to_string();
                if why != told {
                    tracing::warn!("{why} (waiting; a second signal detaches it)");
                    told = why;
                }
            }
            Err(why) => {
                // Most likely somebody else unmounted it meanwhile; then the process ends by itself.
                tracing::warn!("{why}");
                return;
            }
        }
        thread::sleep(AGAIN);
        insistent |= signals.pending().any(|signal| signal != SIGHUP);
    }
    loop {
        if signals.wait().any(|signal| signal != SIGHUP) {
            tracing::warn!("asked again: ending now, open files of the mount are cut off");
            live.leave();
            lines::flush();
            std::process::exit(1);
        }
    }
}
