//! What tests of the remote backend stand on: the backend of a server, and servers that answer exactly what they are told to.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod proxy;
mod scripted;

pub use proxy::Proxy;
pub use scripted::{Answer, Request, Scripted};

use crate::http::Served;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use storefs::backend::apify::{Apify, Base, Options, Token};
use storefs::backend::open::{Access, Place, Source, open};
use storefs::backend::retry::{Policy, Retry};
use storefs::backend::{Backend, NewStore};
use storefs::error::Result;
use storefs::record::key::StoreId;
use storefs::record::{Body, ContentType, Key, Meta, Precondition, RecordId, StoreName};
use tokio::runtime::Runtime;

/// An id as the platform spells them.
pub const STORE: &str = "aB3dE5gH7jK9mN1pQ";
/// A token that no message may show.
pub const TOKEN: &str = "apify_api_s3cr3t";

/// The backend of a server in this process, as a SOURCE opens it.
pub fn opened(server: &Served) -> Arc<Retry<Apify>> {
    let source = Source::parse(format!("http://{}", server.address)).unwrap();
    let access = Access {
        token: Some(Token::new(&server.token).unwrap()),
        ..Access::default()
    };
    let Place::Server(server) = open(&source, access).unwrap().place else {
        panic!("a server is a server");
    };
    server
}

/// A runtime as the program has one.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Options for a server at this address, impatient as tests are.
pub fn options(address: SocketAddr, token: &str) -> Options {
    let base = Base::parse(&format!("http://{address}"), false).unwrap();
    Options {
        patience: Duration::from_secs(2),
        ..Options::new(base, Some(Token::new(token).unwrap()))
    }
}

/// The backend of a server at this address, which tries once.
pub fn apify(address: SocketAddr) -> Apify {
    Apify::new(options(address, TOKEN)).unwrap()
}

/// The same with tries in quick succession.
pub fn retrying(address: SocketAddr) -> Retry<Apify> {
    Retry::new(apify(address), quick())
}

/// Pauses of milliseconds.
pub fn quick() -> Policy {
    Policy {
        first: Duration::from_millis(5),
        longest: Duration::from_millis(20),
        patience: Duration::from_millis(600),
        offline_patience: Duration::from_millis(100),
    }
}

pub fn store() -> StoreId {
    StoreName::new(STORE).unwrap()
}

pub fn record(key: &str) -> RecordId {
    record_in(&store(), key)
}

pub fn record_in(store: &StoreId, key: &str) -> RecordId {
    RecordId {
        store: store.clone(),
        key: Key::new(key).unwrap(),
    }
}

pub async fn put(backend: &dyn Backend, id: &RecordId, bytes: &[u8]) -> Result<Meta> {
    put_if(backend, id, bytes, Precondition::None).await
}

pub async fn put_if(
    backend: &dyn Backend,
    id: &RecordId,
    bytes: &[u8],
    only_if: Precondition,
) -> Result<Meta> {
    let content_type = ContentType::stored("text/plain; charset=utf-8");
    backend
        .put(id, Body::from(bytes), &content_type, only_if)
        .await
}

pub async fn put_as(
    backend: &dyn Backend,
    id: &RecordId,
    body: impl Into<Body>,
    content_type: &str,
) -> Result<Meta> {
    let content_type = ContentType::stored(content_type);
    backend
        .put(id, body.into(), &content_type, Precondition::None)
        .await
}

/// A whole record, read on a thread that may wait.
pub async fn read(backend: &dyn Backend, id: &RecordId) -> Result<(Vec<u8>, Meta)> {
    let mut fetched = backend.get(id, None).await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let read = fetched.bytes.read_to_end(&mut bytes);
        read.map(|_| (bytes, fetched.meta))
    });
    read.await
        .unwrap()
        .map_err(|why| storefs::error::Error::io("read", id.to_string(), why))
}

/// The most memory that this process has held, in bytes.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() << 10
}
