//! The table of file extensions and content types, the same one the JavaScript SDK names its files by.
//! It never holds an opinion of ours, except in `guessed_type_of_extension`, which file names must not use.

use std::collections::HashMap;
use std::sync::OnceLock;

/// The table as text: type, its extension, the extensions that give it.
const TABLE: &str = include_str!("types.tsv");

/// What a key's extension means to people where the table says nothing, or something of a format they never meet.
const OVERRIDES: [(&str, &str); 3] = [
    ("jsonl", "application/x-ndjson"),
    ("ndjson", "application/x-ndjson"),
    ("rs", "text/plain; charset=utf-8"),
];

struct Tables {
    type_of: HashMap<&'static str, &'static str>,
    extension_of: HashMap<&'static str, &'static str>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut type_of = HashMap::new();
        let mut extension_of = HashMap::new();
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let mut columns = line.split('\t');
            let (Some(content_type), Some(extension)) = (columns.next(), columns.next()) else {
                continue;
            };
            extension_of.insert(bare(content_type), extension);
            for name in columns.next().unwrap_or_default().split_whitespace() {
                type_of.insert(name, content_type);
            }
        }
        Tables {
            type_of,
            extension_of,
        }
    })
}

/// The type without its parameters.
fn bare(content_type: &str) -> &str {
    let content_type = content_type.trim_start();
    let end = content_type
        .find(|c: char| c == ';' || c.is_whitespace())
        .unwrap_or(content_type.len());
    &content_type[..end]
}

/// Looks a short ASCII name up whatever its letter case, without an allocation when it is lower case already.
fn look_up(map: &HashMap<&'static str, &'static str>, name: &str) -> Option<&'static str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        map.get(name.to_ascii_lowercase().as_str()).copied()
    } else {
        map.get(name).copied()
    }
}

/// The content type of a file extension without its dot, with the charset where the table has one.
pub fn content_type_of_extension(extension: &str) -> Option<&'static str> {
    look_up(&tables().type_of, extension)
}

/// The extension of a content type, without a dot. Parameters and letter case do not matter.
pub fn extension_of_type(content_type: &str) -> Option<&'static str> {
    look_up(&tables().extension_of, bare(content_type))
}

/// The extension that the type of this extension has: `jpeg` for `jpg`.
pub fn canonical_extension_of_extension(extension: &str) -> Option<&'static str> {
    extension_of_type(content_type_of_extension(extension)?)
}

/// The content type a person expects of a key with this extension. For guesses only: file names follow the table.
pub fn guessed_type_of_extension(extension: &str) -> Option<&'static str> {
    OVERRIDES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(extension))
        .map(|(_, content_type)| *content_type)
        .or_else(|| content_type_of_extension(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(tables().extension_of.len(), lines);
        assert_eq!(
            (tables().extension_of.len(), tables().type_of.len()),
            (965, 1180)
        );
    }

    #[test]
    fn every_extension_leads_to_a_type_that_has_an_extension() {
        for (extension, content_type) in &tables().type_of {
            let canonical = canonical_extension_of_extension(extension).expect("an extension");
            assert_eq!(
                extension_of_type(content_type),
                Some(canonical),
                "{extension}"
            );
            assert!(!canonical.contains('.'), "{canonical}");
        }
    }

    #[test]
    fn case_and_parameters_do_not_matter() {
        assert_eq!(
            content_type_of_extension("JSON"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(extension_of_type(" Text/HTML;charset=latin1"), Some("html"));
        assert_eq!(extension_of_type("image/jpeg ; q=1"), Some("jpeg"));
        assert_eq!(canonical_extension_of_extension("jpg"), Some("jpeg"));
        assert_eq!(canonical_extension_of_extension("md"), Some("markdown"));
        assert_eq!(content_type_of_extension("no-such"), None);
        assert_eq!(extension_of_type(""), None);
    }

    #[test]
    fn an_override_changes_guesses_only() {
        assert_eq!(
            guessed_type_of_extension("JSONL"),
            Some("application/x-ndjson")
        );
        assert_eq!(content_type_of_extension("jsonl"), None);
        assert_eq!(
            content_type_of_extension("rs"),
            Some("application/rls-services+xml")
        );
        assert_eq!(guessed_type_of_extension("png"), Some("image/png"));
    }
}
