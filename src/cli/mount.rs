//! The verb `mount`: checks, mounts, says so, stays until the kernel lets go. It never mounts over anything that is in
//! use.

use super::args::{Mount8Args, MountArgs};
use super::config::Surroundings;
use super::exit::print;
use super::live::Live;
use super::options::{self, Options};
use super::place::{self, Place};
use super::remote::{Remote, Started};
use super::{Outcome, background, log, reach, signals, source};
use crate::backend::dir::{Folder, FolderOptions};
use crate::backend::open::Source;
use crate::control::{Served, Server};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, MountOptions, Mounted};
use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that is decided before anything is touched.
struct Plan {
    source: MountSource,
    mountpoint: PathBuf,
    options: Options,
    mount: MountOptions,
}

/// What is mounted.
enum MountSource {
    Folder(PathBuf, FolderOptions),
    Remote(Box<Remote>),
}

/// `storefs mount`.
pub(super) fn mount(args: &MountArgs, here: &Surroundings, argv: &[OsString]) -> Outcome {
    let options = options::parse(&args.options, false)?;
    let plan = Plan::new(args.source.as_deref(), &args.mountpoint, options, here)?;
    if args.foreground {
        log::start(here);
        return stay(&plan, here, &Announce::Terminal);
    }
    in_background(&plan, here, argv)
}

/// `mount.fuse.storefs`, as mount(8) calls it.
pub(super) fn for_mount_8(args: &Mount8Args, here: &Surroundings, argv: &[OsString]) -> Outcome {
    let options = options::parse(&args.options, args.sloppy)?;
    let plan = Plan::new(Some(&args.source), &args.mountpoint, options, here)?;
    if args.fake {
        place::check_device(here.uid)?;
        return Ok(());
    }
    in_background(&plan, here, argv)
}

fn in_background(plan: &Plan, here: &Surroundings, argv: &[OsString]) -> Outcome {
    let log = here.log_file(&plan.mountpoint);
    if here.in_background() {
        log::start(here);
        background::detach()?;
        return stay(plan, here, &Announce::Pipe(log));
    }
    background::start(argv, &log)?;
    Ok(print(&format!(
        "{}; log: {}\n",
        plan.told(),
        log.display()
    ))?)
}

impl Plan {
    fn new(
        source: Option<&OsStr>,
        mountpoint: &Path,
        options: Options,
        here: &Surroundings,
    ) -> Result<Self> {
        let named = source.map(Source::parse).transpose()?;
        let remote = match named {
            None | Some(Source::Folder(_)) => None,
            Some(other) => Some(Remote::new(other, options.clone(), here)?),
        };
        let folder = match remote {
            Some(_) => None,
            None => {
                options.fit(true)?;
                Some(source::folder(source, here)?)
            }
        };
        reach::let_go_of_held_up("mount at", mountpoint, here)?;
        let mountpoint = place::resolve(&here.absolute(mountpoint))?;
        let (input, input_keys) = here.input_keys(&options)?;
        may_allow_other(&options, here)?;
        let of_folder = FolderOptions {
            layout: options.layout,
            read_only: options.read_only,
            input_keys,
        };
        let source = match (folder, remote) {
            (Some(folder), _) => MountSource::Folder(folder, of_folder),
            (None, Some(remote)) => MountSource::Remote(Box::new(remote)),
            (None, None) => MountSource::Folder(source::folder(source, here)?, of_folder),
        };
        let mount = MountOptions {
            default_store: here.default_store(&options),
            input_key: Some(input).filter(|key| key != "INPUT"),
            ..mount_options(&options, source.shown())
        };
        Ok(Self {
            source,
            mountpoint,
            options,
            mount,
        })
    }

    fn told(&self) -> String {
        format!(
            "mounted {} at {}",
            self.source.shown(),
            self.mountpoint.display()
        )
    }
}

impl MountSource {
    fn shown(&self) -> String {
        match self {
            Self::Folder(path, _) => path.display().to_string(),
            Self::Remote(remote) => remote.shown().to_owned(),
        }
    }
}

/// What the options say of a mount, but for the store and the input of a run.
pub(super) fn mount_options(options: &Options, source_label: String) -> MountOptions {
    MountOptions {
        read_only: options.read_only,
        allow_other: options.allow_other,
        no_exec: options.no_exec,
        uid: options.uid,
        gid: options.gid,
        umask: options.umask,
        ttl: options.ttl,
        default_store: None,
        stores: options.stores.iter().map(ToString::to_string).collect(),
        input_key: None,
        passthrough: options.passthrough,
        spin: options.spin,
        source_label,
    }
}

/// fusermount3 refuses it too, but says so only to the terminal.
pub(super) fn may_allow_other(options: &Options, here: &Surroundings) -> Result<()> {
    const FILE: &str = "/etc/fuse.conf";
    if !options.allow_other || here.uid == 0 {
        return Ok(());
    }
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    if text.lines().any(|line| line.trim() == "user_allow_other") {
        return Ok(());
    }
    Err(Error::because(
        "mount with",
        "`allow_other`",
        Kind::NotPermitted,
        format!("users other than root may not (write the line user_allow_other into {FILE})"),
    ))
}

/// To whom it is said that the mount answers.
enum Announce {
    Terminal,
    /// The process that started this one. The path is the log's.
    Pipe(PathBuf),
}

/// Mounts and stays until the kernel has let go.
fn stay(plan: &Plan, here: &Surroundings, announce: &Announce) -> Outcome {
    mount::make_room();
    let signals = signals::take()?;
    for option in &plan.options.without_effect {
        tracing::warn!("the mount option {option} has no effect on this file system");
    }
    place::check_device(here.uid)?;
    let folder = match &plan.source {
        MountSource::Folder(path, _) => Some(path.as_path()),
        MountSource::Remote(_) => None,
    };
    let place = Place::prepare(&plan.mountpoint, folder, plan.options.nonempty)?;
    let Started {
        mounted,
        temp: _temp,
        reload,
    } = match start(plan, here) {
        Ok(mounted) => mounted,
        Err(why) => {
            place.leave();
            return Err(why.into());
        }
    };
    place.mounted();
    let log = match announce {
        Announce::Terminal => None,
        Announce::Pipe(path) => Some(path.clone()),
    };
    let live = Arc::new(Live::new(mounted, place, log, plan.options.drain, reload));
    signals::watch(signals, Arc::clone(&live), plan.options.drain)?;
    let served: Arc<dyn Served> = live.clone();
    match Server::start(&here.socket(&plan.mountpoint), served) {
        Ok(server) => live.keep(server),
        Err(why) => {
            tracing::warn!("{why}: storefs sync, status and umount cannot reach this mount")
        }
    }
    tracing::info!(pid = std::process::id(), "{}", plan.told());
    match announce {
        // The log says it too.
        Announce::Terminal => {
            print(&format!("{}\n", plan.told())).unwrap_or_else(|why| tracing::warn!("{why}"))
        }
        Announce::Pipe(_) => background::tell_ready(),
    }
    notify(here, "READY=1");
    let ended = live.wait();
    notify(here, "STOPPING=1");
    // Before sending, which may take long: somebody may want to mount there again.
    live.give_back();
    let drained = live.drain();
    live.finish();
    live.leave();
    if let Err(why) = &drained {
        tracing::warn!("{why}");
    }
    tracing::info!("unmounted {}", plan.mountpoint.display());
    Ok(ended.and(drained)?)
}

fn start(plan: &Plan, here: &Surroundings) -> Result<Started> {
    let started = match &plan.source {
        MountSource::Folder(path, options) => {
            let folder = Folder::open(path, options.clone())?;
            Mounted::start(folder, &plan.mountpoint, plan.mount.clone()).map(Started::folder)
        }
        MountSource::Remote(remote) => remote.start(&plan.mountpoint, plan.mount.clone(), here),
    };
    started.map_err(|why| {
        let in_container = why.kind() == Kind::NotPermitted && here.uid == 0;
        if !in_container {
            return why;
        }
        Error::because(
            "mount at",
            plan.mountpoint.display().to_string(),
            Kind::NotPermitted,
            format!("{why} (in a container: --cap-add SYS_ADMIN --device /dev/fuse)"),
        )
    })
}

/// Tells systemd, when it waits for that (sd_notify(3)).
fn notify(here: &Surroundings, state: &str) {
    let Some(name) = here.var("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(name)),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(why) = sent {
        tracing::warn!("systemd was not told {state}: {why}");
    }
}
