//! Which files a record gets in an SDK layout: names, sidecar and link. It only computes; nothing is looked up or written.

use super::sidecar::Form;
use super::{Layout, names};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use crate::record::file_name::{
    SIDECAR, fits_dual, fits_js, fits_python, js_encode, python_encode,
};
use crate::record::types_table::{content_type_of_extension, extension_of_type};

/// What a type without an extension of its own gets.
const UNKNOWN: &str = "bin";
/// Other extensions when the right one would be another key's file. The sidecar says the type then.
const OTHERS: [&str; 6] = ["bin", "dms", "lrf", "mar", "dist", "pkg"];

/// The files of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// The file with the bytes.
    pub(super) value: String,
    /// The sidecar's stem and form.
    pub(super) sidecar: Option<(String, Form)>,
    /// The link for the Python SDK.
    pub(super) link: Option<String>,
}

impl Target {
    /// The extension that the sidecar names: what the value's name has after the key.
    pub(super) fn extension<'a>(&'a self, key: &str) -> &'a str {
        self.value
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or("")
    }
}

/// What to do about a key that only layout plain keeps, in words for whoever mounts or serves the folder, and for their clients.
const PLAIN: &str = "layout plain keeps it: serve the folder with `storefs serve --layout plain`, mount it with `-o layout=plain`";

/// More of a key is not shown in an error.
const LONG: usize = 40;

/// The rule that a key breaks in a layout. Every refusal is logged: the program that tried shows only an error number.
pub(super) fn may_keep(
    layout: Layout,
    key: &str,
    content_type: Option<&ContentType>,
    inputs: &[&str],
) -> Result<()> {
    let Some((kind, why)) = fault(layout, key, content_type, inputs) else {
        return Ok(());
    };
    tracing::warn!("{key}: {why}");
    // A long key would leave no room for the reason where somebody cuts the message.
    let shown = match key.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}...", &key[..at]),
        None => key.to_owned(),
    };
    Err(Error::because("write the record", shown, kind, why))
}

/// Why a layout cannot keep a key, and what to do.
pub(super) fn fault(
    layout: Layout,
    key: &str,
    content_type: Option<&ContentType>,
    inputs: &[&str],
) -> Option<(Kind, String)> {
    if key == "__metadata__" || key == names::STORE_FILE || key.contains(".__metadata__") {
        let why = format!(
            "the SDKs keep files of their own under names with `__metadata__` (choose another key; {PLAIN})"
        );
        return Some((Kind::Invalid, why));
    }
    let input = inputs.iter().find(|input| is_below(key, input));
    if let (Layout::Python | Layout::Dual, Some(input)) = (layout, input) {
        let why = format!(
            "the Python SDK cannot open a store that holds `{input}.*` beside `{input}` (choose a key that does not begin `{input}.`; {PLAIN})"
        );
        return Some((Kind::Invalid, why));
    }
    // Before the bytes are there the type may be anything usual, and the longest usual extension has four letters.
    let extension = content_type.map_or("json", |to| {
        extension_of_type(to.as_str()).unwrap_or(UNKNOWN)
    });
    let fits = match layout {
        Layout::Plain => true,
        Layout::Js => fits_js(key, extension),
        Layout::Python => fits_python(key),
        Layout::Dual => fits_dual(key, extension),
    };
    (!fits).then(|| {
        let why = format!("the SDKs' file names have no room for a key of this length ({PLAIN})");
        (Kind::NameTooLong, why)
    })
}

fn is_below(key: &str, input: &str) -> bool {
    key.strip_prefix(input)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The files that this key of this type gets. `now` is the file that it has, and whether it is an
/// input. `taken` tells the names that are another key's.
pub(super) fn of(
    layout: Layout,
    key: &str,
    content_type: &ContentType,
    (now, input): (Option<&str>, bool),
    taken: &dyn Fn(&str) -> bool,
) -> Target {
    if input {
        return of_input(layout, key, content_type, now);
    }
    let canonical = extension_of_type(content_type.as_str()).unwrap_or(UNKNOWN);
    match layout {
        Layout::Plain | Layout::Python => {
            let name = python_encode(key);
            Target {
                value: name.clone(),
                sidecar: Some((name, Form::Python)),
                link: None,
            }
        }
        Layout::Js => Target {
            value: js_encode(key, canonical),
            sidecar: (!says(canonical, content_type)).then(|| (key.to_owned(), Form::Ours)),
            link: None,
        },
        Layout::Dual => {
            let similar = (canonical == "html").then_some("htm");
            // A running JavaScript process looks for `photo.jpg` where it left it, though `jpeg` is the usual name.
            let kept = now.map(names::split).and_then(|(stem, extension)| {
                extension.filter(|extension| stem == key && is_of(extension, content_type))
            });
            let value = kept
                .into_iter()
                .chain([canonical])
                .chain(similar)
                .chain(OTHERS)
                .map(|extension| js_encode(key, extension))
                .find(|name| !taken(name))
                .unwrap_or_else(|| js_encode(key, canonical));
            let name = python_encode(key);
            Target {
                value,
                sidecar: Some((name.clone(), Form::Ours)),
                link: Some(name),
            }
        }
    }
}

/// An input has one file that both SDKs keep when they purge, and no link: Python's refuses a second candidate.
fn of_input(layout: Layout, key: &str, content_type: &ContentType, now: Option<&str>) -> Target {
    let kept = now.filter(|file| {
        *file == key
            || names::split(file)
                .1
                .is_some_and(|extension| is_of(extension, content_type))
    });
    let value = kept.map_or_else(
        || js_encode(key, input_extension(content_type)),
        str::to_owned,
    );
    let sidecar = match layout {
        Layout::Js => {
            let said = names::split(&value)
                .1
                .is_some_and(|extension| says(extension, content_type));
            // A file without an extension is taken for JSON or text by its bytes.
            let shown = value == key && (content_type.is_json() || content_type.is_text());
            (!said && !shown).then(|| (key.to_owned(), Form::Ours))
        }
        Layout::Plain | Layout::Python | Layout::Dual => Some((value.clone(), Form::Ours)),
    };
    Target {
        value,
        sidecar,
        link: None,
    }
}

fn input_extension(content_type: &ContentType) -> &'static str {
    if content_type.is_json() {
        "json"
    } else if content_type.is_text() {
        "txt"
    } else {
        "bin"
    }
}

fn is_of(extension: &str, content_type: &ContentType) -> bool {
    content_type_of_extension(extension)
        .is_some_and(|said| ContentType::stored(said).essence() == content_type.essence())
}

/// Whether an extension alone tells this type, a default charset aside.
pub(super) fn says(extension: &str, content_type: &ContentType) -> bool {
    let Some(said) = content_type_of_extension(extension) else {
        return false;
    };
    let wanted = content_type.as_str();
    said == wanted
        || said
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.eq_ignore_ascii_case("; charset=utf-8"))
}

/// The name of the sidecar of a stem.
pub(super) fn sidecar_file(stem: &str) -> String {
    format!("{stem}{SIDECAR}")
}
