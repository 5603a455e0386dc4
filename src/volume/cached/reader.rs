//! Reading a record before all of it is here: bytes come in as they are asked for, a little ahead of who reads on. One
//! reader is one version; it never mixes two.

use super::Inner;
use super::ranges::Ranges;
use crate::error::{Error, Kind, Result};
use crate::record::{ETag, RecordId, Size};
use crate::volume::Now;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The least that is asked for at once, in bytes.
const LEAST: u64 = 1 << 20;
/// The most that is fetched ahead of who reads on.
const MOST: u64 = 32 << 20;
/// Who has read on until so much is fetched ahead gets the rest in one answer, which waits for him where it is too far ahead.
const STREAM: u64 = 4 << 20;
/// How often such an answer looks whether it may go on, and how long it waits for somebody who does not.
const GLANCE: Duration = Duration::from_millis(10);
const REST: Duration = Duration::from_secs(2);
/// How much is taken out of an answer at a time.
const PIECE: usize = 256 << 10;
/// How often a fetch is tried again.
const TRIES: u32 = 4;

/// One version on its way here.
pub struct Reader {
    inner: Arc<Inner>,
    id: RecordId,
    etag: Option<ETag>,
    size: u64,
    ranged: bool,
    /// What is here of it; the rest are holes.
    pub(super) file: Arc<File>,
    pub(super) number: u64,
    path: PathBuf,
    filling: Mutex<Filling>,
    news: Notify,
}

#[derive(Default)]
struct Filling {
    have: Ranges,
    coming: Vec<Range<u64>>,
    /// What readers wait for.
    awaited: Vec<Range<u64>>,
    /// Where a reader who reads on would read next.
    next: u64,
    window: u64,
    failed: Option<(Kind, String)>,
    /// Nothing has come for too long, and what is coming has not ended yet.
    stalled: bool,
    /// Every byte is here and belongs to the cache.
    kept: bool,
    bytes: u64,
}

/// Somebody waits for a range.
struct Awaited<'a>(&'a Reader, &'a Range<u64>);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut filling = self.0.filling();
        if let Some(at) = filling.awaited.iter().position(|range| range == self.1) {
            filling.awaited.swap_remove(at);
        }
    }
}

/// How the copying of an answer ended.
enum Copied {
    /// There was no more of it.
    Ended,
    /// Nobody needs more of it now.
    Rests,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({}, {} bytes)", self.id, self.size)
    }
}

impl Reader {
    pub(super) fn new(
        inner: &Arc<Inner>,
        id: &RecordId,
        (etag, size): (Option<ETag>, u64),
        (file, number, path): (File, u64, PathBuf),
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            id: id.clone(),
            etag,
            size,
            ranged: inner.properties().ranged_get,
            file: Arc::new(file),
            number,
            path,
            filling: Mutex::default(),
            news: Notify::new(),
        })
    }

    pub(super) fn id(&self) -> &RecordId {
        &self.id
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the bytes of a range are in the file.
    pub fn ensure(self: &Arc<Self>, range: Range<u64>) -> Now<()> {
        let range = range.start.min(self.size)..range.end.min(self.size);
        let (covered, fetch) = self.look(&range);
        if let Some(fetch) = fetch {
            self.start(fetch);
        }
        if covered {
            return Now::ok(());
        }
        let reader = self.clone();
        Now::Wait(Box::pin(async move { reader.bring(range).await }))
    }

    /// Whether a range is here, and what is to be fetched now.
    fn look(&self, range: &Range<u64>) -> (bool, Option<Range<u64>>) {
        let mut filling = self.filling();
        let missing = filling.have.missing(range);
        let reads_on = range.start == filling.next || range.start.abs_diff(filling.next) < LEAST;
        filling.next = range.end;
        let window = match (reads_on, filling.window) {
            (true, window) if window > 0 => window,
            _ => LEAST,
        };
        let end = match reads_on && self.ranged && window >= STREAM {
            true => self.size,
            false => range.end.saturating_add(window).min(self.size),
        };
        let ahead = range.start..end;
        // While half of what was to be ahead is still there, nothing new is asked for.
        let wanted = match &missing {
            Some(_) => Some(ahead),
            None if reads_on && filling.coming.is_empty() => {
                let half = range.start..range.end.saturating_add(window / 2).min(self.size);
                filling.have.missing(&half).map(|_| ahead)
            }
            None => None,
        };
        let covered = missing.is_none();
        let fetch = wanted.and_then(|wanted| self.plan(&mut filling, &wanted));
        if fetch.is_some() {
            filling.window = if reads_on {
                (window * 2).min(MOST)
            } else {
                LEAST
            };
        }
        (covered, fetch)
    }

    /// What to fetch so that a range gets here; nothing when it is coming already.
    fn plan(&self, filling: &mut Filling, wanted: &Range<u64>) -> Option<Range<u64>> {
        if filling.failed.is_some() {
            return None;
        }
        let mut missing = filling.have.missing(wanted)?;
        if !self.ranged {
            missing = 0..self.size;
        }
        for coming in &filling.coming {
            if coming.start <= missing.start {
                // What comes in one answer with all the rest may still be far away.
                let at = filling.have.missing(coming).map(|rest| rest.start);
                let reach = at.map_or(coming.end, |at| at.saturating_add(MOST));
                if missing.start < coming.end.min(reach) || !self.ranged {
                    return None;
                }
            } else {
                missing.end = missing.end.min(coming.start);
            }
        }
        filling.coming.push(missing.clone());
        Some(missing)
    }

    fn start(self: &Arc<Self>, range: Range<u64>) {
        let reader = self.clone();
        self.inner.runtime.spawn(async move {
            let fetched = reader.fetch(range.clone()).await;
            {
                let mut filling = reader.filling();
                filling.coming.retain(|coming| *coming != range);
                filling.stalled = false;
                if let Err(e) = fetched {
                    filling.failed = Some((e.kind(), e.to_string()));
                }
            }
            reader.keep();
            reader.news.notify_waiters();
        });
    }

    /// Once every byte is here they go on as the cached ones of the record.
    fn keep(self: &Arc<Self>) {
        let mut filling = self.filling();
        let whole = filling.have.missing(&(0..self.size)).is_none();
        if whole && !filling.kept {
            filling.kept = self.inner.keep_reader(self);
        }
    }

    /// Waits until all of it is here and is what is cached of the record.
    pub(super) async fn finish(self: &Arc<Self>) -> Result<()> {
        self.ensure(0..self.size).into_wait().await?;
        self.inner.hold(&self.id);
        self.keep();
        Ok(())
    }

    async fn bring(self: Arc<Self>, range: Range<u64>) -> Result<()> {
        self.filling().awaited.push(range.clone());
        let _awaited = Awaited(&self, &range);
        loop {
            let news = self.news.notified();
            let fetch = {
                let mut filling = self.filling();
                if filling.have.missing(&range).is_none() {
                    return Ok(());
                }
                if let Some((kind, why)) = &filling.failed {
                    let error = self.fault(*kind, why.clone());
                    // The next read may have more luck, unless the version is gone.
                    if *kind != Kind::Stale && filling.coming.is_empty() {
                        filling.failed = None;
                    }
                    return Err(error);
                }
                if filling.stalled {
                    // The kernel asks once more for what it could not read ahead.
                    return Err(self.nothing_came());
                }
                self.plan(&mut filling, &range)
            };
            if let Some(fetch) = fetch {
                self.start(fetch);
            }
            let patience = self.inner.options.patience;
            if tokio::time::timeout(patience, news).await.is_err() {
                let mut filling = self.filling();
                filling.stalled = !filling.coming.is_empty();
                return Err(self.nothing_came());
            }
        }
    }

    fn nothing_came(&self) -> Error {
        let patience = self.inner.options.patience;
        let why = format!("nothing came for {} seconds", patience.as_secs());
        self.fault(Kind::Io, why)
    }

    /// Fetches a range, in more than one request when an answer breaks off.
    async fn fetch(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        let mut tries = 0;
        loop {
            let before = at;
            let done = self.fetch_once(at..range.end).await;
            at = self
                .filling()
                .have
                .missing(&range)
                .map_or(range.end, |missing| missing.start);
            if at >= range.end {
                return Ok(());
            }
            tries = if at > before { 0 } else { tries + 1 };
            match done {
                Ok(Copied::Rests) => return Ok(()),
                Err(e) if tries >= TRIES || !super::remote::may_pass(e.kind()) => return Err(e),
                Ok(Copied::Ended) if tries >= TRIES => {
                    let why = "the answers have fewer bytes than the record";
                    return Err(self.fault(Kind::Io, why));
                }
                _ => tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(tries)).await,
            }
        }
    }

    async fn fetch_once(self: &Arc<Self>, range: Range<u64>) -> Result<Copied> {
        let asked = (self.ranged && range != (0..self.size)).then(|| range.clone());
        let start = if asked.is_some() { range.start } else { 0 };
        let asked_for_all = asked.is_none();
        let subject = self.id.to_string();
        self.inner.must_answer("read", &subject)?;
        let get = self.inner.backend.get(&self.id, asked);
        let patience = self.inner.options.patience;
        let fetched = self.inner.within(patience, "read", &subject, get).await;
        let fetched = fetched.map_err(|e| {
            if e.kind() == Kind::NotFound {
                self.gone()
            } else {
                e
            }
        })?;
        let other_size = matches!(fetched.meta.size, Size::Exact(size) if size != self.size);
        if other_size || (self.etag.is_some() && fetched.meta.etag != self.etag) {
            return Err(self.gone());
        }
        let reader = self.clone();
        let whole = asked_for_all && range.end == self.size;
        let copied = tokio::task::spawn_blocking(move || {
            reader.copy(fetched.bytes, start..range.end, whole)
        });
        match copied.await {
            Ok(done) => done,
            Err(e) => Err(self.fault(Kind::Io, e.to_string())),
        }
    }

    fn fault(&self, kind: Kind, why: impl Into<String>) -> Error {
        Error::because("read", self.id.to_string(), kind, why.into())
    }

    fn gone(&self) -> Error {
        Error::new("read", self.id.to_string(), Kind::Stale)
    }

    /// Whether an answer goes on here: not where others were faster, and not far from everybody who reads or waits.
    fn goes_on(&self, at: u64) -> bool {
        let near = |range: &Range<u64>| {
            at.saturating_add(MOST) >= range.start && at <= range.end.saturating_add(MOST)
        };
        let since = Instant::now();
        loop {
            {
                let filling = self.filling();
                if filling.have.missing(&(at..at + 1)).is_none() {
                    return false;
                }
                if near(&(filling.next..filling.next)) || filling.awaited.iter().any(near) {
                    return true;
                }
            }
            if since.elapsed() > REST {
                return false;
            }
            std::thread::sleep(GLANCE);
        }
    }

    fn copy(
        &self,
        mut bytes: Box<dyn Read + Send>,
        range: Range<u64>,
        whole: bool,
    ) -> Result<Copied> {
        let (start, end) = (range.start, range.end);
        let failed = |e| Error::io("read", self.id.to_string(), e);
        let mut piece = vec![0; PIECE];
        let mut at = start;
        while at < end {
            // One that was asked for in full to begin with comes in full.
            if at >= start.saturating_add(MOST) && self.ranged && !self.goes_on(at) {
                return Ok(Copied::Rests);
            }
            let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let count = bytes.read(&mut piece[..most]).map_err(failed)?;
            if count == 0 {
                break;
            }
            let last = whole && at + count as u64 == end;
            if last && bytes.read(&mut [0]).map_err(failed)? > 0 {
                let why = format!("the record is longer than the {end} bytes that were told of it");
                return Err(self.fault(Kind::Corrupt, why));
            }
            self.file
                .write_all_at(&piece[..count], at)
                .map_err(|e| Error::io("write the cache", self.path.display().to_string(), e))?;
            let mut filling = self.filling();
            let new = filling.have.add(at..at + count as u64);
            filling.bytes += new;
            filling.stalled = false;
            drop(filling);
            self.inner.cache_grew(new);
            at += count as u64;
            self.news.notify_waiters();
        }
        Ok(Copied::Ended)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let filling = self
            .filling
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if !filling.kept {
            let _ = std::fs::remove_file(&self.path);
            self.inner.cache_shrank(filling.bytes);
        }
    }
}
