//! How fast requests may follow each other: so many a second for each store. It never refuses one, it lets it wait.

use crate::record::key::StoreId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// So much of a second's requests may come at once.
const BURST: Duration = Duration::from_millis(100);
/// After so long, what runs in the background waits in line like everything else.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many lanes are kept before those that are not in use go.
const LANES: usize = 1024;

/// Requests a second for each store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Reading, writing and deleting of records.
    pub records: u32,
    /// Everything else.
    pub others: u32,
}

impl Default for Rates {
    /// What the public API allows by its documents.
    fn default() -> Self {
        Self {
            records: 200,
            others: 60,
        }
    }
}

/// What a request counts as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A record.
    Record,
    /// Everything else.
    Other,
}

tokio::task_local! {
    static IN_BACKGROUND: bool;
}

/// Runs what nobody waits for: its requests let those of others go first.
pub async fn in_background<T>(work: impl Future<Output = T>) -> T {
    IN_BACKGROUND.scope(true, work).await
}

fn is_in_background() -> bool {
    IN_BACKGROUND.try_with(|it| *it).unwrap_or(false)
}

/// One line of requests.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// When the next request is due. In the past, as much as there is to spare.
    next: Instant,
}

/// The lines of one server.
#[derive(Debug)]
pub struct Pace {
    rates: Option<Rates>,
    lanes: Mutex<HashMap<(Option<StoreId>, Class), Lane>>,
}

impl Pace {
    /// With these rates, or as fast as can be until the server asks for a rest.
    pub fn new(rates: Option<Rates>) -> Self {
        Self {
            rates,
            lanes: Mutex::default(),
        }
    }

    /// Returns when the next request of this class may go to this store.
    pub async fn turn(&self, store: Option<&StoreId>, class: Class) {
        let asked = Instant::now();
        loop {
            let yields = is_in_background() && asked.elapsed() < PATIENCE;
            let due = self.book(store, class, yields);
            match due {
                Booked::At(due) if due <= Instant::now() => return,
                Booked::At(due) => return sleep_until(due).await,
                Booked::AskAgain(at) => sleep_until(at).await,
            }
        }
    }

    /// How long a request of this class would have to wait now, as after a rest that the server asked for.
    pub fn wait(&self, store: Option<&StoreId>, class: Class) -> Duration {
        let lanes = self.lanes();
        let lane = lanes.get(&(store.cloned(), class));
        lane.map_or(Duration::ZERO, |lane| {
            lane.next.saturating_duration_since(Instant::now())
        })
    }

    /// Lets everything of this class wait, because the server asks for it.
    pub fn rest(&self, store: Option<&StoreId>, class: Class, time: Duration) {
        let until = Instant::now() + time;
        let mut lanes = self.lanes();
        let lane = lanes
            .entry((store.cloned(), class))
            .or_insert(Lane { next: until });
        lane.next = lane.next.max(until);
    }

    fn book(&self, store: Option<&StoreId>, class: Class, yields: bool) -> Booked {
        let now = Instant::now();
        let step = self.rates.map_or(Duration::ZERO, |rates| {
            let rate = match class {
                Class::Record => rates.records,
                Class::Other => rates.others,
            };
            Duration::from_secs(1) / rate.max(1)
        });
        let mut lanes = self.lanes();
        if lanes.len() >= LANES {
            lanes.retain(|_, lane| lane.next + BURST > now);
        }
        let key = (store.cloned(), class);
        if self.rates.is_none() && !lanes.contains_key(&key) {
            return Booked::At(now);
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let lane = lanes.entry(key).or_insert(Lane { next: earliest });
        // What is not in a hurry leaves what there is to spare to others.
        let due = lane.next.max(if yields { now } else { earliest });
        if yields && due > now {
            return Booked::AskAgain(due);
        }
        lane.next = due + step;
        Booked::At(due)
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<(Option<StoreId>, Class), Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking for a turn.
enum Booked {
    /// It is the request's own, then.
    At(Instant),
    /// There may be one, then.
    AskAgain(Instant),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_store_gets_no_more_than_its_rate_and_stores_do_not_share() {
        runtime().block_on(async {
            let pace = Pace::new(Some(Rates {
                records: 100,
                others: 50,
            }));
            let (a, b) = (StoreId::new("a").unwrap(), StoreId::new("b").unwrap());
            let start = Instant::now();
            for _ in 0..30 {
                pace.turn(Some(&a), Class::Record).await;
            }
            // 10 at once, then one each 10 ms.
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(185), "{took:?}");
            let start = Instant::now();
            pace.turn(Some(&b), Class::Record).await;
            pace.turn(Some(&a), Class::Other).await;
            assert!(start.elapsed() < Duration::from_millis(50));
        });
    }

    #[test]
    fn what_runs_in_the_background_lets_others_go_first() {
        runtime().block_on(async {
            let pace = std::sync::Arc::new(Pace::new(Some(Rates {
                records: 20,
                others: 20,
            })));
            let order = std::sync::Arc::new(Mutex::new(String::new()));
            let ask = |name: &'static str| {
                let (pace, order) = (pace.clone(), order.clone());
                async move {
                    pace.turn(None, Class::Record).await;
                    order.lock().unwrap().push_str(name);
                }
            };
            for _ in 0..3 {
                pace.turn(None, Class::Record).await;
            }
            let mut all: Vec<_> = (0..3)
                .map(|_| tokio::spawn(in_background(ask("b"))))
                .collect();
            tokio::task::yield_now().await;
            all.extend((0..3).map(|_| tokio::spawn(ask("f"))));
            for one in all {
                one.await.unwrap();
            }
            assert_eq!(&*order.lock().unwrap(), "fffbbb");
        });
    }

    #[test]
    fn a_rest_that_the_server_asks_for_holds_without_rates_too() {
        runtime().block_on(async {
            let pace = Pace::new(None);
            let start = Instant::now();
            pace.turn(None, Class::Record).await;
            pace.rest(None, Class::Record, Duration::from_millis(150));
            pace.turn(None, Class::Other).await;
            assert!(start.elapsed() < Duration::from_millis(100));
            pace.turn(None, Class::Record).await;
            assert!(start.elapsed() >= Duration::from_millis(150));
        });
    }
}
