//! What a change without new bytes may replace: the files that the record was known to have when it was decided on. All
//! else was put there since, by an SDK, and is newer.

use super::plan::Plan;
use super::sdk::State;
use super::sidecar::{self, Sidecar};
use super::swap::Held;
use super::{Area, FileStat, Store, disk, target};
use crate::error::{Error, Kind, Result};
use rustix::io::Errno;

/// The files of one record, held.
#[derive(Debug)]
pub(super) struct Known {
    /// Older values of the key.
    values: Vec<Held>,
    sidecar: Option<Held>,
}

impl Known {
    /// What the record has beside its value. `Kind::Busy` when that is not what the plan was made from.
    pub(super) fn of(store: &Store, state: &State, plan: &Plan, value: &FileStat) -> Result<Self> {
        let dir = store.dir(Area::Store)?;
        let hold = |file: &str| match Held::open(dir, file) {
            Ok(held) => Ok(Some(held)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(disk::failed("write the record", &plan.key, error)),
        };
        let newer = || {
            let why = "an SDK is writing it";
            Error::because("write the record", &*plan.key, Kind::Busy, why)
        };
        let mut values = Vec::new();
        for file in plan.old.iter().flat_map(|old| old.extras()) {
            if let Some(held) = hold(file)? {
                // What is newer than the record was written meanwhile, and is not in its way. Of two files that are as old, the
                // one with the sidecar is the newer one.
                let has_sidecar = plan.old.as_ref().is_some_and(|old| {
                    old.outdated && old.stem().is_some_and(|stem| *stem == **file)
                });
                let (at, newest) = (held.stat().modified_ns, value.modified_ns);
                if at < newest || (at == newest && !has_sidecar) {
                    values.push(held);
                }
            }
        }
        let mut own = None;
        if let Some((stem, _)) = &plan.target.sidecar {
            own = hold(&target::sidecar_file(stem))?;
            let beside = plan.old.as_ref().and_then(|old| old.beside.as_ref());
            let old_stem = plan.old.as_ref().and_then(|old| old.stem());
            if let (Some(held), Some(beside)) = (&own, beside)
                && old_stem.as_deref() == Some(stem)
            {
                // Held now, it cannot become another one; but its number may be that of one that is gone.
                let outdated = plan.old.as_ref().is_some_and(|old| old.outdated);
                let same = beside.inode == held.stat().inode
                    && (outdated
                        || alike(
                            state.catalog.sidecar(stem, beside.inode),
                            sidecar::read(dir, stem),
                        ));
                if !same {
                    return Err(newer());
                }
            }
        }
        Ok(Self {
            values,
            sidecar: own,
        })
    }

    /// Whether this is an older value of the key.
    pub(super) fn is_value(&self, stat: &FileStat) -> bool {
        self.values.iter().any(|held| held.is(stat))
    }

    /// Whether this is the sidecar that the plan was made from.
    pub(super) fn is_sidecar(&self, stat: &FileStat) -> bool {
        self.sidecar.as_ref().is_some_and(|held| held.is(stat))
    }
}

/// Whether two looks found one sidecar. Its key is left out: an input's is taken from the file's name.
fn alike(one: Option<Sidecar>, other: Option<Sidecar>) -> bool {
    let told = |said: Sidecar| (said.content_type, said.extension, said.size, said.form);
    one.map(told) == other.map(told)
}
