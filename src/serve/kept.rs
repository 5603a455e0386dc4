//! What is known of runs that may have ended long ago: one file for each. It never keeps a token or a record.

use super::runs::{Run, Status};
use crate::error::{Error, Result};
use crate::record::store::is_api_id;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder of descriptions of runs. It need not exist yet.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// The one in the folder that servers of a source have for themselves.
    pub fn below(of_server: &Path) -> Self {
        Self {
            folder: of_server.join("runs"),
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Keeps a run in the place of what was known of it.
    pub fn keep(&self, run: &Run) -> Result<()> {
        let fault = |why: io::Error| Error::io("keep the run", run.id.as_str(), why);
        fs::create_dir_all(&self.folder).map_err(fault)?;
        let text = serde_json::to_vec(run).map_err(|why| fault(why.into()))?;
        // Written aside, so that nobody reads half of it.
        let mut aside = tempfile::NamedTempFile::new_in(&self.folder).map_err(fault)?;
        aside.write_all(&text).map_err(fault)?;
        let placed = aside.persist(self.file(&run.id));
        placed.map(|_| ()).map_err(|why| fault(why.error))
    }

    /// The run of this id.
    pub fn run(&self, id: &str) -> Option<Run> {
        let text = is_api_id(id).then(|| fs::read(self.file(id)).ok())??;
        serde_json::from_slice(&text).ok()
    }

    /// The run that began last.
    pub(super) fn last(&self) -> Option<Run> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        });
        ids.filter_map(|id| self.run(&id))
            .max_by_key(|run| run.started)
    }

    /// Whoever ran it is gone without having said how it ended: it failed.
    pub fn bury(&self, id: &str) {
        let Some(mut run) = self
            .run(id)
            .filter(|run| matches!(run.status, Status::Running))
        else {
            return;
        };
        run.status = Status::Failed;
        run.message = Some("storefs run was killed.".to_owned());
        run.finished = Some(SystemTime::now());
        if let Err(why) = self.keep(&run) {
            tracing::warn!("{why}");
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
