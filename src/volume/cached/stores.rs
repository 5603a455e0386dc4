//! Stores as directories: which there are, what each is called, and making, renaming and removing them.

use super::Inner;
use super::index::Index;
use crate::backend::{NewStore, StoreChange, StoreInfo, StoreRef};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Key, StoreName, nanoseconds};
use crate::volume::{FileStat, Now};
use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stores come and go rarely: what is known of one is asked for again after this many lifetimes of other answers.
const STORE_TTLS: u32 = 10;

/// What stands between the owner of a store and its name.
const OWNER: char = '~';

/// The store that a name stands for: `NAME`, or `USER~NAME`.
fn named(dir: &StoreName) -> Result<StoreRef> {
    Ok(match dir.as_str().rsplit_once(OWNER) {
        Some((owner, name)) if !owner.is_empty() => StoreRef::Name {
            owner: Some(owner.to_owned()),
            name: StoreName::new(name)?,
        },
        _ => StoreRef::name(dir.clone()),
    })
}

impl Inner {
    /// The directory of a store: its name; else `default` for the default store; else its id.
    fn dir_of(&self, info: &StoreInfo) -> Result<StoreName> {
        match &info.name {
            Some(name) => Ok(name.clone()),
            None if self.options.default_store.as_ref() == Some(&info.id) => {
                StoreName::new("default")
            }
            None => Ok(info.id.clone()),
        }
    }

    /// Whether its directory is that of the unnamed default store.
    fn is_hidden(&self, info: &StoreInfo) -> bool {
        let default = self.options.default_store.as_ref();
        default.is_some_and(|default| {
            *default != info.id
                && info
                    .name
                    .as_ref()
                    .is_some_and(|name| name.as_str() == "default")
        })
    }

    fn enter(&self, index: &mut Index, info: &StoreInfo) -> Result<StoreName> {
        let dir = self.dir_of(info)?;
        let store = index.enter_store(&info.id, &dir, info.name.is_some());
        store.checked = Some(Instant::now());
        if info.secret.is_some() {
            store.secret.clone_from(&info.secret);
        }
        store.created_ns = info.created.map_or(0, nanoseconds);
        store.modified_ns = info.modified.map_or(store.created_ns, nanoseconds);
        self.keeper.store(store);
        Ok(dir)
    }

    fn store_ttl(&self) -> Duration {
        self.options.ttl * STORE_TTLS
    }

    /// The store of a directory, from what is known here, if that is not too old.
    pub(super) fn known_store(&self, dir: &StoreName, any_age: bool) -> Option<StoreId> {
        let index = self.index();
        let store = index.store_of(dir)?;
        let recent = |at: Instant| at.elapsed() < self.store_ttl();
        (any_age || store.checked.is_some_and(recent)).then(|| store.id.clone())
    }

    /// The store of a directory.
    pub(super) async fn resolve(self: &Arc<Self>, dir: &StoreName) -> Result<StoreId> {
        if let Some(id) = self.known_store(dir, false) {
            return Ok(id);
        }
        match self.ask_store(dir).await {
            Ok(id) => Ok(id),
            Err(e) if e.kind() == Kind::Offline => self.known_store(dir, true).ok_or(e),
            Err(e) => {
                if e.kind() == Kind::StoreNotFound
                    && let Some(id) = self.known_store(dir, true)
                {
                    self.note_store_failure(&id, Kind::StoreNotFound);
                }
                Err(e)
            }
        }
    }

    /// Asks for a store again whose answer is old, while what is known of it is shown.
    pub(super) fn look_again(self: &Arc<Self>, dir: &StoreName) {
        if self.known_store(dir, false).is_some() || !self.store_looks().insert(dir.clone()) {
            return;
        }
        let (inner, dir) = (self.clone(), dir.clone());
        self.runtime.spawn(async move {
            if let Err(e) = inner.resolve(&dir).await {
                tracing::debug!("{dir} was not looked at: {e}");
            }
            inner.store_looks().remove(&dir);
        });
    }

    fn store_looks(&self) -> MutexGuard<'_, HashSet<StoreName>> {
        let looks = self.store_looks.lock();
        looks.unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_store(self: &Arc<Self>, dir: &StoreName) -> Result<StoreId> {
        let default = self
            .options
            .default_store
            .as_ref()
            .filter(|_| dir.as_str() == "default");
        let known = self.known_store(dir, true);
        let by_id = |id: &StoreId| StoreRef::Id(id.clone());
        let first = match (&known, default) {
            (Some(id), _) => by_id(id),
            (None, Some(id)) => by_id(id),
            (None, None) => named(dir)?,
        };
        let asked = self
            .look("open the store", dir.as_str(), self.backend.store(&first))
            .await;
        let asked = match asked {
            // An unnamed store is reached by its id; a name may belong to another store by now.
            Err(e) if e.kind() == Kind::StoreNotFound => {
                let second = match first {
                    StoreRef::Id(_) => named(dir)?,
                    StoreRef::Name { .. } => by_id(dir),
                };
                self.look("open the store", dir.as_str(), self.backend.store(&second))
                    .await
            }
            other => other,
        };
        let info = asked?;
        let missing = || Error::new("open the store", dir.as_str(), Kind::StoreNotFound);
        if self.is_hidden(&info) || (info.owner.is_some() && dir.as_str().contains(OWNER)) {
            // Its name may be that of a store of ours.
            return Err(missing());
        }
        let shown = self.enter(&mut self.index(), &info)?;
        if shown != *dir {
            // Every store has one directory, and this is another way to say it.
            self.index().called(dir, &info.id);
            return Err(missing());
        }
        Ok(info.id)
    }

    /// The directory of a store of which this is another name, as far as is known here.
    pub(super) fn called(&self, other: &StoreName) -> Option<StoreName> {
        let index = self.index();
        let id = index.others.get(other).unwrap_or(other);
        let store = index.stores.get(id)?;
        let name = other.as_str().rsplit(OWNER).next().unwrap_or_default();
        let still = store.id == *other || store.dir.as_str().eq_ignore_ascii_case(name);
        (still && store.dir != *other).then(|| store.dir.clone())
    }

    /// Where a store's keys or one of its records are read by everybody.
    pub(super) fn url(self: &Arc<Self>, dir: &StoreName, name: Option<&str>) -> Now<String> {
        let key = match name.map(Key::new).transpose() {
            Ok(key) => key,
            Err(e) => return Now::err(e.with_kind(Kind::NoAttribute)),
        };
        let (inner, dir) = (self.clone(), dir.clone());
        self.run(async move {
            let mut id = inner.resolve(&dir).await?;
            let secret = |id: &StoreId| inner.index().stores.get(id)?.secret.clone();
            if secret(&id).is_none() {
                // A list of stores need not tell it.
                match inner.ask_store(&dir).await {
                    Ok(found) => id = found,
                    Err(e) => tracing::debug!("the URL of {dir} is not signed: {e}"),
                }
            }
            let nowhere = || Error::new("tell the URL of", dir.as_str(), Kind::NoAttribute);
            let url = inner.backend.url(&id, key.as_ref(), secret(&id).as_deref());
            url.ok_or_else(nowhere)
        })
    }

    pub(super) fn store_stat(&self, dir: &StoreName) -> Result<FileStat> {
        let index = self.index();
        let missing = || Error::new("open the store", dir.as_str(), Kind::StoreNotFound);
        let store = index.store_of(dir).ok_or_else(missing)?;
        let at = store.modified_ns.max(store.created_ns);
        Ok(FileStat {
            // Stores are told apart by what they are called at the backend.
            inode: number_of(&store.id),
            modified_ns: at,
            changed_ns: at,
            accessed_ns: at,
            ..directory()
        })
    }

    /// Lists all stores, unless that was done a moment ago.
    pub(super) async fn list_stores(self: &Arc<Self>) -> Result<()> {
        if self
            .index()
            .listed
            .is_some_and(|at| at.elapsed() < self.options.ttl)
        {
            return Ok(());
        }
        if self.options.default_store.is_some() {
            // A server lists no store without a name.
            let default = self.resolve(&StoreName::new("default")?).await;
            if let Err(e) = default {
                tracing::debug!("the default store is not listed: {e}");
            }
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .look("list the stores", "", self.backend.stores(after.as_ref()))
                .await;
            let page = match page {
                Ok(page) => page,
                Err(e) if e.kind() == Kind::Offline && !self.index().dirs.is_empty() => {
                    return Ok(());
                }
                Err(e) => return Err(e),
            };
            let mut index = self.index();
            for info in &page.stores {
                if !self.is_hidden(info) {
                    self.enter(&mut index, info)?;
                }
                seen.push(info.id.clone());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let mut index = self.index();
        let gone: Vec<_> = index
            .stores
            .values()
            // Unnamed ones need not be listed.
            .filter(|store| store.named && !seen.contains(&store.id))
            .map(|store| store.id.clone())
            .collect();
        for id in gone {
            index.remove_store(&id);
            self.keeper.no_store(&id);
        }
        index.listed = Some(Instant::now());
        Ok(())
    }

    pub(super) async fn create_store(self: &Arc<Self>, dir: &StoreName) -> Result<FileStat> {
        let (asked, since) = (Instant::now(), self.index().tick());
        let make = self.backend.create_store(NewStore::named(dir.clone()));
        let (info, made) = self
            .within(self.options.patience, "mkdir", dir.as_str(), make)
            .await?;
        self.enter(&mut self.index(), &info)?;
        if !made {
            return Err(Error::new("mkdir", dir.as_str(), Kind::Exists));
        }
        // Nothing was in it when it was made, so that it need not be listed before it is used.
        self.listed(&info.id, 0, since, asked);
        let (inner, id) = (self.clone(), info.id);
        self.runtime.spawn(async move { inner.follow(&id).await });
        self.store_stat(dir)
    }

    pub(super) async fn remove_store(self: &Arc<Self>, dir: &StoreName) -> Result<()> {
        if !self.options.allow_store_delete {
            let why = "mount with -o allow-store-delete to remove stores of this source";
            return Err(Error::because(
                "rmdir",
                dir.as_str(),
                Kind::NotPermitted,
                why,
            ));
        }
        let id = self.resolve(dir).await?;
        // Removals that wait count as done, so they are done first.
        self.wait_all(Some(&id)).await?;
        self.list_store(&id, Duration::ZERO, false).await?;
        let empty = self
            .index()
            .stores
            .get(&id)
            .is_none_or(|store| store.after(0).next().is_none());
        if !empty || !super::scratch::list(self, dir)?.is_empty() {
            return Err(Error::new("rmdir", dir.as_str(), Kind::NotEmpty));
        }
        let delete = self.backend.delete_store(&id);
        self.within(self.options.patience, "rmdir", dir.as_str(), delete)
            .await?;
        self.index().remove_store(&id);
        self.keeper.no_store(&id);
        Ok(())
    }

    pub(super) async fn rename_store(
        self: &Arc<Self>,
        from: &StoreName,
        to: &StoreName,
    ) -> Result<()> {
        let id = self.resolve(from).await?;
        let named = self
            .index()
            .stores
            .get(&id)
            .is_some_and(|store| store.named);
        if !named {
            let why = "only a store that has a name can get another";
            return Err(Error::because(
                "rename",
                from.as_str(),
                Kind::NotPermitted,
                why,
            ));
        }
        let change = self
            .backend
            .update_store(&id, StoreChange::rename(to.clone()));
        let info = self
            .within(self.options.patience, "rename", from.as_str(), change)
            .await?;
        self.enter(&mut self.index(), &info)?;
        Ok(())
    }
}

/// What every directory shows.
pub(super) fn directory() -> FileStat {
    FileStat {
        mode: libc::S_IFDIR | 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        links: 2,
        ..FileStat::default()
    }
}

fn number_of(id: &StoreId) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    id.as_str().hash(&mut hasher);
    hasher.finish()
}
