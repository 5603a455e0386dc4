//! Another command in the place of the one that runs.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{Running, attempt, kept, only_run, script, store_of_last};
use serde_json::Value;
use std::fs;
use std::process::Command;
use support::{STOREFS, World, clean, said, wait_until};

/// A program that shows what it finds, to be run by another command of the same run.
fn step(world: &World, name: &str, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = world.root().join(name);
    let text = format!("#!/bin/bash\nset -euo pipefail\n{body}\n");
    // Another program writes it: a file that this one had open could not be run.
    world.sh(&format!("cat >{name} <<'STEP'\n{text}STEP\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

// README: S104, S105
#[test]
fn a_run_metamorphs_twice() {
    let world = World::new();
    let show = r#"cd "$ACTOR_MOUNT/default"; echo "$ACTOR_INPUT_KEY $APIFY_INPUT_KEY $CRAWLEE_INPUT_KEY: $(cat INPUT) $(readlink INPUT)""#;
    step(
        &world,
        "second",
        &format!(
            r#"{show}; echo "original: $(cat ../.storefs/INPUT)"; echo "$0 $*"; cd "$HERE"; printf 'a,b' | storefs metamorph -i - --content-type text/csv -- ./third; echo never"#
        ),
    );
    step(
        &world,
        "third",
        &format!(
            r#"{show}; ls; getfattr --only-values -n user.mime_type INPUT; echo; echo "original: $(cat ../.storefs/INPUT)"; echo "$ACTOR_RUN_ID $ACTOR_DEFAULT_KEY_VALUE_STORE_ID" >OUTPUT; exit 4"#
        ),
    );
    let here = format!("HERE={}", world.root().display());
    let said = attempt(
        &world,
        &["--input", r#"{"n":0}"#, "--env", &here],
        &format!(
            r#"{show} || true; cat "$ACTOR_MOUNT/default/INPUT" >/dev/null; cd "$HERE"; storefs metamorph --input '{{"n":1}}' -- ./second x 'y z'; echo never"#
        ),
    );
    assert_eq!(said.code, Some(4), "{said:?}");
    assert_eq!(
        said.out,
        "INPUT INPUT INPUT: {\"n\":0} \n\
         INPUT-METAMORPH-1 INPUT-METAMORPH-1 INPUT-METAMORPH-1: {\"n\":1} INPUT-METAMORPH-1\n\
         original: {\"n\":0}\n\
         ./second x y z\n\
         INPUT-METAMORPH-2 INPUT-METAMORPH-2 INPUT-METAMORPH-2: a,b INPUT-METAMORPH-2\n\
         INPUT\nINPUT-METAMORPH-1\nINPUT-METAMORPH-2\n\
         text/csv\n\
         original: {\"n\":0}\n",
        "{said:?}"
    );
    let run = only_run(&world);
    let (id, store) = (run["id"].as_str().unwrap(), run["store"].as_str().unwrap());
    let output = fs::read_to_string(world.source(store).join("OUTPUT.txt")).unwrap();
    assert_eq!(output, format!("{id} {store}\n"));
    let input = fs::read_to_string(world.source(store).join("INPUT.json")).unwrap();
    assert_eq!(input, r#"{"n":0}"#);
}

// README: S104
#[test]
fn the_old_command_has_the_grace_to_end_and_the_time_of_the_run_goes_on() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"trap 'echo "old says bye"; exit' TERM; sleep 600 & storefs metamorph -- echo "new" & wait"#,
    );
    assert_eq!(shown, "old says bye\nnew\n");
    let said = attempt(
        &world,
        &["--timeout", "700ms"],
        "storefs metamorph -- sleep 600",
    );
    assert_eq!(said.code, Some(124), "{said:?}");
}

// README: S105
#[test]
fn without_an_input_it_stays_as_it_was() {
    let world = World::new();
    let show = r#"echo $ACTOR_INPUT_KEY; cd "$ACTOR_MOUNT/default"; cat INPUT && getfattr --only-values -n user.mime_type INPUT || echo none"#;
    let again = format!("storefs metamorph -- bash -c '{show}'");
    let mine = ["--content-type", "text/x-mine"];
    let options = [&["--store", "mine", "--input", "1"], &mine[..]].concat();
    assert_eq!(
        script(&world, &options, &again),
        "INPUT-METAMORPH-1\n1text/x-mine"
    );
    // It is that of the command before, and not what an earlier run left.
    step(
        &world,
        "second",
        r#"exec storefs metamorph -- cat "$ACTOR_MOUNT/default/INPUT""#,
    );
    let twice = "storefs metamorph --input 11 -- ./second";
    let options = ["--store", "mine", "--input", "2"];
    assert_eq!(script(&world, &options, twice), "11");
    let shown = script(&world, &["--store", "mine", "--input", "3"], &again);
    assert!(shown.starts_with("INPUT-METAMORPH-1\n3"), "{shown}");
    world.sh("cd $SRC/key_value_stores/mine; rm -f INPUT INPUT.*");
    let shown = script(&world, &["--store", "mine"], &format!("{again} 2>&1"));
    assert!(
        shown.starts_with("INPUT-METAMORPH-1\n") && shown.ends_with("none\n"),
        "{shown}"
    );
    assert!(
        !store_of_last(&world)
            .join("INPUT-METAMORPH-1.json")
            .exists()
    );
}

#[test]
fn a_long_input_and_one_that_is_no_json_pass() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"head -c 40000000 /dev/zero >zeros; storefs metamorph --input zeros -- bash -c 'stat -Lc %s "$ACTOR_MOUNT/default/INPUT"; cmp zeros "$ACTOR_MOUNT/default/INPUT"'"#,
    );
    assert_eq!(shown, "40000000\n");
}

// README: S104
#[test]
fn what_cannot_be_is_refused_and_the_command_goes_on() {
    let world = World::new();
    let shown = script(
        &world,
        &["--input", "1"],
        r#"
        ! storefs metamorph --input '{"a":' -- true 2>&1
        ! storefs metamorph --input 2 -- no-such-program 2>&1
        ! STOREFS_RUN_SOCKET=/nowhere storefs metamorph --input 2 -- true 2>&1
        touch plain; ! storefs metamorph --input 2 -- ./plain 2>&1
        ! storefs metamorph --input 2 -- /tmp 2>&1
        printf '#!/nowhere/sh\n' >script; chmod +x script; ! storefs metamorph --input 2 -- ./script 2>&1
        mkdir gone; ! (cd gone; rmdir ../gone; storefs metamorph --input 2 -- true 2>&1)
        cat "$ACTOR_MOUNT/default/INPUT"
        "#,
    );
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 8, "{shown}");
    let why = [
        "not execute it",
        "is a directory",
        "interpreter /nowhere/sh",
        "gone",
    ];
    for (line, why) in lines[3..7].iter().zip(why) {
        assert!(line.contains(why), "{why}: {shown}");
    }
    assert!(lines[0].contains("no JSON"), "{shown}");
    assert!(lines[1].contains("no such program"), "{shown}");
    assert!(lines[2].contains("does not answer"), "{shown}");
    assert_eq!(lines[7], "1");
    let mut outside = Command::new(STOREFS);
    let refused = said(clean(&mut outside).args(["metamorph", "--", "true"]));
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("storefs run"), "{refused:?}");
}

// README: S106
#[test]
fn the_apis_own_metamorph_says_what_to_use() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"curl -s -X POST -H "Authorization: Bearer $APIFY_TOKEN" --data '{}' -w '%{http_code}' \
            "$APIFY_API_BASE_URL/v2/actor-runs/$ACTOR_RUN_ID/metamorph?targetActorId=a~b""#,
    );
    assert!(
        shown.ends_with("501") && shown.contains("storefs metamorph --input"),
        "{shown}"
    );
}

#[test]
fn without_a_mount_it_metamorphs_too() {
    let world = World::new();
    let shown = script(
        &world,
        &["--no-mount", "--input", "1"],
        r#"storefs metamorph --input 2 -- sh -c 'curl -sf -H "Authorization: Bearer $APIFY_TOKEN" \
            "$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID/records/$ACTOR_INPUT_KEY"'"#,
    );
    assert_eq!(shown, "2");
    assert!(store_of_last(&world).join("INPUT.json").exists());
    let runs: Vec<Value> = kept(&world);
    assert_eq!(runs.len(), 1);
    let _ = Running::start;
}

// README: S104
#[test]
fn the_new_command_starts_where_it_was_asked_for_and_with_that_environment() {
    let world = World::new();
    let shown = script(
        &world,
        &[
            "--env",
            "KEPT=1",
            "--env",
            "CHANGED=1",
            "--env",
            "APIFY_USER_ID=me",
            "--env",
            "ACTOR_INPUT_KEY=MINE",
        ],
        r#"mkdir sub bin; printf '#!/bin/sh\nbasename "$PWD"; echo "$MINE $KEPT $CHANGED $APIFY_USER_ID $ACTOR_INPUT_KEY"; [ "$ACTOR_RUN_ID" != other ]\n' >bin/show
        chmod +x bin/show; bin=$PWD/bin; cd sub; MINE=2 CHANGED=3 ACTOR_RUN_ID=other PATH=$bin:$PATH storefs metamorph -- show"#,
    );
    assert_eq!(shown, "sub\n2 1 3 me INPUT-METAMORPH-1\n");
}

#[test]
fn no_log_shows_the_environment_of_a_metamorph() {
    let world = World::new();
    let mut command = runs::command(
        &world,
        &[
            "--no-mount",
            "--",
            "bash",
            "-c",
            "SECRET=xyzzy storefs metamorph -- true; sleep 100",
        ],
    );
    command.env("STOREFS_LOG", "debug");
    let said = Running::of(&mut command, std::process::Stdio::null()).ended();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.err
            .contains("asked over the control socket: metamorph"),
        "{}",
        said.err
    );
    let bytes = format!("{:?}", b"xyzzy").replace(['[', ']'], "");
    for secret in ["xyzzy", &bytes] {
        assert!(!said.err.contains(secret), "{}", said.err);
    }
}

#[test]
fn a_run_that_metamorphs_often_keeps_nothing_of_those_that_asked() {
    let world = World::new();
    step(
        &world,
        "again",
        r#"
        if [ "$1" -lt 30 ]; then exec storefs metamorph --input "$1" -- ./again $(($1 + 1)); fi
        asked() { cat /proc/$PPID/task/*/comm | grep -cx control || true; }
        until [ "$(asked)" -lt 5 ]; do sleep 0.02; done
        echo "$ACTOR_INPUT_KEY"
        "#,
    );
    assert_eq!(
        script(&world, &[], "exec ./again 0"),
        "INPUT-METAMORPH-30\n"
    );
}

/// What `storefs metamorph` ended with that a process of another session asked for, once that is told.
fn told(world: &World) -> String {
    let path = world.root().join("told");
    let read = || fs::read_to_string(&path).unwrap_or_default();
    wait_until("the metamorph is answered", || read().ends_with('\n'));
    let told = read();
    fs::remove_file(path).unwrap();
    told
}

// README: S104
#[test]
fn one_that_comes_after_the_end_of_the_command_is_refused_and_leaves_no_input() {
    let world = World::new();
    // The mount is held for a moment, so that the run is still there.
    step(
        &world,
        "late",
        r#"
        trap '' TERM
        exec 9>"$ACTOR_MOUNT/default/held"
        touch ready
        while kill -0 "$1" 2>/dev/null; do sleep 0.02; done
        storefs metamorph --input 2 -- echo second 2>why && code=0 || code=$?
        echo $code >told
        "#,
    );
    for start in ["setsid ./late $$ &", "./late $$ &"] {
        let said = attempt(
            &world,
            &["--input", "1"],
            &format!("rm -f ready; {start} until [ -e ready ]; do sleep 0.02; done"),
        );
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
        assert_eq!(told(&world), "1\n");
        let why = fs::read_to_string(world.root().join("why")).unwrap();
        assert!(why.contains("the command has ended"), "{why}");
        let store = store_of_last(&world);
        assert!(store.join("INPUT.json").exists());
        assert!(!store.join("INPUT-METAMORPH-1.json").exists());
    }
}

// README: S104
#[test]
fn one_that_comes_with_the_end_of_the_command_is_refused_or_takes_place() {
    let world = World::new();
    step(
        &world,
        "beside",
        "storefs metamorph --input 2 -- echo second 2>why && code=0 || code=$?\necho $code >told",
    );
    for hundredths in 0..8 {
        let wait = format!("setsid ./beside & sleep 0.{hundredths:02}");
        let said = attempt(&world, &[], &wait);
        let (code, took_place) = (told(&world), said.out == "second\n");
        assert_eq!(code == "0\n", took_place, "{code}: {said:?}");
    }
}

// README: S104
#[test]
fn one_that_comes_when_the_run_is_out_of_time_is_refused() {
    let world = World::new();
    let said = attempt(
        &world,
        &["--timeout", "500ms", "--grace", "60s"],
        r#"trap 'storefs metamorph --input 2 -- echo second 2>why || echo "refused" ; exit 3' TERM; while :; do sleep 0.02; done"#,
    );
    assert_eq!((said.code, said.out.as_str()), (Some(124), "refused\n"));
    assert!(
        !store_of_last(&world)
            .join("INPUT-METAMORPH-1.json")
            .exists()
    );
}

#[test]
fn a_metamorph_that_is_killed_leaves_nothing_of_its_input() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"
        mkdir tmp; export TMPDIR=$PWD/tmp
        # So that nobody answers.
        kill -STOP $PPID
        storefs metamorph --input '{"a":1}' -- true & asked=$!
        until ls -l /proc/$asked/fd | grep -q "$TMPDIR/"; do sleep 0.02; done
        kill -9 $asked; wait $asked || true
        kill -CONT $PPID
        ls -A tmp; echo end
        "#,
    );
    assert_eq!(shown, "end\n");
}
