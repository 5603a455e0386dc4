//! The changes of a store as events: those made by the server, and those made in its folder by whoever else uses it.
#![allow(clippy::unwrap_used)]

mod http;
mod support;

use http::{Client, Event, Events, Served, Serving};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::World;

const STORE: &str = "/v2/key-value-stores/shared";
const LAYOUTS: [&str; 4] = ["plain", "js", "python", "dual"];

/// A server of a folder with one store, in a process of its own.
struct Stage {
    world: World,
    serving: Serving,
    client: Client,
    layout: &'static str,
}

impl Stage {
    fn new(layout: &'static str) -> Self {
        let world = World::new();
        fs::create_dir(world.source("shared")).unwrap();
        let args = ["serve", "storage", "--layout", layout, "--tokens", "t.json"];
        let mut command = world.storefs(&args);
        command.args(["--listen", "127.0.0.1:0"]);
        let serving = Serving::of(command, 3);
        let token = serving.lines[1].split_once('=').unwrap().1.to_owned();
        let client = serving.client(&token);
        Self {
            world,
            serving,
            client,
            layout,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.source("shared").join(name)
    }

    /// Writes a record as the SDK of this layout does, or as a plain program.
    fn write(&self, key: &str, text: &str) {
        match self.layout {
            "plain" => fs::write(self.file(key), text).unwrap(),
            "js" | "dual" => fs::write(self.file(&format!("{key}.txt")), text).unwrap(),
            _ => {
                let aside = self.world.root().join("aside");
                for (name, text) in [
                    (key.to_owned(), text.to_owned()),
                    (
                        format!("{key}.__metadata__.json"),
                        format!(
                            "{{\"key\": \"{key}\", \"content_type\": \"text/plain\", \"size\": {}}}",
                            text.len()
                        ),
                    ),
                ] {
                    fs::write(&aside, text).unwrap();
                    fs::rename(&aside, self.file(&name)).unwrap();
                }
            }
        }
    }

    fn remove(&self, key: &str) {
        let names = [
            key.to_owned(),
            format!("{key}.txt"),
            format!("{key}.__metadata__.json"),
        ];
        let removed = names.map(|name| fs::remove_file(self.file(&name)).is_ok());
        assert!(removed.contains(&true), "{key} had no file");
    }

    fn tag(&self, key: &str) -> Option<String> {
        let head = self.client.send("HEAD", &self.record(key), &[], b"");
        head.header("etag")
            .map(|tag| tag.trim_matches('"').to_owned())
    }

    fn record(&self, key: &str) -> String {
        format!("{STORE}/records/{key}")
    }

    /// Reads on until the version that is there has been told.
    fn until_current(&self, events: &mut Events, key: &str) -> Event {
        loop {
            let event = events.until("put", key);
            if event.about().1.map(str::to_owned) == self.tag(key) {
                return event;
            }
        }
    }

    /// Nobody has changed anything through the server.
    fn assert_only_read(&self) {
        let text = String::from_utf8(self.client.get("/metrics").body).unwrap();
        assert!(text.contains("operation=\"changes\""), "{text}");
        for operation in [
            "put_record",
            "delete_record",
            "create_store",
            "update_store",
        ] {
            assert!(!text.contains(operation), "{text}");
        }
    }
}

#[test]
fn changes_are_told_as_they_happen_and_again_after_a_break() {
    for mut served in Served::each() {
        let (client, store) = (served.client(), served.store("s"));
        let mut events = Events::follow(&client, &store, None);
        let put = client.put(&format!("{store}/records/a"), "text/plain", b"1");
        let first = events.next().unwrap();
        assert_eq!((first.kind.as_str(), first.about().0), ("put", Some("a")));
        let tag = first.about().1.unwrap();
        assert_eq!(format!("\"{tag}\""), put.header("etag").unwrap());
        drop(events);
        client.delete(&format!("{store}/records/a"));
        client.put(&format!("{store}/records/b"), "text/plain", b"2");
        let mut events = Events::follow(&client, &store, Some(&first.id));
        let next = events.next().unwrap();
        assert_eq!(
            (next.kind.as_str(), next.about()),
            ("delete", (Some("a"), None))
        );
        let next = events.next().unwrap();
        assert_eq!((next.kind.as_str(), next.about().0), ("put", Some("b")));
        // A place that no feed of this server ever had.
        let mut lost = Events::follow(&client, &store, Some("nonsense"));
        assert_eq!(lost.next().unwrap().kind, "reset");
        // The server does not wait for who listens.
        let begun = Instant::now();
        assert!(served.stop(Duration::from_secs(10)));
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert_eq!(events.next(), None);
    }
}

#[test]
fn what_other_programs_do_in_the_folder_is_told_without_a_request() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut events = Events::follow(&stage.client, STORE, None);
        stage.write("made", "1");
        let made = stage.until_current(&mut events, "made");
        stage.write("made", "longer");
        let changed = stage.until_current(&mut events, "made");
        assert_ne!(made.about().1, changed.about().1, "{layout}");
        stage.remove("made");
        let deleted = events.until("delete", "made");
        assert_eq!(deleted.about(), (Some("made"), None), "{layout}");
        stage.assert_only_read();
        let (status, log) = stage.serving.end(rustix::process::Signal::TERM);
        assert_eq!(status, Some(0), "{log}");
    }
}

#[test]
fn what_a_mount_of_the_folder_does_is_told_without_a_request() {
    for layout in ["plain", "dual"] {
        let stage = Stage::new(layout);
        let mut events = Events::follow(&stage.client, STORE, None);
        let option = format!("layout={layout}");
        let mount = stage.world.mount(&["-o", &option]);
        mount.sh("echo 1 > mnt/shared/note.txt");
        stage.until_current(&mut events, "note.txt");
        assert_eq!(stage.client.get(&stage.record("note.txt")).body, b"1\n");
        mount.sh("echo more >> mnt/shared/note.txt");
        stage.until_current(&mut events, "note.txt");
        mount.sh("rm mnt/shared/note.txt");
        events.until("delete", "note.txt");
        stage.assert_only_read();
        mount.unmount();
    }
}

#[test]
fn what_other_programs_did_during_a_break_is_told_afterwards() {
    for layout in LAYOUTS {
        let stage = Stage::new(layout);
        let mut events = Events::follow(&stage.client, STORE, None);
        stage.write("first", "1");
        let first = stage.until_current(&mut events, "first");
        drop(events);
        stage.write("second", "2");
        stage.remove("first");
        let mut events = Events::follow(&stage.client, STORE, Some(&first.id));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let event = events.next().unwrap();
            let about = (event.kind.clone(), event.about().0.unwrap().to_owned());
            // A write of two files is told once or twice.
            if !seen.contains(&about) && about != ("put".to_owned(), "first".to_owned()) {
                seen.push(about);
            }
        }
        seen.sort();
        let wanted = [("delete", "first"), ("put", "second")];
        let wanted = wanted.map(|(kind, key)| (kind.to_owned(), key.to_owned()));
        assert_eq!(seen, wanted, "{layout}");
        stage.assert_only_read();
    }
}
