//! Looking records up in the SDKs' layouts: places, listings, types. Nothing is changed here but a sidecar that tells a
//! wrong size.

use super::catalog::Entry;
use super::sdk::{Sdk, State, fresh, read};
use super::{
    Area, FileStat, Layout, Listed, Origin, Place, Store, disk, names, plan, repair, store, target,
};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::content_type::{BINARY, TEXT};
use crate::record::file_name::{encode_foreign, sidecar_stem};
use crate::record::key::key_fault;
use crate::record::types_table::content_type_of_extension;
use std::borrow::Cow;
use std::fs::File;

/// How many names are copied out for a listing at a time.
const BATCH: usize = 256;

/// A key as it is listed.
pub(super) fn shown(key: &str) -> Cow<'_, str> {
    match key_fault(key.as_bytes()) {
        None => Cow::Borrowed(key),
        Some(_) => Cow::Owned(encode_foreign(key)),
    }
}

pub(super) fn place(entry: &Entry) -> Place {
    Place {
        file: entry.file().into(),
        area: Area::Store,
        origin: match key_fault(entry.key.as_bytes()) {
            None => Origin::Record,
            Some(_) => Origin::Foreign,
        },
    }
}

fn missing(name: &str) -> Error {
    Error::new("find the record", name, Kind::NotFound)
}

/// `key` is the decoded name of one that is no key.
pub(super) fn find(store: &Store, sdk: &Sdk, key: &str) -> Result<(Place, FileStat)> {
    for again in [false, true] {
        let (place, told) = {
            let mut state = fresh(store, sdk)?;
            if again {
                let dir = store.dir(Area::Store)?;
                let stat =
                    disk::stat_open(dir).map_err(|error| disk::failed("find", key, error))?;
                read(store, &mut state, &stat)?;
            }
            look_up(&state, key).ok_or_else(|| missing(key))?
        };
        match store.stat(&place) {
            Ok(stat) => {
                repair::mend_size(store, sdk, (key, &place), told, &stat);
                return Ok((place, stat));
            }
            // It went between the look and now.
            Err(error) if error.kind() == Kind::NotFound && !again => {}
            Err(error) => return Err(error),
        }
    }
    Err(missing(key))
}

/// Where the bytes of a name are, and which size its sidecar tells.
fn look_up(state: &State, key: &str) -> Option<(Place, Option<u64>)> {
    if let Some(entry) = state.catalog.get(key) {
        let told = entry.beside.as_ref().and_then(|beside| beside.size);
        return (!entry.absent).then(|| (place(entry), told));
    }
    let owner = state.catalog.owner(key, "")?;
    let named = |origin| {
        let place = Place {
            file: key.into(),
            area: Area::Store,
            origin,
        };
        Some((place, None))
    };
    if owner.is_superseded(key) {
        return named(Origin::Foreign).filter(|_| sidecar_stem(key).is_none());
    }
    // The JavaScript SDK's own file name, as a person sees it in the folder.
    let alias = state.layout() == Layout::Js && owner.file() == key && !owner.absent;
    named(Origin::Alias).filter(|_| alias)
}

/// A key's names in a listing: its own, then those of older values of it. Each has a position of its own.
const NAMES: u64 = 16;

/// Lists from a position. False when `each` wanted no more.
pub(super) fn list(
    store: &Store,
    sdk: &Sdk,
    after: u64,
    each: &mut dyn FnMut(Listed<'_>) -> bool,
) -> Result<bool> {
    let mut from = after;
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ended = true;
        {
            let state = fresh(store, sdk)?;
            for entry in state.catalog.from(from / NAMES) {
                if batch.len() >= BATCH {
                    ended = false;
                    break;
                }
                let first = entry.seq * NAMES;
                for (at, (name, file, origin)) in (first + 1..).zip(names_of(&state, entry)) {
                    if at > from {
                        batch.push((name, file, origin, at));
                    }
                }
            }
        }
        for (name, file, origin, next) in batch {
            from = next;
            let listed = Listed {
                name: &name,
                file: &file,
                area: Area::Store,
                origin,
                next,
            };
            if !each(listed) {
                return Ok(false);
            }
        }
        if ended {
            return Ok(true);
        }
    }
}

/// The names a key is listed with, their files and what kind of name each is.
fn names_of(state: &State, entry: &Entry) -> Vec<(String, Box<str>, Origin)> {
    let mut names = Vec::with_capacity(1);
    if !entry.absent {
        let place = place(entry);
        names.push((shown(&entry.key).into_owned(), place.file, place.origin));
    }
    for extra in entry.extras() {
        let hidden = sidecar_stem(extra).is_some() || state.catalog.get(extra).is_some();
        if !hidden && names.len() + 1 < NAMES as usize {
            names.push((extra.to_string(), extra.clone(), Origin::Foreign));
        }
    }
    names
}

/// The rule of the store's layout that a new key breaks.
pub(super) fn may_create(store: &Store, sdk: &Sdk, key: &str) -> Result<()> {
    let layout = {
        let state = fresh(store, sdk)?;
        if state.catalog.get(key).is_some_and(|entry| !entry.absent) {
            return Ok(());
        }
        if let Some((place, _)) = look_up(&state, key)
            && place.origin == Origin::Foreign
        {
            return Err(store::foreign("make the record", key));
        }
        if store.shared.folds_case() {
            refuse_other_case(&state, key)?;
        }
        state.layout()
    };
    store::refuse_link(store.dir(Area::Store)?, key)?;
    let inputs: Vec<&str> = store.shared.inputs().collect();
    let named = ContentType::guess_from_name(key);
    target::may_keep(layout, key, named.as_ref(), &inputs)
}

/// Where the disk takes two keys for one name, the second would replace the first.
fn refuse_other_case(state: &State, key: &str) -> Result<()> {
    let other = |entry: &&Entry| !entry.absent && entry.key.eq_ignore_ascii_case(key);
    match state.catalog.from(0).find(other) {
        None => Ok(()),
        Some(entry) => {
            let why = format!(
                "the disk does not tell this name from that of the record {}; choose another key",
                entry.key
            );
            tracing::warn!("{key}: {why}");
            Err(Error::because("make the record", key, Kind::Exists, why))
        }
    }
}

pub(super) fn content_type(
    store: &Store,
    sdk: &Sdk,
    key: &str,
    place: &Place,
) -> Result<ContentType> {
    let (said, beside) = {
        let state = fresh(store, sdk)?;
        match state
            .catalog
            .get(key)
            .filter(|entry| entry.file() == *place.file)
        {
            Some(entry) => (
                entry.content_type.clone(),
                entry.beside.is_some() && !entry.outdated,
            ),
            // A superseded file or an alias: its own name is all that tells.
            None => (of_file_name(&place.file), false),
        }
    };
    if let Some(said) = said {
        if beside {
            return Ok(said);
        }
        // The extension says all but how the charset was spelt, and that is kept on the file.
        return Ok(plan::exact_type(store, &place.file)?.unwrap_or(said));
    }
    let file = store.open(place, false)?;
    of_bytes(key, &file, store.shared.is_input(key))
        .map_err(|error| Error::io("read the content type of", key, error))
}

fn of_file_name(file: &str) -> Option<ContentType> {
    let extension = names::split(file).1?;
    content_type_of_extension(extension).map(ContentType::stored)
}

/// The type of a file whose name says none: JSON and the like only for an input, else text or not.
fn of_bytes(key: &str, file: &File, is_input: bool) -> std::io::Result<ContentType> {
    if is_input {
        return ContentType::guess_from_bytes(file);
    }
    // The JavaScript SDK leaves the extension away when the key is one: `json` holds JSON.
    if let Some(named) = content_type_of_extension(key).map(ContentType::stored)
        && (named.is_json() || named.is_text())
        && !named.contradicts(file)?
    {
        return Ok(named);
    }
    let text = ContentType::stored(TEXT);
    Ok(match text.contradicts(file)? {
        false => text,
        true => ContentType::stored(BINARY),
    })
}
