//! The second door: the key-value-store part of the Apify API v2 over HTTP, straight on a backend. It never reads the
//! environment or writes to the terminal.

mod answer;
mod archive;
mod asked;
mod auth;
mod body;
mod changes;
mod conditions;
mod connection;
mod encodings;
mod kept;
mod keys;
mod metrics;
mod openapi;
mod patience;
mod problem;
mod query;
mod records;
mod reference;
mod refused;
mod reply;
mod routes;
mod runs;
mod sent;
mod stores;
pub mod tokens;
mod upload;
mod users;

pub use auth::{Secret, Users};
pub use kept::Kept;
pub use runs::{Run, Runs, Status};

use crate::backend::Backend;
use crate::backend::dir::OwnDir;
use crate::error::{Error, Kind, Result};
use crate::record::RecordId;
use asked::Asked;
use auth::Known;
use axum::http::header;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What stands in a part of a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// How a server serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base of URLs that are handed out; without one they begin with what the client calls this server.
    pub public_url: Option<String>,
    /// Who may use it.
    pub users: Users,
    /// The longest record, decoded, in bytes.
    pub max_record_size: u64,
    /// A folder of the server's own, made when missing: for long bodies on their way, encoded ones that are kept, and what
    /// is known of runs.
    pub folder: PathBuf,
    /// How many bytes of encoded bodies are kept.
    pub keep_encoded: u64,
    /// The store of runs that nobody described: its name or its id.
    pub default_store: String,
    /// The one run that this server knows of; without it any id of a run is that of a run with the default store.
    pub run: Option<String>,
    /// What a client may take.
    pub limits: Limits,
}

/// What a client may take. The defaults are generous for programs and small for attackers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at one time. More have to wait.
    pub connections: usize,
    /// Bytes of a request's head. Longer ones are refused with 431.
    pub head: usize,
    /// Time for a request's head, counted from the last answer: how long a connection may be idle, too.
    pub head_time: Duration,
    /// Time in which a body has to go on, in both directions.
    pub patience: Duration,
    /// Time that requests have to finish when the server ends.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: 32 << 10,
            head_time: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// What every request needs.
struct Door {
    backend: Arc<dyn Backend>,
    /// Whether a short read never waits for a network.
    is_local: bool,
    known: Arc<Known>,
    remembered: reference::Remembered,
    sent: Arc<sent::Sent>,
    /// Where long bodies lie on their way.
    work: upload::Work,
    /// Turns of archives.
    archives: Arc<Semaphore>,
    runs: Arc<Runs>,
    decoding: Arc<Semaphore>,
    metrics: metrics::Metrics,
    options: Options,
    address: SocketAddr,
    ending: watch::Receiver<bool>,
}

/// A server that listens already. Dropped, it ends.
pub struct Server {
    listener: tokio::net::TcpListener,
    door: Arc<Door>,
    end: watch::Sender<bool>,
}

impl Server {
    /// Prepares to serve this backend to whoever connects to the listener. Called within a tokio runtime.
    pub fn new(backend: Arc<dyn Backend>, listener: TcpListener, options: Options) -> Result<Self> {
        const OP: &str = "serve at";
        let failed = |why| Error::io(OP, "", why);
        let address = listener.local_addr().map_err(failed)?;
        if matches!(options.users, Users::AnyToken(_)) && !address.ip().is_loopback() {
            return Err(Error::because(
                OP,
                address.to_string(),
                Kind::Invalid,
                "any token is accepted on loopback addresses only (make tokens: storefs token new --user NAME)",
            ));
        }
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        // Only a cache and a memory: what there is to serve is served without it.
        let own = OwnDir::make(&options.folder).map(Arc::new);
        let own = own.inspect_err(|why| {
            tracing::warn!("{why}; runs and encoded bodies are not kept, and long bodies go through the system's temporary folder");
        });
        let own = own.ok();
        let sent = sent::Sent::open(own.as_deref(), options.keep_encoded);
        let (end, ending) = watch::channel(false);
        let door = Arc::new(Door {
            is_local: backend.properties().local_dir.is_some(),
            archives: Arc::new(Semaphore::new(archive::ARCHIVES)),
            known: Arc::new(Known::open(options.users.clone())?),
            remembered: reference::Remembered::default(),
            sent,
            work: upload::Work(own.clone()),
            runs: Arc::new(Runs::kept_in(Kept::of(own))),
            decoding: Arc::new(Semaphore::new(upload::decoders())),
            metrics: metrics::Metrics::default(),
            backend,
            options,
            address,
            ending,
        });
        Ok(Self {
            listener,
            door,
            end,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.door.address
    }

    /// The runs it tells of.
    pub fn runs(&self) -> Arc<Runs> {
        self.door.runs.clone()
    }

    /// Serves until `stop` is done, then finishes the requests that are under way.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let follow = tokio::spawn(self.door.known.clone().follow());
        let router = answer::router(self.door.clone());
        connection::serve(self.listener, self.door, router, self.end, stop).await;
        follow.abort();
    }
}

/// Methods and paths of every endpoint, in the order of the documents.
pub fn endpoints() -> Vec<(&'static str, String)> {
    let routes = routes::all().into_iter();
    routes.map(|route| (route.method, route.path)).collect()
}

impl Door {
    /// The base of URLs for this client.
    fn base(&self, asked: &Asked) -> String {
        if let Some(base) = &self.options.public_url {
            return base.trim_end_matches('/').to_owned();
        }
        let host = asked.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        match host.filter(|host| !host.is_empty() && host.bytes().all(legal)) {
            Some(host) => format!("http://{host}"),
            None => format!("http://{}", self.address),
        }
    }

    /// The URL of a store.
    fn store_url(&self, asked: &Asked, id: &str) -> String {
        let id = utf8_percent_encode(id, PLAIN);
        format!("{}/v2/key-value-stores/{id}", self.base(asked))
    }

    /// The URL of a record.
    fn record_url(&self, asked: &Asked, id: &RecordId) -> String {
        let store = self.store_url(asked, id.store.as_str());
        format!("{store}/records/{}", id.key)
    }
}
