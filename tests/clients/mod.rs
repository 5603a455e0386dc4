//! Runs programs that use a server through the official clients, and reads what they say of each of their checks.
//! Must never skip a test: without the clients it fails and names the script that installs them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::http::Served;
use crate::sdk;
use crate::support::clean;

/// How long a program may take. Far more than it needs, on any machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A line of a program.
#[derive(Deserialize)]
struct Check {
    check: String,
    why: Option<String>,
}

/// A child that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of `tests/clients`.
pub fn script(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    path.join(name)
}

/// Node, and the Python that has the clients.
pub fn node() -> Command {
    Command::new("node")
}

pub fn python() -> Command {
    Command::new(sdk::tools().join("py/bin/python"))
}

/// Runs a command to its end. Nothing of it goes on when it takes too long, or the test fails.
pub fn ended(command: &mut Command) -> Output {
    ended_with(command, Stdio::null())
}

/// The same, with something on standard input.
pub fn ended_with(command: &mut Command, input: Stdio) -> Output {
    let mut log = tempfile::tempfile().unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let spawned = command
        .stdin(input)
        .stdout(out.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .spawn();
    let mut child = Ending(spawned.unwrap_or_else(|why| panic!("{command:?}: {why}")));
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.0.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > until => {
                panic!("{command:?} does not end: {}", text(&mut log))
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Output {
        status,
        stdout: text(&mut out).into_bytes(),
        stderr: text(&mut log).into_bytes(),
    }
}

fn text(file: &mut File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a program against the server, as its first user, and panics with all that it found wrong.
pub fn run(server: &Served, mut command: Command, least: usize) {
    let folder = tempfile::tempdir().unwrap();
    let other = server.tokens.add("bob", false, None).unwrap();
    server.wait_for(&other);
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/cases.json");
    clean(&mut command)
        .env("CLIENT_TOOLS", sdk::tools())
        .env("CLIENT_URL", format!("http://{}", server.address))
        .env("CLIENT_TOKEN", &server.token)
        .env("CLIENT_OTHER_TOKEN", other)
        .env("CLIENT_CASES", cases)
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path());
    let said = ended(&mut command);
    let lines = String::from_utf8(said.stdout).unwrap();
    let checks = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let checks: Vec<Check> = checks.collect();
    let wrong = checks.iter().filter_map(|check| {
        let why = check.why.as_ref()?;
        Some(format!("- {}\n{why}", check.check))
    });
    let wrong: Vec<String> = wrong.collect();
    let log = String::from_utf8_lossy(&said.stderr);
    assert!(wrong.is_empty(), "\n{}\n{log}", wrong.join("\n"));
    assert!(said.status.success(), "{}: {log}", said.status);
    assert!(checks.len() >= least, "only {} checks: {log}", checks.len());
}
