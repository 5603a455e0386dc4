//! Runs, as far as programs that use key-value stores ask for them. What runs them puts them here.

use super::Door;
use super::asked::Asked;
use super::auth::{Caller, may_change};
use super::body::blocking;
use super::kept::Kept;
use super::problem::{Answer, Problem};
use super::reply;
use super::routes::Root;
use super::upload::receive_json;
use crate::backend::NewStore;
use crate::error::{Error, Result};
use crate::record::StoreName;
use crate::record::store::is_api_id;
use axum::body::Body;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Stands where the API has an id and this server has nothing that could have one.
const NOTHING: &str = "storefs0000000000";

/// How a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Status {
    /// It goes on.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// Somebody ended it.
    Aborted,
}

impl Status {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED-OUT",
            Self::Aborted => "ABORTED",
        }
    }
}

/// A run of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// 17 letters and digits.
    pub id: String,
    /// The Actor it is a run of; any id.
    pub actor: String,
    /// Its default store: an id.
    pub store: String,
    /// How it is.
    pub status: Status,
    /// What it says of itself.
    pub message: Option<String>,
    /// When it began.
    #[serde(with = "super::kept::time")]
    pub started: SystemTime,
    /// When it ended.
    #[serde(with = "optional")]
    pub finished: Option<SystemTime>,
    /// The exit code of a run that has ended.
    pub exit_code: Option<i32>,
    /// How many seconds it may take; 0 for ever.
    pub timeout_secs: u64,
    /// How much memory it may think it has.
    pub memory_mbytes: u64,
    /// The length of its input.
    pub input_length: u64,
}

impl Run {
    /// A run with this default store that begins now.
    pub fn begun(id: &str, store: &str) -> Self {
        Self {
            id: id.to_owned(),
            actor: NOTHING.to_owned(),
            store: store.to_owned(),
            status: Status::Running,
            message: None,
            started: SystemTime::now(),
            finished: None,
            exit_code: None,
            timeout_secs: 0,
            memory_mbytes: 1024,
            input_length: 0,
        }
    }

    /// The run as the API shows it, with every member that the official clients demand.
    pub fn shown(&self, user: &str) -> Value {
        let seconds = self.finished.map(|end| {
            let length = end.duration_since(self.started).unwrap_or_default();
            length.as_secs_f64()
        });
        json!({
            "id": self.id,
            "actId": self.actor,
            "userId": user,
            "startedAt": reply::iso(self.started),
            "finishedAt": self.finished.map(reply::iso),
            "status": self.status.as_str(),
            "statusMessage": self.message,
            "meta": {"origin": "API"},
            "stats": {
                "inputBodyLen": self.input_length,
                "restartCount": 0,
                "resurrectCount": 0,
                "computeUnits": 0,
                "runTimeSecs": seconds.unwrap_or(0.0),
            },
            "options": {
                "build": "latest",
                "timeoutSecs": self.timeout_secs,
                "memoryMbytes": self.memory_mbytes,
                "diskMbytes": self.memory_mbytes * 2,
            },
            "buildId": NOTHING,
            "exitCode": self.exit_code,
            "generalAccess": "FOLLOW_USER_SETTING",
            "defaultKeyValueStoreId": self.store,
            "defaultDatasetId": self.id,
            "defaultRequestQueueId": self.id,
            "buildNumber": "0.0.1",
            "containerUrl": "http://127.0.0.1:9",
            "isContainerServerReady": false,
            "gitBranchName": null,
            "usage": {},
            "usageTotalUsd": 0,
        })
    }
}

/// Times that need not be there.
mod optional {
    use crate::serve::kept::time;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::SystemTime;

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "time")] SystemTime);

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(from)?.map(|time| time.0))
    }
}

/// The runs a server tells of: those it was told, and those of the past.
#[derive(Debug, Default)]
pub struct Runs {
    known: RwLock<HashMap<String, Run>>,
    kept: Kept,
}

impl Runs {
    /// The runs that are kept there, and that will be.
    pub(super) fn kept_in(kept: Kept) -> Self {
        Self {
            known: RwLock::default(),
            kept,
        }
    }

    /// Adds a run, or tells what has changed of it. It is known even when it cannot be kept.
    pub fn tell(&self, run: Run) -> Result<()> {
        let kept = self.kept.keep(&run);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(run.id.clone(), run);
        kept
    }

    /// Has a run say this of itself; `None` when no such run is known. Nothing else of it changes, since another process may run
    /// it and tell of its end.
    fn say(&self, id: &str, message: Option<String>) -> Result<Option<Run>> {
        let told = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.get_mut(id).map(|run| {
                run.message.clone_from(&message);
                run.clone()
            })
        };
        let kept = self.kept.change(id, |run| run.message = message)?;
        Ok(told.or(kept))
    }

    /// What a run has said of itself last, to whichever server.
    pub fn said(&self, id: &str) -> Option<String> {
        let kept = self.kept.run(id);
        kept.or_else(|| self.get(id)).and_then(|run| run.message)
    }

    /// The run of this id.
    pub fn get(&self, id: &str) -> Option<Run> {
        let told = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.get(id).cloned()
        };
        told.or_else(|| self.kept.run(id))
    }

    fn last(&self) -> Option<Run> {
        let told = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.values().max_by_key(|run| run.started).cloned()
        };
        told.into_iter()
            .chain(self.kept.last())
            .max_by_key(|run| run.started)
    }

    fn is_empty(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_empty()
    }
}

fn no_run() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "record-not-found",
        "Actor run was not found.",
    )
}

impl Door {
    /// The run of this id. As long as nobody told this server of a run, each id is that of one with the default store, or the one
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
            return Err(no_run());
        }
        self.undescribed(caller, id).await
    }

    /// The run that began last.
    pub(super) async fn last_run(&self, caller: &Caller) -> Answer<Run> {
        let runs = self.runs.clone();
        let last = blocking(move || Ok(runs.last())).await;
        match last.map_err(|why| Error::io("look for the last run", "", why))? {
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
                // Who may only read makes nothing, and finds nothing.
                may_change(bearer).map_err(|_| no_run())?;
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
        let mut run = Run::begun(id, store.id.as_str());
        run.started = store.created.unwrap_or(run.started);
        Ok(run)
    }

    /// The run that a path names, which has to be the caller's own; and the caller's id.
    async fn asked_run(&self, asked: &Asked) -> Answer<(Run, String)> {
        let caller = self.known.caller(asked)?;
        let bearer = caller.as_ref().ok_or_else(Problem::no_token)?;
        let run = match asked.root {
            Root::ActorsLastRun | Root::TasksLastRun => self.last_run(&caller).await?,
            Root::Store | Root::Run | Root::None => self.run(&caller, &asked.reference()?).await?,
        };
        // A described run belongs to the owner of its store.
        match self.find(&caller, &run.store).await {
            Ok(store) if !self.known.owns(&caller, &store.info) => {
                return Err(Problem::forbidden());
            }
            Ok(_) => {}
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {}
            Err(problem) => return Err(problem),
        }
        Ok((run, bearer.user.id.clone()))
    }

    /// `GET` of a run.
    pub(super) async fn show_run(&self, asked: &Asked) -> Answer {
        let (run, user) = self.asked_run(asked).await?;
        Ok(reply::data(StatusCode::OK, &run.shown(&user)))
    }

    /// `PUT` of a run: programs tell how far they are.
    pub(super) async fn update_run(&self, asked: &Asked, body: Body) -> Answer {
        let caller = self.known.caller(asked)?;
        may_change(caller.as_ref().ok_or_else(Problem::no_token)?)?;
        let (run, user) = self.asked_run(asked).await?;
        let wanted = receive_json(body, self.options.limits.patience).await?;
        let message = match wanted.unwrap_or_default().remove("statusMessage") {
            // It may have ended meanwhile.
            None => {
                let run = self.runs.get(&run.id).unwrap_or(run);
                return Ok(reply::data(StatusCode::OK, &run.shown(&user)));
            }
            Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                return Err(Problem::bad(
                    "invalid-input",
                    "\"statusMessage\" must be a string or null.",
                ));
            }
        };
        let (runs, id, said) = (self.runs.clone(), run.id.clone(), message.clone());
        let changed = blocking(move || Ok(runs.say(&id, said))).await;
        let changed =
            changed.map_err(|why| Error::io("change the run", run.id.as_str(), why))??;
        let run = changed.unwrap_or(Run { message, ..run });
        Ok(reply::data(StatusCode::OK, &run.shown(&user)))
    }
}
