//! What nobody can guess: ids and secrets from the system's random numbers.

use crate::error::{Error, Result};
use crate::record::ApiId;
use crate::record::store::ID_LENGTH;
use rustix::rand::{GetRandomFlags, getrandom};

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Bytes below this fall on all letters equally often.
const FAIR: u8 = 248;
/// About 190 bits.
const SECRET_LENGTH: usize = 32;

/// An id that nothing else has.
pub fn api_id() -> Result<ApiId> {
    ApiId::new(&letters(ID_LENGTH)?)
}

/// A key to sign URLs with.
pub fn secret() -> Result<String> {
    letters(SECRET_LENGTH)
}

/// A number that nothing else has.
pub fn number() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// So many random characters of `a-zA-Z0-9`.
pub fn letters(count: usize) -> Result<String> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        fill(&mut bytes)?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 62)]));
        text.extend(letters.take(count - text.len()));
    }
    Ok(text)
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|error| Error::io("get random numbers", "", error))?;
    }
    Ok(())
}
