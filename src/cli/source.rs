//! SOURCE, as a person writes it, to the folder it means. It never creates anything.

use super::config::Surroundings;
use crate::backend::open::{Source, without_secrets};
use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const VARIABLES: [&str; 2] = ["APIFY_LOCAL_STORAGE_DIR", "CRAWLEE_STORAGE_DIR"];
const FOLDERS: [&str; 3] = ["storage", "crawlee_storage", "apify_storage"];
const STORES: &str = "key_value_stores";

/// The absolute, resolved path of the storage folder that `source` names, or, without one, of the project's.
///
/// `Kind::Unsupported` for sources that are no folders, `Kind::NotFound` when there is none.
pub(super) fn folder(source: Option<&OsStr>, here: &Surroundings) -> Result<PathBuf> {
    let path = match source {
        Some(source) => {
            refuse_schemes(source)?;
            here.absolute(Path::new(source))
        }
        None => project_folder(here)?,
    };
    check(&path)
}

fn project_folder(here: &Surroundings) -> Result<PathBuf> {
    if let Some(path) = VARIABLES.iter().find_map(|name| here.var(name)) {
        return Ok(here.absolute(Path::new(path)));
    }
    let candidates = FOLDERS.iter().map(|name| here.cwd.join(name));
    candidates.into_iter().find(|path| path.is_dir()).ok_or_else(|| {
        Error::because(
            "find a storage folder in",
            here.cwd.display().to_string(),
            Kind::NotFound,
            "no SOURCE was given, APIFY_LOCAL_STORAGE_DIR and CRAWLEE_STORAGE_DIR are not set, and there is no \
             ./storage, ./crawlee_storage or ./apify_storage (name the folder, or make one: \
             mkdir -p storage/key_value_stores/default)",
        )
    })
}

fn refuse_schemes(source: &OsStr) -> Result<()> {
    if let Ok(Source::Folder(_)) = Source::parse(source) {
        return Ok(());
    }
    Err(Error::because(
        "use the source",
        without_secrets(&source.to_string_lossy()),
        Kind::Unsupported,
        "sources are local storage folders; memory:, apify:, http:// and https:// are for serve (give the path of a \
         folder; write ./ before a path with a colon)",
    ))
}

fn check(path: &Path) -> Result<PathBuf> {
    const OP: &str = "open the storage folder";
    let named = || path.display().to_string();
    let resolved = fs::canonicalize(path).map_err(|why| {
        if why.kind() != io::ErrorKind::NotFound {
            return Error::io(OP, named(), why);
        }
        let advice = format!(
            "there is no such folder (make it: mkdir -p {}/{STORES}/default)",
            named()
        );
        Error::because(OP, named(), Kind::NotFound, advice)
    })?;
    let about = fs::metadata(&resolved).map_err(|why| Error::io(OP, named(), why))?;
    if !about.is_dir() {
        return Err(Error::because(
            OP,
            named(),
            Kind::NotADirectory,
            format!("it is a file (give the folder that holds {STORES}/)"),
        ));
    }
    if let Err(why) = fs::read_dir(&resolved) {
        let what = format!(
            "{why} (you need to read and enter it: see ls -ld {})",
            named()
        );
        return Err(Error::because(
            OP,
            named(),
            Error::io(OP, "", why).kind(),
            what,
        ));
    }
    if resolved.ends_with(STORES) && !resolved.join(STORES).is_dir() {
        let above = resolved.parent().unwrap_or(&resolved).display();
        return Err(Error::because(
            OP,
            named(),
            Kind::Invalid,
            format!("this is the folder of the stores themselves (give the one above: {above})"),
        ));
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn here(vars: &[(&str, &str)], cwd: &Path) -> Surroundings {
        Surroundings::made_of(vars, cwd, 1000)
    }

    #[test]
    fn without_a_source_the_environment_then_the_working_directory_decide() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for name in ["crawlee_storage", "apify_storage", "a", "b"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        assert_eq!(
            folder(None, &here(&[], &root)).unwrap(),
            root.join("crawlee_storage")
        );
        fs::create_dir(root.join("storage")).unwrap();
        assert_eq!(
            folder(None, &here(&[], &root)).unwrap(),
            root.join("storage")
        );
        let crawlee = ("CRAWLEE_STORAGE_DIR", "b");
        assert_eq!(
            folder(None, &here(&[crawlee], &root)).unwrap(),
            root.join("b")
        );
        let both = [crawlee, ("APIFY_LOCAL_STORAGE_DIR", "./a")];
        assert_eq!(folder(None, &here(&both, &root)).unwrap(), root.join("a"));
    }

    #[test]
    fn without_any_folder_the_error_shows_how_to_make_one() {
        let temp = tempfile::tempdir().unwrap();
        let error = folder(None, &here(&[], temp.path())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("mkdir -p storage/key_value_stores/default")
        );
        let error = folder(Some("nowhere".as_ref()), &here(&[], temp.path())).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("mkdir -p"));
    }

    #[test]
    fn sources_that_are_no_folders_are_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        for source in [
            "apify:",
            "memory:",
            "s3://b/p",
            "s3:b",
            "gs://b",
            "az://b",
            "http://h:1",
            "https://h",
        ] {
            let error = folder(Some(source.as_ref()), &here(&[], temp.path())).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{source}");
            assert!(error.to_string().contains("local storage folders"));
        }
        fs::create_dir(temp.path().join("a:b")).unwrap();
        assert!(
            folder(Some("a:b".as_ref()), &here(&[], temp.path()))
                .unwrap()
                .ends_with("a:b")
        );
        fs::create_dir(temp.path().join("apify:")).unwrap();
        assert!(folder(Some("./apify:".as_ref()), &here(&[], temp.path())).is_ok());
    }

    #[test]
    fn a_file_and_the_folder_of_the_stores_are_no_storage_folders() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        let error = folder(Some("file".as_ref()), &here(&[], temp.path())).unwrap_err();
        assert_eq!(error.kind(), Kind::NotADirectory);
        fs::create_dir_all(temp.path().join("storage/key_value_stores")).unwrap();
        let error = folder(
            Some("storage/key_value_stores".as_ref()),
            &here(&[], temp.path()),
        )
        .unwrap_err();
        assert!(error.to_string().contains("the one above"));
    }
}
