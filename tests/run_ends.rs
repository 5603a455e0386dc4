//! How runs end: by themselves, too late, when they are asked to, and when they are killed.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{Running, attempt, kept, mount_of, only_run, run, script, store_of_last};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{STOREFS, SmallDisk, World, mountinfo, wait_until};

/// Asserts that nothing of the last run is left on this machine but its store and what is known of it.
#[track_caller]
fn nothing_is_left(world: &World) {
    let runs = kept(world);
    let id = runs.last().unwrap()["id"].as_str().unwrap();
    let mount = mount_of(id);
    wait_until("the mount goes", || mountinfo(&mount).is_none());
    wait_until("the run's folder goes", || {
        !mount.parent().unwrap().exists()
    });
    // One that was killed takes a moment to be gone.
    wait_until("the processes of the run end", || !is_alive(id));
}

/// Whether a process has this run in its environment.
fn is_alive(run: &str) -> bool {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let wanted = format!("ACTOR_RUN_ID={run}");
    pids.into_iter().any(|pid| {
        let env = fs::read(pid.path().join("environ")).unwrap_or_default();
        env.split(|byte| *byte == 0)
            .any(|pair| pair == wanted.as_bytes())
    })
}

fn status(run: &Value) -> (&str, i64) {
    (
        run["status"].as_str().unwrap(),
        run["exitCode"].as_i64().unwrap_or(-1),
    )
}

// README: S97
#[test]
fn the_exit_code_is_the_commands_own() {
    let world = World::new();
    for (command, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        let said = run(&world, &["--", "sh", "-c", command]);
        assert_eq!(said.code, Some(code), "{command}: {said:?}");
        let runs = kept(&world);
        let expected = if code == 0 { "SUCCEEDED" } else { "FAILED" };
        assert_eq!(status(runs.last().unwrap()), (expected, i64::from(code)));
        nothing_is_left(&world);
    }
    fs::write(world.root().join("text"), "no program").unwrap();
    let said = run(&world, &["--", "./text"]);
    assert_eq!(said.code, Some(126), "{said:?}");
    assert!(said.err.contains("start ./text"), "{said:?}");
    nothing_is_left(&world);
}

// README: S100
#[test]
fn a_command_that_takes_too_long_is_ended_with_all_its_processes() {
    let world = World::new();
    let begun = Instant::now();
    let said = attempt(
        &world,
        &["--timeout", "500ms"],
        r#"echo kept >"$ACTOR_MOUNT/default/a"; sleep 600 & sleep 600 | sleep 600"#,
    );
    assert!(begun.elapsed() < Duration::from_secs(8), "{said:?}");
    assert_eq!(said.code, Some(124), "{said:?}");
    assert_eq!(status(&only_run(&world)), ("TIMED-OUT", 124));
    assert!(store_of_last(&world).join("a.txt").exists());
    nothing_is_left(&world);
}

// README: S100
#[test]
fn one_that_does_not_want_to_end_is_killed_after_the_grace() {
    let world = World::new();
    let said = attempt(
        &world,
        &["--timeout", "300ms", "--grace", "300ms"],
        r#"trap 'echo asked' TERM; while :; do sleep 0.1 || true; done"#,
    );
    assert_eq!(said.code, Some(124), "{said:?}");
    assert!(
        said.out.contains("asked") && said.err.contains("killed"),
        "{said:?}"
    );
    nothing_is_left(&world);
}

// README: S101
#[test]
fn signals_are_passed_on_and_the_command_may_finish() {
    let world = World::new();
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
    ] {
        let body = format!(
            r#"trap 'echo last >"$ACTOR_MOUNT/default/OUTPUT"; exit 5' {name}; echo ready; while :; do sleep 0.05; done"#
        );
        let mut running = Running::start(&world, &["--", "bash", "-c", &body]);
        running.until_out("ready");
        running.signal(signal);
        let said = running.ended();
        assert_eq!(said.code, Some(5), "{name}: {said:?}");
        assert_eq!(status(kept(&world).last().unwrap()), ("ABORTED", 5));
        assert!(store_of_last(&world).join("OUTPUT.txt").exists());
        nothing_is_left(&world);
    }
    let body = "trap 'echo one' USR1; trap 'echo two; exit 0' USR2; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&world, &["--", "bash", "-c", body]);
    running.until_out("ready");
    running.signal(Signal::USR1);
    running.until_out("one");
    running.signal(Signal::USR2);
    let said = running.ended();
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "ready\none\ntwo\n")
    );
    assert_eq!(status(kept(&world).last().unwrap()), ("SUCCEEDED", 0));
}

// README: S101
#[test]
fn asked_twice_it_kills_the_command() {
    let world = World::new();
    let body = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&world, &["--grace", "1h", "--", "bash", "-c", body]);
    running.until_out("ready");
    running.signal(Signal::TERM);
    running.until_out("no");
    running.signal(Signal::TERM);
    let said = running.ended();
    assert_eq!(said.code, Some(137), "{said:?}");
    assert_eq!(status(&only_run(&world)), ("ABORTED", 137));
    nothing_is_left(&world);
}

// README: S102
#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let world = World::new();
    let begun = Instant::now();
    script(
        &world,
        &[],
        r#"(trap 'echo bye >"$ACTOR_MOUNT/default/bye"; exit' TERM; while :; do sleep 0.05; done) & sleep 600 & sleep 0.2"#,
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(store_of_last(&world).join("bye.txt").exists());
    nothing_is_left(&world);
}

#[test]
fn a_mount_that_others_use_is_detached_and_nothing_of_them_is_lost() {
    let world = World::new();
    let mut running = Running::start(
        &world,
        &[
            "--mount",
            "m",
            "--",
            "bash",
            "-c",
            "echo ready; read -t 600 x <> <(:) || sleep 600",
        ],
    );
    running.until_out("ready");
    let at = world.root().join("m");
    // Somebody outside of the run is in the middle of a file.
    let mut other = Command::new("bash")
        .args([
            "-c",
            "exec 3>m/default/theirs; echo first >&3; exec sleep 600",
        ])
        .current_dir(world.root())
        .spawn()
        .unwrap();
    wait_until("they write", || {
        fs::read(at.join("default/theirs")).is_ok_and(|text| text == b"first\n")
    });
    running.signal(Signal::TERM);
    let said = running.ended();
    let _ = other.kill();
    let _ = other.wait();
    assert!(said.err.contains("still in use"), "{said:?}");
    assert_eq!(mountinfo(&at), None);
    let kept = store_of_last(&world).join("theirs.txt");
    assert_eq!(fs::read_to_string(kept).unwrap(), "first\n");
}

// README: S103
#[test]
fn a_run_that_is_killed_leaves_nothing_mounted_and_loses_nothing() {
    let world = World::new();
    let mut running = Running::start(
        &world,
        &[
            "--",
            "bash",
            "-c",
            r#"cd "$ACTOR_MOUNT/default"; for i in $(seq 50); do echo $i >k$i; done; exec 3>half; echo x >&3; sleep 600 & echo ready; sleep 600"#,
        ],
    );
    running.until_out("ready");
    running.signal(Signal::KILL);
    let said = running.ended();
    assert_eq!(said.code, None, "{said:?}");
    wait_until("its end is known", || {
        only_run(&world)["status"] == "FAILED"
    });
    nothing_is_left(&world);
    for number in 1..=50 {
        let file = store_of_last(&world).join(format!("k{number}.json"));
        assert_eq!(fs::read_to_string(file).unwrap(), format!("{number}\n"));
    }
    // The next run does not stumble over it.
    script(&world, &[], "true");
}

// README: S103
#[test]
fn the_next_run_cleans_up_after_one_whose_guard_was_killed_too() {
    let world = World::new();
    let mut running = Running::start(
        &world,
        &[
            "--mount",
            "m",
            "--",
            "sh",
            "-c",
            "echo 1 >m/default/a; echo ready; sleep 3",
        ],
    );
    running.until_out("ready");
    let id = only_run(&world)["id"].as_str().unwrap().to_owned();
    let home = Path::new("/run/storefs/runs").join(&id);
    let guard = running.guard();
    rustix::process::kill_process(guard, Signal::KILL).unwrap();
    running.signal(Signal::KILL);
    running.ended();
    let at = world.root().join("m");
    // Also when it has another source. Some other run on this machine may have done it already.
    let other = World::new();
    script(&other, &[], "true");
    assert_eq!(mountinfo(&at), None);
    assert!(!home.exists() && !at.exists());
    assert_eq!(only_run(&world)["status"], "FAILED");
    assert!(
        world
            .source(only_run(&world)["store"].as_str().unwrap())
            .join("a.json")
            .exists()
    );
}

// README: S103
#[test]
fn the_next_run_removes_what_one_left_that_was_killed_at_its_beginning() {
    let homes = Path::new("/run/storefs/runs");
    let leaves = |id: &str, age: u64| {
        let home = homes.join(id);
        fs::create_dir_all(home.join("mnt")).unwrap();
        for file in ["lock", "left.json"] {
            fs::write(home.join(file), "").unwrap();
        }
        let changed = std::time::SystemTime::now() - Duration::from_secs(age);
        fs::File::open(&home)
            .unwrap()
            .set_modified(changed)
            .unwrap();
        home
    };
    let id = std::process::id();
    let (old, young) = (
        leaves(&format!("killed-{id}"), 60),
        leaves(&format!("begins-{id}"), 0),
    );
    let world = World::new();
    script(&world, &[], "true");
    assert!(!old.exists() && young.exists());
    fs::remove_dir_all(young).unwrap();
}

// README: S99
#[test]
fn how_a_run_ended_whose_disk_was_full_is_kept_by_the_next_one() {
    let disk = SmallDisk::new("size=2m");
    let world = disk.world();
    let said = attempt(
        world,
        &[],
        "dd if=/dev/zero of=fill bs=1k 2>/dev/null || exit 4",
    );
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("keep the run"), "{said:?}");
    assert_eq!(status(&only_run(world)), ("RUNNING", -1));
    // Others do not hear of it.
    let other = World::new();
    let said = run(&other, &["--", "true"]);
    assert!(!said.err.contains("keep the run"), "{said:?}");
    // A run that cannot begin leaves no store.
    let stores = || fs::read_dir(world.source("")).unwrap().count();
    let before = stores();
    let refused = run(world, &["--input", "1", "--", "true"]);
    assert!(
        refused.code != Some(0) && refused.err.contains("o space"),
        "{refused:?}"
    );
    assert_eq!(stores(), before);
    fs::remove_file(world.root().join("fill")).unwrap();
    script(world, &[], "true");
    assert_eq!(status(&kept(world)[0]), ("FAILED", 4));
}

// README: S103
#[test]
fn what_a_run_could_not_keep_is_forgotten_with_its_folder() {
    let disk = SmallDisk::new("size=2m");
    attempt(
        disk.world(),
        &[],
        "dd if=/dev/zero of=fill bs=1k 2>/dev/null || exit 4",
    );
    let id = only_run(disk.world())["id"].as_str().unwrap().to_owned();
    let home = Path::new("/run/storefs/runs").join(id);
    assert!(home.exists());
    drop(disk);
    script(&World::new(), &[], "true");
    assert!(!home.exists());
}

#[test]
fn whoever_waits_for_the_end_of_the_output_does_not_wait_for_the_guard() {
    let world = World::new();
    let shown = world.sh(&format!("{STOREFS} run -- echo one 2>/dev/null | cat"));
    assert_eq!(shown, "one\n");
}

#[test]
fn a_run_cannot_be_unmounted_from_under_its_command() {
    let world = World::new();
    let shown = script(
        &world,
        &["--mount", "m"],
        r#"storefs status --json m | jq -r '.state, .run'; storefs sync m; ! storefs umount m 2>&1; ls m >/dev/null"#,
    );
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("run"));
    assert_eq!(lines.next(), only_run(&world)["id"].as_str());
    assert!(
        lines.next().unwrap().contains("belongs to the run"),
        "{shown}"
    );
}
