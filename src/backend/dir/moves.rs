//! Renames between records and scratch files, stores and layouts. A file is only ever moved, never copied.

use super::store::Source;
use super::{Area, FileStat, Place, Store, disk, plain, scratch};
use crate::error::Result;
use crate::record::file_name::{NameKind, classify};
use std::fs::File;

/// Renames what `from` names. The type of a record goes with it; a scratch file has one only when it was set.
pub(super) fn rename(
    store: &Store,
    (from, place, stat): (&str, &Place, &FileStat),
    to_store: &Store,
    to: &str,
    no_replace: bool,
) -> Result<Place> {
    let to_scratch = classify(to) == NameKind::Scratch;
    match (place.area, to_scratch) {
        (Area::Store, false) => plain::move_record((store, from, place), to_store, to, no_replace),
        (Area::Scratch, true) => {
            let failed = |error| disk::failed("rename", from, error);
            let dirs = (store.dir(Area::Scratch)?, to_store.dir(Area::Scratch)?);
            disk::rename(dirs.0, &place.file, dirs.1, to, no_replace).map_err(failed)?;
            Ok(Place {
                file: to.into(),
                ..place.clone()
            })
        }
        (Area::Scratch, false) => {
            let _ = stat;
            let open: File = store.open(place, false)?;
            let content_type = scratch::stored_type(store, from)?;
            let source = Source {
                dir: store.dir(Area::Scratch)?,
                file: &place.file,
                open: &open,
            };
            plain::install(
                to_store,
                source,
                to,
                content_type.as_ref(),
                no_replace,
                false,
            )
        }
        (Area::Store, true) => {
            let open = store.open(place, false)?;
            let content_type = plain::content_type(store, from, place)?;
            let source = Source {
                dir: store.dir(Area::Store)?,
                file: &place.file,
                open: &open,
            };
            scratch::install(to_store, source, to, Some(&content_type), no_replace, false)
        }
    }
}
