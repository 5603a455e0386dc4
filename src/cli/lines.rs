//! How the lines of the log are written: each at once, but those of a server's requests a moment later and many in one
//! write. It keeps the order of the lines.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The target of the lines that tell of requests.
const ACCESS: &str = "access";
/// How long such a line waits for others.
const MOMENT: Duration = Duration::from_millis(20);
/// So many bytes do not wait.
const ENOUGH: usize = 64 * 1024;

/// Lines that wait.
static WAITING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Tells the thread that writes them of the first.
static CAME: Condvar = Condvar::new();
/// Held by who writes, so that lines stay in order.
static WRITING: Mutex<()> = Mutex::new(());

fn lock<T>(of: &'static Mutex<T>) -> MutexGuard<'static, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the log writes to: standard error.
pub(super) struct Lines;

/// One line.
pub(super) struct Line {
    waits: bool,
}

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { waits: false }
    }

    fn make_writer_for(&self, about: &Metadata<'_>) -> Line {
        let waits = about.target() == ACCESS && *about.level() >= Level::INFO && has_writer();
        Line { waits }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.waits {
            write_with(line)?;
            return Ok(line.len());
        }
        let mut waiting = lock(&WAITING);
        let (first, many) = (waiting.is_empty(), waiting.len() > ENOUGH);
        waiting.extend_from_slice(line);
        drop(waiting);
        if first {
            CAME.notify_one();
        }
        if many {
            write_with(&[])?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what waits, and then this.
fn write_with(line: &[u8]) -> io::Result<()> {
    let _writing = lock(&WRITING);
    let mut lines = std::mem::take(&mut *lock(&WAITING));
    lines.extend_from_slice(line);
    if lines.is_empty() {
        return Ok(());
    }
    io::stderr().write_all(&lines)
}

/// Writes what waits. To be called before the process ends.
pub(super) fn flush() {
    // Where the log cannot be written there is nobody to be told.
    let _ = write_with(&[]);
}

/// Whether there is a thread that writes what waits; it is started by the first line.
fn has_writer() -> bool {
    static STARTED: OnceLock<bool> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(write_on).is_ok()
    })
}

fn write_on() {
    loop {
        let mut waiting = lock(&WAITING);
        while waiting.is_empty() {
            waiting = CAME.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        drop(waiting);
        thread::sleep(MOMENT);
        flush();
    }
}
