//! Stores of a server: listed, found, made, changed, deleted.

use super::Apify;
use super::base::{Token, escaped};
use super::client::Call;
use super::wire::{Answer, Store, Stores, User};
use crate::backend::pace::Class;
use crate::backend::{NewStore, StoreChange, StoreInfo, StorePage, StoreRef};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Key, signature};
use reqwest::{Method, StatusCode};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const STORES: &str = "/v2/key-value-stores";
/// How many stores a page of the waist holds.
const PAGE: usize = 1000;
/// How many stores the API is asked for at once: the most it gives.
const ASKED: u64 = 1000;
/// How many stores are held in memory at one time. For more than that the list is read once for each so many.
const HELD: usize = 10_000;
/// More stores than this are not looked through.
const MOST: u64 = 1_000_000;
/// How long what was read is good for further pages.
const FRESH: Duration = Duration::from_secs(10);

/// Stores that were read lately, in the order of their ids.
#[derive(Debug)]
pub(super) struct Gathered {
    when: Instant,
    /// They begin after this one.
    after: Option<StoreId>,
    stores: Vec<StoreInfo>,
    /// Whether there are none after the last of them.
    whole: bool,
}

impl Gathered {
    /// A page of it, if it has one.
    fn page(&self, after: Option<&StoreId>) -> Option<StorePage> {
        let from = self.after.as_ref();
        if self.when.elapsed() > FRESH || from > after {
            return None;
        }
        let start = self
            .stores
            .partition_point(|store| after.is_some_and(|after| store.id <= *after));
        let page: Vec<_> = self.stores[start..].iter().take(PAGE).cloned().collect();
        let more = start + page.len() < self.stores.len() || !self.whole;
        if page.is_empty() && more {
            return None;
        }
        let next = page.last().filter(|_| more).map(|store| store.id.clone());
        Some(StorePage { stores: page, next })
    }
}

/// The path of a store.
pub(super) fn path(id: &StoreId) -> String {
    format!("{STORES}/{}", escaped(id.as_str()))
}

impl Apify {
    /// The id of the user whose token is shown; `None` without a token, or where nobody tells.
    pub async fn user(&self) -> Result<Option<String>> {
        if self.client.token().is_none() {
            return Ok(None);
        }
        if let Some(known) = self.me.get() {
            return Ok(known.clone());
        }
        let found = self.user_of(None).await?;
        if found.is_some() {
            let _ = self.me.set(found.clone());
        }
        Ok(found)
    }

    /// Takes it for said that this is our user, as long as nobody else was told.
    pub fn take_for(&self, user: Option<String>) {
        let _ = self.me.set(user);
    }

    /// The same from the server itself: without a token it is asked too, so that an address where nobody answers, or that
    /// wants a token, is found out.
    pub async fn greet(&self) -> Result<Option<String>> {
        match self.client.token() {
            Some(_) => self.user().await,
            None => self.user_of(None).await,
        }
    }

    /// What is answered to the question for the stores where that shows that it is not the API that answers. Who refuses it, or
    /// cannot be reached, may be one.
    pub async fn other_than_the_api(&self) -> Option<String> {
        let (place, path) = (self.base().to_string(), format!("{STORES}?limit=1"));
        let call = Call::new("ask for the stores of", &place, Method::GET, path);
        let response = self.client.answer(&call).await.ok()?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Some(format!("{}{} is {status}", place, call.path));
        }
        let read = match status.is_success() {
            true => self.client.json_of::<Answer<Stores>>(&call, response).await,
            false => return None,
        };
        let is_other = read.is_err_and(|why| why.kind() == Kind::Corrupt);
        is_other.then(|| format!("{}{} is no list of stores", place, call.path))
    }

    /// Where a record, or the keys of a store, are read without a token.
    pub(super) fn public_url(
        &self,
        store: &StoreId,
        key: Option<&Key>,
        secret: Option<&str>,
    ) -> String {
        let place = format!("{}{}", self.base().as_str(), path(store));
        let (place, signed) = match key {
            Some(key) => (
                format!("{place}/records/{key}"),
                secret.map(|secret| signature::of_key(secret, key.as_str())),
            ),
            None => (
                format!("{place}/keys"),
                secret.map(|secret| signature::of_store(secret, store.as_str())),
            ),
        };
        match signed {
            Some(signature) => format!("{place}?signature={signature}"),
            None => place,
        }
    }

    /// Shows another token from now on. It has to be one of the same user, since what is kept of a server is that user's;
    /// `Kind::Denied` otherwise, and the token stays as it was.
    pub async fn replace_token(&self, token: Token) -> Result<()> {
        let found = self.user_of(Some(token.clone())).await?;
        if self.me.get().is_some_and(|known| *known != found) {
            return Err(Error::because(
                "take the new token for",
                self.base().as_str(),
                Kind::Denied,
                "it is that of another user (unmount and mount again to become that user)",
            ));
        }
        self.client.set_token(token);
        Ok(())
    }

    async fn user_of(&self, token: Option<Token>) -> Result<Option<String>> {
        let place = self.base().to_string();
        let path = "/v2/users/me".to_owned();
        let mut call = Call::new("ask who we are at", &place, Method::GET, path);
        call.token = token;
        let response = self.client.answer(&call).await?;
        match response.status() {
            // A token with few rights may not ask this and yet use stores.
            StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(None),
            status if status.is_success() => {
                let (_, answer) = self.client.json_of::<Answer<User>>(&call, response).await?;
                Ok(Some(answer.data.id))
            }
            _ => Err(self.client.refusal(&call, response).await),
        }
    }

    /// The named stores of our user. The API lists those of every run only together with the names, so stores without a
    /// name are reached by their ids.
    pub(super) async fn list_stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        // The first page is always fresh.
        if after.is_some()
            && let Some(page) = self.gathered(|gathered| gathered.as_ref()?.page(after))
        {
            return Ok(page);
        }
        let gathered = self.gather(after).await?;
        let page = gathered.page(after).unwrap_or_default();
        self.gathered(|kept| *kept = page.next.is_some().then_some(gathered));
        Ok(page)
    }

    fn gathered<T>(&self, work: impl FnOnce(&mut Option<Gathered>) -> T) -> T {
        work(&mut self.stores.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads all stores, and keeps the first of those after `after` by their ids. The API has another order.
    async fn gather(&self, after: Option<&StoreId>) -> Result<Gathered> {
        let me = self.user().await?;
        let when = Instant::now();
        let mut found = BTreeMap::new();
        let (mut whole, mut offset) = (true, 0_u64);
        let mut first_before: Option<String> = None;
        loop {
            let path = format!("{STORES}?offset={offset}&limit={ASKED}&desc=0&unnamed=0");
            let call = Call::new("list the stores", "", Method::GET, path);
            let asked = call.asked;
            let (_, Answer { data }) = self.client.json::<Answer<Stores>>(call).await?;
            let count = data.lines.len() as u64;
            let first = data.lines.first().map(|store| store.id.clone());
            if first.is_some() && first == first_before {
                return Err(asked.wrong("the server gives the same page again and again"));
            }
            if count > ASKED {
                return Err(asked.wrong("the server gives more stores than it was asked for"));
            }
            first_before = first;
            for store in data.lines {
                let mut info = store.into_info(&asked, me.as_deref())?;
                if info.name.is_none() || after.is_some_and(|after| info.id <= *after) {
                    continue;
                }
                // A schema may be long, and nobody looks for it in a list.
                info.schema = None;
                found.insert(info.id.clone(), info);
                if found.len() > HELD {
                    found.pop_last();
                    whole = false;
                }
            }
            offset += count;
            if count == 0 || offset >= data.total {
                break;
            }
            if offset >= MOST {
                return Err(asked.wrong(format!(
                    "there are more than {MOST} stores (name the ones you want instead)"
                )));
            }
        }
        Ok(Gathered {
            when,
            after: after.cloned(),
            stores: found.into_values().collect(),
            whole,
        })
    }

    pub(super) async fn find_store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        const OP: &str = "open the store";
        let me = self.user().await?;
        let spelt = match reference {
            StoreRef::Id(id) => escaped(id.as_str()),
            StoreRef::Name { owner, name } => {
                let owner = owner
                    .as_deref()
                    .filter(|owner| Some(*owner) != me.as_deref());
                format!(
                    "{}~{}",
                    escaped(owner.unwrap_or("")),
                    escaped(name.as_str())
                )
            }
        };
        let subject = reference.to_string();
        let call = Call::new(OP, &subject, Method::GET, format!("{STORES}/{spelt}"));
        let call = match reference {
            StoreRef::Id(id) => call.to(id, Class::Other),
            StoreRef::Name { .. } => call,
        };
        let asked = call.asked;
        let found = self.client.json::<Answer<Store>>(call).await;
        let info = match found {
            Ok((_, answer)) => answer.data.into_info(&asked, me.as_deref())?,
            Err(error) if error.kind() == Kind::NotFound => {
                if let StoreRef::Id(id) = reference {
                    self.seen.store_is_gone(id);
                }
                return Err(reference.missing(OP));
            }
            Err(error) => return Err(error),
        };
        // A server may take what is no id for a name.
        if matches!(reference, StoreRef::Id(id) if info.id != *id) {
            return Err(reference.missing(OP));
        }
        self.seen.store_is_there(&info.id);
        Ok(info)
    }

    pub(super) async fn make_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        const OP: &str = "make the store";
        let me = self.user().await?;
        let subject = new.name.as_ref().map_or("", |name| name.as_str());
        if new.owner.is_some() && new.owner != me {
            let why = "stores are made for the user of the token only";
            return Err(Error::because(OP, subject, Kind::NotPermitted, why));
        }
        let path = match &new.name {
            Some(name) => format!("{STORES}?name={}", escaped(name.as_str())),
            None => STORES.to_owned(),
        };
        let body = match &new.schema {
            Some(schema) => json!({ "schema": schema }),
            None => json!({}),
        };
        let call = Call::new(OP, subject, Method::POST, path).json(&body);
        let asked = call.asked;
        let (status, answer) = self.client.json::<Answer<Store>>(call).await?;
        let info = answer.data.into_info(&asked, me.as_deref())?;
        self.seen.store_is_there(&info.id);
        Ok((info, status == StatusCode::CREATED))
    }

    pub(super) async fn change_store(
        &self,
        id: &StoreId,
        change: StoreChange,
    ) -> Result<StoreInfo> {
        const OP: &str = "change the store";
        let me = self.user().await?;
        let named = change.name.is_some();
        let mut wanted = Map::new();
        if let Some(name) = change.name {
            wanted.insert("name".into(), json!(name.as_ref().map(StoreId::as_str)));
        }
        if let Some(title) = change.title {
            wanted.insert("title".into(), json!(title));
        }
        if let Some(access) = change.access {
            wanted.insert("generalAccess".into(), json!(access.as_str()));
        }
        if let Some(schema) = change.schema {
            wanted.insert("schema".into(), json!(schema));
        }
        let call = Call::new(OP, id.as_str(), Method::PUT, path(id));
        let call = call.to(id, Class::Other).json(&wanted.into());
        let asked = call.asked;
        match self.client.json::<Answer<Store>>(call).await {
            Ok((_, answer)) => answer.data.into_info(&asked, me.as_deref()),
            // Which type the API gives to a name that is taken is in no document.
            Err(error) if named && error.kind() == Kind::Changed => {
                Err(error.with_kind(Kind::Exists))
            }
            Err(error) => Err(self.of_store(error, OP, id)),
        }
    }

    pub(super) async fn remove_store(&self, id: &StoreId) -> Result<()> {
        const OP: &str = "delete the store";
        let call = Call::new(OP, id.as_str(), Method::DELETE, path(id));
        let call = call.to(id, Class::Other);
        self.seen.store_is_gone(id);
        let done = self.client.success(&call).await;
        // A read that was under way may have said otherwise.
        self.seen.store_is_gone(id);
        done.map(drop).map_err(|error| self.of_store(error, OP, id))
    }

    /// Where only the store can be missing, 404 is about the store.
    pub(super) fn of_store(&self, error: Error, op: &'static str, id: &StoreId) -> Error {
        if error.kind() != Kind::NotFound {
            return error;
        }
        self.seen.store_is_gone(id);
        StoreRef::Id(id.clone()).missing(op)
    }
}
