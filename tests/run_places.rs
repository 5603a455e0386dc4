//! Where runs can be: for a user without rights, without /dev/fuse, at a terminal.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::kept;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use support::{STOREFS, World, as_nobody, clean};

#[test]
fn of_the_options_of_a_mount_a_run_on_a_folder_takes_that_of_its_place() {
    let world = World::new();
    std::fs::create_dir(world.root().join("m")).unwrap();
    std::fs::write(world.root().join("m/file"), "").unwrap();
    let run = |option: &str| {
        let arguments = ["run", "-o", option, "--mount", "m", "storage", "--", "true"];
        support::said(&mut world.storefs(&arguments))
    };
    assert_eq!(run("nonempty").code, Some(0));
    let refused = run("ro");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("-o ro: for a folder"), "{refused:?}");
    let empty = support::said(&mut world.storefs(&["run", "--input", "", "storage", "--", "true"]));
    assert!(empty.err.contains("\"\": it is empty"), "{empty:?}");
}

// README: S107
#[test]
fn a_user_without_rights_runs_commands_too() {
    let world = World::new();
    let shown = as_nobody(
        &world,
        r#"
        id -un
        storefs run --input '{"a":1}' --output "$SRC" -- bash -euo pipefail -c '
            cat "$ACTOR_MOUNT/default/INPUT"; echo
            grep -c " $ACTOR_MOUNT fuse.storefs" /proc/mounts
            [ "$(curl -sf -H "Authorization: Bearer $APIFY_TOKEN" \
                "$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID/records/INPUT")" = "{\"a\":1}" ]
            echo "{\"b\":2}" >"$ACTOR_MOUNT/default/OUTPUT"
            storefs metamorph --input 2 -- cat "$ACTOR_MOUNT/default/INPUT"' 2>said
        head -n 3 said; echo
        mounts() { grep " $XDG_RUNTIME_DIR/.* fuse.storefs " /proc/mounts; }
        ! mounts
        ls "$XDG_RUNTIME_DIR/storefs/runs"
        # Killed, it is cleaned up by fusermount3.
        storefs run "$SRC" -- bash -c 'echo ready >ready; sleep 600' & run=$!
        until [ -e ready ]; do sleep 0.01; done
        mounts >/dev/null
        kill -9 $run
        for i in $(seq 1000); do mounts >/dev/null || break; sleep 0.01; done
        ! mounts
        "#,
    );
    assert!(
        shown.starts_with("nobody\n{\"b\":2}\n{\"a\":1}\n1\n2"),
        "{shown}"
    );
    assert_eq!(kept(&world).len(), 2);
}

// README: S107
#[test]
fn without_the_device_the_message_says_what_is_missing_and_no_mount_works() {
    let world = World::new();
    let script = r#"
        mount --make-rprivate /
        mkdir dev; mount -t tmpfs none dev; mkdir dev/shm
        for name in null zero urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
        mount --rbind dev /dev
        ! storefs run -- touch started
        [ ! -e started ]
        storefs run --no-mount --input '{"a":1}' -- sh -c 'curl -sf -H "Authorization: Bearer $APIFY_TOKEN" \
            "$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID/records/INPUT"'
    "#;
    let path = std::env::var("PATH").unwrap();
    let programs = std::path::Path::new(STOREFS).parent().unwrap();
    let mut command = Command::new("unshare");
    clean(&mut command)
        .args(["--mount", "--", "bash", "-euo", "pipefail", "-c", script])
        .current_dir(world.root())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out, "{\"a\":1}");
    assert!(
        err.contains("/dev/fuse") && err.contains("--no-mount"),
        "{err}"
    );
}

/// Runs a script of Python that has `storefs run` at a terminal of its own: `child(*arguments)` starts it there and
/// `until(text)` waits for what it prints.
fn at_terminal(world: &World, script: &str) -> String {
    const PRELUDE: &str = r#"
import os, pty, select, signal, sys, termios, time
def child(*arguments):
    global pid, fd
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(os.environ['STOREFS'], ['storefs', *arguments])
seen = ''
def until(text, limit=30):
    global seen
    end = time.time() + limit
    while text not in seen:
        ready, _, _ = select.select([fd], [], [], 0.1)
        if ready:
            try:
                seen += os.read(fd, 4096).decode()
            except OSError:
                break
        if time.time() > end:
            break
    if text not in seen:
        sys.exit(f'{text!r} did not come: {seen!r}')
    seen = seen[seen.index(text) + len(text):]
def send(text):
    os.write(fd, text.encode())
def code():
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)
"#;
    let mut command = Command::new("python3");
    clean(&mut command)
        .args(["-c", &format!("{PRELUDE}{script}")])
        .current_dir(world.root())
        .env("STOREFS", STOREFS)
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

// README: S101
#[test]
fn a_command_at_a_terminal_reads_from_it_and_control_c_reaches_it() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
child('run', '--', 'bash', '-c', 'trap "echo interrupted; exit 9" INT; read x; echo "got $x"; sleep 600 & wait')
send('hello\n')
until('got hello')
send('\x03')
until('interrupted')
until('exit code 9')
assert code() == 9
# One that never asks for the terminal gets it through the run.
child('run', '--', 'bash', '-c', 'trap "echo interrupted; exit 8" INT; echo ready; while :; do sleep 0.05; done')
until('ready')
send('\x03')
until('interrupted')
assert code() == 8
"#,
    );
    assert_eq!(kept(&world).len(), 2);
}

// README: S101
#[test]
fn a_shell_with_jobs_of_its_own_can_be_the_command() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
child('run', '--', 'bash', '--norc', '--noprofile', '-i')
until('# ')
send('echo $((6*7))\n')
until('42')
send('cat "$ACTOR_MOUNT/default/INPUT" || echo no-"input"\n')
until('no-input')
send('sleep 600\n'); time.sleep(0.3); send('\x1a')
until('Stopped')
send('fg\n'); time.sleep(0.3); send('\x03'); time.sleep(0.1)
send('exit 6\n')
until('exit code 6')
assert code() == 6
"#,
    );
}

// README: S101, S104
#[test]
fn a_command_that_takes_the_place_of_a_shell_with_jobs_gets_the_terminal() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
os.environ['PATH'] = os.path.dirname(os.environ['STOREFS']) + ':' + os.environ['PATH']
new = 'trap "echo interrupted; exit 5" INT; read x; echo "got $x"; sleep 600 & wait'
for shell in ['bash --norc --noprofile -i', 'an outer one']:
    if shell == 'an outer one':
        pid, fd = pty.fork()
        if pid == 0:
            os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
        until('# ')
        send('storefs run --grace 500ms -- bash --norc --noprofile -i\n')
    else:
        child('run', '--grace', '500ms', '--', *shell.split())
    until('# ')
    time.sleep(0.5)
    send("storefs metamorph --input 1 -- bash -c '" + new + "'\n")
    # What is typed ahead is read by whoever has the terminal then.
    time.sleep(1.5)
    send('hello\n')
    until('got hello')
    send('\x03')
    until('interrupted')
    until('exit code 5')
    if shell == 'an outer one':
        send('exit 3\n')
        assert code() == 3
    else:
        assert code() == 5
"#,
    );
}

// README: S101
#[test]
fn the_job_can_be_stopped_and_goes_on() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
child('run', '--', 'bash', '-c', 'echo ready; read x; echo "got $x"; read y; echo "then $y"')
until('ready')
send('one\n')
until('got one')
# The terminal is the command's: it is stopped, and so is the run.
send('\x1a')
assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
time.sleep(0.2)
os.kill(pid, signal.SIGCONT)
send('two\n')
until('then two')
until('exit code 0')
assert code() == 0
"#,
    );
}

// README: S101
#[test]
fn a_shell_can_take_a_run_to_the_background_and_back() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
os.environ['PATH'] = os.path.dirname(os.environ['STOREFS']) + ':' + os.environ['PATH']
pid, fd = pty.fork()
if pid == 0:
    os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
until('# ')
send('storefs run -- bash -c "read x; echo got \$x; read y; echo then \$y" &\n')
# It waits for the terminal, and the shell keeps that.
time.sleep(1)
send('echo $((6*7)); jobs\n')
until('42')
until('Stopped')
send('fg\n'); time.sleep(0.3)
send('one\n')
until('got one')
send('\x1a')
until('Stopped')
send('echo $((7*7))\n')
until('49')
send('fg\n'); time.sleep(0.3)
send('two\n')
until('then two')
until('exit code 0')
send('exit 5\n')
assert code() == 5
"#,
    );
}

// README: S101
#[test]
fn a_run_within_a_run_and_one_in_a_pipeline_have_the_terminal_too() {
    let world = World::new();
    at_terminal(
        &world,
        r#"
os.environ['PATH'] = os.path.dirname(os.environ['STOREFS']) + ':' + os.environ['PATH']
child('run', '--', 'storefs', 'run', '--', 'bash', '-c', 'read x; echo "got $x"; exit 4')
send('hello\n')
until('got hello')
until('exit code 4')
until('exit code 4')
assert code() == 4
pid, fd = pty.fork()
if pid == 0:
    os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
until('# ')
send('storefs run -- bash -c "read x; echo got \$x; read y; echo then \$y" | cat\n')
send('one\n')
until('got one')
# The whole pipeline stands still, or the shell would wait for the rest of it.
send('\x1a')
until('Stopped')
send('echo $((7*7))\n')
until('49')
send('fg\n'); time.sleep(0.3)
send('two\n')
until('then two')
send('exit 5\n')
assert code() == 5
"#,
    );
}

#[test]
fn paths_of_a_run_need_not_be_text() {
    let world = World::new();
    let named = |name: &[u8]| world.root().join(OsStr::from_bytes(name));
    let (folder, mountpoint) = (named(b"folder-\xfe"), named(b"mount-\xff"));
    std::fs::create_dir_all(folder.join("storage/key_value_stores")).unwrap();
    let check = r#"grep -qz . "$ACTOR_MOUNT/default/INPUT" && mountpoint -q "$ACTOR_MOUNT""#;
    let command = ["--", "bash", "-c", check];
    let said = support::said(
        runs::command(&world, &["--input", "1", "--mount"])
            .arg(&mountpoint)
            .arg("memory:")
            .args(command),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!mountpoint.exists());
    // In the folder, and of the folder from elsewhere.
    let said = support::said(
        runs::command(&world, &["--input", "1", "--mount", "mnt"])
            .current_dir(&folder)
            .args(command),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = support::said(
        runs::command(&world, &["--input", "1"])
            .arg(folder.join("storage"))
            .args(command),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    let stores = std::fs::read_dir(folder.join("storage/key_value_stores"));
    assert_eq!(stores.unwrap().count(), 2);
}

#[test]
fn a_killed_run_whose_paths_are_no_text_is_cleaned_up() {
    let world = World::new();
    let mountpoint = world.root().join(OsStr::from_bytes(b"mount-\xff"));
    let mut command = runs::command(&world, &["--mount"]);
    command.arg(&mountpoint).arg("memory:");
    command.args(["--", "bash", "-c", "echo ready; sleep 600"]);
    let mut run = runs::Running::of(&mut command, Stdio::null());
    run.until_out("ready");
    run.signal(rustix::process::Signal::KILL);
    run.ended();
    support::wait_until("its mount goes", || !mountpoint.exists());
}
