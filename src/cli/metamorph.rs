//! The verb `metamorph`: asks the run that it is called in for another command. It never returns while that run lives: what
//! called it is ended.

use super::Outcome;
use super::config::Surroundings;
use super::input;
use super::program;
use super::run_args::MetamorphArgs;
use crate::actor::CONTROL_VARIABLE;
use crate::control::{Client, Metamorph, Request, Text};
use crate::error::{Error, Kind, Result};
use crate::record::Body;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

const OP: &str = "metamorph";

/// `storefs metamorph`.
pub(super) fn metamorph(args: &MetamorphArgs, here: &Surroundings) -> Outcome {
    let socket = here.var(CONTROL_VARIABLE).ok_or_else(|| {
        Error::because(
            OP,
            "",
            Kind::Invalid,
            "this is no run: STOREFS_RUN_SOCKET is not set (start one: storefs run -- COMMAND)",
        )
    })?;
    let path = here.var("PATH").map(OsString::as_os_str);
    program::find(&args.command, path, here)?;
    if !here.cwd.is_dir() {
        let cwd = here.cwd.display().to_string();
        let why = "the command would start there, and it is gone";
        return Err(Error::because(OP, cwd, Kind::NotFound, why).into());
    }
    let input = args.input.as_deref();
    let input = input.map(|argument| input::read(argument, args.content_type.as_deref(), here));
    let input = input.transpose()?;
    // Handed over in a file, which may be of any length, and without a name, so that nothing is left of it.
    let file = input
        .as_ref()
        .map(|input| in_file(&input.body))
        .transpose()?;
    let request = Request::Metamorph(Metamorph {
        command: args
            .command
            .iter()
            .map(|word| Text::from(&**word))
            .collect(),
        directory: here.cwd.as_os_str().into(),
        environment: std::env::vars_os()
            .map(|(name, value)| (Text::from(&*name), Text::from(&*value)))
            .collect(),
        input: file.as_ref().map(AsRawFd::as_raw_fd),
        content_type: input.map_or_else(String::new, |input| input.content_type.to_string()),
    });
    let mut client = connect(Path::new(socket))?;
    client.ask(&request, None, &mut |_| {})?;
    drop(file);
    client.wait_for_end(None);
    Ok(())
}

fn connect(socket: &Path) -> Result<Client> {
    Client::connect(socket).map_err(|why| {
        let advice = if why.kind() == io::ErrorKind::PermissionDenied {
            "only its own user may ask it"
        } else {
            "it has ended"
        };
        let why = format!("the run does not answer: {why} ({advice})");
        Error::because(OP, socket.display().to_string(), Kind::NotFound, why)
    })
}

fn in_file(body: &Body) -> Result<File> {
    let fault = |why: io::Error| Error::io("hand over the input", "", why);
    let mut file = tempfile::tempfile().map_err(fault)?;
    io::copy(&mut body.reader(), &mut file).map_err(fault)?;
    Ok(file)
}
