//! The Unix socket of a mount: one request a line in, progress lines and one answer out. It knows neither the mount nor
//! the command line; who serves it hands in what it can do.

mod client;
mod server;
mod wire;

pub use client::Client;
pub use server::{Served, Server, private_folder};
pub use wire::{Metamorph, Request, Text};
