//! What a mount of a remote source needs before it is made: who we are there, where unsent edits and cached bytes are
//! kept, which store `default` is. It never sends a record.

use super::config::Surroundings;
use super::credentials;
use super::known::{self, Known};
use super::live::Reload;
use super::options::Options;
use super::own_temp::OwnTemp;
use crate::backend::apify::{Apify, Token};
use crate::backend::open::{self, Access, Place, Source};
use crate::backend::{Backend, NewStore, StoreRef};
use crate::error::{Error, Kind, Result};
use crate::mount::{self, MountOptions, Mounted};
use crate::record::store::is_api_id;
use crate::record::{StoreName, key::StoreId};
use crate::volume::cached::{self, Cached};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long the server may take to say who we are; after that it counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the folders of mounts of `memory:` are called.
pub(super) const OF_MEMORY: &str = "storefs-mount-";

/// A source that is no folder, with all that was said about it.
#[derive(Debug)]
pub(super) struct Remote {
    source: Source,
    token: Option<Token>,
    api_base: Option<String>,
    options: Options,
    default_store: Option<String>,
    shown: String,
}

/// The folders of one source and user.
pub(super) struct Folders {
    cache: PathBuf,
    spool: PathBuf,
    /// What is known of runs there.
    pub(super) runs: PathBuf,
    /// Of each run, by its id: what it has not sent yet, and its cached bytes.
    pub(super) unsent: PathBuf,
    pub(super) caches: PathBuf,
    /// Where `memory:` keeps them.
    temp: Option<OwnTemp>,
}

impl Folders {
    fn of(cache: PathBuf, state: &Path) -> Self {
        Self {
            caches: cache.join("of-runs"),
            cache,
            spool: state.join("spool"),
            runs: state.to_owned(),
            unsent: state.join("unsent"),
            temp: None,
        }
    }
}

/// A mount, and the folder that goes with it.
pub(super) struct Started {
    pub(super) mounted: Mounted,
    /// Where `memory:` keeps its files as long as it is mounted.
    pub(super) temp: Option<OwnTemp>,
    /// Reads the token again.
    pub(super) reload: Option<Reload>,
}

impl Started {
    /// A mount of a folder, with nothing beside it.
    pub(super) fn folder(mounted: Mounted) -> Self {
        Self {
            mounted,
            temp: None,
            reload: None,
        }
    }
}

impl Remote {
    /// Reads the token; asks nobody.
    pub(super) fn new(source: Source, options: Options, here: &Surroundings) -> Result<Self> {
        options.fit(false)?;
        let shown = match &source {
            Source::Apify => "apify:".to_owned(),
            Source::Memory => "memory:".to_owned(),
            Source::Server(url) => {
                crate::backend::apify::Base::parse(url, options.remote.insecure)?.to_string()
            }
            Source::Folder(path) => path.display().to_string(),
        };
        Ok(Self {
            token: credentials::token(&source, options.remote.token_file.as_deref(), here)?,
            api_base: credentials::api_base(here),
            default_store: here.default_store(&options),
            source,
            options,
            shown,
        })
    }

    /// What the source is called, without any secret.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Mounts it. What an earlier mount left unsent is sent from now on.
    pub(super) fn start(
        &self,
        mountpoint: &Path,
        mut options: MountOptions,
        here: &Surroundings,
    ) -> Result<Started> {
        let runtime = mount::runtime()?;
        let opened = self.opened()?;
        let (folders, away) = self.folders("mount", &opened.place, &runtime, here)?;
        for folder in [&folders.cache, &folders.spool] {
            super::place::keep_apart(mountpoint, folder)?;
        }
        let reload = self.reload(&opened.place, &runtime, here);
        let default = self.default(&*opened.backend, &runtime, away)?;
        if matches!(opened.place, Place::Memory) && !self.options.read_only {
            let new = NewStore::named(default.shown.clone());
            runtime.block_on(opened.backend.create_store(new))?;
        }
        let of_cache = cached::Options {
            default_store: default.unnamed,
            ..self.of_cache(false)
        };
        options.default_store = Some(default.shown.to_string());
        options.source_label.clone_from(&self.shown);
        let volume = Cached::open(
            opened.backend,
            &folders.cache,
            &folders.spool,
            of_cache,
            runtime.handle().clone(),
        )?;
        if !self.options.read_only {
            volume.send_rests(&folders.unsent, &folders.caches);
        }
        let mounted = Mounted::over(runtime, Arc::new(volume), mountpoint, options)?;
        Ok(Started {
            mounted,
            temp: folders.temp,
            reload,
        })
    }

    /// The source, which is not asked anything yet.
    pub(super) fn opened(&self) -> Result<open::Opened> {
        let remote = &self.options.remote;
        let access = Access {
            token: self.token.clone(),
            api_base: self.api_base.clone(),
            insecure: remote.insecure,
            compress: remote.compress,
            read_only: self.options.read_only,
            ..Access::default()
        };
        open::open(&self.source, access)
    }

    /// How its volume behaves; `through` is how records are sent when nothing else was said.
    pub(super) fn of_cache(&self, through: bool) -> cached::Options {
        let remote = &self.options.remote;
        let usual = cached::Options::default();
        let write_through = remote.write_through.unwrap_or(through);
        // What nobody waits for, such as a removal, then need not wait either.
        let debounce = if write_through && through {
            Duration::ZERO
        } else {
            usual.debounce
        };
        cached::Options {
            read_only: self.options.read_only,
            ttl: self.options.ttl.unwrap_or(usual.ttl),
            debounce: remote.debounce.unwrap_or(debounce),
            write_through,
            fsync_local: remote.fsync_local,
            cache_size: remote.cache_size.unwrap_or(usual.cache_size),
            allow_store_delete: remote.allow_store_delete,
            exact_sizes: remote.exact_sizes,
            host: host(),
            ..usual
        }
    }

    /// Who we are there.
    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// What was said about it.
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// What reads the token again for a live mount.
    fn reload(&self, place: &Place, runtime: &Runtime, here: &Surroundings) -> Option<Reload> {
        let Place::Server(server) = place else {
            return None;
        };
        let (server, source, here) = (server.clone(), self.source.clone(), here.clone());
        let file = self.options.remote.token_file.clone();
        let runtime = runtime.handle().clone();
        Some(Box::new(move || {
            match credentials::token(&source, file.as_deref(), &here)? {
                Some(token) => runtime.block_on(server.inner().replace_token(token)),
                None => Ok(()),
            }
        }))
    }

    /// Where this user's edits and bytes of this source are kept, for what `op` says. True when the source is away.
    pub(super) fn folders(
        &self,
        op: &'static str,
        place: &Place,
        runtime: &Runtime,
        here: &Surroundings,
    ) -> Result<(Folders, bool)> {
        let Place::Server(server) = place else {
            let temp = OwnTemp::make(OF_MEMORY)?;
            let folders = Folders::of(temp.path().join("cache"), temp.path());
            let folders = Folders {
                temp: Some(temp),
                ..folders
            };
            return Ok((folders, false));
        };
        let server = server.inner();
        let base = server.base().as_str();
        let dir = self.options.remote.cache.as_ref();
        let dir = dir.map(|dir| here.absolute(dir));
        let known = Known::at(dir.as_deref().unwrap_or(&here.state_dir()));
        let asked =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, server.greet()).await });
        let nobody = |error: &Error| self.token.is_none() && error.kind() == Kind::Denied;
        let away = |error: Error| {
            if ![Kind::Offline, Kind::TimedOut, Kind::Io].contains(&error.kind()) {
                return Err(error);
            }
            match known.user(base, self.token.as_ref()) {
                Some(user) => Ok((user, true)),
                None => Err(Error::because(
                    op,
                    base,
                    error.kind(),
                    format!(
                        "{error}, and nothing is kept here of an earlier mount by this user (check the address, or try \
                         again when it can be reached)"
                    ),
                )),
            }
        };
        let (user, is_away) = match asked {
            Ok(Ok(user)) => {
                let before = known.user(base, self.token.as_ref()).flatten();
                if let (None, Some(before)) = (&user, before) {
                    // Somebody between us and the server may answer for it.
                    tracing::warn!(
                        "{base} does not say who we are now: taken for the user of before"
                    );
                    server.take_for(Some(before.clone()));
                    (Some(before), false)
                } else {
                    if user.is_none() && !self.is_default_by_id() {
                        runtime.block_on(check_api(op, server))?;
                    }
                    known.remember(base, self.token.as_ref(), user.as_deref());
                    (user, false)
                }
            }
            // Stores that are public can be read by their ids; whether this one is shows in a moment.
            Ok(Err(error)) if nobody(&error) && self.default_store.is_some() => (None, false),
            Ok(Err(error)) if nobody(&error) => {
                let why = "the server wants a token, and there is none (set APIFY_TOKEN, or -o token-file=FILE)";
                return Err(Error::because(op, base, Kind::Denied, why));
            }
            Ok(Err(error)) => away(error)?,
            Err(_) => away(Error::because(
                "ask who we are at",
                base,
                Kind::Offline,
                format!("no answer within {PATIENCE:?}"),
            ))?,
        };
        if is_away {
            server.take_for(user.clone());
            tracing::warn!(
                "{base} cannot be reached: showing what is kept, and sending edits later"
            );
        }
        let id = Known::id(base, user.as_deref());
        let folders = match dir {
            Some(dir) => {
                known::claim(&dir, base, &id)?;
                Folders::of(dir.join("cache"), &dir)
            }
            None => Folders::of(here.cache_dir().join(&id), &here.state_dir().join(&id)),
        };
        Ok((folders, is_away))
    }

    /// Who names one store by its id may have a token for nothing else.
    fn is_default_by_id(&self) -> bool {
        self.default_store.as_deref().is_some_and(is_api_id)
    }

    /// The directory of the default store, and its id when it has no name.
    fn default(
        &self,
        backend: &dyn Backend,
        runtime: &Runtime,
        away: bool,
    ) -> Result<DefaultStore> {
        let named = |shown: &str| {
            Ok(DefaultStore {
                shown: StoreName::new(shown)?,
                unnamed: None,
            })
        };
        let Some(said) = &self.default_store else {
            return named("default");
        };
        let unnamed = || {
            Ok(DefaultStore {
                shown: StoreName::new("default")?,
                unnamed: Some(StoreName::new(said)?),
            })
        };
        let reference = match is_api_id(said) {
            true => StoreRef::Id(StoreId::new(said)?),
            false => StoreRef::name(StoreName::new(said)?),
        };
        let asked = async { tokio::time::timeout(PATIENCE, backend.store(&reference)).await };
        let found = match away {
            true => None,
            false => runtime.block_on(asked).ok(),
        };
        match found {
            Some(Ok(store)) => match store.name {
                Some(name) => named(name.as_str()),
                None => unnamed(),
            },
            Some(Err(error)) if error.kind() == Kind::Denied => Err(error),
            _ if is_api_id(said) => unnamed(),
            _ => named(said),
        }
    }
}

/// A server that knows no users may be no Apify API at all.
async fn check_api(op: &'static str, server: &Apify) -> Result<()> {
    let asked = tokio::time::timeout(PATIENCE, server.other_than_the_api()).await;
    let Ok(Some(answered)) = asked else {
        return Ok(());
    };
    let why = format!("no Apify API answers there: {answered} (check the address)");
    Err(Error::because(
        op,
        server.base().as_str(),
        Kind::NotFound,
        why,
    ))
}

struct DefaultStore {
    shown: StoreName,
    unnamed: Option<StoreName>,
}

/// What this machine is called.
fn host() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(32)
        .collect();
    if name.is_empty() {
        "host".to_owned()
    } else {
        name
    }
}
