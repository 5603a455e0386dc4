//! What the spool writes beside the bytes of an edit: enough to send it after a restart, whatever else is lost.

use super::state::{Change, Remote};
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, ETag, Key, RecordId, StoreName};
use serde::{Deserialize, Serialize};

/// An edit without its bytes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Note {
    /// The record.
    pub(super) id: RecordId,
    /// What is done to it.
    pub(super) change: Change,
    /// How many bytes, of a put.
    pub(super) size: Option<u64>,
    /// The type it is sent with; without one it is decided when it is sent.
    pub(super) content_type: Option<ContentType>,
    /// The version it was made on.
    pub(super) base: Remote,
    /// When it was saved, in nanoseconds since 1970.
    pub(super) saved_ns: i64,
    /// How the record is shown.
    pub(super) shown: Shown,
    /// It goes only after this edit was accepted.
    pub(super) after: Option<u64>,
    /// It is our side of a conflict.
    pub(super) conflict: bool,
}

/// Attributes that are kept here and never sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) accessed_ns: i64,
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// The edit that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    store: String,
    key: String,
    change: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// A tag, or "" for an absent record; without one it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    saved_ns: i64,
    shown: Shown,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(default)]
    conflict: bool,
}

/// A version as text.
pub(super) fn remote_text(remote: &Remote) -> Option<String> {
    match remote {
        Remote::Unknown => None,
        Remote::Absent => Some(String::new()),
        Remote::At(tag) => Some(tag.as_str().to_owned()),
    }
}

/// The version of a text.
pub(super) fn remote_of(text: Option<&str>) -> Remote {
    match text {
        None => Remote::Unknown,
        Some("") => Remote::Absent,
        Some(tag) => Remote::At(ETag::new(tag)),
    }
}

impl Note {
    /// As the text of this edit's file.
    pub(super) fn to_json(&self, seq: u64) -> String {
        let written = Written {
            seq: Some(seq),
            store: self.id.store.as_str().to_owned(),
            key: self.id.key.as_str().to_owned(),
            change: match self.change {
                Change::Put => "put".to_owned(),
                Change::Delete => "delete".to_owned(),
            },
            size: self.size,
            content_type: self.content_type.as_ref().map(|t| t.as_str().to_owned()),
            base: remote_text(&self.base),
            saved_ns: self.saved_ns,
            shown: self.shown,
            after: self.after,
            conflict: self.conflict,
        };
        serde_json::json!(written).to_string()
    }

    /// Out of the text of this edit's file.
    pub(super) fn from_json(text: &str, seq: u64) -> Result<Self> {
        let bad = |why: String| Error::because("read the edit", "", Kind::Corrupt, why);
        let written: Written = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        // The file may have been another edit's before, and a power failure may bring that back.
        if let Some(other) = written.seq.filter(|written| *written != seq) {
            return Err(bad(format!("it is of the edit {other}")));
        }
        Ok(Self {
            id: RecordId {
                store: StoreName::new(&written.store)?,
                key: Key::new(&written.key)?,
            },
            change: match written.change.as_str() {
                "put" => Change::Put,
                "delete" => Change::Delete,
                other => return Err(bad(format!("an edit does not {other:?}"))),
            },
            size: written.size,
            content_type: written.content_type.as_deref().map(ContentType::stored),
            base: remote_of(written.base.as_deref()),
            saved_ns: written.saved_ns,
            shown: written.shown,
            after: written.after,
            conflict: written.conflict,
        })
    }
}
