//! Changes by others, where the backend tells of them. Without a feed, answers grow old instead.

use super::Inner;
use super::state::Remote;
use crate::backend::{ChangeEvent, ChangeKind, Feed, FeedPosition, random};
use crate::error::{Kind, Result};
use crate::record::key::StoreId;
use crate::record::{ETag, Key, Meta, RecordId};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The pause before a feed that ended is opened again; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// How often a store in use is looked at where nothing tells of changes.
const POLL: Duration = Duration::from_secs(30);
/// How long to find out about the backend and to open the feed may hold up who asked.
const PATIENCE: Duration = Duration::from_secs(1);

impl Inner {
    /// Somebody asks for something in this store.
    pub(super) fn note_use(&self, id: &StoreId) {
        if let Some(store) = self.index().stores.get_mut(id) {
            store.used = Some(Instant::now());
        }
    }

    /// Follows a store from now on, if that is possible and not done yet. False when that was waited for in vain.
    pub(super) async fn follow(self: &Arc<Self>, id: &StoreId) -> bool {
        if self.is_offline() {
            return true;
        }
        {
            let mut index = self.index();
            let Some(store) = index.stores.get_mut(id) else {
                return true;
            };
            if std::mem::replace(&mut store.following, true) {
                return true;
            }
        }
        let (opened, wait) = tokio::sync::oneshot::channel();
        let (inner, id) = (self.clone(), id.clone());
        let task = self.runtime.spawn(follow_on(inner, id, opened));
        self.keep_task(task);
        // What is looked at after the feed is open cannot be missed. When that takes long, everything is doubted then.
        self.bear_with(wait).await
    }

    /// Waits a little, and says whether that was enough. Who then goes on without has the less time to ask itself.
    async fn bear_with<T>(&self, wait: impl Future<Output = T>) -> bool {
        let in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        if !in_time {
            self.note_silence(PATIENCE);
        }
        in_time
    }

    async fn follow_now(self: Arc<Self>, id: StoreId, opened: tokio::sync::oneshot::Sender<()>) {
        let mut opened = Some(opened);
        let mut feed = None;
        while !*self.learned.borrow() {
            match self.learn(&id).await {
                Ok(found) => feed = found,
                Err(e) => {
                    tracing::debug!("what the backend can do is not known yet: {e}");
                    drop(opened.take());
                    tokio::time::sleep(POLL).await;
                    if !self.index().stores.contains_key(&id) {
                        return;
                    }
                }
            }
        }
        if self.properties().change_feed {
            return self.run_feed(&id, feed, opened).await;
        }
        drop(opened);
        let inner = Arc::downgrade(&self);
        drop(self);
        poll(inner, id).await;
    }

    /// Finds out what the backend can do, once.
    async fn learn(&self, id: &StoreId) -> Result<Option<Feed>> {
        let learning = self.backend.learn(id);
        let subject = id.to_string();
        let patience = self.options.patience;
        let feed = self
            .within(patience, "find out about", &subject, learning)
            .await?;
        self.learned.send_replace(true);
        Ok(feed)
    }

    /// Waits a little until it is known what the backend can do.
    pub(super) async fn until_learned(self: &Arc<Self>, id: &StoreId) {
        if *self.learned.borrow() || self.is_offline() {
            return;
        }
        if self.follow(id).await {
            let mut learned = self.learned.subscribe();
            self.bear_with(learned.wait_for(|learned| *learned)).await;
        }
    }

    async fn run_feed(
        self: Arc<Self>,
        id: &StoreId,
        mut first: Option<Feed>,
        mut opened: Option<tokio::sync::oneshot::Sender<()>>,
    ) {
        let mut position: Option<FeedPosition> = None;
        let mut pause = PAUSE;
        loop {
            let feed = match first.take() {
                Some(feed) => Ok(feed),
                None => self.backend.changes(id, position).await,
            };
            match feed {
                Ok(mut feed) => {
                    pause = PAUSE;
                    // What happened before is not told.
                    if position.is_none() && !self.list_again(id, &mut opened).await {
                        self.doubt(id);
                    }
                    self.set_followed(id, true);
                    drop(opened.take());
                    while let Some(event) = feed.recv().await {
                        position = Some(event.position);
                        self.heard(id, &event);
                    }
                    self.set_followed(id, false);
                }
                Err(e) if matches!(e.kind(), Kind::Unsupported | Kind::StoreNotFound) => {
                    // Left as followed by nobody; it is not asked for again.
                    return;
                }
                Err(e) => tracing::debug!("{id} is not followed: {e}"),
            }
            drop(opened.take());
            if !self.index().stores.contains_key(id) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Lists a store that is known well enough for now, so that nobody has to wait for that when the feed has opened.
    async fn list_again(
        self: &Arc<Self>,
        id: &StoreId,
        opened: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) -> bool {
        let is_fresh = || {
            let index = self.index();
            let store = index.stores.get(id);
            store.is_some_and(|store| !store.large && store.is_fresh(self.options.ttl))
        };
        if !is_fresh() {
            return false;
        }
        drop(opened.take());
        let listed = self.list_store(id, Duration::ZERO, true).await;
        listed.is_ok() && is_fresh()
    }

    fn set_followed(&self, id: &StoreId, followed: bool) {
        if let Some(store) = self.index().stores.get_mut(id) {
            store.followed = followed;
        }
    }

    fn doubt(&self, id: &StoreId) {
        let mut index = self.index();
        let tick = index.number();
        if let Some(store) = index.stores.get_mut(id) {
            store.doubt(None, tick);
        }
    }

    /// A record was changed by this program, past this volume. Returns when the volume knows it.
    pub(super) async fn changed_beside(self: &Arc<Self>, id: &RecordId, to: &Meta) {
        self.hear_of(&id.store, ChangeKind::Put, Some(&id.key), to.etag.as_ref());
        if self.index().stores.contains_key(&id.store)
            && let Err(e) = self.head_record(id).await
        {
            tracing::debug!("{id} is looked at later: {e}");
        }
    }

    /// A record was removed by this program, past this volume.
    pub(super) fn removed_beside(self: &Arc<Self>, id: &RecordId) {
        self.hear_of(&id.store, ChangeKind::Delete, Some(&id.key), None);
    }

    fn heard(self: &Arc<Self>, id: &StoreId, event: &ChangeEvent) {
        self.hear_of(id, event.kind, event.key.as_ref(), event.etag.as_ref());
    }

    fn hear_of(
        self: &Arc<Self>,
        id: &StoreId,
        kind: ChangeKind,
        key: Option<&Key>,
        etag: Option<&ETag>,
    ) {
        let (dir, name) = {
            let mut index = self.index();
            let tick = index.number();
            let Some(store) = index.stores.get_mut(id) else {
                return;
            };
            let dir = store.dir.clone();
            let Some(key) = key.filter(|_| kind != ChangeKind::Reset) else {
                store.doubt(None, tick);
                drop(index);
                return self.tell(&dir, None);
            };
            if let Some(known) = store.records.get_mut(key) {
                known.heard = Some(match kind {
                    ChangeKind::Delete => Remote::Absent,
                    ChangeKind::Put | ChangeKind::Reset => {
                        etag.cloned().map_or(Remote::Unknown, Remote::At)
                    }
                });
                let same = etag.is_some() && known.etag() == etag;
                if !known.is_clean() || same {
                    // Mostly a change of our own that comes back to us. The end of the upload compares.
                    return;
                }
            } else if kind == ChangeKind::Delete {
                return;
            }
            store.doubt(Some(key), tick);
            if store.large {
                let record = RecordId {
                    store: id.clone(),
                    key: key.clone(),
                };
                let inner = self.clone();
                // A listing of all would be many requests.
                self.runtime
                    .spawn(async move { inner.head_record(&record).await });
            } else {
                store.listed = None;
            }
            (dir, key.clone())
        };
        self.tell(&dir, Some(name.as_str()));
    }
}

/// Follows a store until the volume ends.
fn follow_on(
    inner: Arc<Inner>,
    id: StoreId,
    opened: tokio::sync::oneshot::Sender<()>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // In a box, for what it does may begin to follow a store.
    Box::pin(inner.follow_now(id, opened))
}

/// Looks at a store now and then while it is used, so that what others change is told although nobody asks.
fn poll(inner: Weak<Inner>, id: StoreId) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { poll_on(&inner, &id).await })
}

async fn poll_on(inner: &Weak<Inner>, id: &StoreId) {
    loop {
        // Not all mounts at once.
        let percent = 80 + random::number().unwrap_or_default() % 40;
        tokio::time::sleep(POLL * u32::try_from(percent).unwrap_or(100) / 100).await;
        let Some(inner) = inner.upgrade() else { return };
        let used = match inner.index().stores.get(id) {
            Some(store) => store.used.is_some_and(|at| at.elapsed() < POLL * 2) && !store.large,
            None => return,
        };
        if used && let Err(e) = inner.list_store(id, Duration::ZERO, false).await {
            tracing::debug!("{id} was not looked at: {e}");
        }
    }
}
