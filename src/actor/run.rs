//! A run from its first record to its last word: the store, the input, the mount, the API, the command, the end. It never
//! leaves anything mounted.

use super::api::Api;
use super::asked::Living;
use super::child::{Children, Launch, Ordering, Supervisor, Terminal, signals};
use super::end::{self, Before, Ended};
use super::guard::{Guard, Left};
use super::input::Input;
use super::seen::Seen;
use super::stage::Stage;
use crate::backend::{Backend, NewStore, StoreInfo, StoreRef};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::mount::{MountOptions, Mounted};
use crate::record::StoreName;
use crate::serve::Run;
use crate::volume::cached::Cached;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Threads that may wait for the disk at one time.
const WAITING: usize = 64;
/// How long requests of a command that is gone may take to end.
pub(super) const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Everything that is decided before a run begins.
pub struct Plan {
    /// The run's id.
    pub id: String,
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
    /// The bytes of OUTPUT are wanted in the end, where it is no file.
    pub wants_output: bool,
    /// Told how many records are still to be sent when the command has ended.
    pub sending: Box<dyn FnMut(usize)>,
}

/// Runs a command to its end. Fails only when it was never started, and then leaves nothing behind.
pub fn run(plan: Plan, stage: Stage, guard: &Guard) -> Result<Ended> {
    let mut signals = signals()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("run")
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|why| Error::io("start the runtime", "", why))?;
    let backend = stage.backend();
    let finding = find_store(&*backend, plan.store.as_deref(), &plan.id);
    let (store, made) = runtime.block_on(end::unless_asked(&mut signals, finding))?;
    let before = match (&plan.store, &stage) {
        (None, _) => None,
        (Some(_), Stage::Folder(_)) => Some(Before::new()),
        (Some(_), Stage::Server(_)) => Some(runtime.block_on(end::before(&*backend, &store.id))),
    };
    let begun = Begun::start(&plan, stage, &store, (&runtime, &mut signals), guard);
    let begun = match begun {
        Ok(begun) => begun,
        Err(why) => {
            // Nobody has heard of one without a name. What has a name others may write to already.
            if made && plan.store.is_none() {
                let _ = runtime.block_on(backend.delete_store(&store.id));
            }
            return Err(why);
        }
    };
    let ended = begun.finish(plan, before.as_ref(), signals, &runtime, guard);
    // Nothing that still waits for a disk may hold the end up.
    runtime.shutdown_timeout(LAST_REQUESTS);
    ended
}

/// The store that is meant, and whether it was made now.
async fn find_store(
    backend: &dyn Backend,
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

/// A timeout as the API tells it, which knows no other and takes 0 for none.
fn in_whole_seconds(timeout: Duration) -> u64 {
    timeout
        .as_millis()
        .div_ceil(1000)
        .max(1)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Signals as they come.
type Signals = mpsc::UnboundedReceiver<i32>;

/// A run of which everything but the command has started.
struct Begun {
    living: Arc<Living>,
    stage: Stage,
    api: Api,
    orders: mpsc::UnboundedReceiver<super::child::Next>,
    control: Option<control::Server>,
    left: Left,
    warnings: Vec<String>,
}

/// A mount, and the volume of a server below it.
type Shown = (Option<Arc<Mounted>>, Option<Arc<Cached>>);

impl Begun {
    fn start(
        plan: &Plan,
        mut stage: Stage,
        store: &StoreInfo,
        (runtime, signals): (&Runtime, &mut Signals),
        guard: &Guard,
    ) -> Result<Self> {
        let directory = runtime.block_on(stage.directory(store))?;
        let mut left = plan.left.clone();
        if let Some((mountpoint, _)) = &plan.mount {
            left.mountpoint = Some(mountpoint.clone().into());
        }
        left.socket = Some(plan.control.clone().into());
        guard.tell(&left);
        let shown = match &plan.mount {
            Some((at, options)) => {
                let (mounted, volume) = stage.mount(at, options.clone(), store, &directory)?;
                (Some(Arc::new(mounted)), volume)
            }
            None => (None, None),
        };
        let mounted = shown.0.clone();
        let begun = Self::open(
            plan,
            stage,
            store,
            (runtime, signals),
            (directory, shown),
            left,
        );
        if let (Err(_), Some(mounted)) = (&begun, &mounted) {
            let _ = mounted.unmount(true);
        }
        begun
    }

    /// Starts the API and the control socket, and stores the input.
    fn open(
        plan: &Plan,
        stage: Stage,
        store: &StoreInfo,
        (runtime, signals): (&Runtime, &mut Signals),
        (directory, (mounted, volume)): (StoreName, Shown),
        left: Left,
    ) -> Result<Self> {
        let mut warnings = Vec::new();
        let below = stage.backend();
        let shown: Arc<dyn Backend> = match &mounted {
            // What is written past the volume of a server that server tells it of.
            Some(mounted) if volume.is_none() => Arc::new(Seen {
                below,
                mounted: mounted.clone(),
            }),
            _ => below,
        };
        let api = Api::start(plan, &stage, shown.clone(), &directory, runtime)?;
        let run = Run {
            timeout_secs: plan.timeout.map_or(0, in_whole_seconds),
            memory_mbytes: plan.memory_mbytes,
            input_length: plan
                .input
                .as_ref()
                .map_or(0, |input| input.body.len().unwrap_or(0)),
            ..Run::begun(&plan.id, store.id.as_str())
        };
        let (sender, orders) = mpsc::unbounded_channel();
        let storage = match &stage {
            Stage::Folder(on) => Some(on.path.clone()),
            Stage::Server(_) => None,
        };
        let living = Arc::new(Living {
            run,
            timeout: plan.timeout,
            backend: shown,
            store: store.id.clone(),
            directory: directory.as_str().to_owned(),
            storage,
            base_url: api.base_url.clone(),
            token: api.token.clone(),
            user: api.user.clone(),
            is_known: !api.is_elsewhere(),
            mountpoint: plan.mount.as_ref().map(|(path, _)| path.clone()),
            mounted,
            volume,
            control: plan.control.clone(),
            launch: plan.launch.clone(),
            orders: sender,
            runtime: runtime.handle().clone(),
            metamorphs: Ordering::default(),
        });
        if let Some(input) = plan.input.clone() {
            let putting = living.put_input("INPUT", input);
            runtime.block_on(end::unless_asked(signals, putting))?;
        }
        // Not before now: a run that does not start is none.
        if let Err(why) = api.tell(&living.run) {
            warnings.push(why.to_string());
        }
        let control = match control::Server::start(&plan.control, living.clone()) {
            Ok(control) => Some(control),
            Err(why) => {
                warnings.push(format!("{why}: storefs metamorph cannot reach this run"));
                None
            }
        };
        Ok(Self {
            living,
            stage,
            api,
            orders,
            control,
            left,
            warnings,
        })
    }

    fn finish(
        mut self,
        mut plan: Plan,
        before: Option<&Before>,
        signals: Signals,
        runtime: &Runtime,
        guard: &Guard,
    ) -> Result<Ended> {
        let left = self.left.clone();
        let tell = |group: Option<rustix::process::Pid>| {
            let mut left = left.clone();
            left.group = group.map(|group| group.as_raw_nonzero().get());
            guard.tell(&left);
        };
        let mut supervisor = Supervisor {
            signals,
            terminal: plan.terminal.take(),
            grace: plan.grace,
            deadline: plan.timeout.map(|timeout| Instant::now() + timeout),
            orders: self.orders,
            ordering: self.living.metamorphs.clone(),
            tell: &tell,
            guard: guard.pipe(),
            children: Children::default(),
        };
        let first = self.living.next(plan.launch.clone(), "INPUT");
        let exit = runtime.block_on(supervisor.run(first));
        // A metamorph that is refused by now may still have to take its input away.
        let refusing = async { self.living.metamorphs.lock().await };
        let _ = runtime.block_on(async { tokio::time::timeout(LAST_REQUESTS, refusing).await });
        if let Some(mounted) = &self.living.mounted {
            self.warnings.extend(end::end_mount(mounted));
        }
        drop(self.control.take());
        let mut unsent = None;
        if let (Some(volume), Stage::Server(on)) = (&self.living.volume, &self.stage) {
            let sending = end::send(volume, on, &mut supervisor.signals, &mut plan.sending);
            let (own, of_others) = runtime.block_on(sending);
            unsent = own;
            self.warnings.extend(of_others);
        }
        let mut ended = runtime.block_on(async {
            let is_elsewhere = self.api.is_elsewhere();
            let (living, stage) = (&self.living, &self.stage);
            let known = if unsent.is_some() {
                let asking = end::ask_briefly(living, stage, before);
                end::unless_asked(&mut supervisor.signals, asking).await
            } else {
                let asking = end::ask(living, stage, before);
                match stage {
                    // It answers at once, also when somebody could not wait for the end of the mount.
                    Stage::Folder(_) => asking.await,
                    Stage::Server(_) => end::unless_asked(&mut supervisor.signals, asking).await,
                }
            };
            let mut ended = end::of(living, stage, exit, known.unwrap_or_default());
            if plan.wants_output && is_elsewhere {
                ended
                    .read_output(&self.living, &mut supervisor.signals)
                    .await;
            }
            if let Err(why) = self.api.end(&mut ended.run).await {
                self.warnings.push(why.to_string());
                ended.is_untold = true;
            }
            if let Stage::Folder(on) = &self.stage
                && let Err(why) = on.backend.flush().await
            {
                self.warnings.push(why.to_string());
            }
            ended
        });
        ended.unsent = unsent;
        ended.warnings = self.warnings;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_told_in_whole_seconds_and_never_as_none() {
        for (millis, told) in [(1, 1), (1000, 1), (1500, 2), (60_000, 60)] {
            assert_eq!(in_whole_seconds(Duration::from_millis(millis)), told);
        }
    }
}
