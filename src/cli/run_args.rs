//! The arguments of `run` and `metamorph` as clap sees them. It never reads a file or starts anything.

use super::args::duration;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const RUN_NOTES: &str = "\
The command finds the variables that SDKs read on the platform, an HTTP API behind them, and in ACTOR_MOUNT its stores
as directories. It ends the run with its exit code: 124 after the timeout, 128 and the number of a signal that killed
it, 126 or 127 when it could not be started. The exit code is 3 when not everything could be sent to a server; the
next run or mount sends it.

Examples:
  storefs run --input '{\"url\":\"https://example.com\"}' -- node main.js
  storefs run --input in.json -- sh -c 'cp \"$ACTOR_MOUNT/default/INPUT\" \"$ACTOR_MOUNT/default/OUTPUT\"'
  storefs run --output --input - memory: -- python3 -m my_actor <in.json | jq .
  storefs run --timeout 10m --store results ./storage -- ./scrape.sh
  storefs run --store results https://kvs.example.com -- ./scrape.sh";

pub(super) const METAMORPH_NOTES: &str = "\
Only within storefs run: the command that runs is ended and this one takes its place, in the same run and the same
store. Its input is the record INPUT-METAMORPH-1 (then 2, ...), and default/INPUT leads to it. Without --input that is a
copy of the input so far.

Example:
  storefs metamorph --input '{\"step\":2}' -- ./second-step.sh";

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// The storage folder, memory:, apify:, or the URL of a server [default: the project's folder, from the environment or the
    /// working directory]
    pub source: Option<OsString>,
    /// The input: a file, `-` for standard input, or JSON
    #[arg(short, long, value_name = "FILE|-|JSON", allow_hyphen_values = true)]
    pub input: Option<OsString>,
    /// The input's content type [default: what the file's name or the bytes say]
    #[arg(long, value_name = "TYPE", requires = "input")]
    pub content_type: Option<String>,
    /// Use this store, by name or id; made when missing [default: a new store without a name]
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Mount the stores there [default: in a private directory]
    #[arg(long, value_name = "DIR", conflicts_with = "no_mount")]
    pub mount: Option<PathBuf>,
    /// How the stores of a server are mounted, as mount has it; closes wait for the server unless write=back. Of a folder
    /// only nonempty. May be repeated
    #[arg(short = 'o', long = "options", value_name = "OPT[=VALUE],...")]
    pub options: Vec<String>,
    /// Do not mount: the API is all the command has
    #[arg(long)]
    pub no_mount: bool,
    /// End the command after so long, such as 30s or 10m [default: 0, which is no limit]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// How long the command may take to end when it is asked to, before it is killed
    #[arg(long, value_name = "D", value_parser = duration, default_value = "10s")]
    pub grace: Duration,
    /// Set a variable of the command's environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(variable))]
    pub env: Vec<(OsString, OsString)>,
    /// Print the record OUTPUT in the end; what the command prints goes to standard error
    #[arg(long, conflicts_with = "json")]
    pub output: bool,
    /// Print the run as JSON in the end; what the command prints goes to standard error
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `metamorph`.
#[derive(Args, Debug)]
pub(super) struct MetamorphArgs {
    /// The new input: a file, `-` for standard input, or JSON [default: the same as before]
    #[arg(short, long, value_name = "FILE|-|JSON", allow_hyphen_values = true)]
    pub input: Option<OsString>,
    /// The input's content type [default: what the file's name or the bytes say]
    #[arg(long, value_name = "TYPE", requires = "input")]
    pub content_type: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A variable and its value, which need not be text.
fn variable(set: OsString) -> Result<(OsString, OsString), String> {
    let bytes = set.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if at > 0 => {
            let part = |bytes| OsStr::from_bytes(bytes).to_owned();
            Ok((part(&bytes[..at]), part(&bytes[at + 1..])))
        }
        _ => Err(format!("`{}` is not NAME=VALUE", set.display())),
    }
}
