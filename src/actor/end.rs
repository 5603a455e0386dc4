//! The end of a run: its mount is let go, and what it has done is summed up. It never ends a process.

use super::asked::Living;
use super::child::Exit;
use super::stage::{OnServer, Stage};
use crate::backend::{Backend, ListQuery};
use crate::error::{Error, Kind, Result};
use crate::mount::{Mounted, TOLD};
use crate::record::key::StoreId;
use crate::record::{Key, Meta};
use crate::serve::{Run, Status};
use crate::volume::cached::Cached;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// How long others may go on using the mount when the command has ended: with files that are open, and without any, in other
/// mount namespaces.
const LAST_FILES: Duration = Duration::from_secs(5);
const LAST_COPIES: Duration = Duration::from_secs(1);
/// Signals that ask this process to end.
const ENDING: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];
/// How long a server may take to tell of a run of which it did not get everything.
const BRIEFLY: Duration = Duration::from_secs(3);
/// How far a file's time may lie behind the clock.
const CLOCK: Duration = Duration::from_millis(20);

/// What is told of a run that has ended.
pub struct Ended {
    /// The run.
    pub run: Run,
    /// Its user's id.
    pub user: String,
    /// What the store is called among the stores.
    pub store: String,
    /// The server that has it.
    pub elsewhere: Option<String>,
    /// How many records the run has written, where that is known.
    pub records: Option<u64>,
    /// The record OUTPUT, or why it is not known whether there is one.
    pub output: Result<Option<Output>>,
    /// The command's exit code, or the one that stands for it.
    pub code: i32,
    /// Why the command could not be started.
    pub fault: Option<Error>,
    /// What is not on the server yet.
    pub unsent: Option<Error>,
    /// What could not be ended in order.
    pub warnings: Vec<String>,
    /// How it ended could not be kept.
    pub is_untold: bool,
}

/// The record OUTPUT.
pub struct Output {
    /// The file or the URL.
    pub place: String,
    /// The file, where it is one.
    pub file: Option<PathBuf>,
    /// What is in it, where it is no file and that was wanted.
    pub bytes: Option<File>,
}

/// Ends the mount. Who still uses it keeps what is open for a moment.
pub(super) fn end_mount(mounted: &Mounted) -> Option<String> {
    match mounted.unmount(false) {
        Err(why) if why.kind() == Kind::Busy => {
            if let Err(why) = mounted.unmount(true) {
                return Some(why.to_string());
            }
            let ended = mounted.wait_for(Some(LAST_FILES));
            let how = if ended { "detached" } else { "cut off" };
            Some(format!("the mount was still in use and was {how}"))
        }
        // Somebody else has unmounted it.
        Err(why) if why.kind() != Kind::Invalid => Some(why.to_string()),
        _ => {
            mounted.wait_for(Some(LAST_COPIES));
            None
        }
    }
}

/// Sends what the run has written and not sent yet, and meanwhile what earlier runs left. Ends when nothing works any more, or
/// when somebody asks this process to end. What is left of its own, and a word about that of others.
pub(super) async fn send(
    volume: &Cached,
    on: &OnServer,
    signals: &mut mpsc::UnboundedReceiver<i32>,
    tell: &mut dyn FnMut(usize),
) -> (Option<Error>, Option<String>) {
    let mut sending = std::pin::pin!(async {
        let sent = volume.send_all(on.limit).await;
        if sent.is_ok() {
            volume.try_rests(on.limit).await;
        }
        sent
    });
    let mut ticks = tokio::time::interval(TOLD);
    let sent = loop {
        tokio::select! {
            sent = &mut sending => break sent,
            _ = ticks.tick() => match volume.unsent() + volume.unsent_of_others() {
                0 => {}
                count => tell(count),
            },
            Some(signal) = signals.recv() => {
                if ENDING.contains(&signal) {
                    break Err(volume.not_sent());
                }
            }
        }
    };
    let others = match volume.unsent_of_others() {
        0 => None,
        count => Some(format!(
            "{count} of earlier runs not sent yet, from {}",
            on.unsent.display()
        )),
    };
    let own = match (volume.unsent(), sent) {
        (0, _) | (_, Ok(())) => None,
        (_, Err(why)) => {
            let why = std::error::Error::source(&why).map_or(String::new(), ToString::to_string);
            let with = match on.named_cache {
                true => " with the same cache=",
                false => "",
            };
            let why = format!(
                "{why}: by the next run or mount of this source{with} by the same user, from {}",
                on.spool.display()
            );
            let subject = on.base_url.as_str();
            Some(Error::because("send to", subject, Kind::TimedOut, why))
        }
    };
    (own, others)
}

/// Does some work, unless somebody asks this process to end meanwhile.
pub(super) async fn unless_asked<T>(
    signals: &mut mpsc::UnboundedReceiver<i32>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(signal) = signals.recv() => {
                if ENDING.contains(&signal) {
                    return Err(Error::caused("go on with", "the run", Kind::Busy, AskedToEnd(signal)));
                }
            }
        }
    }
}

/// Somebody sent this process a signal to end.
#[derive(Clone, Copy, Debug)]
struct AskedToEnd(i32);

impl std::fmt::Display for AskedToEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this process was asked to end by signal {}", self.0)
    }
}

impl std::error::Error for AskedToEnd {}

/// The number of the signal that ended what failed with this error, if it was one.
pub fn asked_by(why: &Error) -> Option<u8> {
    let cause = std::error::Error::source(why)?;
    let asked = cause.downcast_ref::<AskedToEnd>()?;
    u8::try_from(asked.0).ok()
}

/// What the store shows of a run that has ended.
pub(super) struct Known {
    output: Result<Option<Output>>,
    records: Option<u64>,
}

impl Default for Known {
    fn default() -> Self {
        let why = "the server could not be asked";
        Self {
            output: Err(Error::because("read", "OUTPUT", Kind::Offline, why)),
            records: None,
        }
    }
}

impl Known {
    /// When OUTPUT itself is among what the server does not have yet.
    fn unsent() -> Self {
        let why = "it is not on the server yet";
        Self {
            output: Err(Error::because("read", "OUTPUT", Kind::TimedOut, why)),
            records: None,
        }
    }
}

/// What a store held before a run began, as far as that is one page. It tells apart what was written just before the run and
/// just after its start, where the server tells whole seconds.
pub(super) type Before = BTreeMap<Key, Meta>;

/// Asks for it. It is not worth a failure.
pub(super) async fn before(backend: &dyn Backend, store: &StoreId) -> Before {
    match backend.list(store, ListQuery::default()).await {
        Ok(page) if page.next.is_none() => page.records.into_iter().collect(),
        _ => Before::new(),
    }
}

/// The same when not everything could be sent: the server may have OUTPUT all the same, and it may be away.
pub(super) async fn ask_briefly(
    living: &Living,
    stage: &Stage,
    before: Option<&Before>,
) -> Result<Known> {
    let output = living.record("OUTPUT")?;
    let waits = living
        .volume
        .as_ref()
        .is_some_and(|volume| volume.waits(&output));
    if waits {
        return Ok(Known::unsent());
    }
    let asked = tokio::time::timeout(BRIEFLY, ask(living, stage, before)).await;
    let known = asked.map_err(|_| Error::new("ask", living.store.as_str(), Kind::TimedOut))??;
    Ok(Known {
        // What is there is not all of it.
        records: None,
        ..known
    })
}

/// Asks the store. `before` is what was in it, unless it is new.
pub(super) async fn ask(living: &Living, stage: &Stage, before: Option<&Before>) -> Result<Known> {
    // Clocks of files are coarser than those of programs.
    let since = before.map(|before| match stage {
        Stage::Folder(_) => (living.run.started - CLOCK, before),
        // It tells whole seconds.
        Stage::Server(_) => (in_seconds(living.run.started), before),
    });
    let output = match stage {
        Stage::Folder(on) => {
            let file = on.backend.file(&living.record("OUTPUT")?).await.ok();
            Ok(file.map(|path| Output {
                place: path.display().to_string(),
                file: Some(path),
                bytes: None,
            }))
        }
        Stage::Server(on) => output_at(living, on).await,
    };
    let backend = stage.backend();
    let records = match count(&*backend, living, since).await {
        // A command may well remove its own store.
        Err(why) if why.kind() == Kind::StoreNotFound => Some(0),
        other => other.ok().flatten(),
    };
    Ok(Known { output, records })
}

fn in_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.unwrap_or_default().as_secs())
}

/// What is told of a run that has ended.
pub(super) fn of(living: &Living, stage: &Stage, exit: Exit, known: Known) -> Ended {
    let mut run = living.run.clone();
    run.finished = Some(SystemTime::now());
    run.exit_code = Some(exit.code);
    run.status = match exit.code {
        _ if exit.timed_out => Status::TimedOut,
        _ if exit.aborted => Status::Aborted,
        0 => Status::Succeeded,
        _ => Status::Failed,
    };
    Ended {
        user: living.user.clone(),
        store: living.directory.clone(),
        elsewhere: match stage {
            Stage::Folder(_) => None,
            Stage::Server(on) => Some(on.base_url.clone()),
        },
        records: known.records,
        output: known.output,
        code: exit.code,
        fault: exit.fault,
        unsent: None,
        warnings: Vec::new(),
        is_untold: false,
        run,
    }
}

/// OUTPUT on a server.
async fn output_at(living: &Living, on: &OnServer) -> Result<Option<Output>> {
    let id = living.record("OUTPUT")?;
    match on.backend.head(&id).await {
        Ok(_) => Ok(Some(Output {
            place: format!(
                "{}/v2/key-value-stores/{}/records/OUTPUT",
                on.base_url, living.store
            ),
            file: None,
            bytes: None,
        })),
        Err(why) if matches!(why.kind(), Kind::NotFound | Kind::StoreNotFound) => Ok(None),
        Err(why) => Err(why),
    }
}

impl Ended {
    /// Fetches the bytes of OUTPUT, into a file without a name.
    pub(super) async fn read_output(
        &mut self,
        living: &Living,
        signals: &mut mpsc::UnboundedReceiver<i32>,
    ) {
        let Ok(Some(output)) = &mut self.output else {
            return;
        };
        match unless_asked(signals, fetch(living, "OUTPUT")).await {
            Ok((_, bytes)) => output.bytes = Some(bytes),
            Err(why) => self.output = Err(why),
        }
    }
}

/// Fetches a record, its bytes into a file without a name.
pub(super) async fn fetch(living: &Living, key: &str) -> Result<(Meta, File)> {
    let fault = |why: io::Error| Error::io("read", key, why);
    let fetched = living.backend.get(&living.record(key)?, None).await?;
    let copied = tokio::task::spawn_blocking(move || {
        let (mut bytes, mut file) = (fetched.bytes, tempfile::tempfile()?);
        io::copy(&mut bytes, &mut file)?;
        file.rewind()?;
        Ok((fetched.meta, file))
    });
    copied
        .await
        .map_err(|why| fault(io::Error::other(why)))?
        .map_err(fault)
}

/// How many records of the store are no inputs, and were changed since then, when these were there; `None` where nobody tells when.
async fn count(
    backend: &dyn Backend,
    living: &Living,
    since: Option<(SystemTime, &Before)>,
) -> Result<Option<u64>> {
    let mut found = 0;
    let mut query = ListQuery::default();
    loop {
        let page = backend.list(&living.store, query.clone()).await?;
        for (key, meta) in &page.records {
            let is_input = key.as_str() == "INPUT" || key.as_str().starts_with("INPUT-METAMORPH-");
            let is_old = match (since, meta.modified) {
                (None, _) => false,
                (Some((since, before)), Some(time)) => {
                    time < since || before.get(key) == Some(meta)
                }
                (Some(_), None) => return Ok(None),
            };
            found += u64::from(!is_input && !is_old);
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(Some(found));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn work_that_a_signal_ends_says_which_one_it_was() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (sender, mut signals) = mpsc::unbounded_channel();
        sender.send(signal_hook::consts::SIGUSR1).unwrap();
        sender.send(SIGTERM).unwrap();
        let never = std::future::pending::<Result<()>>();
        let ended = runtime.unwrap().block_on(unless_asked(&mut signals, never));
        assert_eq!(asked_by(&ended.unwrap_err()), Some(15));
        assert_eq!(asked_by(&Error::new("read", "it", Kind::Busy)), None);
    }
}
