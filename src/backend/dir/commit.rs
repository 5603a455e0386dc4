//! Writing in the SDKs' layouts: a record's files are made ready outside of the store and renamed in, in an order in
//! which no reader meets a sidecar without its value. A failure leaves the old record as it was.

use super::catalog::Entry;
use super::js_lock::{JsLock, is_newest, take_all};
use super::known::Known;
use super::look;
use super::plan::{self, Plan};
use super::removal;
use super::scan::Found;
use super::sdk::{self, Sdk, State, Writing};
use super::sidecar::{self, Form, Sidecar};
use super::steps::Steps;
use super::store::{Installed, Source};
use super::target;
use super::{Area, FileStat, Layout, Place, Store, attrs, disk};
use crate::error::{Error, Kind, Result};
use crate::record::ContentType;
use rustix::fs::{self, AtFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How long a write waits for an SDK that holds the file's lock before it goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes a file outside of the store the record of a key.
pub(super) fn install(
    store: &Store,
    sdk: &Sdk,
    source: Source<'_>,
    key: &str,
    content_type: Option<&ContentType>,
    new: bool,
    inherit: bool,
) -> Result<Installed> {
    let dir = store.dir(Area::Store)?;
    with_lock(store, sdk, key, |state| {
        let old = state.catalog.get(key).cloned();
        if new && old.as_ref().is_some_and(|old| !old.absent) {
            return Err(Error::new("write the record", key, Kind::Exists));
        }
        let existing = plan::existing_type(store, state.layout(), old.as_ref())?;
        let decided = ContentType::decide(content_type, existing.as_ref(), key, source.open)
            .map_err(|error| Error::io("read the draft of", key, error))?;
        let plan = plan::plan(store, state, key, &decided)?;
        if inherit && let Some(old) = &plan.old {
            take_over(dir, &old.file(), source.open)?;
        }
        carry_out(store, state, &plan, source, (new, false))?;
        let entry = state.catalog.get(key);
        let entry = entry.ok_or_else(|| Error::new("write the record", key, Kind::Corrupt))?;
        Ok(Installed {
            place: look::place(entry),
            content_type: Some(decided),
        })
    })
}

/// Gives a record another type, or with `None` the one that name and bytes say.
pub(super) fn set_content_type(
    store: &Store,
    sdk: &Sdk,
    key: &str,
    to: Option<&ContentType>,
) -> Result<(Place, FileStat)> {
    with_lock(store, sdk, key, |state| {
        let file = open_entry(store, state, key)?;
        let to = match to {
            Some(to) => to.clone(),
            None => ContentType::guess(key, &file)
                .map_err(|error| Error::io("read the record", key, error))?,
        };
        let plan = plan::plan(store, state, key, &to)?;
        reshape_as(store, state, &plan, &file)
    })?;
    look::find(store, sdk, key)
}

/// After a record was written in place: its type is decided again, and its sidecar tells its size.
pub(super) fn written_in_place(store: &Store, sdk: &Sdk, key: &str) -> Result<(Place, FileStat)> {
    with_lock(store, sdk, key, |state| {
        let file = open_entry(store, state, key)?;
        let old = state.catalog.get(key).cloned();
        let existing = plan::existing_type(store, state.layout(), old.as_ref())?;
        let decided = ContentType::decide(None, existing.as_ref(), key, &file)
            .map_err(|error| Error::io("read the record", key, error))?;
        let size = disk::stat_open(&file)
            .map_err(|error| disk::failed("stat", key, error))?
            .size;
        let told = old.and_then(|old| old.beside?.size);
        if existing.as_ref() == Some(&decided) && told.is_none_or(|told| told == size) {
            return Ok(());
        }
        let plan = plan::plan(store, state, key, &decided)?;
        reshape_as(store, state, &plan, &file)
    })?;
    look::find(store, sdk, key)
}

/// Opens the file of a record that must be there.
pub(super) fn open_entry(store: &Store, state: &State, key: &str) -> Result<File> {
    let entry = state.catalog.get(key).filter(|entry| !entry.absent);
    let entry = entry.ok_or_else(|| Error::new("find the record", key, Kind::NotFound))?;
    disk::open_file(store.dir(Area::Store)?, &entry.file(), false)
        .map_err(|error| disk::failed("open", key, error))
}

/// Runs a change of one key with the store locked against our own kind, and against the JavaScript SDK where it may be
/// writing the same file. The catalog is what the directory is afterwards.
fn with_lock<T>(
    store: &Store,
    sdk: &Sdk,
    key: &str,
    mut change: impl FnMut(&mut State) -> Result<T>,
) -> Result<T> {
    let dir = store.dir(Area::Store)?;
    let start = Instant::now();
    loop {
        let writing = Writing::wait(store)?;
        let mut state = sdk::fresh(store, sdk)?;
        let js = matches!(state.layout(), Layout::Js | Layout::Dual);
        let entry = state.catalog.get(key).filter(|_| js).cloned();
        let lock = match &entry {
            Some(entry) => Some(take_all(dir, entry)?),
            None => None,
        };
        if matches!(lock, Some(None)) && start.elapsed() < PATIENCE {
            drop((state, writing));
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        // The SDK may have written an older value again after the directory was read and before the locks were taken.
        if entry.is_some_and(|entry| !is_newest(dir, &entry)) && start.elapsed() < PATIENCE {
            state.doubt();
            drop((lock, state, writing));
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let result = change(&mut state);
        drop(lock);
        match &result {
            Ok(_) => state.stamp(dir),
            Err(_) => state.doubt(),
        }
        // An SDK put newer files there meanwhile: what was to be done is done to those.
        let overtaken = matches!(&result, Err(error) if error.kind() == Kind::Busy);
        if overtaken && start.elapsed() < PATIENCE {
            drop((state, writing));
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        return result;
    }
}

fn take_over(dir: BorrowedFd<'_>, file: &str, new: &File) -> Result<()> {
    let failed = |error: Errno| disk::failed("write the record", file, error);
    let Some(old) = disk::stat_if_there(dir, file).map_err(failed)? else {
        return Ok(());
    };
    let names = attrs::names(dir, file).map_err(failed)?;
    attrs::inherit(dir, file, &old, &names, new)
}

/// Does what is planned with the record's own file, which stays the same inode.
pub(super) fn reshape_as(store: &Store, state: &mut State, plan: &Plan, open: &File) -> Result<()> {
    let Some(old) = &plan.old else {
        return Err(Error::new(
            "write the record",
            plan.key.as_str(),
            Kind::NotFound,
        ));
    };
    let dir = store.dir(Area::Store)?;
    let file = old.file();
    // Where the link will be, Python reads the value until the link is there: the value gets its new name as a second one.
    let second = match plan.target.link.as_deref() == Some(&*file) {
        true => second_name(store, dir, &file)?,
        false => None,
    };
    let (from, name) = match &second {
        Some(name) => (store.shared.temp()?.dir(), &**name),
        None => (dir, &*file),
    };
    let source = Source {
        dir: from,
        file: name,
        open,
    };
    let done = carry_out(store, state, plan, source, (false, true));
    if let (Err(_), Some(name)) = (&done, &second) {
        let _ = disk::remove(from, name);
    }
    done
}

/// Another name of a store's file among the temporaries; none where the file system has no hard links.
fn second_name(store: &Store, dir: BorrowedFd<'_>, file: &str) -> Result<Option<String>> {
    let temp = store.shared.temp()?;
    let name = temp.name();
    match fs::linkat(dir, file, temp.dir(), &name, AtFlags::empty()) {
        Ok(()) => Ok(Some(name)),
        Err(error) if disk::no_hard_links(error) => Ok(None),
        Err(error) => Err(disk::failed("write the record", file, error)),
    }
}

/// The JavaScript SDK's lock of the name that a value gets, where it is none of those that are locked already. Otherwise the SDK
/// could write into the file under its new name, and lose that when the change is taken back.
fn lock_target<'a>(dir: BorrowedFd<'a>, layout: Layout, plan: &Plan) -> Result<Option<JsLock<'a>>> {
    let target = &*plan.target.value;
    let is_locked = |old: &Entry| old.values().iter().any(|value| **value == *target);
    if !matches!(layout, Layout::Js | Layout::Dual) || plan.old.as_ref().is_some_and(is_locked) {
        return Ok(None);
    }
    match JsLock::take(dir, target)? {
        Some(lock) => Ok(Some(lock)),
        None => {
            let why = "an SDK is writing it";
            Err(Error::because(
                "write the record",
                &*plan.key,
                Kind::Busy,
                why,
            ))
        }
    }
}

/// Does what is planned: all bytes are on the disk before the first rename, and the renames are taken back when one of them
/// or the link fails. `yields`: the bytes are the record's own, so what somebody else wrote meanwhile is newer and stays; the
/// error is `Kind::Busy` then.
fn carry_out(
    store: &Store,
    state: &mut State,
    plan: &Plan,
    source: Source<'_>,
    (new, yields): (bool, bool),
) -> Result<()> {
    let dir = store.dir(Area::Store)?;
    let temp = store.shared.temp()?;
    let _lock = match yields {
        true => lock_target(dir, state.layout(), plan)?,
        false => None,
    };
    let failed = |error: Errno| disk::failed("write the record", &plan.key, error);
    let stat = disk::stat_open(source.open).map_err(failed)?;
    let known = match yields {
        true => Some(Known::of(store, state, plan, &stat)?),
        false => None,
    };
    let known = known.as_ref();
    mark(state.layout(), plan, source.open, &stat);
    let beside = match &plan.target.sidecar {
        Some((_, form)) => Some(write_sidecar(store, plan, *form, stat.size)?),
        None => None,
    };
    let old = plan.old.as_ref();
    let linked = old.is_some_and(|old| old.link && old.file() == plan.target.value);
    let link = plan
        .target
        .link
        .as_ref()
        .filter(|_| !linked)
        .map(|_| temp.name());
    let stays = source.is_in(dir) && source.file == plan.target.value;
    let mut steps = Steps::new(dir, temp, yields);
    let mut renames = || {
        if !stays {
            let there = old.is_some_and(|old| old.file() == plan.target.value);
            steps.put(
                source.dir,
                source.file,
                &plan.target.value,
                there,
                new && !there,
                &|out| known.is_none_or(|known| known.is_value(out)),
            )?;
            // What was looked at may not be what was moved: the Python SDK puts a new file under the same name.
            let moved = disk::stat(dir, &plan.target.value)?;
            if yields && moved.inode != stat.inode {
                return Err(Errno::BUSY);
            }
        }
        if let (Some((name, _)), Some((stem, _))) = (&beside, &plan.target.sidecar) {
            let there = old.and_then(Entry::stem).is_some_and(|old| old == *stem);
            steps.put(
                temp.dir(),
                name,
                &target::sidecar_file(stem),
                there,
                false,
                &|out| known.is_none_or(|known| known.is_sidecar(out)),
            )?;
        }
        if let (Some(name), Some(to)) = (&link, &plan.target.link) {
            let there = old.is_some_and(|old| old.link);
            steps.link(&plan.target.value, name, to, there, &|out| {
                out.is_link()
                    || out.inode == stat.inode
                    || known.is_none_or(|known| known.is_value(out))
            })?;
        }
        Ok(())
    };
    if let Err(error) = renames() {
        steps.undo();
        for name in beside.iter().map(|(name, _)| name).chain(&link) {
            let _ = disk::remove(temp.dir(), name);
        }
        return Err(failed(error));
    }
    steps.finish();
    if let Some(old) = old {
        removal::clean_up(dir, old, plan);
    }
    state
        .catalog
        .put(found(plan, beside.map_or(0, |(_, inode)| inode), stat.size));
    Ok(())
}

/// Keeps on the file itself what its name and its sidecar do not say. None of it is needed to read the record, so it
/// does not matter when the disk is full or keeps no attributes.
fn mark(layout: Layout, plan: &Plan, file: &File, stat: &FileStat) {
    if plan.target.link.is_some() {
        let mark = sdk::mark(stat);
        let _ = fs::fsetxattr(file, attrs::DUAL, mark.as_bytes(), XattrFlags::empty());
    }
    if layout == Layout::Js && plan.target.sidecar.is_none() {
        let text = plan.content_type.as_str();
        let _ = fs::fsetxattr(file, attrs::TYPE, text.as_bytes(), XattrFlags::empty());
    }
}

/// Writes the sidecar under a temporary name. Its name there and its inode.
fn write_sidecar(store: &Store, plan: &Plan, form: Form, size: u64) -> Result<(String, u64)> {
    let temp = store.shared.temp()?;
    let content_type = plan.content_type.as_str();
    let text = match form {
        Form::Python => sidecar::python(&plan.key, content_type, size),
        Form::Js | Form::Ours => sidecar::ours(
            &plan.key,
            content_type,
            size,
            plan.target.extension(&plan.key),
        ),
    };
    let (name, mut file) = temp.file(0o644)?;
    let failed =
        |error: std::io::Error| Error::io("write the sidecar of", plan.key.as_str(), error);
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| Ok(disk::stat_open(&file)?.inode));
    match written {
        Ok(inode) => Ok((name, inode)),
        Err(error) => {
            let _ = disk::remove(temp.dir(), &name);
            Err(failed(error))
        }
    }
}

/// What a scan would find after the plan was carried out.
fn found(plan: &Plan, inode: u64, size: u64) -> Found {
    let target = &plan.target;
    let said = target.sidecar.as_ref().map(|(_, form)| Sidecar {
        key: plan.key.clone(),
        content_type: plan.content_type.as_str().to_owned(),
        extension: Some(target.extension(&plan.key).to_owned())
            .filter(|extension| *form != Form::Python && !extension.is_empty()),
        size: Some(size),
        form: *form,
    });
    Found {
        key: plan.key.clone(),
        value: target.value.clone(),
        sidecar: target
            .sidecar
            .as_ref()
            .map(|(stem, _)| (stem.clone(), inode)),
        content_type: match &target.sidecar {
            Some(_) => Some(plan.content_type.as_str().to_owned()),
            None => super::names::type_of_file(&target.value),
        },
        said,
        outdated: false,
        absent: false,
        link: target.link.is_some(),
        extras: Vec::new(),
    }
}
