//! Looking things up in a folder without checking at each step that its directories are still the same. Nothing is written
//! through a store that was found so.

use super::Stat;
use crate::backend::dir::{Folder, Place, Store};
use crate::error::{Kind, Result};
use crate::record::StoreName;
use crate::volume::FileStat;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a store's directory is taken to be the one that was found under its name.
const CHECKED: Duration = Duration::from_millis(5);

/// The store that was looked at last.
#[derive(Debug)]
pub(super) struct Looks {
    folder: Arc<Folder>,
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    name: StoreName,
    store: Arc<Store>,
    at: Instant,
}

impl Looks {
    pub(super) fn new(folder: Arc<Folder>) -> Self {
        let last = Mutex::default();
        Self { folder, last }
    }

    /// A store to look something up in.
    pub(super) fn store(&self, name: &StoreName) -> Result<Arc<Store>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = last.as_ref()
            && look.name == *name
            && look.at.elapsed() < CHECKED
        {
            return Ok(look.store.clone());
        }
        let store = self.folder.store(name)?;
        *last = Some(Look {
            name: name.clone(),
            store: store.clone(),
            at: Instant::now(),
        });
        Ok(store)
    }

    /// What is known of a name, once no SDK writes into its file any more.
    pub(super) fn settled(&self, store: &StoreName, name: &str) -> Result<Stat> {
        let store = self.store(store)?;
        let (place, file) = store.find(name)?;
        let (place, file) = match store.wait_for_writer(&place)? {
            true => store.find(name)?,
            false => (place, file),
        };
        Ok(stat_of(&place, file))
    }

    /// The directories have other names now.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

pub(super) fn stat_of(place: &Place, file: FileStat) -> Stat {
    Stat {
        file,
        origin: place.origin,
    }
}

/// Whether a file that cannot be opened for writing for this reason may still be opened for reading.
pub(super) fn may_still_be_read(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Denied | Kind::NotPermitted | Kind::ReadOnly | Kind::Busy
    )
}

/// What is told of a mounted folder.
pub(super) fn status(folder: &Folder, read_only: bool) -> serde_json::Value {
    let mut names = folder.stores().unwrap_or_default();
    names.sort();
    let stores: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, folder.store(name).ok()?)))
        .map(|(name, store)| {
            serde_json::json!({
                "name": name.as_str(),
                "layout": store.layout().as_str(),
            })
        })
        .collect();
    serde_json::json!({
        "folder": folder.stores_path().display().to_string(),
        "readOnly": read_only,
        "stores": stores,
    })
}
