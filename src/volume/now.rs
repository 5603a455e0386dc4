//! An answer that is known now, or one that must be waited for. It never blocks a thread itself.

use crate::error::{Error, Kind, Result};
use std::future::Future;
use std::pin::Pin;

/// The future of an answer.
pub(crate) type Wait<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// The result of an operation. `Ready` is answered in place; `Wait` is for what takes a network or a disk wait beyond
/// a metadata call or a page read.
pub enum Now<T> {
    /// Known.
    Ready(Result<T>),
    /// To be awaited on the runtime.
    Wait(Wait<T>),
}

impl<T: Send + 'static> Now<T> {
    /// A known answer.
    pub fn ok(value: T) -> Self {
        Self::Ready(Ok(value))
    }

    /// A known failure.
    pub fn err(error: Error) -> Self {
        Self::Ready(Err(error))
    }

    /// Work for the blocking pool of the runtime that awaits it.
    pub fn blocking(work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self::Wait(Box::pin(async move {
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(panic) => Err(Error::because(
                    "run",
                    "",
                    Kind::Io,
                    format!("the operation panicked: {panic}"),
                )),
            }
        }))
    }

    /// Goes on with the value, at once when it is known.
    pub fn then<U: Send + 'static>(
        self,
        next: impl FnOnce(T) -> Result<U> + Send + 'static,
    ) -> Now<U> {
        match self {
            Self::Ready(result) => Now::Ready(result.and_then(next)),
            Self::Wait(wait) => Now::Wait(Box::pin(async move { next(wait.await?) })),
        }
    }

    /// Goes on with another operation, at once when the value is known.
    pub fn and_then<U: Send + 'static>(
        self,
        next: impl FnOnce(T) -> Now<U> + Send + 'static,
    ) -> Now<U> {
        match self {
            Self::Ready(Ok(value)) => next(value),
            Self::Ready(Err(error)) => Now::Ready(Err(error)),
            Self::Wait(wait) => Now::Wait(Box::pin(async move {
                match next(wait.await?) {
                    Now::Ready(result) => result,
                    Now::Wait(wait) => wait.await,
                }
            })),
        }
    }

    /// Goes on with the result, good or bad.
    pub fn finally<U: Send + 'static>(
        self,
        next: impl FnOnce(Result<T>) -> Now<U> + Send + 'static,
    ) -> Now<U> {
        match self {
            Self::Ready(result) => next(result),
            Self::Wait(wait) => Now::Wait(Box::pin(async move {
                match next(wait.await) {
                    Now::Ready(result) => result,
                    Now::Wait(wait) => wait.await,
                }
            })),
        }
    }

    /// A name that cannot exist does not exist, for whoever only looks.
    #[must_use]
    pub fn not_found_if_illegal(self) -> Self {
        let seen = |error: Error| {
            if error.kind() == Kind::Invalid {
                error.with_kind(Kind::NotFound)
            } else {
                error
            }
        };
        match self {
            Self::Ready(result) => Self::Ready(result.map_err(seen)),
            Self::Wait(wait) => Self::Wait(Box::pin(async move { wait.await.map_err(seen) })),
        }
    }

    /// The answer as a future.
    pub async fn into_wait(self) -> Result<T> {
        match self {
            Self::Ready(result) => result,
            Self::Wait(wait) => wait.await,
        }
    }

    /// The answer, waited for on this thread: for tests and for threads that may wait.
    pub fn wait(self) -> Result<T> {
        match self {
            Self::Ready(result) => result,
            Self::Wait(wait) => match tokio::runtime::Handle::try_current() {
                // A thread of a runtime hands its other tasks over meanwhile.
                Ok(runtime) => tokio::task::block_in_place(|| runtime.block_on(wait)),
                Err(_) => tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .map_err(|e| Error::io("wait", "", e))?
                    .block_on(wait),
            },
        }
    }
}

impl<T> From<Result<T>> for Now<T> {
    fn from(result: Result<T>) -> Self {
        Self::Ready(result)
    }
}
