//! The notes of the spool, one line each, in one file: an edit is saved when its line is there, and over when the line is
//! struck out. A file for each note would have to be made and renamed for every record that is written, which takes longer
//! than all the rest. What is read back may have been torn anywhere; a line that cannot be used is kept and told. It knows the
//! bytes of an edit by their number only.

use super::note::Note;
use super::spool::private_file;
use crate::error::{Error, Kind, Result};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the file is called.
pub(super) const NAME: &str = "notes";
/// Lines that cannot be used are kept under this name.
const BAD: &str = "notes.bad";
/// The file is written anew when so many bytes of it are of no use, and three times as many as are.
const WASTE: u64 = 1 << 20;

/// What a line that is struck out begins with. One byte that is there already can be written on a full disk, too.
const STRUCK: u8 = b'#';

/// The file, and where in it the notes of edits are that are not over.
#[derive(Debug)]
pub(super) struct Notes {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    /// Where the next line goes. What a failed write left behind it is written over.
    end: u64,
    live: HashMap<u64, Line>,
    /// How many bytes their lines have.
    used: u64,
}

/// Where a note is, and what its bytes are called.
#[derive(Clone, Copy, Debug)]
struct Line {
    at: u64,
    length: u64,
    data: Option<u64>,
    /// It was forced to disk.
    synced: bool,
}

impl Line {
    fn new(at: u64, text: &str, data: Option<u64>) -> Self {
        Self {
            at,
            length: text.len() as u64,
            data,
            synced: false,
        }
    }
}

/// What was in the file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Edits that are not over, with the numbers of their bytes.
    pub(super) notes: HashMap<u64, (Option<u64>, Note)>,
    /// Lines that cannot be used.
    bad: Vec<Vec<u8>>,
    /// Edits without their bytes, which may not have been sent.
    lost: HashSet<u64>,
    /// The machine stopped before the end of the file was forced to disk.
    torn: bool,
}

impl Found {
    /// Whether there are bytes of which it is not known whose they are.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.bad.is_empty() || !self.lost.is_empty() || self.torn
    }

    /// What is to be sent after an edit that is lost would remove the only other copy of its bytes.
    pub(super) fn set_aside_what_follows(&mut self) {
        let follows = |note: &Note| note.after.is_some_and(|seq| self.lost.contains(&seq));
        let found = self.notes.iter();
        let all: Vec<_> = found
            .filter(|(_, (_, note))| follows(note))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in all {
            let why = Error::because(
                "send the edit",
                "",
                Kind::Corrupt,
                "the one before it has no bytes",
            );
            self.set_aside(seq, &why);
        }
    }

    /// Keeps the lines that cannot be used.
    pub(super) fn keep_bad(&self, dir: &Path) -> Result<()> {
        keep_bad(&dir.join(BAD), &self.bad)
    }

    /// An edit cannot be used, for this reason.
    pub(super) fn set_aside(&mut self, seq: u64, why: &Error) {
        tracing::error!("an edit cannot be used and is kept in the spool: {why}");
        let line = self
            .notes
            .remove(&seq)
            .map(|(data, note)| note.to_line(seq, data));
        self.lost.insert(seq);
        if let Some(Ok(line)) = line {
            self.bad.push(line.trim_end().into());
        }
    }

    /// The bytes of an edit are gone. They go after its line was struck out, so it was sent, unless the machine stopped
    /// before either was forced to disk.
    pub(super) fn drop_sent(&mut self, seq: u64) {
        self.lost.insert(seq);
        if let Some((_, note)) = self.notes.remove(&seq) {
            let id = note.id;
            tracing::warn!(
                "an edit of {id} has no bytes any more: it was sent before, or never forced to disk"
            );
        }
    }

    /// Takes the note of an edit that had a file of its own. Its bytes have the same number.
    pub(super) fn take_single(&mut self, seq: u64, text: &str) {
        match Note::from_line(text) {
            Ok((written, _, note)) if written == seq => {
                let data = note.size.is_some().then_some(seq);
                self.notes.insert(seq, (data, note));
            }
            // A file of a note was written again for others, and a power failure may have brought back what it had before.
            _ => {
                tracing::error!("the note {seq:016}.json cannot be used and is kept in the spool");
                self.bad.push(text.replace('\n', " ").into_bytes());
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        match Note::from_line(&String::from_utf8_lossy(line)) {
            Ok((seq, data, note)) => {
                self.notes.insert(seq, (data, note));
            }
            Err(e) => {
                tracing::error!("a note cannot be used and is kept in the spool: {e}");
                self.bad.push(line.to_vec());
            }
        }
    }
}

/// Reads what an earlier process left.
pub(super) fn read(dir: &Path) -> Result<Found> {
    let path = dir.join(NAME);
    let mut found = Found::default();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Error::io("read", path.display().to_string(), e)),
    };
    // What follows the last end of a line was never told to be saved.
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    found.torn = bytes[end..].contains(&0);
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        if line.first().is_some_and(|first| *first != STRUCK) {
            found.take(line);
        }
    }
    Ok(found)
}

impl Notes {
    /// Begins the file with what was found.
    pub(super) fn begin(dir: &Path, found: &Found) -> Result<Self> {
        let path = dir.join(NAME);
        let failed = |e| Error::io("begin", path.display().to_string(), e);
        let mut lines: Vec<_> = found.notes.iter().collect();
        lines.sort_unstable_by_key(|(seq, _)| **seq);
        let lines = lines
            .into_iter()
            .map(|(seq, (data, note))| Ok((*seq, *data, note.to_line(*seq, *data)?)))
            .collect::<Result<Vec<_>>>()?;
        let open = Open::write(&path, lines).map_err(failed)?;
        Ok(Self {
            path,
            open: Mutex::new(open),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the note of an edit, whose bytes have this number.
    pub(super) fn add(&self, seq: u64, data: Option<u64>, note: &Note) -> Result<()> {
        self.add_all(&[(seq, data, note)])
    }

    /// Saves the notes of several edits, or none of them.
    pub(super) fn add_all(&self, edits: &[(u64, Option<u64>, &Note)]) -> Result<()> {
        let line = |(seq, data, note): &(u64, Option<u64>, &Note)| note.to_line(*seq, *data);
        let lines: Vec<_> = edits.iter().map(line).collect::<Result<_>>()?;
        let mut open = self.open();
        let mut at = open.append(&lines.concat()).map_err(|e| self.failed(e))?;
        for ((seq, data, _), text) in edits.iter().zip(&lines) {
            let line = Line::new(at, text, *data);
            at += line.length;
            open.used += line.length;
            open.live.insert(*seq, line);
        }
        Ok(())
    }

    /// Ends an edit. The number of its bytes.
    pub(super) fn end(&self, seq: u64) -> Option<u64> {
        let mut open = self.open();
        let line = open.live.remove(&seq)?;
        open.used -= line.length;
        if let Err(e) = open.strike(&line, &self.path) {
            tracing::warn!("{} is not up to date: {e}", self.path.display());
        }
        line.data
    }

    /// The number of the bytes of an edit that is not over.
    pub(super) fn data(&self, seq: u64) -> Option<u64> {
        self.open().live.get(&seq).and_then(|line| line.data)
    }

    /// Forces the file to disk.
    pub(super) fn sync(&self) -> Result<()> {
        let (file, lines) = {
            let open = self.open();
            (
                open.file.clone(),
                open.live.keys().copied().collect::<Vec<_>>(),
            )
        };
        file.sync_data().map_err(|e| self.failed(e))?;
        let mut open = self.open();
        for seq in lines {
            if let Some(line) = open.live.get_mut(&seq) {
                line.synced = true;
            }
        }
        Ok(())
    }

    /// Whether an edit that is not over was forced to disk.
    pub(super) fn is_synced(&self, seq: u64) -> bool {
        self.open().live.get(&seq).is_some_and(|line| line.synced)
    }

    fn failed(&self, e: io::Error) -> Error {
        Error::io("save the edit", self.path.display().to_string(), e)
    }
}

impl Open {
    /// A new file of these lines in the place of the one before, forced to disk like those it replaces may have been.
    fn write(path: &Path, lines: Vec<(u64, Option<u64>, String)>) -> io::Result<Self> {
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let file = private_file(&new)?;
        let mut open = Self {
            file: Arc::new(file),
            end: 0,
            live: HashMap::new(),
            used: 0,
        };
        let mut out = io::BufWriter::new(&*open.file);
        for (seq, data, text) in lines {
            out.write_all(text.as_bytes())?;
            let line = Line::new(open.end, &text, data);
            open.end += line.length;
            open.used += line.length;
            open.live.insert(seq, line);
        }
        out.flush()?;
        drop(out);
        if open.end > 0 {
            open.file.sync_all()?;
        }
        fs::rename(&new, path)?;
        Ok(open)
    }

    fn append(&mut self, text: &str) -> io::Result<u64> {
        let at = self.end;
        self.file.write_all_at(text.as_bytes(), at)?;
        self.end += text.len() as u64;
        Ok(at)
    }

    fn strike(&mut self, line: &Line, path: &Path) -> io::Result<()> {
        if self.live.is_empty() && self.file.set_len(0).is_ok() {
            self.end = 0;
            return Ok(());
        }
        self.file.write_all_at(&[STRUCK], line.at)?;
        let waste = self.end - self.used;
        if waste > WASTE && waste > 3 * self.used {
            self.anew(path)?;
        }
        Ok(())
    }

    fn anew(&mut self, path: &Path) -> io::Result<()> {
        let mut live: Vec<_> = self.live.iter().map(|(seq, line)| (*seq, *line)).collect();
        live.sort_unstable_by_key(|(_, line)| line.at);
        let mut lines = Vec::with_capacity(live.len());
        for (seq, line) in live {
            let mut text = vec![0; usize::try_from(line.length).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut text, line.at)?;
            let text = String::from_utf8(text).map_err(io::Error::other)?;
            lines.push((seq, line.data, text));
        }
        *self = Self::write(path, lines)?;
        Ok(())
    }
}

fn keep_bad(path: &Path, lines: &[Vec<u8>]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let keep = || {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)?;
        file.write_all(&lines.join(&b"\n"[..]))?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    keep().map_err(|e| Error::io("keep what cannot be used in", path.display().to_string(), e))
}
