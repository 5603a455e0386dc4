//! A store for both SDKs, rewritten beside the mount by hand as an SDK does it: when `storefs sync` has returned, the files
//! are as the other SDK needs them.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use support::{Mount, World, is_root};

const TEXT: &str = "text/plain; charset=utf-8";

struct Store {
    mount: Mount,
    path: PathBuf,
    _world: World,
}

impl Store {
    /// With the record `note`, as the mount wrote it.
    fn new(options: &str) -> Self {
        let world = World::new();
        let mount = world.mount(&["-o", options]);
        fs::write(mount.path("default/note"), "by the mount").unwrap();
        Self {
            mount,
            path: world.source("default"),
            _world: world,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// As the Python SDK puts a file in place.
    fn replace(&self, file: &str, text: &str) {
        let temporary = self.path.join(".of-python");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path.join(file)).unwrap();
    }

    fn python_sets(&self, text: &str) {
        self.replace("note", text);
        let size = text.len();
        let sidecar = format!(r#"{{"key": "note", "content_type": "{TEXT}", "size": {size}}}"#);
        self.replace("note.__metadata__.json", &sidecar);
    }

    /// Both SDKs read these bytes, the size that Python lists is theirs, and nothing else is there.
    #[track_caller]
    fn both_read(&self, text: &str) {
        assert_eq!(
            fs::read_link(self.file("note")).unwrap(),
            Path::new("note.txt")
        );
        assert_eq!(fs::read_to_string(self.file("note.txt")).unwrap(), text);
        let sidecar = fs::read_to_string(self.file("note.__metadata__.json")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&sidecar).unwrap();
        assert_eq!(told["size"], text.len(), "{sidecar}");
        assert_eq!(told["extension"], "txt", "{sidecar}");
        let through_the_mount = fs::read_to_string(self.mount.path("default/note"));
        assert_eq!(through_the_mount.unwrap(), text);
        assert_eq!(fs::read_dir(&self.path).unwrap().count(), 3);
    }
}

// README: S33, S84
#[test]
fn after_sync_what_an_sdk_wrote_is_mended_for_the_other() {
    if !is_root() {
        return; // only root can mount here
    }
    for options in ["layout=dual", "layout=dual,ttl=0"] {
        let store = Store::new(options);
        // JavaScript writes in place: the sidecar tells the old size until the file has been left alone for a while.
        fs::write(store.file("note.txt"), "by JavaScript, longer").unwrap();
        store.mount.sync();
        store.both_read("by JavaScript, longer");
        store.python_sets("by Python");
        store.mount.sync();
        store.both_read("by Python");
        // The link alone is gone: that may be the beginning of something, and is mended when nothing follows.
        fs::remove_file(store.file("note")).unwrap();
        store.mount.sync();
        store.both_read("by Python");
        // A value without its sidecar is another beginning.
        store.replace("note", "half of Python's write");
        store.mount.sync();
        store.both_read("half of Python's write");
        store.mount.unmount();
    }
}

// README: S83
#[test]
fn who_opens_a_record_that_javascript_writes_in_place_reads_it_whole() {
    if !is_root() {
        return; // only root can mount here
    }
    for options in ["layout=dual", "layout=js", "layout=js,no_passthrough"] {
        let store = Store::new(options);
        let read = || fs::read_to_string(store.mount.path("default/note")).unwrap();
        let lock = store.file("note.txt.lock");
        let mut text = "by the mount".to_owned();
        for turn in 0..5 {
            // The mount has the file open by now, or keeps it so.
            assert_eq!(read(), text, "{options}");
            text = format!("by JavaScript, {turn}");
            fs::create_dir(&lock).unwrap();
            fs::write(store.file("note.txt"), "").unwrap();
            let got = thread::scope(|threads| {
                let reader = threads.spawn(read);
                thread::sleep(Duration::from_millis(30));
                fs::write(store.file("note.txt"), &text).unwrap();
                fs::remove_dir(&lock).unwrap();
                reader.join().unwrap()
            });
            assert_eq!(got, text, "{options}");
        }
        store.mount.unmount();
    }
}

// README: S33
#[test]
fn sync_does_not_wait_for_ever_for_an_sdk_that_died_in_the_middle() {
    if !is_root() {
        return; // only root can mount here
    }
    let store = Store::new("layout=dual");
    store.python_sets("by Python");
    fs::write(store.file("note.x3k_9abc.tmp"), "next").unwrap();
    store.python_sets("by Python again");
    store.mount.sync();
    let read = fs::read_to_string(store.mount.path("default/note"));
    assert_eq!(read.unwrap(), "by Python again");
    fs::remove_file(store.file("note.x3k_9abc.tmp")).unwrap();
    store.mount.sync();
    store.both_read("by Python again");
    store.mount.unmount();
}
