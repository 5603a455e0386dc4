//! What a request demands of a record's version: conditions and ranges of RFC 9110.

use super::problem::{Answer, Problem};
use crate::backend::Backend;
use crate::error::Kind;
use crate::record::{ETag, Meta, Precondition, RecordId};
use axum::http::{HeaderMap, HeaderName, header};
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// How often a condition is tried again that says nothing about the version another writer made meanwhile.
const TRIES: usize = 16;

/// Tags of a header, or any.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Tags {
    Any,
    These(Vec<ETag>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Answer<Option<Self>> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            let bad = || Problem::bad("invalid-header", format!("The header {name} is not valid."));
            let text = value.to_str().map_err(|_| bad())?.trim();
            if text == "*" {
                return Ok(Some(Self::Any));
            }
            let mut rest = text;
            while !rest.is_empty() {
                let quoted = rest.trim_start_matches("W/").strip_prefix('"');
                let (tag, after) = quoted
                    .and_then(|rest| rest.split_once('"'))
                    .ok_or_else(bad)?;
                tags.push(version_of(tag));
                rest = after.trim_start_matches([',', ' ', '\t']);
            }
        }
        Ok((!tags.is_empty()).then_some(Self::These(tags)))
    }

    fn hold(&self, etag: Option<&ETag>) -> bool {
        match (self, etag) {
            (Self::Any, found) => found.is_some(),
            (Self::These(tags), Some(found)) => tags.contains(found),
            (Self::These(_), None) => false,
        }
    }
}

/// The version behind a tag. An encoded answer's tag is that of the version, `;` and the encoding.
fn version_of(tag: &str) -> ETag {
    ETag::new(tag.split_once(';').map_or(tag, |(version, _)| version))
}

/// What must hold for a write.
#[derive(Debug)]
pub(super) struct WriteIf {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

impl WriteIf {
    /// From the headers of a request.
    pub(super) fn of(headers: &HeaderMap) -> Answer<Self> {
        Ok(Self {
            matches: Tags::of(headers, &header::IF_MATCH)?,
            none_matches: Tags::of(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether the record has to exist.
    pub(super) fn needs_record(&self) -> bool {
        self.matches.is_some()
    }

    /// Whether all it asks for is that there is a record.
    pub(super) fn is_any_record(&self) -> bool {
        self.matches == Some(Tags::Any) && self.none_matches.is_none()
    }

    /// The condition as a backend checks it together with the write; `None` when the record has to be looked at first.
    fn direct(&self) -> Option<Precondition> {
        match (&self.matches, &self.none_matches) {
            (None, None) => Some(Precondition::None),
            (None, Some(Tags::Any)) => Some(Precondition::Absent),
            (Some(Tags::These(tags)), None) if tags.len() == 1 => {
                Some(Precondition::Match(tags[0].clone()))
            }
            _ => None,
        }
    }

    /// The condition under which a record in this state may be written.
    fn after_look(&self, found: Option<&ETag>) -> Answer<Precondition> {
        let refused = self.matches.as_ref().is_some_and(|tags| !tags.hold(found))
            || self
                .none_matches
                .as_ref()
                .is_some_and(|tags| tags.hold(found));
        if refused {
            return Err(Problem::changed());
        }
        Ok(match found {
            Some(etag) => Precondition::Match(etag.clone()),
            None => Precondition::Absent,
        })
    }

    /// Writes under the condition, and again when another writer came between a look and the write.
    pub(super) async fn write<T, F>(
        &self,
        backend: &dyn Backend,
        id: &RecordId,
        write: impl Fn(Precondition) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = crate::error::Result<T>>,
    {
        if let Some(direct) = self.direct() {
            return Ok(write(direct).await?);
        }
        for _ in 0..TRIES {
            let found = match backend.head(id).await {
                Ok(meta) => meta.etag,
                Err(error) if error.kind() == Kind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            match write(self.after_look(found.as_ref())?).await {
                Err(error) if error.kind() == Kind::Changed => {}
                other => return Ok(other?),
            }
        }
        Err(Problem::changed())
    }
}

/// What a read is answered with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ReadAs {
    /// All of it.
    Whole,
    /// 304.
    NotModified,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 416.
    NoSuchPart,
}

/// How a record in this state is answered; 412 when it is not the one demanded.
pub(super) fn of_read(headers: &HeaderMap, meta: &Meta, size: Option<u64>) -> Answer<ReadAs> {
    if headers.is_empty() {
        return Ok(ReadAs::Whole);
    }
    let etag = meta.etag.as_ref();
    if Tags::of(headers, &header::IF_MATCH)?.is_some_and(|tags| !tags.hold(etag)) {
        return Err(Problem::changed());
    }
    let not_modified = match Tags::of(headers, &header::IF_NONE_MATCH)? {
        Some(tags) => tags.hold(etag),
        None => date(headers, &header::IF_MODIFIED_SINCE)
            .is_some_and(|since| meta.modified.is_some_and(|time| seconds(time) <= since)),
    };
    if not_modified {
        return Ok(ReadAs::NotModified);
    }
    let (Some(wanted), Some(size)) = (headers.get(header::RANGE), size) else {
        return Ok(ReadAs::Whole);
    };
    let same = match headers
        .get(header::IF_RANGE)
        .and_then(|value| value.to_str().ok())
    {
        Some(text) if text.starts_with('"') => etag.is_some_and(|tag| *tag == ETag::new(text)),
        Some(_) => date(headers, &header::IF_RANGE)
            .is_some_and(|at| meta.modified.is_some_and(|time| seconds(time) == at)),
        None => true,
    };
    let range = wanted.to_str().ok().and_then(|text| range(text, size));
    Ok(match range.filter(|_| same) {
        Some(range) if range.is_empty() => ReadAs::NoSuchPart,
        Some(range) => ReadAs::Part(range),
        None => ReadAs::Whole,
    })
}

/// Times of HTTP have whole seconds.
fn seconds(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// One range of bytes. `None` for anything else, which is then answered whole; an empty one when none of it exists.
fn range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    if first.is_empty() {
        let count: u64 = last.parse().ok()?;
        return Some(size.saturating_sub(count)..size);
    }
    let first: u64 = first.parse().ok()?;
    let end = match last {
        "" => size,
        last => last.parse::<u64>().ok()?.checked_add(1)?.min(size),
    };
    if !last.is_empty() && last.parse::<u64>().ok()? < first {
        return None;
    }
    Some(if first < end { first..end } else { 0..0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_and_nonsense_is_ignored() {
        assert_eq!(range("bytes=0-0", 10), Some(0..1));
        assert_eq!(range("bytes=2-", 10), Some(2..10));
        assert_eq!(range("bytes=5-99", 10), Some(5..10));
        assert_eq!(range("bytes=-3", 10), Some(7..10));
        assert_eq!(range("bytes=-30", 10), Some(0..10));
        assert!(range("bytes=10-", 10).unwrap().is_empty());
        assert!(range("bytes=-0", 10).unwrap().is_empty());
        for nonsense in [
            "bytes=3-2",
            "bytes=a-b",
            "lines=1-2",
            "bytes=0-1,3-4",
            "bytes=-",
            "",
        ] {
            assert_eq!(range(nonsense, 10), None, "{nonsense}");
        }
    }

    #[test]
    fn tags_come_in_lists_weak_and_of_encoded_answers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, "\"a\", W/\"b\",\"c;br\"".parse().unwrap());
        let tags = Tags::of(&headers, &header::IF_MATCH).unwrap().unwrap();
        for tag in ["a", "b", "c"] {
            assert!(tags.hold(Some(&ETag::new(tag))), "{tag}");
        }
        assert!(!tags.hold(None) && !tags.hold(Some(&ETag::new("d"))));
        assert!(Tags::Any.hold(Some(&ETag::new("d"))) && !Tags::Any.hold(None));
        headers.insert(header::IF_MATCH, "a".parse().unwrap());
        assert!(Tags::of(&headers, &header::IF_MATCH).is_err());
    }
}
