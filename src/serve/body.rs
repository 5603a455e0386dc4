//! Bodies of answers. Only a few pieces of one are in memory at any time.

pub(super) use crate::backend::streamed::PIECE;
use crate::backend::streamed::{Moved, Streamed};
use axum::body::Body;
use std::io::{self, Read};

/// Up to here a body is held in memory; a longer one goes through a file.
pub(super) const SMALL: usize = 64 << 10;
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
        let streamed = Streamed::new(reader, Some(length), &Moved::default());
        return Ok(Body::new(streamed));
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
