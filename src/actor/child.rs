//! The command of a run while it lives: its process group, the terminal, signals, time. It never looks at records.

use super::env::Variables;
use super::guard::GROUP;
use crate::error::{Error, Kind};
use crate::mount;
use crate::sys;
use rustix::process::{self, Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
use signals::is_end;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long what a command leaves running may take to end.
const REST: Duration = Duration::from_secs(2);
/// The exit code of a command that took too long, as timeout(1) has it.
const TOO_LATE: i32 = 124;
/// The exit codes of a command that cannot be started, as shells have them.
const NO_PROGRAM: i32 = 127;
const NOT_STARTED: i32 = 126;
/// The exit code of a command whose end nobody told.
const NOT_KNOWN: i32 = 1;

/// A command to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Where it starts; where this process is, without one.
    pub directory: Option<PathBuf>,
    /// What its environment begins with; that of this process, without one.
    pub inherited: Option<Vec<(OsString, OsString)>>,
    /// More of its environment, which wins. What takes the place of another has it in what is inherited.
    pub more: Vec<(OsString, OsString)>,
    /// What it prints goes to standard error, since standard output is for something else.
    pub aside: bool,
}

/// Why a command has to end.
enum Ending {
    TooLate,
    Asked,
    Replaced(Box<Next>),
}

/// A command that takes the place of another.
pub(super) struct Next {
    pub launch: Launch,
    pub variables: Variables,
}

/// How many orders were given. Whoever gives one holds this until it is given.
pub(super) type Ordering = Arc<Mutex<u32>>;

/// How a run's command ended.
pub(super) struct Exit {
    /// What it ended with, or 128 and the signal's number.
    pub code: i32,
    pub timed_out: bool,
    pub aborted: bool,
    /// It could not be started.
    pub fault: Option<Error>,
}

impl Exit {
    fn of(code: i32) -> Self {
        Self {
            code,
            timed_out: false,
            aborted: false,
            fault: None,
        }
    }
}

/// What runs a run's commands, one after another.
pub(super) struct Supervisor<'s> {
    pub signals: mpsc::UnboundedReceiver<i32>,
    pub terminal: Option<Terminal>,
    pub grace: Duration,
    pub deadline: Option<Instant>,
    /// Closed when no other command may take the place of the one that runs.
    pub orders: mpsc::UnboundedReceiver<Next>,
    /// Held by whoever is about to give an order.
    pub ordering: Ordering,
    /// Told the process group that runs now.
    pub tell: &'s dyn Fn(Option<Pid>),
    /// Where each command says its group by itself before its program starts: the guard's pipe.
    pub guard: BorrowedFd<'s>,
    pub children: Children,
}

impl Supervisor<'_> {
    /// Runs a command, and what takes its place, to the end. Nothing of its process group is left then.
    pub(super) async fn run(&mut self, mut next: Next) -> Exit {
        self.children = Children::adopt();
        loop {
            let group = match start(&next, self.guard) {
                Ok(group) => group,
                Err((code, fault)) => {
                    self.orders.close();
                    (self.tell)(None);
                    return Exit {
                        fault: Some(fault),
                        ..Exit::of(code)
                    };
                }
            };
            (self.tell)(Some(group));
            let (code, mut ending) = self.stay(group).await;
            if ending.is_none() {
                ending = self.last_order(group).await;
            }
            let asked = self.end_rest(group).await;
            if let Some(terminal) = &mut self.terminal {
                terminal.end_of_command();
            }
            (self.tell)(None);
            match ending {
                None => return Exit::of(code),
                Some(Ending::TooLate) => {
                    return Exit {
                        timed_out: true,
                        ..Exit::of(TOO_LATE)
                    };
                }
                Some(Ending::Asked) => {
                    return Exit {
                        aborted: true,
                        ..Exit::of(code)
                    };
                }
                // Whoever asked for an end between two commands meant the run.
                Some(Ending::Replaced(_)) if asked => {
                    self.orders.close();
                    return Exit {
                        aborted: true,
                        ..Exit::of(code)
                    };
                }
                Some(Ending::Replaced(other)) => next = *other,
            }
        }
    }

    /// Waits for the end of a command, and brings it about where that is due.
    async fn stay(&mut self, group: Pid) -> (i32, Option<Ending>) {
        let mut ending = None;
        let mut kill_at = None;
        loop {
            if let Some(code) = self.reap(group) {
                return (code, ending);
            }
            tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(SIGCHLD) | None => {}
                    Some(signal @ (SIGTSTP | SIGCONT)) => self.pause(group, signal == SIGCONT),
                    Some(signal @ (SIGUSR1 | SIGUSR2)) => pass(group, signal),
                    Some(signal) => {
                        self.orders.close();
                        let again = matches!(ending, Some(Ending::Asked));
                        pass(group, if again { libc::SIGKILL } else { signal });
                        ending = Some(Ending::Asked);
                        kill_at = kill_at.or(Some(Instant::now() + self.grace));
                    }
                },
                () = until(self.deadline.filter(|_| ending.is_none())) => {
                    self.orders.close();
                    pass(group, SIGTERM);
                    ending = Some(Ending::TooLate);
                    kill_at = Some(Instant::now() + self.grace);
                }
                Some(next) = self.orders.recv(), if ending.is_none() => {
                    pass(group, SIGTERM);
                    ending = Some(Ending::Replaced(Box::new(next)));
                    kill_at = Some(Instant::now() + self.grace);
                }
                () = until(kill_at) => {
                    tracing::warn!("the command did not end in time and was killed");
                    pass(group, libc::SIGKILL);
                    kill_at = None;
                }
            }
            if ending.is_some() {
                // One that stands still ends when it goes on.
                pass(group, SIGCONT);
            }
        }
    }

    /// The command has ended by itself. An order that was given before still counts, or is on its way; after that there are
    /// none.
    async fn last_order(&mut self, group: Pid) -> Option<Ending> {
        let ordering = self.ordering.clone();
        let mut given = std::pin::pin!(ordering.lock());
        loop {
            tokio::select! {
                biased;
                _held = &mut given => {
                    let order = self.orders.try_recv().ok();
                    if order.is_none() {
                        self.orders.close();
                    }
                    return order.map(|next| Ending::Replaced(Box::new(next)));
                }
                Some(signal) = self.signals.recv() => match signal {
                    SIGTSTP | SIGCONT => self.pause(group, signal == SIGCONT),
                    _ if is_end(signal) => {
                        self.orders.close();
                        return Some(Ending::Asked);
                    }
                    _ => {}
                },
                () = until(self.deadline) => {
                    self.orders.close();
                    return Some(Ending::TooLate);
                }
            }
        }
    }

    /// Takes note of what happened; the exit code of the command when that has ended. It is asked for by its number, since it may
    /// have left its group.
    fn reap(&mut self, command: Pid) -> Option<i32> {
        let code = loop {
            match process::waitpid(Some(command), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((_, status))) => match exit_code(status) {
                    Some(code) => break Some(code),
                    None => self.stopped(command, status),
                },
                Ok(None) => break None,
                Err(why) => {
                    tracing::warn!("how the command ended is not known: {why}");
                    break Some(NOT_KNOWN);
                }
            }
        };
        self.children.reap(Some(command));
        code
    }

    /// The command stands still: because it wants the terminal and now gets it, or because somebody at the terminal wants
    /// this job to stand still.
    fn stopped(&mut self, group: Pid, status: WaitStatus) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        // Another run, of which this one is the command, then sees what is wanted.
        let wanted = match status.stopping_signal() {
            Some(libc::SIGTTIN) => Some(Signal::TTIN),
            Some(libc::SIGTTOU) => Some(Signal::TTOU),
            _ => None,
        };
        if wanted.is_some() && terminal.is_ours() {
            terminal.give(group);
            pass(group, SIGCONT);
        } else if wanted.is_some() || terminal.is_given() {
            terminal.take_back();
            // With the rest of this job, such as a pipeline, which the shell waits for.
            let _ = process::kill_current_process_group(wanted.unwrap_or(Signal::STOP));
        }
    }

    /// Somebody has this job stand still, or go on.
    fn pause(&mut self, group: Pid, goes_on: bool) {
        if !goes_on {
            pass(group, SIGTSTP);
            let _ = process::kill_process(process::getpid(), Signal::STOP);
            return;
        }
        if let Some(terminal) = &mut self.terminal
            && terminal.is_given()
            && terminal.is_ours()
        {
            terminal.give(group);
        }
        pass(group, SIGCONT);
    }

    /// Ends what the command left running in its group. Whether somebody asked for the end of the run meanwhile.
    async fn end_rest(&mut self, group: Pid) -> bool {
        let mut asked = false;
        for signal in [SIGTERM, libc::SIGKILL] {
            pass_to_group(group, signal);
            pass_to_group(group, SIGCONT);
            let until = Instant::now() + REST.min(self.grace);
            loop {
                while let Ok(Some(_)) = process::waitpgid(group, WaitOptions::NOHANG) {}
                self.children.reap(None);
                if process::test_kill_process_group(group).is_err() {
                    while let Ok(signal) = self.signals.try_recv() {
                        asked |= is_end(signal);
                    }
                    return asked;
                }
                match timeout_at(until, self.signals.recv()).await {
                    Ok(Some(signal)) => asked |= is_end(signal),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        tracing::warn!("some processes of the command do not end");
        asked
    }
}

/// Starts a command in a process group of its own. Its number, or why not with an exit code that says so. The guard knows the
/// group before the program starts, so that none outlives a run that is killed.
fn start(next: &Next, guard: BorrowedFd<'_>) -> std::result::Result<Pid, (i32, Error)> {
    const OP: &str = "start";
    let launch = &next.launch;
    let (program, arguments) = launch.command.split_first().ok_or_else(|| {
        let none = Error::because(OP, "", Kind::Invalid, "no command was given");
        (NO_PROGRAM, none)
    })?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    if let Some(inherited) = &launch.inherited {
        let inherited = inherited.iter().map(|(name, value)| (name, value));
        command.env_clear().envs(inherited);
    }
    for (name, value) in &next.variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.envs(launch.more.iter().map(|(name, value)| (name, value)));
    if let Some(directory) = &launch.directory {
        command.current_dir(directory);
    }
    if launch.aside
        && let Ok(errors) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)
    {
        command.stdout(Stdio::from(errors));
    }
    if let Some(limit) = mount::limit_for_others() {
        sys::limit_files(&mut command, limit);
    }
    match guard.try_clone_to_owned() {
        Ok(guard) => sys::announce(&mut command, guard, GROUP),
        Err(why) => tracing::debug!("the guard is told of the command only when it runs: {why}"),
    }
    let started = command.spawn().map_err(|why| {
        let code = if why.kind() == io::ErrorKind::NotFound {
            NO_PROGRAM
        } else {
            NOT_STARTED
        };
        let subject = program.display().to_string();
        let gone = launch.directory.as_ref().filter(|path| !path.is_dir());
        let why = match gone {
            Some(gone) => {
                let why = format!("its directory {} is not there", gone.display());
                Error::because(OP, subject, Kind::NotFound, why)
            }
            None => Error::io(OP, subject, why),
        };
        (code, why)
    })?;
    Ok(Pid::from_child(&started))
}

/// Passes a signal on to the group of a command that has not ended, and to the command itself if it has left that group.
fn pass(command: Pid, signal: i32) {
    pass_to_group(command, signal);
    if let Some(signal) = Signal::from_named_raw(signal)
        && process::getpgid(Some(command)).is_ok_and(|group| group != command)
    {
        let _ = process::kill_process(command, signal);
    }
}

fn pass_to_group(group: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = process::kill_process_group(group, signal);
    }
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(code),
        (None, Some(signal)) => Some(128 + signal),
        (None, None) => None,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

mod children;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;

pub(super) use children::Children;
pub(super) use signals::signals;
pub use terminal::Terminal;
