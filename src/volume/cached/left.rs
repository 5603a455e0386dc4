//! What an earlier process left in the folder of the spool: the files there, and how earlier versions kept edits. It deletes
//! nothing.

use super::note::Note;
use super::notes;
use super::spool::file_of;
use crate::error::{Error, Kind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where bytes are kept of which it is not known whose they are.
pub(super) fn bad_name(dir: &Path, number: u64) -> PathBuf {
    let names = (0..).map(|again| match again {
        0 => dir.join(format!("{number}.bad")),
        again => dir.join(format!("{number}-{again}.bad")),
    });
    let mut names = names.filter(|path| !path.exists());
    names.next().unwrap_or_else(|| dir.join("bad"))
}

/// The numbers of the files of a folder that have one and end so.
pub(super) fn numbers_in(dir: &Path, end: &str) -> Result<Vec<u64>> {
    let failed = |e| Error::io("list the spool", dir.display().to_string(), e);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(end));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Takes over what an earlier version left, which kept each note in a file. What can go once the notes are among the others.
pub(super) fn adopt_single_notes(dir: &Path, found: &mut notes::Found) -> Result<Vec<PathBuf>> {
    let drafts = dir.join("drafts");
    if !drafts.exists() {
        return Ok(Vec::new());
    }
    let failed = |e| Error::io("take over", dir.display().to_string(), e);
    let old = |seq: u64, kind: &str| dir.join(format!("{seq:016}.{kind}"));
    for seq in numbers_in(dir, ".data")? {
        if old(seq, "bad").exists() {
            // Kept beside a note that cannot be used.
            continue;
        }
        fs::rename(old(seq, "data"), file_of(dir, seq)).map_err(failed)?;
    }
    let notes = numbers_in(dir, ".json")?;
    for seq in &notes {
        let text = fs::read(old(*seq, "json")).map_err(failed)?;
        found.take_single(*seq, &String::from_utf8_lossy(&text));
    }
    let mut spent: Vec<_> = notes.into_iter().map(|seq| old(seq, "json")).collect();
    spent.push(drafts);
    Ok(spent)
}

/// Whether an edit has its bytes.
pub(super) fn check(dir: &Path, data: Option<u64>, note: &Note) -> Result<()> {
    let Some(size) = note.size else {
        return Ok(());
    };
    let Some(number) = data else {
        let why = format!("its note names no bytes, and it should have {size}");
        return Err(Error::because("read the edit", "", Kind::Corrupt, why));
    };
    let path = file_of(dir, number);
    let failed = |e| Error::io("read the edit", path.display().to_string(), e);
    let found = fs::metadata(&path).map_err(failed)?.len();
    if found == size {
        return Ok(());
    }
    let why = format!("it should have {size} bytes and has {found}");
    let shown = path.display().to_string();
    Err(Error::because("read the edit", shown, Kind::Corrupt, why))
}
