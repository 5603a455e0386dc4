//! Records of a server: looked at, read, written, deleted.

use super::Apify;
use super::client::{Call, ENCODINGS, PLAIN, encoding_of};
use super::download::{self, Part, Resume, length_of, part_of};
use super::stores::path;
use super::upload::{Load, is_worth_compressing};
use crate::backend::pace::Class;
use crate::backend::{Fetched, StoreRef, random};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, ETag, Meta, Precondition, RecordId, Size};
use reqwest::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, Response, StatusCode};
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// A record that has not changed for so long will not change within the second that it shows.
const APART: Duration = Duration::from_secs(2);

fn record_path(id: &RecordId) -> String {
    format!("{}/records/{}", path(&id.store), id.key)
}

/// The header of a condition, if the server can check it.
fn condition(only_if: &Precondition) -> Option<(HeaderName, String)> {
    match only_if {
        Precondition::None => None,
        Precondition::Absent => Some((IF_NONE_MATCH, "*".to_owned())),
        Precondition::Match(tag) => Some((IF_MATCH, format!("\"{}\"", tag.as_str()))),
    }
}

fn tag_of(headers: &HeaderMap) -> Option<ETag> {
    let text = headers.get(ETAG)?.to_str().ok()?;
    let tag = ETag::new(text);
    // The tag of an encoded answer is that of the version with the encoding behind it: after `;` from `storefs serve`, after
    // `-` from Apache's mod_deflate.
    let encoding = headers
        .get(CONTENT_ENCODING)
        .and_then(|it| it.to_str().ok());
    let version = encoding.and_then(|encoding| {
        let version = tag
            .as_str()
            .strip_suffix(encoding)?
            .strip_suffix([';', '-'])?;
        Some(ETag::new(version))
    });
    Some(version.unwrap_or(tag)).filter(|tag| !tag.as_str().is_empty())
}

fn modified_of(headers: &HeaderMap) -> Option<SystemTime> {
    time_in(headers, &LAST_MODIFIED)
}

fn time_in(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

impl Apify {
    fn record_call<'a>(
        &self,
        op: &'static str,
        subject: &'a str,
        method: Method,
        id: &'a RecordId,
    ) -> Call<'a> {
        Call::new(op, subject, method, record_path(id)).to(&id.store, Class::Record)
    }

    /// What headers tell of a record. Its length is that of this answer's body, when that is one of the record itself.
    fn meta(&self, headers: &HeaderMap, whole: bool) -> Meta {
        let etag = tag_of(headers);
        let ranges = headers.get(ACCEPT_RANGES).is_some_and(|it| it == "bytes");
        if ranges {
            self.seen.ranges.show();
        }
        let encoded = !matches!(encoding_of(headers), Ok(None));
        let length = length_of(headers).filter(|_| !encoded);
        let modified = modified_of(headers);
        // Within the same second there may be another version (RFC 9110, 8.8.2.2).
        let by_time = || {
            let told = time_in(headers, &DATE)?;
            told.duration_since(modified?)
                .ok()
                .filter(|age| *age >= APART)?;
            ETag::of_time(modified?)
        };
        let content_type = headers
            .get(CONTENT_TYPE)
            .map(|value| ContentType::stored(&String::from_utf8_lossy(value.as_bytes())));
        Meta {
            size: length.filter(|_| whole).map_or(Size::Unknown, Size::Exact),
            content_type,
            etag: etag.or_else(by_time),
            modified,
        }
    }

    /// The error of a record that is not there, or of its store.
    async fn missing(&self, op: &'static str, id: &RecordId) -> Error {
        if !self.seen.was_there(&id.store) {
            let store = StoreRef::Id(id.store.clone());
            if let Err(error) = self.find_store(&store).await {
                return error;
            }
        }
        Error::new(op, id.to_string(), Kind::NotFound)
    }

    pub(super) async fn look(&self, id: &RecordId) -> Result<Meta> {
        const OP: &str = "head";
        let subject = id.to_string();
        // The length that is told shall be that of the plain body.
        let call = self
            .record_call(OP, &subject, Method::HEAD, id)
            .header(ACCEPT_ENCODING, PLAIN);
        let response = self.client.answer(&call).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Err(self.missing(OP, id).await);
        }
        if !status.is_success() {
            return Err(self.client.refusal(&call, response).await);
        }
        self.seen.store_is_there(&id.store);
        let mut meta = self.meta(response.headers(), true);
        // What the public API tells here is in no document. Whoever tells versions and gives parts knows the length.
        let headers = response.headers();
        let knows = headers.contains_key(ETAG) && headers.contains_key(ACCEPT_RANGES);
        if !knows && !self.seen.exact.is_shown() {
            meta.size = Size::Unknown;
        }
        Ok(meta)
    }

    pub(super) async fn fetch(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        let Some(range) = range else {
            return self.fetch_part(id, None).await;
        };
        if range.is_empty() {
            return self.fetch_nothing(id).await;
        }
        self.fetch_part(id, Some(range)).await
    }

    async fn fetch_nothing(&self, id: &RecordId) -> Result<Fetched> {
        Ok(Fetched {
            meta: self.look(id).await?,
            bytes: Box::new(io::empty()),
        })
    }

    async fn fetch_part(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        const OP: &str = "get";
        let subject = id.to_string();
        let mut call = self.record_call(OP, &subject, Method::GET, id);
        // Without this the API may change documents of HTML.
        call.path += "?attachment=true";
        let plain = range.is_some() || self.seen.exact.is_shown();
        let encodings = if plain { PLAIN } else { ENCODINGS };
        call = call.header(ACCEPT_ENCODING, encodings);
        if let Some(range) = &range {
            let last = match range.end {
                u64::MAX => String::new(),
                end => (end - 1).to_string(),
            };
            let text = format!("bytes={}-{last}", range.start);
            let value =
                HeaderValue::from_str(&text).map_err(|why| call.asked.wrong(why.to_string()))?;
            call = call.header(RANGE, value);
        }
        let response = self.client.answer(&call).await?;
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => return Err(self.missing(OP, id).await),
            StatusCode::RANGE_NOT_SATISFIABLE if range.is_some() => {
                self.seen.ranges.show();
                return self.fetch_nothing(id).await;
            }
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            _ if status.is_success() => {
                return Err(call.asked.wrong(format!("the server answered {status}")));
            }
            _ => return Err(self.client.refusal(&call, response).await),
        }
        self.seen.store_is_there(&id.store);
        let mut meta = self.meta(response.headers(), status == StatusCode::OK);
        let (at, end) = match (&range, status == StatusCode::PARTIAL_CONTENT) {
            (None, true) => return Err(download::other_part(&call.asked)),
            (None | Some(_), false) => (0, None),
            // A part of the encoded bytes is no part of the record.
            (Some(range), true) if !matches!(encoding_of(response.headers()), Ok(None)) => {
                self.seen.encoded_parts.show();
                let whole = Box::pin(self.fetch_part(id, None)).await?;
                let bytes = Box::new(Part::new(whole.bytes, range));
                return Ok(Fetched {
                    meta: whole.meta,
                    bytes,
                });
            }
            (Some(range), true) => {
                let part = part_of(response.headers());
                let fits = |(part, _): &(Range<u64>, Option<u64>)| {
                    part.start == range.start && part.end <= range.end
                };
                let Some((part, size)) = part.filter(fits) else {
                    return Err(download::other_part(&call.asked));
                };
                self.seen.ranges.show();
                meta.size = size.map_or(Size::Unknown, Size::Exact);
                (part.start, Some(part.end))
            }
        };
        let resume = self.resume(&call.path, response.headers(), at, end);
        let most = self.largest_decoded;
        let bytes = download::bytes_of(&self.client, &call.asked, response, resume, most).await?;
        let bytes = match range {
            Some(range) if status == StatusCode::OK => Box::new(Part::new(bytes, &range)),
            _ => bytes,
        };
        Ok(Fetched { meta, bytes })
    }

    fn resume(&self, path: &str, headers: &HeaderMap, at: u64, end: Option<u64>) -> Option<Resume> {
        let tag = headers.get(ETAG)?;
        let strong = !tag.as_bytes().starts_with(b"W/");
        (strong && self.seen.ranges.is_shown()).then(|| Resume {
            client: self.client.clone(),
            path: path.to_owned(),
            tag: tag.clone(),
            at,
            end,
        })
    }

    pub(super) async fn write(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        const OP: &str = "put";
        let subject = id.to_string();
        let length = body
            .len()
            .map_err(|why| Error::io(OP, subject.as_str(), why))?;
        let mut call = self.record_call(OP, &subject, Method::PUT, id);
        let named = HeaderValue::from_str(content_type.as_str()).map_err(|_| {
            let why = "the content type cannot be sent in a header (it is to be one line of text)";
            Error::because(OP, subject.as_str(), Kind::Invalid, why)
        })?;
        call = call.header(CONTENT_TYPE, named);
        if let Some((name, value)) = self.checked_condition(OP, id, &only_if).await? {
            call = call.header(name, value);
        }
        let compressed = self.compress && is_worth_compressing(content_type, length);
        if compressed {
            call = call.header(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        call.load = Load::Record {
            body,
            length,
            compressed,
        };
        let response = self.client.success(&call).await;
        let response = response.map_err(|error| self.of_store(error, OP, &id.store))?;
        self.seen.store_is_there(&id.store);
        let headers = response.headers();
        let meta = Meta {
            size: Size::Exact(length),
            content_type: Some(content_type.clone()),
            etag: tag_of(headers),
            modified: modified_of(headers),
        };
        drain(response).await;
        Ok(meta)
    }

    pub(super) async fn remove(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        const OP: &str = "delete";
        let subject = id.to_string();
        let mut call = self.record_call(OP, &subject, Method::DELETE, id);
        let any = only_if == Precondition::None;
        let header = match &only_if {
            Precondition::None if self.checks_conditions(&id.store).await? => {
                Some((IF_MATCH, HeaderValue::from_static("*")))
            }
            Precondition::None => None,
            Precondition::Absent => {
                // Nothing can be deleted so. All there is to say is why not.
                self.look(id).await?;
                return Err(Error::new(OP, subject.as_str(), Kind::Changed));
            }
            Precondition::Match(_) => self.checked_condition(OP, id, &only_if).await?,
        };
        if let Some((name, value)) = header {
            call = call.header(name, value);
        }
        let response = self.client.answer(&call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Err(self.missing(OP, id).await),
            StatusCode::PRECONDITION_FAILED if any => {
                Err(Error::new(OP, subject.as_str(), Kind::NotFound))
            }
            StatusCode::PRECONDITION_FAILED => {
                // It may be gone, or another one.
                self.look(id).await?;
                Err(Error::new(OP, subject.as_str(), Kind::Changed))
            }
            status if status.is_success() => {
                self.seen.store_is_there(&id.store);
                drain(response).await;
                Ok(())
            }
            _ => Err(self.client.refusal(&call, response).await),
        }
    }

    /// The header of a condition; where the server cannot check it, it is checked here before the write.
    async fn checked_condition(
        &self,
        op: &'static str,
        id: &RecordId,
        only_if: &Precondition,
    ) -> Result<Option<(HeaderName, HeaderValue)>> {
        let Some((name, value)) = condition(only_if) else {
            return Ok(None);
        };
        let by_time = matches!(only_if, Precondition::Match(tag) if tag.is_of_time());
        if !by_time && self.checks_conditions(&id.store).await? {
            let value = HeaderValue::from_str(&value).map_err(|_| {
                let why = "the tag of the version cannot be sent in a header";
                Error::because(op, id.to_string(), Kind::Invalid, why)
            })?;
            return Ok(Some((name, value)));
        }
        let found = match self.look(id).await {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let holds = match (only_if, found) {
            (Precondition::None, _) | (Precondition::Absent, None) => true,
            (Precondition::Match(tag), Some(meta)) => meta.etag.as_ref() == Some(tag),
            (Precondition::Match(_), None) if op == "delete" => {
                return Err(Error::new(op, id.to_string(), Kind::NotFound));
            }
            (Precondition::Absent, Some(_)) | (Precondition::Match(_), None) => false,
        };
        if holds {
            return Ok(None);
        }
        Err(Error::new(op, id.to_string(), Kind::Changed))
    }

    /// Whether the server checks conditions of writes. It is asked once, by the deletion of a record that nobody has, under
    /// a condition that cannot hold: whoever does not check says that it is done, or that there is no such record.
    pub(super) async fn checks_conditions(&self, store: &StoreId) -> Result<bool> {
        const OP: &str = "ask for conditional writes";
        if let Some(known) = self.seen.conditions.get() {
            return Ok(known);
        }
        let key = format!("storefs-probe-{}", random::letters(24)?);
        let path = format!("{}/records/{key}", path(store));
        let call = Call::new(OP, store.as_str(), Method::DELETE, path)
            .to(store, Class::Record)
            .header(IF_MATCH, HeaderValue::from_static("\"storefs-probe\""));
        let response = self.client.answer(&call).await?;
        let can = match response.status() {
            StatusCode::PRECONDITION_FAILED => true,
            StatusCode::NOT_FOUND => {
                self.find_store(&StoreRef::Id(store.clone())).await?;
                false
            }
            // Whoever takes the question for a mistake does not check either.
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::NOT_IMPLEMENTED => false,
            status if status.is_success() => false,
            _ => return Err(self.client.refusal(&call, response).await),
        };
        self.seen.conditions.set(can);
        Ok(can)
    }
}

/// Reads the short rest of an answer, so that its connection can be used again.
async fn drain(response: Response) {
    let _ = tokio::time::timeout(Duration::from_secs(1), drained(response)).await;
}

async fn drained(mut response: Response) {
    const SHORT: usize = 4 << 10;
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > SHORT {
            return;
        }
    }
}
