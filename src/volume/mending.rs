//! Waiting for what SDKs left half to be mended, and looking at it again when nobody waits. What is mended, and how, the store
//! itself decides. Nothing here waits for ever.

use crate::backend::dir::{Folder, Store};
use crate::record::StoreName;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What looks half-written is mended when it is two seconds old. An SDK that died in the middle must not hold anybody
/// for longer than this.
const MOST: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// When it is looked again after something could not be mended yet.
const LATER: Duration = Duration::from_millis(600);

/// Looks later at stores in which something was left to mend, also when nothing more happens in them.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// The stores that somebody will look at.
    stores: Arc<Mutex<HashSet<StoreName>>>,
}

fn lock(stores: &Mutex<HashSet<StoreName>>) -> MutexGuard<'_, HashSet<StoreName>> {
    stores.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Later {
    /// Sees to it that a store is looked at again, if its last look left something.
    pub(super) fn see_to(&self, folder: &Arc<Folder>, store: &Store) {
        let name = store.name().clone();
        if !store.is_unmended() || !lock(&self.stores).insert(name.clone()) {
            return;
        }
        // Who ended the mount does not wait for this.
        let folder = Arc::downgrade(folder);
        let stores = self.stores.clone();
        let started = thread::Builder::new()
            .name("storefs-mend".into())
            .spawn(move || {
                thread::sleep(LATER);
                lock(&stores).remove(&name);
                if let Some(folder) = folder.upgrade() {
                    mend(&folder, Some(&name));
                }
            });
        if let Err(why) = started {
            lock(&self.stores).remove(store.name());
            tracing::debug!("{} is mended when it is used: {why}", store.name());
        }
    }
}

/// Returns when the records of this store, or of all, are as every SDK reads them, or when it has waited long enough.
pub(super) fn mend(folder: &Folder, store: Option<&StoreName>) {
    let names = match store {
        Some(name) => vec![name.clone()],
        None => folder.stores().unwrap_or_default(),
    };
    let until = Instant::now() + MOST;
    for name in &names {
        loop {
            match folder.store(name).and_then(|store| store.mended()) {
                Ok(false) => {}
                Ok(true) => break,
                // It went meanwhile, or nobody can read it: then there is nothing to wait for.
                Err(error) => {
                    tracing::debug!("{name} is not mended: {error}");
                    break;
                }
            }
            if Instant::now() > until {
                tracing::warn!(
                    "{name}: an SDK left a record half-written; it is mended when it can be"
                );
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
