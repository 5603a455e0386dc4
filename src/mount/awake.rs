//! Saves wake-ups of processors while requests come quickly one after another. To wake an idle processor takes longer than
//! most requests do, above all in a virtual machine.
//!
//! Where there are two processors, one of them is kept busy, so that the system leaves the program and the loop that serves it
//! together on the other one, and neither has to be woken. Programs that make requests at the same time share what is left, and
//! a create of each of two took about a seventh longer so. Where there are more processors, one event loop is kept awake. Both
//! end as soon as the requests get few, or when others wait long for a processor. Nothing is done where there is only one,
//! and where a control group limits how much of them may be used.

use super::processors;
use crate::error::{Error, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// So many requests are a burst when they come within `WITHIN`.
const BURST: u64 = 32;
const WITHIN: Duration = Duration::from_millis(8);
/// How often it is looked at whether the burst goes on.
const TICK: Duration = Duration::from_millis(4);
/// Fewer requests than these between two looks end it. The disk makes somebody wait for a millisecond now and then.
const FEW: u64 = 16;
/// Whether others want its processor shows in no shorter time than this.
const SPAN: Duration = Duration::from_millis(20);
/// How long nothing is done after they did.
const PAUSE: Duration = Duration::from_millis(150);

/// What the event loops tell of.
pub(super) struct Awake {
    begun: Instant,
    requests: AtomicU64,
    /// When the last full burst of requests was counted, in nanoseconds.
    counted: AtomicU64,
    /// Not before this time, likewise.
    resumes: AtomicU64,
    on: AtomicBool,
    times: AtomicU64,
    ended: AtomicBool,
    /// None where no loop is ever kept awake.
    watcher: OnceLock<Thread>,
}

/// Ends the watch with the last event loop.
pub(super) struct Watched(pub(super) Arc<Awake>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        self.0.wake_watcher();
    }
}

impl Awake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            requests: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            resumes: AtomicU64::new(0),
            on: AtomicBool::new(false),
            times: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            watcher: OnceLock::new(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wake_watcher(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// A request came.
    pub(super) fn note(&self) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if !count.is_multiple_of(BURST) || self.on.load(Ordering::Relaxed) {
            return;
        }
        let now = self.now();
        let before = self.counted.swap(now, Ordering::Relaxed);
        let quick = u128::from(now.saturating_sub(before)) < WITHIN.as_nanos();
        if quick && now >= self.resumes.load(Ordering::Relaxed) {
            self.wake_watcher();
        }
    }

    /// How often a loop or a processor was kept awake; none where that is never done.
    pub(super) fn times(&self) -> Option<u64> {
        self.watcher.get()?;
        Some(self.times.load(Ordering::Relaxed))
    }

    /// Watches the requests from now on. `device` is what the loop of this name reads from.
    pub(super) fn watch(self: &Arc<Self>, device: OwnedFd, loop_name: String) -> Result<()> {
        let usable = thread::available_parallelism().map_or(1, usize::from);
        // What the kernel tells of idle processors is of all, so it says nothing where some are kept from this process.
        if usable < 2 || usable < processors::online() || processors::is_limited() {
            return Ok(());
        }
        let way = match usable {
            2 => Way::Processor,
            _ => Way::Loop(device, loop_name),
        };
        let this = self.clone();
        let watcher = thread::Builder::new()
            .name("storefs-awake".into())
            .spawn(move || this.watch_on(&way))
            .map_err(|e| Error::io("start a thread of", "the mount", e))?;
        let _ = self.watcher.set(watcher.thread().clone());
        Ok(())
    }

    fn watch_on(&self, way: &Way) {
        let mut found = None;
        loop {
            thread::park();
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // The first burst comes when the loop runs. A kernel without these numbers has them at no other time either.
            let Some(stat) = found.get_or_insert_with(|| way.schedstat()) else {
                return;
            };
            if self.now() < self.resumes.load(Ordering::Relaxed) {
                continue;
            }
            self.on.store(true, Ordering::Relaxed);
            if way.begin() {
                self.times.fetch_add(1, Ordering::Relaxed);
                let end = self.burst(way, stat);
                way.end();
                if end == Some(End::Wanted) {
                    let pause = u64::try_from(PAUSE.as_nanos()).unwrap_or(u64::MAX);
                    self.resumes.store(self.now() + pause, Ordering::Relaxed);
                }
            }
            self.on.store(false, Ordering::Relaxed);
        }
    }

    /// Returns when the burst is over, or others want the processor.
    fn burst(&self, way: &Way, stat: &Path) -> Option<End> {
        let count = || self.requests.load(Ordering::Relaxed);
        let mut before = count();
        let mut span = Look::now(stat)?;
        loop {
            way.pass(TICK);
            if self.ended.load(Ordering::Relaxed) {
                return None;
            }
            let now = count();
            if now.saturating_sub(before) < FEW {
                return Some(End::Few);
            }
            before = now;
            if span.at.elapsed() >= SPAN {
                let now = Look::now(stat)?;
                if way.is_wanted(&span, &now) {
                    return Some(End::Wanted);
                }
                span = now;
            }
        }
    }
}

/// How wake-ups are saved.
enum Way {
    /// This thread keeps a processor busy.
    Processor,
    /// The loop of this name, which reads from this device, does not sleep.
    Loop(OwnedFd, String),
}

impl Way {
    /// Where the kernel tells how long the thread that does not sleep waited for a processor.
    fn schedstat(&self) -> Option<PathBuf> {
        match self {
            Self::Processor => {
                let own = PathBuf::from("/proc/thread-self/schedstat");
                own.exists().then_some(own)
            }
            Self::Loop(_, name) => schedstat_of(name),
        }
    }

    fn begin(&self) -> bool {
        match self {
            Self::Processor => true,
            Self::Loop(device, _) => set_nonblocking(device, true),
        }
    }

    fn end(&self) {
        if let Self::Loop(device, _) = self {
            set_nonblocking(device, false);
        }
    }

    fn pass(&self, time: Duration) {
        match self {
            Self::Processor => {
                let begun = Instant::now();
                while begun.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
            Self::Loop(..) => thread::sleep(time),
        }
    }

    /// Whether others wanted the processor between two looks.
    fn is_wanted(&self, before: &Look, now: &Look) -> bool {
        match self {
            Self::Processor => now.was_shared_since(before),
            Self::Loop(..) => now.was_wanted_since(before),
        }
    }
}

/// Why nothing is kept awake any longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The requests got few.
    Few,
    /// Others want the processor.
    Wanted,
}

/// What the kernel told at one time.
struct Look {
    at: Instant,
    /// How long the thread has waited for a processor in all.
    waited: Duration,
    /// How long processors had nothing to do, all together; in steps of 10 ms.
    idle: Duration,
}

impl Look {
    fn now(schedstat: &Path) -> Option<Self> {
        Some(Self {
            at: Instant::now(),
            waited: waited(&fs::read_to_string(schedstat).ok()?)?,
            idle: idle(&fs::read_to_string("/proc/uptime").ok()?)?,
        })
    }

    /// A thread that always runs has waited for others only. A program that wants all of its processor leaves it half. Of the
    /// daemon itself some threads work beside the loop.
    fn was_shared_since(&self, before: &Self) -> bool {
        let passed = self.at.saturating_duration_since(before.at);
        self.waited.saturating_sub(before.waited) > passed * 2 / 5
    }

    /// A loop also waits on the processor of the program that it works for, while others have nothing to do.
    fn was_wanted_since(&self, before: &Self) -> bool {
        let passed = self.at.saturating_duration_since(before.at);
        let waited = self.waited.saturating_sub(before.waited);
        let idle = self.idle.saturating_sub(before.idle);
        waited > passed / 4 && idle < passed / 4
    }
}

/// A loop that finds nothing on such a device asks again at once.
fn set_nonblocking(device: &OwnedFd, on: bool) -> bool {
    let set = fcntl_getfl(device).and_then(|flags| {
        let flags = if on {
            flags | OFlags::NONBLOCK
        } else {
            flags - OFlags::NONBLOCK
        };
        fcntl_setfl(device, flags)
    });
    set.inspect_err(|e| tracing::debug!("the mode of the device stays: {e}"))
        .is_ok()
}

/// Where the kernel tells how long a thread of ours waited for a processor.
fn schedstat_of(thread_name: &str) -> Option<PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    tasks
        .flatten()
        .map(|task| task.path())
        .find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread_name)
        })
        .map(|task| task.join("schedstat"))
        .filter(|stat| stat.exists())
}

/// The second number of a `schedstat`: nanoseconds on a run queue.
fn waited(schedstat: &str) -> Option<Duration> {
    let waited = schedstat.split_ascii_whitespace().nth(1)?;
    waited.parse().ok().map(Duration::from_nanos)
}

/// The second number of `/proc/uptime`: seconds.
fn idle(uptime: &str) -> Option<Duration> {
    let idle = uptime.split_ascii_whitespace().nth(1)?;
    idle.parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_processor_is_wanted_when_the_loop_waits_and_none_is_idle() {
        let begun = Instant::now();
        let look = |at_ms, waited_us, idle_ms| Look {
            at: begun + Duration::from_millis(at_ms),
            waited: Duration::from_micros(waited_us),
            idle: Duration::from_millis(idle_ms),
        };
        let before = look(10, 20, 500);
        assert!(!look(50, 10_020, 500).was_wanted_since(&before));
        assert!(look(50, 10_021, 500).was_wanted_since(&before));
        assert!(!look(50, 10_021, 510).was_wanted_since(&before));
    }

    #[test]
    fn a_processor_that_is_kept_busy_is_shared_when_somebody_waits_long_for_it() {
        let begun = Instant::now();
        let look = |at_ms, waited_us| Look {
            at: begun + Duration::from_millis(at_ms),
            waited: Duration::from_micros(waited_us),
            idle: Duration::ZERO,
        };
        let before = look(10, 500);
        assert!(!look(30, 8_500).was_shared_since(&before));
        assert!(look(30, 8_501).was_shared_since(&before));
    }

    #[test]
    fn the_numbers_that_the_kernel_tells_are_the_second_ones() {
        assert_eq!(waited("12 345 6\n"), Some(Duration::from_nanos(345)));
        assert_eq!(waited("12"), None);
        assert_eq!(waited("a b c"), None);
        assert_eq!(idle("10.50 20.25\n"), Some(Duration::from_millis(20_250)));
        assert_eq!(idle("10.50 -1"), None);
    }

    #[test]
    fn where_nobody_watches_requests_are_counted_only() {
        let awake = Awake::new();
        for _ in 0..BURST * 3 {
            awake.note();
        }
        assert_eq!(awake.times(), None);
        assert_eq!(awake.requests.load(Ordering::Relaxed), BURST * 3);
    }
}
