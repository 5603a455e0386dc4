//! The verb `sync`: waits until a mount has handled everything. It never changes anything itself.

use super::Outcome;
use super::args::SyncArgs;
use super::config::Surroundings;
use super::mounts::Entry;
use super::progress::Progress;
use super::reach;
use crate::control::Request;
use crate::error::{Error, Kind};
use std::time::Duration;

const OP: &str = "sync";
/// How long the mount may take to say why it is late.
const MOMENT: Duration = Duration::from_secs(2);

/// `storefs sync`.
pub(super) fn sync(args: &SyncArgs, here: &Surroundings) -> Outcome {
    let entry = reach::find(OP, &args.mountpoint, here)?;
    let request = Request::Sync {
        store: args.store.clone(),
    };
    let mut progress = Progress::on_terminal();
    let done = reach::connect(OP, &entry, here)?
        .unless_silent_for(reach::SILENCE)
        .ask(&request, args.timeout, &mut |note| progress.show(note));
    drop(progress);
    done.map_err(|why| {
        let is_late = why.kind() == Kind::TimedOut;
        let cause = is_late.then(|| cause_of_delay(&entry, here)).flatten();
        let told = reason(&why);
        let cause = cause.filter(|cause| !told.contains(cause.as_str()));
        let cause = cause.map_or(String::new(), |cause| format!(" ({cause})"));
        let subject = match &args.store {
            Some(store) => entry.mountpoint.join(store),
            None => entry.mountpoint.clone(),
        };
        Error::because(OP, subject.display().to_string(), why.kind(), told + &cause)
    })?;
    Ok(())
}

/// What keeps the mount from sending, as far as it knows. Whether anything waits for that is not the question any more.
fn cause_of_delay(entry: &Entry, here: &Surroundings) -> Option<String> {
    let mut client = reach::connect(OP, entry, here).ok()?;
    let status = client.ask(&Request::Status, Some(MOMENT), &mut |_| {});
    let status = status.ok()?;
    Some(status.get("failure")?.as_str()?.to_owned())
}

/// The words of an error without its own `what, on what`.
fn reason(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
