//! A file that is being written aside. Dropped uncommitted, it is removed.

use super::cached::Spooled;
use crate::backend::dir;
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use std::fs::File;
use std::sync::Arc;

/// A file that is not yet the record of a name.
#[derive(Debug)]
pub struct Draft {
    /// Open for reading and writing.
    pub file: Arc<File>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder(dir::Draft),
    Spool(Spooled),
}

impl Draft {
    pub(super) fn in_folder(draft: dir::Draft) -> Self {
        Self {
            file: draft.file.clone(),
            place: Place::Folder(draft),
        }
    }

    pub(super) fn in_spool(draft: Spooled) -> Self {
        Self {
            file: draft.file.clone(),
            place: Place::Spool(draft),
        }
    }

    pub(super) fn folder(&mut self) -> Result<&mut dir::Draft> {
        match &mut self.place {
            Place::Folder(draft) => Ok(draft),
            Place::Spool(_) => Err(foreign()),
        }
    }

    pub(super) fn spooled(&mut self) -> Result<&mut Spooled> {
        match &mut self.place {
            Place::Spool(draft) => Ok(draft),
            Place::Folder(_) => Err(foreign()),
        }
    }

    /// The type that it was committed with, unless that is not kept.
    pub fn content_type(&self) -> Option<&ContentType> {
        match &self.place {
            Place::Folder(draft) => draft.content_type.as_ref(),
            Place::Spool(draft) => draft.content_type.as_ref(),
        }
    }

    /// What keeps it within the room for unsent bytes, where there is a limit. A commit of such a draft seals its file.
    pub fn room(&self) -> Option<&Arc<super::Room>> {
        match &self.place {
            Place::Spool(draft) => Some(&draft.room),
            Place::Folder(_) => None,
        }
    }
}

fn foreign() -> Error {
    let why = "the draft is of another volume";
    Error::because("commit", "", Kind::Invalid, why)
}
