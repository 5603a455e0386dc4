//! Changing a store's records: sends each change to the layout that has the name. Bytes are only ever moved.

use super::sdk::Writing;
use super::store::{Installed, Source, foreign, illegal};
use super::temp::Draft;
use super::{
    Area, CommitIf, FileStat, Layout, Origin, Place, Store, attrs, commit, disk, moves, plain,
    removal, scratch,
};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::file_name::{NameKind, classify};
use rustix::fs;
use std::fs::File;
use std::sync::atomic::Ordering;

impl Store {
    /// Sets the record's content type, or with `None` returns it to the guess. The bytes stay; the file may get
    /// another name, so the new place is returned.
    pub fn set_content_type(
        &self,
        name: &str,
        to: Option<&ContentType>,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("set the content type")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::set_content_type(self, key, to),
                Some(sdk) => commit::set_content_type(self, sdk, key, to),
            },
            NameKind::Scratch => scratch::set_content_type(self, name, to),
            NameKind::Foreign(_) => Err(foreign("set the content type", name)),
            NameKind::Illegal(why) => Err(illegal("set the content type", name, why)),
        }
    }

    /// Makes the draft the record of this name. The type is `content_type` when it is given, else it is decided from
    /// the record that is replaced, the name and the bytes. The draft takes mode, owner, ACL and `user.*` of the record
    /// it replaces when `inherit` is set. On failure the old record is whole and the draft is still a draft.
    pub fn commit(
        &self,
        draft: &mut Draft,
        name: &str,
        content_type: Option<&ContentType>,
        only_if: &CommitIf,
        inherit: bool,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("write the record")?;
        let Installed {
            place,
            content_type,
        } = {
            let (dir, file) = draft.at()?;
            let source = Source {
                dir,
                file,
                open: &draft.file,
            };
            let new = *only_if == CommitIf::Absent;
            self.install(source, name, content_type, new, inherit)?
        };
        draft.committed(content_type);
        let stat = disk::stat_open(&*draft.file)
            .map_err(|error| disk::failed("stat the new record", name, error))?;
        Ok((place, stat))
    }

    /// Makes a file from elsewhere on the same disk what this name stands for. `new`: `Kind::Exists` when there is one.
    pub(super) fn install(
        &self,
        source: Source<'_>,
        name: &str,
        content_type: Option<&ContentType>,
        new: bool,
        inherit: bool,
    ) -> Result<Installed> {
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => {
                    self.mark()?;
                    plain::install(self, source, key, content_type, new, inherit)
                }
                Some(sdk) => commit::install(self, sdk, source, key, content_type, new, inherit),
            },
            NameKind::Scratch => scratch::install(self, source, name, content_type, new, inherit),
            NameKind::Foreign(_) => Err(self.no_key("write the record", name)),
            NameKind::Illegal(why) => Err(illegal("write the record", name, why)),
        }
    }

    /// Remembers at the first write that the store is plain.
    fn mark(&self) -> Result<()> {
        if self.is_plain() && !self.marked.load(Ordering::Relaxed) {
            self.shared.mark(&self.current(), Layout::Plain)?;
            self.marked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// To be called when a record was written in place and its last writer is gone: the type is decided again, and a
    /// sidecar that tells a size is mended.
    pub fn written_in_place(&self, name: &str) -> Result<(Place, FileStat)> {
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::written_in_place(self, key),
                Some(sdk) => commit::written_in_place(self, sdk, key),
            },
            NameKind::Scratch | NameKind::Foreign(_) | NameKind::Illegal(_) => self.find(name),
        }
    }

    /// Removes the record.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.shared.may_write("remove the record")?;
        match classify(name) {
            NameKind::Key(key) => match &self.sdk {
                None => plain::remove(self, key),
                Some(sdk) => removal::remove(self, sdk, key, None),
            },
            NameKind::Scratch => scratch::remove(self, name),
            NameKind::Foreign(_) => Err(foreign("remove the record", name)),
            NameKind::Illegal(why) => Err(illegal("remove the record", name, why)),
        }
    }

    /// Removes what has a name if it is still this inode.
    pub(super) fn remove_version(&self, name: &str, place: &Place, inode: u64) -> Result<()> {
        if let (Area::Store, Some(sdk)) = (place.area, &self.sdk) {
            return removal::remove(self, sdk, name, Some(inode));
        }
        match self.stat(place) {
            Ok(stat) if stat.inode == inode => self.remove(name),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Renames a record, also into another store, its type carried. `no_replace`: `Kind::Exists` when the target is there.
    pub fn rename(
        &self,
        from: &str,
        to_store: &Store,
        to: &str,
        no_replace: bool,
    ) -> Result<(Place, FileStat)> {
        self.shared.may_write("rename the record")?;
        to_store.may_create(to)?;
        // Two daemons that rename one record would both find it and both give it a new name.
        let plain = self.is_plain() && to_store.is_plain();
        let _alone = match plain {
            true => None,
            false => Some(Writing::in_both(self, to_store)?),
        };
        let (place, stat) = self.find(from)?;
        if place.origin == Origin::Foreign || place.origin == Origin::Alias {
            return Err(foreign("rename the record", from));
        }
        if self.id() == to_store.id() && from == to {
            return match no_replace {
                true => Err(Error::new("rename the record to", to, Kind::Exists)),
                false => Ok((place, stat)),
            };
        }
        // The move asks again, at the moment it happens; here it is asked before the source is touched.
        if no_replace && to_store.find(to).is_ok() {
            return Err(Error::new("rename the record to", to, Kind::Exists));
        }
        let place = moves::rename(self, (from, &place, &stat), to_store, to, no_replace)?;
        let stat = to_store.stat(&place)?;
        Ok((place, stat))
    }

    /// Sets the type attribute, and says once when the file system keeps none.
    pub(super) fn put_type(&self, file: &File, name: &str, to: &ContentType) -> Result<()> {
        match fs::fsetxattr(
            file,
            attrs::TYPE,
            to.as_str().as_bytes(),
            fs::XattrFlags::empty(),
        ) {
            Ok(()) => Ok(()),
            Err(error) if attrs::unsupported(error) => {
                self.shared.warn_of_attributes();
                Ok(())
            }
            Err(error) => Err(disk::failed("keep the content type of", name, error)),
        }
    }
}
