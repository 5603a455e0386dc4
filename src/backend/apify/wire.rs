//! The shapes of the API's JSON, and what they mean here. What breaks the API's rules is refused, and what may be endless is
//! cut.

use super::failure::Asked;
use crate::backend::{Counts, StoreInfo};
use crate::error::Result;
use crate::record::{Access, ContentType, ETag, Key, Meta, Size, StoreName};
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// The most characters of a title, a secret or an id that are kept.
const SHORT: usize = 1000;

/// Every answer of JSON.
#[derive(Deserialize)]
pub(super) struct Answer<T> {
    pub data: T,
}

/// A user, as far as storage goes.
#[derive(Deserialize)]
pub(super) struct User {
    pub id: String,
}

/// A store.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Store {
    pub id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    modified_at: Option<String>,
    #[serde(default)]
    accessed_at: Option<String>,
    #[serde(default)]
    act_id: Option<String>,
    #[serde(default)]
    act_run_id: Option<String>,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    general_access: Option<String>,
    #[serde(default)]
    url_signing_secret_key: Option<String>,
    #[serde(default)]
    stats: Value,
}

impl Store {
    /// What it says. A store of our own user, `me`, is told as one that nobody else owns.
    pub(super) fn into_info(self, asked: &Asked<'_>, me: Option<&str>) -> Result<StoreInfo> {
        let name = |text: &str| {
            StoreName::new(text).map_err(|why| {
                asked.wrong(format!("the server tells of a store that cannot be: {why}"))
            })
        };
        let count = |field: &str| self.stats.get(field).and_then(Value::as_u64);
        let counts = Counts {
            reads: count("readCount").unwrap_or(0),
            writes: count("writeCount").unwrap_or(0),
            deletes: count("deleteCount").unwrap_or(0),
            lists: count("listCount").unwrap_or(0),
        };
        let bytes = count("s3StorageBytes").or_else(|| count("storageBytes"));
        let access = self.general_access.as_deref();
        Ok(StoreInfo {
            id: name(&self.id)?,
            name: self
                .name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(name)
                .transpose()?,
            // Who cannot ask who it is has still been let in by the server.
            owner: short(self.user_id).filter(|user| me.is_some_and(|me| me != user)),
            created: time(self.created_at.as_deref()),
            modified: time(self.modified_at.as_deref()),
            accessed: time(self.accessed_at.as_deref()),
            title: short(self.title),
            access: access
                .and_then(|text| text.parse::<Access>().ok())
                .unwrap_or_default(),
            secret: short(self.url_signing_secret_key),
            schema: self.schema,
            run: short(self.act_run_id),
            actor: short(self.act_id),
            counts,
            bytes,
        })
    }
}

fn short(text: Option<String>) -> Option<String> {
    text.map(|text| match text.char_indices().nth(SHORT) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    })
}

/// A page of stores.
#[derive(Deserialize)]
pub(super) struct Stores {
    #[serde(default)]
    pub total: u64,
    #[serde(rename = "items")]
    pub lines: Vec<Store>,
}

/// A page of keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keys {
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    #[serde(default)]
    pub is_truncated: bool,
    #[serde(default)]
    pub next_exclusive_start_key: Option<String>,
}

/// A key of a page. `storefs serve` tells more than the API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub key: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    modified_at: Option<String>,
    #[serde(default)]
    etag: Option<String>,
}

impl Line {
    /// Whether it tells of a version. Whoever does tells the length of that version's own bytes; of others nobody knows
    /// whether they tell that of a compressed form.
    pub(super) fn is_exact(&self) -> bool {
        self.etag.is_some() && self.size.is_some()
    }

    /// What it says. `before` is the type of the line before it: most lines have the same, and share its characters.
    pub(super) fn into_meta(self, before: &mut Option<ContentType>) -> Meta {
        let exact = self.is_exact();
        if before.as_ref().map(ContentType::as_str) != self.content_type.as_deref() {
            *before = self.content_type.as_deref().map(ContentType::stored);
        }
        Meta {
            size: match self.size {
                Some(size) if exact => Size::Exact(size),
                Some(size) => Size::Told(size),
                None => Size::Unknown,
            },
            content_type: before.clone(),
            etag: self.etag.as_deref().map(ETag::new),
            modified: time(self.modified_at.as_deref()).map(whole_seconds),
        }
    }
}

/// Headers tell times of whole seconds. A record shall not look younger in a listing than by itself.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

fn time(text: Option<&str>) -> Option<SystemTime> {
    humantime::parse_rfc3339(text?).ok()
}

/// A key that the server lists. `.` and `..` may be there and cannot be asked for: `None`.
pub(super) fn listed_key(asked: &Asked<'_>, text: &str) -> Result<Option<Key>> {
    if text == "." || text == ".." {
        return Ok(None);
    }
    Key::new(text).map(Some).map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        asked.wrong(format!("the server lists {shown:?}, which is no legal key"))
    })
}
