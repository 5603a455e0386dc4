//! What a run stands on: a storage folder, or the stores of a server. It never starts a command.

use crate::backend::apify::Token;
use crate::backend::dir::{DirBackend, Folder};
use crate::backend::{Backend, StoreInfo};
use crate::error::Result;
use crate::mount::{self, MountOptions, Mounted};
use crate::record::StoreName;
use crate::volume::cached::{self, Cached};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// What a run stands on.
pub enum Stage {
    /// A storage folder, with an API of the run's own in front of it.
    Folder(OnFolder),
    /// A server, which the command talks to by itself.
    Server(Box<OnServer>),
}

/// A storage folder.
pub struct OnFolder {
    folder: Arc<Folder>,
    pub(super) backend: DirBackend,
    pub(super) path: PathBuf,
}

impl OnFolder {
    /// The opened folder at this path.
    pub fn new(folder: Arc<Folder>, path: PathBuf) -> Self {
        Self {
            backend: DirBackend::new(folder.clone()),
            folder,
            path,
        }
    }
}

/// The stores of a server.
pub struct OnServer {
    /// The server.
    pub backend: Arc<dyn Backend>,
    /// On which it was asked until now; a mount waits there.
    pub runtime: Option<Runtime>,
    /// Where the command finds it.
    pub base_url: String,
    /// Who the command is there.
    pub token: Option<Token>,
    /// The id of the user; empty when it is not known.
    pub user: String,
    /// Where it is kept what is known of runs.
    pub runs: PathBuf,
    /// What this run has not sent yet, and its cached bytes.
    pub spool: PathBuf,
    /// Its cached bytes.
    pub cache: PathBuf,
    /// The folders of that kind of all runs.
    pub unsent: PathBuf,
    /// And of their caches.
    pub caches: PathBuf,
    /// How the volume behaves.
    pub options: cached::Options,
    /// How long sending may fail at the end before the rest is left for later.
    pub limit: Duration,
    /// Its folders are where `cache=` says, so that only who says so too finds them.
    pub named_cache: bool,
}

impl Stage {
    /// Where the records are.
    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Folder(on) => Arc::new(on.backend.clone()),
            Self::Server(on) => on.backend.clone(),
        }
    }

    /// What the store is called among the stores.
    pub(super) async fn directory(&self, store: &StoreInfo) -> Result<StoreName> {
        match self {
            Self::Folder(on) => on.backend.directory(&store.id).await,
            Self::Server(_) => Ok(store.name.clone().unwrap_or_else(|| store.id.clone())),
        }
    }

    /// Mounts it, with the store of this directory as the default. The volume of a server comes with it.
    pub(super) fn mount(
        &mut self,
        at: &Path,
        options: MountOptions,
        store: &StoreInfo,
        directory: &StoreName,
    ) -> Result<(Mounted, Option<Arc<Cached>>)> {
        match self {
            Self::Folder(on) => {
                let options = MountOptions {
                    default_store: Some(directory.as_str().to_owned()),
                    ..options
                };
                let mounted = Mounted::start(on.folder.clone(), at, options)?;
                Ok((mounted, None))
            }
            Self::Server(on) => {
                let (mounted, volume) = on.mount(at, options, store)?;
                Ok((mounted, Some(volume)))
            }
        }
    }
}

impl OnServer {
    fn mount(
        &mut self,
        at: &Path,
        options: MountOptions,
        store: &StoreInfo,
    ) -> Result<(Mounted, Arc<Cached>)> {
        let of_cache = cached::Options {
            default_store: store.name.is_none().then(|| store.id.clone()),
            ..self.options.clone()
        };
        let shown = store.name.as_ref().map_or("default", StoreName::as_str);
        let options = MountOptions {
            default_store: Some(shown.to_owned()),
            ..options
        };
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => mount::runtime()?,
        };
        let (backend, handle) = (self.backend.clone(), runtime.handle().clone());
        let volume = Cached::open(backend, &self.cache, &self.spool, of_cache, handle)?;
        volume.send_rests(&self.unsent, &self.caches);
        let volume = Arc::new(volume);
        let mounted = Mounted::over(runtime, volume.clone(), at, options)?;
        Ok((mounted, volume))
    }
}
