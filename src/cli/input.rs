//! `--input`, as a person writes it, to the input it means. It never starts anything.

use super::config::Surroundings;
use crate::actor::Input;
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const OP: &str = "use the input";

/// The input that `argument` means: `-` is standard input; what begins like a JSON document is one; else the file of this
/// name, or any JSON.
pub(super) fn read(
    argument: &OsStr,
    content_type: Option<&str>,
    here: &Surroundings,
) -> Result<Input> {
    let content_type = content_type
        .map(|text| ContentType::parse(text.as_bytes()))
        .transpose()?;
    if argument == "-" {
        let fault = |why| Error::io("read the input from", "standard input", why);
        let file = kept(&mut io::stdin().lock()).map_err(fault)?;
        return Input::of_file(file, None, content_type);
    }
    if argument.is_empty() {
        let why = "it is empty (give a file, - for standard input, or JSON)";
        return Err(Error::because(OP, "\"\"", Kind::Invalid, why));
    }
    let path = here.absolute(Path::new(argument));
    let text = argument.to_str();
    let document = text.filter(|text| text.trim_start().starts_with(['{', '[', '"']));
    if let Some(text) = document.filter(|_| !path.is_file()) {
        // Whoever writes a document means JSON, also where it is broken.
        let json = ContentType::stored("application/json; charset=utf-8");
        return Input::of_text(text, Some(content_type.unwrap_or(json)));
    }
    match File::open(&path) {
        Ok(file) => {
            let fault = |why| Error::io("read the input", path.display().to_string(), why);
            let about = file.metadata().map_err(fault)?;
            if about.is_dir() {
                return Err(fault(io::Error::from_raw_os_error(libc::EISDIR)));
            }
            // A pipe can be read only once, and not from its start. Files of the kernel tell no length.
            let file = match about.is_file() && about.len() > 0 {
                true => file,
                false => kept(&mut &file).map_err(fault)?,
            };
            Input::of_file(file, Some(&path), content_type)
        }
        // What is too long for a name is no file, either.
        Err(why)
            if matches!(
                why.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename
            ) =>
        {
            let is_json = text.is_some_and(|text| {
                let json = ContentType::stored("application/json");
                !text.is_empty() && json.contradicts(text.as_bytes()).is_ok_and(|wrong| !wrong)
            });
            match text.filter(|_| is_json) {
                Some(text) => Input::of_text(text, content_type),
                None => Err(Error::because(
                    OP,
                    argument.display().to_string(),
                    Kind::Invalid,
                    "there is no such file, and it is no JSON (give a file, - for standard input, or JSON)",
                )),
            }
        }
        Err(why) => Err(Error::io("read the input", path.display().to_string(), why)),
    }
}

/// What can be read only once, in a file without a name.
fn kept(from: &mut dyn Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(from, &mut file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_tells_no_length_is_read_to_its_end() {
        let here = Surroundings::made_of(&[], Path::new("/"), 1000);
        let input = read(OsStr::new("/proc/self/status"), None, &here).unwrap();
        let text = String::from_utf8(input.body.to_vec().unwrap()).unwrap();
        assert!(text.starts_with("Name:"), "{text}");
        assert_eq!(input.content_type.essence(), "text/plain");
    }

    #[test]
    fn files_documents_and_bare_values_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("42"), "from the file").unwrap();
        fs::write(temp.path().join("in.json"), "[1]").unwrap();
        fs::write(temp.path().join("broken.json"), "[1").unwrap();
        let here = Surroundings::made_of(&[], temp.path(), 1000);
        let read = |argument: &str| read(OsStr::new(argument), None, &here);
        let bytes = |argument: &str| {
            let input = read(argument).unwrap();
            (
                String::from_utf8(input.body.to_vec().unwrap()).unwrap(),
                input.content_type.essence().into_owned(),
            )
        };
        let json = |text: &str| (text.to_owned(), "application/json".to_owned());
        assert_eq!(bytes("{\"a\":1}"), json("{\"a\":1}"));
        assert_eq!(bytes("in.json"), json("[1]"));
        assert_eq!(bytes("true"), json("true"));
        for digits in [300, 5000] {
            let number = "7".repeat(digits);
            assert_eq!(bytes(&number), json(&number));
        }
        assert_eq!(bytes("42").0, "from the file");
        for wrong in ["{\"a\":", "broken.json", "nothing-there", ".", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
