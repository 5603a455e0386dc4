//! How many files a mount may have open at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;

/// How many descriptors this process may have: as many as its hard limit allows, up to what is of use.
pub(super) fn most() -> usize {
    const USEFUL: u64 = 16_384;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(USEFUL).min(USEFUL);
    let raised = Rlimit {
        current: Some(wanted.max(limit.current.unwrap_or(USEFUL))),
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(_) => limit.current.unwrap_or(wanted),
    };
    usize::try_from(now.min(USEFUL)).unwrap_or(1024)
}

/// Makes room for all descriptors that a mount may have, while this process has one thread. Later the kernel makes room for twice
/// as many each time they run out, and for that all of the process's threads wait until every processor has passed a quiescent
/// state (expand_fdtable in fs/file.c), which was seen to take 8 to 16 ms.
pub fn make_room() {
    let last = most().saturating_sub(1);
    if let (Ok(last), Ok(any)) = (i32::try_from(last), File::open("/")) {
        let _ = rustix::io::fcntl_dupfd_cloexec(&any, last);
    }
}
