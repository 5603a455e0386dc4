//! Stores that several runs, mounts and processes share.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{Running, kept, script};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use support::{World, wait_until};

// README: S94
#[test]
fn a_directory_made_in_a_run_is_the_store_of_that_name_for_all() {
    let world = World::new();
    let mount = world.mount(&[]);
    script(
        &world,
        &[],
        r#"
        mkdir "$ACTOR_MOUNT/results"
        echo '{"by":"shell"}' >"$ACTOR_MOUNT/results/one"
        A="Authorization: Bearer $APIFY_TOKEN"; V="$APIFY_API_BASE_URL/v2/key-value-stores"
        [ "$(curl -sf -H "$A" "$V/results/records/one" | jq -r .by)" = shell ]
        # The SDKs open a store by its name so.
        id=$(curl -sf -H "$A" -X POST "$V?name=results" | jq -r .data.id)
        curl -sf -H "$A" -X PUT -H 'Content-Type: image/gif' --data GIF89a "$V/$id/records/two" >/dev/null
        cat "$ACTOR_MOUNT/results/two"
        made=$(curl -sf -H "$A" -X POST "$V?name=by-api" | jq -r .data.id)
        [ -d "$ACTOR_MOUNT/by-api" ]
        "#,
    );
    mount.sync();
    assert_eq!(
        fs::read_to_string(mount.path("results/two")).unwrap(),
        "GIF89a"
    );
    let shown = script(
        &world,
        &[],
        r#"ls "$ACTOR_MOUNT/results"; [ -d "$ACTOR_MOUNT/by-api" ]"#,
    );
    assert_eq!(shown, "one\ntwo\n");
}

// README: S94
#[test]
fn two_runs_at_once_write_to_one_store_without_loss() {
    let world = World::new();
    let body = |name: &str| {
        format!(
            r#"
            set -euo pipefail
            mkdir -p "$ACTOR_MOUNT/shared"
            echo ready; while [ ! -e go ]; do sleep 0.01; done
            A="Authorization: Bearer $APIFY_TOKEN"; V="$APIFY_API_BASE_URL/v2/key-value-stores"
            id=$(curl -sf -H "$A" -X POST "$V?name=shared" | jq -r .data.id)
            for i in $(seq 100); do
                echo "$i" >"$ACTOR_MOUNT/shared/{name}-file-$i"
                echo "{name} $i" >>"$ACTOR_MOUNT/shared/log"
                [ $((i % 4)) != 0 ] ||
                    curl -sf -H "$A" -X PUT -H 'Content-Type: text/plain' --data "$i" "$V/$id/records/{name}-api-$i" >/dev/null
            done
            # What the other one has written so far is seen as well.
            ls "$ACTOR_MOUNT/shared" >/dev/null
            "#
        )
    };
    let (one, two) = (body("one"), body("two"));
    let mut first = Running::start(&world, &["--", "bash", "-c", &one]);
    let mut second = Running::start(&world, &["--", "bash", "-c", &two]);
    first.until_out("ready");
    second.until_out("ready");
    fs::write(world.root().join("go"), "").unwrap();
    for run in [first, second] {
        let said = run.ended();
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    let listed = script(
        &world,
        &[],
        r#"ls "$ACTOR_MOUNT/shared"; sort "$ACTOR_MOUNT/shared/log""#,
    );
    let mut expected = BTreeSet::from(["log".to_owned()]);
    for name in ["one", "two"] {
        for number in 1..=100 {
            expected.insert(format!("{name}-file-{number}"));
            expected.insert(format!("{name} {number}"));
            if number % 4 == 0 {
                expected.insert(format!("{name}-api-{number}"));
            }
        }
    }
    let found: Vec<String> = listed.lines().map(str::to_owned).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(kept(&world).len(), 3);
}

#[test]
fn what_one_run_writes_another_sees_while_both_live() {
    let world = World::new();
    let waiting = r#"mkdir -p "$ACTOR_MOUNT/shared"; ls "$ACTOR_MOUNT/shared"; echo ready
        until [ -e "$ACTOR_MOUNT/shared/key" ]; do sleep 0.01; done; cat "$ACTOR_MOUNT/shared/key""#;
    let mut running = Running::start(&world, &["--", "bash", "-c", waiting]);
    running.until_out("ready");
    script(&world, &[], r#"echo value >"$ACTOR_MOUNT/shared/key""#);
    wait_until("it is seen", || running.out().contains("value"));
    assert_eq!(running.ended().code, Some(0));
}

// README: S39, S107
#[test]
fn many_runs_of_a_user_without_rights_begin_at_once() {
    let world = World::new();
    // Each makes a store, which the others tell their kernels.
    let script = r#"
        for round in 1 2 3; do
            for i in $(seq 10); do
                storefs run "$SRC" -- sh -c 'echo 1 >"$ACTOR_MOUNT/default/OUTPUT"' 2>"err-$i" && echo good &
            done
            wait
        done"#;
    let said = support::as_nobody(&world, script);
    assert_eq!(said, "good\n".repeat(30));
}

// README: S41
#[test]
fn of_runs_that_would_mount_at_one_place_only_one_does() {
    let world = World::new();
    let runs = (0..4).map(|number| {
        let write = format!(
            r#"echo {number} >"$ACTOR_MOUNT/default/OUTPUT"; sleep 0.3; cat "$ACTOR_MOUNT/default/OUTPUT""#
        );
        let mut run = world.storefs(&["run", "--mount", "at", "storage", "--", "sh", "-c"]);
        run.arg(write)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    let runs: Vec<Child> = runs.collect();
    let mut good = 0;
    for (number, run) in runs.into_iter().enumerate() {
        let said = run.wait_with_output().unwrap();
        if said.status.success() {
            assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{number}\n"));
            good += 1;
        }
    }
    assert!(good >= 1);
}
