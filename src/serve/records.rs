//! One record: read, written, deleted. Bytes go through, content types and encodings stay as they were sent.

use super::Door;
use super::asked::Asked;
use super::conditions::{self, ReadAs, WriteIf};
use super::encodings::Encoding;
use super::problem::{Answer, Problem};
use super::{body, reply, upload};
use crate::error::{Error, Kind};
use crate::record::content_type::{BINARY, MAX_CONTENT_TYPE};
use crate::record::{ContentType, Meta, Precondition, RecordId};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

/// How often a record is read again that was replaced between its head and the part asked for.
const TRIES: usize = 8;

/// `GET` and `HEAD` of a record.
pub(super) async fn get(door: &Door, asked: &Asked, head: bool) -> Answer {
    let key = asked.key()?;
    let store = door.to_read_record(asked, &key).await?;
    let attachment = asked.query().flag("attachment")?;
    let id = RecordId {
        store: store.info.id.clone(),
        key,
    };
    if head {
        return answer_head(door, asked, &id, attachment).await;
    }
    for _ in 0..TRIES {
        let fetched = door.backend.get(&id, None).await?;
        let meta = fetched.meta;
        let size = meta.size.exact();
        let part = match conditions::of_read(asked.headers(), &meta, size)? {
            ReadAs::Whole => None,
            ReadAs::Part(range) => Some(range),
            ReadAs::NotModified => return Ok(not_modified(&meta)),
            ReadAs::NoSuchPart => return Err(Problem::no_such_range(size.unwrap_or(0))),
        };
        let Some(range) = part else {
            return whole(door, asked, &id, meta, fetched.bytes, attachment).await;
        };
        let fetched = door.backend.get(&id, Some(range.clone())).await?;
        if fetched.meta.etag != meta.etag {
            continue;
        }
        let length = range.end - range.start;
        let body = body::of_reader(fetched.bytes, length, door.is_local).await;
        let mut response = Response::new(body.map_err(|why| unreadable(&id, why))?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        describe(response.headers_mut(), &meta, None, attachment);
        let place = format!(
            "bytes {}-{}/{}",
            range.start,
            range.end - 1,
            size.unwrap_or(range.end)
        );
        reply::set(response.headers_mut(), header::CONTENT_RANGE, &place);
        return Ok(response);
    }
    Err(Error::new("get", id.to_string(), Kind::Busy).into())
}

fn unreadable(id: &RecordId, why: std::io::Error) -> Problem {
    Error::io("read", id.to_string(), why).into()
}

/// The whole record, as it was sent when the client accepts that.
async fn whole(
    door: &Door,
    asked: &Asked,
    id: &RecordId,
    meta: Meta,
    bytes: Box<dyn std::io::Read + Send>,
    attachment: bool,
) -> Answer {
    let encoded = encoded(door, asked, id, &meta);
    let encoding = encoded.as_ref().map(|found| found.encoding);
    let (reader, length) = match encoded {
        Some(found) => {
            let length = found.length;
            (found.into_reader(), Some(length))
        }
        None => (bytes, meta.size.exact()),
    };
    let body = match length {
        Some(length) => body::of_reader(reader, length, door.is_local).await,
        None => body::of_unmeasured(reader).await,
    };
    let mut response = Response::new(body.map_err(|why| unreadable(id, why))?);
    describe(response.headers_mut(), &meta, encoding, attachment);
    Ok(response)
}

fn encoded(door: &Door, asked: &Asked, id: &RecordId, meta: &Meta) -> Option<super::sent::Found> {
    let headers = asked.headers();
    headers.get(header::ACCEPT_ENCODING)?;
    let etag = meta.etag.as_ref()?;
    door.sent
        .find(id, etag, |encoding| encoding.is_accepted(headers))
}

async fn answer_head(door: &Door, asked: &Asked, id: &RecordId, attachment: bool) -> Answer {
    let meta = door.backend.head(id).await?;
    let size = meta.size.exact();
    // A range says nothing of a HEAD (RFC 9110, section 14.2).
    let mut conditions = asked.headers().clone();
    conditions.remove(header::RANGE);
    if conditions::of_read(&conditions, &meta, size)? == ReadAs::NotModified {
        return Ok(not_modified(&meta));
    }
    let encoded = encoded(door, asked, id, &meta);
    let length = encoded.as_ref().map(|found| found.length).or(size);
    let encoding = encoded.map(|found| found.encoding);
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &meta, encoding, attachment);
    if let Some(length) = length {
        reply::set(
            response.headers_mut(),
            header::CONTENT_LENGTH,
            &length.to_string(),
        );
    }
    Ok(response)
}

fn not_modified(meta: &Meta) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tag(response.headers_mut(), meta, None);
    response
}

/// The headers of a record.
fn describe(headers: &mut HeaderMap, meta: &Meta, encoding: Option<Encoding>, attachment: bool) {
    let stored = meta.content_type.as_ref().map(ContentType::as_str);
    let content_type = stored.and_then(|text| HeaderValue::from_str(text).ok());
    let inert = stored.is_none_or(is_inert);
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static(BINARY)),
    );
    if let Some(encoding) = encoding {
        let name = HeaderValue::from_static(encoding.name());
        headers.insert(header::CONTENT_ENCODING, name);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if attachment {
        let attachment = HeaderValue::from_static("attachment");
        headers.insert(header::CONTENT_DISPOSITION, attachment);
    }
    // A document gets an origin of its own and runs no script, so it cannot use what a browser knows of this server.
    if !inert {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox"),
        );
    }
    tag(headers, meta, encoding);
}

/// Whether a browser that shows this type runs nothing of it.
fn is_inert(content_type: &str) -> bool {
    let content_type = content_type.to_ascii_lowercase();
    let begins = [
        "application/json",
        "application/octet-stream",
        "application/pdf",
        "application/zip",
        "audio/",
        "font/",
        "image/",
        "text/csv",
        "text/plain",
        "video/",
    ];
    let known = begins.iter().any(|start| content_type.starts_with(start));
    known
        && !["html", "svg", "xml"]
            .iter()
            .any(|part| content_type.contains(part))
}

fn tag(headers: &mut HeaderMap, meta: &Meta, encoding: Option<Encoding>) {
    if let Some(etag) = &meta.etag {
        let text = match encoding {
            None => format!("\"{}\"", etag.as_str()),
            Some(encoding) => format!("\"{};{}\"", etag.as_str(), encoding.name()),
        };
        reply::set(headers, header::ETAG, &text);
    }
    if let Some(modified) = meta.modified {
        let text = reply::http_date(modified);
        reply::set(headers, header::LAST_MODIFIED, &text);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// `PUT` and `POST` of a record.
pub(super) async fn put(door: &Door, asked: &Asked, body: Body) -> Answer {
    let key = asked.key()?;
    let store = door.to_write(asked).await?;
    let id = RecordId {
        store: store.info.id.clone(),
        key,
    };
    let encoding = Encoding::of_upload(asked.headers())?;
    let content_type = content_type(asked.headers())?;
    let only_if = WriteIf::of(asked.headers())?;
    let limit = door.options.max_record_size;
    let sent = upload::receive(body, limit, &door.work, door.options.limits.patience).await?;
    // An empty body cannot be encoded; some programs say that it is.
    let encoding = encoding.filter(|_| sent.len() > 0);
    let (record, sent) = match encoding {
        None => (sent.into_record(), None),
        Some(encoding) => {
            let (plain, sent) = upload::decoded(door, sent, encoding).await?;
            (plain.into_record(), Some((encoding, sent)))
        }
    };
    let backend = &*door.backend;
    let meta = only_if
        .write(backend, &id, |only_if| {
            backend.put(&id, record.clone(), &content_type, only_if)
        })
        .await
        .map_err(|problem| problem.about_key())?;
    let mut response = reply::json(StatusCode::CREATED, "{}");
    let place = door.record_url(asked, &id);
    reply::set(response.headers_mut(), header::LOCATION, &place);
    if let Some(etag) = &meta.etag {
        let text = format!("\"{}\"", etag.as_str());
        reply::set(response.headers_mut(), header::ETAG, &text);
    }
    match (sent, &meta.etag) {
        (Some((encoding, sent)), Some(etag)) => door.sent.keep(id, etag, encoding, sent).await,
        _ => door.sent.forget(&id),
    }
    Ok(response)
}

/// The type as it was sent; a usual one when there is none.
fn content_type(headers: &HeaderMap) -> Answer<ContentType> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(ContentType::stored(BINARY));
    };
    match value.to_str() {
        Ok("") => Ok(ContentType::stored(BINARY)),
        Ok(text) if text.len() <= MAX_CONTENT_TYPE => Ok(ContentType::stored(text)),
        _ => Err(Problem::bad(
            "invalid-content-type-header",
            "The Content-Type header must be ASCII of at most 255 characters.",
        )),
    }
}

/// `DELETE` of a record. One that is not there is deleted already, unless a certain one is demanded.
pub(super) async fn delete(door: &Door, asked: &Asked) -> Answer {
    let key = asked.key()?;
    let store = door.to_write(asked).await?;
    let only_if = WriteIf::of(asked.headers())?;
    let id = RecordId {
        store: store.info.id.clone(),
        key,
    };
    let backend = &*door.backend;
    let delete = async |only_if| match backend.delete(&id, only_if).await {
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        other => other.map(|()| true),
    };
    // Whether there is a record shows from its deletion.
    let deleted = match only_if.is_any_record() {
        true => delete(Precondition::None).await?,
        false => only_if.write(backend, &id, delete).await?,
    };
    if !deleted && only_if.needs_record() {
        return Err(Problem::changed());
    }
    door.sent.forget(&id);
    Ok(reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_types_that_run_nothing_are_shown_as_they_are() {
        for inert in [
            "application/json; charset=utf-8",
            "TEXT/PLAIN",
            "image/png",
            "video/mp4",
        ] {
            assert!(is_inert(inert), "{inert}");
        }
        for active in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "multipart/related",
            "text/plain, text/html",
            "application/javascript",
            "",
        ] {
            assert!(!is_inert(active), "{active}");
        }
    }

    #[test]
    fn times_before_1970_have_a_date() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(reply::http_date(early), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
