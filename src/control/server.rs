//! The side of the mount: a listening socket, a thread per connection. It never outlives the process and never answers
//! another user than the one it belongs to.

use super::wire::{Line, MAX_LINE, Metamorph, Request};
use crate::error::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const OP: &str = "make the control socket";
/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often whoever waits for an answer hears that somebody lives here.
const BEAT: Duration = Duration::from_secs(1);

/// A socket that is older than this and nobody listens to is dead.
const YOUNG: Duration = Duration::from_secs(60);

/// What the owner of a mount can do for whoever asks. Called from several threads at once.
pub trait Served: Send + Sync + 'static {
    /// Waits until everything is handled; `progress` shows a line meanwhile.
    fn sync(&self, store: Option<&str>, progress: &mut dyn FnMut(&str)) -> Result<()>;
    /// How the mount is.
    fn status(&self) -> Value;
    /// Unmounts; `Kind::Busy` when it is in use and `lazy` is not set. Without `lazy` it waits until everything is sent,
    /// at most for `drain`. After success the process ends by itself; the answer is how many edits are left.
    fn unmount(
        &self,
        lazy: bool,
        drain: Option<Duration>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<usize>;
    /// Puts another command in the place of the one that runs, with the file of its input. What is not a run has none.
    fn metamorph(&self, _wanted: Metamorph, _input: Option<File>) -> Result<Value> {
        Err(Error::because(
            "metamorph",
            "",
            Kind::Invalid,
            "this is a mount and no run (only a command of storefs run has it)",
        ))
    }
}

/// A socket that is served until this is dropped or the process ends.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    identity: (u64, u64),
    underway: Arc<AtomicUsize>,
}

impl Server {
    /// Makes the socket (0600, in a directory of 0700) and serves it. A socket that is already at `path` is replaced:
    /// whoever calls this owns the mountpoint now.
    pub fn start(path: &Path, served: Arc<dyn Served>) -> Result<Self> {
        let subject = || path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new("/"));
        private_folder(folder)?;
        sweep(folder);
        match fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(OP, subject(), why));
            }
            _ => {}
        }
        let underway = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&underway);
        let made = UnixListener::bind(path).and_then(|listener| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            let about = fs::symlink_metadata(path)?;
            thread::Builder::new()
                .name("control".to_owned())
                .spawn(move || accept(&listener, &served, &counted))?;
            Ok((about.dev(), about.ino()))
        });
        let identity = made.map_err(|why| Error::io(OP, subject(), why))?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            underway,
        })
    }

    /// Waits until every request so far is answered, at most for `limit`: the process is about to end.
    pub fn finish(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.underway.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the socket's name away, unless another process has made its own there. Open connections go on.
    pub fn withdraw(&self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|about| (about.dev(), about.ino()) == self.identity);
        if still_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Makes a directory that only this user can enter. `Kind::Denied` when it is somebody else's.
pub fn private_folder(folder: &Path) -> Result<()> {
    let subject = || folder.display().to_string();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|why| {
        let error = Error::io(OP, subject(), why);
        let advice = match rustix::process::geteuid().is_root() {
            true => "root keeps its sockets there",
            false => "XDG_RUNTIME_DIR can name a folder of this user's own",
        };
        let why = std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
        Error::because(OP, subject(), error.kind(), format!("{why} ({advice})"))
    })?;
    let about = fs::symlink_metadata(folder).map_err(|why| Error::io(OP, subject(), why))?;
    if !about.is_dir() || about.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::because(
            OP,
            subject(),
            Kind::Denied,
            "it is no directory of this user (remove it)",
        ));
    }
    if about.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(|why| Error::io(OP, subject(), why))?;
    }
    Ok(())
}

/// Removes sockets that killed processes left. A young one may be about to listen, so it is spared.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_old = entry
            .metadata()
            .and_then(|about| about.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG));
        let is_socket = path
            .extension()
            .is_some_and(|extension| extension == "sock");
        if is_old && is_socket {
            let answer = UnixStream::connect(&path).map_err(|why| why.kind());
            if answer.is_err_and(|why| why == io::ErrorKind::ConnectionRefused) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn accept(listener: &UnixListener, served: &Arc<dyn Served>, underway: &Arc<AtomicUsize>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let served = Arc::clone(served);
                let underway = Arc::clone(underway);
                let started = thread::Builder::new()
                    .name("control".to_owned())
                    .spawn(move || answer(stream, &*served, &underway));
                if let Err(why) = started {
                    tracing::warn!("a control request was dropped: {why}");
                }
            }
            Err(why) => {
                // Out of descriptors, most likely: it passes.
                tracing::warn!("the control socket does not accept: {why}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn answer(stream: UnixStream, served: &dyn Served, underway: &AtomicUsize) {
    let mut text = String::new();
    let read = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| BufReader::new((&stream).take(MAX_LINE)).read_line(&mut text));
    if !read.is_ok_and(|length| length > 0) {
        return;
    }
    if is_gone(&stream) {
        // This process may have been stopped meanwhile, and what was asked may be wrong by now: another mount at the same place.
        tracing::debug!("whoever asked over the control socket did not wait");
        return;
    }
    underway.fetch_add(1, Ordering::SeqCst);
    let mut ends = false;
    let line = match serde_json::from_str(&text) {
        Ok(request) => {
            ends = matches!(
                request,
                Request::Umount { lazy: false, .. } | Request::Metamorph(_)
            );
            perform_and_beat(request, served, &stream)
        }
        Err(why) => Line::failed(&Error::because(
            "read",
            "the request",
            Kind::Invalid,
            why.to_string(),
        )),
    };
    let mut out = &stream;
    if let Err(why) = send(&mut out, &line) {
        tracing::debug!("nobody waited for the answer to a control request: {why}");
    }
    underway.fetch_sub(1, Ordering::SeqCst);
    if ends && matches!(line, Line::Done(_)) {
        // The connection ends with this process, so that whoever asked knows when that is gone; or with whoever asked.
        let _ = stream.set_read_timeout(None);
        let _ = io::copy(&mut &stream, &mut io::sink());
    }
}

/// Whether the other side has closed the connection.
fn is_gone(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec::default();
    poll(&mut asked, Some(&at_once)).is_ok_and(|found| found > 0)
}

/// Does what was asked. Meanwhile something goes out every second, so that a process that is stopped can be told from one that
/// takes its time.
fn perform_and_beat(request: Request, served: &dyn Served, stream: &UnixStream) -> Line {
    let out = Mutex::new(stream);
    let say = |note: &str| {
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut *out, &Line::Progress(note.to_owned()))
    };
    thread::scope(|scope| {
        let (ended, underway) = mpsc::channel::<()>();
        let beats = move || {
            while underway.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) && say("").is_ok() {
            }
        };
        let beating = thread::Builder::new()
            .name("control".to_owned())
            .spawn_scoped(scope, beats);
        if let Err(why) = beating {
            tracing::debug!("a control request goes on in silence: {why}");
        }
        let line = perform(request, served, stream, &mut |note| {
            let _ = say(note);
        });
        drop(ended);
        line
    })
}

fn perform(
    request: Request,
    served: &dyn Served,
    stream: &UnixStream,
    progress: &mut dyn FnMut(&str),
) -> Line {
    // Not the whole of it: a metamorph carries the environment of a program.
    tracing::debug!("asked over the control socket: {}", request.verb());
    let done = match request {
        Request::Sync { store } => served
            .sync(store.as_deref(), progress)
            .map(|()| Value::Null),
        Request::Status => Ok(served.status()),
        Request::Umount { lazy, drain } => served
            .unmount(lazy, drain.map(Duration::from_millis), progress)
            .map(Value::from),
        Request::Metamorph(wanted) => {
            let input = wanted.input.map(|number| handed_over(stream, number));
            let input = input.transpose();
            input.and_then(|input| served.metamorph(wanted, input))
        }
    };
    match done {
        Ok(value) => Line::Done(value),
        Err(error) => {
            tracing::debug!("refused over the control socket: {error}");
            Line::failed(&error)
        }
    }
}

/// Opens a file that whoever asks has open. It needs no name, so that nothing of it is left when they are killed.
fn handed_over(stream: &UnixStream, number: i32) -> Result<File> {
    const OP: &str = "take over the input";
    let fault = |why: io::Error| Error::io(OP, "", why);
    let peer = socket_peercred(stream).map_err(|why| fault(why.into()))?;
    if peer.uid != rustix::process::geteuid() {
        let why = "whoever asks is another user than that of the run";
        return Err(Error::because(OP, "", Kind::Denied, why));
    }
    let path = format!("/proc/{}/fd/{number}", peer.pid.as_raw_nonzero());
    // To open anything else may take for ever.
    if !fs::metadata(&path).map_err(fault)?.is_file() {
        let why = "what was handed over is no file";
        return Err(Error::because(OP, "", Kind::Invalid, why));
    }
    File::open(path).map_err(fault)
}

fn send(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)
}
