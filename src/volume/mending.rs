//! Waiting for what SDKs left half to be mended. It mends nothing itself, and never waits for ever.

use crate::backend::dir::Folder;
use crate::record::StoreName;
use std::time::{Duration, Instant};

/// What looks half-written is mended when it is two seconds old. An SDK that died in the middle must not hold anybody
/// for longer than this.
const MOST: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Returns when the records of this store, or of all, are as every SDK reads them, or when it has waited long enough.
pub(super) fn mend(folder: &Folder, store: Option<&StoreName>) {
    let names = match store {
        Some(name) => vec![name.clone()],
        None => folder.stores().unwrap_or_default(),
    };
    let until = Instant::now() + MOST;
    for name in &names {
        loop {
            match folder.store(name).and_then(|store| store.mended()) {
                Ok(false) => {}
                Ok(true) => break,
                // It went meanwhile, or nobody can read it: then there is nothing to wait for.
                Err(error) => {
                    tracing::debug!("{name} is not mended: {error}");
                    break;
                }
            }
            if Instant::now() > until {
                tracing::warn!(
                    "{name}: an SDK left a record half-written; it is mended when it can be"
                );
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
