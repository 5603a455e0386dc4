//! What is shown of the volume itself: attributes of records, the queue, the status.

use super::Inner;
use super::state::{Remote, State};
use crate::error::{Error, Kind, Result};
use crate::record::{ETag, StoreName, nanoseconds};

impl Inner {
    /// The attributes that show what is known of a record.
    pub(super) fn attribute(
        &self,
        dir: &StoreName,
        name: &str,
        which: &str,
    ) -> Option<Result<Vec<u8>>> {
        let none = || Error::new("read the attribute", which, Kind::NoAttribute);
        let id = self.id(dir, name).ok()?;
        let index = self.index();
        let record = index.record(&id)?;
        let text = match which {
            "state" => Some(match &record.state {
                State::Clean { .. } => "clean".to_owned(),
                State::Dirty { .. } if self.is_offline() => "offline".to_owned(),
                State::Dirty { .. } => "dirty".to_owned(),
                State::Uploading { .. } => "uploading".to_owned(),
            }),
            "etag" => match record.there() {
                Remote::At(tag) => Some(ETag::as_str(tag).to_owned()),
                Remote::Absent | Remote::Unknown => None,
            },
            "error" => record.failure.as_ref().map(|failure| failure.text.clone()),
            _ => None,
        };
        Some(text.map(String::into_bytes).ok_or_else(none))
    }

    /// Why a record cannot be sent, when that will not pass by itself.
    pub(super) fn failure(&self, dir: &StoreName, name: &str) -> Option<Error> {
        let id = self.id(dir, name).ok()?;
        let index = self.index();
        let failure = index.record(&id)?.failure.as_ref()?;
        let lasting = !super::upload::may_be_accepted(failure.kind);
        lasting.then(|| Error::because("write", id.to_string(), failure.kind, failure.text.clone()))
    }

    /// What waits to be sent, a line of JSON each.
    pub(super) fn queue_text(&self) -> String {
        let index = self.index();
        let now = std::time::Instant::now();
        let mut lines = String::new();
        for (id, edit) in index.pending(None) {
            let Some(record) = index.record(&id) else {
                continue;
            };
            let line = serde_json::json!({
                "store": id.store.as_str(),
                "key": id.key.as_str(),
                "change": format!("{:?}", edit.change).to_lowercase(),
                "size": record.newest_note().and_then(|note| note.size),
                "uploading": index.in_flight.contains(&id),
                "tries": record.tries,
                "error": record.failure.as_ref().map(|failure| failure.text.clone()),
                "nextTryInSeconds": record.due().saturating_duration_since(now).as_secs_f64(),
                "conflict": record.newest_note().is_some_and(|note| note.conflict),
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        lines
    }

    pub(super) fn status_value(&self) -> serde_json::Value {
        let offline = self.offline_since().map(|since| {
            let at = std::time::UNIX_EPOCH
                + std::time::Duration::from_nanos(nanoseconds(since).unsigned_abs());
            humantime::format_rfc3339_seconds(at).to_string()
        });
        let index = self.index();
        let pending = index.pending(None);
        let failed = pending.iter().filter(|(id, _)| {
            index
                .record(id)
                .is_some_and(|record| record.failure.is_some())
        });
        serde_json::json!({
            "spool": self.spool.dir().display().to_string(),
            "cache": self.cache.display().to_string(),
            "cachedBytes": self.cached_bytes(),
            "unsentBytes": self.budget.used(),
            "pending": pending.len(),
            "leftByRuns": self.rest_folders(),
            "failed": failed.count(),
            "conflicts": index.conflicts,
            "offlineSince": offline,
            "readOnly": self.options.read_only,
            "stores": index.dirs.keys().map(StoreName::as_str).collect::<Vec<_>>(),
        })
    }
}
