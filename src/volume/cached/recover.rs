//! What an earlier mount left in the spool, as it was: the newest edit of each record is to be sent, older ones of it may
//! have been. It sends nothing itself.

use super::Options;
use super::evict::Budget;
use super::index::Index;
use super::note::Note;
use super::spool::{Found, Spool};
use super::state::{Change, Dirty, Edit, Remote, State};
use crate::error::Result;
use crate::record::{RecordId, Size};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Puts what is in the spool into the index.
pub(super) fn recover(
    (spool, found): (&Spool, Vec<Found>),
    index: &mut Index,
    budget: &Arc<Budget>,
    options: &Options,
) -> Result<()> {
    let mut edits: BTreeMap<RecordId, Vec<(u64, Note)>> = BTreeMap::new();
    let of: HashMap<u64, RecordId> = found
        .iter()
        .map(|(seq, it)| (*seq, it.id.clone()))
        .collect();
    let mut moved = HashSet::new();
    for (seq, note) in &found {
        // Under another name it is there once more, since the end came before this one was over.
        let elsewhere = |it: &&u64| of.get(it).is_some_and(|id| *id != note.id);
        moved.extend(note.replaces.iter().copied().filter(|it| elsewhere(&it)));
        index.unsettled.insert(*seq);
        index.replace(&note.replaces, *seq);
        if let Some(after) = note.after {
            index.note_awaited(after);
        }
    }
    for (seq, note) in found {
        if moved.contains(&seq) {
            index.unsettled.remove(&seq);
            spool.forget(seq);
            continue;
        }
        edits.entry(note.id.clone()).or_default().push((seq, note));
    }
    if !edits.is_empty() {
        tracing::info!(
            "{} records wait to be sent from an earlier mount",
            edits.len()
        );
    }
    for (id, mut all) in edits {
        if !index.stores.contains_key(&id.store) {
            // The name of the directory is learned when the stores are listed.
            let dir = match &options.default_store {
                Some(default) if *default == id.store => "default",
                _ => id.store.as_str(),
            };
            index.enter_store(&id.store, &crate::record::StoreName::new(dir)?, false);
        }
        // Only a put may be what the backend has; of deletions the newest counts.
        let Some((seq, newest)) = all.pop() else {
            continue;
        };
        let older: Vec<_> = all
            .into_iter()
            .filter(|(seq, note)| {
                let counts = note.change == Change::Put;
                if !counts {
                    index.unsettled.remove(seq);
                    spool.forget(*seq);
                }
                counts
            })
            .collect();
        // It was saved last, and again whenever it was known better.
        let base = newest.base.clone();
        take(index, budget, &id, (seq, newest), older, base);
    }
    Ok(())
}

fn take(
    index: &mut Index,
    budget: &Arc<Budget>,
    id: &RecordId,
    (seq, newest): (u64, Note),
    older: Vec<(u64, Note)>,
    base: Remote,
) {
    let version = index.number();
    let seqs: Vec<u64> = older.iter().map(|(seq, _)| *seq).chain([seq]).collect();
    index.unsettled.extend(&seqs);
    let Some(record) = index.enter(id, Remote::Unknown) else {
        return;
    };
    let edit = Edit {
        seq,
        change: newest.change,
    };
    let mut tried: Vec<_> = older
        .iter()
        .map(|(seq, note)| Edit {
            seq: *seq,
            change: note.change,
        })
        .collect();
    // It may have been sent just before the end.
    tried.push(edit);
    record.version = version;
    record.size = newest.size.map_or(Size::Unknown, Size::Exact);
    record.content_type.clone_from(&newest.content_type);
    record.show(newest.shown);
    // What is cached is the version before it.
    record.kept = None;
    record.state = State::Dirty(Box::new(Dirty { base, edit, tried }));
    record.set_there(Remote::Unknown);
    for (seq, note) in older.into_iter().chain([(seq, newest)]) {
        let room = budget.room();
        room.set(note.size.unwrap_or_default());
        record.rooms.insert(seq, room);
        record.notes.insert(seq, Arc::new(note));
    }
    index.enqueue(id, Instant::now());
}
