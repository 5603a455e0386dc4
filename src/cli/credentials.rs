//! The token for a remote source: from a file, the environment, or the login of the Apify CLI. It is never an argument, and
//! never printed.

use super::config::Surroundings;
use crate::backend::apify::{PUBLIC, Token};
use crate::backend::open::Source;
use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const VARIABLE: &str = "APIFY_TOKEN";
const BASE: &str = "APIFY_API_BASE_URL";
/// Below the home directory.
const LOGIN: &str = ".apify/auth.json";
/// The most that is read of a file with a token.
const MOST: u64 = 64 << 10;

/// The base URL that stands for `apify:`.
pub(super) fn api_base(here: &Surroundings) -> Option<String> {
    let base = here.var(BASE)?.to_string_lossy().into_owned();
    Some(base.trim().to_owned())
}

/// The token for this source: of the file that is named, else of the environment, else, for `apify:` at its public address,
/// of the Apify CLI. `None` when there is none.
pub(super) fn token(
    source: &Source,
    file: Option<&Path>,
    here: &Surroundings,
) -> Result<Option<Token>> {
    if !source.is_remote() {
        return Ok(None);
    }
    if let Some(file) = file {
        return of_file(&here.absolute(file), here.uid).map(Some);
    }
    if let Some(value) = here.var(VARIABLE) {
        return Token::new(&value.to_string_lossy())
            .map(Some)
            .map_err(|why| {
                Error::because("take the token from", VARIABLE, why.kind(), why.to_string())
            });
    }
    let public = api_base(here).is_none_or(|base| base.trim_end_matches('/') == PUBLIC);
    match (source, here.var("HOME")) {
        (Source::Apify, Some(home)) if public => of_login(&Path::new(home).join(LOGIN)),
        _ => Ok(None),
    }
}

/// The token of a file that nobody else may read.
fn of_file(path: &Path, uid: u32) -> Result<Token> {
    const OP: &str = "read the token file";
    let named = || path.display().to_string();
    // A pipe without a writer would keep us waiting.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let file = opened.map_err(|why| Error::io(OP, named(), why))?;
    let about = file.metadata().map_err(|why| Error::io(OP, named(), why))?;
    let refused = |why: String| Error::because(OP, named(), Kind::Denied, why);
    if !about.is_file() {
        return Err(refused("it is no file".to_owned()));
    }
    if about.mode() & 0o077 != 0 {
        return Err(refused(format!(
            "others may read or change it (chmod 600 {})",
            named()
        )));
    }
    if about.uid() != uid && about.uid() != 0 {
        return Err(refused("it belongs to somebody else".to_owned()));
    }
    let text = read(file).map_err(|why| Error::io(OP, named(), why))?;
    Token::new(&text).map_err(|why| {
        let why = format!("{why} (the file holds the token and nothing else)");
        Error::because(OP, named(), Kind::Invalid, why)
    })
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    token: Option<String>,
}

/// The token that `apify login` has left, if it has.
fn of_login(path: &Path) -> Result<Option<Token>> {
    const OP: &str = "read the login of the Apify CLI";
    let named = || path.display().to_string();
    let text = match File::open(path).and_then(read) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(Error::io(OP, named(), why)),
    };
    let login: Login = serde_json::from_str(&text).map_err(|why| {
        // The message of a JSON error may hold a piece of the text.
        let why = format!(
            "it is no JSON of a login, in line {} (log in again: apify login)",
            why.line()
        );
        Error::because(OP, named(), Kind::Corrupt, why)
    })?;
    login.token.as_deref().map(Token::new).transpose()
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn server() -> Source {
        Source::parse("http://127.0.0.1:8010").unwrap()
    }

    fn is(token: Option<Token>, text: &str) -> bool {
        token == Some(Token::new(text).unwrap())
    }

    /// A home with a token file of this mode and a login.
    fn home(mode: u32) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".apify")).unwrap();
        fs::write(
            home.path().join(LOGIN),
            r#"{"token": "of-login", "username": "ann"}"#,
        )
        .unwrap();
        let file = home.path().join("token");
        fs::write(&file, "of-file\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        home
    }

    fn here(home: &tempfile::TempDir, vars: &[(&str, &str)]) -> Surroundings {
        let mut all = vec![("HOME", home.path().to_str().unwrap())];
        all.extend(vars);
        let uid = fs::metadata(home.path()).unwrap().uid();
        Surroundings::made_of(&all, home.path(), uid)
    }

    #[test]
    fn the_file_that_is_named_wins_then_the_environment_then_the_login() {
        let home = home(0o600);
        let (bare, set) = (here(&home, &[]), here(&home, &[(VARIABLE, " of-env ")]));
        let file = Some(Path::new("token"));
        for source in [Source::Apify, server()] {
            assert!(is(token(&source, file, &set).unwrap(), "of-file"));
            assert!(is(token(&source, None, &set).unwrap(), "of-env"));
        }
        assert!(is(token(&Source::Apify, None, &bare).unwrap(), "of-login"));
        assert_eq!(token(&Source::Memory, file, &set).unwrap(), None);
    }

    #[test]
    fn the_login_is_for_the_public_api_only() {
        let home = home(0o600);
        assert_eq!(token(&server(), None, &here(&home, &[])).unwrap(), None);
        let elsewhere = here(&home, &[(BASE, "http://127.0.0.1:8010")]);
        assert_eq!(token(&Source::Apify, None, &elsewhere).unwrap(), None);
        let public = here(&home, &[(BASE, "https://api.apify.com/")]);
        assert!(is(
            token(&Source::Apify, None, &public).unwrap(),
            "of-login"
        ));
        fs::remove_file(home.path().join(LOGIN)).unwrap();
        assert_eq!(
            token(&Source::Apify, None, &here(&home, &[])).unwrap(),
            None
        );
    }

    #[test]
    fn a_token_file_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o660, 0o610] {
            let home = home(mode);
            let error = token(&server(), Some(Path::new("token")), &here(&home, &[])).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        let home = home(0o400);
        assert!(token(&server(), Some(Path::new("token")), &here(&home, &[])).is_ok());
        for wrong in ["missing", "."] {
            assert!(token(&server(), Some(Path::new(wrong)), &here(&home, &[])).is_err());
        }
    }

    #[test]
    fn nothing_of_a_token_is_in_an_error() {
        let home = home(0o600);
        fs::write(home.path().join("token"), "s3cr3t and more").unwrap();
        fs::write(home.path().join(LOGIN), "{\"token\": s3cr3t").unwrap();
        let bare = here(&home, &[]);
        let errors = [
            token(&server(), Some(Path::new("token")), &bare).unwrap_err(),
            token(&Source::Apify, None, &bare).unwrap_err(),
            token(&server(), None, &here(&home, &[(VARIABLE, "s3cr3t two")])).unwrap_err(),
        ];
        for error in errors {
            assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
        }
    }
}
