//! What is known of records, kept over restarts in SQLite. All of it can be fetched again: unsent bytes never depend on it.

use super::index::Index;
use super::note::{Shown, remote_of, remote_text};
use super::record::{Base, Kept};
use super::state::{Remote, State};
use crate::error::{Error, Kind, Result};
use crate::record::{ContentType, ETag, Key, RecordId, Size, StoreName, nanoseconds};
use rusqlite::{Connection, Row, params};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

/// The tables. Another version of them is thrown away and begun anew.
const VERSION: i64 = 1;
const TABLES: &str = "
    create table stores (id text primary key, dir text not null, named integer not null, complete integer not null,
        created integer not null, modified integer not null) without rowid;
    create table records (store text not null, key text not null, etag text, size integer, type text,
        mode integer not null, uid integer not null, gid integer not null,
        accessed integer not null, modified integer not null, changed integer not null,
        kept integer, kept_size integer, base text, base_until integer, primary key (store, key)) without rowid;";
/// So many changes are written together at most.
const BATCH: usize = 1024;

/// A record as it is kept: only what the backend has, never an edit.
#[derive(Clone, Debug)]
pub(super) struct KeptRecord {
    remote: Remote,
    size: Size,
    content_type: Option<ContentType>,
    shown: Shown,
    kept: Option<Kept>,
    base: Option<Base>,
}

enum Order {
    Store(StoreName, StoreName, bool, bool, (i64, i64)),
    NoStore(StoreName),
    Record(RecordId, Box<KeptRecord>),
    NoRecord(RecordId),
    Flush(Sender<()>),
}

/// Writes changes down, some time later.
#[derive(Debug)]
pub(super) struct Keeper {
    orders: Option<Sender<Order>>,
    /// How many changes wait to be written down.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> Error + '_ {
    move |e| {
        Error::because(
            "open the index",
            path.display().to_string(),
            Kind::Io,
            e.to_string(),
        )
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = normal; pragma journal_size_limit = 67108864;",
    )?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        if version != 0 {
            database.execute_batch("drop table if exists stores; drop table if exists records;")?;
        }
        database.execute_batch(TABLES)?;
        database.pragma_update(None, "user_version", VERSION)?;
    }
    database.query_row("select count(*) from stores", [], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(database)
}

impl Keeper {
    /// Reads what was kept into the index, and keeps what changes from now on. A file that cannot be read is begun anew.
    pub(super) fn open(dir: &Path, index: &mut Index) -> Result<Self> {
        let path = dir.join("index.db");
        let opened = open(&path).and_then(|database| {
            load(&database, index)?;
            Ok(database)
        });
        let database = match opened {
            Ok(database) => database,
            Err(e) => {
                tracing::warn!("the index {} is begun anew: {e}", path.display());
                *index = Index::default();
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(dir.join(format!("index.db{end}")));
                }
                open(&path).map_err(failed(&path))?
            }
        };
        let (orders, queue) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        let thread = std::thread::Builder::new()
            .name("storefs-index".into())
            .spawn(move || run(database, &queue, &left))
            .map_err(|e| Error::io("keep the index", path.display().to_string(), e))?;
        Ok(Self {
            orders: Some(orders),
            waiting,
            thread: Some(thread),
        })
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Without its thread nothing is kept, which costs requests after the next start and nothing else.
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _ = orders.send(order);
        }
    }

    /// Whether so much waits to be written down that who causes more should wait, for the sake of the memory.
    pub(super) fn is_behind(&self) -> bool {
        let lives = self.thread.as_ref().is_some_and(|it| !it.is_finished());
        lives && self.waiting.load(Ordering::Relaxed) > 4 * BATCH
    }

    /// The store is as the index has it.
    pub(super) fn store(&self, store: &super::store::Store) {
        let times = (store.created_ns, store.modified_ns);
        let order = Order::Store(
            store.id.clone(),
            store.dir.clone(),
            store.named,
            store.complete,
            times,
        );
        self.send(order);
    }

    /// The store and its records are gone.
    pub(super) fn no_store(&self, id: &StoreName) {
        self.send(Order::NoStore(id.clone()));
    }

    /// The record is as the index has it. One that waits to be sent is in the spool.
    pub(super) fn record(&self, index: &Index, id: &RecordId) {
        let order = match index.record(id) {
            Some(record) => match &record.state {
                State::Clean { remote } if *remote != Remote::Absent => Order::Record(
                    id.clone(),
                    Box::new(KeptRecord {
                        remote: remote.clone(),
                        size: record.size,
                        content_type: record.content_type.clone(),
                        shown: record.shown(),
                        kept: record.kept,
                        base: record.base.clone(),
                    }),
                ),
                State::Clean { .. } => Order::NoRecord(id.clone()),
                State::Dirty { .. } | State::Uploading { .. } => return,
            },
            None => Order::NoRecord(id.clone()),
        };
        self.send(order);
    }

    /// Waits until everything is written down.
    pub(super) fn flush(&self) {
        let (done, wait) = channel();
        self.send(Order::Flush(done));
        let _ = wait.recv();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut database: Connection, queue: &Receiver<Order>, left: &AtomicUsize) {
    while let Ok(first) = queue.recv() {
        let more = queue.try_iter().take(BATCH);
        let batch: Vec<Order> = std::iter::once(first).chain(more).collect();
        let count = batch.len();
        let mut waiting = Vec::new();
        if let Err(e) = write(&mut database, batch, &mut waiting) {
            tracing::warn!("the index was not written: {e}");
        }
        left.fetch_sub(count, Ordering::Relaxed);
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn write(
    database: &mut Connection,
    batch: Vec<Order>,
    waiting: &mut Vec<Sender<()>>,
) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    for order in batch {
        match order {
            Order::Store(id, dir, named, complete, (created, modified)) => {
                transaction
                    .prepare_cached("insert or replace into stores values (?, ?, ?, ?, ?, ?)")?
                    .execute(params![
                        id.as_str(),
                        dir.as_str(),
                        named,
                        complete,
                        created,
                        modified
                    ])?;
            }
            Order::NoStore(id) => {
                transaction.execute("delete from stores where id = ?", [id.as_str()])?;
                transaction.execute("delete from records where store = ?", [id.as_str()])?;
            }
            Order::Record(id, kept) => {
                let size = kept.size.exact().and_then(|size| i64::try_from(size).ok());
                let base_until = kept.base.as_ref().and_then(|base| base.until);
                let shown = &kept.shown;
                transaction
                    .prepare_cached(
                        "insert or replace into records values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        id.store.as_str(),
                        id.key.as_str(),
                        remote_text(&kept.remote),
                        size,
                        kept.content_type.as_ref().map(ContentType::as_str),
                        shown.mode,
                        shown.uid,
                        shown.gid,
                        shown.accessed_ns,
                        shown.modified_ns,
                        shown.changed_ns,
                        kept.kept.map(|kept| kept.number.cast_signed()),
                        kept.kept.map(|kept| kept.size.cast_signed()),
                        kept.base.as_ref().map(|base| base.etag.as_str()),
                        base_until.map(nanoseconds),
                    ])?;
            }
            Order::NoRecord(id) => {
                transaction
                    .prepare_cached("delete from records where store = ? and key = ?")?
                    .execute([id.store.as_str(), id.key.as_str()])?;
            }
            Order::Flush(done) => waiting.push(done),
        }
    }
    transaction.commit()
}

fn load(database: &Connection, index: &mut Index) -> rusqlite::Result<()> {
    let mut stores =
        database.prepare("select id, dir, named, complete, created, modified from stores")?;
    let mut rows = stores.query([])?;
    while let Some(row) = rows.next()? {
        let (id, dir): (String, String) = (row.get(0)?, row.get(1)?);
        let (Ok(id), Ok(dir)) = (StoreName::new(&id), StoreName::new(&dir)) else {
            continue;
        };
        let store = index.enter_store(&id, &dir, row.get(2)?);
        store.complete = row.get(3)?;
        store.created_ns = row.get(4)?;
        store.modified_ns = row.get(5)?;
    }
    let mut records = database.prepare("select * from records order by store, key")?;
    let mut rows = records.query([])?;
    while let Some(row) = rows.next()? {
        load_record(row, index)?;
    }
    Ok(())
}

fn load_record(row: &Row<'_>, index: &mut Index) -> rusqlite::Result<()> {
    let (store, key): (String, String) = (row.get(0)?, row.get(1)?);
    let (Ok(store), Ok(key)) = (StoreName::new(&store), Key::new(&key)) else {
        return Ok(());
    };
    let etag: Option<String> = row.get(2)?;
    let id = RecordId { store, key };
    let Some(record) = index.enter(&id, remote_of(etag.as_deref())) else {
        return Ok(());
    };
    let size: Option<i64> = row.get(3)?;
    record.size = size.map_or(Size::Unknown, |size| Size::Exact(size.cast_unsigned()));
    let content_type: Option<String> = row.get(4)?;
    record.content_type = content_type.as_deref().map(ContentType::stored);
    record.show(Shown {
        mode: row.get(5)?,
        uid: row.get(6)?,
        gid: row.get(7)?,
        accessed_ns: row.get(8)?,
        modified_ns: row.get(9)?,
        changed_ns: row.get(10)?,
    });
    let mut numbered = 0;
    let kept: (Option<i64>, Option<i64>) = (row.get(11)?, row.get(12)?);
    if let (Some(number), Some(size)) = kept {
        record.kept = Some(Kept {
            number: number.cast_unsigned(),
            size: size.cast_unsigned(),
        });
        numbered = number.cast_unsigned();
    }
    let base: Option<String> = row.get(13)?;
    let until: Option<i64> = row.get(14)?;
    if let Some(base) = base {
        record.base = Some(Base {
            etag: ETag::new(&base),
            until: until.map(|ns| UNIX_EPOCH + Duration::from_nanos(ns.unsigned_abs())),
        });
    }
    // Also when that file is gone: another one must not be taken for it.
    index.numbers_from(numbered);
    Ok(())
}
