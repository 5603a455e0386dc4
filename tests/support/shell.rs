//! Shell scripts of tests, and what programs said.

use super::clean;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a bash script (`set -euo pipefail`) in a directory with these variables; panics with everything it said when it
/// fails. Returns standard output.
#[track_caller]
pub fn sh_in(directory: &Path, variables: &[(&str, &Path)], script: &str) -> String {
    let mut command = Command::new("bash");
    clean(&mut command)
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .envs(variables.iter().copied())
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}\n--- {}\n--- stdout\n{out}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end.
pub fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
