//! Bodies of requests: received whole before anything of them counts, in memory or in a file without a name.

use super::Door;
use super::body::{PIECE, SMALL, blocking};
use super::encodings::Encoding;
use super::problem::{Answer, Problem};
use crate::backend::dir::OwnDir;
use crate::error::{Error, Kind};
use crate::record;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// The longest JSON body: the API's own limit.
const MAX_JSON: u64 = 9_437_184;

/// The bytes of a request, received whole.
#[derive(Debug)]
pub(super) enum Received {
    /// A short body.
    Bytes(Vec<u8>),
    /// A longer one, in a file that has no name.
    File(File, u64),
}

impl Received {
    /// Its length.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// Its bytes from the first one on. A file is read by position.
    pub(super) fn reader(&self) -> Box<dyn Read + Send + '_> {
        match self {
            Self::Bytes(bytes) => Box::new(&bytes[..]),
            Self::File(file, length) => Box::new(FromStart {
                file,
                at: 0,
                length: *length,
            }),
        }
    }

    /// As what a backend stores.
    pub(super) fn into_record(self) -> record::Body {
        match self {
            Self::Bytes(bytes) => bytes.into(),
            Self::File(file, _) => record::Body::File(Arc::new(file)),
        }
    }
}

/// Reads a file by position.
struct FromStart<'f> {
    file: &'f File,
    at: u64,
    length: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Where long bodies lie on their way: in the server's own folder, or where the system has its temporary files.
#[derive(Clone, Debug)]
pub(super) struct Work(pub(super) Option<Arc<OwnDir>>);

impl Work {
    /// A file without a name.
    fn file(&self) -> io::Result<File> {
        match &self.0 {
            Some(folder) => folder.unnamed(),
            None => tempfile::tempfile(),
        }
    }

    fn shown(&self) -> String {
        let folder = self.0.as_ref();
        folder.map_or_else(String::new, |folder| folder.path().display().to_string())
    }
}

/// Where bytes are collected: in memory, and from `SMALL` on in a file without a name, which is gone with the process.
pub(super) struct Collected<'w> {
    small: Vec<u8>,
    file: Option<File>,
    length: u64,
    limit: u64,
    work: &'w Work,
}

impl<'w> Collected<'w> {
    /// Nothing yet, at most `limit` bytes, a file of `work` if it gets long.
    pub(super) fn new(work: &'w Work, limit: u64) -> Self {
        Self {
            small: Vec::new(),
            file: None,
            length: 0,
            limit,
            work,
        }
    }

    /// Whether the next bytes go into a file.
    fn spills(&self, more: usize) -> bool {
        self.file.is_some() || self.small.len() + more > SMALL
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Answer<()> {
        self.length += bytes.len() as u64;
        if self.length > self.limit {
            return Err(Problem::too_large(self.limit));
        }
        if !self.spills(bytes.len()) {
            self.small.extend_from_slice(bytes);
            return Ok(());
        }
        let failed = |why| Error::io("keep a body in", self.work.shown(), why);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = self.work.file().map_err(failed)?;
                file.write_all(&self.small).map_err(failed)?;
                self.small = Vec::new();
                self.file.insert(file)
            }
        };
        file.write_all(bytes).map_err(failed)?;
        Ok(())
    }

    /// All of it.
    pub(super) fn finish(self) -> Received {
        match self.file {
            Some(file) => Received::File(file, self.length),
            None => Received::Bytes(self.small),
        }
    }
}

/// Receives a body. A client that sends nothing for `patience` is given up.
pub(super) async fn receive(
    mut body: Body,
    limit: u64,
    work: &Work,
    patience: Duration,
) -> Answer<Received> {
    if body.size_hint().lower() > limit {
        return Err(Problem::too_large(limit));
    }
    let mut small = Vec::with_capacity(expected(&body));
    while let Some(data) = next(&mut body, patience).await? {
        if small.len() + data.len() <= SMALL {
            small.extend_from_slice(&data);
            continue;
        }
        return receive_long(body, small, data, limit, work.clone(), patience).await;
    }
    if small.len() as u64 > limit {
        return Err(Problem::too_large(limit));
    }
    Ok(Received::Bytes(small))
}

fn expected(body: &Body) -> usize {
    let told = body.size_hint().exact().unwrap_or(0);
    usize::try_from(told).unwrap_or(SMALL).min(SMALL)
}

/// The rest of a long body. Each step of it waits for the disk on the blocking pool.
async fn receive_long(
    mut body: Body,
    small: Vec<u8>,
    first: Bytes,
    limit: u64,
    work: Work,
    patience: Duration,
) -> Answer<Received> {
    let mut file: Option<File> = None;
    let mut length = 0;
    let mut pieces = vec![Bytes::from(small), first];
    loop {
        let mut pending: usize = pieces.iter().map(Bytes::len).sum();
        let mut ended = false;
        while pending < PIECE {
            match next(&mut body, patience).await? {
                Some(data) => {
                    pending += data.len();
                    pieces.push(data);
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        length += pending as u64;
        if length > limit {
            return Err(Problem::too_large(limit));
        }
        let (ready, into, at) = (std::mem::take(&mut pieces), file.take(), work.clone());
        let written = blocking(move || {
            let mut file = match into {
                Some(file) => file,
                None => at.file()?,
            };
            for piece in ready {
                file.write_all(&piece)?;
            }
            Ok(file)
        });
        let written = written.await;
        let written = written.map_err(|why| Error::io("keep a body in", work.shown(), why))?;
        if ended {
            return Ok(Received::File(written, length));
        }
        file = Some(written);
    }
}

/// The next bytes of a body.
async fn next(body: &mut Body, patience: Duration) -> Answer<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        let frame = frame.map_err(|_| {
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "operation-timed-out",
                "The body of the request stopped coming.",
            )
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(why)) => {
                tracing::debug!("a body was cut short: {why}");
                return Err(Problem::bad(
                    "request-aborted-prematurely",
                    "The body of the request ended too early or is malformed.",
                ));
            }
        }
    }
}

/// Receives a JSON body of an operation; `None` when it is empty, whatever its content type.
pub(super) async fn receive_json(
    mut body: Body,
    patience: Duration,
) -> Answer<Option<serde_json::Map<String, serde_json::Value>>> {
    let mut bytes = Vec::new();
    let told = body.size_hint().lower();
    loop {
        let length = told.max(bytes.len() as u64);
        if length > MAX_JSON {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request-too-large",
                format!(
                    "The POST payload is too large (limit: {MAX_JSON} bytes, actual length: {length} bytes)."
                ),
            ));
        }
        match next(&mut body, patience).await? {
            Some(data) => bytes.extend_from_slice(&data),
            None => break,
        }
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match serde_json::from_slice(&bytes) {
        Ok(serde_json::Value::Object(map)) => Ok(Some(map)),
        _ => Err(Problem::bad(
            "invalid-request",
            "POST data must be a JSON object",
        )),
    }
}

/// How many bodies are decoded at one time: as many as can be. A window of brotli takes 16 MiB, whatever the length of the body.
pub(super) fn decoders() -> usize {
    std::thread::available_parallelism().map_or(2, NonZero::get)
}

/// The plain bytes of an encoded body, and the body. It is never longer than a record may be.
pub(super) async fn decoded(
    door: &Door,
    sent: Received,
    encoding: Encoding,
) -> Answer<(Received, Received)> {
    let (limit, folder) = (door.options.max_record_size, door.work.clone());
    // It is held until the work is over, also when the client goes away.
    let turn = door.decoding.clone().acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut plain = Collected::new(&folder, limit);
        let mut piece = vec![0; SMALL];
        {
            let mut decoder = encoding.decode(sent.reader());
            loop {
                let count = decoder.read(&mut piece).map_err(|why| {
                    Problem::bad(
                        "invalid-request",
                        format!("The body is not valid {}: {why}.", encoding.name()),
                    )
                })?;
                if count == 0 {
                    break;
                }
                plain.add(&piece[..count])?;
            }
        }
        Ok((plain.finish(), sent))
    });
    done.await
        .map_err(|why| Error::because("decode a body", "", Kind::Io, why.to_string()))?
}
