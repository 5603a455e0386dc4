//! What a write in an SDK layout will do: which files a key gets, and whose are in the way. Another key's file is never
//! overwritten; that key gets other names first.

use super::catalog::Entry;
use super::sdk::State;
use super::target::{self, Target};
use super::{Area, Layout, Store, attrs, commit, disk, names};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;

/// A key that is in the way of one that is in the way of one: so many are moved aside.
const DEPTH: u32 = 3;

/// The new files of a record and what they replace.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) key: String,
    pub(super) content_type: ContentType,
    pub(super) target: Target,
    /// The key's files until now.
    pub(super) old: Option<Entry>,
}

/// The plan for a key; what is in its way has been moved.
pub(super) fn plan(
    store: &Store,
    state: &mut State,
    key: &str,
    content_type: &ContentType,
) -> Result<Plan> {
    beside(store, state, key, content_type, None, 0)
}

/// The same; `spared` is a name that this key must leave to another.
fn beside(
    store: &Store,
    state: &mut State,
    key: &str,
    content_type: &ContentType,
    spared: Option<&str>,
    depth: u32,
) -> Result<Plan> {
    let old = state.catalog.get(key).cloned();
    let layout = state.layout();
    let inputs: Vec<&str> = store.shared.inputs().collect();
    if old.as_ref().is_none_or(|old| old.absent) {
        target::may_keep(layout, key, Some(content_type), &inputs)?;
    }
    let now = old.as_ref().filter(|old| !old.absent).map(Entry::file);
    let taken = |name: &str| spared == Some(name) || state.catalog.owner(name, key).is_some();
    let target = target::of(
        layout,
        key,
        content_type,
        (now.as_deref(), inputs.contains(&key)),
        &taken,
    );
    let names = [Some(target.value.clone()), target.link.clone()];
    for name in names.into_iter().flatten() {
        let Some(other) = state.catalog.owner(&name, key).cloned() else {
            continue;
        };
        if depth == DEPTH || other.is_superseded(&name) {
            let why = format!("its file {name} is in use for {}", other.key);
            return Err(Error::because("write the record", key, Kind::Exists, why));
        }
        move_aside(store, state, &other, &name, depth + 1)?;
    }
    Ok(Plan {
        key: key.to_owned(),
        content_type: content_type.clone(),
        target,
        old,
    })
}

/// Gives another key files of other names.
fn move_aside(
    store: &Store,
    state: &mut State,
    other: &Entry,
    name: &str,
    depth: u32,
) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let key = &*other.key;
    let file = disk::open_file(dir, &other.file(), false)
        .map_err(|error| disk::failed("give another file name to", key, error))?;
    let content_type = match existing_type(store, state.layout(), Some(other))? {
        Some(known) => known,
        None => ContentType::guess(key, &file)
            .map_err(|error| Error::io("read the record", key, error))?,
    };
    let plan = beside(store, state, key, &content_type, Some(name), depth)?;
    commit::reshape_as(store, state, &plan, &file)
}

/// The type a key has now, when its name or sidecar says one.
pub(super) fn existing_type(
    store: &Store,
    layout: Layout,
    old: Option<&Entry>,
) -> Result<Option<ContentType>> {
    let Some(old) = old.filter(|old| !old.absent) else {
        return Ok(None);
    };
    let said = old.content_type.clone();
    if layout == Layout::Js && old.beside.is_none() {
        return Ok(exact_type(store, &old.file())?.or(said));
    }
    Ok(said)
}

/// How exactly the type of a file was spelt whose extension says it but for a default charset.
pub(super) fn exact_type(store: &Store, file: &str) -> Result<Option<ContentType>> {
    let text = attrs::text(store.dir(Area::Store)?, file, attrs::TYPE).unwrap_or_default();
    let exact = text.map(|text| ContentType::stored(&text));
    let extension = names::split(file).1;
    Ok(exact.filter(|exact| extension.is_some_and(|extension| target::says(extension, exact))))
}
