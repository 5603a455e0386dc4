//! The command line: from arguments and environment to one verb, from its outcome to an exit code. It never does what a
//! lower floor can do.

mod args;
mod background;
mod busy;
mod config;
mod credentials;
mod docs;
mod exit;
mod input;
mod known;
mod left;
mod lines;
mod live;
mod log;
mod metamorph;
mod mount;
mod mounts;
mod option_list;
mod options;
mod own_temp;
mod place;
mod program;
mod progress;
mod reach;
mod remote;
mod remote_options;
mod run;
mod run_args;
mod run_source;
mod serve;
mod signals;
mod source;
mod status;
mod sync;
mod token;
mod umount;

use args::{Cli, Mount8Args, Verb};
use clap::Parser;
use config::Surroundings;
use exit::Failure;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// What a verb ends with.
type Outcome = Result<(), Failure>;

/// Runs the program with these arguments, the first of which is its name. Returns what the process ends with.
pub fn run(argv: impl IntoIterator<Item = OsString>) -> ExitCode {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let outcome = Surroundings::of_process()
        .map_err(Failure::from)
        .and_then(|here| {
            let outcome = dispatch(&argv, &here);
            if here.in_background() {
                background::tell_outcome(&outcome);
            }
            outcome
        });
    lines::flush();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

/// Does what is asked. What the process ends with: 0, or what a command ended with that was run.
fn dispatch(argv: &[OsString], here: &Surroundings) -> Result<u8, Failure> {
    if is_mount_8(argv.first()) {
        if let Some(args) = parsed::<Mount8Args>(argv)? {
            mount::for_mount_8(&args, here, argv)?;
        }
        return Ok(0);
    }
    let Some(cli) = parsed::<Cli>(argv)? else {
        return Ok(0);
    };
    let outcome = match cli.verb {
        Verb::Run(args) => return run::run(&args, here),
        Verb::Metamorph(args) => metamorph::metamorph(&args, here),
        Verb::Mount(args) => mount::mount(&args, here, argv),
        Verb::Umount(args) => umount::umount(&args, here),
        Verb::Sync(args) => sync::sync(&args, here),
        Verb::Status(args) => status::status(&args, here),
        Verb::Serve(args) => serve::serve(&args, here),
        Verb::Token(args) => token::token(&args, here),
        Verb::Completions { shell } => docs::completions(shell),
        Verb::Man { dir } => docs::man(&dir),
    };
    outcome.map(|()| 0)
}

/// Whether the program was called as mount(8) calls it.
fn is_mount_8(name: Option<&OsString>) -> bool {
    let name = name.and_then(|name| Path::new(name).file_name());
    ["mount.fuse.storefs", "mount.storefs"]
        .iter()
        .any(|known| name == Some(OsStr::new(known)))
}

/// The arguments, or `None` when help or the version was asked for and has been printed.
fn parsed<P: Parser>(argv: &[OsString]) -> Result<Option<P>, Failure> {
    match P::try_parse_from(argv) {
        Ok(arguments) => Ok(Some(arguments)),
        Err(answer) if !answer.use_stderr() => {
            // With the colours that the terminal has, or none.
            exit::printed(answer.print())?;
            Ok(None)
        }
        Err(wrong) => {
            let text = wrong.to_string();
            Err(Failure {
                code: exit::USAGE,
                message: text.strip_prefix("error: ").unwrap_or(&text).to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_it_is_called_by_decides_who_reads_the_arguments() {
        let is_one = |name: &str| is_mount_8(Some(&OsString::from(name)));
        assert!(is_one("/sbin/mount.fuse.storefs") && is_one("mount.storefs"));
        assert!(!is_one("storefs") && !is_one("/usr/bin/mount"));
        assert!(!is_mount_8(None));
    }
}
