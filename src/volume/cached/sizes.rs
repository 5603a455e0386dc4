//! Lengths that the backend does not tell, learned by reading: for who asked for exact sizes. A length is never guessed.

use super::Inner;
use crate::error::Result;
use crate::record::RecordId;
use crate::record::key::StoreId;
use std::sync::Arc;
use tokio::task::JoinSet;

/// So many records are read at one time to learn their lengths.
const AT_ONCE: usize = 8;

impl Inner {
    /// Whether the length of a record is asked for and not known.
    pub(super) fn lacks_size(&self, id: &RecordId) -> bool {
        self.options.exact_sizes
            && self.index().record(id).is_some_and(|record| {
                record.exists() && record.is_clean() && record.size.exact().is_none()
            })
    }

    /// Learns the length of a record, when it is asked for.
    pub(super) async fn learn_size(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        match self.lacks_size(id) {
            true => self.fetch_whole(id).await,
            false => Ok(()),
        }
    }

    /// Learns the lengths of all records of a store, when they are asked for. What cannot be learned now is tried again when
    /// somebody looks at that record.
    pub(super) async fn learn_sizes(self: &Arc<Self>, store: &StoreId) {
        if !self.options.exact_sizes {
            return;
        }
        let keys: Vec<_> = {
            let index = self.index();
            let records = index.stores.get(store).map(|store| store.records.iter());
            let unknown = records.into_iter().flatten().filter(|(_, record)| {
                record.exists() && record.is_clean() && record.size.exact().is_none()
            });
            unknown.map(|(key, _)| key.clone()).collect()
        };
        let mut learning = JoinSet::new();
        for key in keys {
            if learning.len() >= AT_ONCE {
                learning.join_next().await;
            }
            if self.is_offline() {
                break;
            }
            let id = RecordId {
                store: store.clone(),
                key,
            };
            let inner = self.clone();
            learning.spawn(async move {
                if let Err(e) = inner.learn_size(&id).await {
                    tracing::warn!("the length of {id} is not known: {e}");
                }
            });
        }
        while learning.join_next().await.is_some() {}
    }
}
