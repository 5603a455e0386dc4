//! The cards of a folder's stores: which id each directory has. They are made when somebody asks for ids, never by a mount
//! alone. Two processes on one folder agree by a lock. Without a place to write, ids follow from the directories.

use super::binding::{bind, read_all};
use super::card::{self, Card, Version};
use super::disk;
use super::shared::Shared;
use super::uses::Uses;
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::record::key::StoreId;
use crate::record::store::folded_name;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// A state of a directory this young may still get a change that its times do not show.
const YOUNG: Duration = Duration::from_millis(50);
/// The cards' lock is held for as long as it takes to write a few files. Whoever waits this long is told.
const PATIENCE: u32 = 2000;
/// So often is a lock tried again that is held for a moment.
const SPINS: u32 = 200;

/// All cards of a folder.
#[derive(Debug, Default)]
pub(super) struct Cards {
    known: Mutex<Known>,
    warned: AtomicBool,
}

/// What was read of them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) cards: HashMap<StoreId, Kept>,
    /// The stores that are there, by their directories.
    pub(super) dirs: HashMap<StoreName, StoreId>,
    /// The two directories as they were when all this was so.
    stamp: Option<[Option<(u64, i64, i64)>; 2]>,
    /// Files that are no cards.
    pub(super) broken: HashMap<String, Version>,
    place: Option<Arc<OwnedFd>>,
}

/// One card.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) card: Card,
    pub(super) uses: Arc<Uses>,
    pub(super) version: Version,
    pub(super) there: bool,
}

/// The stores' directory and the names and identities in it.
pub(super) struct Stores {
    pub(super) dir: Option<Arc<OwnedFd>>,
    pub(super) names: Vec<StoreName>,
}

/// Held while cards are written.
pub(super) struct Pen {
    place: Arc<OwnedFd>,
}

impl Drop for Pen {
    fn drop(&mut self) {
        let _ = flock(&self.place, FlockOperation::Unlock);
    }
}

fn times(dir: Option<BorrowedFd<'_>>) -> Option<(u64, i64, i64)> {
    let stat = disk::stat_open(dir?).ok()?;
    Some((stat.inode, stat.modified_ns, stat.changed_ns))
}

impl Known {
    /// The card of a store that is there.
    pub(super) fn card(&self, id: &StoreId) -> Option<&Kept> {
        self.cards.get(id).filter(|kept| kept.there)
    }

    /// The cards of all stores that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = (&StoreId, &Kept)> {
        self.cards.iter().filter(|(_, kept)| kept.there)
    }

    /// The owner's store of this name: spelt so, else in other letter case. An SDK may have made several of these.
    pub(super) fn named(&self, owner: Option<&str>, name: &StoreName) -> Option<&StoreId> {
        let wanted = folded_name(name.as_str());
        let own = self.all().filter(|(_, kept)| {
            let named = kept.card.name.as_deref();
            kept.card.owner.as_deref() == owner
                && named.is_some_and(|named| folded_name(named) == wanted)
        });
        let exact = |kept: &Kept| kept.card.name.as_deref() == Some(name.as_str());
        own.min_by_key(|(id, kept)| (!exact(kept), kept.card.created, (*id).clone()))
            .map(|(id, _)| id)
    }

    /// Whether a directory could be called so beside the others, one of them left out of account.
    pub(super) fn is_free(&self, dir: &StoreName, except: Option<&StoreId>) -> bool {
        let wanted = folded_name(dir.as_str());
        self.dirs
            .iter()
            .all(|(other, id)| Some(id) == except || folded_name(other.as_str()) != wanted)
    }

    /// The ids of stores that are gone and were in this directory.
    pub(super) fn gone_from(&self, dir: &StoreName) -> Vec<StoreId> {
        let gone = self.cards.iter().filter(|(_, kept)| {
            !kept.there && folded_name(&kept.card.dir) == folded_name(dir.as_str())
        });
        gone.map(|(id, _)| id.clone()).collect()
    }

    /// Whether an id is given, be it to a store that is gone.
    pub(super) fn is_given(&self, id: &str) -> bool {
        StoreId::new(id).is_ok_and(|id| self.cards.contains_key(&id))
            || self.broken.contains_key(&card::file_of(id))
    }
}

impl Cards {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was known at the last look.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.lock()
    }

    /// The same if nobody holds it for long. Most hold it for a look into a table, which is shorter than handing the work on to
    /// another thread.
    pub(super) fn known_at_once(&self) -> Option<MutexGuard<'_, Known>> {
        for _ in 0..SPINS {
            match self.known.try_lock() {
                Ok(known) => return Some(known),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// What is so now.
    pub(super) fn fresh(
        &self,
        shared: &Shared,
        stores: impl Fn() -> Result<Stores>,
        dir: Option<BorrowedFd<'_>>,
    ) -> Result<MutexGuard<'_, Known>> {
        let mut known = self.lock();
        let stamp = [times(dir), times(known.place.as_ref().map(|at| at.as_fd()))];
        if known.stamp != Some(stamp) {
            self.look(shared, &mut known, &stores, true)?;
        }
        Ok(known)
    }

    /// What is so now, and what keeps it so until the caller has written. No pen where nothing can be written.
    pub(super) fn to_write(
        &self,
        shared: &Shared,
        stores: impl Fn() -> Result<Stores>,
    ) -> Result<(MutexGuard<'_, Known>, Option<Pen>)> {
        let mut known = self.lock();
        let pen = self.look(shared, &mut known, &stores, true)?;
        Ok((known, pen))
    }

    /// Writes a card and remembers it.
    pub(super) fn write(
        shared: &Shared,
        known: &mut Known,
        pen: Option<&Pen>,
        card: Card,
    ) -> Result<()> {
        let version = match pen {
            Some(pen) => card::write(pen.place.as_fd(), shared.temp()?, &card)?,
            None => Version::default(),
        };
        let (id, dir) = (StoreId::new(&card.id)?, StoreName::new(&card.dir)?);
        let uses = known.cards.get(&id).map(|kept| kept.uses.clone());
        known.dirs.retain(|_, other| *other != id);
        known.dirs.insert(dir, id.clone());
        let kept = Kept {
            card,
            uses: uses.unwrap_or_default(),
            version,
            there: true,
        };
        known.cards.insert(id, kept);
        known.stamp = None;
        Ok(())
    }

    /// Removes a card.
    pub(super) fn remove(known: &mut Known, pen: Option<&Pen>, id: &StoreId) -> Result<()> {
        if let Some(pen) = pen {
            let file = card::file_of(id.as_str());
            disk::remove(pen.place.as_fd(), &file)
                .map_err(|error| Error::io("remove the card of the store", id.as_str(), error))?;
        }
        known.cards.remove(id);
        known.dirs.retain(|_, other| other != id);
        known.stamp = None;
        Ok(())
    }

    /// Brings the cards up to date before a store is made, moved or removed, so that each says where its store is. Costs a
    /// failed open where there are no cards.
    pub(super) fn prepare(
        &self,
        shared: &Shared,
        stores: impl Fn() -> Result<Stores>,
    ) -> Result<()> {
        self.look(shared, &mut self.lock(), &stores, false)
            .map(drop)
    }

    /// The store of this directory is gone or another one: its id is nobody's.
    pub(super) fn forget(&self, shared: &Shared, dir: &StoreName) -> Result<()> {
        self.correct(shared, dir, None)
    }

    /// The store of one directory has another now, and what was there is gone.
    pub(super) fn renamed(&self, shared: &Shared, from: &StoreName, to: &StoreName) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.correct(shared, to, Some(from))
    }

    fn correct(&self, shared: &Shared, dir: &StoreName, came: Option<&StoreName>) -> Result<()> {
        let mut known = self.lock();
        let Some(pen) = self.pen(shared, &mut known, false)? else {
            return Ok(());
        };
        read_all(&mut known, pen.place.as_fd())?;
        let of = |known: &Known, dir: &StoreName| -> Vec<StoreId> {
            let named = known.cards.iter();
            let named = named.filter(|(_, kept)| kept.card.dir == dir.as_str());
            named.map(|(id, _)| id.clone()).collect()
        };
        for id in of(&known, dir) {
            Self::remove(&mut known, Some(&pen), &id)?;
        }
        for id in came.map_or_else(Vec::new, |came| of(&known, came)) {
            if let Some(kept) = known.cards.get(&id) {
                let (mut card, identity) = (kept.card.clone(), kept.card.identity());
                card.moved(dir, identity);
                Self::write(shared, &mut known, Some(&pen), card)?;
            }
        }
        Ok(())
    }

    /// The place of the cards, locked. None where there is none and none can be or shall be made.
    fn pen(&self, shared: &Shared, known: &mut Known, make: bool) -> Result<Option<Pen>> {
        if shared.options.read_only {
            known.place = shared.cards(false).ok().map(Arc::new);
            return Ok(None);
        }
        // Looked up each time: somebody may have removed all of it.
        known.place = match shared.cards(make) {
            Ok(place) => Some(Arc::new(place)),
            Err(error) if !make && error.kind() == Kind::NotFound => None,
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!("ids and owners of stores are not kept: {error}");
                }
                None
            }
        };
        let Some(place) = known.place.clone() else {
            return Ok(None);
        };
        for _ in 0..PATIENCE {
            if flock(&place, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Some(Pen { place }));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Error::because(
            "look at the stores' cards",
            ".storefs/stores",
            Kind::Busy,
            "another process has held their lock for 10 seconds; look for one that is stopped",
        ))
    }

    /// Reads what changed, finds each card's directory and gives cards to those that have none.
    fn look(
        &self,
        shared: &Shared,
        known: &mut Known,
        stores: &impl Fn() -> Result<Stores>,
        make: bool,
    ) -> Result<Option<Pen>> {
        let pen = self.pen(shared, known, make)?;
        if pen.is_none() && !make {
            return Ok(None);
        }
        if let Some(place) = known.place.clone() {
            read_all(known, place.as_fd())?;
        } else {
            known.broken.clear();
        }
        let found = stores()?;
        let dir = found.dir.as_ref().map(|dir| dir.as_fd());
        let before = times(dir);
        let mut there = Vec::with_capacity(found.names.len());
        for name in found.names {
            let identity = dir.map(|dir| card::identity(dir, name.as_str()));
            if let Some(Ok(made)) = identity {
                there.push((name, made));
            }
        }
        bind(shared, known, pen.as_ref(), there)?;
        let stamp = [
            before,
            times(known.place.as_ref().map(|place| place.as_fd())),
        ];
        let newest = stamp.iter().flatten().map(|(_, m, c)| *m.max(c)).max();
        let settled = newest.is_none_or(|newest| super::js_lock::age(newest) > YOUNG);
        known.stamp = settled.then_some(stamp);
        Ok(pen)
    }
}
