//! Renames between records and scratch files, stores and layouts. A file is only ever moved, never copied.

use super::store::Source;
use super::{Area, FileStat, Place, Store, attrs, disk, plain, scratch};
use crate::error::Result;
use crate::record::ContentType;
use crate::record::file_name::{NameKind, classify};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// Renames what `from` names. The type of a record goes with it; a scratch file has one only when it was set.
pub(super) fn rename(
    store: &Store,
    (from, place, stat): (&str, &Place, &FileStat),
    to_store: &Store,
    to: &str,
    no_replace: bool,
) -> Result<Place> {
    let to_scratch = classify(to) == NameKind::Scratch;
    let plain = store.is_plain() && to_store.is_plain();
    let content_type = match place.area {
        Area::Store if plain && !to_scratch => {
            return plain::move_record((store, from, place), to_store, to, no_replace);
        }
        Area::Scratch if to_scratch => {
            let dirs = (store.dir(Area::Scratch)?, to_store.dir(Area::Scratch)?);
            disk::rename(dirs.0, &place.file, dirs.1, to, no_replace)
                .map_err(|error| disk::failed("rename", from, error))?;
            return Ok(Place {
                file: to.into(),
                ..place.clone()
            });
        }
        Area::Store => Some(store.content_type(from, place)?),
        Area::Scratch => scratch::stored_type(store, from)?,
    };
    let open = store.open(place, false)?;
    let dir = store.dir(place.area)?;
    let aside = Aside::take(store, dir, &place.file)?;
    forget_marks(&aside, content_type.as_ref())?;
    let source = Source {
        dir: aside.dir,
        file: &aside.name,
        open: &open,
    };
    let moved = to_store.install(source, to, content_type.as_ref(), no_replace, false);
    match moved {
        Ok(moved) => store
            .remove_version(from, place, stat.inode)
            .map(|()| moved.place),
        Err(error) => {
            aside.give_back(dir, &place.file);
            Err(error)
        }
    }
}

/// A second name of a file among the temporaries, so that the first one lasts until the new one is there.
struct Aside<'a> {
    dir: BorrowedFd<'a>,
    name: String,
    /// The file system has no second names: this is the only one.
    renamed: bool,
}

impl<'a> Aside<'a> {
    fn take(store: &'a Store, dir: BorrowedFd<'_>, file: &str) -> Result<Self> {
        let temp = store.shared.temp()?;
        let name = temp.name();
        let failed = |error: Errno| disk::failed("rename", file, error);
        let renamed = match rustix::fs::linkat(dir, file, temp.dir(), &name, AtFlags::empty()) {
            Ok(()) => false,
            Err(error) if disk::no_hard_links(error) => {
                disk::rename(dir, file, temp.dir(), &name, true).map_err(failed)?;
                true
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            dir: temp.dir(),
            name,
            renamed,
        })
    }

    fn give_back(self, dir: BorrowedFd<'_>, file: &str) {
        let back = match self.renamed {
            true => disk::rename(self.dir, &self.name, dir, file, true),
            false => disk::remove(self.dir, &self.name),
        };
        if let Err(error) = back {
            tracing::error!("cannot take back the rename of {file}: {error}");
        }
    }
}

/// What the old layout kept on the file says nothing in the new one. The type stays as long as it is true.
fn forget_marks(aside: &Aside<'_>, content_type: Option<&ContentType>) -> Result<()> {
    let failed = |error: Errno| disk::failed("rename", &aside.name, error);
    attrs::unset(aside.dir, &aside.name, attrs::DUAL).map_err(failed)?;
    let stored = attrs::text(aside.dir, &aside.name, attrs::TYPE).map_err(failed)?;
    if stored.is_some_and(|stored| content_type.is_none_or(|to| to.as_str() != stored)) {
        attrs::unset(aside.dir, &aside.name, attrs::TYPE).map_err(failed)?;
    }
    Ok(())
}
