//! The processes of a run: those that leave its group, those that nobody waits for, and what they are sent.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{attempt, script};
use support::World;

/// A program that leaves its process group for that of the run and then does this.
fn leaving(then: &str) -> String {
    format!("import os, time; os.setpgid(0, os.getpgid(os.getppid())); {then}")
}

// README: S97, S100
#[test]
fn a_command_that_leaves_its_process_group_ends_the_run_all_the_same() {
    let world = World::new();
    let options = ["--timeout", "500ms", "--grace", "300ms"];
    for (then, code) in [
        ("os._exit(6)", 6),
        ("time.sleep(600)", 124),
        (
            "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
            124,
        ),
    ] {
        // Not more than what the last two need: the first one has all the time it wants.
        let options = &options[..if code == 124 { 4 } else { 0 }];
        let program = leaving(then);
        let command = ["--", "python3", "-c", &program];
        let said = runs::run(&world, &[options, &command].concat());
        assert_eq!(said.code, Some(code), "{then}: {said:?}");
    }
}

#[test]
fn orphans_that_have_ended_do_not_stay_as_zombies() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"
        for i in $(seq 50); do (setsid sh -c "echo $i >>ended; exit 3" &); done
        until [ "$(wc -l <ended)" = 50 ]; do sleep 0.02; done
        zombies() { for c in $(cat /proc/$PPID/task/*/children); do cat /proc/$c/status 2>/dev/null || true; done | grep -c '^State:.Z' || true; }
        until [ "$(zombies)" = 0 ]; do sleep 0.02; done
        echo none
        "#,
    );
    assert_eq!(shown, "none\n");
    // One in another session that outlives its parent is no reason to wait.
    let said = attempt(&world, &[], "(setsid sleep 1 &); exit 2");
    assert_eq!(said.code, Some(2), "{said:?}");
}
