//! What is counted, and how it is told. No name, key or token is in it.

use super::answer::is_request_id;
use super::routes::{OPERATIONS, Operation};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the times that answers are counted by, in seconds.
const TIMES: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
const CLASSES: usize = 5;

/// All counters of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    by_operation: [Counts; OPERATIONS.len()],
    going: AtomicU64,
    connections: AtomicU64,
    accepted: AtomicU64,
    requests: AtomicU64,
    /// Where the ids of this server's requests begin.
    start: u32,
}

#[derive(Debug, Default)]
struct Counts {
    statuses: [AtomicU64; CLASSES],
    times: [AtomicU64; TIMES.len()],
    micros: AtomicU64,
}

/// Counted as long as it is held.
pub(super) struct Held<'m>(&'m AtomicU64);

impl<'m> Held<'m> {
    fn new(gauge: &'m AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            by_operation: std::array::from_fn(|_| Counts::default()),
            going: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            start: now.unwrap_or_default().subsec_nanos() ^ std::process::id().rotate_left(16),
        }
    }
}

impl Metrics {
    /// An id for a request: the client's own when it is harmless.
    pub(super) fn request_id(&self, given: Option<&HeaderValue>) -> HeaderValue {
        if let Some(given) = given.filter(|given| is_request_id(given)) {
            return given.clone();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:08x}-{number:x}", self.start))
            .unwrap_or(HeaderValue::from_static("-"))
    }

    /// A request begins.
    pub(super) fn begin(&self) -> Held<'_> {
        Held::new(&self.going)
    }

    /// A connection is open.
    pub(super) fn connected(&self) -> Held<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Held::new(&self.connections)
    }

    /// A request is answered.
    pub(super) fn end(&self, operation: Operation, status: StatusCode, spent: Duration) {
        let counts = &self.by_operation[operation as usize];
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        counts.statuses[class].fetch_add(1, Ordering::Relaxed);
        let seconds = spent.as_secs_f64();
        if let Some(place) = TIMES.iter().position(|end| seconds <= *end) {
            counts.times[place].fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        counts.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::new();
        let mut gauge = |name: &str, kind: &str, value: u64| {
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        };
        gauge("storefs_requests_in_flight", "gauge", get(&self.going));
        gauge("storefs_connections", "gauge", get(&self.connections));
        gauge("storefs_connections_total", "counter", get(&self.accepted));
        text.push_str("# TYPE storefs_requests_total counter\n");
        let used = || {
            let all = OPERATIONS.iter().zip(&self.by_operation);
            all.filter(|(_, counts)| counts.statuses.iter().any(|count| get(count) > 0))
        };
        for ((_, name), counts) in used() {
            for (class, count) in (1..).zip(&counts.statuses) {
                let count = get(count);
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "storefs_requests_total{{operation=\"{name}\",status=\"{class}xx\"}} {count}"
                    );
                }
            }
        }
        text.push_str("# TYPE storefs_request_seconds histogram\n");
        for ((_, name), counts) in used() {
            let all: u64 = counts.statuses.iter().map(get).sum();
            let mut below = 0;
            for (end, count) in TIMES.iter().zip(&counts.times) {
                below += get(count);
                let _ = writeln!(
                    text,
                    "storefs_request_seconds_bucket{{operation=\"{name}\",le=\"{end}\"}} {below}"
                );
            }
            let sum = get(&counts.micros) as f64 / 1e6;
            let _ = writeln!(
                text,
                "storefs_request_seconds_bucket{{operation=\"{name}\",le=\"+Inf\"}} {all}\n\
                 storefs_request_seconds_sum{{operation=\"{name}\"}} {sum}\n\
                 storefs_request_seconds_count{{operation=\"{name}\"}} {all}"
            );
        }
        text
    }

    /// Everything, in the text format of Prometheus.
    pub(super) fn answer(&self) -> Response {
        let mut response = Response::new(Body::from(self.text()));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        );
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_stand_at_their_own_numbers() {
        for (number, (operation, name)) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, number, "{name}");
        }
    }
}
