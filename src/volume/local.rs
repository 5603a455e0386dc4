//! A volume straight onto a folder of stores: no copy and no index of its own; open files are the records' own files.

use super::claims::Claims;
use super::looks::{self, Looks, stat_of};
use super::mending::Later;
use super::{Draft, Entry, FileStat, Now, Opened, Space, Stat, Volume};
use crate::backend::dir::{Area, CommitIf, Folder, Listed, Origin, Store};
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, StoreName};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// A local folder as a volume.
#[derive(Debug)]
pub struct Local {
    folder: Arc<Folder>,
    read_only: bool,
    claims: Claims,
    looks: Looks,
    later: Later,
}

impl Local {
    /// A volume over an opened folder.
    pub fn new(folder: Arc<Folder>, read_only: bool) -> Self {
        let claims = Claims::new(folder.claims_file().ok().filter(|_| !read_only));
        Self {
            looks: Looks::new(folder.clone()),
            folder,
            read_only,
            claims,
            later: Later::default(),
        }
    }

    fn commit_if(
        &self,
        (store, name): (&StoreName, &str),
        draft: &mut Draft,
        content_type: Option<&ContentType>,
        only_if: &CommitIf,
    ) -> Result<Stat> {
        let store = self.folder.store(store)?;
        let (place, file) = store.commit(draft.folder()?, name, content_type, only_if, false)?;
        Ok(stat_of(&place, file))
    }

    fn writable(&self, op: &'static str, subject: &str) -> Result<()> {
        if self.read_only {
            return Err(Error::because(
                op,
                subject,
                Kind::ReadOnly,
                "mounted read-only",
            ));
        }
        Ok(())
    }
}

impl Volume for Local {
    fn read_only(&self) -> bool {
        self.read_only
    }

    fn root(&self) -> Now<FileStat> {
        let path = self.folder.stores_path();
        rustix::fs::stat(&path)
            .or_else(|e| match (e, path.parent()) {
                // A folder mounted read-only may have no stores yet.
                (Errno::NOENT, Some(above)) => rustix::fs::stat(above),
                _ => Err(e),
            })
            .map(|stat| FileStat::of_disk(&stat))
            .map_err(|e| Error::io("stat", path.display().to_string(), e))
            .into()
    }

    fn space(&self, store: Option<&StoreName>) -> Now<Space> {
        let path = self.folder.stores_path();
        let max_name = store
            .and_then(|name| self.folder.store(name).ok())
            .map_or_else(|| self.folder.max_name(), |store| store.max_name());
        rustix::fs::statvfs(&path)
            .map(|vfs| Space {
                block: u32::try_from(vfs.f_frsize).unwrap_or(4096),
                blocks: vfs.f_blocks,
                free: vfs.f_bfree,
                available: vfs.f_bavail,
                files: vfs.f_files,
                files_free: vfs.f_ffree,
                max_name,
            })
            .map_err(|e| Error::io("statfs", path.display().to_string(), e))
            .into()
    }

    fn stores(&self) -> Result<Vec<StoreName>> {
        self.folder.stores()
    }

    fn store(&self, store: &StoreName) -> Now<FileStat> {
        let found = self.folder.store(store);
        found.and_then(|store| store_stat(&store)).into()
    }

    fn store_said_otherwise(&self, said: &str) -> Now<Option<StoreName>> {
        let (folder, said) = (self.folder.clone(), said.to_owned());
        Now::blocking(move || folder.store_said_otherwise(&said))
    }

    fn store_id(&self, store: &StoreName) -> Option<String> {
        let id = self.folder.id_of(store);
        let id = id.inspect_err(|e| tracing::warn!("the id of store {store}: {e}"));
        id.ok().flatten().map(|id| id.as_str().to_owned())
    }

    fn create_store(
        &self,
        name: &StoreName,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Now<FileStat> {
        let make = || {
            self.writable("mkdir", name.as_str())?;
            let store = self.folder.create_store(name, mode)?;
            if let Some((uid, gid)) = owner {
                rustix::fs::fchown(
                    store.dir(Area::Store)?,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                )
                .map_err(|e| Error::io("chown", name.as_str(), e))?;
            }
            store_stat(&store)
        };
        make().into()
    }

    fn remove_store(&self, name: &StoreName) -> Now<()> {
        self.writable("rmdir", name.as_str())
            .and_then(|()| self.folder.remove_store(name))
            .inspect(|()| self.looks.forget())
            .into()
    }

    fn rename_store(&self, from: &StoreName, to: &StoreName, no_replace: bool) -> Now<()> {
        self.writable("rename", from.as_str())
            .and_then(|()| self.folder.rename_store(from, to, no_replace))
            .inspect(|()| self.looks.forget())
            .into()
    }

    fn stat(&self, store: &StoreName, name: &str) -> Now<Stat> {
        self.known(store, name).into()
    }

    fn known(&self, store: &StoreName, name: &str) -> Result<Stat> {
        let store = self.looks.store(store)?;
        let (place, file) = store.find(name)?;
        Ok(stat_of(&place, file))
    }

    fn stat_to_open(&self, store: &StoreName, name: &str) -> Now<Stat> {
        self.looks.settled(store, name).into()
    }

    fn prepare_list(&self, _store: Option<&StoreName>) -> Now<()> {
        Now::ok(())
    }

    fn list(
        &self,
        store: &StoreName,
        after: u64,
        with_stat: bool,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<()> {
        let store = self.looks.store(store)?;
        store.list(after, &mut |listed: Listed<'_>| {
            let mut stat = None;
            if with_stat {
                match store.stat_listed(&listed) {
                    Ok(file) => {
                        stat = Some(Stat {
                            file,
                            origin: listed.origin,
                        })
                    }
                    // Gone since it was listed.
                    Err(_) => return true,
                }
            }
            each(Entry {
                name: listed.name,
                next: listed.next,
                stat,
            })
        })
    }

    fn open(&self, store: &StoreName, name: &str, write: bool, fall_back: bool) -> Now<Opened> {
        let open = || {
            let store = self.looks.store(store)?;
            let (place, _) = store.find(name)?;
            let fixed = matches!(place.origin, Origin::Foreign | Origin::Alias);
            if write && (self.read_only || fixed) && !fall_back {
                let why = if fixed {
                    "this name is for reading only: it is no key of the store"
                } else {
                    "mounted read-only"
                };
                let kind = if fixed { Kind::Denied } else { Kind::ReadOnly };
                return Err(Error::because("open for writing", name, kind, why));
            }
            let write = write && !self.read_only && !fixed;
            let (file, write) = match store.open(&place, write) {
                Err(e) if write && fall_back && looks::may_still_be_read(e.kind()) => {
                    (store.open(&place, false)?, false)
                }
                other => (other?, write),
            };
            let file_stat = FileStat::of_file(&file)?;
            Ok(Opened {
                file: Arc::new(file),
                stat: stat_of(&place, file_stat),
                writable: write,
                draft: None,
                sealed: false,
                tag: None,
                reader: None,
            })
        };
        open().into()
    }

    fn store_handle(&self, store: &StoreName) -> Result<OwnedFd> {
        let store = self.folder.store(store)?;
        store
            .dir(Area::Store)?
            .try_clone_to_owned()
            .map_err(|e| Error::io("open the store", store.name().as_str(), e))
    }

    fn handle(&self, store: &StoreName, name: &str) -> Result<(OwnedFd, Stat)> {
        let store = self.looks.store(store)?;
        let (place, _) = store.find(name)?;
        let fd = store.open_path(&place)?;
        let file = FileStat::of_file(&fd)?;
        Ok((fd, stat_of(&place, file)))
    }

    fn read_link(&self, store: &StoreName, name: &str) -> Now<Vec<u8>> {
        let read = || {
            let store = self.looks.store(store)?;
            let (place, _) = store.find(name)?;
            store.read_link(&place)
        };
        read().into()
    }

    fn create_link(&self, store: &StoreName, name: &str, target: &[u8]) -> Now<Stat> {
        let make = || {
            self.writable("symlink", name)?;
            let store = self.folder.store(store)?;
            let (place, file) = store.make_link(name, target)?;
            Ok(stat_of(&place, file))
        };
        make().into()
    }

    fn content_type(&self, store: &StoreName, name: &str) -> Now<ContentType> {
        let read = || {
            let store = self.looks.store(store)?;
            let (place, _) = store.find(name)?;
            store.content_type(name, &place)
        };
        read().into()
    }

    fn set_content_type(&self, store: &StoreName, name: &str, to: Option<&ContentType>) -> Now<()> {
        let set = || {
            self.writable("set the content type of", name)?;
            self.folder
                .store(store)?
                .set_content_type(name, to)
                .map(|_| ())
        };
        set().into()
    }

    fn may_create(&self, store: &StoreName, name: &str) -> Result<()> {
        self.writable("create", name)?;
        self.looks.store(store)?.may_create(name)
    }

    fn claim(&self, store: &StoreName, name: &str, _temporary: bool) -> Result<()> {
        self.claims.take(store, name)
    }

    fn release_claim(&self, store: &StoreName, name: &str) {
        self.claims.give_back(store, name);
    }

    fn draft(
        &self,
        store: &StoreName,
        mode: u32,
        owner: Option<(u32, u32)>,
        replacing: Option<&str>,
    ) -> Result<Draft> {
        self.writable("write", store.as_str())?;
        let draft = self.folder.draft(mode)?;
        if let Some(name) = replacing {
            self.looks.store(store)?.inherit(&draft, name)?;
        } else if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            match rustix::fs::fchown(&*draft.file, Some(uid), Some(gid)) {
                // Root is refused only where the file system keeps no owners.
                Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(e) => return Err(Error::io("chown", store.as_str(), e)),
            }
        }
        Ok(Draft::in_folder(draft))
    }

    fn commit(
        &self,
        draft: &mut Draft,
        store: &StoreName,
        name: &str,
        content_type: Option<&ContentType>,
    ) -> Result<Stat> {
        self.commit_if((store, name), draft, content_type, &CommitIf::Any)
    }

    fn commit_new(
        &self,
        draft: &mut Draft,
        store: &StoreName,
        name: &str,
        content_type: Option<&ContentType>,
    ) -> Result<Stat> {
        self.commit_if((store, name), draft, content_type, &CommitIf::Absent)
    }

    fn written_in_place(&self, store: &StoreName, name: &str) -> Result<()> {
        self.folder.store(store)?.written_in_place(name).map(|_| ())
    }

    fn remove(&self, store: &StoreName, name: &str) -> Result<()> {
        self.writable("remove", name)?;
        self.folder.store(store)?.remove(name)
    }

    fn rename(
        &self,
        from: (&StoreName, &str),
        to: (&StoreName, &str),
        no_replace: bool,
    ) -> Result<()> {
        self.writable("rename", from.1)?;
        let source = self.folder.store(from.0)?;
        let target = self.folder.store(to.0)?;
        source.rename(from.1, &target, to.1, no_replace).map(|_| ())
    }

    fn sync(&self, store: Option<&StoreName>) -> Now<()> {
        let names = match store {
            Some(name) => Ok(vec![name.clone()]),
            None => self.folder.stores(),
        };
        let folder = self.folder.clone();
        match names {
            Err(e) => Now::err(e),
            Ok(names) => {
                Now::blocking(move || names.iter().try_for_each(|name| folder.store(name)?.sync()))
            }
        }
    }

    fn sync_record(&self, store: &StoreName, _name: &str) -> Now<()> {
        match self.looks.store(store) {
            Ok(store) => Now::blocking(move || store.sync_names()),
            // It was removed under an open file.
            Err(e) if e.kind() == Kind::StoreNotFound => Now::ok(()),
            Err(e) => Now::err(e),
        }
    }

    fn watchable(&self) -> Option<PathBuf> {
        let path = self.folder.stores_path();
        crate::backend::watch::can_watch(&path).then_some(path)
    }

    fn refresh(&self, store: &StoreName, files: Option<&[&str]>) -> Result<Vec<String>> {
        let found = self.looks.store(store)?;
        let names = found.refresh(files);
        self.later.see_to(&self.folder, &found);
        names
    }

    fn mend(&self, store: Option<&StoreName>) {
        super::mending::mend(&self.folder, store);
    }

    fn status(&self) -> serde_json::Value {
        looks::status(&self.folder, self.read_only)
    }
}

fn store_stat(store: &Store) -> Result<FileStat> {
    FileStat::of_file(store.dir(Area::Store)?)
}
