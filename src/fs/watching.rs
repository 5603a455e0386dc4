//! Changes made in the folder by others: which caches of the kernel they make stale. It never touches a record.

use crate::record::StoreName;
use std::time::Duration;

/// What is watched.
#[derive(Default, Debug)]
pub(super) struct Watching {}

impl Watching {
    pub(super) fn ttl(&self, configured: Duration) -> Duration {
        configured
    }
    pub(super) fn pushes(&self, _ino: u64) -> bool {
        false
    }
    pub(super) fn settle(&self) {}
    pub(super) fn watch_store(&self, _store: &StoreName, _ino: u64) {}
    pub(super) fn store_renamed(&self, _from: &StoreName, _to: &StoreName) {}
    pub(super) fn status(&self) -> serde_json::Value {
        serde_json::json!(false)
    }
}
