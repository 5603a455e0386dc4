//! All records of a store as one ZIP archive, written while it is sent. Nothing of it lies on a disk.

use super::Door;
use super::asked::Asked;
use super::auth::Signed;
use super::keys::refuse_collection;
use super::problem::{Answer, Problem};
use crate::backend::ListQuery;
use crate::error::Kind;
use crate::record::RecordId;
use crate::record::key::StoreId;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zip::write::{SimpleFileOptions, ZipWriter};

/// How much is sent in one piece, and how many pieces wait for a slow client.
const PIECE: usize = 64 << 10;
const WAITING: usize = 4;
/// How many archives are written at one time: each has a thread.
pub(super) const ARCHIVES: usize = 16;
/// How long one more waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// So many bytes in a second have to be taken in the long run, or a few slow readers would keep all others from archives.
const SLOWEST: u64 = 64 << 10;

/// `GET` of the records.
pub(super) async fn get(door: &Arc<Door>, asked: &Asked) -> Answer {
    let (store, _) = door.to_read(asked, Some(Signed::Listing)).await?;
    refuse_collection(asked)?;
    let prefix = asked
        .query()
        .get("prefix")?
        .unwrap_or_default()
        .into_owned();
    let turn = timeout(TURN, door.archives.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Problem::busy(
            "Too many archives are being sent. Try again later.",
            TURN,
        ));
    };
    let (send, receive) = mpsc::channel(WAITING);
    let whole = Arc::new(AtomicBool::new(false));
    let pieces = Pieces {
        receive,
        whole: whole.clone(),
    };
    let (door, store) = (door.clone(), store.info.id.clone());
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut out = Out::new(send, door.options.limits.patience);
        match write(&door, &store, prefix, &mut out) {
            Ok(()) => whole.store(true, Ordering::SeqCst),
            Err(why) => tracing::warn!("write an archive of {store}: {why}"),
        }
    });
    let mut response = Response::new(Body::new(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/zip"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"records.zip\""),
    );
    Ok(response)
}

/// Writes every record as it is when its turn comes. One that is gone by then is left out.
fn write(door: &Door, store: &StoreId, prefix: String, out: &mut Out) -> io::Result<()> {
    let runtime = Handle::current();
    let mut zip = ZipWriter::new_stream(&mut *out);
    let mut query = ListQuery {
        prefix,
        ..ListQuery::default()
    };
    loop {
        let page = runtime
            .block_on(door.backend.list(store, query.clone()))
            .map_err(io::Error::other)?;
        for (key, _) in page.records {
            let id = RecordId {
                store: store.clone(),
                key,
            };
            let mut fetched = match runtime.block_on(door.backend.get(&id, None)) {
                Err(error) if error.kind() == Kind::NotFound => continue,
                other => other.map_err(io::Error::other)?,
            };
            // Sizes stand behind the bytes, so no length has to be known before.
            let options = SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .large_file(true);
            zip.start_file(id.key.as_str(), options)
                .map_err(io::Error::other)?;
            io::copy(&mut fetched.bytes, &mut zip)?;
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    zip.finish().map_err(io::Error::other)?;
    out.flush()
}

/// Collects pieces and hands them to the connection. It waits for the client, and fails when that is gone or too slow.
struct Out {
    send: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    /// How long the client may take beyond what the bytes it has taken allow.
    patience: Duration,
    waited: Duration,
    taken: u64,
}

impl Out {
    fn new(send: mpsc::Sender<Bytes>, patience: Duration) -> Self {
        Self {
            send,
            piece: Vec::with_capacity(PIECE),
            patience,
            waited: Duration::ZERO,
            taken: 0,
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.taken += piece.len() as u64;
        let allowed = self.patience + Duration::from_secs(self.taken / SLOWEST);
        let left = allowed.saturating_sub(self.waited);
        let begun = Instant::now();
        let send = self.send.send(piece.into());
        let sent = Handle::current().block_on(async { timeout(left, send).await });
        self.waited += begun.elapsed();
        let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the client takes it too slowly");
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        sent.map_err(slow)?.map_err(gone)
    }
}

/// Pieces as a body.
struct Pieces {
    receive: mpsc::Receiver<Bytes>,
    /// Set when the last piece has been handed over.
    whole: Arc<AtomicBool>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.receive.poll_recv(context);
        next.map(|piece| match piece {
            Some(piece) => Some(Ok(Frame::data(piece))),
            // The client must not take a part for the whole.
            None if !self.whole.load(Ordering::SeqCst) => {
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    fn pair(patience: Duration) -> (Out, Pieces, Arc<AtomicBool>) {
        let (send, receive) = mpsc::channel(WAITING);
        let whole = Arc::new(AtomicBool::new(false));
        let pieces = Pieces {
            receive,
            whole: whole.clone(),
        };
        (Out::new(send, patience), pieces, whole)
    }

    #[tokio::test]
    async fn a_reader_that_takes_too_little_is_given_up_and_has_no_whole_archive() {
        let (mut out, mut pieces, _) = pair(Duration::ZERO);
        // Nobody has to wait for a reader that takes what comes.
        let written = tokio::task::spawn_blocking(move || {
            for _ in 0..WAITING {
                out.write_all(&[1; PIECE])?;
            }
            out.waited = Duration::from_secs(60);
            out.write_all(&[1; PIECE])
        });
        let refused = written.await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        for _ in 0..WAITING {
            assert!(pieces.frame().await.unwrap().is_ok());
        }
        let cut = pieces.frame().await.unwrap().unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_whole_archive_ends_without_a_fault() {
        let (mut out, mut pieces, whole) = pair(Duration::from_secs(60));
        let written = tokio::task::spawn_blocking(move || {
            out.write_all(b"some")?;
            out.flush()
        });
        written.await.unwrap().unwrap();
        whole.store(true, Ordering::SeqCst);
        assert!(pieces.frame().await.unwrap().is_ok());
        assert!(pieces.frame().await.is_none());
    }
}
