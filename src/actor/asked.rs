//! What others may ask of a run while it lives: over its control socket, and above all to metamorph. It never ends the run.

use super::child::{Launch, Next, Ordering};
use super::end;
use super::env::{self, Setting};
use super::input::Input;
use crate::backend::Backend;
use crate::control::{Metamorph, Served};
use crate::error::{Error, Kind, Result};
use crate::mount::Mounted;
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, Key, Precondition, RecordId};
use crate::serve::Run;
use crate::volume::cached::Cached;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// What a run is made of while it lives.
pub(super) struct Living {
    pub run: Run,
    /// How long it may take.
    pub timeout: Option<Duration>,
    pub backend: Arc<dyn Backend>,
    pub store: StoreId,
    /// The store's directory among the stores.
    pub directory: String,
    /// The storage folder, where there is one.
    pub storage: Option<PathBuf>,
    pub base_url: String,
    pub token: Option<String>,
    pub user: String,
    /// The API knows of the run.
    pub is_known: bool,
    pub mounted: Option<Arc<Mounted>>,
    /// The volume of a server below the mount.
    pub volume: Option<Arc<Cached>>,
    pub mountpoint: Option<PathBuf>,
    pub control: PathBuf,
    /// The command that the run began with: what follows it has its terminal and its further variables.
    pub launch: Launch,
    pub orders: mpsc::UnboundedSender<Next>,
    pub runtime: Handle,
    /// How often it has metamorphed.
    pub metamorphs: Ordering,
}

impl Living {
    /// A command of this run that reads its input from the record of this key.
    pub(super) fn next(&self, launch: Launch, input_key: &str) -> Next {
        let setting = Setting {
            run: &self.run,
            timeout: self.timeout,
            directory: &self.directory,
            storage: self.storage.as_deref(),
            input_key,
            base_url: &self.base_url,
            token: self.token.as_deref(),
            user: &self.user,
            is_known: self.is_known,
            mountpoint: self.mountpoint.as_deref(),
            control: &self.control,
        };
        Next {
            variables: env::variables(&setting),
            launch,
        }
    }

    /// Stores an input.
    pub(super) async fn put_input(&self, key: &str, input: Input) -> Result<()> {
        let id = self.record(key)?;
        let put = self
            .backend
            .put(&id, input.body, &input.content_type, Precondition::None);
        let meta = put.await?;
        if let Some(volume) = &self.volume {
            volume.changed_beside(&id, &meta).await;
        }
        Ok(())
    }

    /// Stores under another key what the input was so far. Where there is none, an earlier run of this store leaves none either.
    async fn keep_input(&self, from: &str, to: &str) -> Result<()> {
        match end::fetch(self, from).await {
            Ok((meta, file)) => {
                let unknown = || ContentType::stored("application/octet-stream");
                let input = Input {
                    body: Body::File(Arc::new(file)),
                    content_type: meta.content_type.unwrap_or_else(unknown),
                };
                self.put_input(to, input).await
            }
            Err(why) if why.kind() == Kind::NotFound => self.remove_input(to).await,
            Err(why) => Err(why),
        }
    }

    /// Removes an input, if there is one.
    async fn remove_input(&self, key: &str) -> Result<()> {
        let id = self.record(key)?;
        match self.backend.delete(&id, Precondition::None).await {
            Err(why) if why.kind() != Kind::NotFound => return Err(why),
            _ => {}
        }
        if let Some(volume) = &self.volume {
            volume.removed_beside(&id);
        }
        Ok(())
    }

    /// Has the mount show the record of this key as the input.
    fn show_input(&self, key: &str) {
        if let Some(mounted) = &self.mounted {
            mounted.set_input_key(key);
        }
    }

    /// A record of the run's store.
    pub(super) fn record(&self, key: &str) -> Result<RecordId> {
        Ok(RecordId {
            store: self.store.clone(),
            key: Key::new(key)?,
        })
    }
}

/// The key of the input after so many metamorphs.
fn input_key(metamorphs: u32) -> String {
    match metamorphs {
        0 => "INPUT".to_owned(),
        number => format!("INPUT-METAMORPH-{number}"),
    }
}

impl Served for Living {
    fn sync(&self, store: Option<&str>, progress: &mut dyn FnMut(&str)) -> Result<()> {
        match &self.mounted {
            Some(mounted) => mounted.settle_and_tell(store, progress),
            None => Ok(()),
        }
    }

    fn status(&self) -> Value {
        let mut status = json!({
            "state": "run",
            "run": self.run.id,
            "store": self.directory,
            "pid": std::process::id(),
            "since": humantime::format_rfc3339_seconds(self.run.started).to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "log": null,
        });
        let more = self.mounted.as_ref().map(|mounted| mounted.status());
        if let (Some(ours), Some(Value::Object(more))) = (status.as_object_mut(), more) {
            for (name, value) in more {
                ours.entry(name).or_insert(value);
            }
        }
        status
    }

    fn unmount(
        &self,
        _lazy: bool,
        _drain: Option<Duration>,
        _progress: &mut dyn FnMut(&str),
    ) -> Result<usize> {
        let why = format!(
            "it belongs to the run {} and ends with it (to end the run: kill {})",
            self.run.id,
            std::process::id()
        );
        Err(Error::because("unmount", "", Kind::NotPermitted, why))
    }

    fn metamorph(&self, wanted: Metamorph, input: Option<File>) -> Result<Value> {
        const OP: &str = "take the place of the command";
        let input = input.map(|file| {
            let content_type = ContentType::parse(wanted.content_type.as_bytes())?;
            Input::of_file(file, None, Some(content_type))
        });
        let input = input.transpose()?;
        // One at a time, so that each has a number of its own, and the end of the command waits for one that is underway.
        let mut count = self.metamorphs.blocking_lock();
        let over = || {
            let why = "the command has ended, or is being ended, and the run with it";
            Error::because(OP, "", Kind::NotPermitted, why)
        };
        if self.orders.is_closed() {
            return Err(over());
        }
        let before = input_key(*count);
        let key = input_key(*count + 1);
        self.runtime.block_on(async {
            match input {
                Some(input) => self.put_input(&key, input).await,
                None => self.keep_input(&before, &key).await,
            }
        })?;
        self.show_input(&key);
        let launch = Launch {
            command: wanted.command.into_iter().map(OsString::from).collect(),
            directory: Some(PathBuf::from(OsString::from(wanted.directory))),
            inherited: Some(
                wanted
                    .environment
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
            ),
            // They are in it already, unless whoever asked has changed them.
            more: Vec::new(),
            aside: self.launch.aside,
        };
        let next = self.next(launch, &key);
        let next = Next {
            variables: env::again(next.variables, &self.launch.more),
            ..next
        };
        if self.orders.send(next).is_err() {
            // Somebody asked for the end of the run meanwhile, or its time is over.
            self.show_input(&before);
            let removed = self.runtime.block_on(self.remove_input(&key));
            if let Err(why) = removed {
                tracing::debug!("the input of a metamorph that was refused stays: {why}");
            }
            return Err(over());
        }
        *count += 1;
        Ok(json!({"inputKey": key}))
    }
}
