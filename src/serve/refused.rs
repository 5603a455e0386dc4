//! Requests that are none: hyper refuses them by itself, with a bare status. Here they get the API's envelope, an id and a
//! line in the log. It never touches the answer to a request.

use super::Door;
use super::answer::{REQUEST_ID, told};
use super::patience::Patient;
use super::problem::Problem;
use super::routes::Operation;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::fmt::Write;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long what a client still sends is thrown away after a refusal. If it were not read, the kernel would reset the
/// connection, and many clients then report that and not the answer.
const LINGER: Duration = Duration::from_secs(2);

/// Everything asked is answered and sent: what is written now, hyper writes by itself.
const IDLE: u8 = 0;
/// A request is being answered.
const ASKED: u8 = 1;
/// The answer is complete, but some of it may not be sent.
const ANSWERED: u8 = 2;

/// Whose turn it is on a connection. Only the task of the connection uses it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    state: AtomicU8,
    /// The client may go on sending what nobody wants.
    refused: AtomicBool,
}

impl Turn {
    /// A request has come.
    pub(super) fn asked(&self) {
        self.state.store(ASKED, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
    }

    /// It is refused although more of it may come.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) == state
    }
}

/// The body of an answer; when it is dropped, the answer is complete.
pub(super) struct Answering {
    body: Body,
    turn: Arc<Turn>,
}

impl Answering {
    /// Watches the body of an answer.
    pub(super) fn new(body: Body, turn: Arc<Turn>) -> Self {
        Self { body, turn }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.turn.state.store(ANSWERED, Ordering::Relaxed);
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose bare refusals are put into words.
pub(super) struct Worded {
    stream: Patient,
    turn: Arc<Turn>,
    door: Arc<Door>,
    /// What is written in the place of a bare refusal, and how much of it is written.
    instead: Option<(Vec<u8>, usize)>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Worded {
    /// Watches a stream.
    pub(super) fn new(stream: Patient, turn: Arc<Turn>, door: Arc<Door>) -> Self {
        Self {
            stream,
            turn,
            door,
            instead: None,
            lingering: None,
        }
    }

    /// Writes the envelope; then all of the bare refusal counts as written.
    fn write_instead(
        &mut self,
        context: &mut Context<'_>,
        bare: &[u8],
        status: StatusCode,
    ) -> Poll<io::Result<usize>> {
        let Self { instead, door, .. } = self;
        let (text, written) = instead.get_or_insert_with(|| (worded(door, status), 0));
        while *written < text.len() {
            let stream = Pin::new(&mut self.stream);
            *written += ready!(stream.poll_write(context, &text[*written..]))?;
        }
        self.turn.refused();
        Poll::Ready(Ok(bare.len()))
    }

    /// The status of a bare refusal.
    fn bare(&self, bytes: &[u8]) -> Option<StatusCode> {
        if !self.turn.is(IDLE) {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let status = StatusCode::from_bytes(status).ok()?;
        status.is_client_error().then_some(status)
    }
}

/// A whole answer to what is no request.
fn worded(door: &Door, status: StatusCode) -> Vec<u8> {
    let id = door.metrics.request_id(None);
    let id = id.to_str().unwrap_or("-");
    door.metrics.end(Operation::Unknown, status, Duration::ZERO);
    told("-", "-", status, Duration::ZERO, id);
    let limit = door.options.limits.head;
    let body = Problem::no_request(status, limit).envelope();
    let mut text = String::with_capacity(512);
    let _ = write!(
        text,
        "HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n{REQUEST_ID}: {id}\r\ndate: {}\r\n\r\n{body}",
        body.len(),
        super::reply::http_date(std::time::SystemTime::now()),
    );
    text.into_bytes()
}

/// What is wrong with how a body is transferred. hyper takes each list that ends with `chunked` for chunks, and would hand
/// over what is still encoded as if it were the record.
pub(super) fn transfer(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else {
        return Ok(());
    };
    if codings.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    Err(Problem::not_here(
        "The only Transfer-Encoding of this server is chunked. An encoded body is announced with Content-Encoding.",
    ))
}

impl AsyncRead for Worded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Worded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.bare(bytes) {
            Some(status) => self.write_instead(context, bytes, status),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bytes.first().and_then(|head| self.bare(head)) {
            Some(status) => self.write_instead(context, &bytes[0], status),
            None => Pin::new(&mut self.stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        // hyper flushes what it has written, and reads the next head only after that.
        if done.is_ready() && self.turn.is(ANSWERED) {
            self.turn.state.store(IDLE, Ordering::Relaxed);
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.turn.refused.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let until = this
            .lingering
            .get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unwanted = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut unwanted);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
