//! Content encodings: their names, and the plain bytes of an encoded body. It never encodes.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use std::io::{self, BufRead, BufReader, Read};

/// How a body is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Brotli.
    Brotli,
    /// Gzip, of any number of members.
    Gzip,
    /// Deflate, with or without the frame of zlib.
    Deflate,
    /// Zstandard. No record is stored so; a server between may send it.
    Zstd,
}

/// All of them.
const ALL: [Encoding; 4] = [
    Encoding::Brotli,
    Encoding::Gzip,
    Encoding::Deflate,
    Encoding::Zstd,
];
/// How much of an encoded body is looked at in one step.
const STEP: usize = 64 << 10;

impl Encoding {
    /// Its name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = ALL.into_iter();
        all.find(|encoding| encoding.name().eq_ignore_ascii_case(name))
    }

    /// The plain bytes of an encoded body.
    pub fn decode<'r>(self, body: impl Read + Send + 'r) -> Box<dyn Read + Send + 'r> {
        let mut body = BufReader::with_capacity(STEP, body);
        match self {
            Self::Brotli => Box::new(Whole::new(Brotli::new(body))),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(body)),
            Self::Deflate => {
                // Senders disagree on whether the bytes stand in a zlib frame. Its first two bytes tell.
                let framed = body.fill_buf().is_ok_and(|start| {
                    matches!(start, [method, flags, ..] if method & 0x0f == 8
                        && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31))
                });
                if framed {
                    Box::new(Whole::new(flate2::bufread::ZlibDecoder::new(body)))
                } else {
                    Box::new(Whole::new(flate2::bufread::DeflateDecoder::new(body)))
                }
            }
            Self::Zstd => Box::new(Zstd::Head(body)),
        }
    }
}

/// A decoder that can tell what it has left unread.
trait Leaves: Read {
    fn has_rest(&mut self) -> io::Result<bool>;
}

/// Refuses bytes after the end of the encoded body.
struct Whole<D>(D);

impl<D> Whole<D> {
    fn new(decoder: D) -> Self {
        Self(decoder)
    }
}

impl<D: Leaves> Read for Whole<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.0.has_rest()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes follow its end",
            ));
        }
        Ok(count)
    }
}

impl<B: BufRead> Leaves for flate2::bufread::ZlibDecoder<B> {
    fn has_rest(&mut self) -> io::Result<bool> {
        Ok(!self.get_mut().fill_buf()?.is_empty())
    }
}

impl<B: BufRead> Leaves for flate2::bufread::DeflateDecoder<B> {
    fn has_rest(&mut self) -> io::Result<bool> {
        Ok(!self.get_mut().fill_buf()?.is_empty())
    }
}

/// A decoder of brotli that takes no more from its reader than belongs to the body.
struct Brotli<B> {
    body: B,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    total: usize,
    ended: bool,
}

impl<B: BufRead> Brotli<B> {
    fn new(body: B) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            body,
            state: BrotliState::new(alloc(), alloc(), alloc()),
            total: 0,
            ended: false,
        }
    }
}

impl<B: BufRead> Read for Brotli<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut space, mut made) = (buffer.len(), 0);
        while made == 0 && space > 0 && !self.ended {
            let input = self.body.fill_buf()?;
            let (mut left, mut taken) = (input.len(), 0);
            let outcome = BrotliDecompressStream(
                &mut left,
                &mut taken,
                input,
                &mut space,
                &mut made,
                buffer,
                &mut self.total,
                &mut self.state,
            );
            let at_end = input.is_empty();
            self.body.consume(taken);
            match outcome {
                BrotliResult::ResultSuccess => self.ended = true,
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput if at_end && made == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::NeedsMoreInput => {}
                BrotliResult::ResultFailure => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
                }
            }
        }
        Ok(made)
    }
}

impl<B: BufRead> Leaves for Brotli<B> {
    fn has_rest(&mut self) -> io::Result<bool> {
        Ok(!self.body.fill_buf()?.is_empty())
    }
}

/// A decoder of Zstandard, made when the first byte is asked for. Its window is at most 100 MiB.
enum Zstd<B: BufRead> {
    Head(B),
    Frame(Box<ruzstd::decoding::StreamingDecoder<B, ruzstd::decoding::FrameDecoder>>),
    Broken,
}

impl<B: BufRead> Read for Zstd<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        if let Self::Head(_) = self
            && let Self::Head(body) = std::mem::replace(self, Self::Broken)
        {
            let decoder = ruzstd::decoding::StreamingDecoder::new(body);
            *self = Self::Frame(Box::new(decoder.map_err(|why| damaged(why.to_string()))?));
        }
        match self {
            Self::Frame(decoder) => {
                let count = decoder.read(buffer)?;
                if count == 0 && !buffer.is_empty() && !decoder.get_mut().fill_buf()?.is_empty() {
                    return Err(damaged("bytes follow its end".to_owned()));
                }
                Ok(count)
            }
            Self::Head(_) | Self::Broken => Err(damaged("it is damaged".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use flate2::Compression;
    use std::io::Write;

    fn encoded(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let level = Compression::default();
        match encoding {
            Encoding::Brotli => {
                let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                writer.write_all(bytes).unwrap();
                writer.into_inner()
            }
            Encoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap()
            }
            Encoding::Zstd => ruzstd::encoding::compress_to_vec(
                bytes,
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
            Encoding::Deflate => {
                let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap()
            }
        }
    }

    fn decoded(encoding: Encoding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        encoding.decode(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_encoding_is_decoded_and_no_broken_one_is() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for encoding in ALL {
            let sent = encoded(encoding, &plain);
            assert_eq!(decoded(encoding, &sent).unwrap(), plain, "{encoding:?}");
            for cut in [1, sent.len() / 2, sent.len() - 1] {
                assert!(
                    decoded(encoding, &sent[..cut]).is_err(),
                    "{encoding:?} {cut}"
                );
            }
            let mut longer = sent.clone();
            longer.extend_from_slice(b"more");
            assert!(
                decoded(encoding, &longer).is_err(),
                "{encoding:?} with a rest"
            );
            assert!(decoded(encoding, b"no such thing").is_err());
        }
    }

    #[test]
    fn deflate_may_come_without_its_frame() {
        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
        writer.write_all(b"bare bare bare").unwrap();
        let sent = writer.finish().unwrap();
        assert_eq!(
            decoded(Encoding::Deflate, &sent).unwrap(),
            b"bare bare bare"
        );
    }
}
