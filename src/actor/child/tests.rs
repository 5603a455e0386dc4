//! The parts of a command's life that only a race would show from outside.
#![allow(clippy::unwrap_used)]
use super::*;
use signal_hook::consts::SIGINT;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

fn next(command: &[&str]) -> Next {
    Next {
        launch: Launch {
            command: command.iter().map(OsString::from).collect(),
            directory: None,
            inherited: None,
            more: Vec::new(),
            aside: false,
        },
        variables: Variables::default(),
    }
}

/// A pipe in the place of the guard's.
fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

#[test]
fn the_guard_is_told_of_a_command_before_its_program_starts() {
    let (mut reader, writer) = pipe();
    // This one never starts.
    assert!(start(&next(&["/nothing/here"]), writer.as_fd()).is_err());
    let group = start(&next(&["true"]), writer.as_fd()).unwrap();
    let _ = process::waitpid(Some(group), WaitOptions::empty());
    drop(writer);
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("group ") && lines[0] != lines[1]);
    assert_eq!(lines[1], format!("group {}", group.as_raw_nonzero()));
}

#[test]
fn a_command_starts_also_when_the_guard_is_gone() {
    let (reader, writer) = pipe();
    drop(reader);
    let group = start(&next(&["true"]), writer.as_fd()).unwrap();
    let (_, status) = process::waitpid(Some(group), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(exit_code(status), Some(0));
}

/// What runs commands, with these signals and orders.
fn supervisor<'s>(
    signals: mpsc::UnboundedReceiver<i32>,
    orders: mpsc::UnboundedReceiver<Next>,
    guard: BorrowedFd<'s>,
) -> Supervisor<'s> {
    Supervisor {
        signals,
        terminal: None,
        grace: Duration::from_millis(100),
        deadline: None,
        orders,
        ordering: Ordering::default(),
        tell: &|_| (),
        guard,
        children: Children::default(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

#[test]
fn an_order_that_is_on_its_way_when_the_command_ends_still_counts() {
    let (_reader, writer) = pipe();
    let (_sender, signals) = mpsc::unbounded_channel();
    let (sender, orders) = mpsc::unbounded_channel();
    let mut supervisor = supervisor(signals, orders, writer.as_fd());
    let group = start(&next(&["true"]), writer.as_fd()).unwrap();
    let _ = process::waitpid(Some(group), WaitOptions::empty());
    let ordering = supervisor.ordering.clone();
    let mut given = ordering.blocking_lock();
    let runtime = runtime();
    let last = runtime.block_on(async {
        let giving = async {
            tokio::task::yield_now().await;
            assert!(sender.send(next(&["true"])).is_ok());
            *given += 1;
            drop(given);
        };
        tokio::join!(supervisor.last_order(group), giving).0
    });
    assert!(matches!(last, Some(Ending::Replaced(_))));
    assert!(!sender.is_closed());
    assert!(runtime.block_on(supervisor.last_order(group)).is_none());
    assert!(sender.is_closed());
}

#[test]
fn a_signal_between_two_commands_is_not_lost() {
    let runtime = runtime();
    for (signal, is_asked) in [(SIGTERM, true), (SIGINT, true), (SIGCHLD, false)] {
        let (_reader, writer) = pipe();
        let (sender, signals) = mpsc::unbounded_channel();
        let (_orders, orders) = mpsc::unbounded_channel();
        let mut supervisor = supervisor(signals, orders, writer.as_fd());
        let group = start(&next(&["sleep", "100"]), writer.as_fd()).unwrap();
        sender.send(signal).unwrap();
        let asked = runtime.block_on(supervisor.end_rest(group));
        assert_eq!(asked, is_asked, "{signal}");
        assert!(process::test_kill_process_group(group).is_err());
    }
}
