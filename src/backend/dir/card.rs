//! What is kept of a store beside its records: one small file per store in `.storefs/stores/`, named after the store's id.
//! A file that cannot be read as that is no card, whatever it is.

use super::temp::TempDir;
use super::{FileStat, disk};
use crate::backend::{Counts, StoreInfo, random};
use crate::error::{Error, Result};
use crate::record::key::StoreId;
use crate::record::store::is_api_id;
use crate::record::{Access, StoreName};
use rustix::fs::{AtFlags, StatxFlags, fsync, statx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a card's file is named after the id.
const ENDING: &str = ".json";
/// A card with more bytes than this was not written by us: a schema is the only part of any size.
const MOST: u64 = 16 * 1024 * 1024;

/// Which directory: a number that the disk gives again only after this one is gone, and when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Identity {
    pub(super) inode: u64,
    /// In nanoseconds since 1970; 0 where the file system does not tell.
    pub(super) born: u64,
}

/// A store's card. Times are milliseconds since 1970.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Card {
    pub(super) id: String,
    /// The directory's name when it was last looked at.
    pub(super) dir: String,
    pub(super) inode: u64,
    pub(super) born: u64,
    pub(super) name: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) created: Option<u64>,
    pub(super) modified: Option<u64>,
    pub(super) accessed: Option<u64>,
    pub(super) title: Option<String>,
    pub(super) access: String,
    pub(super) secret: Option<String>,
    pub(super) schema: Option<Value>,
    pub(super) run: Option<String>,
    pub(super) actor: Option<String>,
    pub(super) counts: Counts,
}

/// Which version of a card's file was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Version {
    inode: u64,
    size: u64,
    changed_ns: i64,
}

impl Version {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            inode: stat.inode,
            size: stat.size,
            changed_ns: stat.changed_ns,
        }
    }

    pub(super) fn changed_ns(&self) -> i64 {
        self.changed_ns
    }
}

/// The identity of a directory, and when it was made or last changed.
pub(super) fn identity(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<(Identity, u64)> {
    let ns = |seconds: i64, nanos: u32| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000) + u64::from(nanos)
    };
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::MTIME;
    let Ok(found) = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted) else {
        let stat = disk::stat(dir, name)?;
        let inode = stat.inode;
        return Ok((
            Identity { inode, born: 0 },
            u64::try_from(stat.modified_ns).unwrap_or(0),
        ));
    };
    let told = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = match told {
        true => ns(found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        false => 0,
    };
    let modified = ns(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
    let inode = found.stx_ino;
    Ok((
        Identity { inode, born },
        if born == 0 { modified } else { born },
    ))
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}

fn time(ms: Option<u64>) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms?))
}

/// The id that a file of this name is the card of.
pub(super) fn id_of(file: &str) -> Option<&str> {
    file.strip_suffix(ENDING).filter(|id| is_api_id(id))
}

pub(super) fn file_of(id: &str) -> String {
    format!("{id}{ENDING}")
}

impl Card {
    /// A card for a directory that has none. One that is named as an id keeps that id, unless it is given already.
    pub(super) fn first(
        dir: &StoreName,
        made: (Identity, u64),
        is_given: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let dir = dir.as_str();
        let unnamed = (is_api_id(dir) && !is_given(dir)).then(|| dir.to_owned());
        let id = match &unnamed {
            Some(id) => id.clone(),
            None => random::api_id()?.as_str().to_owned(),
        };
        // The JavaScript SDK calls the directory of an unnamed store by a UUID.
        let name = (unnamed.is_none() && !is_uuid(dir)).then(|| dir.to_owned());
        let (identity, made_ns) = made;
        Ok(Self {
            id,
            dir: dir.to_owned(),
            inode: identity.inode,
            born: identity.born,
            name,
            created: Some(made_ns / 1_000_000),
            access: Access::default().as_str().to_owned(),
            secret: Some(random::secret()?),
            ..Self::default()
        })
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            inode: self.inode,
            born: self.born,
        }
    }

    /// The directory has this name and identity now. A store that is renamed in the folder is renamed.
    pub(super) fn moved(&mut self, dir: &StoreName, identity: Identity) {
        if self.dir != dir.as_str() {
            self.dir = dir.as_str().to_owned();
            self.name = (self.dir != self.id).then(|| self.dir.clone());
        }
        self.inode = identity.inode;
        self.born = identity.born;
    }

    /// The id, when all of the card is legal.
    pub(super) fn checked(&self, file: &str) -> Option<StoreId> {
        let id = id_of(file).filter(|id| *id == self.id)?;
        let legal = |name: &String| StoreName::new(name).is_ok();
        (legal(&self.dir) && self.name.as_ref().is_none_or(legal))
            .then(|| StoreId::new(id).ok())
            .flatten()
    }

    pub(super) fn info(&self, id: &StoreId) -> StoreInfo {
        StoreInfo {
            id: id.clone(),
            name: self
                .name
                .as_deref()
                .and_then(|name| StoreName::new(name).ok()),
            owner: self.owner.clone(),
            created: time(self.created),
            modified: time(self.modified),
            accessed: time(self.accessed),
            title: self.title.clone(),
            // A word that nobody knows opens nothing.
            access: self.access.parse().unwrap_or(Access::Restricted),
            secret: self.secret.clone(),
            schema: self.schema.clone(),
            run: self.run.clone(),
            actor: self.actor.clone(),
            counts: self.counts,
            bytes: None,
        }
    }
}

/// Whether this is 8-4-4-4-12 hexadecimal digits.
fn is_uuid(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(digits)
}

/// Reads a card; `None` for a file that is none.
pub(super) fn read(cards: BorrowedFd<'_>, file: &str) -> Option<(Card, Version)> {
    let opened = disk::open_file(cards, file, false).ok()?;
    let version = Version::of(&disk::stat_open(&opened).ok()?);
    let mut text = Vec::new();
    let read = opened.take(MOST + 1).read_to_end(&mut text);
    if read.is_err() || text.len() as u64 > MOST {
        return None;
    }
    Some((serde_json::from_slice(&text).ok()?, version))
}

/// Writes a card aside and renames it to its place, so that whoever reads it reads a whole one, also after a crash.
pub(super) fn write(cards: BorrowedFd<'_>, temp: &TempDir, card: &Card) -> Result<Version> {
    let failed = |error: std::io::Error| Error::io("write the card of the store", &card.id, error);
    let text = serde_json::to_vec(card).map_err(|error| failed(error.into()))?;
    let (name, mut file) = temp.file(0o600)?;
    let written = file.write_all(&text).and_then(|()| {
        disk::give_to_owner(cards, &file);
        fsync(&file)?;
        disk::rename(temp.dir(), &name, cards, &file_of(&card.id), false)?;
        Ok(Version::of(&disk::stat_open(&file)?))
    });
    if written.is_err() {
        let _ = disk::remove(temp.dir(), &name);
    }
    written.map_err(failed)
}
