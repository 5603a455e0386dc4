//! Which parts of a record are here.

use std::ops::Range;

/// Ranges in order, none touching another.
#[derive(Default, Debug)]
pub(super) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range. How many bytes of it are new.
    pub(super) fn add(&mut self, new: Range<u64>) -> u64 {
        if new.is_empty() {
            return 0;
        }
        let (mut start, mut end) = (new.start, new.end);
        let mut known = 0;
        self.0.retain(|old| {
            let apart = old.end < start || old.start > end;
            if !apart {
                start = start.min(old.start);
                end = end.max(old.end);
                known += old.end - old.start;
            }
            apart
        });
        let at = self.0.partition_point(|old| old.start < start);
        self.0.insert(at, start..end);
        end - start - known
    }

    /// The first part of a range that is missing.
    pub(super) fn missing(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut start = range.start;
        for have in &self.0 {
            if have.end <= start {
                continue;
            }
            if have.start > start {
                return (start < range.end).then(|| start..range.end.min(have.start));
            }
            start = have.end;
        }
        (start < range.end).then_some(start..range.end)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn only_new_bytes_count() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.add(10..20), 10);
        assert_eq!(ranges.add(30..40), 10);
        assert_eq!(ranges.add(15..35), 10);
        assert_eq!(ranges.0, [10..40]);
        assert_eq!((ranges.add(12..20), ranges.add(40..40)), (0, 0));
        assert_eq!((ranges.add(40..41), ranges.add(0..5)), (1, 5));
        assert_eq!(ranges.0, [0..5, 10..41]);
    }

    #[test]
    fn the_first_gap_is_what_is_missing() {
        let mut ranges = Ranges::default();
        ranges.add(10..20);
        ranges.add(30..40);
        assert_eq!(ranges.missing(&(0..50)), Some(0..10));
        assert_eq!(ranges.missing(&(12..50)), Some(20..30));
        assert_eq!(ranges.missing(&(35..50)), Some(40..50));
        assert_eq!(ranges.missing(&(12..20)), None);
    }
}
