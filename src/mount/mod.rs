//! The kernel's door: a tree of inodes as a mounted file system, by fuser. No other room knows fuser.

mod adapter;
mod awake;
mod caching;
mod descriptors;
mod errno;
mod failing;
mod invalidate;
mod passthrough;
mod processors;
mod reply;
mod session;

pub use descriptors::{limit_for_others, make_room};
pub use session::{MountOptions, Mounted, TOLD, runtime};
