//! What our side of a conflict is called. The name is a legal key whatever the record's is.

use crate::error::Result;
use crate::record::Key;
use crate::record::key::is_key_byte;

/// What tells a conflict name.
const MARK: &str = ".conflict-";
/// The same for a run's input: `INPUT.x` is another input to the SDKs, so that a server with their folders takes no such key.
const INPUT: &str = "INPUT";
const INPUT_MARK: &str = "-conflict-";
/// No conflict name is longer, since some layouts of folders have no room for the longest keys.
const LONGEST: usize = 200;
/// So much of the machine's name is in it.
const HOST: usize = 32;

/// `STEM.conflict-YYYYMMDDTHHMMSSZ-HOST.EXT`, cut to what every source takes. `saved` is when our side was saved; `number` tells two
/// of one second apart.
pub(super) fn name(key: &Key, saved_ns: i64, host: &str, number: u32, most: usize) -> Result<Key> {
    let seconds = u64::try_from(saved_ns / 1_000_000_000).unwrap_or_default();
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let stamp = humantime::format_rfc3339_seconds(at).to_string();
    let stamp: String = stamp.chars().filter(|c| *c != '-' && *c != ':').collect();
    let legal = |c: char| c.is_ascii() && is_key_byte(c as u8) && c != '.';
    let host: String = host.chars().filter(|c| legal(*c)).take(HOST).collect();
    // Of a conflict name that is taken as well, another number.
    let key = key.as_str();
    let (stem, extension) = match key.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= 16 => {
            (stem, format!(".{extension}"))
        }
        _ => (key, String::new()),
    };
    let stem = stem.split_once(MARK).map_or(stem, |(stem, _)| stem);
    let of_input = stem.split_once(INPUT_MARK).map(|(stem, _)| stem);
    let is_input = [Some(stem), of_input].contains(&Some(INPUT));
    let (stem, mark) = match is_input {
        true => (INPUT, INPUT_MARK),
        false => (stem, MARK),
    };
    let stem = if stem.is_empty() { "record" } else { stem };
    let more = match number {
        0 => String::new(),
        number => format!("-{number}"),
    };
    let end = format!("{mark}{stamp}-{host}{more}{extension}");
    let room = most.min(LONGEST).saturating_sub(end.len()).max(1);
    let stem = &stem[..stem.len().min(room)];
    Key::new(&format!("{stem}{end}"))
}
