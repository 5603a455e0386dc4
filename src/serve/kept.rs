//! What is known of runs that may have ended long ago: one file for each. It never keeps a token or a record.

use super::runs::{Run, Status};
use crate::backend::dir::OwnDir;
use crate::error::{Error, Kind, Result};
use crate::record::store::is_api_id;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The folder of runs in the server's own one, and how their files are called.
const RUNS: &str = "runs";
const FILE: &str = ".json";
/// The longest description that is read: a status message has at most 9 MiB.
const MAX_RUN: u64 = 16 << 20;
/// Above so many runs the oldest are forgotten, until so many are left.
const MOST: usize = 12_000;
const LEFT: usize = 10_000;
/// How long the lock of the folder is waited for, and how often it is tried.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// How far clocks of files may lie behind those of programs.
const CLOCK: Duration = Duration::from_secs(2);

/// A folder of descriptions of runs. It need not exist yet.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The folder that servers of the source have for themselves; without it nothing is known and nothing is kept.
    server: Option<Arc<OwnDir>>,
}

impl Kept {
    /// The one in the folder that servers of a source have for themselves, when that is there.
    pub fn below(of_server: &Path) -> Self {
        let found = OwnDir::find(of_server).inspect_err(|why| tracing::warn!("{why}"));
        Self::of(found.ok().flatten().map(Arc::new))
    }

    /// The same by the open folder.
    pub(super) fn of(server: Option<Arc<OwnDir>>) -> Self {
        Self { server }
    }

    fn folder(&self) -> Option<OwnDir> {
        let found = self.server.as_ref()?.find_below(RUNS);
        found.inspect_err(|why| tracing::warn!("{why}")).ok()?
    }

    /// Keeps a run in the place of what was known of it. It is for whoever runs it.
    pub fn keep(&self, run: &Run) -> Result<()> {
        let unusable = || {
            let why = "the server's own folder cannot be used";
            Error::because("keep the run", run.id.as_str(), Kind::Denied, why)
        };
        let folder = self.server.as_ref().ok_or_else(unusable)?;
        let folder = folder.make_below(RUNS)?;
        // What is said here is final, so it waits for nobody for ever.
        let _lock = lock(&folder);
        place(&folder, run)?;
        if run.finished.is_some() {
            sweep(&folder, MOST, LEFT);
        }
        Ok(())
    }

    /// Changes what is kept of a run, as it is by then: somebody else runs it, and may tell of its end at any time.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Run)) -> Result<Option<Run>> {
        let Some(folder) = self.folder() else {
            return Ok(None);
        };
        let Some(_lock) = lock(&folder) else {
            return Err(Error::new("change what is kept of the run", id, Kind::Busy));
        };
        let Some(mut run) = read(&folder, id) else {
            return Ok(None);
        };
        change(&mut run);
        place(&folder, &run)?;
        Ok(Some(run))
    }

    /// The run of this id.
    pub fn run(&self, id: &str) -> Option<Run> {
        read(&self.folder()?, id)
    }

    /// The run that began last.
    pub(super) fn last(&self) -> Option<Run> {
        let folder = self.folder()?;
        let mut last: Option<Run> = None;
        for (changed, id) in newest_first(&folder) {
            // What was said of a run was said after its beginning: all that follow began earlier.
            if last
                .as_ref()
                .is_some_and(|run| run.started > changed + CLOCK)
            {
                break;
            }
            let run = read(&folder, &id);
            last = last.into_iter().chain(run).max_by_key(|run| run.started);
        }
        last
    }

    /// Whoever ran it is gone without having said how it ended: it failed.
    pub fn bury(&self, id: &str) {
        let buried = self.change(id, |run| {
            if matches!(run.status, Status::Running) {
                run.status = Status::Failed;
                run.message = Some("storefs run was killed.".to_owned());
                run.finished = Some(SystemTime::now());
            }
        });
        if let Err(why) = buried {
            tracing::warn!("{why}");
        }
    }
}

/// Takes the lock of the folder. A hostile owner of the folder may hold it, so it is not waited for without end.
fn lock(folder: &OwnDir) -> Option<OwnedFd> {
    for _ in 0..TRIES {
        if let Some(lock) = folder.try_lock() {
            return Some(lock);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

fn place(folder: &OwnDir, run: &Run) -> Result<()> {
    let fault = |why: io::Error| Error::io("keep the run", run.id.as_str(), why);
    let text = serde_json::to_vec(run).map_err(|why| fault(why.into()))?;
    let placed = folder.write(&format!("{}{FILE}", run.id), |file| file.write_all(&text));
    placed.map_err(fault)
}

fn read(folder: &OwnDir, id: &str) -> Option<Run> {
    let file = is_api_id(id).then(|| folder.read(&format!("{id}{FILE}")))?;
    let mut text = Vec::new();
    file.ok()?.take(MAX_RUN).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Every run by the time of what was said of it last.
fn newest_first(folder: &OwnDir) -> Vec<(SystemTime, String)> {
    let files = folder.files().unwrap_or_default().into_iter();
    let runs = files.filter_map(|file| {
        let id = file.strip_suffix(FILE)?.to_owned();
        let changed = folder.stat(&file).ok()?.modified_ns;
        let changed = UNIX_EPOCH + Duration::from_nanos(u64::try_from(changed).unwrap_or(0));
        Some((changed, id))
    });
    let mut runs: Vec<_> = runs.collect();
    runs.sort_by(|one, other| other.cmp(one));
    runs
}

/// Forgets the oldest runs when there are too many. Those that go on stay.
fn sweep(folder: &OwnDir, most: usize, left: usize) {
    if folder.files().map_or(0, |files| files.len()) <= most {
        return;
    }
    for (_, id) in newest_first(folder).into_iter().skip(left) {
        let goes_on = read(folder, &id).is_some_and(|run| matches!(run.status, Status::Running));
        if !goes_on {
            let _ = folder.remove(&format!("{id}{FILE}"));
        }
    }
}

/// Times as the API writes them.
pub(super) mod time {
    use crate::serve::reply;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::SystemTime;

    pub(in crate::serve) fn serialize<S: Serializer>(
        time: &SystemTime,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&reply::iso(*time))
    }

    pub(in crate::serve) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339_weak(&text).map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn run(id: &str, started: u64) -> Run {
        let mut run = Run::begun(id, "storeOfRun0000001");
        run.started = SystemTime::UNIX_EPOCH + Duration::from_millis(started);
        run
    }

    #[test]
    fn runs_are_kept_and_the_last_is_the_one_that_began_last() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::below(temp.path());
        assert!(kept.last().is_none());
        kept.keep(&run("aaaaaaaaaaaaaaaaa", 2001)).unwrap();
        kept.keep(&run("bbbbbbbbbbbbbbbbb", 1000)).unwrap();
        let last = kept.last().unwrap();
        assert_eq!(last.id, "aaaaaaaaaaaaaaaaa");
        assert_eq!(
            last.started,
            SystemTime::UNIX_EPOCH + Duration::from_millis(2001)
        );
        assert!(kept.run("../../../etc/passwd").is_none());
    }

    #[test]
    fn the_last_run_is_found_though_an_older_one_was_told_of_later() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::below(temp.path());
        kept.keep(&run("bbbbbbbbbbbbbbbbb", 2_000_000)).unwrap();
        kept.keep(&run("aaaaaaaaaaaaaaaaa", 1_000_000)).unwrap();
        let old = std::fs::File::open(temp.path().join("runs/bbbbbbbbbbbbbbbbb.json")).unwrap();
        old.set_modified(UNIX_EPOCH + Duration::from_secs(2_000))
            .unwrap();
        assert_eq!(kept.last().unwrap().id, "bbbbbbbbbbbbbbbbb");
    }

    #[test]
    fn the_oldest_runs_are_forgotten_but_not_those_that_go_on() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::below(temp.path());
        let ids = ["a", "b", "c", "d", "e", "f"].map(|letter| letter.repeat(17));
        for (at, id) in (1..).zip(&ids) {
            let mut run = run(id, at);
            if id.starts_with(['b', 'c', 'd', 'e', 'f']) {
                run.status = Status::Succeeded;
            }
            kept.keep(&run).unwrap();
            let file = temp.path().join(format!("runs/{id}.json"));
            let file = std::fs::File::open(file).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(at))
                .unwrap();
        }
        let folder = kept.folder().unwrap();
        sweep(&folder, 6, 2);
        assert!(ids.iter().all(|id| kept.run(id).is_some()));
        sweep(&folder, 5, 2);
        let left: Vec<bool> = ids.iter().map(|id| kept.run(id).is_some()).collect();
        assert_eq!(left, [true, false, false, false, true, true]);
    }

    #[test]
    fn a_change_is_made_to_what_is_there_by_then() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::below(temp.path());
        let id = "aaaaaaaaaaaaaaaaa";
        assert!(kept.change(id, |_| ()).unwrap().is_none());
        kept.keep(&run(id, 1)).unwrap();
        let held = kept.folder().unwrap().try_lock().unwrap();
        let waits = std::thread::spawn({
            let kept = kept.clone();
            move || kept.change(id, |run| run.message = Some("said".to_owned()))
        });
        // Whoever runs it says meanwhile that it has ended.
        let mut ended = run(id, 1);
        ended.status = Status::Succeeded;
        place(&kept.folder().unwrap(), &ended).unwrap();
        drop(held);
        let changed = waits.join().unwrap().unwrap().unwrap();
        assert_eq!(changed.status, Status::Succeeded);
        let now = kept.run(id).unwrap();
        assert_eq!(now.status, Status::Succeeded);
        assert_eq!(now.message.as_deref(), Some("said"));
    }

    #[test]
    fn only_a_run_that_seems_to_go_on_is_buried() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept::below(temp.path());
        let mut ended = run("aaaaaaaaaaaaaaaaa", 1);
        ended.status = Status::Succeeded;
        kept.keep(&ended).unwrap();
        kept.keep(&run("bbbbbbbbbbbbbbbbb", 1)).unwrap();
        for id in [
            "aaaaaaaaaaaaaaaaa",
            "bbbbbbbbbbbbbbbbb",
            "ccccccccccccccccc",
        ] {
            kept.bury(id);
        }
        assert_eq!(
            kept.run("aaaaaaaaaaaaaaaaa").unwrap().status,
            Status::Succeeded
        );
        let buried = kept.run("bbbbbbbbbbbbbbbbb").unwrap();
        assert_eq!(buried.status, Status::Failed);
        assert!(buried.finished.is_some());
        assert!(kept.run("ccccccccccccccccc").is_none());
    }
}
