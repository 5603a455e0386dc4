//! The words of the domain: keys, names, content types, metadata, bodies. No input or output, nothing asynchronous.

pub mod body;
pub mod content_type;
pub mod encoding;
pub mod file_name;
pub mod hex;
pub mod key;
pub mod meta;
pub mod signature;
pub mod sniff;
pub mod store;
pub mod time;
pub mod types_table;

pub use body::Body;
pub use content_type::ContentType;
pub use hex::hex;
pub use key::{Key, RecordId, StoreName};
pub use meta::{ETag, Meta, Precondition, Size};
pub use store::{Access, ApiId};
pub use time::{nanoseconds, now_ns};
