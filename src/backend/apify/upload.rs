//! Bodies on their way to a server: read piece by piece, compressed where that is wished. No body is held in memory.

use crate::backend::streamed::{Moved, Streamed};
use crate::record::{Body, ContentType};
use bytes::Bytes;
use std::io::{self, Read};

/// Up to here a body goes in one piece.
const SMALL: u64 = 64 << 10;
/// Shorter bodies are not worth compressing.
const WORTH: u64 = 1 << 10;

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Load {
    /// Nothing.
    None,
    /// JSON.
    Json(Vec<u8>),
    /// A record, of so many bytes.
    Record {
        body: Body,
        length: u64,
        compressed: bool,
    },
}

impl Load {
    /// Whether there is not a byte of it.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Json(text) => text.is_empty(),
            Self::Record { length, .. } => *length == 0,
        }
    }

    /// How many bytes of a record it has.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Record { length, .. } => *length,
            Self::None | Self::Json(_) => 0,
        }
    }

    /// The body of a request. An error is one of reading the record here.
    pub(super) async fn body(&self, moved: &Moved) -> io::Result<reqwest::Body> {
        let (body, length, compressed) = match self {
            Self::None => return Ok(reqwest::Body::from(Bytes::new())),
            Self::Json(text) => return Ok(text.clone().into()),
            Self::Record {
                body,
                length,
                compressed,
            } => (body, *length, *compressed),
        };
        if compressed {
            let level = flate2::Compression::default();
            let reader = flate2::read::GzEncoder::new(body.reader(), level);
            return Ok(reqwest::Body::wrap(Streamed::new(
                Box::new(reader),
                None,
                moved,
            )));
        }
        if length > SMALL {
            let reader = body.reader();
            return Ok(reqwest::Body::wrap(Streamed::new(
                reader,
                Some(length),
                moved,
            )));
        }
        let mut reader = body.reader();
        let mut read = move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            reader.read_exact(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = match body {
            Body::Bytes(_) => read()?,
            Body::File(_) | Body::Counted(..) => tokio::task::spawn_blocking(read)
                .await
                .map_err(io::Error::other)??,
        };
        Ok(bytes.into())
    }
}

/// Whether a body of this type and length gets shorter by compression. Documents of HTML are left as they are: the API may
/// refuse them encoded.
pub(super) fn is_worth_compressing(content_type: &ContentType, length: u64) -> bool {
    let essence = content_type.essence();
    let known = [
        "application/javascript",
        "application/x-ndjson",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    ];
    let text = content_type.is_text() && essence != "text/html";
    length >= WORTH
        && (text
            || content_type.is_json()
            || (essence.ends_with("+xml") && essence != "application/xhtml+xml")
            || known.contains(&&*essence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_text_of_known_kinds_is_compressed() {
        let worth = |text: &str, length| is_worth_compressing(&ContentType::stored(text), length);
        for text in [
            "application/json; charset=utf-8",
            "text/csv",
            "image/svg+xml",
            "application/rss+xml",
        ] {
            assert!(worth(text, 1024) && !worth(text, 1023), "{text}");
        }
        for text in [
            "image/png",
            "text/html; charset=utf-8",
            "application/zip",
            "no type at all",
            "",
        ] {
            assert!(!worth(text, 1 << 30), "{text}");
        }
    }
}
