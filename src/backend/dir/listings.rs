//! The sorted keys of stores, kept from one page of a listing to the next as long as the directory is the same. Records'
//! bytes and types are not in it.

use super::{Area, FileStat, Folder, Origin, Store};
use crate::error::Result;
use crate::record::Key;
use crate::record::key::StoreId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// So many listings are kept: those that are being read at one time.
const KEPT: usize = 4;
/// A state of a directory this young may still get a change that its times do not show, in nanoseconds.
const YOUNG: u128 = 50_000_000;

/// Listings by store.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<StoreId, Listing>>);

/// All keys of a store at one state of its directory.
#[derive(Debug)]
struct Listing {
    inode: u64,
    times: (i64, i64),
    keys: Arc<Vec<Key>>,
}

impl Listings {
    /// The store and its keys in byte order.
    pub(super) fn keys(
        &self,
        folder: &Folder,
        name: &StoreId,
    ) -> Result<(Arc<Store>, Arc<Vec<Key>>)> {
        let store = folder.store(name)?;
        let stat = FileStat::of_file(store.dir(Area::Store)?)?;
        let times = (stat.modified_ns, stat.changed_ns);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = lock().get(name)
            && (there.inode, there.times) == (stat.inode, times)
        {
            return Ok((store, there.keys.clone()));
        }
        let mut keys = Vec::new();
        store.list(0, &mut |listed| {
            if listed.origin == Origin::Record
                && let Ok(key) = Key::new(listed.name)
            {
                keys.push(key);
            }
            listed.area == Area::Store
        })?;
        keys.sort_unstable();
        let keys = Arc::new(keys);
        let last = u128::try_from(times.0.max(times.1)).unwrap_or(0);
        if UNIX_EPOCH
            .elapsed()
            .is_ok_and(|now| now.as_nanos() > last + YOUNG)
        {
            let mut listings = lock();
            if listings.len() >= KEPT {
                listings.clear();
            }
            let inode = stat.inode;
            let keys = keys.clone();
            listings.insert(name.clone(), Listing { inode, times, keys });
        }
        Ok((store, keys))
    }
}
