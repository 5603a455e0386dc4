//! The cached volume as the tree needs it. Everything here only finds who does the work.

use super::stores::directory;
use super::{Cached, scratch};
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, StoreName};
use crate::volume::{Draft, Entry, FileStat, Heard, Now, Opened, Space, Stat, Touch, Volume};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

/// The block size of statfs, and how many blocks there are: 1 PiB.
const BLOCK: u32 = 4096;
const BLOCKS: u64 = (1 << 50) / BLOCK as u64;

fn no_descriptor(name: &str) -> Error {
    Error::new("use the attributes of", name, Kind::Unsupported)
}

impl Volume for Cached {
    fn read_only(&self) -> bool {
        self.inner.options.read_only
    }

    fn root(&self) -> Now<FileStat> {
        Now::ok(FileStat {
            inode: 1,
            ..directory()
        })
    }

    fn space(&self, _store: Option<&StoreName>) -> Now<Space> {
        Now::ok(Space {
            block: BLOCK,
            blocks: BLOCKS,
            free: BLOCKS,
            available: BLOCKS,
            files: 1 << 32,
            files_free: 1 << 32,
            max_name: u32::try_from(self.inner.properties().max_key).unwrap_or(255),
        })
    }

    fn stores(&self) -> Result<Vec<StoreName>> {
        Ok(self.inner.index().dirs.keys().cloned().collect())
    }

    fn store(&self, store: &StoreName) -> Now<FileStat> {
        if self.inner.known_store(store, true).is_some() {
            // Who only walks through it never waits for the backend.
            self.inner.look_again(store);
            return self.inner.store_stat(store).into();
        }
        let (inner, store) = (self.inner.clone(), store.clone());
        self.inner.run(async move {
            inner.resolve(&store).await?;
            inner.store_stat(&store)
        })
    }

    fn create_store(
        &self,
        store: &StoreName,
        _mode: u32,
        _owner: Option<(u32, u32)>,
    ) -> Now<FileStat> {
        if let Err(e) = self.inner.writable("mkdir", store.as_str()) {
            return Now::err(e);
        }
        let (inner, store) = (self.inner.clone(), store.clone());
        self.inner
            .run(async move { inner.create_store(&store).await })
    }

    fn remove_store(&self, store: &StoreName) -> Now<()> {
        if let Err(e) = self.inner.writable("rmdir", store.as_str()) {
            return Now::err(e);
        }
        let (inner, store) = (self.inner.clone(), store.clone());
        self.inner
            .run(async move { inner.remove_store(&store).await })
    }

    fn rename_store(&self, from: &StoreName, to: &StoreName, no_replace: bool) -> Now<()> {
        if let Err(e) = self.inner.writable("rename", from.as_str()) {
            return Now::err(e);
        }
        if no_replace && self.inner.known_store(to, true).is_some() {
            return Now::err(Error::new("rename to", to.as_str(), Kind::Exists));
        }
        let (inner, from, to) = (self.inner.clone(), from.clone(), to.clone());
        self.inner
            .run(async move { inner.rename_store(&from, &to).await })
    }

    fn stat(&self, store: &StoreName, name: &str) -> Now<Stat> {
        self.inner.stat(store, name)
    }

    fn known(&self, store: &StoreName, name: &str) -> Result<Stat> {
        self.inner.known(store, name)
    }

    fn knows_length(&self, store: &StoreName, name: &str) -> bool {
        let Ok(id) = self.inner.id(store, name) else {
            return true;
        };
        let index = self.inner.index();
        index
            .record(&id)
            .is_none_or(|record| record.size.exact().is_some())
    }

    fn prepare_list(&self, store: Option<&StoreName>) -> Now<()> {
        let inner = self.inner.clone();
        let Some(store) = store.cloned() else {
            return self.inner.run(async move { inner.list_stores().await });
        };
        let ttl = inner.options.ttl;
        if !inner.options.exact_sizes
            && inner.known_store(&store, false).is_some()
            && inner
                .index()
                .store_of(&store)
                .is_some_and(|store| store.is_fresh(ttl))
        {
            return Now::ok(());
        }
        self.inner.run(async move { inner.prepare(&store).await })
    }

    fn list(
        &self,
        store: &StoreName,
        after: u64,
        with_stat: bool,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<()> {
        self.inner.list(store, after, with_stat, each)
    }

    fn open(&self, store: &StoreName, name: &str, write: bool, fall_back: bool) -> Now<Opened> {
        self.inner.open(store, name, write, fall_back)
    }

    fn store_handle(&self, store: &StoreName) -> Result<OwnedFd> {
        Err(no_descriptor(store.as_str()))
    }

    fn handle(&self, _store: &StoreName, name: &str) -> Result<(OwnedFd, Stat)> {
        Err(no_descriptor(name))
    }

    fn has_descriptors(&self) -> bool {
        false
    }

    fn touch(&self, store: &StoreName, name: &str, touch: Touch) -> Now<()> {
        self.inner.touch(store, name, &touch).into()
    }

    fn shown(&self, store: &StoreName, name: &str, which: &str) -> Option<Result<Vec<u8>>> {
        self.inner.attribute(store, name, which)
    }

    fn failure(&self, store: &StoreName, name: &str) -> Option<Error> {
        self.inner.failure(store, name)
    }

    fn store_id(&self, store: &StoreName) -> Option<String> {
        let id = self.inner.known_store(store, true)?;
        Some(id.as_str().to_owned())
    }

    fn store_called(&self, name: &StoreName) -> Option<StoreName> {
        self.inner.called(name)
    }

    fn url(&self, store: &StoreName, name: Option<&str>) -> Now<String> {
        self.inner.url(store, name)
    }

    fn read_link(&self, store: &StoreName, name: &str) -> Now<Vec<u8>> {
        scratch::read_link(&self.inner, store, name).into()
    }

    fn create_link(&self, store: &StoreName, name: &str, target: &[u8]) -> Now<Stat> {
        let made = self.inner.writable("symlink", name);
        made.and_then(|()| scratch::create_link(&self.inner, store, name, target))
            .into()
    }

    fn content_type(&self, store: &StoreName, name: &str) -> Now<ContentType> {
        self.inner.content_type(store, name)
    }

    fn set_content_type(&self, store: &StoreName, name: &str, to: Option<&ContentType>) -> Now<()> {
        if let Err(e) = self.inner.writable("set the content type of", name) {
            return Now::err(e);
        }
        self.inner.set_content_type(store, name, to)
    }

    fn may_create(&self, store: &StoreName, name: &str) -> Result<()> {
        self.inner.may_create(store, name)
    }

    fn claim(&self, store: &StoreName, name: &str, temporary: bool) -> Result<()> {
        let mut claims = self
            .inner
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let claim = (store.clone(), name.into());
        if claims.contains_key(&claim) {
            return Err(Error::new("create", name, Kind::Exists));
        }
        claims.insert(claim, temporary);
        Ok(())
    }

    fn release_claim(&self, store: &StoreName, name: &str) {
        let mut claims = self
            .inner
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        claims.remove(&(store.clone(), name.into()));
    }

    fn draft(
        &self,
        store: &StoreName,
        mode: u32,
        owner: Option<(u32, u32)>,
        replacing: Option<&str>,
    ) -> Result<Draft> {
        let inner = &self.inner;
        inner.writable("write", store.as_str())?;
        let mode = match replacing {
            Some(name) => inner.known(store, name)?.file.mode & 0o7777,
            None => mode,
        };
        let draft = inner.spool.draft(mode, inner.budget.room())?;
        if let Some((uid, gid)) = owner.filter(|_| replacing.is_none()) {
            std::os::unix::fs::fchown(&*draft.file, Some(uid), Some(gid))
                .map_err(|e| Error::io("chown", store.as_str(), e))?;
        }
        Ok(Draft::in_spool(draft))
    }

    fn commit(
        &self,
        draft: &mut Draft,
        store: &StoreName,
        name: &str,
        content_type: Option<&ContentType>,
    ) -> Result<Stat> {
        self.inner
            .commit(draft.spooled()?, store, name, content_type)
    }

    fn reopen(&self, _store: &StoreName, sealed: &File, stat: &FileStat) -> Result<Draft> {
        self.inner.copy_of(sealed, stat)
    }

    fn closed(&self, store: &StoreName, name: &str) -> Now<()> {
        if !self.inner.options.write_through {
            return Now::ok(());
        }
        self.inner.settled(store, name, false, true)
    }

    fn written_in_place(&self, _store: &StoreName, _name: &str) -> Result<()> {
        // Only scratch files are, and they have neither type nor sidecar.
        Ok(())
    }

    fn prepare_rename(&self, from: (&StoreName, &str), to: (&StoreName, &str)) -> Now<()> {
        self.inner.prepare_rename(from, to)
    }

    fn remove(&self, store: &StoreName, name: &str) -> Result<()> {
        self.inner.remove(store, name)
    }

    fn rename(
        &self,
        from: (&StoreName, &str),
        to: (&StoreName, &str),
        no_replace: bool,
    ) -> Result<()> {
        self.inner.rename(from, to, no_replace)
    }

    fn sync(&self, store: Option<&StoreName>) -> Now<()> {
        let id = store.and_then(|store| self.inner.known_store(store, true));
        if store.is_some() && id.is_none() {
            return Now::ok(());
        }
        let inner = self.inner.clone();
        self.inner
            .run(async move { inner.wait_for(id.as_ref()).await })
    }

    fn drain(&self, limit: Duration) -> Now<()> {
        let inner = self.inner.clone();
        self.inner.run(async move {
            match tokio::time::timeout(limit, inner.wait_for(None)).await {
                Ok(done) => done,
                Err(_) => Err(inner.not_sent("drain")),
            }
        })
    }

    fn sync_record(&self, store: &StoreName, name: &str) -> Now<()> {
        let sent = !self.inner.options.fsync_local;
        self.inner.settled(store, name, true, sent)
    }

    fn listen(&self, heard: Heard) {
        // There is one tree over a volume.
        let _ = self.inner.heard.set(heard);
    }

    fn watchable(&self) -> Option<PathBuf> {
        None
    }

    fn refresh(&self, _store: &StoreName, _files: Option<&[&str]>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn mend(&self, _store: Option<&StoreName>) {
        // There are no SDKs beside us.
    }

    fn status(&self) -> serde_json::Value {
        self.inner.status_value()
    }

    fn queue(&self) -> String {
        self.inner.queue_text() + &self.inner.rest_queues()
    }

    fn pending(&self) -> usize {
        self.unsent() + self.unsent_of_others()
    }
}
