//! The file of users and tokens: who they are, what they may, until when. It keeps only salted hashes, so no token can be
//! read out of it.

use crate::backend::random::letters;
use crate::error::{Error, Kind, Result};
use crate::record::hex;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use subtle::ConstantTimeEq;

const PREFIX: &str = "storefs";
/// Characters of a token's id, which is no secret. Its secret has 190 bits.
const ID: usize = 8;
const SECRET: usize = 32;
/// Characters of a user's id, as the API has them.
const USER_ID: usize = 17;

/// Somebody who owns stores.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// 17 letters and digits, for ever the same.
    pub id: String,
    /// The name that stands in `name~store`.
    pub name: String,
}

/// What the file says of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenEntry {
    /// What it is revoked by.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// Whether it may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970; `None` for ever.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    salt: String,
    hash: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    users: Vec<User>,
    tokens: Vec<TokenEntry>,
}

/// The file of tokens. It need not exist yet.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// What tells one state of the file from another.
pub(super) type Stamp = Option<(u64, i64, i64, u64)>;

/// Everything the file holds, ready to be asked.
#[derive(Debug, Default)]
pub struct Roster {
    users: Vec<Arc<User>>,
    tokens: HashMap<String, TokenEntry>,
}

/// Who shows a token.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The user.
    pub user: Arc<User>,
    /// Whether the token may only read.
    pub read_only: bool,
}

impl TokenFile {
    /// The file at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, op: &'static str) -> impl Fn(io::Error) -> Error + use<'_> {
        move |why| Error::io(op, self.path.display().to_string(), why)
    }

    pub(super) fn stamp(&self) -> Stamp {
        let about = fs::metadata(&self.path).ok()?;
        Some((about.ino(), about.mtime(), about.mtime_nsec(), about.len()))
    }

    fn contents(&self) -> Result<Contents> {
        const OP: &str = "read the tokens in";
        let text = match fs::read(&self.path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
            other => other.map_err(self.failed(OP))?,
        };
        let named = self.path.display().to_string();
        let mode = fs::metadata(&self.path).map_err(self.failed(OP))?.mode();
        if mode & 0o077 != 0 {
            let advice = format!("other users may open it (chmod 600 {named})");
            return Err(Error::because(OP, named, Kind::NotPermitted, advice));
        }
        serde_json::from_slice(&text).map_err(|why| {
            let advice = format!("{why} (mend it, or remove it and make new tokens)");
            Error::because(OP, named, Kind::Corrupt, advice)
        })
    }

    /// Everything in it; nothing when there is no such file. `Kind::NotPermitted` when other users may open it.
    pub fn read(&self) -> Result<Roster> {
        let contents = self.contents()?;
        let tokens = contents.tokens.into_iter();
        Ok(Roster {
            users: contents.users.into_iter().map(Arc::new).collect(),
            tokens: tokens.map(|token| (token.id.clone(), token)).collect(),
        })
    }

    /// Changes the file in one step, with other processes kept out.
    fn change<T>(&self, change: impl FnOnce(&mut Contents) -> Result<T>) -> Result<T> {
        const OP: &str = "change the tokens in";
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(folder).map_err(self.failed(OP))?;
        let lock = private(&self.path.with_extension("lock")).map_err(self.failed(OP))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|why| self.failed(OP)(why.into()))?;
        let mut contents = self.contents()?;
        let made = change(&mut contents)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(self.failed(OP))?;
        let text = serde_json::to_vec_pretty(&contents)
            .map_err(|why| self.failed(OP)(io::Error::other(why)))?;
        let written = file
            .write_all(&text)
            .and_then(|()| file.as_file().sync_all());
        written.map_err(self.failed(OP))?;
        let kept = file.persist(&self.path);
        kept.map_err(|why| self.failed(OP)(why.error))?;
        Ok(made)
    }

    /// Makes a token for this user, who is added when new. Returns the token's text, which nothing keeps.
    pub fn add(&self, user: &str, read_only: bool, expires: Option<SystemTime>) -> Result<String> {
        check_user(user)?;
        let (id, secret) = (letters(ID)?, letters(SECRET)?);
        let (salt, new_user) = (letters(16)?, letters(USER_ID)?);
        let text = format!("{PREFIX}_{id}_{secret}");
        let hash = hash(&salt, &text);
        self.change(|contents| {
            let known = contents
                .users
                .iter()
                .find(|known| known.name.eq_ignore_ascii_case(user));
            let user_id = match known {
                Some(known) => known.id.clone(),
                None => {
                    contents.users.push(User {
                        id: new_user.clone(),
                        name: user.to_owned(),
                    });
                    new_user
                }
            };
            contents.tokens.push(TokenEntry {
                id,
                user_id,
                read_only,
                created_ms: millis(SystemTime::now()),
                expires_ms: expires.map(millis),
                salt,
                hash,
            });
            Ok(())
        })?;
        Ok(text)
    }

    /// Forgets the token of this id, which may be given as the token itself.
    pub fn revoke(&self, id: &str) -> Result<()> {
        let id = id_of(id).unwrap_or(id).to_owned();
        let named = self.path.display().to_string();
        self.change(|contents| {
            let before = contents.tokens.len();
            contents.tokens.retain(|token| token.id != id);
            if contents.tokens.len() < before {
                return Ok(());
            }
            let advice = format!("there is no such token in {named} (storefs token list)");
            Err(Error::because(
                "revoke the token",
                id,
                Kind::NotFound,
                advice,
            ))
        })
    }
}

impl Roster {
    /// The one user of a server that accepts any token.
    pub(super) fn of_one(name: &str) -> Self {
        // Of the name alone, so that the user keeps the id over restarts.
        let digest = Sha256::digest(format!("storefs user {name}"));
        let letters = digest.iter().map(|byte| letter(byte % 62));
        let user = User {
            id: letters.take(USER_ID).collect(),
            name: name.to_owned(),
        };
        Self {
            users: vec![Arc::new(user)],
            tokens: HashMap::new(),
        }
    }

    /// Whose token this is, if it is known and in time.
    pub fn bearer(&self, token: &str, now: SystemTime) -> Option<Bearer> {
        let entry = self.tokens.get(id_of(token)?)?;
        let same: bool = hash(&entry.salt, token)
            .as_bytes()
            .ct_eq(entry.hash.as_bytes())
            .into();
        let in_time = entry.expires_ms.is_none_or(|expires| millis(now) < expires);
        if !same || !in_time {
            return None;
        }
        Some(Bearer {
            user: self.user(&entry.user_id)?.clone(),
            read_only: entry.read_only,
        })
    }

    /// The user to whom stores belong that no user made: the first one.
    pub fn home(&self) -> Option<&Arc<User>> {
        self.users.first()
    }

    /// A user by name or id.
    pub fn user(&self, reference: &str) -> Option<&Arc<User>> {
        let by_id = self.users.iter().find(|user| user.id == reference);
        by_id.or_else(|| {
            let mut users = self.users.iter();
            users.find(|user| user.name.eq_ignore_ascii_case(reference))
        })
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens with the names of their users, oldest first.
    pub fn tokens(&self) -> Vec<(&TokenEntry, &str)> {
        let mut tokens: Vec<_> = self
            .tokens
            .values()
            .map(|token| {
                let user = self.user(&token.user_id);
                (token, user.map_or("", |user| user.name.as_str()))
            })
            .collect();
        tokens.sort_by_key(|(token, _)| (token.created_ms, token.id.clone()));
        tokens
    }
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path)
}

fn check_user(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(legal) && name != "me" {
        return Ok(());
    }
    Err(Error::because(
        "use the user name",
        format!("{name:?}"),
        Kind::Invalid,
        "a user name has 1 to 64 of the characters a-z A-Z 0-9 . _ - and is not `me`",
    ))
}

/// The id in a token's text.
fn id_of(token: &str) -> Option<&str> {
    let (id, _) = token
        .strip_prefix(PREFIX)?
        .strip_prefix('_')?
        .split_once('_')?;
    Some(id)
}

fn hash(salt: &str, token: &str) -> String {
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update(token)
        .finalize();
    hex(&digest)
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn letter(number: u8) -> char {
    const LETTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    char::from(LETTERS[usize::from(number % 62)])
}
