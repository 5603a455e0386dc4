//! A mount from its start to its end. It never unmounts anything but itself.

use super::adapter::Adapter;
use super::awake::{Awake, Watched};
use super::descriptors;
use super::invalidate;
use super::passthrough::Passthrough;
use crate::backend::dir::Folder;
use crate::error::{Error, Kind, Result};
use crate::fs::{Fs, Options, Show};
use crate::record::StoreName;
use crate::volume::{Local, Volume};
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::mount::UnmountFlags;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Read ahead, in KiB: the kernel offers a file system 128 only.
const READ_AHEAD_KIB: u32 = 4096;
/// How often it is told how sending goes.
pub const TOLD: Duration = Duration::from_millis(200);
/// What /proc/mounts shows after `fuse.`.
const SUBTYPE: &str = "storefs";

/// What a mount is to be.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Nothing can be written.
    pub read_only: bool,
    /// Other users may use it.
    pub allow_other: bool,
    /// No program can be run out of it.
    pub no_exec: bool,
    /// Show this owner.
    pub uid: Option<u32>,
    /// Show this group.
    pub gid: Option<u32>,
    /// Take these permission bits away.
    pub umask: Option<u32>,
    /// How long the kernel may keep names and attributes; `None` is automatic.
    pub ttl: Option<Duration>,
    /// The store that `default` means; `None` is the one called so.
    pub default_store: Option<String>,
    /// Only these stores; empty for all.
    pub stores: Vec<String>,
    /// The key of the run's input, when it is not `INPUT`.
    pub input_key: Option<String>,
    /// Let the kernel read and write files by itself, where that is allowed.
    pub passthrough: bool,
    /// Save wake-ups of processors while requests come quickly one after another.
    pub spin: bool,
    /// What the source is called in /proc/mounts.
    pub source_label: String,
}

/// A mount that answers.
pub struct Mounted {
    fs: Arc<Fs>,
    volume: Arc<dyn Volume>,
    mountpoint: PathBuf,
    passthrough: Arc<Passthrough>,
    awake: Arc<Awake>,
    session: Mutex<Option<BackgroundSession>>,
    /// Hangs up when the event loops have ended.
    alive: Mutex<Option<Receiver<()>>>,
    _runtime: Runtime,
}

impl Mounted {
    /// Mounts a folder. Returns when the kernel's first request was answered.
    pub fn start(
        folder: Arc<Folder>,
        mountpoint: &Path,
        mut options: MountOptions,
    ) -> Result<Self> {
        let default = find_default_store(&folder, default_store(&options)?, options.read_only)?;
        options.default_store = Some(default.to_string());
        let passthrough = options.passthrough && rustix::process::geteuid().is_root();
        let passthrough = Arc::new(Passthrough::new(passthrough));
        let volume = Arc::new(Local::new(folder, options.read_only));
        let tree = tree_options(&options, passthrough.is_on())?;
        Self::serve(runtime()?, volume, tree, passthrough, mountpoint, &options)
    }

    /// Mounts any volume. Its files are never handed to the kernel. What has to wait does so on `runtime`.
    pub fn over(
        runtime: Runtime,
        volume: Arc<dyn Volume>,
        mountpoint: &Path,
        options: MountOptions,
    ) -> Result<Self> {
        let tree = Options {
            // What the volume knows of a record may change between two opens.
            parked: 0,
            ..tree_options(&options, false)?
        };
        let passthrough = Arc::new(Passthrough::new(false));
        Self::serve(runtime, volume, tree, passthrough, mountpoint, &options)
    }

    fn serve(
        runtime: Runtime,
        volume: Arc<dyn Volume>,
        tree: Options,
        passthrough: Arc<Passthrough>,
        mountpoint: &Path,
        options: &MountOptions,
    ) -> Result<Self> {
        let shown = mountpoint.display().to_string();
        let failed = |e: std::io::Error| Error::io("mount on", shown.clone(), e);
        let tree = Fs::new(volume.clone(), tree);
        let awake = Awake::new();
        let (sender, notices) = std::sync::mpsc::channel();
        let (_alive, alive) = std::sync::mpsc::channel();
        let adapter = Adapter {
            fs: tree.clone(),
            runtime: runtime.handle().clone(),
            passthrough: passthrough.clone(),
            awake: Watched(awake.clone()),
            _alive,
        };
        let session = Session::new(adapter, mountpoint, &config(options)).map_err(failed)?;
        let notifier = session.notifier();
        tree.send_notices_to(sender);
        tree.watch();
        if options.spin {
            let device = session.as_fd().try_clone_to_owned().map_err(failed)?;
            // The library gives the session's own device to the last of its loops.
            let watched = awake.watch(device, format!("fuser-{}", threads() - 1));
            watched.unwrap_or_else(|e| tracing::warn!("requests are served less quickly: {e}"));
        }
        let session = session.spawn().map_err(failed)?;
        // The kernel begins with a root that nobody but root may enter, and throws an answer away that a notice overtakes. So it
        // is told nothing before it has the first.
        let _ = rustix::fs::stat(mountpoint);
        invalidate::start(notifier, notices).map_err(failed)?;
        raise_read_ahead(mountpoint);
        Ok(Self {
            fs: tree,
            volume,
            mountpoint: mountpoint.to_owned(),
            passthrough,
            awake,
            session: Mutex::new(Some(session)),
            alive: Mutex::new(Some(alive)),
            _runtime: runtime,
        })
    }

    /// How many edits wait to be sent.
    pub fn pending(&self) -> usize {
        self.volume.pending()
    }

    /// Waits until every change that others made in the folder so far is in the tree.
    pub fn settle(&self, store: Option<&str>) -> Result<()> {
        let store = store.map(StoreName::new).transpose()?;
        self.fs.settle(store.as_ref())?;
        if self.volume.has_descriptors() {
            return Ok(());
        }
        self.volume.sync(store.as_ref()).wait()
    }

    /// The same, and tells meanwhile how sending goes.
    pub fn settle_and_tell(
        &self,
        store: Option<&str>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<()> {
        if self.pending() == 0 {
            return self.settle(store);
        }
        std::thread::scope(|scope| {
            let settling = scope.spawn(|| self.settle(store));
            while !settling.is_finished() {
                progress(&format!("{} to be sent", self.pending()));
                std::thread::sleep(TOLD);
            }
            settling.join().unwrap_or_else(|_| {
                let why = "the operation panicked (see the log)";
                Err(Error::because("sync", "", Kind::Io, why))
            })
        })
    }

    /// Sends what waits. `Kind::TimedOut` when that is not done within `limit`; the rest stays saved.
    pub fn drain(&self, limit: Duration) -> Result<()> {
        self.volume.drain(limit).wait()
    }

    /// Waits until what was changed in the folder so far is seen in the mount, where changes are told.
    pub fn catch_up(&self) {
        self.fs.catch_up();
    }

    /// Makes another record the run's input.
    pub fn set_input_key(&self, key: &str) {
        self.fs.set_input_key(key);
    }

    /// What the mount is and does.
    pub fn status(&self) -> serde_json::Value {
        let mut status = self.fs.status();
        if let Some(why) = super::failing::first_reason(&self.volume.queue()) {
            status["failure"] = why.into();
        }
        status["mountpoint"] = self.mountpoint.display().to_string().into();
        status["passthrough"] = serde_json::json!(self.passthrough.is_on());
        status["keptAwake"] = serde_json::json!(self.awake.times());
        status
    }

    /// Ends the mount. `Kind::Busy` while somebody uses it, unless `lazy`.
    pub fn unmount(&self, lazy: bool) -> Result<()> {
        let shown = self.mountpoint.display().to_string();
        let flags = if lazy {
            UnmountFlags::DETACH
        } else {
            UnmountFlags::empty()
        };
        match rustix::mount::unmount(&self.mountpoint, flags | UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::PERM) => fusermount(&self.mountpoint, lazy),
            Err(e) => Err(Error::io("unmount", shown, e)),
        }
    }

    /// Waits until the kernel lets go of the mount, and then commits what no handle will.
    pub fn wait(&self) -> Result<()> {
        self.wait_for(None);
        Ok(())
    }

    /// The same, but no longer than this. What is still being written then is committed as it is. False when the mount
    /// is still in use.
    pub fn wait_for(&self, limit: Option<Duration>) -> bool {
        let alive = self
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Nothing is ever sent: this returns when the other end is gone.
        let ended = match (alive, limit) {
            (Some(alive), Some(limit)) => {
                alive.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
            }
            (Some(alive), None) => {
                let _ = alive.recv();
                true
            }
            (None, _) => true,
        };
        let session = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Joined or dropped, fuser 0.18 unmounts the path again although the mount is gone (its check is inverted), and
        // with it a newer mount that was made there since. It also calls the end by a lazy unmount an error.
        std::mem::forget(session);
        self.fs.commit_all();
        ended
    }
}

/// The threads on which a mount's operations wait.
pub fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("storefs-wait")
        .enable_all()
        .build()
        .map_err(|e| Error::io("start the threads of", "the mount", e))
}

/// The default store's directory, which an id may be another way to say. A run always has it; the SDKs open an empty
/// directory as one.
fn find_default_store(folder: &Folder, said: StoreName, read_only: bool) -> Result<StoreName> {
    match folder.store(&said) {
        Err(e) if e.kind() == Kind::StoreNotFound => {}
        Err(e) => return Err(e),
        Ok(_) => return Ok(said),
    }
    if let Some(store) = folder.store_said_otherwise(said.as_str())? {
        return Ok(store);
    }
    if !read_only {
        folder.create_store(&said, 0o755)?;
    }
    Ok(said)
}

fn default_store(options: &MountOptions) -> Result<StoreName> {
    StoreName::new(options.default_store.as_deref().unwrap_or("default"))
}

fn tree_options(options: &MountOptions, shared_files: bool) -> Result<Options> {
    let stores = options
        .stores
        .iter()
        .map(|name| StoreName::new(name))
        .collect::<Result<_>>()?;
    Ok(Options {
        show: Show {
            uid: options.uid,
            gid: options.gid,
            umask: options.umask,
        },
        default_store: default_store(options)?,
        stores,
        input_key: options
            .input_key
            .clone()
            .unwrap_or_else(|| "INPUT".to_owned()),
        ttl: options.ttl,
        shared_files,
        parked: descriptors::most() / 2,
        source: options.source_label.clone(),
    })
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    // A comma would begin another option.
    let label = options.source_label.replace([',', '\\', '\n'], "_");
    config.mount_options = vec![
        MountOption::FSName(label),
        // fuser gives its own Subtype to fusermount3 alone; the kernel knows the option as well.
        MountOption::CUSTOM(format!("subtype={SUBTYPE}")),
        MountOption::NoAtime,
    ];
    if !serves_root_alone(options) {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    if options.no_exec {
        config.mount_options.push(MountOption::NoExec);
    }
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(threads());
    config.clone_fd = true;
    config
}

/// Whether nobody but root can use the mount. Then there is nothing to check, and the kernel is not made to: it would ask
/// for a directory's attributes again after each change in it.
fn serves_root_alone(options: &MountOptions) -> bool {
    rustix::process::geteuid().is_root() && !options.allow_other
}

/// Event loops: one for each processor, at most 4.
fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4)
}

fn fusermount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let shown = mountpoint.display().to_string();
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mountpoint)
        .output()
        .map_err(|e| Error::io("run fusermount3 -u", shown.clone(), e))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if why.contains("busy") {
        Kind::Busy
    } else {
        Kind::Io
    };
    Err(Error::because("unmount", shown, kind, why))
}

/// Raises the mount's read-ahead where the daemon may. Without it a stream is read in pieces of 128 KiB.
fn raise_read_ahead(mountpoint: &Path) {
    let Ok(stat) = rustix::fs::statx(
        rustix::fs::CWD,
        mountpoint,
        rustix::fs::AtFlags::NO_AUTOMOUNT | rustix::fs::AtFlags::STATX_DONT_SYNC,
        rustix::fs::StatxFlags::empty(),
    ) else {
        return;
    };
    let path = format!(
        "/sys/class/bdi/{}:{}/read_ahead_kb",
        stat.stx_dev_major, stat.stx_dev_minor
    );
    if let Err(e) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!("read-ahead stays as it is: {path}: {e}");
    }
}
