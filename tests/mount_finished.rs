//! When a written file appears to others: whole, and only when the program that opened it is done with it.
#![allow(clippy::unwrap_used)]

mod kernel;

use kernel::{ABSENT, EVERY, Mount, text, values};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

/// Runs a script that writes OUTPUT, as a new record and over an old value, and asserts what a reader of the folder saw:
/// nothing but the value before and the whole new one, which is there when the script has ended.
fn only_whole_values(script: &str, whole: &str) {
    seen_while(script, whole, false);
}

/// As `only_whole_values`, for a script whose last descriptor is closed by another process than the one that opened it:
/// that close does not wait for the commit.
fn only_whole_values_soon(script: &str, whole: &str) {
    seen_while(script, whole, true);
}

fn seen_while(script: &str, whole: &str, soon: bool) {
    for way in EVERY {
        let mount = Mount::new(way);
        for before in [ABSENT, "old value\n"] {
            if before != ABSENT {
                mount.sh(&format!("rm -f OUTPUT; printf '%s' '{before}' > OUTPUT"));
            }
            let watch = mount.watch("OUTPUT");
            mount.sh(script);
            if soon {
                mount.wait_for("OUTPUT", whole);
            }
            assert_eq!(watch.seen(), values([before, whole]), "{way}: {script}");
            assert_eq!(mount.read("OUTPUT"), whole, "{way}: {script}");
        }
    }
}

// README: S12
#[test]
fn an_echo_appears_whole() {
    only_whole_values("echo word > OUTPUT", "word\n");
}

// README: S13
#[test]
fn a_group_of_programs_appears_when_the_group_is_done() {
    only_whole_values(
        "( /bin/echo one; sleep 0.05; /bin/echo two; sleep 0.05 ) > OUTPUT",
        "one\ntwo\n",
    );
}

#[test]
fn a_braced_group_appears_when_it_is_done() {
    only_whole_values(
        "{ /bin/echo one; sleep 0.05; echo two; sleep 0.05; } > OUTPUT",
        "one\ntwo\n",
    );
}

// README: S12
#[test]
fn a_loop_appears_when_it_is_done() {
    only_whole_values(
        "for word in one two three; do /bin/echo $word; sleep 0.03; done > OUTPUT",
        "one\ntwo\nthree\n",
    );
    only_whole_values(
        "i=0; while [ $i -lt 3 ]; do echo $i; i=$((i + 1)); sleep 0.03; done > OUTPUT",
        "0\n1\n2\n",
    );
}

#[test]
fn a_pipeline_appears_when_its_last_program_is_done() {
    only_whole_values(
        "(echo b; sleep 0.05; echo a) | sort > OUTPUT; (sleep 0.05) | cat >> /dev/null",
        "a\nb\n",
    );
}

#[test]
fn a_program_in_the_background_appears_when_it_is_done() {
    only_whole_values(
        "bash -c 'echo one; sleep 0.1; echo two; sleep 0.05' > OUTPUT & wait",
        "one\ntwo\n",
    );
}

#[test]
fn a_program_that_outlives_its_opener_never_shows_a_truncated_value() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let watch = mount.watch("OUTPUT");
        // The group's shell opens the file, hands it on and ends at once.
        mount.sh("( bash -c 'sleep 0.1; echo one; sleep 0.1; echo two' & ) > OUTPUT");
        mount.wait_for("OUTPUT", "one\ntwo\n");
        let seen = watch.seen();
        // Nobody is left to say when the file is finished, so what the program has written may show in between.
        let allowed = values(["old\n", "one\n", "one\ntwo\n"]);
        assert!(seen.is_subset(&allowed), "{way}: {seen:?}");
        assert_eq!(mount.read("OUTPUT"), "one\ntwo\n", "{way}");
    }
}

// README: S13
#[test]
fn a_file_given_to_a_child_process_appears_when_the_child_is_done() {
    // The parent closes the file first, without having written, and lives on.
    only_whole_values_soon(
        "python3 - <<'PY'
import subprocess
with open('OUTPUT', 'wb') as out:
    child = subprocess.Popen(['perl', '-e', '$| = 1; print qq{one\\n}; select undef, undef, undef, 0.1; print qq{two\\n}'], stdout=out)
child.wait()
PY",
        "one\ntwo\n",
    );
    // The parent waits and closes it last.
    only_whole_values(
        "python3 - <<'PY'
import subprocess
with open('OUTPUT', 'wb') as out:
    subprocess.run(['bash', '-c', 'echo one; sleep 0.1; echo two; sleep 0.05'], stdout=out, check=True)
PY",
        "one\ntwo\n",
    );
}

// README: S13
#[test]
fn a_child_that_closes_an_inherited_descriptor_commits_nothing() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let watch = mount.watch("OUTPUT");
        let mut file = File::create(mount.path("default/OUTPUT")).unwrap();
        file.write_all(b"one ").unwrap();
        // The child has the file as its standard output, writes nothing and ends.
        let child = Command::new("true")
            .stdout(Stdio::from(file.try_clone().unwrap()))
            .status();
        assert!(child.unwrap().success());
        file.write_all(b"two").unwrap();
        drop(file);
        let seen = watch.seen();
        // `try_clone` made a second descriptor of this very process, which closes when the child has started: that
        // close is this process's own and shows what was written until then.
        let allowed = values(["old\n", "one ", "one two"]);
        assert!(seen.is_subset(&allowed), "{way}: {seen:?}");
        assert_eq!(
            mount.beside("OUTPUT").map(|b| text(&b)).as_deref(),
            Some("one two"),
            "{way}"
        );
    }
}

#[test]
fn a_descriptor_kept_by_the_shell_never_shows_a_truncated_value() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let watch = mount.watch("OUTPUT");
        mount.sh(
            "exec 3> OUTPUT; sleep 0.03; echo one >&3; sleep 0.03; /bin/echo two >&3; sleep 0.03; echo three >&3
             exec 3>&-; cat OUTPUT > \"$OUT/copy\"",
        );
        let seen = watch.seen();
        // After its first close the shell's writes go in place, one whole line at a time.
        let allowed = values(["old\n", "one\n", "one\ntwo\n", "one\ntwo\nthree\n"]);
        assert!(seen.is_subset(&allowed), "{way}: {seen:?}");
        assert!(seen.contains("one\ntwo\nthree\n"), "{way}: {seen:?}");
        let copy = fs::read_to_string(mount.outside().join("copy")).unwrap();
        assert_eq!(copy, "one\ntwo\nthree\n", "{way}");
    }
}

// README: S17
#[test]
fn what_is_written_after_a_close_is_not_lost() {
    for way in EVERY {
        let mount = Mount::new(way);
        let path = mount.path("default/OUTPUT");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"first").unwrap();
        drop(file.try_clone().unwrap()); // the first close of this process commits
        assert_eq!(
            mount.beside("OUTPUT").as_deref(),
            Some(&b"first"[..]),
            "{way}"
        );
        file.write_all(b" second").unwrap();
        drop(file);
        assert_eq!(
            mount.beside("OUTPUT").as_deref(),
            Some(&b"first second"[..]),
            "{way}"
        );
        assert_eq!(mount.read("OUTPUT"), "first second", "{way}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 12, "{way}");
    }
}

#[test]
fn the_writer_reads_its_own_draft_and_others_the_old_value() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        let mut file = File::options()
            .read(true)
            .write(true)
            .truncate(true)
            .open(mount.path("default/OUTPUT"))
            .unwrap();
        file.write_all(b"new").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut mine = String::new();
        file.read_to_string(&mut mine).unwrap();
        assert_eq!(mine, "new", "{way}");
        assert_eq!(
            mount.beside("OUTPUT").as_deref(),
            Some(&b"old\n"[..]),
            "{way}"
        );
        drop(file);
        assert_eq!(
            mount.beside("OUTPUT").as_deref(),
            Some(&b"new"[..]),
            "{way}"
        );
    }
}

// README: S19
#[test]
fn an_open_file_keeps_the_version_it_opened() {
    for way in EVERY {
        let mount = Mount::new(way);
        mount.sh("echo old version > OUTPUT");
        let mut reader = File::open(mount.path("default/OUTPUT")).unwrap();
        mount.sh("echo new > OUTPUT");
        let mut kept = String::new();
        reader.read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "old version\n", "{way}");
        assert_eq!(mount.read("OUTPUT"), "new\n", "{way}");
        // Again while the first reader is still there: every version has its own file.
        mount.sh("echo newer > OUTPUT; cmp OUTPUT <(echo newer)");
        reader.seek(SeekFrom::Start(4)).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "version\n", "{way}");
    }
}

#[test]
fn a_truncated_file_that_is_never_written_is_an_empty_record() {
    only_whole_values_soon(": > OUTPUT", "");
    only_whole_values_soon("truncate -s 0 OUTPUT; : > OUTPUT", "");
}

// README: S20
#[test]
fn a_writer_that_is_killed_leaves_a_record_and_no_draft() {
    for way in EVERY {
        let mut mount = Mount::new(way);
        mount.sh("echo old > OUTPUT");
        mount.sh("bash -c 'echo part; kill -9 $$' > OUTPUT || true");
        // A killed program's files are closed like any other's.
        assert_eq!(mount.read("OUTPUT"), "part\n", "{way}");
        mount.stop();
        assert_eq!(
            mount.temporaries(),
            [""; 0].map(std::path::PathBuf::from),
            "{way}"
        );
    }
}
