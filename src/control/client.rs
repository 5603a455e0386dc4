//! The side of whoever asks. It never decides what to do when nobody answers.

use super::wire::{Line, MAX_LINE, Request};
use crate::error::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// One connection, for one request.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// The process at the other side.
    process: Option<OwnedFd>,
    /// After so long without a word nobody is waited for any more.
    silence: Option<Duration>,
    was_silent: bool,
}

impl Client {
    /// Connects. Fails as connect(2) does: ENOENT and ECONNREFUSED mean that no daemon is there. A daemon that was killed
    /// but whose end is held up still listens; that is ECONNREFUSED, too.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        if peer_was_killed(&stream) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
        let process = peer.and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()).ok());
        let stream = BufReader::new(stream);
        Ok(Self {
            stream,
            process,
            silence: None,
            was_silent: false,
        })
    }

    /// Gives up when nothing at all comes for so long. A process that lives says something every second.
    #[must_use]
    pub fn unless_silent_for(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    /// Whether the last `ask` was given up because nothing came.
    pub fn was_silent(&self) -> bool {
        self.was_silent
    }

    /// The process at the other side.
    pub fn peer(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(self.stream.get_ref());
        peer.ok().map(|peer| peer.pid.as_raw_nonzero().get())
    }

    /// Whether somebody listens at this path who was killed and whose end is held up.
    pub fn is_held_up(path: &Path) -> bool {
        UnixStream::connect(path).is_ok_and(|stream| peer_was_killed(&stream))
    }

    /// Asks, shows progress lines, and returns the answer. `Kind::TimedOut` when there is none within `limit`, or nobody answers.
    pub fn ask(
        &mut self,
        request: &Request,
        limit: Option<Duration>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Value> {
        let op = match request {
            Request::Sync { .. } => "sync",
            Request::Status => "ask for the status",
            Request::Umount { .. } => "unmount",
            Request::Metamorph(_) => "metamorph",
        };
        let until = limit.map(|limit| Instant::now() + limit);
        let silence = self.silence;
        let is_silent = || until.is_none_or(|until| Instant::now() < until);
        let broken = |why: io::Error| {
            if !matches!(
                why.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                return Error::io(op, "by the control socket", why);
            }
            let why = match is_silent() {
                true => {
                    let silence = humantime::format_duration(silence.unwrap_or_default());
                    format!("nobody answers: nothing came for {silence}")
                }
                false => {
                    let limit = humantime::format_duration(limit.unwrap_or_default());
                    format!("not finished within {limit}")
                }
            };
            Error::because(op, "", Kind::TimedOut, why)
        };
        let mut text = serde_json::to_vec(request).map_err(|why| broken(why.into()))?;
        text.push(b'\n');
        self.stream.get_mut().write_all(&text).map_err(broken)?;
        loop {
            let line = self.line(until).map_err(broken);
            self.was_silent =
                is_silent() && matches!(&line, Err(why) if why.kind() == Kind::TimedOut);
            match line? {
                Line::Progress(note) if note.is_empty() => {}
                Line::Progress(note) => progress(&note),
                Line::Done(value) => return Ok(value),
                Line::Failed { reason, why } => {
                    return Err(Error::because(op, "", reason.into(), why));
                }
            }
        }
    }

    /// Waits until the process at the other side has ended; false when it has not within `limit`.
    pub fn wait_for_end(&mut self, limit: Option<Duration>) -> bool {
        let started = Instant::now();
        let mut rest = Vec::new();
        let hung_up = self.stream.get_ref().set_read_timeout(limit).is_ok()
            && self.stream.read_to_end(&mut rest).is_ok();
        // It closes this before it has let go of the folder.
        let Some(process) = self.process.as_ref().filter(|_| hung_up) else {
            return hung_up;
        };
        let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        poll(&mut ended, left.as_ref()).is_ok_and(|count| count > 0)
    }

    fn line(&mut self, until: Option<Instant>) -> io::Result<Line> {
        let left = match until {
            None => None,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Some(left.max(Duration::from_millis(1)))
            }
        };
        let patience = match (left, self.silence) {
            (Some(left), Some(silence)) => Some(left.min(silence)),
            (left, silence) => left.or(silence),
        };
        self.stream.get_ref().set_read_timeout(patience)?;
        let mut text = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut text)?;
        if text.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}

/// Whether the process that listens at the other side is a zombie: killed, with a thread that the kernel does not let go.
/// Such a one never accepts, but keeps its sockets.
fn peer_was_killed(stream: &UnixStream) -> bool {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else {
        return false;
    };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", peer.pid.as_raw_nonzero()));
    // The state follows the name, which is in parentheses and may hold some itself (proc(5)).
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Served, Server};
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Arc;

    struct Fake;

    impl Served for Fake {
        fn sync(&self, store: Option<&str>, progress: &mut dyn FnMut(&str)) -> Result<()> {
            match store {
                Some("slow") => loop {
                    std::thread::park();
                },
                Some(store) => Err(Error::new("sync", store, Kind::StoreNotFound)),
                None => {
                    progress("2 of 3");
                    progress("3 of 3");
                    Ok(())
                }
            }
        }
        fn status(&self) -> Value {
            serde_json::json!({"source": "/s"})
        }
        fn unmount(
            &self,
            lazy: bool,
            _drain: Option<Duration>,
            _progress: &mut dyn FnMut(&str),
        ) -> Result<usize> {
            match lazy {
                true => Ok(3),
                false => Err(Error::new("unmount", "/m", Kind::Busy)),
            }
        }
    }

    fn served() -> (tempfile::TempDir, PathBuf, Server) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("run/a.sock");
        let server = Server::start(&path, Arc::new(Fake)).unwrap();
        (temp, path, server)
    }

    fn ask(path: &Path, request: &Request) -> Result<Value> {
        let none = &mut |_: &str| {};
        Client::connect(path).unwrap().ask(request, None, none)
    }

    #[test]
    fn every_verb_is_answered() {
        let (_temp, path, _server) = served();
        assert_eq!(ask(&path, &Request::Status).unwrap()["source"], "/s");
        let umount = |lazy| Request::Umount { lazy, drain: None };
        assert_eq!(ask(&path, &umount(false)).unwrap_err().kind(), Kind::Busy);
        assert_eq!(ask(&path, &umount(true)).unwrap(), 3);
        let store = Some("gone".to_owned());
        let missing = ask(&path, &Request::Sync { store }).unwrap_err();
        assert_eq!(missing.kind(), Kind::StoreNotFound);
    }

    #[test]
    fn progress_arrives_before_the_answer() {
        let (_temp, path, _server) = served();
        let mut seen = Vec::new();
        let request = Request::Sync { store: None };
        let mut client = Client::connect(&path).unwrap();
        client
            .ask(&request, None, &mut |note| seen.push(note.to_owned()))
            .unwrap();
        assert_eq!(seen, ["2 of 3", "3 of 3"]);
    }

    #[test]
    fn waiting_ends_at_the_limit() {
        let (_temp, path, _server) = served();
        let store = Some("slow".to_owned());
        let mut client = Client::connect(&path).unwrap();
        let late = client.ask(
            &Request::Sync { store },
            Some(Duration::from_millis(20)),
            &mut |_| {},
        );
        assert_eq!(late.unwrap_err().kind(), Kind::TimedOut);
    }

    #[test]
    fn who_takes_long_is_waited_for_and_who_is_silent_is_not() {
        let (_temp, path, _server) = served();
        let slow = Request::Sync {
            store: Some("slow".to_owned()),
        };
        let connect = |path: &Path, silence: u64| {
            let client = Client::connect(path).unwrap();
            client.unless_silent_for(Duration::from_millis(silence))
        };
        let mut client = connect(&path, 10_000);
        let limit = Some(Duration::from_millis(2500));
        let late = client.ask(&slow, limit, &mut |_| {}).unwrap_err();
        assert!(late.to_string().contains("not finished within"), "{late}");
        assert!(!client.was_silent());
        // Nobody accepts here.
        let mute = path.with_file_name("mute.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&mute).unwrap();
        let mut client = connect(&mute, 20);
        let late = client.ask(&slow, None, &mut |_| {}).unwrap_err();
        assert_eq!(late.kind(), Kind::TimedOut);
        assert!(late.to_string().contains("nobody answers"), "{late}");
        assert!(client.was_silent());
        assert_eq!(client.peer(), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn a_line_that_is_no_request_is_refused_with_a_reason() {
        let (_temp, path, _server) = served();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"verb\":\"dance\"}\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("failed") && text.contains("dance"), "{text}");
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_server() {
        let (_temp, path, server) = served();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_new_server_takes_the_place_of_an_old_one_and_keeps_it() {
        let (_temp, path, old) = served();
        let _new = Server::start(&path, Arc::new(Fake)).unwrap();
        drop(old);
        assert_eq!(ask(&path, &Request::Status).unwrap()["source"], "/s");
    }

    #[test]
    fn sockets_of_killed_processes_are_swept_away_and_no_others() {
        let (_temp, path, _server) = served();
        let left = |name: &str, age: u64| {
            let path = path.with_file_name(name);
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let then = std::time::SystemTime::now() - Duration::from_secs(age);
            let time = rustix::fs::Timespec {
                tv_sec: then
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .as_secs() as i64,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
                .unwrap();
            path
        };
        let (old, young) = (left("old.sock", 600), left("young.sock", 0));
        let _second = Server::start(&path.with_file_name("b.sock"), Arc::new(Fake)).unwrap();
        assert!(!old.exists() && young.exists() && path.exists());
        ask(&path, &Request::Status).unwrap();
    }
}
