//! A sorted set of keys in little memory: blocks of text, so that a million keys cost hardly more than their letters. It
//! knows nothing of a disk.

/// A block with more keys is split.
const MOST: usize = 256;

/// Sorted keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// None of them is empty; all keys of one are below those of the next.
    blocks: Vec<Block>,
}

#[derive(Debug, Default)]
struct Block {
    text: String,
    /// Where each key ends in the text.
    ends: Vec<u32>,
}

impl Block {
    fn start(&self, at: usize) -> usize {
        match at {
            0 => 0,
            _ => self.ends[at - 1] as usize,
        }
    }

    fn key(&self, at: usize) -> &str {
        &self.text[self.start(at)..self.ends[at] as usize]
    }

    /// Where a key is, or where it would be.
    fn find(&self, key: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    fn push(&mut self, key: &str) {
        self.text.push_str(key);
        self.ends.push(length(&self.text));
    }

    fn insert(&mut self, at: usize, key: &str) {
        let start = self.start(at);
        self.text.insert_str(start, key);
        self.ends.insert(at, length(&self.text[..start]));
        for end in &mut self.ends[at..] {
            *end += length(key);
        }
    }

    fn remove(&mut self, at: usize) {
        let range = self.start(at)..self.ends[at] as usize;
        let gone = length(&self.text[range.clone()]);
        self.text.replace_range(range, "");
        self.ends.remove(at);
        for end in &mut self.ends[at..] {
            *end -= gone;
        }
    }

    /// Takes the upper half away.
    fn split(&mut self) -> Self {
        let half = self.ends.len() / 2;
        let start = self.start(half);
        let upper = Self {
            text: self.text.split_off(start),
            ends: self.ends.split_off(half),
        };
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let ends = upper.ends.iter().map(|end| end - start).collect();
        Self { ends, ..upper }
    }
}

/// A key has at most 256 characters, so a block has at most 64 KiB and a little.
fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

impl Keys {
    /// The set of these keys, which need not be in order.
    pub(super) fn of(mut keys: Vec<Box<str>>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        // Room is left in each block: the next keys come between these.
        let blocks = keys.chunks(MOST * 3 / 4).map(|chunk| {
            let mut block = Block::default();
            block
                .text
                .reserve_exact(chunk.iter().map(|key| key.len()).sum());
            block.ends.reserve_exact(chunk.len());
            chunk.iter().for_each(|key| block.push(key));
            block
        });
        Self {
            blocks: blocks.collect(),
        }
    }

    /// The block that holds a key if any does.
    fn block(&self, key: &str) -> Option<usize> {
        let above = self.blocks.partition_point(|block| block.key(0) <= key);
        above.checked_sub(1)
    }

    /// Adds a key. True when it was not in it.
    pub(super) fn insert(&mut self, key: &str) -> bool {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
            self.blocks[0].push(key);
            return true;
        }
        let at = self.block(key).unwrap_or(0);
        let block = &mut self.blocks[at];
        let Err(place) = block.find(key) else {
            return false;
        };
        block.insert(place, key);
        if block.ends.len() > MOST {
            let upper = block.split();
            self.blocks.insert(at + 1, upper);
        }
        true
    }

    /// Removes a key. True when it was in it.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Some(at) = self.block(key) else {
            return false;
        };
        let Ok(place) = self.blocks[at].find(key) else {
            return false;
        };
        self.blocks[at].remove(place);
        if self.blocks[at].ends.is_empty() {
            self.blocks.remove(at);
        }
        true
    }

    /// The keys from one on, which itself is left out when `after` says so.
    pub(super) fn from<'a>(&'a self, key: &str, after: bool) -> impl Iterator<Item = &'a str> {
        let at = self.block(key).unwrap_or(0);
        let place = match self.blocks.get(at).map(|block| block.find(key)) {
            Some(Ok(place)) => place + usize::from(after),
            Some(Err(place)) => place,
            None => 0,
        };
        let rest = self.blocks.iter().skip(at);
        let keys = rest.flat_map(|block| (0..block.ends.len()).map(|at| block.key(at)));
        keys.skip(place)
    }

    /// About how many bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter();
        let inside: usize = blocks
            .map(|block| block.text.capacity() + block.ends.capacity() * 4)
            .sum();
        inside + self.blocks.capacity() * size_of::<Block>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_what_a_sorted_set_is() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let first: Vec<Box<str>> = (0..900).map(|n| format!("k{n}").into()).collect();
        let mut set: BTreeSet<String> = first.iter().map(ToString::to_string).collect();
        let mut keys = Keys::of(first);
        for _ in 0..20_000 {
            let key = format!("k{}", next(3000));
            if next(2) == 0 {
                assert_eq!(keys.insert(&key), set.insert(key));
            } else {
                assert_eq!(keys.remove(&key), set.remove(&key));
            }
        }
        assert!(keys.from("", false).eq(set.iter().map(String::as_str)));
        for start in ["", "k", "k1", "k2999", "k5", "l"] {
            let rest = set.range(start.to_owned()..).map(String::as_str);
            assert!(keys.from(start, false).eq(rest), "{start}");
            let rest = set.range(start.to_owned()..).map(String::as_str);
            assert!(keys.from(start, true).eq(rest.filter(|key| *key != start)));
        }
        for key in set {
            assert!(keys.remove(&key) && !keys.remove(&key));
        }
        assert_eq!(keys.from("", false).count(), 0);
    }
}
