//! Bodies on their way from a server: a few pieces of one are in memory at any time. What breaks off is taken up again where
//! the server can do that; a body of another version or of another length than told is an error.

use super::client::{Call, Client, encoding_of};
use super::failure::{Asked, reasons};
use crate::error::{Error, Kind, Result};
use bytes::{Buf, Bytes};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Method, Response, StatusCode};
use std::io::{self, Read};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Up to here a body is read at once.
const SMALL: u64 = 64 << 10;
/// Pieces that wait for a slow reader.
const AHEAD: usize = 4;
/// How often a body is taken up again without a byte in between.
const RESUMES: u32 = 4;
/// The pause before the first of these; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// How a body that breaks off is taken up again.
pub(super) struct Resume {
    pub client: Arc<Client>,
    /// Path and query of the record.
    pub path: String,
    /// The tag of the version, as the server wrote it.
    pub tag: HeaderValue,
    /// Where the next byte stands in the record.
    pub at: u64,
    /// The end of what is wanted.
    pub end: Option<u64>,
}

/// The bytes of an answer, decoded. Of an encoded one there may be `most`.
pub(super) async fn bytes_of(
    client: &Client,
    asked: &Asked<'_>,
    response: Response,
    resume: Option<Resume>,
    most: u64,
) -> Result<Box<dyn Read + Send>> {
    let encoding = encoding_of(response.headers()).map_err(|why| asked.wrong(why))?;
    let length = length_of(response.headers());
    let raw: Box<dyn Read + Send> = if length.is_some_and(|length| length <= SMALL) {
        let small = usize::try_from(SMALL).unwrap_or(usize::MAX);
        // The encoding is taken off below.
        let body = read_raw(client, asked, response, small).await?;
        Box::new(io::Cursor::new(body))
    } else {
        let (send, receive) = mpsc::channel(AHEAD);
        let carried = Carried {
            response,
            left: length,
            patience: client.patience(),
            resume: resume.filter(|_| encoding.is_none()),
        };
        tokio::spawn(carried.carry(send));
        Box::new(Arriving {
            receive,
            piece: Bytes::new(),
            ended: false,
        })
    };
    Ok(match encoding {
        None => raw,
        Some(encoding) => Box::new(Bounded {
            inner: encoding.decode(raw),
            left: most,
        }),
    })
}

async fn read_raw(
    client: &Client,
    asked: &Asked<'_>,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = timeout(client.patience(), response.chunk()).await;
        let chunk = chunk.map_err(|_| asked.stalled(client.patience()))?;
        match chunk.map_err(|why| asked.broken(&why))? {
            Some(chunk) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Some(_) => return Err(asked.wrong("the body is longer than it was told to be")),
            None => return Ok(body),
        }
    }
}

/// The length of a body, as its headers tell it.
pub(super) fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a part stands in its record, and the record's length when it is told.
pub(super) fn part_of(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1).filter(|end| *end > first)?;
    Some((first..end, size.parse().ok()))
}

/// A body that is carried to its reader.
struct Carried {
    response: Response,
    /// What is still to come, when it is known.
    left: Option<u64>,
    patience: Duration,
    resume: Option<Resume>,
}

impl Carried {
    async fn carry(mut self, send: mpsc::Sender<io::Result<Bytes>>) {
        let mut failures: u32 = 0;
        loop {
            let next = tokio::select! {
                next = timeout(self.patience, self.response.chunk()) => next,
                () = send.closed() => return,
            };
            let why = match next {
                Ok(Ok(Some(piece))) => {
                    failures = 0;
                    self.note(piece.len() as u64);
                    if send.send(Ok(piece)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Ok(None)) if self.left.is_none_or(|left| left == 0) => return,
                Ok(Ok(None)) => io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the body ended before its end",
                ),
                Ok(Err(why)) => io::Error::other(reasons(&why)),
                Err(_) => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no byte came for {:?}", self.patience),
                ),
            };
            failures += 1;
            let taken_up = match failures {
                0..=RESUMES => self.take_up(why).await,
                _ => Err(why),
            };
            if let Err(why) = taken_up {
                let _ = send.send(Err(why)).await;
                return;
            }
        }
    }

    fn note(&mut self, count: u64) {
        self.left = self.left.map(|left| left.saturating_sub(count));
        if let Some(resume) = &mut self.resume {
            resume.at += count;
        }
    }

    /// Asks for the rest. The error that is to be told when there is none.
    async fn take_up(&mut self, why: io::Error) -> io::Result<()> {
        let Some(resume) = &self.resume else {
            return Err(why);
        };
        let last = resume
            .end
            .map_or(String::new(), |end| (end - 1).to_string());
        let range = format!("bytes={}-{last}", resume.at);
        let range = HeaderValue::from_str(&range).map_err(io::Error::other)?;
        let call = Call::new("get", "", Method::GET, resume.path.clone())
            .header(RANGE, range)
            .header(IF_MATCH, resume.tag.clone());
        let mut pause = PAUSE;
        for _ in 0..RESUMES {
            tracing::debug!("a body broke off at {}: {why}", resume.at);
            sleep(pause).await;
            pause *= 2;
            let Ok(response) = resume.client.answer(&call).await else {
                continue;
            };
            let starts = part_of(response.headers()).map(|(part, _)| part.start);
            match response.status() {
                StatusCode::PARTIAL_CONTENT if starts == Some(resume.at) => {
                    self.response = response;
                    return Ok(());
                }
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND => {
                    return Err(io::Error::from_raw_os_error(libc::ESTALE));
                }
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {}
                _ => break,
            }
        }
        Err(why)
    }
}

/// Reads what is carried. It may wait, so it is for threads that may.
struct Arriving {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended && !buffer.is_empty() {
            match waited(&mut self.receive) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(why)) => {
                    self.ended = true;
                    return Err(why);
                }
                None => self.ended = true,
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next piece. The thread sleeps until there is one.
fn waited<T>(receive: &mut mpsc::Receiver<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut next = pin!(receive.recv());
    loop {
        match next.as_mut().poll(&mut context) {
            Poll::Ready(next) => return next,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A decoder that makes at most so many bytes.
struct Bounded {
    inner: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the decoded body is longer than any record may be",
                ));
            }
        }
        Ok(count)
    }
}

/// A part of a body that came whole.
pub(super) struct Part {
    inner: Box<dyn Read + Send>,
    skip: u64,
    left: u64,
}

impl Part {
    pub(super) fn new(inner: Box<dyn Read + Send>, range: &Range<u64>) -> Self {
        Self {
            inner,
            skip: range.start,
            left: range.end.saturating_sub(range.start),
        }
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.skip > 0 {
            io::copy(&mut self.inner.by_ref().take(self.skip), &mut io::sink())?;
            self.skip = 0;
        }
        let count = self.inner.by_ref().take(self.left).read(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The error of a part that is not the one that was asked for.
pub(super) fn other_part(asked: &Asked<'_>) -> Error {
    asked
        .wrong("the server gave another part of the record than was asked for")
        .with_kind(Kind::Corrupt)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_are_read_off_their_header() {
        let part = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            part_of(&headers)
        };
        assert_eq!(part("bytes 0-0/10"), Some((0..1, Some(10))));
        assert_eq!(part("bytes 5-9/*"), Some((5..10, None)));
        for wrong in [
            "bytes 5-4/10",
            "bytes */10",
            "lines 0-1/2",
            "bytes 0-18446744073709551615/1",
            "",
        ] {
            assert_eq!(part(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_part_of_a_whole_body_is_cut_out_of_it() {
        let cut = |range: Range<u64>| {
            let mut bytes = Vec::new();
            Part::new(Box::new(&b"0123456789"[..]), &range)
                .read_to_end(&mut bytes)
                .unwrap();
            bytes
        };
        assert_eq!(cut(2..5), b"234");
        assert_eq!(cut(8..50), b"89");
        assert_eq!(cut(20..50), b"");
        assert_eq!(cut(0..u64::MAX), b"0123456789");
    }

    #[test]
    fn a_decoder_stops_where_no_record_goes_on() {
        let mut bounded = Bounded {
            inner: Box::new(io::repeat(0)),
            left: 100_000,
        };
        let read = io::copy(&mut bounded, &mut io::sink());
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
