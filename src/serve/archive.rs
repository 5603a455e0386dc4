//! All records of a store as one ZIP archive, written while it is sent. Nothing of it lies on a disk.

use super::Door;
use super::asked::Asked;
use super::auth::Signed;
use super::keys::refuse_collection;
use super::problem::Answer;
use crate::backend::ListQuery;
use crate::error::{Error, Kind};
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
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use zip::write::{SimpleFileOptions, ZipWriter};

/// How much is sent in one piece, and how many pieces wait for a slow client.
const PIECE: usize = 64 << 10;
const WAITING: usize = 4;
/// How many archives are written at one time: each has a thread.
const ARCHIVES: usize = 16;

static TURNS: Semaphore = Semaphore::const_new(ARCHIVES);

/// `GET` of the records.
pub(super) async fn get(door: &Arc<Door>, asked: &Asked) -> Answer {
    let (store, _) = door.to_read(asked, Some(Signed::Listing)).await?;
    refuse_collection(asked)?;
    let prefix = asked
        .query()
        .get("prefix")?
        .unwrap_or_default()
        .into_owned();
    let turn = TURNS
        .acquire()
        .await
        .map_err(|why| Error::because("write an archive", "", Kind::Exhausted, why.to_string()))?;
    let (send, receive) = mpsc::channel(WAITING);
    let (door, store) = (door.clone(), store.info.id.clone());
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut out = Out {
            send,
            piece: Vec::with_capacity(PIECE),
        };
        if let Err(why) = write(&door, &store, prefix, &mut out) {
            tracing::warn!("write an archive of {store}: {why}");
            // The client must not take a part for the whole.
            let _ = out.send.blocking_send(Err(why));
        }
    });
    let mut response = Response::new(Body::new(Pieces(receive)));
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

/// Collects pieces and hands them to the connection. It waits for the client, and fails when that is gone.
struct Out {
    send: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
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
        let sent = self.send.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Pieces as a body.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.0.poll_recv(context);
        next.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
