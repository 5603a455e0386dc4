//! The shapes in which stores pass through the waist. They say nothing of records.

use crate::error::{Error, Kind};
use crate::record::key::StoreId;
use crate::record::{Access, StoreName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::time::SystemTime;

/// A store, by name or by id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreRef {
    /// By its id.
    Id(StoreId),
    /// By its name, among the stores of one owner or among those of nobody. Letter case makes no difference.
    Name {
        /// The owner's id; `None` for the stores that nobody owns.
        owner: Option<String>,
        /// The store's name.
        name: StoreName,
    },
}

impl StoreRef {
    /// A store that nobody owns, by its name.
    pub fn name(name: StoreName) -> Self {
        Self::Name { owner: None, name }
    }

    /// The error of a store that is not there.
    pub fn missing(&self, op: &'static str) -> Error {
        Error::new(op, self.to_string(), Kind::StoreNotFound)
    }
}

impl fmt::Display for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name { owner: None, name } => write!(f, "{name}"),
            Self::Name {
                owner: Some(owner),
                name,
            } => write!(f, "{owner}~{name}"),
        }
    }
}

/// How often a store was used. Counted in memory and written down now and then, so a crash may lose the last ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Records read.
    pub reads: u64,
    /// Records written.
    pub writes: u64,
    /// Records deleted.
    pub deletes: u64,
    /// Pages of keys read.
    pub lists: u64,
}

/// What a backend says of a store.
#[derive(Clone, PartialEq, Debug)]
pub struct StoreInfo {
    /// How the backend addresses it: the same for the life of the store, whatever its name is.
    pub id: StoreId,
    /// Its name; an unnamed store has none.
    pub name: Option<StoreName>,
    /// The id of the user it belongs to; nobody's when none was recorded.
    pub owner: Option<String>,
    /// When it was made, if that is known.
    pub created: Option<SystemTime>,
    /// When a record of it last changed, if that is known.
    pub modified: Option<SystemTime>,
    /// When it was last used, if that is known.
    pub accessed: Option<SystemTime>,
    /// What people call it.
    pub title: Option<String>,
    /// Who may read it.
    pub access: Access,
    /// The key that signs its public URLs. Not for those who may only read.
    pub secret: Option<String>,
    /// Its schema, kept as it was given.
    pub schema: Option<Value>,
    /// The run that made it.
    pub run: Option<String>,
    /// The Actor of that run.
    pub actor: Option<String>,
    /// How often it was used.
    pub counts: Counts,
    /// The length of all its records together, when it is known without reading them all.
    pub bytes: Option<u64>,
}

/// One page of stores, in the byte order of their ids.
#[derive(Clone, Debug, Default)]
pub struct StorePage {
    /// The stores.
    pub stores: Vec<StoreInfo>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<StoreId>,
}

/// A store to be made.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NewStore {
    /// Its name; `None` makes an unnamed one.
    pub name: Option<StoreName>,
    /// The user it belongs to.
    pub owner: Option<String>,
    /// Its schema.
    pub schema: Option<Value>,
    /// The run that makes it.
    pub run: Option<String>,
    /// The Actor of that run.
    pub actor: Option<String>,
}

impl NewStore {
    /// A store of this name that nobody owns.
    pub fn named(name: StoreName) -> Self {
        Self {
            name: Some(name),
            ..Self::default()
        }
    }
}

/// What may be changed of a store. What is `None` stays as it is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StoreChange {
    /// Its name; `Some(None)` takes it away.
    pub name: Option<Option<StoreName>>,
    /// Its title.
    pub title: Option<Option<String>>,
    /// Who may read it.
    pub access: Option<Access>,
    /// Its schema.
    pub schema: Option<Option<Value>>,
}

impl StoreChange {
    /// Another name and nothing else.
    pub fn rename(to: StoreName) -> Self {
        Self {
            name: Some(Some(to)),
            ..Self::default()
        }
    }

    /// Changes what is to be changed of what is known of a store.
    pub(super) fn apply(self, info: &mut StoreInfo) {
        if let Some(name) = self.name {
            info.name = name;
        }
        if let Some(title) = self.title {
            info.title = title;
        }
        if let Some(access) = self.access {
            info.access = access;
        }
        if let Some(schema) = self.schema {
            info.schema = schema;
        }
    }
}

/// The error of a name that another store of the same owner has.
pub(super) fn taken(name: &StoreName) -> Error {
    Error::because(
        "name the store",
        name.as_str(),
        Kind::Exists,
        "another store of the same owner has this name; letter case makes no difference",
    )
}

/// Takes one page of stores from all there are.
pub(super) fn page(mut stores: Vec<StoreInfo>, after: Option<&StoreId>, size: usize) -> StorePage {
    stores.retain(|store| after.is_none_or(|after| store.id > *after));
    stores.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let more = stores.len() > size;
    stores.truncate(size);
    let next = stores.last().filter(|_| more).map(|store| store.id.clone());
    StorePage { stores, next }
}
