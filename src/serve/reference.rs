//! Which store a request means: by id, `~name`, `user~name`, a bare name, or as the default store of a run.

use super::Door;
use super::asked::Asked;
use super::auth::{Caller, Signed};
use super::problem::{Answer, Problem};
use super::routes::Root;
use crate::backend::{StoreInfo, StoreRef};
use crate::error::Kind;
use crate::record::store::ApiId;
use crate::record::{Key, StoreName};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was said of a store is believed. Changes by this server are seen at once.
const BELIEVED: Duration = Duration::from_millis(500);
/// How many are remembered.
const REMEMBERED: usize = 4096;

/// A store that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the backend says of it, but for its schema and its title.
    pub info: Arc<StoreInfo>,
    /// Whether a name led to it.
    pub by_name: bool,
}

/// What was found lately.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<HashMap<String, (Instant, Found)>>);

impl Remembered {
    fn get(&self, name: &str) -> Option<Found> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, found) = known.get(name)?;
        (when.elapsed() < BELIEVED).then(|| found.clone())
    }

    fn keep(&self, name: String, found: &Found) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name, (Instant::now(), found.clone()));
    }

    /// Forgets everything, because a store was changed.
    pub(super) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Door {
    /// The store a request means.
    pub(super) async fn store_of(&self, caller: &Caller, asked: &Asked) -> Answer<Found> {
        let reference = asked.reference()?;
        match asked.root {
            Root::Store | Root::None => self.find(caller, &reference).await,
            Root::Run => {
                let run = self.run(caller, &reference).await?;
                self.find(caller, &run.store).await
            }
            Root::ActorsLastRun | Root::TasksLastRun => {
                let run = self.last_run(caller).await?;
                self.find(caller, &run.store).await
            }
        }
    }

    /// The store, when the caller may change it.
    pub(super) async fn to_write(&self, asked: &Asked) -> Answer<Found> {
        let caller = self.known.caller(asked)?;
        if caller.is_none() {
            return Err(Problem::no_token());
        }
        let found = self.store_of(&caller, asked).await?;
        self.known.may_write(&caller, &found.info)?;
        Ok(found)
    }

    /// The store, when the caller may read the record of this key.
    pub(super) async fn to_read_record(&self, asked: &Asked, key: &Key) -> Answer<Found> {
        self.to_read(asked, Some(Signed::Record(key)))
            .await
            .map(|(found, _)| found)
    }

    /// The store, when the caller may read it, or the part of it that may be opened by a signature.
    pub(super) async fn to_read(
        &self,
        asked: &Asked,
        signed: Option<Signed<'_>>,
    ) -> Answer<(Found, Caller)> {
        let caller = self.known.caller(asked)?;
        let signature = asked.query().get("signature")?;
        let opened_by = match (&signed, &signature) {
            (Some(signed), Some(signature)) => Some((signed, &**signature)),
            _ => None,
        };
        let found = self.store_of(&caller, asked).await;
        // Who shows nothing is not told which stores there are.
        if found.is_err() && caller.is_none() && opened_by.is_none() {
            return Err(Problem::no_token());
        }
        let found = found?;
        self.known
            .may_read(&caller, &found.info, found.by_name, opened_by)?;
        Ok((found, caller))
    }

    /// The store of this reference. Ids win over names.
    pub(super) async fn find(&self, caller: &Caller, reference: &str) -> Answer<Found> {
        let asks = caller.as_ref().map_or("", |bearer| &bearer.user.id);
        let name = format!("{asks}/{reference}");
        if let Some(found) = self.remembered.get(&name) {
            return Ok(found);
        }
        let found = self.look_up(caller, reference).await?;
        self.remembered.keep(name, &found);
        Ok(found)
    }

    async fn look_up(&self, caller: &Caller, reference: &str) -> Answer<Found> {
        let (user, name) = match reference.split_once('~') {
            Some((user, name)) => (Some(user), name),
            None => (None, reference),
        };
        if user.is_none() && ApiId::new(reference).is_ok() {
            let id = StoreName::new(reference)?;
            match self.backend.store(&StoreRef::Id(id)).await {
                Ok(info) => return Ok(found(info, false)),
                Err(error) if error.kind() == Kind::StoreNotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let owner = match user {
            None | Some("") => caller.as_ref().map(|bearer| bearer.user.clone()),
            Some(user) => self.known.roster().user(user).cloned(),
        };
        let (Some(owner), Ok(name)) = (owner, StoreName::new(name)) else {
            return Err(Problem::no_store());
        };
        let owner = self.known.owner_of(&owner);
        let named = self.backend.store(&StoreRef::Name { owner, name }).await?;
        Ok(found(named, true))
    }
}

fn found(mut info: StoreInfo, by_name: bool) -> Found {
    // Many of these are remembered, and a schema is as long as its author likes.
    (info.schema, info.title) = (None, None);
    Found {
        info: Arc::new(info),
        by_name,
    }
}
