//! A run from its first record to its last word: the store, the input, the mount, the API, the command, the end. It never
//! leaves anything mounted.

use super::asked::Living;
use super::child::{Launch, Supervisor, Terminal, signals};
use super::end::{Ended, end_mount, sum_up};
use super::guard::{Guard, Left};
use super::input::Input;
use super::seen::Seen;
use crate::backend::dir::{DirBackend, Folder};
use crate::backend::{Backend, NewStore, StoreInfo, StoreRef, random};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::mount::{MountOptions, Mounted};
use crate::record::StoreName;
use crate::serve::{self, Limits, Run, Secret, Server, Users};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Threads that may wait for the disk at one time.
const WAITING: usize = 64;
/// How many bytes of encoded bodies are kept beside the records.
const KEEP_ENCODED: u64 = 1 << 30;
/// The longest record that the API takes.
const MAX_RECORD: u64 = 5 << 30;
/// How long requests of a command that is gone may take to end.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Everything that is decided before a run begins.
pub struct Plan {
    /// The run's id.
    pub id: String,
    /// The storage folder, opened, and where it is.
    pub folder: Arc<Folder>,
    /// Its path.
    pub storage: PathBuf,
    /// The store to use, by name or id; without one a new store is made.
    pub store: Option<String>,
    /// The input; without one that of the store stays.
    pub input: Option<Input>,
    /// Where to mount it, prepared; and how.
    pub mount: Option<(PathBuf, MountOptions)>,
    /// Where the control socket is made.
    pub control: PathBuf,
    /// The command.
    pub launch: Launch,
    /// The terminal, when the run is at one.
    pub terminal: Option<Terminal>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it may take to end when it is asked to.
    pub grace: Duration,
    /// How much memory it is told that it has.
    pub memory_mbytes: u64,
    /// Whose run it is.
    pub user: String,
    /// What there is to clean up when this process is killed.
    pub left: Left,
}

/// Runs a command to its end. Fails only when it was never started, and then leaves nothing behind.
pub fn run(plan: Plan, guard: &Guard) -> Result<Ended> {
    let signals = signals()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("run")
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|why| Error::io("start the runtime", "", why))?;
    let backend = DirBackend::new(plan.folder.clone());
    let (store, made) = runtime.block_on(find_store(&backend, plan.store.as_deref(), &plan.id))?;
    let begun = Begun::start(&plan, &backend, &store, &runtime, guard);
    let begun = match begun {
        Ok(begun) => begun,
        Err(why) => {
            if made {
                // Nobody has heard of it yet.
                let _ = runtime.block_on(backend.delete_store(&store.id));
            }
            return Err(why);
        }
    };
    let ended = begun.finish(plan, &backend, signals, &runtime, guard);
    // Nothing that still waits for a disk may hold the end up.
    runtime.shutdown_timeout(LAST_REQUESTS);
    ended
}

/// The store that is meant, and whether it was made now.
async fn find_store(
    backend: &DirBackend,
    wanted: Option<&str>,
    run: &str,
) -> Result<(StoreInfo, bool)> {
    let name = wanted.map(StoreName::new).transpose()?;
    if let Some(name) = &name {
        match backend.store(&StoreRef::Id(name.clone())).await {
            Ok(info) => return Ok((info, false)),
            Err(why) if why.kind() == Kind::StoreNotFound => {}
            Err(why) => return Err(why),
        }
    }
    let new = NewStore {
        run: name.is_none().then(|| run.to_owned()),
        name,
        ..NewStore::default()
    };
    backend.create_store(new).await
}

/// A run of which everything but the command has started.
struct Begun {
    living: Arc<Living>,
    runs: Arc<serve::Runs>,
    orders: mpsc::UnboundedReceiver<super::child::Next>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    control: Option<control::Server>,
    left: Left,
    warnings: Vec<String>,
}

impl Begun {
    fn start(
        plan: &Plan,
        backend: &DirBackend,
        store: &StoreInfo,
        runtime: &Runtime,
        guard: &Guard,
    ) -> Result<Self> {
        let directory = runtime.block_on(backend.directory(&store.id))?;
        let mut left = plan.left.clone();
        if let Some((mountpoint, _)) = &plan.mount {
            left.mountpoint = Some(mountpoint.clone());
        }
        left.socket = Some(plan.control.clone());
        guard.tell(&left);
        let mounted = match &plan.mount {
            Some((mountpoint, options)) => {
                let options = MountOptions {
                    default_store: Some(directory.as_str().to_owned()),
                    input_key: None,
                    ..options.clone()
                };
                let mounted = Mounted::start(plan.folder.clone(), mountpoint, options)?;
                Some(Arc::new(mounted))
            }
            None => None,
        };
        let begun = Self::serve(
            plan,
            backend,
            store,
            runtime,
            (directory, mounted.clone()),
            left,
        );
        if let (Err(_), Some(mounted)) = (&begun, &mounted) {
            let _ = mounted.unmount(true);
        }
        begun
    }

    /// Starts the API and the control socket.
    fn serve(
        plan: &Plan,
        backend: &DirBackend,
        store: &StoreInfo,
        runtime: &Runtime,
        (directory, mounted): (StoreName, Option<Arc<Mounted>>),
        left: Left,
    ) -> Result<Self> {
        let mut warnings = Vec::new();
        let below: Arc<dyn Backend> = Arc::new(backend.clone());
        let shown: Arc<dyn Backend> = match &mounted {
            Some(mounted) => Arc::new(Seen {
                below,
                mounted: mounted.clone(),
            }),
            None => below,
        };
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
            folder: plan.left.server.clone(),
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
            Server::new(shown.clone(), listener, options)?
        };
        let run = Run {
            timeout_secs: plan.timeout.map_or(0, |timeout| timeout.as_secs().max(1)),
            memory_mbytes: plan.memory_mbytes,
            input_length: plan
                .input
                .as_ref()
                .map_or(0, |input| input.body.len().unwrap_or(0)),
            ..Run::begun(&plan.id, store.id.as_str())
        };
        let runs = server.runs();
        let (sender, orders) = mpsc::unbounded_channel();
        let living = Arc::new(Living {
            run,
            backend: shown,
            store: store.id.clone(),
            directory: directory.as_str().to_owned(),
            storage: plan.storage.clone(),
            base_url: format!("http://{}", server.address()),
            token,
            user,
            mountpoint: plan.mount.as_ref().map(|(path, _)| path.clone()),
            mounted,
            control: plan.control.clone(),
            launch: plan.launch.clone(),
            orders: sender,
            runtime: runtime.handle().clone(),
            metamorphs: Mutex::new(0),
        });
        if let Some(input) = plan.input.clone() {
            runtime.block_on(living.put_input("INPUT", input))?;
        }
        // Not before now: a run that does not start is none.
        if let Err(why) = runs.tell(living.run.clone()) {
            warnings.push(why.to_string());
        }
        let (stop, stopped) = oneshot::channel();
        let served = runtime.spawn(server.run(async {
            let _ = stopped.await;
        }));
        let control = match control::Server::start(&plan.control, living.clone()) {
            Ok(control) => Some(control),
            Err(why) => {
                warnings.push(format!("{why}: storefs metamorph cannot reach this run"));
                None
            }
        };
        Ok(Self {
            living,
            runs,
            orders,
            stop,
            served,
            control,
            left,
            warnings,
        })
    }

    fn finish(
        mut self,
        plan: Plan,
        backend: &DirBackend,
        signals: mpsc::UnboundedReceiver<i32>,
        runtime: &Runtime,
        guard: &Guard,
    ) -> Result<Ended> {
        let left = self.left.clone();
        let tell = |group: Option<rustix::process::Pid>| {
            let mut left = left.clone();
            left.group = group.map(|group| group.as_raw_nonzero().get());
            guard.tell(&left);
        };
        let supervisor = Supervisor {
            signals,
            terminal: plan.terminal,
            grace: plan.grace,
            deadline: plan.timeout.map(|timeout| Instant::now() + timeout),
            orders: self.orders,
            tell: &tell,
            guard: guard.pipe(),
        };
        let first = self.living.next(plan.launch, "INPUT");
        let exit = runtime.block_on(supervisor.run(first));
        if let Some(mounted) = &self.living.mounted {
            self.warnings.extend(end_mount(mounted));
        }
        drop(self.control.take());
        let _ = self.stop.send(());
        let handle = runtime.handle();
        let ended = handle.block_on(async {
            // It ends by itself when the last request has, or when that has taken too long.
            let _ = self.served.await;
            if let Err(why) = backend.flush().await {
                self.warnings.push(why.to_string());
            }
            sum_up(&self.living, backend, plan.store.is_none(), exit).await
        });
        let mut ended = ended?;
        // What it said of itself last was told to this server, or to another one of the folder.
        ended.run.message = self.runs.said(&ended.run.id);
        if let Err(why) = self.runs.tell(ended.run.clone()) {
            self.warnings.push(why.to_string());
        }
        ended.warnings = self.warnings;
        Ok(ended)
    }
}
