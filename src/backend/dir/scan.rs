//! The one reader of all SDK layouts: which records the files of a store's directory are. It changes nothing, and
//! believes a sidecar no more than the files beside it.

use super::catalog::Catalog;
use super::disk;
use super::names::{STORE_FILE, is_python_temporary, split, type_of_file};
use super::sidecar::{self, Form, Sidecar};
use crate::error::Result;
use crate::record::file_name::{SIDECAR, js_decode, python_encode, sidecar_stem};
use crate::record::types_table::extension_of_type;
use hashbrown::{HashMap, HashSet};
use rustix::fs::FileType;
use std::os::fd::BorrowedFd;

/// What one key's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The key, legal or not.
    pub(super) key: String,
    /// The file with the bytes.
    pub(super) value: String,
    /// Its sidecar's stem and inode.
    pub(super) sidecar: Option<(String, u64)>,
    /// What the sidecar says, when there is one.
    pub(super) said: Option<Sidecar>,
    /// The value is newer than what the sidecar describes and is another file.
    pub(super) outdated: bool,
    /// The type; `None` when only the bytes can tell.
    pub(super) content_type: Option<String>,
    /// What Python's `set_value(key, None)` leaves: files, but no record.
    pub(super) absent: bool,
    /// The percent-encoded key is a link to the value.
    pub(super) link: bool,
    /// Older value files of the same key, newest first, and sidecars that another one overrules.
    pub(super) extras: Vec<String>,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) found: Vec<Found>,
    /// Links of ours that lead nowhere, and their inodes: the JavaScript SDK removed the value.
    pub(super) dangling: Vec<(String, u64)>,
    /// Sidecars of ours without a value, by their stems, and their inodes.
    pub(super) lonely: Vec<(String, u64)>,
    /// Names that the Python SDK is just writing.
    pub(super) temporaries: Vec<String>,
    pub(super) evidence: Evidence,
}

/// Which SDK's hand is seen in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Evidence {
    pub(super) js: bool,
    pub(super) python: bool,
    pub(super) dual: bool,
    /// The SDKs' own file is there; it has to be asked.
    pub(super) store_file: bool,
}

/// The regular files and the links of a directory.
type Files = HashMap<Box<str>, Seen>;

#[derive(Clone, Copy, Debug)]
struct Seen {
    inode: u64,
    link: bool,
}

/// One file that may be a key's value.
struct Candidate {
    key: String,
    value: String,
    sidecar: Option<(String, u64, Sidecar)>,
    link: bool,
}

/// Reads a store. What the sidecars said that are still the same is `known`, and not read again.
/// `is_input` tells the keys that are inputs.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    known: &Catalog,
    is_input: &dyn Fn(&str) -> bool,
) -> Result<Scan> {
    // A project has its input whatever SDK it uses, and people put copies beside it.
    let proves_nothing =
        |key: &str| is_input(key) || key.split_once('.').is_some_and(|(head, _)| is_input(head));
    let mut scan = Scan::default();
    let files = walk(dir, &mut scan)?;
    let mut used = HashSet::new();
    let mut candidates = with_sidecars(dir, &files, known, &mut used, &mut scan);
    for candidate in &mut candidates {
        candidate.name_input(is_input);
        scan.evidence.add(candidate, &proves_nothing);
    }
    for (name, seen) in &files {
        if used.contains(&**name) || sidecar_stem(name).is_some() {
            continue;
        }
        if seen.link {
            if is_dangling(dir, &files, name) {
                scan.dangling.push((name.to_string(), seen.inode));
            }
            continue;
        }
        let (key, extension) = split(name);
        scan.evidence.js |= extension.is_some() && !proves_nothing(key);
        candidates.push(Candidate {
            key: key.to_owned(),
            value: name.to_string(),
            sidecar: None,
            link: false,
        });
    }
    // In byte order a first listing is the same on every disk, and the candidates of a key stand together.
    candidates.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    scan.found.reserve_exact(candidates.len());
    let mut group: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if group
            .first()
            .is_some_and(|first| first.key != candidate.key)
        {
            scan.found.push(settle(dir, std::mem::take(&mut group)));
        }
        group.push(candidate);
    }
    if !group.is_empty() {
        scan.found.push(settle(dir, group));
    }
    Ok(scan)
}

fn walk(dir: BorrowedFd<'_>, scan: &mut Scan) -> Result<Files> {
    let mut files = Files::new();
    disk::walk(dir, 0, &mut |entry| {
        let link = entry.kind == FileType::Symlink;
        if !link && entry.kind != FileType::RegularFile {
            return Ok(true);
        }
        if entry.name == STORE_FILE {
            scan.evidence.store_file |= !link;
            return Ok(true);
        }
        if is_python_temporary(entry.name) {
            scan.temporaries.push(entry.name.to_owned());
        }
        let inode = entry.inode;
        files.insert(entry.name.into(), Seen { inode, link });
        Ok(true)
    })?;
    // One with a sidecar is a record that only looks like a temporary.
    scan.temporaries.retain(|name| {
        let temporary = !files.contains_key(&*format!("{name}{SIDECAR}"));
        if temporary {
            files.remove(&**name);
        }
        temporary
    });
    Ok(files)
}

/// The values that sidecars speak of. Files named exactly as the sidecar come first: what another sidecar only implies
/// never takes them away.
fn with_sidecars<'a>(
    dir: BorrowedFd<'_>,
    files: &'a Files,
    known: &Catalog,
    used: &mut HashSet<&'a str>,
    scan: &mut Scan,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut implied = Vec::new();
    for (name, seen) in files {
        let Some(stem) = sidecar_stem(name).filter(|_| !seen.link) else {
            continue;
        };
        let said = known
            .sidecar(stem, seen.inode)
            .filter(|_| disk::stat(dir, name).is_ok_and(|stat| known.knows_since(stat.changed_ns)));
        let said = said.or_else(|| sidecar::read(dir, stem));
        let Some(said) = said else {
            continue;
        };
        match files.get_key_value(stem) {
            Some((own, Seen { link: false, .. })) => {
                used.insert(own);
                candidates.push(candidate(own, stem, seen.inode, said, false));
            }
            Some((own, _)) => match target(dir, files, own) {
                Some(value) => {
                    used.insert(own);
                    used.insert(value);
                    candidates.push(candidate(value, stem, seen.inode, said, true));
                }
                None => implied.push((stem, seen.inode, said)),
            },
            None => implied.push((stem, seen.inode, said)),
        }
    }
    for (stem, inode, said) in implied {
        let by_type = extension_of_type(&said.content_type);
        let names = [said.extension.as_deref(), by_type]
            .into_iter()
            .flatten()
            .map(|extension| format!("{}.{extension}", said.key))
            .chain([said.key.clone()]);
        let value = names
            .filter_map(|name| files.get_key_value(&*name))
            .find(|(name, seen)| !seen.link && !used.contains(&***name));
        match value {
            Some((value, _)) => {
                used.insert(value);
                candidates.push(candidate(value, stem, inode, said, false));
            }
            None if said.form == Form::Ours => scan.lonely.push((stem.to_owned(), inode)),
            None => {}
        }
    }
    candidates
}

impl Candidate {
    /// The Python SDK names an input's file, not its key, in the sidecar that it writes for one: `INPUT.json`.
    fn name_input(&mut self, is_input: &dyn Fn(&str) -> bool) {
        let (key, extension) = split(&self.value);
        if let Some((stem, _, said)) = &mut self.sidecar
            && extension.is_some()
            && is_input(key)
            && (&*self.value, &*said.key) == (&**stem, &**stem)
        {
            said.key = key.to_owned();
            self.key = key.to_owned();
        }
    }
}

fn candidate(value: &str, stem: &str, inode: u64, said: Sidecar, link: bool) -> Candidate {
    Candidate {
        key: said.key.clone(),
        value: value.to_owned(),
        link: link && stem == python_encode(&said.key),
        sidecar: Some((stem.to_owned(), inode, said)),
    }
}

/// The regular file in the same directory that a link leads to.
fn target<'a>(dir: BorrowedFd<'_>, files: &'a Files, link: &str) -> Option<&'a str> {
    let to = rustix::fs::readlinkat(dir, link, Vec::new())
        .ok()?
        .into_string()
        .ok()?;
    let (name, seen) = files.get_key_value(&*to)?;
    (!seen.link).then_some(&**name)
}

/// Whether this is a link as we make them, to a value that is gone.
fn is_dangling(dir: BorrowedFd<'_>, files: &Files, link: &str) -> bool {
    let Ok(to) = rustix::fs::readlinkat(dir, link, Vec::new()) else {
        return false;
    };
    to.to_str().is_ok_and(|to| {
        disk::is_file_name(to)
            && !files.contains_key(to)
            && js_decode(to).is_some_and(|(key, _)| python_encode(key) == link)
    })
}

/// The record of one key. Of several values the newest wins, and if that is not the one that the sidecar describes, the
/// sidecar's type is not its type.
fn settle(dir: BorrowedFd<'_>, mut group: Vec<Candidate>) -> Found {
    if group.len() > 1 {
        group.sort_by_cached_key(|candidate| {
            let modified =
                disk::stat(dir, &candidate.value).map_or(i64::MIN, |stat| stat.modified_ns);
            let proper = candidate
                .sidecar
                .as_ref()
                .is_some_and(|(stem, _, said)| *stem == python_encode(&said.key));
            std::cmp::Reverse((
                modified,
                candidate.sidecar.is_some(),
                proper,
                candidate.value.clone(),
            ))
        });
    }
    let first = group.remove(0);
    let said_type = first
        .sidecar
        .as_ref()
        .map(|(_, _, said)| &said.content_type);
    let mut found = Found {
        absent: said_type.is_some_and(|said| said == sidecar::NONE),
        content_type: said_type.cloned().or_else(|| type_of_file(&first.value)),
        key: first.key,
        value: first.value,
        sidecar: None,
        said: None,
        outdated: false,
        link: first.link,
        extras: Vec::new(),
    };
    if let Some((stem, inode, said)) = first.sidecar {
        if found.link && said.form != Form::Ours && is_overwritten(dir, &found.value, &stem, &said)
        {
            found.absent = false;
            found.content_type = type_of_file(&found.value);
            found.outdated = true;
        }
        found.sidecar = Some((stem, inode));
        found.said = Some(said);
    }
    for other in group {
        if other.value != found.value && !found.extras.contains(&other.value) {
            found.extras.push(other.value);
        }
        match other.sidecar {
            Some((stem, inode, said)) if found.sidecar.is_none() => {
                found.sidecar = Some((stem, inode));
                found.said = Some(said);
                found.outdated = true;
            }
            Some((stem, ..)) => found.extras.push(format!("{stem}{SIDECAR}")),
            None => {}
        }
    }
    found
}

/// Whether the file behind a link of ours was written after the sidecar. The Python SDK replaces the link with its value, but
/// that value may have got its new name from us before its sidecar came; the JavaScript SDK may have written into it since.
fn is_overwritten(dir: BorrowedFd<'_>, value: &str, stem: &str, said: &Sidecar) -> bool {
    let beside = disk::stat(dir, &format!("{stem}{SIDECAR}"));
    let (Ok(value), Ok(beside)) = (disk::stat(dir, value), beside) else {
        return false;
    };
    let (written, told) = (value.modified_ns, beside.modified_ns);
    written > told || (written == told && said.size.is_some_and(|size| size != value.size))
}

impl Evidence {
    fn add(&mut self, candidate: &Candidate, proves_nothing: &dyn Fn(&str) -> bool) {
        let Some((stem, _, said)) = &candidate.sidecar else {
            return;
        };
        if proves_nothing(&said.key) {
            return;
        }
        match said.form {
            Form::Ours if candidate.link => self.dual = true,
            Form::Ours | Form::Js => self.js = true,
            Form::Python if *stem == python_encode(&said.key) => self.python = true,
            // Named after a file with an extension: an old Python SDK, whose values are named as JavaScript's.
            Form::Python => self.js = true,
        }
    }
}
