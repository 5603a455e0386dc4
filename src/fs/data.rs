//! Bytes in and out of open files, where the kernel does not move them itself.

use super::Fs;
use crate::error::{Error, Result};
use crate::volume::Now;
use rustix::fs::FallocateFlags;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Longer files than this are copied where somebody may wait, in bytes.
const LARGE: u64 = 1 << 20;

impl Fs {
    /// Gets ready to read a range: waits for what still has to be fetched.
    pub fn prepare_read(&self, number: u64, offset: u64, length: u64) -> Now<()> {
        match self.handle(number) {
            Ok(handle) => handle.file.fetch(offset, length),
            Err(e) => Now::err(e),
        }
    }

    /// Gets ready to write a range: waits while there is too much that was not sent yet, and while a long version is copied.
    pub fn prepare_write(self: &Arc<Self>, number: u64, offset: u64, length: u64) -> Now<()> {
        let handle = match self.handle(number) {
            Ok(handle) => handle,
            Err(e) => return Now::err(e),
        };
        let room = handle.file.make_room(offset.saturating_add(length));
        // What was refused is missing in the file, as on a full disk.
        let room = match room {
            Now::Ready(Ok(())) => Now::ok(()),
            refused @ (Now::Ready(Err(_)) | Now::Wait(_)) => {
                let file = handle.file.clone();
                refused.finally(move |done| Now::Ready(file.note_failure(done)))
            }
        };
        if !handle.writer || handle.file.sealed_length() <= LARGE {
            return room;
        }
        let this = self.clone();
        room.and_then(move |()| Now::blocking(move || this.bytes_to_write(&handle.file).map(drop)))
    }

    /// Reads at an offset into the buffer; the count is short only at the end of the file.
    pub fn read(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let handle = self.handle(number)?;
        if let Some(text) = &handle.text {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(text.len());
            let part = &text[from..text.len().min(from.saturating_add(buffer.len()))];
            buffer[..part.len()].copy_from_slice(part);
            return Ok(part.len());
        }
        let bytes = handle.file.bytes();
        let mut done = 0;
        while done < buffer.len() {
            let count = bytes
                .read_at(&mut buffer[done..], offset + done as u64)
                .map_err(|e| Error::io("read", "", e))?;
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }

    /// Writes at an offset, or at the end for a handle that appends.
    pub fn write(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let handle = self.handle(number)?;
        if !handle.writer {
            return Err(super::commit::not_open_for("write"));
        }
        let done = match &handle.append {
            Some(append) => std::io::Write::write_all(&mut &*append, bytes),
            None if handle.at_end => loop {
                drop(self.bytes_to_write(&handle.file)?);
                if let Some(done) = handle.file.append(bytes) {
                    break done;
                }
            },
            None => self
                .bytes_to_write(&handle.file)?
                .write_all_at(bytes, offset),
        };
        handle
            .file
            .note_failure(done.map_err(|e| Error::io("write", "", e)))
    }

    /// Reserves, punches or zeroes a range. `mode` as fallocate(2) has it.
    pub fn fallocate(&self, number: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        let handle = self.handle(number)?;
        if !handle.writer {
            return Err(super::commit::not_open_for("fallocate"));
        }
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let file = self.bytes_to_write(&handle.file)?;
        rustix::fs::fallocate(&*file, mode, offset, length)
            .map_err(|e| Error::io("fallocate", "", e))
    }

    /// The next data or hole. `whence` as lseek(2) has it.
    pub fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<u64> {
        use rustix::fs::SeekFrom;
        let handle = self.handle(number)?;
        let invalid = || Error::new("seek", "", crate::error::Kind::Invalid);
        let at = u64::try_from(offset).map_err(|_| invalid());
        let from = match whence {
            libc::SEEK_SET => SeekFrom::Start(at?),
            libc::SEEK_CUR => SeekFrom::Current(offset),
            libc::SEEK_END => SeekFrom::End(offset),
            libc::SEEK_DATA => SeekFrom::Data(at?),
            libc::SEEK_HOLE => SeekFrom::Hole(at?),
            _ => return Err(invalid()),
        };
        let bytes = handle.file.bytes();
        if handle.file.reader.is_some() {
            // What was not fetched yet is no hole.
            let size = handle.file.stat()?.size;
            return match from {
                SeekFrom::Data(at) if at < size => Ok(at),
                SeekFrom::Hole(at) if at < size => Ok(size),
                SeekFrom::Data(_) | SeekFrom::Hole(_) => {
                    Err(Error::io("seek", "", rustix::io::Errno::NXIO))
                }
                other @ (SeekFrom::Start(_) | SeekFrom::End(_) | SeekFrom::Current(_)) => {
                    rustix::fs::seek(&*bytes, other).map_err(|e| Error::io("seek", "", e))
                }
            };
        }
        rustix::fs::seek(&*bytes, from).map_err(|e| Error::io("seek", "", e))
    }

    /// Copies a range between two open files; the count may be short.
    pub fn copy_range(
        self: &Arc<Self>,
        from: (u64, u64),
        to: (u64, u64),
        length: u64,
    ) -> Now<usize> {
        let this = self.clone();
        let prepared = self.prepare_write(to.0, 0, 0);
        if length > LARGE {
            return prepared
                .and_then(move |()| Now::blocking(move || this.copy_now(from, to, length)));
        }
        prepared.then(move |()| this.copy_now(from, to, length))
    }

    fn copy_now(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<usize> {
        let source = self.handle(from.0)?;
        let target = self.handle(to.0)?;
        if !target.writer {
            return Err(super::commit::not_open_for("copy_file_range"));
        }
        if source.file.reader.is_some() || std::ptr::eq(&*source.file, &*target.file) {
            // The kernel then copies by reading and writing.
            let why = "not here";
            let kind = crate::error::Kind::Unsupported;
            return Err(Error::because("copy_file_range", "", kind, why));
        }
        let (mut at, mut into) = (from.1, to.1);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
        let done = rustix::fs::copy_file_range(
            &*source.file.bytes(),
            Some(&mut at),
            &*self.bytes_to_write(&target.file)?,
            Some(&mut into),
            length,
        );
        target
            .file
            .note_failure(done.map_err(|e| Error::io("copy_file_range", "", e)))
    }
}
