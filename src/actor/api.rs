//! Who tells of a run: an API of the run's own over its folder, or, on a server, what is kept of runs on this machine. It never
//! touches a record.

use super::run::{LAST_REQUESTS, Plan};
use super::stage::{OnServer, Stage};
use crate::backend::{Backend, random};
use crate::error::{Error, Result};
use crate::record::StoreName;
use crate::serve::{self, Kept, Limits, Run, Runs, Secret, Server, Users};
use crate::volume::cached::private_dir;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How many bytes of encoded bodies are kept beside the records.
const KEEP_ENCODED: u64 = 1 << 30;
/// The longest record that the API takes.
const MAX_RECORD: u64 = 5 << 30;

/// Who tells of the run.
enum Teller {
    /// Its own API.
    Own {
        runs: Arc<Runs>,
        stop: oneshot::Sender<()>,
        served: JoinHandle<()>,
    },
    /// The server knows nothing of it.
    Kept(Kept),
}

/// The API that a command finds.
pub(super) struct Api {
    teller: Teller,
    /// Where it is.
    pub base_url: String,
    /// Who the command is there.
    pub token: Option<String>,
    /// The id of that user.
    pub user: String,
}

impl Api {
    /// Starts the one of a folder; that of a server is there.
    pub(super) fn start(
        plan: &Plan,
        stage: &Stage,
        shown: Arc<dyn Backend>,
        directory: &StoreName,
        runtime: &Runtime,
    ) -> Result<Self> {
        match stage {
            Stage::Folder(_) => Self::own(plan, shown, directory, runtime),
            Stage::Server(on) => Self::of_server(on),
        }
    }

    fn of_server(on: &OnServer) -> Result<Self> {
        // What is known of runs is kept in it, also where nothing was ever mounted.
        private_dir(&on.runs)?;
        Ok(Self {
            teller: Teller::Kept(Kept::below(&on.runs)),
            base_url: on.base_url.clone(),
            token: on.token.as_ref().map(|token| token.text().to_owned()),
            user: on.user.clone(),
        })
    }

    fn own(
        plan: &Plan,
        shown: Arc<dyn Backend>,
        directory: &StoreName,
        runtime: &Runtime,
    ) -> Result<Self> {
        let token = format!("storefs_run_{}", random::secret()?);
        let listener = TcpListener::bind("127.0.0.1:0")
            .map_err(|why| Error::io("listen on", "127.0.0.1", why))?;
        let users = Users::One {
            name: plan.user.clone(),
            token: Secret(token.clone()),
        };
        let user = users.home().unwrap_or_default();
        let options = serve::Options {
            public_url: None,
            users,
            max_record_size: MAX_RECORD,
            folder: plan.left.server.to_path_buf(),
            keep_encoded: KEEP_ENCODED,
            default_store: directory.as_str().to_owned(),
            run: Some(plan.id.clone()),
            limits: Limits {
                grace: LAST_REQUESTS,
                ..Limits::default()
            },
        };
        let server = {
            let _inside = runtime.enter();
            Server::new(shown, listener, options)?
        };
        let (runs, base_url) = (server.runs(), format!("http://{}", server.address()));
        let (stop, stopped) = oneshot::channel();
        let served = runtime.spawn(server.run(async {
            let _ = stopped.await;
        }));
        Ok(Self {
            teller: Teller::Own { runs, stop, served },
            base_url,
            token: Some(token),
            user,
        })
    }

    /// Whether the command talks to a server that does not know its run.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.teller, Teller::Kept(_))
    }

    /// Tells how the run is.
    pub(super) fn tell(&self, run: &Run) -> Result<()> {
        match &self.teller {
            Teller::Own { runs, .. } => runs.tell(run.clone()),
            Teller::Kept(kept) => kept.keep(run),
        }
    }

    /// Ends it when the last request has ended, or when that has taken too long, and tells how the run was: with what it said of
    /// itself last.
    pub(super) async fn end(self, run: &mut Run) -> Result<()> {
        match self.teller {
            Teller::Own { runs, stop, served } => {
                let _ = stop.send(());
                let _ = served.await;
                // To this server, or to another one of the folder.
                run.message = runs.said(&run.id);
                runs.tell(run.clone())
            }
            Teller::Kept(kept) => kept.keep(run),
        }
    }
}
