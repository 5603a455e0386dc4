//! The words that stores add: ids as the platform makes them, who may read, and which names its API takes.

use super::key::{StoreId, StoreName};
use crate::error::{Error, Kind, Result};
use std::fmt;
use std::str::FromStr;

/// How many characters an id of the platform has.
pub const ID_LENGTH: usize = 17;
/// The most characters that the API takes for a store's name.
pub const MAX_API_NAME: usize = 63;

/// An id as the platform makes them for stores, users and runs: 17 of `a-zA-Z0-9`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiId(StoreName);

impl ApiId {
    /// The id of this spelling, or `Kind::Invalid`.
    pub fn new(id: &str) -> Result<Self> {
        if !is_api_id(id) {
            return Err(Error::because(
                "use the id",
                format!("{id:?}"),
                Kind::Invalid,
                "an id has exactly 17 characters of a-z A-Z 0-9",
            ));
        }
        StoreName::new(id).map(Self)
    }

    /// The id's characters.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Whether this is spelt as an id of the platform is.
pub fn is_api_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl From<ApiId> for StoreId {
    fn from(id: ApiId) -> Self {
        id.0
    }
}

impl fmt::Display for ApiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ApiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Who may read a store without being its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Access {
    /// As the owner's account says.
    #[default]
    FollowUser,
    /// Nobody.
    Restricted,
    /// Whoever knows the id.
    AnyoneWithId,
    /// Whoever knows the id or the name.
    AnyoneWithName,
}

impl Access {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FollowUser => "FOLLOW_USER_SETTING",
            Self::Restricted => "RESTRICTED",
            Self::AnyoneWithId => "ANYONE_WITH_ID_CAN_READ",
            Self::AnyoneWithName => "ANYONE_WITH_NAME_CAN_READ",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Access {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [
            Self::FollowUser,
            Self::Restricted,
            Self::AnyoneWithId,
            Self::AnyoneWithName,
        ];
        let found = all.into_iter().find(|access| access.as_str() == text);
        found.ok_or_else(|| {
            let why = format!("it is one of {}", all.map(Self::as_str).join(", "));
            Error::because("use the access", format!("{text:?}"), Kind::Invalid, why)
        })
    }
}

/// Which rule of the API a new store name breaks; `None` when it keeps them all. Stores of a folder may be called more.
pub fn api_store_name_fault(name: &str) -> Option<&'static str> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = name.as_bytes();
    if name.is_empty() {
        Some("a store name has at least 1 character")
    } else if name.len() > MAX_API_NAME {
        Some("a store name has at most 63 characters")
    } else if !bytes.iter().all(|&byte| letter(byte) || byte == b'-') {
        Some("a store name holds only a-z A-Z 0-9 and -")
    } else if bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
        Some("a store name neither begins nor ends with -")
    } else {
        None
    }
}

/// What two store names have in common when they are one name to the API: it does not tell letter case.
pub fn folded_name(name: &str) -> String {
    name.to_lowercase()
}
