//! Times as file systems tell them: nanoseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, cut to what fits.
pub fn nanoseconds(time: SystemTime) -> i64 {
    let cut = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => cut(after),
        Err(before) => -cut(before.duration()),
    }
}

/// The time now.
pub fn now_ns() -> i64 {
    nanoseconds(SystemTime::now())
}
