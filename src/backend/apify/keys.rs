//! The keys of a store, page by page. A listing that goes round in circles or holds what cannot be ends in an error.

use super::Apify;
use super::base::escaped;
use super::client::Call;
use super::stores::path;
use super::wire::{Answer, Keys, listed_key};
use crate::backend::pace::Class;
use crate::backend::{KeyPage, ListQuery};
use crate::error::Result;
use crate::record::Key;
use crate::record::key::StoreId;
use reqwest::Method;

/// The most keys of a page of the API.
const PAGE: usize = 1000;
/// How many empty pages may follow each other.
const EMPTY: usize = 16;

impl Apify {
    pub(super) async fn list_keys(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let limit = query.limit.clamp(1, PAGE);
        let mut start = query.after.as_ref().map(|key| key.as_str().to_owned());
        for _ in 0..EMPTY {
            let (page, next) = self.key_page(store, &query.prefix, start, limit).await?;
            if !page.records.is_empty() || page.next.is_none() && next.is_none() {
                return Ok(page);
            }
            start = next;
        }
        let call = Call::new("list", store.as_str(), Method::GET, String::new());
        Err(call.asked.wrong(format!(
            "the server gave {EMPTY} empty pages one after another"
        )))
    }

    /// One page of the server, and where it says that the next one begins.
    async fn key_page(
        &self,
        store: &StoreId,
        prefix: &str,
        start: Option<String>,
        limit: usize,
    ) -> Result<(KeyPage, Option<String>)> {
        const OP: &str = "list";
        let mut path = format!("{}/keys?limit={limit}", path(store));
        if !prefix.is_empty() {
            path += &format!("&prefix={}", escaped(prefix));
        }
        if let Some(start) = &start {
            path += &format!("&exclusiveStartKey={}", escaped(start));
        }
        let call = Call::new(OP, store.as_str(), Method::GET, path).to(store, Class::Other);
        let asked = call.asked;
        let found = self.client.json::<Answer<Keys>>(call).await;
        let (_, Answer { data }) = found.map_err(|error| self.of_store(error, OP, store))?;
        self.seen.store_is_there(store);
        if data.lines.len() > limit {
            return Err(asked.wrong("the server gives more keys than it was asked for"));
        }
        let (mut last, mut content_type) = (start.clone(), None);
        let mut records: Vec<(Key, _)> = Vec::with_capacity(data.lines.len());
        for line in data.lines {
            let key = listed_key(&asked, &line.key)?;
            let rises = last.as_ref().is_none_or(|last| line.key > *last);
            if !rises || !line.key.starts_with(prefix) {
                return Err(asked.wrong(format!(
                    "the server lists {:?} where it cannot stand (after {:?}, with the prefix {prefix:?})",
                    line.key,
                    last.unwrap_or_default()
                )));
            }
            last = Some(line.key.clone());
            if line.is_exact() {
                self.seen.exact.show();
            }
            match key {
                Some(key) => records.push((key, line.into_meta(&mut content_type))),
                None => tracing::warn!("{OP} {store}: the key {:?} cannot be asked for", line.key),
            }
        }
        let next = match data.next_exclusive_start_key.filter(|_| data.is_truncated) {
            None if data.is_truncated => last.clone().filter(|_| last != start),
            next => next,
        };
        if let Some(next) = &next {
            listed_key(&asked, next)?;
            // It may be a key that is gone, but not one before what was listed.
            if last.as_ref().is_some_and(|last| next < last) || Some(next) == start.as_ref() {
                return Err(asked.wrong("the server's pages go round in circles"));
            }
        }
        let follows = match &next {
            None => None,
            Some(next) => match listed_key(&asked, next)? {
                Some(key) => Some(key),
                // It cannot stand in a request of ours, the key before it can.
                None => records.last().map(|(key, _)| key.clone()),
            },
        };
        let page = KeyPage {
            records,
            next: follows,
        };
        Ok((page, next))
    }
}
