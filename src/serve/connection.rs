//! Connections: taken up to a limit, watched while they last, finished when the server ends.

use super::Door;
use super::answer::answer;
use super::patience::Patient;
use super::refused::{Turn, Worded};
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// How long is waited when no connection can be taken, most often for want of descriptors.
const AGAIN: Duration = Duration::from_millis(100);
/// The most headers of a request.
pub(super) const HEADERS: usize = 100;

/// Takes connections until `stop` is done, and then waits for those that are still at work.
pub(super) async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    router: Router,
    end: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) {
    let limits = door.options.limits.clone();
    let connections = limits
        .connections
        .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let slots = Arc::new(Semaphore::new(connections));
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let work = one(stream, door.clone(), router.clone());
                tokio::spawn(async move {
                    work.await;
                    drop(slot);
                });
            }
            Err(why) => {
                tracing::warn!("take a connection: {why}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    drop(listener);
    let _ = end.send(true);
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(limits.grace, slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("some requests were cut off: they took too long to finish");
    }
}

/// Serves one connection to its end.
async fn one(stream: TcpStream, door: Arc<Door>, router: Router) {
    // Answers leave at once; the kernel would hold back the second part of one until the first is acknowledged.
    if let Err(why) = stream.set_nodelay(true) {
        tracing::debug!("set TCP_NODELAY: {why}");
    }
    let counted = door.clone();
    let _connected = counted.metrics.connected();
    let limits = &counted.options.limits;
    let mut ending = door.ending.clone();
    let turn = Arc::new(Turn::default());
    let stream = Patient::new(stream, limits.patience);
    let io = TokioIo::new(Worded::new(stream, turn.clone(), door.clone()));
    let service =
        service_fn(move |request| answer(door.clone(), router.clone(), turn.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head.max(8 << 10))
        .max_headers(HEADERS)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let done = tokio::select! {
        done = &mut connection => done,
        () = async { drop(ending.wait_for(|ending| *ending).await); } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(why) = done {
        tracing::debug!("a connection ended: {why}");
    }
}
