//! What a run can stand on: a storage folder, memory, or the stores of a server. It never makes the run's store.

use super::config::Surroundings;
use super::options::{self, Options};
use super::remote::{OF_MEMORY, Remote};
use super::{mount, own_temp, source};
use crate::actor::{Left, OnFolder, OnServer, Stage};
use crate::backend::dir::{Folder, FolderOptions};
use crate::backend::open::{self, Place};
use crate::error::{Error, Kind, Result};
use crate::mount::{self as mounting, MountOptions};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where the records of a run live.
pub(super) struct Source {
    kind: Of,
    options: Options,
}

enum Of {
    Folder {
        path: PathBuf,
        /// It is only for this run.
        is_temporary: bool,
    },
    Server(Box<Remote>),
}

impl Source {
    /// Finds the source that is named, or that of the project. A server is not asked anything yet.
    pub(super) fn find(
        named: Option<&OsStr>,
        texts: &[String],
        here: &Surroundings,
    ) -> Result<Self> {
        let options = options::parse(texts, false)?;
        let parsed = named.map(open::Source::parse).transpose()?;
        let kind = match parsed {
            Some(source) if source.is_remote() => {
                decided_by_the_run(&options)?;
                mount::may_allow_other(&options, here)?;
                Of::Server(Box::new(Remote::new(source, options.clone(), here)?))
            }
            other => {
                let others = Options {
                    nonempty: false,
                    ..options.clone()
                };
                if others != Options::default() {
                    let why = "for a folder there is only nonempty; the others are for sources on a server (leave them out)";
                    let given = texts.join(",");
                    return Err(Error::because("run with -o", given, Kind::Invalid, why));
                }

                match other {
                    Some(open::Source::Memory) => Of::Folder {
                        path: in_memory()?,
                        is_temporary: true,
                    },
                    _ => Of::Folder {
                        path: source::folder(named, here)?,
                        is_temporary: false,
                    },
                }
            }
        };
        Ok(Self { kind, options })
    }

    /// Its folder, where it is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.kind {
            Of::Folder { path, .. } => Some(path),
            Of::Server(_) => None,
        }
    }

    /// A mountpoint that is not empty will do.
    pub(super) fn nonempty(&self) -> bool {
        self.options.nonempty
    }

    /// How it is mounted.
    pub(super) fn mount_options(&self) -> MountOptions {
        let label = match &self.kind {
            Of::Folder { path, .. } => path.display().to_string(),
            Of::Server(remote) => remote.shown().to_owned(),
        };
        mount::mount_options(&self.options, label)
    }

    /// Opens it, and notes what there would be to clean up of it.
    pub(super) fn open(&self, run: &str, left: &mut Left, here: &Surroundings) -> Result<Stage> {
        match &self.kind {
            Of::Folder { path, is_temporary } => {
                left.server = path.join(".storefs/serve").into();
                left.source = is_temporary.then(|| path.clone().into());
                let folder = Folder::open(path, FolderOptions::default())?;
                Ok(Stage::Folder(OnFolder::new(folder, path.clone())))
            }
            Of::Server(remote) => {
                let on = self.on_server(remote, run, here)?;
                left.server = on.runs.clone().into();
                left.spool = Some((on.spool.clone().into(), on.cache.clone().into()));
                Ok(Stage::Server(Box::new(on)))
            }
        }
    }

    fn on_server(&self, remote: &Remote, run: &str, here: &Surroundings) -> Result<OnServer> {
        const OP: &str = "run on";
        let runtime = mounting::runtime()?;
        let opened = remote.opened()?;
        let (folders, away) = remote.folders(OP, &opened.place, &runtime, here)?;
        let Place::Server(server) = &opened.place else {
            return Err(Error::new(OP, remote.shown(), Kind::Unsupported));
        };
        if away {
            let why =
                "it cannot be reached, and the run's store and its input have to be made there";
            return Err(Error::because(OP, remote.shown(), Kind::Offline, why));
        }
        let user = runtime.block_on(server.inner().user())?;
        Ok(OnServer {
            base_url: server.inner().base().as_str().to_owned(),
            token: remote.token().cloned(),
            user: user.unwrap_or_default(),
            spool: folders.unsent.join(run),
            cache: folders.caches.join(run),
            runs: folders.runs,
            unsent: folders.unsent,
            caches: folders.caches,
            options: remote.of_cache(true),
            limit: remote.options().drain,
            named_cache: remote.options().remote.cache.is_some(),
            backend: opened.backend,
            runtime: Some(runtime),
        })
    }
}

/// `Kind::Invalid` names an option that the run itself decides on.
fn decided_by_the_run(options: &Options) -> Result<()> {
    let named = [
        ("ro", options.read_only),
        ("default=", options.default_store.is_some()),
        ("input-key=", options.input_key.is_some()),
    ];
    match named.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => Err(options::invalid(
            name,
            "a run decides that itself (leave it out; --store names the store)",
        )),
    }
}

/// A new folder whose files are in memory, where there is such a place.
fn in_memory() -> Result<PathBuf> {
    own_temp::sweep(OF_MEMORY);
    let shared = PathBuf::from("/dev/shm");
    let below = match shared.is_dir() {
        true => shared,
        false => std::env::temp_dir(),
    };
    let folder = tempfile::Builder::new()
        .prefix("storefs-run-")
        .tempdir_in(below)
        .map_err(|why| Error::io("make a temporary folder", "", why))?;
    Ok(folder.keep())
}
