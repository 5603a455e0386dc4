//! Stores by their ids: finding, making, changing and removing them with their cards. It never looks into a record.

use super::backend::DirBackend;
use super::card::{Card, now};
use super::cards::{Cards, Known, Pen};
use super::uses::Use;
use super::{Area, FileStat, Folder, Store};
use crate::backend::{NewStore, StoreChange, StoreInfo, StoreRef, random, stores};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::record::key::StoreId;
use crate::record::store::{folded_name, is_api_id};
use std::sync::{Arc, MutexGuard};

/// Mode of a new store's directory.
const MODE: u32 = 0o755;
/// Records are removed in pieces of this many.
const PIECE: usize = 1000;

impl Folder {
    /// What is known of ids, where any were given already: nobody gets one because a mount looks.
    fn ids_given(&self) -> Result<Option<MutexGuard<'_, Known>>> {
        match self.shared().cards(false) {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let dir = self.stores_dir();
        let dir = dir.as_ref().map(std::os::fd::AsFd::as_fd);
        let stores = || self.stores_and_dir();
        self.cards().fresh(self.shared(), stores, dir).map(Some)
    }

    /// The id by which the API knows a store, where ids were given. Fails when the stores' cards cannot be read, and with
    /// `Kind::Busy` when another process holds them for 10 seconds.
    pub fn id_of(&self, name: &StoreName) -> Result<Option<StoreId>> {
        let known = self.ids_given()?;
        Ok(known.and_then(|known| known.dirs.get(name).cloned()))
    }

    /// The store whose name this is in other letter case, or that the API knows by this id. Reads the directory of stores, and
    /// may wait for a process that gives out ids. Fails as `id_of` does.
    pub fn store_said_otherwise(&self, said: &str) -> Result<Option<StoreName>> {
        let wanted = folded_name(said);
        let mut stores = self.stores()?.into_iter();
        let found = stores.find(|store| folded_name(store.as_str()) == wanted);
        if found.is_some() || !is_api_id(said) {
            return Ok(found);
        }
        let (known, id) = (self.ids_given()?, StoreId::new(said)?);
        let dir = known.and_then(|known| Some(StoreName::new(&known.card(&id)?.card.dir)));
        dir.transpose()
    }
}

/// Where the store of an id was when its card was read.
struct Home {
    dir: StoreName,
    inode: u64,
}

impl Home {
    fn of(known: &Known, id: &StoreId) -> Option<Self> {
        let card = &known.card(id)?.card;
        Some(Self {
            dir: StoreName::new(&card.dir).ok()?,
            inode: card.inode,
        })
    }
}

impl DirBackend {
    fn known(&self) -> Result<MutexGuard<'_, Known>> {
        let stores = || self.folder.stores_and_dir();
        let dir = self.folder.stores_dir();
        let dir = dir.as_ref().map(std::os::fd::AsFd::as_fd);
        self.folder.cards().fresh(self.folder.shared(), stores, dir)
    }

    fn to_write(&self) -> Result<(MutexGuard<'_, Known>, Option<Pen>)> {
        let stores = || self.folder.stores_and_dir();
        self.folder.cards().to_write(self.folder.shared(), stores)
    }

    /// The store with a card, if its directory is still the one that has the id. It asks the disk.
    fn at_home(&self, home: &Home) -> Option<Result<Arc<Store>>> {
        let store = self.folder.store(&home.dir);
        match &store {
            Ok(store) if store.id().1 != home.inode => None,
            Err(error) if error.kind() == Kind::StoreNotFound => None,
            _ => Some(store),
        }
    }

    /// The store of an id. Looks at the cards only when the directory is not where it was.
    pub(super) fn store_of(&self, id: &StoreId) -> Result<Arc<Store>> {
        let home = Home::of(&self.folder.cards().known(), id);
        if let Some(store) = home.and_then(|home| self.at_home(&home)) {
            return store;
        }
        let missing = || StoreRef::Id(id.clone()).missing("open the store");
        if !is_api_id(id.as_str()) {
            return Err(missing());
        }
        let home = Home::of(&self.to_write()?.0, id);
        let store = home.and_then(|home| self.at_home(&home));
        store.unwrap_or_else(|| Err(missing()))
    }

    /// A store whose records can be looked up or written without waiting: its directory need not be read first, nobody holds the
    /// cards, and the disk is this machine's own. Counted as a use of it.
    pub(super) fn at_once(&self, id: &StoreId, what: Use) -> Option<Arc<Store>> {
        if !self.live.is_local() {
            return None;
        }
        let (home, uses) = {
            let known = self.folder.cards().known_at_once()?;
            (Home::of(&known, id)?, known.card(id)?.uses.clone())
        };
        let store = self.at_home(&home)?.ok()?;
        let waits = what != Use::Read && !store.is_plain();
        if waits || !store.is_ready() {
            return None;
        }
        if uses.count(what) {
            self.have_uses_written(id);
        }
        Some(store)
    }

    /// The store of an id, counted as a use of it.
    pub(super) fn used(&self, id: &StoreId, what: Use) -> Result<Arc<Store>> {
        let store = self.store_of(id)?;
        self.count(id, what);
        Ok(store)
    }

    /// Counts a use of a store, and has the counts written when it is time.
    pub(super) fn count(&self, id: &StoreId, what: Use) {
        let due = {
            let known = self.folder.cards().known();
            known.card(id).is_some_and(|kept| kept.uses.count(what))
        };
        if due {
            self.have_uses_written(id);
        }
    }

    fn have_uses_written(&self, id: &StoreId) {
        let (this, id) = (self.clone(), id.clone());
        let write = move || {
            if let Err(error) = this.write_uses(Some(&id)) {
                tracing::warn!("the uses of the store {id} are not written down: {error}");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(write)),
            Err(_) => write(),
        }
    }

    /// Writes the uses of one store or of all to the cards.
    pub(super) fn write_uses(&self, only: Option<&StoreId>) -> Result<()> {
        if self.folder.options().read_only {
            return Ok(());
        }
        let (mut known, pen) = self.to_write()?;
        let used = known
            .all()
            .filter(|(id, kept)| only.is_none_or(|only| only == *id) && kept.uses.any());
        let used: Vec<StoreId> = used.map(|(id, _)| id.clone()).collect();
        for id in used {
            let Some(kept) = known.card(&id) else {
                continue;
            };
            let mut card = kept.card.clone();
            kept.uses.pour(&mut card);
            Cards::write(self.folder.shared(), &mut known, pen.as_ref(), card)?;
        }
        Ok(())
    }

    fn info(&self, known: &Known, id: &StoreId) -> Result<StoreInfo> {
        let missing = || StoreRef::Id(id.clone()).missing("open the store");
        let kept = known.card(id).ok_or_else(missing)?;
        let mut info = kept.card.info(id);
        kept.uses.add_to(&mut info);
        if let Some(store) = Home::of(known, id).and_then(|home| self.at_home(&home)) {
            let stat = FileStat::of_file(store?.dir(Area::Store)?)?;
            let changed = super::records::time(stat.modified_ns);
            info.modified = Some(changed).max(info.modified);
            info.created = info.created.or(Some(changed));
        }
        Ok(info)
    }

    pub(super) fn all_now(&self) -> Result<Vec<StoreInfo>> {
        let known = self.known()?;
        let ids = known.all().map(|(id, _)| id);
        // One that is gone since is left out.
        Ok(ids.filter_map(|id| self.info(&known, id).ok()).collect())
    }

    pub(super) fn store_now(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let known = self.known()?;
        let id = match reference {
            StoreRef::Id(id) => Some(id),
            StoreRef::Name { owner, name } => known.named(owner.as_deref(), name),
        };
        let is_there = |id: &&StoreId| {
            let home = Home::of(&known, id);
            home.is_some_and(|home| self.at_home(&home).is_some())
        };
        let there = id.filter(is_there);
        self.info(
            &known,
            there.ok_or_else(|| reference.missing("open the store"))?,
        )
    }

    pub(super) fn create_now(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        self.folder.shared().may_write("make the store")?;
        loop {
            let (mut known, pen) = self.to_write()?;
            if let Some(name) = &new.name
                && let Some(id) = known.named(new.owner.as_deref(), name)
            {
                return Ok((self.info(&known, id)?, false));
            }
            let id = loop {
                let id = random::api_id()?;
                let unused = known.is_free(&StoreName::new(id.as_str())?, None);
                if unused && !known.is_given(id.as_str()) {
                    break StoreId::from(id);
                }
            };
            // Another user's store of the same name has the directory of that name.
            let named = new.name.as_ref().filter(|name| known.is_free(name, None));
            let dir = named.unwrap_or(&id).clone();
            match self.folder.make_store(&dir, MODE) {
                // An SDK was faster: then it is the store of that name, or the name is taken.
                Err(error) if error.kind() == Kind::Exists => continue,
                other => other?,
            };
            // Whatever store had this directory before, its id was that store's.
            let before: Vec<StoreId> = known.gone_from(&dir);
            for before in before {
                Cards::remove(&mut known, pen.as_ref(), &before)?;
            }
            let card = |made| {
                let mut card = Card::first(&dir, made, |_| true)?;
                card.id = id.as_str().to_owned();
                card.name = new.name.as_ref().map(|name| name.as_str().to_owned());
                card.owner = new.owner;
                card.created = Some(now());
                card.modified = card.created;
                card.accessed = card.created;
                card.schema = new.schema;
                card.run = new.run;
                card.actor = new.actor;
                Ok(card)
            };
            let card = self.folder.identity(&dir).and_then(card);
            let written = card.and_then(|card| {
                Cards::write(self.folder.shared(), &mut known, pen.as_ref(), card)
            });
            if written.is_err() {
                // Nobody has heard of it yet.
                let _ = self.folder.drop_store(&dir);
            }
            written?;
            return Ok((self.info(&known, &id)?, true));
        }
    }

    pub(super) fn update_now(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        self.folder.shared().may_write("change the store")?;
        let (mut known, pen) = self.to_write()?;
        let missing = || StoreRef::Id(id.clone()).missing("change the store");
        let kept = known.card(id).ok_or_else(missing)?;
        let mut card = kept.card.clone();
        if let Some(name) = &change.name
            && name.as_ref().map(StoreName::as_str) != card.name.as_deref()
        {
            if let Some(name) = name
                && known
                    .named(card.owner.as_deref(), name)
                    .is_some_and(|other| other != id)
            {
                return Err(stores::taken(name));
            }
            let named = name.as_ref().filter(|name| known.is_free(name, Some(id)));
            let (from, to) = (StoreName::new(&card.dir)?, named.unwrap_or(id).clone());
            self.folder.move_store(&from, &to, true)?;
            card.dir = to.as_str().to_owned();
            card.name = name.as_ref().map(|name| name.as_str().to_owned());
        }
        if let Some(title) = change.title {
            card.title = title;
        }
        if let Some(access) = change.access {
            card.access = access.as_str().to_owned();
        }
        if let Some(schema) = change.schema {
            card.schema = schema;
        }
        card.modified = Some(now());
        Cards::write(self.folder.shared(), &mut known, pen.as_ref(), card)?;
        self.info(&known, id)
    }

    pub(super) fn delete_store_now(&self, id: &StoreId) -> Result<()> {
        self.folder.shared().may_write("delete the store")?;
        let store = self.store_of(id)?;
        remove_records(&store)?;
        let (mut known, pen) = self.to_write()?;
        let missing = || StoreRef::Id(id.clone()).missing("delete the store");
        let card = known.card(id).ok_or_else(missing)?.card.clone();
        let dir = StoreName::new(&card.dir)?;
        // The card goes first: a crash in between leaves an empty store of another id, never one of this id.
        Cards::remove(&mut known, pen.as_ref(), id)?;
        let removed = self.folder.drop_store(&dir);
        if removed.is_err() {
            Cards::write(self.folder.shared(), &mut known, pen.as_ref(), card)?;
        } else {
            self.live.end(id);
        }
        removed
    }
}

fn remove_records(store: &Store) -> Result<()> {
    loop {
        let mut names = Vec::new();
        store.list(0, &mut |listed| {
            if listed.area == Area::Store {
                names.push(listed.name.to_owned());
            }
            listed.area == Area::Store && names.len() < PIECE
        })?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match store.remove(&name) {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

/// Whether it is the error of something that is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::StoreNotFound)
}
