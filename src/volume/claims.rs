//! Claims of names that are being made exclusively, between all processes that have the folder mounted. A claim is a lock
//! on one byte of a file, so it costs no disk write and ends with its process.

use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::fd::AsFd;

/// The claims of this process; none where the folder has no place for them.
#[derive(Debug)]
pub(super) struct Claims(Option<File>);

impl Claims {
    pub(super) fn new(file: Option<File>) -> Self {
        Self(file)
    }

    /// Takes a name; `Kind::Exists` when another process has it.
    pub(super) fn take(&self, store: &StoreName, name: &str) -> Result<()> {
        let subject = || format!("{store}/{name}");
        self.lock(store, name, libc::F_WRLCK)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => {
                    let why = "another mount is making it";
                    Error::because("create", subject(), Kind::Exists, why)
                }
                _ => Error::io("claim", subject(), e),
            })
    }

    /// Gives a name back.
    pub(super) fn give_back(&self, store: &StoreName, name: &str) {
        // A claim that cannot be given back ends with this process.
        let _ = self.lock(store, name, libc::F_UNLCK);
    }

    fn lock(&self, store: &StoreName, name: &str, kind: libc::c_int) -> std::io::Result<()> {
        match &self.0 {
            Some(file) => crate::sys::lock_byte(file.as_fd(), offset(store, name), kind),
            None => Ok(()),
        }
    }
}

/// The byte that stands for a name. Two names that share one only make an exclusive creation fail while the other is being
/// made, one time in 2^62.
fn offset(store: &StoreName, name: &str) -> u64 {
    // Every process must come to the same byte, so the hash is one that no build changes.
    let digest = Sha256::new()
        .chain_update(store.as_str())
        .chain_update([0])
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes) >> 2
}
