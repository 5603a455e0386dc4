//! Who we were at servers, remembered so that a mount finds its folders while the server is away. Tokens are only marked,
//! never kept.

use crate::backend::apify::Token;
use crate::error::{Error, Kind, Result};
use crate::record::hex;
use crate::volume::cached::private_dir;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// More than this is not read, and older entries go.
const MOST: usize = 200;

/// The file with what is remembered.
#[derive(Debug)]
pub(super) struct Known {
    file: PathBuf,
}

#[derive(Serialize, Deserialize, Clone)]
struct Entry {
    base: String,
    user: Option<String>,
    /// Hex.
    salt: String,
    /// What the token looks like with the salt; without a token there is none.
    mark: Option<String>,
}

impl Known {
    /// What is remembered in this folder.
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            file: folder.join("servers.json"),
        }
    }

    /// The name of the folders of a user of a server.
    pub(super) fn id(base: &str, user: Option<&str>) -> String {
        hex(&Sha256::digest(format!("{base}\n{}", user.unwrap_or_default()))[..8])
    }

    fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Who showed this token there; `None` when that is not known.
    pub(super) fn user(&self, base: &str, token: Option<&Token>) -> Option<Option<String>> {
        let fits = |entry: &&Entry| entry.base == base && entry.is_of(token);
        let entries = self.entries();
        entries
            .iter()
            .rev()
            .find(fits)
            .map(|entry| entry.user.clone())
    }

    /// Remembers it. A failure is only worth a word: it matters when the server is away.
    pub(super) fn remember(&self, base: &str, token: Option<&Token>, user: Option<&str>) {
        if self.user(base, token) == Some(user.map(str::to_owned)) {
            return;
        }
        let mut salt = [0; 16];
        if let Err(why) =
            rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty())
        {
            tracing::debug!("no random numbers: {why}");
            return;
        }
        let mut entries = self.entries();
        entries.retain(|entry| !(entry.base == base && entry.is_of(token)));
        entries.push(Entry {
            base: base.to_owned(),
            user: user.map(str::to_owned),
            mark: token.map(|token| hex(&token.mark(hex(&salt).as_bytes()))),
            salt: hex(&salt),
        });
        let first = entries.len().saturating_sub(MOST);
        if let Err(why) = write(&self.file, &&entries[first..]) {
            tracing::warn!("who we are at {base} is not remembered: {why}");
        }
    }
}

impl Entry {
    fn is_of(&self, token: Option<&Token>) -> bool {
        self.mark == token.map(|token| hex(&token.mark(self.salt.as_bytes())))
    }
}

/// What a folder of unsent edits says of whose they are.
#[derive(Serialize, Deserialize)]
struct Owner {
    base: String,
    id: String,
}

/// Makes a folder of cached bytes and unsent edits that of one user of one server, or refuses when it is another's: what
/// waits in it must never be sent elsewhere.
pub(super) fn claim(folder: &Path, base: &str, id: &str) -> Result<()> {
    const OP: &str = "use the cache folder";
    let file = folder.join("owner.json");
    let failed = |why| Error::io(OP, folder.display().to_string(), why);
    match fs::read(&file) {
        Ok(text) => {
            let owner: Option<Owner> = serde_json::from_slice(&text).ok();
            if owner.as_ref().is_some_and(|owner| owner.id == id) {
                return Ok(());
            }
            let whose = owner.map_or_else(
                || "its owner.json cannot be read".to_owned(),
                |owner| format!("it is that of {}, or of another user there", owner.base),
            );
            let why = format!("{whose} (name another folder with cache=)");
            return Err(Error::because(
                OP,
                folder.display().to_string(),
                Kind::Denied,
                why,
            ));
        }
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
        Err(why) => return Err(failed(why)),
    }
    let owner = Owner {
        base: base.to_owned(),
        id: id.to_owned(),
    };
    private_dir(folder)?;
    write(&file, &owner).map_err(failed)
}

/// Writes JSON that is there whole or not at all, with mode 0600.
fn write(to: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new")
        .tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.flush()?;
    file.persist(to).map_err(|why| why.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_finds_its_user_again_and_is_not_in_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let known = Known::at(&temp.path().join("state"));
        let (ann, bob) = (
            Token::new("s3cr3t-ann").unwrap(),
            Token::new("s3cr3t-bob").unwrap(),
        );
        assert_eq!(known.user("http://a", Some(&ann)), None);
        known.remember("http://a", Some(&ann), Some("ann"));
        known.remember("http://a", Some(&bob), Some("bob"));
        known.remember("http://a", None, None);
        assert_eq!(
            known.user("http://a", Some(&ann)),
            Some(Some("ann".to_owned()))
        );
        assert_eq!(
            known.user("http://a", Some(&bob)),
            Some(Some("bob".to_owned()))
        );
        assert_eq!(known.user("http://a", None), Some(None));
        assert_eq!(known.user("http://b", Some(&ann)), None);
        let text = fs::read_to_string(temp.path().join("state/servers.json")).unwrap();
        assert!(!text.contains("s3cr3t"), "{text}");
    }

    #[test]
    fn the_folders_of_two_users_differ_and_do_not_depend_on_the_token() {
        assert_ne!(
            Known::id("http://a", Some("ann")),
            Known::id("http://a", Some("bob"))
        );
        assert_ne!(Known::id("http://a", None), Known::id("http://b", None));
    }
}
