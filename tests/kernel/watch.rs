//! A reader beside a mount that remembers every value it saw. It never writes.

use super::text;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Reads one file of an ordinary folder over and over, in a thread, and keeps every value it saw.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<BTreeSet<String>>>,
}

impl Watch {
    pub(super) fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let look = move || match fs::read(&path) {
            Ok(bytes) => text(&bytes),
            Err(_) => ABSENT.to_owned(),
        };
        // The first look is over before anything else happens.
        let mut seen = BTreeSet::from([look()]);
        let reader = thread::spawn(move || {
            loop {
                // The last look comes after the word to stop, so that the final value is always among those seen.
                let last = told.load(Ordering::Acquire);
                seen.insert(look());
                if last {
                    return seen;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            stop,
            reader: Some(reader),
        }
    }

    /// Ends the watch; gives every value that was seen, `ABSENT` for a file that was not there.
    pub(crate) fn seen(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Release);
        self.reader.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What a watch shows for a file that is not there.
pub(crate) const ABSENT: &str = "(absent)";

/// A set of values, to compare with what a watch saw.
pub(crate) fn values<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
    all.into_iter().map(str::to_owned).collect()
}
