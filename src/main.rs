//! The program `storefs`: hands its arguments to the library and exits with what that returns. It never does anything
//! itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    storefs::cli::run(std::env::args_os())
}
