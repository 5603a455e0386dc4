//! Random operations on the tree of inodes without a kernel, beside a plain reference of what a mount promises. After
//! each operation both must show the same, to the mount's own users and to whoever looks at the folder.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod compare;
mod kernel;
mod opener;
mod operation;
mod quiet;
mod reference;
mod run;
mod types;

pub use operation::{Bytes, Closer, How, Name, Op, Opener, operations};
pub use run::{Way, run};
