//! The processes of a run: those that leave its group, those that nobody waits for, and what they are sent.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{Running, attempt, mount_of, script};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use support::{World, mountinfo, wait_until};

// README: S103
#[test]
fn the_guard_ends_with_the_run_and_by_no_signal_that_asks_it_to() {
    let world = World::new();
    // A zombie has no command line.
    let is_alive = |guard: Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", guard.as_raw_nonzero()));
        line.is_ok_and(|line| !line.is_empty())
    };
    for signal in [Signal::KILL, Signal::TERM] {
        let mut running = Running::start(&world, &["--", "sh", "-c", "echo ready; exec sleep 600"]);
        running.until_out("ready");
        let guard = running.guard();
        for meant in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
            kill_process(guard, meant).unwrap();
        }
        let run = runs::kept(&world).pop().unwrap();
        let mount = mount_of(run["id"].as_str().unwrap());
        assert!(mountinfo(&mount).is_some());
        running.signal(signal);
        running.ended();
        wait_until("the mount goes", || mountinfo(&mount).is_none());
        wait_until("the guard ends", || !is_alive(guard));
    }
}

/// A program that leaves its process group for that of the run and then does this.
fn leaving(then: &str) -> String {
    format!("import os, time; os.setpgid(0, os.getpgid(os.getppid())); {then}")
}

// README: S100
#[test]
fn a_timeout_of_nothing_is_no_limit() {
    let world = World::new();
    let body = "sleep 0.2; echo ${ACTOR_TIMEOUT_AT-none}";
    for none in ["0", "0s"] {
        assert_eq!(script(&world, &["--timeout", none], body), "none\n");
    }
}

// README: S98
#[test]
fn an_output_in_a_folder_is_known_also_when_somebody_cannot_wait_for_the_end_of_the_mount() {
    let world = World::new();
    let holds = r#"setsid sh -c 'exec 9>m/default/held; touch held; exec sleep 3' &"#;
    let body = format!(
        "echo 1 >m/default/OUTPUT; {holds} until [ -e held ]; do sleep 0.02; done; echo over; exit 4"
    );
    let options = ["--output", "--mount", "m", "--", "bash", "-c", &body];
    let running = Running::start(&world, &options);
    // It is detached when the command has ended.
    let at = world.root().join("m");
    wait_until("it is mounted", || mountinfo(&at).is_some());
    wait_until("the command has ended", || mountinfo(&at).is_none());
    running.signal(Signal::TERM);
    let said = running.ended();
    assert_eq!((said.code, said.out.as_str()), (Some(4), "1\n"), "{said:?}");
    assert!(said.err.contains("still in use"), "{said:?}");
}

// README: S101
#[test]
fn signals_that_were_ignored_at_the_start_stay_so_for_the_run_and_its_command() {
    let world = World::new();
    let body = r#"echo ready; until [ -e go ]; do sleep 0.02; done; grep SigIgn /proc/self/status"#;
    let run = runs::command(&world, &["--", "sh", "-c", body]);
    let ignores = ["sh", "-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\""];
    let mut run = runs::within(&run, &ignores, &world);
    let mut running = Running::of(&mut run, std::process::Stdio::null());
    running.until_out("ready");
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT] {
        running.signal(signal);
    }
    fs::write(world.root().join("go"), "").unwrap();
    let said = running.ended();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("SUCCEEDED"), "{said:?}");
    let mask = said.out.split_whitespace().last().unwrap();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    assert_eq!(mask & 0b111, 0b111, "{said:?}");
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
