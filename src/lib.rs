//! storefs mounts Apify key-value stores as ordinary directories.
//!
//! The map, from the top floor down. A module imports only from floors below its own.
//!
//! | floor | rooms |
//! |---|---|
//! | 6 | `cli`: the command line |
//! | 5 | `actor`: a command run as an Actor |
//! | 4 | `mount`: the kernel's door; `serve`: the door of HTTP; `control`: the socket of a mount |
//! | 3 | `fs`: a tree of inodes |
//! | 2 | `volume`: what the tree stands on |
//! | 1 | `backend`: where records live |
//! | 0 | `record`: the words; `error`; `sys`: what the standard library lacks |

// What a user, a disk or a network can bring about ends in an error and never in a panic.
#![cfg_attr(
    not(test),
    deny(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

pub mod actor;
pub mod backend;
pub mod cli;
pub mod control;
pub mod error;
pub mod fs;
pub mod mount;
pub mod record;
pub mod serve;
pub mod sys;
pub mod volume;
