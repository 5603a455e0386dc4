//! Two mounts of one folder in which one record is made at the same time. On a disk both makers have one file; here each has a
//! draft of his own until he has finished.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use support::{Mount, World, type_of};

const LAYOUTS: [&str; 4] = ["plain", "js", "python", "dual"];

/// A folder that is mounted twice.
fn meeting(layout: &str) -> (World, Mount, Mount) {
    let world = World::new();
    let option = format!("layout={layout}");
    let mounts = ["one", "two"].map(|name| world.mount_at(name, &["-o", &option]));
    let [one, two] = mounts;
    (world, one, two)
}

fn appended(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(path).unwrap()
}

// README: S23, S94
#[test]
fn lines_appended_to_a_record_that_two_mounts_make_at_once_are_all_there() {
    for layout in LAYOUTS {
        let (world, one, two) = meeting(layout);
        let (first, second) = (one.path("default/log"), two.path("default/log"));
        let mut a = appended(&first);
        let mut b = appended(&second);
        a.write_all(b"a1\n").unwrap();
        b.write_all(b"b1\n").unwrap();
        drop(a);
        // What is forced to the disk joins; what comes then does as well.
        b.sync_all().unwrap();
        appended(&first).write_all(b"a2\n").unwrap();
        b.write_all(b"b2\n").unwrap();
        drop(b);
        appended(&second).write_all(b"b3\n").unwrap();
        for path in [&first, &second] {
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(text, "a1\nb1\na2\nb2\nb3\n", "{layout}");
        }
        assert_eq!(type_of(&second), "text/plain; charset=utf-8", "{layout}");
        drop((one, two));
        let names = fs::read_dir(world.source("default")).unwrap().count();
        let expected = match layout {
            "plain" | "js" => 1,
            "python" => 2,
            _ => 3,
        };
        assert_eq!(names, expected, "{layout}");
    }
}

// README: S23, S94
#[test]
fn mounts_that_append_in_a_loop_lose_no_line_of_a_record_that_is_not_there_yet() {
    for round in 0..12 {
        let (_world, one, two) = meeting(LAYOUTS[round % LAYOUTS.len()]);
        thread::scope(|scope| {
            for (name, mount) in [("one", &one), ("two", &two)] {
                let path = mount.path("default/log");
                scope.spawn(move || {
                    for n in 0..20 {
                        writeln!(appended(&path), "{name} {n}").unwrap();
                    }
                });
            }
        });
        one.sync();
        let text = fs::read_to_string(one.path("default/log")).unwrap();
        assert_eq!(text.lines().count(), 40, "round {round}: {text}");
    }
}

// README: S23
#[test]
fn who_only_makes_sure_that_a_record_is_there_takes_no_bytes_from_it() {
    for layout in LAYOUTS {
        let (_world, one, two) = meeting(layout);
        let path = two.path("default/key");
        let touched = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        fs::write(one.path("default/key"), "theirs").unwrap();
        drop(touched.unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs", "{layout}");
        // Who asks for an empty file gets one.
        let emptied = File::create(two.path("default/other")).unwrap();
        fs::write(one.path("default/other"), "theirs").unwrap();
        drop(emptied);
        two.sync();
        one.sync();
        for mount in [&one, &two] {
            let text = fs::read_to_string(mount.path("default/other")).unwrap();
            assert_eq!(text, "", "{layout}");
        }
    }
}
