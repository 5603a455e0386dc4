//! A wire to a server that can be bad: slow, narrow, cut, or dead without anybody being told.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a thread looks whether anything changed.
const LOOK: Duration = Duration::from_millis(20);

/// What is wrong with the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything takes so much longer, in each direction.
    Slow(Duration),
    /// So many bytes a second go through it, in each direction of each connection.
    Narrow(usize),
    /// Every connection is cut after so many bytes from the server.
    CutAnswers(usize),
    /// Every connection is cut after so many bytes to the server.
    CutRequests(usize),
    /// After so many bytes from the server, of all connections, nothing comes any more, and they stay.
    Swallow(usize),
    /// Connections are taken and nothing goes through, in either direction.
    Dead,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    fault: Mutex<Fault>,
    /// How much came from the server since that went wrong.
    answered: AtomicUsize,
    ended: AtomicBool,
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// The wire. Dropped, it ends with all its connections.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A good wire to the server at this URL.
    pub fn to(url: &str) -> Self {
        let server = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server,
            fault: Mutex::new(Fault::None),
            answered: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let shared = state.clone();
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            for client in listener.incoming() {
                let Ok(client) = client else { break };
                if shared.ended() {
                    break;
                }
                let state = shared.clone();
                connections.push(thread::spawn(move || connect(client, &state)));
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is wrong with it, also with the connections that are there. A connection that has lost bytes stays
    /// lost.
    pub fn set(&self, fault: Fault) {
        let mut now = self.state.fault.lock().unwrap();
        self.state.answered.store(0, Ordering::SeqCst);
        *now = fault;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How a connection ends.
#[derive(Default)]
struct End {
    /// It has lost bytes, and nobody is told.
    lost: AtomicBool,
    /// It was cut.
    cut: AtomicBool,
}

fn connect(client: TcpStream, state: &Arc<State>) {
    let Ok(server) = TcpStream::connect(state.server) else {
        return;
    };
    let end = Arc::new(End::default());
    let pump = |from: &TcpStream, to: &TcpStream, answers: bool| {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (state, end) = (state.clone(), end.clone());
        thread::spawn(move || {
            let _ = carry(&from, &to, answers, &state, &end);
            if !end.cut.load(Ordering::SeqCst) {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            }
        })
    };
    let threads = [pump(&client, &server, false), pump(&server, &client, true)];
    for thread in threads {
        let _ = thread.join();
    }
    if end.cut.load(Ordering::SeqCst) {
        // Both ends get a reset, no end of the bytes.
        for stream in [&client, &server] {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// Carries bytes in one direction until an end.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    answers: bool,
    state: &State,
    end: &End,
) -> std::io::Result<()> {
    from.set_read_timeout(Some(LOOK))?;
    to.set_nodelay(true)?;
    let mut buffer = [0; 16 << 10];
    let mut carried = 0;
    let mut fault = state.fault();
    while !state.ended() && !end.cut.load(Ordering::SeqCst) {
        let count = match from.read(&mut buffer) {
            // The end of a connection that is lost is not told either.
            Ok(0) if end.lost.load(Ordering::SeqCst) || state.fault() == Fault::Dead => {
                thread::sleep(LOOK);
                continue;
            }
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        };
        let now = state.fault();
        if now != fault {
            fault = now;
            carried = 0;
        }
        let most = match fault {
            Fault::CutAnswers(most) if answers => most,
            Fault::Swallow(most) if answers => {
                carried = state.answered.fetch_add(count, Ordering::SeqCst);
                most
            }
            Fault::CutRequests(most) if !answers => most,
            Fault::Dead => 0,
            _ => usize::MAX,
        };
        if end.lost.load(Ordering::SeqCst) {
            continue;
        }
        let part = count.min(most.saturating_sub(carried));
        match fault {
            Fault::Slow(time) => {
                thread::sleep(time);
                to.write_all(&buffer[..part])?;
            }
            Fault::Narrow(rate) => {
                let step = (rate / 50).max(1);
                for piece in buffer[..part].chunks(step) {
                    to.write_all(piece)?;
                    thread::sleep(LOOK);
                }
            }
            _ => to.write_all(&buffer[..part])?,
        }
        carried += part;
        if part < count {
            match fault {
                Fault::Dead | Fault::Swallow(_) => end.lost.store(true, Ordering::SeqCst),
                _ => {
                    end.cut.store(true, Ordering::SeqCst);
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
