//! Ordinary shell tools on a mount, through the real kernel. They never know what they work on, and must not have to.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::{ABSENT, DUAL, EVERY, Mount, PLAIN, names_in, text, values};
use rustix::fs::inotify;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

/// What happened to the names of a directory: how often each came to be, and how often it was written in place.
#[derive(Default, Debug)]
struct Events {
    arrived: BTreeMap<String, usize>,
    modified: BTreeMap<String, usize>,
}

/// Counts what `work` does to the files of a directory.
fn events_in(folder: &Path, work: impl FnOnce()) -> Events {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).unwrap();
    let wanted =
        inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::MODIFY;
    inotify::add_watch(&watch, folder, wanted).unwrap();
    work();
    let mut found = Events::default();
    let mut space = [MaybeUninit::uninit(); 64 * 1024];
    let mut reader = inotify::Reader::new(&watch, &mut space);
    while let Ok(event) = reader.next() {
        let name = event
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let kind = if event.events().contains(inotify::ReadFlags::MODIFY) {
            &mut found.modified
        } else {
            &mut found.arrived
        };
        *kind.entry(name).or_default() += 1;
    }
    found
}

#[test]
fn cat_prints_what_another_program_left_in_the_folder() {
    for way in EVERY {
        let mount = Mount::new(way);
        let file = if way.layout == "plain" {
            "note"
        } else {
            "note.txt"
        };
        fs::write(mount.backing("default").join(file), "hello\n").unwrap();
        mount.sync();
        assert_eq!(mount.sh("cat note; wc -c <note"), "hello\n6\n", "{way}");
        assert_eq!(mount.names(), ["note"], "{way}");
    }
}

#[test]
fn an_echo_is_exactly_one_commit() {
    for way in EVERY {
        let mount = Mount::new(way);
        let value_file = if way.layout == "plain" {
            "OUTPUT"
        } else {
            "OUTPUT.txt"
        };
        // Once for a new record, once for one that is there.
        for word in ["first word", "second word"] {
            let commits = || mount.status()["commits"].as_u64().unwrap();
            let before = commits();
            let events = events_in(&mount.backing("default"), || {
                mount.sh(&format!("echo {word} > OUTPUT"));
            });
            assert_eq!(commits() - before, 1, "{way}");
            assert_eq!(
                events.arrived.get(value_file),
                Some(&1),
                "{way}: {events:?}"
            );
            assert_eq!(events.modified.get(value_file), None, "{way}: {events:?}");
            assert_eq!(
                mount.beside("OUTPUT").map(|b| text(&b)),
                Some(format!("{word}\n")),
                "{way}"
            );
        }
    }
}

// README: S18
#[test]
fn appending_adds_to_the_end() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("for i in 1 2 3 4 5; do printf '%s ' $i >> log; done; printf 'end' >> log");
        assert_eq!(mount.read("log"), "1 2 3 4 5 end", "{way}");
        assert_eq!(
            mount.beside("log").map(|b| text(&b)).as_deref(),
            Some("1 2 3 4 5 end"),
            "{way}"
        );
    }
}

#[test]
fn tee_dd_and_sort_write_what_they_should() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(
            "printf 'b\\na\\nc\\n' | tee list > \"$OUT/copy\"; cmp list \"$OUT/copy\"
             sort -o list list; cat list
             echo d | tee -a list > /dev/null; tail -n 1 list
             head -c 300000 /dev/urandom > \"$OUT/noise\"
             dd if=\"$OUT/noise\" of=noise bs=4096 status=none; cmp noise \"$OUT/noise\"
             dd if=/dev/zero of=noise bs=1 count=3 seek=100 conv=notrunc status=none
             dd if=/dev/zero of=\"$OUT/noise\" bs=1 count=3 seek=100 conv=notrunc status=none
             cmp noise \"$OUT/noise\"; stat -c %s noise
             dd if=noise of=\"$OUT/part\" bs=1000 skip=7 count=3 status=none; stat -c %s \"$OUT/part\"
             truncate -s 10 noise; stat -c %s noise; cmp -n 10 noise \"$OUT/noise\"",
        );
        assert_eq!(said, "a\nb\nc\nd\n300000\n3000\n10\n", "{way}");
    }
}

#[test]
fn copies_keep_bytes_times_modes_and_types() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(
            "mkdir \"$OUT/in\"; cd \"$OUT/in\"
             echo '{\"a\":1}' > page; echo text > text.txt; head -c 70000 /dev/urandom > noise.bin
             setfattr -n user.mime_type -v 'text/html; charset=utf-8' page
             chmod 640 text.txt; touch -d '2001-02-03 04:05:06.789 UTC' page text.txt noise.bin
             cp -a \"$OUT/in/.\" \"$MNT/default/\"; mkdir \"$MNT/other\"; cp -a \"$MNT/default/.\" \"$MNT/other/\"
             mkdir \"$OUT/back\"; cp -a \"$MNT/other/.\" \"$OUT/back/\"; diff -r \"$OUT/in\" \"$OUT/back\"
             cd \"$OUT/back\"; stat -c '%n %a %.3Y' page text.txt
             getfattr --only-values -n user.mime_type page",
        );
        let time = "981173106.789";
        assert_eq!(
            said,
            format!("page 644 {time}\ntext.txt 640 {time}\ntext/html; charset=utf-8"),
            "{way}"
        );
    }
}

// README: S26
#[test]
fn mv_carries_bytes_and_type_within_and_between_stores() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("mkdir \"$MNT/other\"; echo '<p>' > a
             setfattr -n user.mime_type -v 'text/html; charset=utf-8' a
             echo old > b; mv a b; test ! -e a
             mv b \"$MNT/other/c\"; test ! -e b; cp \"$MNT/other/c\" \"$OUT/c\"
             mv \"$OUT/c\" d; test ! -e \"$OUT/c\"
             mv \"$MNT/other/c\" .");
        assert_eq!(mount.names(), ["c", "d"], "{way}");
        assert_eq!(names_in(&mount.path("other")), [""; 0], "{way}");
        assert_eq!(mount.read("c"), "<p>\n", "{way}");
        assert_eq!(mount.content_type("c"), "text/html; charset=utf-8", "{way}");
        assert_eq!(mount.beside("b"), None, "{way}");
        assert_eq!(
            mount.beside("c").map(|b| text(&b)).as_deref(),
            Some("<p>\n"),
            "{way}"
        );
    }
}

// README: S65
#[test]
fn rm_leaves_nothing_behind() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh(
            "touch empty; echo x > a.txt; echo '{}' > b.json; rm empty a.txt; rm -f b.json missing",
        );
        assert_eq!(mount.names(), [""; 0], "{way}");
        assert_eq!(names_in(&mount.backing("default")), [""; 0], "{way}");
        mount.sh("mkdir \"$MNT/gone\"; echo x > \"$MNT/gone/a\"; rm -r \"$MNT/gone\"; test ! -e \"$MNT/gone\"");
        assert!(!mount.backing("gone").exists(), "{way}");
    }
}

#[test]
fn a_second_rsync_copies_nothing() {
    for way in EVERY {
        let mount = Mount::new(way);
        let said = mount.sh(
            "mkdir \"$OUT/in\"
             for i in $(seq 20); do echo \"record $i\" > \"$OUT/in/r$i.txt\"; done
             head -c 400000 /dev/urandom > \"$OUT/in/noise.bin\"; touch -d '2001-02-03 UTC' \"$OUT/in/\"*
             setfattr -n user.mime_type -v text/x-special \"$OUT/in/r7.txt\"
             rsync -aX --out-format=%n \"$OUT/in/\" \"$MNT/default/\" | grep -vc '/$'
             rsync -aX --out-format=%n \"$OUT/in/\" \"$MNT/default/\" | grep -vc '/$' || true
             echo more >> \"$OUT/in/r3.txt\"
             rsync -aX --out-format=%n \"$OUT/in/\" \"$MNT/default/\" | grep -v '/$'
             mkdir \"$OUT/back\"; rsync -a --delete \"$MNT/default/\" \"$OUT/back/\"; diff -r \"$OUT/in\" \"$OUT/back\"
             rsync -a --delete \"$OUT/empty/\" . 2>/dev/null || true",
        );
        assert_eq!(said, "21\n0\nr3.txt\n", "{way}");
        assert_eq!(mount.content_type("r7.txt"), "text/x-special", "{way}");
        assert_eq!(
            mount.names().len(),
            21,
            "{way}: rsync's temporaries are gone"
        );
    }
}

#[test]
fn tar_packs_and_unpacks_with_types() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        // What stat says of a directory may be a second old, and tar ends with 1 when it sees it change.
        mount.sh(
            "echo one > a; echo '{\"two\":2}' > b; head -c 100000 /dev/urandom > c.bin
             setfattr -n user.mime_type -v text/x-one a
             tar --xattrs --xattrs-include='user.*' -cf \"$OUT/all.tar\" -C \"$MNT\" default || [[ $? == 1 ]]
             mkdir \"$OUT/un\"; tar -xf \"$OUT/all.tar\" -C \"$OUT/un\"; diff -r . \"$OUT/un/default\"
             mv \"$MNT/default\" \"$MNT/before\"
             tar --xattrs --xattrs-include='user.*' -xf \"$OUT/all.tar\" -C \"$MNT\" 2>&1
             diff -r \"$MNT/before\" \"$MNT/default\"",
        );
        assert_eq!(mount.content_type("a"), "text/x-one", "{way}");
        assert!(
            mount.content_type("b").starts_with("application/json"),
            "{way}"
        );
    }
}

#[test]
fn jq_find_and_grep_see_the_records() {
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        let said = mount.sh(
            "mkdir \"$MNT/other\"; echo '{\"n\":1,\"word\":\"needle\"}' > a.json; echo '{\"n\":2}' > \"$MNT/other/b\"
             echo hay > c.txt
             jq .n a.json \"$MNT/other/b\"; jq '.n = 5' a.json | tee \"$OUT/new\" > /dev/null; cat \"$OUT/new\" > a.json; jq .n a.json
             cd \"$MNT\"; grep -rl needle . ; find . -type f | sort; find . -name '*.txt' -size -2 -printf '%f %s\\n'
             find . -mindepth 1 -maxdepth 1 -type d | sort",
        );
        assert_eq!(
            said,
            "1\n2\n5\n./default/a.json\n./default/a.json\n./default/c.txt\n./other/b\nc.txt 4\n./default\n./other\n",
            "{way}"
        );
    }
}

#[test]
fn curl_stores_the_type_the_server_said() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let answers = thread::spawn(move || {
        for _ in 0..2 {
            let (mut peer, _) = server.accept().unwrap();
            let mut request = [0_u8; 4096];
            let _ = peer.read(&mut request).unwrap();
            peer.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-special; v=2\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbytes",
            )
            .unwrap();
        }
    });
    for way in [PLAIN, DUAL] {
        let mount = Mount::new(way);
        mount.sh(&format!(
            "curl -sS --noproxy '*' --xattr -o page.html http://127.0.0.1:{port}/x"
        ));
        assert_eq!(mount.read("page.html"), "bytes", "{way}");
        assert_eq!(
            mount.content_type("page.html"),
            "application/x-special; v=2",
            "{way}"
        );
    }
    answers.join().unwrap();
}

#[test]
fn a_redirected_program_replaces_the_record_at_its_end() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old value > OUTPUT");
        let watch = mount.watch("OUTPUT");
        mount.sh("bash -c 'echo one; sleep 0.1; echo two; sleep 0.1' > OUTPUT");
        assert_eq!(watch.seen(), values(["old value\n", "one\ntwo\n"]), "{way}");
        let watch = mount.watch("NEW");
        mount.sh("bash -c 'echo one; sleep 0.1; echo two; sleep 0.1' > NEW");
        assert_eq!(watch.seen(), values([ABSENT, "one\ntwo\n"]), "{way}");
    }
}

// README: S35
#[test]
fn shells_count_under_a_lock_file_that_they_append_to() {
    for way in EVERY {
        let mount = Mount::new(way);
        let counted = mount.sh(
            r#"
            cd "$MNT/default"; echo 0 >count
            for shell in 1 2 3; do
                for i in $(seq 10); do (flock 9; n=$(cat count); echo $((n + 1)) >count) 9>>count.lock; done &
            done
            wait; cat count"#,
        );
        assert_eq!(counted, "30\n", "{way}");
    }
}

// README: S19
#[test]
fn a_log_that_is_cut_in_place_is_the_one_that_is_written() {
    for way in EVERY {
        let mount = Mount::new(way);
        let left = mount.sh(r#"
            cd "$MNT/default"
            exec 5>>log; echo one >&5; truncate -s 0 log; echo two >&5; cat log
            : >log; echo three >&5; cat log"#);
        assert_eq!(left, "two\n", "{way}");
    }
}

/// A program that opens its own output by name truncates or continues what it has, and nothing is lost.
#[test]
fn a_program_that_opens_its_output_by_its_descriptor_meets_the_same_file() {
    for way in EVERY {
        let mount = Mount::new(way);
        let written = mount.sh(r#"
            cd "$MNT/default"
            for record in new old; do
                sh -c 'echo one; echo two >/dev/stdout; echo three' >$record
                tr '\n' ' ' <$record; stat -c %s $record
                echo before >old
            done
            exec 3>in; echo a >&3; (exec 4>/proc/self/fd/3; echo bb >&4); exec 3>&-; cat in"#);
        assert_eq!(written, "two three 10\ntwo three 10\nbb\n", "{way}");
    }
}

// README: S55
#[test]
fn what_programs_write_under_a_temporary_name_has_the_type_of_its_own() {
    for way in EVERY {
        let mount = Mount::new(way);
        let types = mount.sh(
            r#"
            cd "$OUT"; mkdir sent; echo 'a{color:red}' >sent/style.css; echo x,y >sent/d.csv; echo '# h' >sent/r.md
            rsync -a sent/ "$MNT/default/"; cd "$MNT/default"
            echo text >set.AbC123; setfattr -n user.mime_type -v text/x-set set.AbC123; mv set.AbC123 set.css
            echo '<p>' >page.html; mv page.html page
            for record in style.css d.csv r.md set.css page; do
                getfattr --only-values -n user.mime_type $record | cut -d';' -f1; echo
            done | xargs"#,
        );
        assert_eq!(
            types, "text/css text/csv text/markdown text/x-set text/html\n",
            "{way}"
        );
    }
}
