//! The input of a run, checked before anything starts. It never changes a byte of it.

use crate::error::{Error, Kind, Result};
use crate::record::{Body, ContentType};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

const OP: &str = "use the input";

/// The bytes of an input and what they are.
#[derive(Clone, Debug)]
pub struct Input {
    /// The bytes.
    pub body: Body,
    /// Their type.
    pub content_type: ContentType,
}

impl Input {
    /// An input that was written on the command line.
    pub fn of_text(text: &str, content_type: Option<ContentType>) -> Result<Self> {
        let content_type = match content_type {
            Some(given) => given,
            None => ContentType::guess_from_bytes(text.as_bytes()).map_err(unreadable(""))?,
        };
        let wrong = content_type.contradicts(text.as_bytes());
        check(
            &content_type,
            wrong.map_err(unreadable(""))? || text.is_empty(),
            "of the command line",
        )?;
        Ok(Self {
            body: text.as_bytes().into(),
            content_type,
        })
    }

    /// An input in a file that nobody writes any more. Without a type it is what the file's name or else its bytes say.
    pub fn of_file(
        file: File,
        name: Option<&Path>,
        content_type: Option<ContentType>,
    ) -> Result<Self> {
        let shown = name.map_or("standard input".to_owned(), |path| {
            path.display().to_string()
        });
        let by_name = || {
            let name = name?.file_name()?.to_str()?;
            ContentType::guess_from_name(name)
        };
        let content_type = match content_type.or_else(by_name) {
            Some(known) => known,
            None => ContentType::guess_from_bytes(&file).map_err(unreadable(&shown))?,
        };
        let wrong = content_type
            .contradicts(&file)
            .and_then(|wrong| Ok(wrong || file.metadata()?.len() == 0));
        check(&content_type, wrong.map_err(unreadable(&shown))?, &shown)?;
        Ok(Self {
            body: Body::File(Arc::new(file)),
            content_type,
        })
    }
}

fn unreadable(shown: &str) -> impl Fn(io::Error) -> Error + use<'_> {
    move |why| Error::io("read the input", shown, why)
}

/// An SDK that is told JSON fails on anything else, long after the command has started.
fn check(content_type: &ContentType, wrong: bool, shown: &str) -> Result<()> {
    if content_type.is_json() && wrong {
        let why = format!(
            "it is no JSON although its type is {content_type} (mend it, or say what it is with --content-type)"
        );
        return Err(Error::because(OP, shown, Kind::Invalid, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_type_is_the_one_given_else_by_name_else_by_bytes() {
        let of = |bytes: &[u8], name: Option<&str>, given: Option<&str>| {
            let given = given.map(ContentType::stored);
            let input = Input::of_file(file(bytes), name.map(Path::new), given).unwrap();
            input.content_type.to_string()
        };
        assert_eq!(of(b"{}", None, Some("text/x")), "text/x");
        assert_eq!(of(b"{}", Some("a.txt"), None), "text/plain; charset=utf-8");
        assert_eq!(
            of(b"{}", Some("a"), None),
            "application/json; charset=utf-8"
        );
        assert_eq!(of(b"hello", None, None), "text/plain; charset=utf-8");
        assert_eq!(of(&[0xff, 0xfe, 0], None, None), "application/octet-stream");
    }

    #[test]
    fn what_is_called_json_and_is_none_is_refused() {
        let broken = Input::of_file(file(b"{\"a\":"), Some(Path::new("in.json")), None);
        assert_eq!(broken.unwrap_err().kind(), Kind::Invalid);
        let empty = Input::of_file(file(b""), Some(Path::new("in.json")), None);
        assert_eq!(empty.unwrap_err().kind(), Kind::Invalid);
        let json = Some(ContentType::stored("application/json"));
        assert!(Input::of_text("{a:1}", json).is_err());
        assert!(Input::of_text("{\"a\":1}", None).is_ok());
    }
}
