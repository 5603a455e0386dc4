//! What others do to the files of a store reaches its feed and its listings, whoever they are and whatever the layout is.
#![allow(clippy::unwrap_used)]

mod cards;

use cards::{World, name};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use storefs::backend::dir::{CommitIf, DirBackend, Folder, FolderOptions, Layout};
use storefs::backend::{Backend, ChangeEvent, ChangeKind, Feed, ListQuery};
use storefs::record::key::StoreId;
use storefs::record::{Key, RecordId};

const LAYOUTS: [Layout; 4] = [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual];
/// How soon a change is told.
const SOON: Duration = Duration::from_secs(1);
/// The tests run beside each other on busy machines: what comes later than this does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of one layout with the store `default`.
struct Stage {
    world: World,
    layout: Layout,
    backend: DirBackend,
    id: StoreId,
}

fn open(world: &World, layout: Layout) -> std::sync::Arc<Folder> {
    let options = FolderOptions {
        layout: Some(layout),
        ..FolderOptions::default()
    };
    Folder::open(&world.storage(), options).unwrap()
}

impl Stage {
    fn new(layout: Layout) -> Self {
        Self::with(layout, DirBackend::new)
    }

    fn with(layout: Layout, make: fn(std::sync::Arc<Folder>) -> DirBackend) -> Self {
        let world = World::new(&["default"]);
        let backend = make(open(&world, layout));
        let id = world.named(&backend, "default").unwrap().id;
        Self {
            world,
            layout,
            backend,
            id,
        }
    }

    fn follow(&self) -> Feed {
        let feed = self.backend.changes(&self.id, None);
        self.world.runtime.block_on(feed).unwrap()
    }

    fn next(&self, feed: &mut Feed) -> ChangeEvent {
        let next = async { tokio::time::timeout(PATIENCE, feed.recv()).await };
        let next = self.world.runtime.block_on(next);
        next.expect("nothing was told").expect("the feed ended")
    }

    /// The next change of this key to that; more than one change of a key may be told of one deed.
    fn until(&self, feed: &mut Feed, key: &str, kind: ChangeKind) -> ChangeEvent {
        loop {
            let event = self.next(feed);
            let told = event.key.as_ref().map(Key::as_str);
            assert_eq!(told, Some(key), "{:?}: {event:?}", self.layout);
            if event.kind == kind {
                return event;
            }
        }
    }

    fn dir(&self) -> std::path::PathBuf {
        self.world.store("default")
    }

    fn keys(&self) -> Vec<String> {
        let page = self.backend.list(&self.id, ListQuery::default());
        let page = self.world.runtime.block_on(page).unwrap();
        page.records
            .iter()
            .map(|(key, _)| key.to_string())
            .collect()
    }

    fn tag(&self, key: &str) -> Option<storefs::record::ETag> {
        let id = RecordId {
            store: self.id.clone(),
            key: Key::new(key).unwrap(),
        };
        self.world
            .runtime
            .block_on(self.backend.head(&id))
            .unwrap()
            .etag
    }
}

/// Writes a record as the SDK of a layout does, in place.
fn write(dir: &Path, layout: Layout, key: &str, bytes: &[u8]) {
    match layout {
        Layout::Plain => fs::write(dir.join(key), bytes).unwrap(),
        Layout::Js | Layout::Dual => fs::write(dir.join(format!("{key}.txt")), bytes).unwrap(),
        Layout::Python => {
            let size = bytes.len();
            let sidecar = format!(
                "{{\"key\": \"{key}\", \"content_type\": \"text/plain\", \"size\": {size}}}"
            );
            fs::write(dir.join(key), bytes).unwrap();
            fs::write(dir.join(format!("{key}.__metadata__.json")), sidecar).unwrap();
        }
    }
}

fn remove(dir: &Path, layout: Layout, key: &str) {
    let sidecar = dir.join(format!("{key}.__metadata__.json"));
    let _ = fs::remove_file(dir.join(format!("{key}.txt")));
    let _ = fs::remove_file(dir.join(key));
    let left = layout == Layout::Python && fs::remove_file(sidecar).is_err();
    assert!(!left, "a record of the Python SDK has a sidecar");
}

#[test]
fn what_a_foreign_program_does_is_told() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut feed = stage.follow();
        let start = Instant::now();
        write(&stage.dir(), layout, "made", b"1");
        stage.until(&mut feed, "made", ChangeKind::Put);
        assert!(start.elapsed() < SOON * 5, "{layout:?}");
        // Told until the version that is there has been told.
        write(&stage.dir(), layout, "made", b"longer");
        while stage.until(&mut feed, "made", ChangeKind::Put).etag != stage.tag("made") {}
        remove(&stage.dir(), layout, "made");
        stage.until(&mut feed, "made", ChangeKind::Delete);
    }
}

#[test]
fn what_is_no_record_is_not_told() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut feed = stage.follow();
        let dir = stage.dir();
        fs::create_dir(dir.join("key.lock")).unwrap();
        fs::remove_dir(dir.join("key.lock")).unwrap();
        fs::write(dir.join("no key at all"), "x").unwrap();
        fs::write(dir.join("__metadata__.json"), "{}").unwrap();
        fs::remove_file(dir.join("__metadata__.json")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        write(&dir, layout, "real", b"x");
        let told = stage.next(&mut feed);
        let key = told.key.as_ref().map(Key::as_str);
        // In the plain layout every legal name is a record, as long as it is there.
        let passing = layout == Layout::Plain && key == Some("__metadata__.json");
        assert!(passing || key == Some("real"), "{layout:?}: {told:?}");
    }
}

#[test]
fn what_a_mount_does_is_told() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut feed = stage.follow();
        // The mount is another process with an opening of its own.
        let folder = open(&stage.world, layout);
        let store = folder.store(&name("default")).unwrap();
        let mut draft = folder.draft(0o644).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&*draft.file, b"mounted", 0).unwrap();
        store
            .commit(&mut draft, "a", None, &CommitIf::Any, true)
            .unwrap();
        let told = stage.until(&mut feed, "a", ChangeKind::Put);
        assert_eq!(told.etag, stage.tag("a"), "{layout:?}");
        store.rename("a", &store, "b", true).unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let event = stage.next(&mut feed);
            seen.insert((
                event.kind == ChangeKind::Put,
                event.key.unwrap().to_string(),
            ));
        }
        let wanted = [(false, "a".to_owned()), (true, "b".to_owned())];
        assert_eq!(seen, wanted.into(), "{layout:?}");
        store.remove("b").unwrap();
        stage.until(&mut feed, "b", ChangeKind::Delete);
    }
}

#[test]
fn a_listing_has_every_foreign_file_that_was_there_before_it() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        assert!(stage.keys().is_empty());
        let mut there = BTreeSet::new();
        for round in 0..60 {
            let key = format!("k{}", (round * 7) % 25);
            if there.remove(&key) {
                remove(&stage.dir(), layout, &key);
            } else {
                write(&stage.dir(), layout, &key, b"x");
                there.insert(key);
            }
            let wanted: Vec<_> = there.iter().cloned().collect();
            assert_eq!(stage.keys(), wanted, "{layout:?}, round {round}");
        }
    }
}

#[test]
fn a_feed_goes_on_when_the_store_is_renamed() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut feed = stage.follow();
        let moved = stage.world.store("moved");
        fs::rename(stage.dir(), &moved).unwrap();
        write(&moved, layout, "after", b"x");
        stage.until(&mut feed, "after", ChangeKind::Put);
        assert_eq!(stage.keys(), ["after"], "{layout:?}");
    }
}

#[test]
fn a_store_that_is_replaced_under_a_feed_is_to_be_looked_at_again() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        write(&stage.dir(), layout, "before", b"x");
        let mut feed = stage.follow();
        assert_eq!(stage.keys(), ["before"]);
        // As the JavaScript SDK purges a store.
        let old = stage.world.store("__OLD_DEFAULT_0__");
        fs::rename(stage.dir(), &old).unwrap();
        fs::create_dir(stage.dir()).unwrap();
        fs::remove_dir_all(old).unwrap();
        loop {
            let event = stage.next(&mut feed);
            if event.kind == ChangeKind::Reset {
                break;
            }
            assert_eq!(event.kind, ChangeKind::Delete, "{layout:?}: {event:?}");
        }
        assert!(stage.keys().is_empty(), "{layout:?}");
        write(&stage.dir(), layout, "after", b"x");
        // The look at what the old directory lost and the finding of the new one may each say so.
        let mut event = stage.next(&mut feed);
        while event.kind == ChangeKind::Reset {
            event = stage.next(&mut feed);
        }
        assert_eq!(event.key, Key::new("after").ok(), "{layout:?}: {event:?}");
        assert_eq!(event.kind, ChangeKind::Put, "{layout:?}");
    }
}

#[test]
fn a_feed_ends_when_the_store_is_removed_in_the_folder() {
    let stage = Stage::new(Layout::Plain);
    let mut feed = stage.follow();
    fs::remove_dir(stage.dir()).unwrap();
    let end = async { tokio::time::timeout(PATIENCE, feed.recv()).await };
    assert_eq!(stage.world.runtime.block_on(end).unwrap(), None);
}

#[test]
fn a_folder_that_tells_nothing_is_looked_through() {
    for layout in LAYOUTS {
        let stage = Stage::with(layout, DirBackend::polling);
        write(&stage.dir(), layout, "there", b"x");
        let mut feed = stage.follow();
        write(&stage.dir(), layout, "made", b"1");
        stage.until(&mut feed, "made", ChangeKind::Put);
        assert_eq!(stage.keys(), ["made", "there"], "{layout:?}");
        write(&stage.dir(), layout, "made", b"longer");
        while stage.until(&mut feed, "made", ChangeKind::Put).etag != stage.tag("made") {}
        remove(&stage.dir(), layout, "there");
        stage.until(&mut feed, "there", ChangeKind::Delete);
        assert_eq!(stage.keys(), ["made"], "{layout:?}");
    }
}

#[test]
fn a_rewrite_of_the_same_length_in_place_is_another_version() {
    let stage = Stage::new(Layout::Plain);
    let mut seen = BTreeSet::new();
    for n in 0..200 {
        write(
            &stage.dir(),
            Layout::Plain,
            "k",
            format!("{n:04}").as_bytes(),
        );
        assert!(
            seen.insert(stage.tag("k")),
            "rewrite {n} has a tag that was there"
        );
    }
    // Nor can a program hide one by setting the time back.
    let path = stage.dir().join("k");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "next").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert!(seen.insert(stage.tag("k")));
}
