//! Which card belongs to which directory: reading the cards that changed, finding their directories again after renames,
//! and giving cards to directories that have none.

use super::card::{self, Card, Identity, Version};
use super::cards::{Cards, Kept, Known, Pen};
use super::shared::Shared;
use super::{FileStat, disk};
use crate::error::Result;
use crate::record::StoreName;
use crate::record::key::StoreId;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The card of a store that has been gone for so long goes too.
const GONE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the cards that are new or were changed, and forgets those that are gone.
pub(super) fn read_all(known: &mut Known, place: BorrowedFd<'_>) -> Result<()> {
    let mut files = Vec::new();
    disk::walk(place, 0, &mut |entry| {
        if card::id_of(entry.name).is_some() {
            files.push(entry.name.to_owned());
        }
        Ok(true)
    })?;
    let mut seen = HashSet::new();
    let mut broken = HashMap::new();
    for file in files {
        let Ok(stat) = disk::stat(place, &file) else {
            continue;
        };
        let version = Version::of(&stat);
        let id = card::id_of(&file).and_then(|id| StoreId::new(id).ok());
        if let Some(kept) = id.as_ref().and_then(|id| known.cards.get(id))
            && kept.version == version
        {
            seen.extend(id);
            continue;
        }
        if known.broken.get(&file) == Some(&version) {
            broken.insert(file, version);
            continue;
        }
        match read_one(place, &file, &stat) {
            Some((id, card, version)) => {
                let uses = known.cards.remove(&id).map(|kept| kept.uses);
                let kept = Kept {
                    card,
                    uses: uses.unwrap_or_default(),
                    version,
                    there: false,
                };
                known.cards.insert(id.clone(), kept);
                seen.insert(id);
            }
            None => {
                tracing::warn!(".storefs/stores/{file} is no card of a store and is left alone");
                broken.insert(file, version);
            }
        }
    }
    known.broken = broken;
    // What could not be written is known here only.
    known
        .cards
        .retain(|id, kept| seen.contains(id) || kept.version == Version::default());
    Ok(())
}

fn read_one(
    place: BorrowedFd<'_>,
    file: &str,
    stat: &FileStat,
) -> Option<(StoreId, Card, Version)> {
    if !stat.is_file() {
        return None;
    }
    let (card, version) = card::read(place, file)?;
    let id = card.checked(file)?;
    Some((id, card, version))
}

/// Gives each directory its card: the one that knows its identity, else the one that knows its name, else a new one.
pub(super) fn bind(
    shared: &Shared,
    known: &mut Known,
    pen: Option<&Pen>,
    there: Vec<(StoreName, (Identity, u64))>,
) -> Result<()> {
    let mut order: Vec<StoreId> = known.cards.keys().cloned().collect();
    // Of two cards of one directory, as after somebody copied one, the older one holds.
    order.sort_by_key(|id| {
        let kept = known.cards.get(id);
        let unwritten = kept.is_some_and(|kept| kept.version == Version::default());
        (unwritten, kept.map(|kept| kept.card.created), id.clone())
    });
    let mut taken: HashMap<usize, StoreId> = HashMap::new();
    let mut bound: HashSet<StoreId> = HashSet::new();
    let by_identity: HashMap<Identity, usize> = (0..)
        .zip(&there)
        .map(|(at, (_, (identity, _)))| (*identity, at))
        .collect();
    let by_name: HashMap<&str, usize> = (0..)
        .zip(&there)
        .map(|(at, (name, _))| (name.as_str(), at))
        .collect();
    for by_number in [true, false] {
        for id in &order {
            let Some(kept) = known.cards.get(id).filter(|_| !bound.contains(id)) else {
                continue;
            };
            let at = match by_number {
                // A number alone may be that of another directory, made after this one was removed.
                true if kept.card.born == 0 => None,
                true => by_identity.get(&kept.card.identity()),
                // The JavaScript SDK's purge puts a new directory in the old one's place.
                false => by_name.get(&*kept.card.dir),
            };
            if let Some(at) = at
                && !taken.contains_key(at)
            {
                taken.insert(*at, id.clone());
                bound.insert(id.clone());
            }
        }
    }
    for (id, kept) in &mut known.cards {
        kept.there = bound.contains(id);
    }
    known
        .cards
        .retain(|_, kept| kept.there || kept.version != Version::default());
    known.dirs.clear();
    for (at, (name, made)) in there.into_iter().enumerate() {
        let mut card = match taken.get(&at).and_then(|id| known.cards.get(id)) {
            Some(kept) if kept.card.dir == name.as_str() && kept.card.identity() == made.0 => {
                known.dirs.insert(name, taken[&at].clone());
                continue;
            }
            Some(kept) => kept.card.clone(),
            None if pen.is_some() => Card::first(&name, made, |id| known.is_given(id))?,
            None => unwritten(&name, made, |id| known.is_given(id))?,
        };
        card.moved(&name, made.0);
        Cards::write(shared, known, pen, card)?;
    }
    forget_gone(known, pen);
    Ok(())
}

/// The card of a store in a folder that is only read: the same at every start as long as the directory is the same.
fn unwritten(
    name: &StoreName,
    made: (Identity, u64),
    is_given: impl Fn(&str) -> bool,
) -> Result<Card> {
    let mut card = Card::first(name, made, &is_given)?;
    if card.id != name.as_str() {
        let text = format!("{} {} {}", made.0.inode, made.0.born, name);
        let digits = Sha256::digest(text.as_bytes());
        let letters = digits.iter().map(|byte| {
            let at = byte % 36;
            char::from(if at < 10 { b'0' + at } else { b'a' + at - 10 })
        });
        card.id = letters.take(crate::record::store::ID_LENGTH).collect();
    }
    Ok(card)
}

fn forget_gone(known: &mut Known, pen: Option<&Pen>) {
    let old = |kept: &Kept| super::js_lock::age(kept.version.changed_ns()) > GONE;
    let gone = known
        .cards
        .iter()
        .filter(|(_, kept)| !kept.there && old(kept));
    let gone: Vec<StoreId> = gone.map(|(id, _)| id.clone()).collect();
    for id in gone {
        if let Err(error) = Cards::remove(known, pen, &id) {
            tracing::warn!("{error}");
        }
    }
}
