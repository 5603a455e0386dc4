//! The verb `sync`: waits until a mount has handled everything. It never changes anything itself.

use super::Outcome;
use super::args::SyncArgs;
use super::config::Surroundings;
use super::progress::Progress;
use super::reach;
use crate::control::Request;
use crate::error::Error;

const OP: &str = "sync";

/// `storefs sync`.
pub(super) fn sync(args: &SyncArgs, here: &Surroundings) -> Outcome {
    let entry = reach::find(OP, &args.mountpoint, here)?;
    let request = Request::Sync {
        store: args.store.clone(),
    };
    let mut progress = Progress::on_terminal();
    let done = reach::connect(OP, &entry, here)?
        .ask(&request, args.timeout, &mut |note| progress.show(note));
    drop(progress);
    done.map_err(|why| {
        let subject = match &args.store {
            Some(store) => entry.mountpoint.join(store),
            None => entry.mountpoint.clone(),
        };
        Error::because(OP, subject.display().to_string(), why.kind(), reason(&why))
    })?;
    Ok(())
}

/// The words of an error without its own `what, on what`.
fn reason(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
