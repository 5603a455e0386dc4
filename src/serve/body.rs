//! Bodies of answers. Only a few pieces of one are in memory at any time.

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Up to here a body is held in memory; a longer one goes through a file.
pub(super) const SMALL: usize = 64 << 10;
/// How much is moved in one step.
pub(super) const PIECE: usize = 256 << 10;
/// Runs what waits for a disk on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

/// The body of an answer: `length` bytes of a reader. Short ones of a local disk are read at once.
pub(super) async fn of_reader(
    mut reader: Box<dyn Read + Send>,
    length: u64,
    local: bool,
) -> io::Result<Body> {
    if length > SMALL as u64 {
        return Ok(Body::new(Streamed::new(reader, length)));
    }
    let mut read = move || {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(SMALL)];
        reader.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if local {
        read()?
    } else {
        blocking(read).await?
    };
    Ok(Body::from(bytes))
}

type Step = io::Result<(Box<dyn Read + Send>, Bytes)>;

/// A reader as a body: one piece is read ahead while the last one is being sent. No thread waits for the client.
struct Streamed {
    left: u64,
    reading: Option<JoinHandle<Step>>,
}

impl Streamed {
    fn new(reader: Box<dyn Read + Send>, length: u64) -> Self {
        Self {
            left: length,
            reading: Some(read_piece(reader, length)),
        }
    }
}

fn read_piece(mut reader: Box<dyn Read + Send>, left: u64) -> JoinHandle<Step> {
    tokio::task::spawn_blocking(move || {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes)?;
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
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left > 0 {
            self.reading = Some(read_piece(reader, self.left));
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A reader whose length nobody knows, read to its end first.
pub(super) async fn of_unmeasured(mut reader: Box<dyn Read + Send>) -> io::Result<Body> {
    let (file, length) = blocking(move || {
        let mut file = tempfile::tempfile()?;
        let length = io::copy(&mut reader, &mut file)?;
        io::Seek::rewind(&mut file)?;
        Ok((file, length))
    })
    .await?;
    of_reader(Box::new(file), length, false).await
}
