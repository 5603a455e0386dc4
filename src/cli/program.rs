//! Whether a command can be started, before anything is done or ended for it. It never starts one.

use super::config::Surroundings;
use super::exit::Failure;
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The exit codes of a command that is not there, and of one that cannot be started, as shells have them.
const NO_PROGRAM: u8 = 127;
const NOT_STARTED: u8 = 126;
/// Where programs are looked for when nobody says where: as execvp(3) of glibc has it.
const USUAL: &str = "/bin:/usr/bin";
/// The longest first line of a script that the system reads (BINPRM_BUF_SIZE).
const FIRST_LINE: u64 = 256;

/// Finds out whether the system will start this command. `path` is the variable PATH of its environment.
pub(super) fn find(
    command: &[OsString],
    path: Option<&OsStr>,
    here: &Surroundings,
) -> Result<(), Failure> {
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let failed = |code, why: &str| Failure {
        code,
        message: format!("start {}: {why}", program.display()),
    };
    let none = || failed(NO_PROGRAM, "there is no such program");
    if !program.as_bytes().contains(&b'/') {
        let folders = std::env::split_paths(path.unwrap_or(OsStr::new(USUAL)));
        let mut places = folders.map(|folder| here.absolute(&folder.join(program)));
        let found = places.find(|place| place.is_file() && is_executable(place));
        return match found {
            Some(found) if !program.is_empty() => {
                interpreter_is_there(&found).map_err(|why| failed(NO_PROGRAM, &why))
            }
            _ => Err(none()),
        };
    }
    let place = here.absolute(Path::new(program));
    if !place.exists() {
        return Err(none());
    }
    if place.is_dir() {
        return Err(failed(NOT_STARTED, "it is a directory"));
    }
    if !is_executable(&place) {
        let why = "this user may not execute it (a script of yours: chmod +x)";
        return Err(failed(NOT_STARTED, why));
    }
    interpreter_is_there(&place).map_err(|why| failed(NO_PROGRAM, &why))
}

fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}

/// Whether what a script begins with is there. What cannot be read is for the system to judge.
fn interpreter_is_there(script: &Path) -> Result<(), String> {
    let mut first = Vec::new();
    let read = File::open(script)
        .and_then(|file| BufReader::new(file.take(FIRST_LINE)).read_until(b'\n', &mut first));
    let Some(line) = first.strip_prefix(b"#!").filter(|_| read.is_ok()) else {
        return Ok(());
    };
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let begin = line.iter().take_while(|byte| blank(byte)).count();
    let name: Vec<u8> = line[begin..]
        .iter()
        .take_while(|byte| !blank(byte))
        .copied()
        .collect();
    let interpreter = PathBuf::from(OsString::from_vec(name));
    if interpreter.is_absolute() && !interpreter.exists() {
        let shown = interpreter.display();
        return Err(format!(
            "its interpreter {shown} is not there (see its first line)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_looked_for_where_the_system_will() {
        let temp = tempfile::tempdir().unwrap();
        let at = temp.path().join("tool");
        fs::write(&at, "").unwrap();
        let here = Surroundings::made_of(&[], temp.path(), 1000);
        let code = |name: &str| {
            let path = Some(temp.path().as_os_str());
            find(&[name.into()], path, &here).map_err(|failure| failure.code)
        };
        assert_eq!(code("tool"), Err(NO_PROGRAM));
        assert_eq!(code("./tool"), Err(NOT_STARTED));
        fs::set_permissions(&at, Permissions::from_mode(0o755)).unwrap();
        assert_eq!((code("tool"), code("./tool")), (Ok(()), Ok(())));
        assert_eq!(code("no-such-tool"), Err(NO_PROGRAM));
        assert_eq!(
            (code("./nothing"), code("")),
            (Err(NO_PROGRAM), Err(NO_PROGRAM))
        );
        assert_eq!(code("/tmp"), Err(NOT_STARTED));
        for (script, is_there) in [
            ("#!/nowhere/sh -e\n", false),
            ("#! /bin/sh\n", true),
            ("#!sh", true),
        ] {
            fs::write(&at, script).unwrap();
            assert_eq!(
                code("tool").is_ok() && code("./tool").is_ok(),
                is_there,
                "{script}"
            );
        }
    }

    #[test]
    fn without_a_path_programs_are_found_in_the_usual_places() {
        let here = Surroundings::made_of(&[], Path::new("/"), 0);
        assert!(find(&["sh".into()], None, &here).is_ok());
        assert!(find(&["sh".into()], Some(OsStr::new("/nowhere")), &here).is_err());
    }
}
