//! Positions of a listing: a directory's own cookies, and after them those of the scratch directory. They are numbers
//! below 2^62 and never 0; nothing else is in them.

/// Cookies below this are kept as they are.
const EXACT: u64 = 1 << 60;
/// Positions from here on are in the scratch directory.
const SCRATCH: u64 = 1 << 61;
/// Larger cookies lose so many low bits. ext4's are hashes of 63 bits: two names that differ only there would be listed
/// twice after a pause between them, and none is ever left out.
const LOST: u32 = 3;

const fn fold(cookie: u64) -> u64 {
    if cookie < EXACT {
        cookie
    } else {
        EXACT | ((cookie & (u64::MAX >> 1)) >> LOST)
    }
}

const fn unfold(position: u64) -> u64 {
    if position < EXACT {
        position
    } else {
        (position & (EXACT - 1)) << LOST
    }
}

/// The position after an entry of the store's directory.
pub(super) const fn after_record(cookie: u64) -> u64 {
    fold(cookie)
}

/// The position after a scratch file.
pub(super) const fn after_scratch(cookie: u64) -> u64 {
    SCRATCH | fold(cookie)
}

/// Where in the store's directory to go on; `None` when that is done.
pub(super) const fn in_store(after: u64) -> Option<u64> {
    if after < SCRATCH {
        Some(unfold(after))
    } else {
        None
    }
}

/// Where in the scratch directory to go on.
pub(super) const fn in_scratch(after: u64) -> u64 {
    if after < SCRATCH {
        0
    } else {
        unfold(after & !SCRATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cookie_comes_back_at_most_a_little_earlier() {
        let end_of_ext4 = (1 << 63) - 1;
        for cookie in [1, 2, EXACT - 1, EXACT, EXACT + 9, 1 << 62, end_of_ext4] {
            for position in [after_record(cookie), after_scratch(cookie)] {
                assert!(position != 0 && position < 1 << 62, "{cookie:x}");
            }
            let back = in_store(after_record(cookie)).unwrap_or(0);
            assert!(back <= cookie && cookie - back < 8, "{cookie:x} {back:x}");
            assert_eq!(in_store(after_scratch(cookie)), None);
            assert_eq!(in_scratch(after_scratch(cookie)), back);
            assert_eq!(in_scratch(after_record(cookie)), 0);
        }
    }
}
