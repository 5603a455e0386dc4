//! Why what waits is not sent, from the lines of a queue. It asks nobody.

use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    error: Option<String>,
}

/// The first reason that the lines tell.
pub(super) fn first_reason(queue: &str) -> Option<String> {
    let error = |line: &str| serde_json::from_str::<Line>(line).ok()?.error;
    queue.lines().find_map(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_edit_that_failed_says_why() {
        let queue = "{\"key\":\"a\",\"error\":null}\n{\"key\":\"b\",\"error\":\"why\"}\n{\"error\":\"more\"}\n";
        assert_eq!(first_reason(queue).as_deref(), Some("why"));
        assert_eq!(first_reason(""), None);
    }
}
