//! A local folder of stores, as the SDKs leave it on disk. Nothing here knows of inodes or of the kernel's door.
//!
//! The blocking calls of [`Folder`] and [`Store`] are the straight way in, used by the local volume. The asynchronous
//! `Backend` of the same folder stands on them.

mod attrs;
mod backend;
mod binding;
mod card;
mod cards;
mod catalog;
mod change;
mod commit;
mod cursor;
mod disk;
mod folder;
mod followed;
mod ids;
mod js_lock;
mod keys;
mod known;
mod layout;
mod live;
mod look;
mod moves;
mod names;
mod own;
mod plain;
mod plan;
mod records;
mod removal;
mod repair;
mod scan;
mod scratch;
mod sdk;
mod shared;
mod sidecar;
mod steps;
mod store;
mod support;
mod swap;
mod target;
mod temp;
mod uses;

pub use backend::DirBackend;
pub use folder::Folder;
pub use own::OwnDir;
pub use store::Store;
pub use temp::Draft;

/// How a store's records are laid out on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// File name = key, type in the extended attribute `user.mime_type`.
    Plain,
    /// What the JavaScript SDK writes.
    Js,
    /// What the Python SDK 1.x writes.
    Python,
    /// What both SDKs read.
    Dual,
}

/// How a folder is opened.
#[derive(Clone, Debug, Default)]
pub struct FolderOptions {
    /// Write this layout whatever is detected; `None` detects it per store.
    pub layout: Option<Layout>,
    /// Nothing is created, repaired or cleaned.
    pub read_only: bool,
    /// The keys that are stored as inputs are: `INPUT` and what the environment names.
    pub input_keys: Vec<String>,
}

/// Where a name's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file's name in its directory.
    pub file: Box<str>,
    /// Which directory.
    pub area: Area,
    /// What kind of name led here.
    pub origin: Origin,
}

/// The directory a file is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Area {
    /// The store's own directory.
    Store,
    /// The mount's scratch files of that store, outside of it.
    Scratch,
}

/// What kind of name led to a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A key.
    Record,
    /// A scratch name.
    Scratch,
    /// A js store's full file name, not listed; for reading only.
    Alias,
    /// A name that is no key, percent-encoded, or a value file that another one has superseded: read-only.
    Foreign,
}

/// What fstatat says of a value file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileStat {
    /// Inode number on the underlying disk.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Disk use in units of 512 bytes.
    pub blocks: u64,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Times in nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Last change of the bytes.
    pub modified_ns: i64,
    /// Last change of the inode.
    pub changed_ns: i64,
}

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The name as the mount shows it.
    pub name: &'a str,
    /// The file's name in its directory.
    pub file: &'a str,
    /// Which directory.
    pub area: Area,
    /// What kind of name it is.
    pub origin: Origin,
    /// Give this to `Store::list` to go on after this entry. Never 0, below 2^62, stable while the directory changes.
    pub next: u64,
}

/// What a commit does when the name is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitIf {
    /// Replace it.
    Any,
    /// `Kind::Exists`.
    Absent,
}
