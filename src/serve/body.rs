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

/// A reader whose length nobody knows. A short one is read to its end first, so that its length can be told. A longer one goes
/// out in chunks while it comes, and lies nowhere; a fault on the way cuts the answer short.
pub(super) async fn of_unmeasured(mut reader: Box<dyn Read + Send>) -> io::Result<Body> {
    let (begin, rest) = blocking(move || {
        let mut begin = Vec::new();
        let most = SMALL as u64 + 1;
        reader.by_ref().take(most).read_to_end(&mut begin)?;
        Ok((begin, reader))
    })
    .await?;
    if begin.len() <= SMALL {
        return Ok(Body::from(begin));
    }
    let whole = io::Cursor::new(begin).chain(rest);
    let streamed = Streamed::new(Box::new(whole), None, &Moved::default());
    Ok(Body::new(streamed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;
    use hyper::body::Body as _;
    use std::sync::mpsc;

    /// Gives what comes through a channel, as a source does that is still sending.
    struct Coming(mpsc::Receiver<io::Result<Vec<u8>>>, Vec<u8>);

    impl Read for Coming {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.is_empty() {
                self.1 = self.0.recv().unwrap_or(Ok(Vec::new()))?;
            }
            let count = self.1.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.1[..count]);
            self.1.drain(..count);
            Ok(count)
        }
    }

    #[tokio::test]
    async fn a_long_body_goes_out_while_it_still_comes_and_a_fault_cuts_it() {
        let (send, coming) = mpsc::channel();
        send.send(Ok(vec![1; SMALL + 1])).unwrap();
        let mut body = of_unmeasured(Box::new(Coming(coming, Vec::new())))
            .await
            .unwrap();
        assert_eq!(body.size_hint().exact(), None);
        // The first piece is here, though the source has not ended.
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece.len(), SMALL + 1);
        send.send(Ok(vec![2; 3])).unwrap();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece, [2; 3][..]);
        send.send(Err(io::ErrorKind::ConnectionReset.into()))
            .unwrap();
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_short_body_has_a_length_and_a_fault_of_it_is_told_before() {
        let (send, coming) = mpsc::channel();
        send.send(Ok(vec![1; 9])).unwrap();
        drop(send);
        let body = of_unmeasured(Box::new(Coming(coming, Vec::new()))).await;
        assert_eq!(body.unwrap().size_hint().exact(), Some(9));
        let (send, coming) = mpsc::channel();
        send.send(Err(io::ErrorKind::ConnectionReset.into()))
            .unwrap();
        let body = of_unmeasured(Box::new(Coming(coming, Vec::new()))).await;
        assert!(body.is_err());
    }
}
