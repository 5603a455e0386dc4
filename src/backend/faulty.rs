//! A backend that fails, waits or hangs by a script, in front of any other: for tests.
//! It never decides by chance or by the clock, so a test that fails once fails always.

use super::{
    Backend, Feed, FeedPosition, Fetched, KeyPage, ListQuery, NewStore, Properties, StoreChange,
    StoreInfo, StorePage, StoreRef,
};
use crate::error::{Error, Kind, Result};
use crate::record::key::StoreId;
use crate::record::{Body, ContentType, Key, Meta, Precondition, RecordId};
use async_trait::async_trait;
use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The operations of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Verb {
    Stores,
    Store,
    CreateStore,
    UpdateStore,
    DeleteStore,
    Changes,
    List,
    Head,
    Get,
    Put,
    Delete,
}

/// What happens to an operation instead of, before or after what it asks for.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is not done, and fails.
    Fail(Kind),
    /// It is done, and yet the answer is this failure, as when a connection breaks too late.
    FailAfter(Kind),
    /// It begins after this time.
    Delay(Duration),
    /// It begins when the gate is opened.
    Hang(Gate),
    /// It is done, and the answer comes when the gate is opened.
    HangAfter(Gate),
    /// Of a `get`: the bytes break off after so many with a reset connection. Nothing to any other operation.
    BreakOff(u64),
    /// Of a `put`: the bytes are read so many at a time, each after this pause, before it begins or fails. Nothing to any
    /// other operation.
    Crawl(u64, Duration, Option<Kind>),
}

/// Where operations wait until a test lets them go.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    arrived: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// A gate that lets nothing through yet.
    pub fn closed() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
            arrived: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Lets everything through that waits or will come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// How many operations have come here so far.
    pub fn arrived(&self) -> usize {
        *self.arrived.borrow()
    }

    /// Returns when so many operations have come here.
    pub async fn until_arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        // The gate holds the sender, so the channel cannot end while this waits.
        let _ = arrived.wait_for(|so_far| *so_far >= count).await;
    }

    async fn pass(&self) {
        let mut open = self.open.subscribe();
        self.arrived.send_modify(|count| *count += 1);
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Which operations a fault meets. Without a condition it meets every one.
#[derive(Clone, Debug)]
pub struct Rule {
    verb: Option<Verb>,
    key: Option<String>,
    number: Option<usize>,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// A rule for every operation.
    pub fn any(fault: Fault) -> Self {
        Self {
            verb: None,
            key: None,
            number: None,
            skip: 0,
            times: usize::MAX,
            fault,
        }
    }

    /// A rule for one verb.
    pub fn on(verb: Verb, fault: Fault) -> Self {
        Self {
            verb: Some(verb),
            ..Self::any(fault)
        }
    }

    /// Only operations on records with this key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Only the operation of this number, counted from 1 over all verbs.
    #[must_use]
    pub fn number(mut self, number: usize) -> Self {
        self.number = Some(number);
        self
    }

    /// Not the first so many that it would meet.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// At most so many, after those skipped.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// The fault for this call, if the rule meets it.
    fn meet(&mut self, number: usize, call: &Call) -> Option<Fault> {
        let meets = self.times > 0
            && self.verb.is_none_or(|verb| verb == call.verb)
            && self.number.is_none_or(|wanted| wanted == number)
            && (self.key.is_none() || self.key.as_deref() == call.key.as_ref().map(Key::as_str));
        if !meets {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.fault.clone())
    }
}

/// An operation that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which operation.
    pub verb: Verb,
    /// On which store, where there is one: its id, or the name it is asked for or made by.
    pub store: Option<StoreId>,
    /// On which key, where there is one.
    pub key: Option<Key>,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    calls: Vec<Call>,
}

/// The backend behind it, with faults. The first rule that meets a call decides.
pub struct Faulty<B> {
    inner: B,
    script: Mutex<Script>,
}

impl<B> Faulty<B> {
    /// In front of `inner`, with no rules yet.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            script: Mutex::default(),
        }
    }

    /// The backend behind, without faults and without a note of the call.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Adds a rule after those there are.
    pub fn add(&self, rule: Rule) {
        self.script().rules.push(rule);
    }

    /// Takes all rules away. Operations that hang already go on hanging at their gates.
    pub fn clear(&self) {
        self.script().rules.clear();
    }

    /// Every operation so far, in the order they were asked for, failed ones too.
    pub fn calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    /// How many operations of this verb were asked for so far.
    pub fn count(&self, verb: Verb) -> usize {
        let script = self.script();
        script.calls.iter().filter(|call| call.verb == verb).count()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call and says what shall happen to it.
    fn note(&self, verb: Verb, store: Option<&StoreId>, key: Option<&Key>) -> Option<Fault> {
        let call = Call {
            verb,
            store: store.cloned(),
            key: key.cloned(),
        };
        let mut script = self.script();
        script.calls.push(call.clone());
        let number = script.calls.len();
        let mut rules = script.rules.iter_mut();
        rules.find_map(|rule| rule.meet(number, &call))
    }

    fn note_store(&self, verb: Verb, id: &StoreId) -> Option<Fault> {
        self.note(verb, Some(id), None)
    }

    fn note_record(&self, verb: Verb, id: &RecordId) -> Option<Fault> {
        self.note(verb, Some(&id.store), Some(&id.key))
    }
}

/// Does the operation as the script says.
async fn play<T>(fault: Option<Fault>, operation: impl Future<Output = Result<T>>) -> Result<T> {
    let failed = |kind: Kind| Error::because("follow the script", "", kind, kind.reason());
    match fault {
        None | Some(Fault::BreakOff(_) | Fault::Crawl(_, _, None)) => operation.await,
        Some(Fault::Fail(kind) | Fault::Crawl(_, _, Some(kind))) => Err(failed(kind)),
        Some(Fault::FailAfter(kind)) => operation.await.and(Err(failed(kind))),
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            operation.await
        }
        Some(Fault::Hang(gate)) => {
            gate.pass().await;
            operation.await
        }
        Some(Fault::HangAfter(gate)) => {
            let answer = operation.await;
            gate.pass().await;
            answer
        }
    }
}

/// Reads all of a body slowly.
async fn crawl(body: &Body, piece: u64, pause: Duration) -> io::Result<()> {
    let mut bytes = body.reader();
    loop {
        tokio::time::sleep(pause).await;
        if io::copy(&mut bytes.by_ref().take(piece), &mut io::sink())? == 0 {
            return Ok(());
        }
    }
}

/// Bytes that break off.
struct Breaking {
    bytes: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = self.bytes.by_ref().take(self.left).read(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[async_trait]
impl<B: Backend> Backend for Faulty<B> {
    fn properties(&self) -> Properties {
        self.inner.properties()
    }

    fn url(&self, store: &StoreId, key: Option<&Key>, secret: Option<&str>) -> Option<String> {
        self.inner.url(store, key, secret)
    }

    async fn stores(&self, after: Option<&StoreId>) -> Result<StorePage> {
        let fault = self.note(Verb::Stores, None, None);
        play(fault, self.inner.stores(after)).await
    }

    async fn store(&self, reference: &StoreRef) -> Result<StoreInfo> {
        let (StoreRef::Id(id) | StoreRef::Name { name: id, .. }) = reference;
        let fault = self.note_store(Verb::Store, id);
        play(fault, self.inner.store(reference)).await
    }

    async fn create_store(&self, new: NewStore) -> Result<(StoreInfo, bool)> {
        let fault = self.note(Verb::CreateStore, new.name.as_ref(), None);
        play(fault, self.inner.create_store(new)).await
    }

    async fn update_store(&self, id: &StoreId, change: StoreChange) -> Result<StoreInfo> {
        let fault = self.note_store(Verb::UpdateStore, id);
        play(fault, self.inner.update_store(id, change)).await
    }

    async fn delete_store(&self, id: &StoreId) -> Result<()> {
        let fault = self.note_store(Verb::DeleteStore, id);
        play(fault, self.inner.delete_store(id)).await
    }

    async fn changes(&self, store: &StoreId, after: Option<FeedPosition>) -> Result<Feed> {
        let fault = self.note_store(Verb::Changes, store);
        play(fault, self.inner.changes(store, after)).await
    }

    async fn list(&self, store: &StoreId, query: ListQuery) -> Result<KeyPage> {
        let fault = self.note_store(Verb::List, store);
        play(fault, self.inner.list(store, query)).await
    }

    async fn head(&self, id: &RecordId) -> Result<Meta> {
        let fault = self.note_record(Verb::Head, id);
        play(fault, self.inner.head(id)).await
    }

    async fn get(&self, id: &RecordId, range: Option<Range<u64>>) -> Result<Fetched> {
        let fault = self.note_record(Verb::Get, id);
        let left = match &fault {
            Some(Fault::BreakOff(count)) => Some(*count),
            _ => None,
        };
        let mut fetched = play(fault, self.inner.get(id, range)).await?;
        if let Some(left) = left {
            let bytes = fetched.bytes;
            fetched.bytes = Box::new(Breaking { bytes, left });
        }
        Ok(fetched)
    }

    async fn put(
        &self,
        id: &RecordId,
        body: Body,
        content_type: &ContentType,
        only_if: Precondition,
    ) -> Result<Meta> {
        let fault = self.note_record(Verb::Put, id);
        if let Some(Fault::Crawl(piece, pause, _)) = fault {
            crawl(&body, piece, pause)
                .await
                .map_err(|e| Error::io("put", id.to_string(), e))?;
        }
        play(fault, self.inner.put(id, body, content_type, only_if)).await
    }

    async fn delete(&self, id: &RecordId, only_if: Precondition) -> Result<()> {
        let fault = self.note_record(Verb::Delete, id);
        play(fault, self.inner.delete(id, only_if)).await
    }
}
