//! Many threads, and two openings of one folder, on the same records. No kernel mount.
#![allow(clippy::unwrap_used)]

mod dir_world;

use dir_world::{World, name, options};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Barrier};
use storefs::backend::dir::{CommitIf, Folder, Layout, Store};
use storefs::error::Kind;
use storefs::record::ContentType;

const ALL: [Layout; 4] = [Layout::Plain, Layout::Js, Layout::Python, Layout::Dual];
const TYPES: [&str; 5] = [
    "application/json; charset=utf-8",
    "text/html; charset=utf-8",
    "application/octet-stream",
    "application/x-special",
    "image/png",
];
const KEYS: [&str; 6] = ["index", "index.html", "a!", "INPUT", "data.v1", "x"];
/// What a racer may meet because another one was faster.
const MISSED: [Kind; 3] = [Kind::NotFound, Kind::Exists, Kind::Stale];

/// The bytes of one version: its length is part of it, so that a mixture shows.
fn version(n: u64) -> Vec<u8> {
    format!("{n};")
        .repeat(usize::try_from(n % 97 + 1).unwrap() * 40)
        .into_bytes()
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).unwrap();
    let n: u64 = text.split(';').next().unwrap().parse().unwrap();
    version(n) == bytes
}

fn write(
    folder: &Folder,
    store: &Store,
    key: &str,
    n: u64,
    only_if: &CommitIf,
) -> Result<(), Kind> {
    let mut draft = folder.draft(0o644).unwrap();
    draft.file.write_all_at(&version(n), 0).unwrap();
    let kind = TYPES[usize::try_from(n).unwrap() % TYPES.len()];
    let kind = ContentType::stored(kind);
    store
        .commit(&mut draft, key, Some(&kind), only_if, n.is_multiple_of(2))
        .map(drop)
        .map_err(|error| error.kind())
}

/// 16 threads, half of them in either of two openings of the folder.
fn race(world: &World, layout: Layout, run: impl Fn(u64, &Folder, &Store) + Send + Sync + 'static) {
    let run = Arc::new(run);
    let start = Arc::new(Barrier::new(16));
    let second = world.again(options(layout));
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let (run, start) = (run.clone(), start.clone());
            let (folder, store) = match n % 2 {
                0 => (world.folder.clone(), world.store.clone()),
                _ => second.clone(),
            };
            std::thread::spawn(move || {
                start.wait();
                run(n, &folder, &store);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn whatever_races_every_record_stays_whole_and_nothing_is_left_over() {
    for layout in ALL {
        let world = World::new(layout);
        race(&world, layout, |racer, folder, store| {
            for round in 0..40 {
                let n = racer * 1000 + round * 7 + 1;
                let key = KEYS[usize::try_from(n % 6).unwrap()];
                let other = KEYS[usize::try_from((n / 6) % 6).unwrap()];
                let result = match n % 5 {
                    0 => store.remove(key).map_err(|error| error.kind()),
                    1 => store
                        .rename(key, store, other, n.is_multiple_of(2))
                        .map(drop)
                        .map_err(|error| error.kind()),
                    2 => store
                        .find(key)
                        .map_err(|error| error.kind())
                        .and_then(|(place, _)| {
                            let mut bytes = Vec::new();
                            let mut file =
                                store.open(&place, false).map_err(|error| error.kind())?;
                            file.read_to_end(&mut bytes).unwrap();
                            assert!(is_whole(&bytes), "a mixture of {} bytes", bytes.len());
                            Ok(())
                        }),
                    _ => write(folder, store, key, n, &CommitIf::Any),
                };
                if let Err(kind) = result {
                    assert!(MISSED.contains(&kind), "{kind:?}");
                }
            }
        });
        let (_folder, fresh) = world.again(options(layout));
        let mut files: BTreeSet<String> = world.files();
        for key in world.names() {
            let bytes = world.read(&key);
            assert!(is_whole(&bytes), "{layout:?} {key}");
            let (place, _) = fresh.find(&key).unwrap();
            assert_eq!(
                world.type_of(&key),
                fresh.content_type(&key, &place).unwrap().as_str()
            );
            let sidecars = [
                format!("{}.__metadata__.json", place.file),
                format!("{key}.__metadata__.json"),
            ];
            let encoded = key.replace('!', "%21");
            files.remove(&*place.file);
            files.remove(&encoded);
            files.remove(&format!("{encoded}.__metadata__.json"));
            for sidecar in sidecars {
                files.remove(&sidecar);
            }
        }
        assert_eq!(files, BTreeSet::new(), "{layout:?}: left over");
        assert_eq!(world.temporaries(), 0);
        for key in world.names() {
            world.store.remove(&key).unwrap();
        }
        assert_eq!(world.files(), BTreeSet::new(), "{layout:?}");
    }
}

#[test]
fn of_16_creators_in_two_openings_one_wins() {
    for layout in ALL {
        let world = World::new(layout);
        for key in KEYS {
            let wins = Arc::new(std::sync::Mutex::new(Vec::new()));
            let counted = wins.clone();
            race(&world, layout, move |racer, folder, store| {
                match write(folder, store, key, racer + 1, &CommitIf::Absent) {
                    Ok(()) => counted.lock().unwrap().push(racer + 1),
                    Err(kind) => assert_eq!(kind, Kind::Exists),
                }
            });
            let wins = wins.lock().unwrap();
            assert_eq!(wins.len(), 1, "{layout:?} {key}");
            assert_eq!(world.read(key), version(wins[0]));
        }
    }
}

#[test]
fn two_openings_see_each_others_records_at_once() {
    for layout in ALL {
        let world = World::new(layout);
        let (folder, store) = world.again(options(layout));
        for n in 0..50 {
            write(&folder, &store, "a", n, &CommitIf::Any).unwrap();
            assert_eq!(world.read("a"), version(n), "{layout:?}");
            let kind = TYPES[usize::try_from(n).unwrap() % TYPES.len()];
            assert_eq!(world.type_of("a"), kind, "{layout:?}");
            world.store.remove("a").unwrap();
            assert_eq!(store.find("a").unwrap_err().kind(), Kind::NotFound);
        }
        let other = folder.create_store(&name("other"), 0o755).unwrap();
        write(&folder, &other, "b", 1, &CommitIf::Any).unwrap();
        let seen = world.folder.store(&name("other")).unwrap();
        assert_eq!(seen.find("b").unwrap().1.size, version(1).len() as u64);
        fs::remove_dir_all(world.storage("key_value_stores")).unwrap();
        let gone = world.folder.store(&name("other")).unwrap_err();
        assert_eq!(gone.kind(), Kind::StoreNotFound);
        world.folder.create_store(&name("other"), 0o755).unwrap();
    }
}
