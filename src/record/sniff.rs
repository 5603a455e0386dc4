//! What a record's bytes look like: JSON, UTF-8 text, or a format with a known beginning.
//! It holds at most 1 MiB of a body at a time, and never decides what a record's type shall be.

use super::Body;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

/// Up to this length a body is looked at as a whole, in bytes.
pub const WHOLE: u64 = 16 << 20;
/// Of a longer body only this much is looked at, from its start, in bytes.
pub const PART: u64 = 1 << 20;
/// What is read first, and all that is read of a small body, in bytes.
const HEAD: usize = 4096;
/// How much is read at a time after that, in bytes.
const CHUNK: usize = 64 << 10;
/// Up to this length, in bytes, a body is read as a whole: what is in one piece is parsed several times as fast.
const ONE_PIECE: u64 = 1 << 20;

/// Bytes that can be read at any position, as often as needed.
pub trait ReadAt {
    /// How many bytes there are.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset` on, less only at the end. Returns how many bytes were read.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_or(self.len(), |at| at.min(self.len()));
        let count = buffer.len().min(self.len() - start);
        buffer[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // A regular file gives less than asked for only at its end.
        loop {
            match self.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl ReadAt for Body {
    fn size(&self) -> io::Result<u64> {
        self.len()
    }

    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.fill_at(buffer, offset),
            Self::File(file) | Self::Counted(file, _) => file.as_ref().fill_at(buffer, offset),
        }
    }
}

/// A UTF-8 check that takes its text in pieces, wherever they are cut.
#[derive(Default)]
pub struct Utf8Check {
    /// The beginning of a character that the last piece cut.
    held: [u8; 4],
    count: usize,
    broken: bool,
}

impl Utf8Check {
    /// Takes the next piece; false once the text is not UTF-8.
    pub fn feed(&mut self, mut piece: &[u8]) -> bool {
        while self.count > 0 && !self.broken {
            let Some((&byte, rest)) = piece.split_first() else {
                return true;
            };
            piece = rest;
            self.held[self.count] = byte;
            self.count += 1;
            match std::str::from_utf8(&self.held[..self.count]) {
                Ok(_) => self.count = 0,
                Err(error) => self.broken = error.error_len().is_some(),
            }
        }
        if let Err(error) = std::str::from_utf8(piece) {
            let rest = &piece[error.valid_up_to()..];
            if error.error_len().is_some() {
                self.broken = true;
            } else {
                self.held[..rest.len()].copy_from_slice(rest);
                self.count = rest.len();
            }
        }
        !self.broken
    }

    /// Whether all that was fed is UTF-8. `whole` also asks that the last character is complete.
    pub fn holds(&self, whole: bool) -> bool {
        !self.broken && (!whole || self.count == 0)
    }
}

/// A body that is being looked at. Its first bytes are read once.
pub struct Look<'a, B: ?Sized> {
    bytes: &'a B,
    head: [u8; HEAD],
    head_len: usize,
    /// How far to look.
    end: u64,
    /// Whether that is all there is.
    whole: bool,
}

impl<'a, B: ReadAt + ?Sized> Look<'a, B> {
    /// Reads the first bytes.
    pub fn at(bytes: &'a B) -> io::Result<Self> {
        let mut head = [0; HEAD];
        let head_len = bytes.fill_at(&mut head, 0)?;
        // A body that did not fill the head ends there; only a longer one has to be asked for its length.
        let size = if head_len < HEAD {
            head_len as u64
        } else {
            bytes.size()?
        };
        let whole = size <= WHOLE;
        Ok(Self {
            bytes,
            head,
            head_len,
            end: if whole { size } else { PART },
            whole,
        })
    }

    /// The first bytes.
    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// Whether the head is all that will be looked at.
    fn is_small(&self) -> bool {
        self.end <= self.head_len as u64
    }

    /// All bytes, where they are few enough and all of them are looked at.
    fn one_piece(&self) -> io::Result<Option<Cow<'_, [u8]>>> {
        if self.is_small() {
            return Ok(Some(Cow::Borrowed(self.head())));
        }
        let Some(length) = usize::try_from(self.end)
            .ok()
            .filter(|_| self.whole && self.end <= ONE_PIECE)
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; length];
        bytes[..self.head_len].copy_from_slice(self.head());
        let rest = self
            .bytes
            .fill_at(&mut bytes[self.head_len..], self.head_len as u64)?;
        bytes.truncate(self.head_len + rest);
        Ok(Some(Cow::Owned(bytes)))
    }

    /// Whether the bytes are one JSON document in UTF-8, or, where only a part is looked at, can begin one.
    /// Nothing at all is no JSON. Deep nesting is no fault.
    pub fn is_json(&self) -> io::Result<bool> {
        let first = self.head().iter().find(|byte| !b" \t\r\n".contains(byte));
        let may_begin = first.is_none_or(|byte| b"{[\"-0123456789tfn".contains(byte));
        if !may_begin || self.head_len == 0 {
            return Ok(false);
        }
        if let Some(bytes) = self.one_piece()? {
            let text = std::str::from_utf8(&bytes);
            return Ok(text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok()));
        }
        let mut text = Text::of(self);
        let parsed: serde_json::Result<IgnoredAny> =
            serde_json::from_reader(BufReader::with_capacity(CHUNK, &mut text));
        let valid = match parsed {
            Ok(_) => true,
            Err(error) if error.is_io() && text.utf8.holds(false) => return Err(error.into()),
            Err(error) => error.is_eof() && !self.whole,
        };
        Ok(valid && text.utf8.holds(self.whole))
    }

    /// Whether the bytes are UTF-8. Where only a part is looked at, its last character may be cut.
    pub fn is_utf8(&self) -> io::Result<bool> {
        if !Utf8Check::default().feed(self.head()) {
            return Ok(false);
        }
        if let Some(bytes) = self.one_piece()? {
            return Ok(std::str::from_utf8(&bytes).is_ok());
        }
        let mut text = Text::of(self);
        let mut buffer = vec![0; CHUNK];
        loop {
            match text.read(&mut buffer) {
                Ok(0) => return Ok(text.utf8.holds(self.whole)),
                Ok(_) => {}
                Err(_) if !text.utf8.holds(false) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// The type of the format that begins like this. Of bytes that can be read as text only the formats that are
    /// text count: a letter that begins "BM" is no bitmap.
    pub fn magic(&self) -> Option<&'static str> {
        let found = infer::get(self.head())?.mime_type();
        (is_textual(found) || !self.reads_as_text()).then_some(found)
    }

    fn reads_as_text(&self) -> bool {
        let mut utf8 = Utf8Check::default();
        utf8.feed(self.head());
        let control = |byte: &u8| *byte < b' ' && !b"\t\n\r\x0c\x1b".contains(byte);
        utf8.holds(self.is_small() && self.whole) && !self.head().iter().any(control)
    }
}

/// Whether a format is written in readable characters.
fn is_textual(content_type: &str) -> bool {
    content_type.starts_with("text/")
        || matches!(
            content_type,
            "application/pdf" | "application/rtf" | "application/postscript"
        )
}

/// Reads what is looked at, and checks that it is UTF-8 on the way.
struct Text<'l, 'a, B: ?Sized> {
    look: &'l Look<'a, B>,
    at: u64,
    utf8: Utf8Check,
}

impl<'l, 'a, B: ReadAt + ?Sized> Text<'l, 'a, B> {
    fn of(look: &'l Look<'a, B>) -> Self {
        Self {
            look,
            at: 0,
            utf8: Utf8Check::default(),
        }
    }
}

impl<B: ReadAt + ?Sized> Read for Text<'_, '_, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.look.end - self.at).unwrap_or(usize::MAX);
        let count = buffer.len().min(room);
        let buffer = &mut buffer[..count];
        let count = match usize::try_from(self.at) {
            Ok(at) if at < self.look.head_len => self.look.head()[at..].fill_at(buffer, 0)?,
            _ => self.look.bytes.fill_at(buffer, self.at)?,
        };
        self.at += count as u64;
        if self.utf8.feed(&buffer[..count]) {
            Ok(count)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
        }
    }
}
