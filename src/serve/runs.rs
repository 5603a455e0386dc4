//! Runs, as far as programs that use key-value stores ask for them. What runs them puts them here.

use super::Door;
use super::asked::Asked;
use super::auth::{Caller, may_change};
use super::problem::{Answer, Problem};
use super::reply;
use crate::backend::NewStore;
use crate::record::StoreName;
use crate::record::store::is_api_id;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Stands where the API has an id and this server has nothing that could have one.
const NOTHING: &str = "storefs0000000000";

/// A run of a program.
#[derive(Clone, Debug)]
pub struct Run {
    /// 17 letters and digits.
    pub id: String,
    /// The Actor it is a run of; any id.
    pub actor: String,
    /// Its default store: an id.
    pub store: String,
    /// `RUNNING`, `SUCCEEDED` and so on.
    pub status: &'static str,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub finished: Option<SystemTime>,
    /// The exit code of a run that has ended.
    pub exit_code: Option<i32>,
}

/// The runs a server tells of.
#[derive(Debug, Default)]
pub struct Runs {
    known: RwLock<HashMap<String, Run>>,
}

impl Runs {
    /// Adds a run, or tells what has changed of it.
    pub fn tell(&self, run: Run) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(run.id.clone(), run);
    }

    fn get(&self, id: &str) -> Option<Run> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).cloned()
    }

    fn last(&self) -> Option<Run> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().max_by_key(|run| run.started).cloned()
    }

    fn is_empty(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_empty()
    }
}

impl Door {
    /// The run of this id. As long as nobody described a run, each id is that of one with the default store, or the one
    /// id is that the server was started with.
    pub(super) async fn run(&self, caller: &Caller, id: &str) -> Answer<Run> {
        if let Some(run) = self.runs.get(id) {
            return Ok(run);
        }
        let is_one = match &self.options.run {
            Some(run) => run == id,
            None => self.runs.is_empty() && is_api_id(id),
        };
        if !is_one {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "record-not-found",
                "Actor run was not found.",
            ));
        }
        self.undescribed(caller, id).await
    }

    /// The run that began last.
    pub(super) async fn last_run(&self, caller: &Caller) -> Answer<Run> {
        match self.runs.last() {
            Some(run) => Ok(run),
            None => {
                let id = self.options.run.as_deref().unwrap_or(NOTHING);
                self.undescribed(caller, id).await
            }
        }
    }

    /// A run with the caller's default store, which is made when it is missing.
    async fn undescribed(&self, caller: &Caller, id: &str) -> Answer<Run> {
        let bearer = caller.as_ref().ok_or_else(Problem::no_token)?;
        let store = match self.find(caller, &self.options.default_store).await {
            Ok(found) => found.info,
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
                may_change(bearer)?;
                let new = NewStore {
                    name: Some(StoreName::new(&self.options.default_store)?),
                    owner: self.known.owner_of(&bearer.user),
                    ..NewStore::default()
                };
                let made = self.backend.create_store(new).await?;
                self.remembered.clear();
                Arc::new(made.0)
            }
            Err(problem) => return Err(problem),
        };
        Ok(Run {
            id: id.to_owned(),
            actor: NOTHING.to_owned(),
            store: store.id.to_string(),
            status: "RUNNING",
            started: store.created.unwrap_or_else(SystemTime::now),
            finished: None,
            exit_code: None,
        })
    }

    /// `GET` of a run.
    pub(super) async fn show_run(&self, asked: &Asked) -> Answer {
        let caller = self.known.caller(asked)?;
        let bearer = caller.as_ref().ok_or_else(Problem::no_token)?;
        let run = self.run(&caller, &asked.reference()?).await?;
        // A described run belongs to the owner of its store.
        match self.find(&caller, &run.store).await {
            Ok(store) if !self.known.owns(&caller, &store.info) => {
                return Err(Problem::forbidden());
            }
            Ok(_) => {}
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {}
            Err(problem) => return Err(problem),
        }
        Ok(reply::data(StatusCode::OK, &shown(&run, &bearer.user.id)))
    }
}

/// A run with every member that the official clients demand.
fn shown(run: &Run, user: &str) -> Value {
    json!({
        "id": run.id,
        "actId": run.actor,
        "userId": user,
        "startedAt": reply::iso(run.started),
        "finishedAt": run.finished.map(reply::iso),
        "status": run.status,
        "meta": {"origin": "API"},
        "stats": {
            "inputBodyLen": 0,
            "restartCount": 0,
            "resurrectCount": 0,
            "computeUnits": 0,
        },
        "options": {
            "build": "latest",
            "timeoutSecs": 0,
            "memoryMbytes": 1024,
            "diskMbytes": 2048,
        },
        "buildId": NOTHING,
        "exitCode": run.exit_code,
        "generalAccess": "FOLLOW_USER_SETTING",
        "defaultKeyValueStoreId": run.store,
        "defaultDatasetId": NOTHING,
        "defaultRequestQueueId": NOTHING,
        "buildNumber": "0.0.1",
        "containerUrl": "http://127.0.0.1:9",
        "isContainerServerReady": false,
        "gitBranchName": null,
        "usage": {},
        "usageTotalUsd": 0,
    })
}
