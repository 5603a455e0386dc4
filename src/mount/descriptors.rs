//! How many files a mount may have open at a time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::sync::OnceLock;

/// The soft limit of open files that this process began with, once it was raised; 0 for none.
static BEGAN_WITH: OnceLock<u64> = OnceLock::new();

/// How many descriptors this process may have: as many as its hard limit allows, up to what is of use.
pub(super) fn most() -> usize {
    const USEFUL: u64 = 16_384;
    let limit = getrlimit(Resource::Nofile);
    let began_with = limit.current.unwrap_or(0);
    let wanted = limit.maximum.unwrap_or(USEFUL).min(USEFUL);
    let raised = Rlimit {
        current: Some(wanted.max(limit.current.unwrap_or(USEFUL))),
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            let _ = BEGAN_WITH.set(began_with);
            wanted
        }
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

/// The soft limit of open files that commands of this process should have, if it is another one here.
pub fn limit_for_others() -> Option<u64> {
    BEGAN_WITH.get().copied().filter(|limit| *limit > 0)
}
