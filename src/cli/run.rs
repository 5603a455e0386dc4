//! The verb `run`: prepares a run, has it run, tells how it ended. It never starts anything before all that was asked for is
//! checked.

use super::config::Surroundings;
use super::exit::{Failure, print};
use super::left::{self, Home};
use super::place::{self, Place};
use super::progress::Progress;
use super::run_args::RunArgs;
use super::run_source::Source;
use super::{input, log, program};
use crate::actor::{self, Ended, Guard, Launch, Left, Output, Plan, Terminal};
use crate::backend::random;
use crate::error::{Error, Result};
use crate::mount;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::Duration;

/// What a run is told of memory, at least and at most.
const LEAST_MEMORY: u64 = 128;
const MOST_MEMORY: u64 = 32_768;

/// `storefs run`. What the process ends with is what the command ended with.
pub(super) fn run(args: &RunArgs, here: &Surroundings) -> std::result::Result<u8, Failure> {
    log::start_quiet(here);
    let path = args.env.iter().rfind(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| value).or_else(|| here.var("PATH"));
    program::find(&args.command, path.map(OsString::as_os_str), here)?;
    if !args.no_mount {
        place::check_device(here.uid).map_err(or_without_mount)?;
    }
    let input = args.input.as_deref();
    let input = input.map(|argument| input::read(argument, args.content_type.as_deref(), here));
    let input = input.transpose()?;
    if !args.no_mount {
        mount::make_room();
    }
    // From here on there are more threads, and things to clean up.
    let guard = Guard::start(left::bury)?;
    left::sweep(here);
    let id = random::api_id()?.to_string();
    let home = Home::make(&id, here)?;
    let mut left = Left {
        run: id.clone(),
        home: home.path().into(),
        ..Left::default()
    };
    let found = Source::find(args.source.as_deref(), &args.options, here);
    let ended = found.and_then(|source| {
        let stage = source.open(&id, &mut left, here)?;
        let place = prepared(args, here, &source, &home, &mut left)?;
        let (mount, control) = match &place {
            Some(place) => {
                let at = place.path().to_owned();
                let control = here.socket(&at);
                (Some((at, source.mount_options())), control)
            }
            None => (None, home.socket()),
        };
        let mut progress = Progress::on_terminal();
        let plan = Plan {
            id: id.clone(),
            store: args.store.clone(),
            input,
            mount,
            control,
            launch: Launch {
                command: args.command.clone(),
                directory: None,
                inherited: None,
                more: args.env.clone(),
                aside: args.output || args.json,
            },
            terminal: Terminal::of_process(),
            timeout: args.timeout.filter(|timeout| !timeout.is_zero()),
            grace: args.grace,
            memory_mbytes: memory(here),
            user: here.user_name(),
            left: left.clone(),
            wants_output: args.output,
            sending: Box::new(move |count| progress.show(&format!("{count} to be sent"))),
        };
        actor::run(plan, stage, &guard)
    });
    let untold = ended.as_ref().ok().filter(|ended| ended.is_untold);
    left.ended = untold.map(|ended| ended.run.clone());
    let told = ended.map_err(not_begun).and_then(|ended| tell(args, ended));
    if left.ended.is_none() {
        left::tidy(&left);
    } else if let Err(why) = home.leave(&left) {
        tracing::warn!("how the run ended is not kept: {why}");
    }
    guard.dismiss();
    told
}

/// Makes the place to mount at, and writes down what there would be to clean up.
fn prepared(
    args: &RunArgs,
    here: &Surroundings,
    source: &Source,
    home: &Home,
    left: &mut Left,
) -> Result<Option<Place>> {
    let folder = source.folder();
    let place = match &args.mount {
        _ if args.no_mount => None,
        None => Some(Place::prepare(&home.mountpoint(), folder, false)?),
        Some(named) => {
            super::reach::let_go_of_held_up("mount at", named, here)?;
            let at = place::resolve(&here.absolute(named))?;
            if let Some((spool, cache)) = &left.spool {
                place::keep_apart(&at, spool)?;
                place::keep_apart(&at, cache)?;
            }
            Some(Place::prepare(&at, folder, source.nonempty())?)
        }
    };
    if let Some(place) = &place {
        left.mountpoint = Some(place.path().into());
        left.made = place.was_made();
        left.socket = Some(here.socket(place.path()).into());
    } else {
        left.socket = Some(home.socket().into());
    }
    home.note(left)?;
    Ok(place)
}

/// Why no command was started. Whoever asked this process to end finds that in its exit code, as of a command that a signal ended.
fn not_begun(why: Error) -> Failure {
    let signal = actor::asked_by(&why);
    let failure = Failure::from(why);
    Failure {
        code: signal.map_or(failure.code, |signal| 128 + signal),
        ..failure
    }
}

fn or_without_mount(why: Error) -> Error {
    let advice = format!("{why} (or run it with --no-mount: then the API is all the command has)");
    Error::because("mount for the command", "", why.kind(), advice)
}

/// What a run is told of memory: half of this machine's, as a power of two, or what this process was told.
fn memory(here: &Surroundings) -> u64 {
    let told = here
        .var("ACTOR_MEMORY_MBYTES")
        .and_then(|text| text.to_str()?.parse::<u64>().ok());
    let of_machine = || {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        let half = kib / 1024 / 2;
        (half > 0).then(|| 1 << half.ilog2())
    };
    let wanted = told.or_else(of_machine).unwrap_or(1024);
    wanted.clamp(LEAST_MEMORY, MOST_MEMORY)
}

/// Says how a run ended, and what its command ended with.
fn tell(args: &RunArgs, ended: Ended) -> std::result::Result<u8, Failure> {
    for warning in &ended.warnings {
        tracing::warn!("{warning}");
    }
    let memory = args.source.as_deref() == Some(OsStr::new("memory:"));
    let line = line(&ended, memory) + "\n";
    let code = u8::try_from(ended.code).unwrap_or(1);
    let mut printed = Ok(());
    if args.json {
        printed = print(&format!("{:#}\n", ended.run.shown(&ended.user)));
    } else if args.output {
        printed = ended.output.and_then(print_output);
    } else if let Err(why) = ended.output {
        tracing::warn!("whether there is an OUTPUT is not known: {why}");
    }
    let _ = io::stderr().write_all(line.as_bytes());
    match (ended.fault, ended.unsent) {
        (Some(why), _) => Err(Failure {
            code,
            message: why.to_string(),
        }),
        (None, Some(why)) => {
            if let Err(why) = printed {
                tracing::warn!("{why}");
            }
            Err(why.into())
        }
        (None, None) => match printed {
            // The exit code stays the command's own, if that says that something is wrong.
            Err(why) if code != 0 => {
                tracing::warn!("{why}");
                Ok(code)
            }
            other => Ok(other.map(|()| code)?),
        },
    }
}

fn line(ended: &Ended, memory: bool) -> String {
    let run = &ended.run;
    let took = run.finished.unwrap_or(run.started);
    let took = took.duration_since(run.started).unwrap_or_default();
    let took = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let output = match &ended.output {
        _ if memory => "nothing is kept of memory:".to_owned(),
        Ok(Some(output)) => format!("OUTPUT is {}", output.place),
        Ok(None) => "no OUTPUT".to_owned(),
        Err(_) => "OUTPUT is not known".to_owned(),
    };
    let records = match ended.records {
        None => String::new(),
        Some(1) => "1 record written, ".to_owned(),
        Some(count) => format!("{count} records written, "),
    };
    let at = ended.elsewhere.as_ref();
    let at = at.map_or(String::new(), |server| format!(" at {server}"));
    format!(
        "run {} in store {}{at}: {} after {}, exit code {}, {records}{output}",
        run.id,
        ended.store,
        run.status.as_str(),
        humantime::format_duration(took),
        ended.code,
    )
}

fn print_output(output: Option<Output>) -> Result<()> {
    let Some(output) = output else {
        tracing::warn!("the command has stored no OUTPUT");
        return Ok(());
    };
    let fault = |why: io::Error| Error::io("print", output.place.clone(), why);
    let mut bytes = match (output.bytes, &output.file) {
        (Some(bytes), _) => bytes,
        (None, Some(path)) => File::open(path).map_err(fault)?,
        (None, None) => return Ok(()),
    };
    match io::copy(&mut bytes, &mut io::stdout().lock()) {
        // A reader that has gone away is no failure.
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(fault(why)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn memory_is_a_power_of_two_within_limits() {
        let here = Surroundings::made_of(&[], Path::new("/"), 0);
        assert!(memory(&here).is_power_of_two());
        let told = Surroundings::made_of(&[("ACTOR_MEMORY_MBYTES", "1")], Path::new("/"), 0);
        assert_eq!(memory(&told), LEAST_MEMORY);
    }
}
