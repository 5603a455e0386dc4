//! Fetches short records before they are opened, when a program reads those of a store in the order of their keys, or of a
//! number in them: else each would cost it a round trip. It fetches nothing that may have changed by then without this mount
//! being told.

use super::Inner;
use super::record::Record;
use crate::error::Result;
use crate::record::{Key, RecordId, Size};
use std::iter::successors;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// After so many in their order the next ones are fetched, too: more each time, up to `MOST`.
const SURE: u32 = 3;
const MOST: usize = 32;
/// The longest record that is fetched so, in bytes.
const SHORT: u64 = 64 << 10;

/// Who reads where.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    last: Option<RecordId>,
    /// How many were opened one after another.
    run: u32,
    /// In the order of their numbers, which is not that of their keys.
    counts: bool,
    /// What is being fetched.
    coming: JoinSet<()>,
}

impl Ahead {
    /// A record was opened, after which others come. How many of them to fetch.
    fn opened(&mut self, id: &RecordId, before: Option<&Key>) -> usize {
        let last = self.last.replace(id.clone());
        let last = last.filter(|last| last.store == id.store);
        let as_listed = |last: &RecordId| Some(&last.key) == before;
        let counts = |last: &RecordId| counted_on(&last.key).as_ref() == Some(&id.key);
        match last.map(|last| (as_listed(&last), counts(&last), last)) {
            Some((_, _, last)) if last == *id => {}
            Some((as_listed, counts, _)) if as_listed || counts => {
                self.run = self.run.saturating_add(1);
                // What is both goes on as before.
                self.counts = counts && (self.counts || !as_listed);
            }
            _ => self.run = 1,
        }
        match self.run.checked_sub(SURE) {
            Some(more) => MOST.min(2 << more.min(10)),
            None => 0,
        }
    }
}

/// The key that has the next number: `page-10.html` after `page-9.html`.
fn counted_on(key: &Key) -> Option<Key> {
    let text = key.as_str();
    let stem = text.rsplit_once('.').map_or(text, |(stem, _)| stem);
    let is_digit = |c: char| c.is_ascii_digit();
    let end = stem.rfind(is_digit)? + 1;
    let start = stem[..end].trim_end_matches(is_digit).len();
    let digits = &stem[start..end];
    let next = digits.parse::<u64>().ok()?.checked_add(1)?;
    let width = digits.len();
    let padded = digits.starts_with('0');
    let next = if padded {
        format!("{next:0width$}")
    } else {
        next.to_string()
    };
    Key::new(&format!("{}{next}{}", &text[..start], &text[end..])).ok()
}

impl Record {
    fn is_worth_it(&self) -> bool {
        let short = matches!(self.size, Size::Exact(size) if size <= SHORT);
        let here = self.kept.is_some() || self.ahead || self.reader.strong_count() > 0;
        short && !here && self.etag().is_some()
    }
}

impl Inner {
    /// A record is opened for reading that is not here, or was fetched ahead.
    pub(super) fn reads_on(self: &Arc<Self>, id: &RecordId) {
        let next = self.next_ones(id);
        if next.is_empty() {
            return;
        }
        let mut ahead = self.ahead();
        while ahead.coming.try_join_next().is_some() {}
        for next in next {
            let inner = self.clone();
            let fetch = async move {
                if let Err(e) = inner.fetch_ahead(&next).await {
                    // Whoever opens it is told, should it fail again.
                    tracing::debug!("{next} was not fetched ahead: {e}");
                    inner.was_fetched_ahead(&next);
                }
            };
            ahead.coming.spawn_on(fetch, &self.runtime);
        }
    }

    /// Nobody will want what is still being fetched.
    pub(super) fn end_fetching_ahead(&self) {
        self.ahead().coming.abort_all();
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_ones(&self, id: &RecordId) -> Vec<RecordId> {
        let mut index = self.index();
        let told = index.stores.get_mut(&id.store);
        let Some(store) = told.filter(|store| store.followed && store.complete) else {
            return Vec::new();
        };
        let mut before = store.records.range::<Key, _>(..&id.key).rev();
        let before = before.find(|(_, record)| record.exists());
        let (count, counts) = {
            let mut ahead = self.ahead();
            let count = ahead.opened(id, before.map(|(key, _)| key));
            (count, ahead.counts)
        };
        let exists = |key: &Key| store.records.get(key).is_some_and(|record| record.exists());
        let next: Vec<Key> = if counts {
            let numbered = successors(counted_on(&id.key), counted_on);
            numbered.take(count).take_while(exists).collect()
        } else {
            let after = store
                .records
                .range::<Key, _>((Excluded(&id.key), Unbounded));
            let after = after.filter(|(_, record)| record.exists());
            after.map(|(key, _)| key.clone()).take(count).collect()
        };
        let next = next.into_iter().filter_map(|key| {
            let record = store
                .records
                .get_mut(&key)
                .filter(|record| record.is_worth_it())?;
            record.ahead = true;
            Some(RecordId {
                store: id.store.clone(),
                key,
            })
        });
        next.collect()
    }

    /// Whether that was done and nobody has opened it since, which is so no longer.
    pub(super) fn was_fetched_ahead(&self, id: &RecordId) -> bool {
        let mut index = self.index();
        match index.record_mut(id) {
            Some(record) if record.ahead => {
                record.ahead = false;
                true
            }
            _ => false,
        }
    }

    async fn fetch_ahead(self: &Arc<Self>, id: &RecordId) -> Result<()> {
        if self.is_current(id)
            && !self.is_here(id)
            && let Some(reader) = self.reader(id).await?
        {
            reader.finish().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::key::StoreId;

    #[test]
    fn only_who_reads_in_order_gets_more_and_more() {
        let id = |key: &str| RecordId {
            store: StoreId::new("aStore00000000000").unwrap(),
            key: Key::new(key).unwrap(),
        };
        let mut ahead = Ahead::default();
        let mut open = |key: &str, before: &str| {
            let before = Key::new(before).ok();
            ahead.opened(&id(key), before.as_ref())
        };
        let counts = [("a", ""), ("b", "a"), ("c", "b"), ("c", "b"), ("d", "c")];
        let counts = counts.map(|(key, before)| open(key, before));
        assert_eq!(counts, [0, 0, 2, 2, 4]);
        // Another one in between, and backwards.
        assert_eq!(open("x", "w"), 0);
        assert_eq!(open("e", "d"), 0);
        assert_eq!(open("d", "c"), 0);
        // By number, where the keys are in another order.
        let counts = [
            ("p-9", "p-89"),
            ("p-10", "p-1"),
            ("p-11", "p-10"),
            ("p-12", "p-11"),
        ];
        assert_eq!(counts.map(|(key, before)| open(key, before)), [0, 0, 2, 4]);
        let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
        let counts = keys.windows(2).map(|two| open(&two[1], &two[0]));
        assert_eq!(counts.max(), Some(MOST));
    }

    #[test]
    fn the_next_number_is_that_before_the_extension() {
        for (key, next) in [
            ("page-9.html", Some("page-10.html")),
            ("clip1.mp4", Some("clip2.mp4")),
            ("k099", Some("k100")),
            ("a-2-b", Some("a-3-b")),
            ("INPUT", None),
            ("song.mp3", None),
            ("99999999999999999999", None),
        ] {
            let counted = counted_on(&Key::new(key).unwrap());
            let next = next.map(|next| Key::new(next).unwrap());
            assert_eq!(counted, next, "{key}");
        }
    }
}
