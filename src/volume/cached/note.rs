//! What the spool writes beside the bytes of an edit: enough to send it after a restart, whatever else is lost.

use super::state::{Change, Remote};
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, ETag, Key, RecordId, StoreName};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::OnceLock;

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
    /// Edits whose place it took, as far as others wait for them or they are of another record.
    pub(super) replaces: Vec<u64>,
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

impl Shown {
    /// How a version is shown that was made by then, of which the backend knows no more.
    pub(super) fn of_version(modified_ns: i64) -> Self {
        static OWNER: OnceLock<(u32, u32)> = OnceLock::new();
        let (uid, gid) = *OWNER.get_or_init(|| {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            (user.as_raw(), group.as_raw())
        });
        Self {
            mode: 0o644,
            uid,
            gid,
            accessed_ns: modified_ns,
            modified_ns,
            changed_ns: modified_ns,
        }
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    /// The edit's number.
    seq: u64,
    /// The number of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<u64>,
    #[serde(borrow)]
    store: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    change: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    /// A tag, or "" for an absent record; without one it is not known.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    base: Option<Cow<'a, str>>,
    saved_ns: i64,
    shown: Shown,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<u64>,
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
    /// As a line of the spool's notes, with its end: the edit of this number, with these bytes.
    pub(super) fn to_line(&self, seq: u64, data: Option<u64>) -> Result<String> {
        let change = match self.change {
            Change::Put => "put",
            Change::Delete => "delete",
        };
        let written = Written {
            seq,
            data,
            store: self.id.store.as_str().into(),
            key: self.id.key.as_str().into(),
            change: change.into(),
            size: self.size,
            content_type: self.content_type.as_ref().map(|t| t.as_str().into()),
            base: remote_text(&self.base).map(Cow::Owned),
            saved_ns: self.saved_ns,
            shown: self.shown,
            after: self.after,
            replaces: self.replaces.clone(),
            conflict: self.conflict,
        };
        let mut line = serde_json::to_string(&written)
            .map_err(|e| Error::because("save the edit", "", Kind::Io, e.to_string()))?;
        line.push('\n');
        Ok(line)
    }

    /// Out of such a line, without its end: the edit's number and that of its bytes, too.
    pub(super) fn from_line(line: &str) -> Result<(u64, Option<u64>, Self)> {
        let bad = |why: String| Error::because("read the edit", "", Kind::Corrupt, why);
        let written: Written<'_> = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        let note = Self {
            id: RecordId {
                store: StoreName::new(&written.store)?,
                key: Key::new(&written.key)?,
            },
            change: match &*written.change {
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
            replaces: written.replaces,
            conflict: written.conflict,
        };
        Ok((written.seq, written.data, note))
    }
}
