//! What is known of a record without its bytes. An option that is `None` was not told by the place that holds it.

use super::ContentType;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// How tags begin that stand for a time.
const BY_TIME: &str = "modified-";

/// A version's tag, without the quotes of HTTP. Copies share its characters: there may be several of it for each record.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(Arc<str>);

impl ETag {
    /// A tag from a backend's own words. Quotes and a weak mark are removed.
    pub fn new(tag: &str) -> Self {
        Self(tag.trim_start_matches("W/").trim_matches('"').into())
    }

    /// The tag of one version of a local file: inode, size in bytes, and when its bytes and its inode last changed, in
    /// nanoseconds. The last of these no program can set back, and it rises with the content type's attribute too.
    pub fn of_file(inode: u64, size: u64, (modified_ns, changed_ns): (i128, i128)) -> Self {
        // Numbers of 64 bits are told faster, and in the same digits.
        let text = match (u64::try_from(modified_ns), u64::try_from(changed_ns)) {
            (Ok(modified), Ok(changed)) => format!("{inode:x}-{size:x}-{modified:x}-{changed:x}"),
            _ => format!("{inode:x}-{size:x}-{modified_ns:x}-{changed_ns:x}"),
        };
        Self(text.into())
    }

    /// What stands for a version where a server tells times and no tags: when it was made, to the second.
    pub fn of_time(modified: SystemTime) -> Option<Self> {
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Self(format!("{BY_TIME}{}", since.as_secs()).into()))
    }

    /// Whether a time stands for the version.
    pub fn is_of_time(&self) -> bool {
        self.0.starts_with(BY_TIME)
    }

    /// The tag's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A record's length in bytes, when it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// The length of the decoded body.
    Exact(u64),
    /// What is told of it, which may be the length of a compressed form.
    Told(u64),
    /// Not told.
    Unknown,
}

impl Size {
    /// The length of the decoded body, when it is known.
    pub fn exact(self) -> Option<u64> {
        match self {
            Self::Exact(size) => Some(size),
            Self::Told(_) | Self::Unknown => None,
        }
    }

    /// What to show for it.
    pub fn shown(self) -> u64 {
        match self {
            Self::Exact(size) | Self::Told(size) => size,
            Self::Unknown => 0,
        }
    }
}

/// What a backend says of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Its length.
    pub size: Size,
    /// Its content type, verbatim.
    pub content_type: Option<ContentType>,
    /// The tag of this version.
    pub etag: Option<ETag>,
    /// When its bytes were last written.
    pub modified: Option<SystemTime>,
}

/// What must hold of the record for a write to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// Nothing: the last writer wins.
    None,
    /// There is no such record.
    Absent,
    /// The record is this version.
    Match(ETag),
}
