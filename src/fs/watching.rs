//! Changes made in the folder by others: which caches of the kernel they make stale. It never touches a record.

use super::handle::lock;
use super::{Fs, Notice, ROOT};
use crate::backend::watch::{Batch, Happened, Watcher};
use crate::record::StoreName;
use crate::record::file_name::is_scratch;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long the kernel may keep what is watched: until it is told otherwise.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// How long names and attributes may be kept when nothing tells of changes.
const SHORT: Duration = Duration::from_secs(1);
/// So long after a removal of our own its events are looked for.
const REMEMBERED: Duration = Duration::from_secs(2);

/// What is watched.
#[derive(Default)]
pub(super) struct Watching {
    watcher: OnceLock<Watcher>,
    /// Inodes of stores whose changes are told.
    stores: Mutex<HashSet<u64>>,
    /// Names that we removed a moment ago.
    removed: Mutex<HashMap<(u64, Box<str>), Instant>>,
    /// Directories whose times changed since the kernel was told.
    aged: Mutex<HashSet<u64>>,
    events: AtomicU64,
}

impl Fs {
    /// Watches the folder, so that the kernel may keep what it knows until something changes. Where a lifetime was asked
    /// for, or events do not tell all, everything stays as it is.
    pub fn watch(self: &Arc<Self>) {
        let Some(path) = self
            .volume
            .watchable()
            .filter(|_| self.options.ttl.is_none())
        else {
            return;
        };
        let tree = Arc::downgrade(self);
        let handle = move |batch| {
            if let Some(tree) = tree.upgrade() {
                tree.take_in(&batch);
            }
        };
        match Watcher::start(&path, handle) {
            Ok(watcher) => {
                let _ = self.watching.watcher.set(watcher);
            }
            Err(e) => tracing::warn!("changes by others are seen after up to a second: {e}"),
        }
    }

    /// Takes in what the volume tells of changes by others.
    pub(super) fn hear(self: &Arc<Self>) {
        let tree = Arc::downgrade(self);
        self.volume.listen(Box::new(move |store, name| {
            if let Some(tree) = tree.upgrade() {
                tree.take_in_told(store, name);
            }
        }));
    }

    fn take_in_told(self: &Arc<Self>, store: &StoreName, name: Option<&str>) {
        let parent = lock(&self.table)
            .find(ROOT, store.as_str())
            .map(|inode| inode.ino);
        match (parent, name) {
            (None, _) => {}
            (Some(parent), None) => self.doubt_store(parent),
            (Some(parent), Some(name)) => {
                // What it is now may not be known yet: the kernel asks again, and that asks the volume.
                let mut table = lock(&self.table);
                let known = table.find(parent, name).map(|inode| inode.ino);
                if let Some(inode) = known.and_then(|ino| table.get_mut(ino)) {
                    inode.told = 0;
                }
                drop(table);
                if known.is_some() {
                    self.notify(Notice::Entry {
                        parent,
                        name: name.into(),
                    });
                }
                self.notify(Notice::Contents(parent));
            }
        }
    }

    /// How long the kernel may keep names in this directory and what it was told of them.
    pub(super) fn ttl(&self, parent: u64) -> Duration {
        match self.options.ttl {
            Some(asked) => asked,
            None if self.pushes(parent) => LONG,
            None => SHORT,
        }
    }

    /// The same for one name: scratch files, of which other mounts of the folder may have some too, are not watched.
    pub(super) fn name_ttl(&self, parent: u64, name: &str) -> Duration {
        let ttl = self.ttl(parent);
        if is_scratch(name) {
            ttl.min(SHORT)
        } else {
            ttl
        }
    }

    /// Whether changes in this directory are told to the kernel.
    pub(super) fn pushes(&self, ino: u64) -> bool {
        if ino == ROOT {
            return self.watching.watcher.get().is_some();
        }
        lock(&self.watching.stores).contains(&ino)
    }

    /// Watches a store from now on, before anything in it is told to the kernel.
    pub(super) fn watch_store(&self, store: &StoreName, ino: u64) {
        let Some(watcher) = self.watching.watcher.get() else {
            return;
        };
        if lock(&self.watching.stores).contains(&ino) {
            return;
        }
        match watcher.add(store) {
            Ok(()) => {
                // A look at the directory may find a change before its event is handled.
                if let Err(e) = self.volume.refresh(store, Some(&[])) {
                    tracing::debug!("{store} is watched: {e}");
                }
                lock(&self.watching.stores).insert(ino);
            }
            Err(e) => {
                let more = "raise fs.inotify.max_user_watches to see them at once";
                tracing::warn!("changes in {store} are seen after up to a second: {e} ({more})");
            }
        }
    }

    /// A store that is watched has another name now.
    pub(super) fn store_renamed(&self, to: &StoreName) {
        let Some(ino) = lock(&self.table)
            .find(ROOT, to.as_str())
            .map(|inode| inode.ino)
        else {
            return;
        };
        // The watch is on the directory; only what its events are called changes.
        lock(&self.watching.stores).remove(&ino);
        self.watch_store(to, ino);
    }

    /// A name is removed by us: its event is no news for the kernel.
    pub(super) fn removing(&self, parent: u64, name: &str) {
        if self.pushes(parent) {
            let mut removed = lock(&self.watching.removed);
            removed.insert((parent, name.into()), Instant::now());
            if removed.len() > 4096 {
                removed.retain(|_, at| at.elapsed() < REMEMBERED);
            }
        }
    }

    /// Waits until every change there was in the folder before this call is known to the kernel.
    pub(super) fn settle_events(&self) {
        match self.watching.watcher.get() {
            Some(watcher) => watcher.settle(),
            None => std::thread::sleep(self.ttl(ROOT)),
        }
    }

    pub(super) fn watching_status(&self) -> serde_json::Value {
        serde_json::json!({
            "on": self.watching.watcher.get().is_some(),
            "stores": lock(&self.watching.stores).len(),
            "events": self.watching.events.load(Ordering::Relaxed),
        })
    }

    /// Tells the kernel what a batch of events made stale.
    fn take_in(self: &Arc<Self>, batch: &Batch) {
        if batch.quiet {
            return self.tell_times();
        }
        if batch.overflow {
            tracing::warn!("events of the folder were lost: everything is looked at again");
            self.doubt_everything();
        }
        for (store, files) in &batch.files {
            self.watching
                .events
                .fetch_add(files.len() as u64, Ordering::Relaxed);
            match store {
                Some(store) => self.take_in_store(store, files),
                None => files.keys().for_each(|name| self.take_in_root(name)),
            }
        }
    }

    /// A store came, went or is another directory now.
    fn take_in_root(self: &Arc<Self>, name: &str) {
        let known = lock(&self.table)
            .find(ROOT, name)
            .map(|inode| (inode.ino, inode.version));
        let now = StoreName::new(name).ok().and_then(|store| {
            let file = self.volume.store(&store).wait().ok()?;
            Some((store, file.inode))
        });
        match (known, now) {
            (Some((_, version)), Some((_, inode))) if version == inode => return,
            (Some((ino, _)), Some((store, inode))) => {
                if let Some(inode_of) = lock(&self.table).get_mut(ino) {
                    inode_of.version = inode;
                }
                // The watch is on the directory that was there before.
                lock(&self.watching.stores).remove(&ino);
                self.watch_store(&store, ino);
                self.doubt_store(ino);
            }
            (Some((ino, _)), None) => {
                lock(&self.watching.stores).remove(&ino);
                self.doubt_store(ino);
                self.notify(Notice::Entry {
                    parent: ROOT,
                    name: name.into(),
                });
            }
            (None, _) => {}
        }
        self.notify(Notice::Contents(ROOT));
    }

    fn take_in_store(self: &Arc<Self>, store: &StoreName, files: &HashMap<Box<str>, Happened>) {
        let Some(parent) = lock(&self.table)
            .find(ROOT, store.as_str())
            .map(|inode| inode.ino)
        else {
            return;
        };
        let paths: Vec<&str> = files.keys().map(|file| &**file).collect();
        let names = match self.volume.refresh(store, Some(&paths)) {
            Ok(names) => names,
            Err(e) => {
                tracing::debug!("{store} after events: {e}");
                return self.doubt_store(parent);
            }
        };
        let came = files.values().any(|happened| happened.came);
        let mut listing = false;
        for name in names {
            listing |= self.take_in_record(store, parent, &name, came);
        }
        if listing {
            self.notify(Notice::Contents(parent));
        } else {
            lock(&self.watching.aged).insert(parent);
        }
    }

    /// Nothing happened for a moment: tells of directories whose times changed by what the kernel did itself. To do so at
    /// once would have it ask for their attributes again before each of its next requests.
    fn tell_times(&self) {
        let aged: Vec<u64> = lock(&self.watching.aged).drain().collect();
        for parent in aged {
            let told = lock(&self.table)
                .get_mut(parent)
                .map(|inode| std::mem::take(&mut inode.told));
            if told.is_some_and(|told| told != 0) {
                self.notify(Notice::Attributes(parent));
            }
        }
    }

    /// A name whose file changed in some way. True when a listing that the kernel keeps may be wrong.
    fn take_in_record(
        self: &Arc<Self>,
        store: &StoreName,
        parent: u64,
        name: &str,
        came: bool,
    ) -> bool {
        let known = {
            let table = lock(&self.table);
            let inode = table.find(parent, name).filter(|inode| !inode.drafting);
            if table.find(parent, name).is_some_and(|inode| inode.drafting) {
                return false;
            }
            inode.map(|inode| (inode.ino, inode.version))
        };
        let now = self.volume.known(store, name).ok();
        let (now, changed) = (
            now.map(|stat| stat.file.inode),
            now.map(|stat| stat.file.changed_ns),
        );
        // Who has it open under the name it had before another process renamed it.
        let strays = now.map(|inode| lock(&self.table).strays(inode));
        for ino in strays.unwrap_or_default() {
            self.contents_changed(ino, changed.unwrap_or_default());
        }
        match (known, now) {
            (Some((ino, version)), Some(inode)) if version == inode => {
                self.contents_changed(ino, changed.unwrap_or_default());
                false
            }
            (Some((ino, version)), _) => {
                let entry = Notice::Entry {
                    parent,
                    name: name.into(),
                };
                let closed = {
                    let mut table = lock(&self.table);
                    let moved = table
                        .find(parent, name)
                        .is_none_or(|inode| inode.ino != ino);
                    if moved || table.get(ino).is_some_and(|inode| inode.version != version) {
                        // Renamed, looked up or opened since: to take that from the kernel again would fail an open that it
                        // just asked for. What it keeps of the attributes and bytes may be older.
                        drop(table);
                        self.contents_changed(ino, changed.unwrap_or_default());
                        return now.is_none();
                    }
                    let same = table.get(ino).is_some_and(|inode| !inode.drafting);
                    if same {
                        table.unlink(ino);
                    }
                    table.close(ino)
                };
                drop(closed);
                self.notify(entry);
                now.is_none()
            }
            (None, Some(_)) => true,
            (None, None) => came || !self.was_removed(parent, name),
        }
    }

    fn was_removed(&self, parent: u64, name: &str) -> bool {
        let removed = lock(&self.watching.removed);
        removed
            .get(&(parent, Box::from(name)))
            .is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    /// The bytes or attributes of a file changed, by us or by others: the kernel asks again.
    fn contents_changed(&self, ino: u64, changed: i64) {
        let (told, held) = {
            let mut table = lock(&self.table);
            let Some(inode) = table.get_mut(ino) else {
                return;
            };
            if inode.told == changed {
                // What the kernel keeps is right.
                return;
            }
            let held = inode.open.clone().filter(|_| inode.handles > 0);
            (std::mem::take(&mut inode.told), held)
        };
        let pages =
            held.is_some_and(|open| !self.options.shared_files && open.writing().writers == 0);
        if pages {
            self.notify(Notice::Contents(ino));
        } else if told != 0 {
            self.notify(Notice::Attributes(ino));
        }
    }

    fn doubt_everything(self: &Arc<Self>) {
        let stores: Vec<(u64, StoreName)> = lock(&self.table).stores();
        for (ino, store) in stores {
            // What the backend keeps of it is looked at again.
            let _ = self.volume.refresh(&store, None);
            self.doubt_store(ino);
            self.notify(Notice::Entry {
                parent: ROOT,
                name: store.as_str().into(),
            });
        }
        self.notify(Notice::Contents(ROOT));
    }

    /// Nothing that the kernel knows of this store may be relied on.
    fn doubt_store(&self, parent: u64) {
        // Taken before the loop: a lock in a loop's head is held until the loop ends.
        let children = lock(&self.table).children(parent, false);
        for (ino, name) in children {
            let closed = lock(&self.table).close(ino);
            drop(closed);
            self.notify(Notice::Contents(ino));
            self.notify(Notice::Entry { parent, name });
        }
        self.notify(Notice::Contents(parent));
    }
}
