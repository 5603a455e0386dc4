//! A reader as the body of a request or an answer of HTTP. Only a few pieces of it are in memory at any time.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How many bytes are read in one step.
pub const PIECE: usize = 256 << 10;

/// Counts the bytes that moved, so that what is slow is not taken for dead.
pub type Moved = Arc<AtomicU64>;

/// How many bytes the system may hold after they were handed on. An estimate: Linux lets the buffer of a connection grow to
/// 4 MiB (`tcp_wmem` in tcp(7)), but on a slow line only with what that carries.
const HELD: u64 = 1 << 20;
/// The slowest line on which these are waited for, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// How long the last bytes of a body of this length, in bytes, may still be on their way after they were handed on. Short ones are not
/// waited for beyond the usual.
pub fn on_its_way(length: u64) -> Duration {
    Duration::from_secs(length.min(HELD) / SLOWEST)
}

type Step = io::Result<(Box<dyn Read + Send>, Bytes)>;

/// A reader as a body: one piece is read ahead while the last one is being sent. No thread waits for the other side.
pub struct Streamed {
    /// What is still to come, when it is known.
    left: Option<u64>,
    reading: Option<JoinHandle<Step>>,
    moved: Moved,
}

impl Streamed {
    /// All that comes out of `reader`: exactly `length` bytes, when that is given; an error when there are fewer. `moved` counts
    /// the bytes that were handed on.
    pub fn new(reader: Box<dyn Read + Send>, length: Option<u64>, moved: &Moved) -> Self {
        Self {
            left: length,
            reading: Some(read_piece(reader, length)),
            moved: moved.clone(),
        }
    }
}

fn read_piece(mut reader: Box<dyn Read + Send>, left: Option<u64>) -> JoinHandle<Step> {
    tokio::task::spawn_blocking(move || {
        let most = left.map_or(PIECE, |left| usize::try_from(left).unwrap_or(PIECE));
        let mut bytes = vec![0; most.min(PIECE)];
        if left.is_some() {
            reader.read_exact(&mut bytes)?;
        } else {
            let count = reader.by_ref().take(PIECE as u64).read(&mut bytes)?;
            bytes.truncate(count);
        }
        Ok((reader, bytes.into()))
    })
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let Poll::Ready(done) = Pin::new(reading).poll(context) else {
            return Poll::Pending;
        };
        self.reading = None;
        let (reader, bytes) = match done.map_err(io::Error::other) {
            Ok(Ok(step)) => step,
            Ok(Err(why)) | Err(why) => return Poll::Ready(Some(Err(why))),
        };
        self.moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        match &mut self.left {
            Some(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                if *left > 0 {
                    let left = *left;
                    self.reading = Some(read_piece(reader, Some(left)));
                }
            }
            None if bytes.is_empty() => return Poll::Ready(None),
            None => self.reading = Some(read_piece(reader, None)),
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
