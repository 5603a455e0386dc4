//! Tries again what may succeed at the next try, in front of any backend. It never takes the own write of an unanswered
//! try for that of somebody else, and never hides that nobody knows what became of a write.

use super::trouble::{is_passing, is_unsure, made_unsure, wait_asked};
use super::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef, random,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, Key, Meta, Precondition, RecordId};
use async_trait::async_trait;
use std::io::{self, Read};
use std::ops::Range;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// How far two machines' clocks may differ.
const CLOCKS: Duration = Duration::from_secs(60);

/// How often and how long to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The pause after the first failure; each further one is twice as long.
    pub first: Duration,
    /// The longest pause, but for one that the other side asks for.
    pub longest: Duration,
    /// How long to try while the other side answers.
    pub patience: Duration,
    /// How long to try while it cannot be reached.
    pub offline_patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            offline_patience: Duration::from_secs(1),
        }
    }
}

/// The backend behind it, tried again.
#[derive(Debug)]
pub struct Retry<B> {
    inner: B,
    policy: Policy,
}

/// Pauses of one operation.
struct Pauses {
    policy: Policy,
    next: Duration,
    start: Instant,
}

impl Pauses {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            next: policy.first,
            start: Instant::now(),
        }
    }

    /// Waits before the next try; false when there shall be none.
    async fn pause(&mut self, error: &Error) -> bool {
        if !is_passing(error) {
            return false;
        }
        let patience = if error.kind() == Kind::Offline {
            self.policy.offline_patience
        } else {
            self.policy.patience
        };
        let pause = match wait_asked(error) {
            Some(asked) => asked.max(self.next),
            None => shortened(self.next),
        };
        if self.start.elapsed() + pause > patience {
            return false;
        }
        self.next = (self.next * 2).min(self.policy.longest);
        tracing::debug!("{error}; the next try is in {pause:?}");
        sleep(pause).await;
        true
    }
}

/// Up to a quarter less, so that many who failed together do not come back together.
fn shortened(pause: Duration) -> Duration {
    let part = random::number().unwrap_or(0) % 256;
    pause - pause * u32::try_from(part).unwrap_or(0) / 1024
}

/// An operation on its way, as the trait gives it.
type Trying<'t, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 't>>;

impl<B> Retry<B> {
    /// In front of `inner`.
    pub fn new(inner: B, policy: Policy) -> Self {
        Self { inner, policy }
    }

    /// The backend behind, which tries once.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Tries until it succeeds, fails for good, or the patience ends. The second value tells whether a try before the last
    /// may have been done.
    async fn tried<'t, T>(&self, one: impl Fn() -> Trying<'t, T> + Send + 't) -> (Result<T>, bool) {
        let mut pauses = Pauses::new(self.policy);
        let mut unsure = false;
        loop {
            let error = match one().await {
                Ok(value) => return (Ok(value), unsure),
                Err(error) => error,
            };
            if !pauses.pause(&error).await {
                return (Err(error), unsure);
            }
            unsure |= is_unsure(&error);
        }
    }

    /// The same for what changes nothing.
    async fn asked<'t, T>(&self, one: impl Fn() -> Trying<'t, T> + Send + 't) -> Result<T> {
        self.tried(one).await.0
    }
}

/// A write's error, with what earlier tries may have done.
fn told(error: Error, unsure: bool) -> Error {
    if unsure { made_unsure(error) } else { error }
}

/// What is there now, when it is what was to be written: the same bytes under the same type. For writes of which nobody
/// knows what became of them, before a version that stands in the way is taken for somebody else's.
pub async fn found_written(
    backend: &dyn Backend,
    id: &RecordId,
    body: &Body,
    content_type: &ContentType,
) -> Result<Option<Meta>> {
    let fetched = match backend.get(id, None).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A server may write the parameters of a type in its own way.
    let there = fetched.meta.content_type.as_ref();
    if there.is_none_or(|there| there.essence() != content_type.essence()) {
        return Ok(None);
    }
    let body = body.clone();
    let compared = tokio::task::spawn_blocking(move || {
        let (mut there, mut ours) = (fetched.bytes, body.reader());
        same_bytes(&mut *there, &mut *ours).map(|same| same.then_some(fetched.meta))
    });
    let compared = compared.await.map_err(io::Error::other).flatten();
    compared.map_err(|why| Error::io("compare", id.to_string(), why))
}

fn same_bytes(one: &mut dyn Read, other: &mut dyn Read) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (in_a, in_b) = (filled(one, &mut a)?, filled(other, &mut b)?);
        if a[..in_a] != b[..in_b] {
            return Ok(false);
        }
        if in_a < a.len() {
            return Ok(true);
        }
    }
}

fn filled(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(filled)
}

/// Whether a store was made since then, as far as two clocks agree.
fn is_of_now(store: &StoreInfo, start: SystemTime) -> bool {
    store.created.is_some_and(|made| made + CLOCKS >= start)
}

#[async_trait]
impl<B: Backend> Backend for Retry<B> {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    async fn learn(&self, store: &StoreId) -> Result<Option<Feed>> {
        self.inner.learn(store).await
    }

    fn url(&self, store: &StoreId, key: Option<&Key>, secret: Option<&str>) -> Option<String> {
        self.inner.url(store, key, secret)
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        self.asked(|| self.inner.stores(after)).await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        self.asked(|| self.inner.store(reference)).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        let mut pauses = Pauses::new(self.policy);
        let (start, mut unsure) = (SystemTime::now(), false);
        loop {
            let error = match self.inner.create_store(new.clone()).await {
                // The store that an earlier try made is ours.
                Ok((store, false)) if unsure && is_of_now(&store, start) => {
                    return Ok((store, true));
                }
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            unsure |= is_unsure(&error);
            // Each try may leave one more store without a name.
            let twice = new.name.is_none() && is_unsure(&error);
            if twice || !pauses.pause(&error).await {
                return Err(error);
            }
        }
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let (done, unsure) = self
            .tried(|| self.inner.update_store(id, change.clone()))
            .await;
        done.map_err(|error| told(error, unsure))
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let (done, unsure) = self.tried(|| self.inner.delete_store(id)).await;
        match done {
            Err(error) if unsure && error.kind() == Kind::StoreNotFound => Ok(()),
            done => done.map_err(|error| told(error, unsure)),
        }
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        self.asked(|| self.inner.changes(store, after)).await
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        self.asked(|| self.inner.list(store, query.clone())).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        self.asked(|| self.inner.head(id)).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        self.asked(|| self.inner.get(id, range.clone())).await
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let one = || {
            self.inner
                .put(id, body.clone(), content_type, only_if.clone())
        };
        let (done, unsure) = self.tried(one).await;
        match done {
            // The version that stands in the way may be the one that an unanswered try left.
            Err(error) if unsure && error.kind() == Kind::Changed => {
                match found_written(self, id, &body, content_type).await {
                    Ok(Some(meta)) => Ok(meta),
                    Ok(None) => Err(error),
                    Err(why) => Err(made_unsure(why)),
                }
            }
            done => done.map_err(|error| told(error, unsure)),
        }
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let (done, unsure) = self.tried(|| self.inner.delete(id, only_if.clone())).await;
        match done {
            Err(error) if unsure && error.kind() == Kind::NotFound => Ok(()),
            done => done.map_err(|error| told(error, unsure)),
        }
    }
}
