//! Which layout a store has. It only looks; it never changes a store.

use super::Layout;
use super::shared::Shared;
use crate::record::StoreName;

/// Whether the store is plain: by a marker, or because everything is written so.
pub(super) fn is_plain(shared: &Shared, name: &StoreName) -> bool {
    shared.options.layout == Some(Layout::Plain) || shared.is_marked_plain(name)
}
