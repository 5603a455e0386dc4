//! The keys of a store, page by page, in byte order.

use super::Door;
use super::asked::Asked;
use super::auth::Signed;
use super::problem::{Answer, Problem};
use super::reply;
use crate::backend::ListQuery;
use crate::record::key::{MAX_KEY, is_key_byte};
use crate::record::{Key, RecordId, signature};
use axum::http::StatusCode;
use serde::Serialize;

/// The most keys of a page.
const PAGE: usize = 1000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'p> {
    key: &'p str,
    size: u64,
    record_public_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'p str>,
}

#[derive(Serialize)]
struct Page<'p> {
    data: Data<'p>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'p> {
    #[serde(rename = "items")]
    lines: Vec<Line<'p>>,
    count: usize,
    limit: usize,
    exclusive_start_key: Option<&'p str>,
    is_truncated: bool,
    next_exclusive_start_key: Option<&'p str>,
}

/// Refuses to choose by a collection of the store's schema.
pub(super) fn refuse_collection(asked: &Asked) -> Answer<()> {
    match asked.query().get("collection")? {
        None => Ok(()),
        Some(_) => Err(Problem::not_here(
            "This server keeps a store's schema and does not choose keys by its collections yet. \
             Use the parameter \"prefix\".",
        )),
    }
}

/// `GET` of the keys.
pub(super) async fn list(door: &Door, asked: &Asked) -> Answer {
    let (store, _) = door.to_read(asked, Some(Signed::Listing)).await?;
    refuse_collection(asked)?;
    let query = asked.query();
    let limit = match query.count("limit")? {
        None | Some(0) => PAGE,
        Some(limit) => limit.min(PAGE),
    };
    let start = query
        .get("exclusiveStartKey")?
        .filter(|key| !key.is_empty());
    let prefix = query.get("prefix")?.unwrap_or_default().into_owned();
    let page = door
        .backend
        .list(
            &store.info.id,
            ListQuery {
                after: start.as_deref().and_then(last_key_up_to),
                prefix,
                limit,
            },
        )
        .await?;
    let lines = page.records.iter().map(|(key, meta)| {
        let id = RecordId {
            store: store.info.id.clone(),
            key: key.clone(),
        };
        let mut url = door.record_url(asked, &id);
        if let Some(secret) = &store.info.secret {
            url.push_str("?signature=");
            url.push_str(&signature::of_key(secret, key.as_str()));
        }
        Line {
            key: key.as_str(),
            size: meta.size.shown(),
            record_public_url: url,
            content_type: meta.content_type.as_ref().map(|known| known.as_str()),
            modified_at: meta.modified.map(reply::iso),
            etag: meta.etag.as_ref().map(|known| known.as_str()),
        }
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let data = Data {
        count: lines.len(),
        lines,
        limit,
        exclusive_start_key: start.as_deref(),
        is_truncated: page.next.is_some(),
        next_exclusive_start_key: page.next.as_ref().map(Key::as_str),
    };
    let text = serde_json::to_vec(&Page { data });
    let text = text.map_err(|why| {
        crate::error::Error::because("list", "", crate::error::Kind::Io, why.to_string())
    })?;
    Ok(reply::json(StatusCode::OK, text))
}

/// The last key there can be that is not above this text, which need not be a key itself. `None` when all are above.
fn last_key_up_to(text: &str) -> Option<Key> {
    if let Ok(key) = Key::new(text) {
        return Some(key);
    }
    let bytes = text.as_bytes();
    let legal = bytes.iter().take_while(|byte| is_key_byte(**byte)).count();
    let mut end = legal.min(MAX_KEY);
    if matches!(&bytes[..end], b"." | b"..") {
        end -= 1;
    } else if end == MAX_KEY {
        return Key::new(&text[..end]).ok();
    }
    let start = &text[..end];
    // Whatever begins with the legal part and goes on with a smaller character lies below the text.
    let below = bytes.get(end).copied().unwrap_or(0);
    match (0..below).rev().find(|byte| is_key_byte(*byte)) {
        Some(byte) => {
            let mut last = String::from(start);
            last.push(char::from(byte));
            last.extend(std::iter::repeat_n('z', MAX_KEY - last.len()));
            Key::new(&last).ok()
        }
        None => Key::new(start).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Keys that lie close together around all kinds of text.
    const KEYS: [&str; 13] = [
        "!", "-", "-z", ".-", "..!", "...", ".a", "a", "a!", "a-b", "aB", "a_", "az",
    ];

    #[test]
    fn a_start_that_is_no_key_leaves_out_what_is_not_above_it() {
        let longer = "a".repeat(MAX_KEY + 3);
        for text in [
            " ", ".", "..", "a b", "a~", "a/", "a\u{e9}", "~", "\u{1}", "a@", "!!/", &longer,
        ] {
            let after = last_key_up_to(text);
            for key in KEYS {
                let listed = after.as_ref().is_none_or(|after| key > after.as_str());
                assert_eq!(listed, key > text, "{key} after {text:?} by {after:?}");
            }
        }
        assert_eq!(last_key_up_to("a").unwrap().as_str(), "a");
    }
}
