//! Runs a list of operations on the mount and on the reference.

use super::compare;
use super::kernel::Kernel;
use super::opener::{Openers, SPAWNING};
use super::operation::{Closer, How, KEYS, NOTE, Name, Op, Opener, STORES};
use super::quiet::quietly;
use super::reference::Reference;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use storefs::backend::dir::Layout;
use storefs::error::Kind;
use storefs::fs::Change;

/// The type of a file system in memory, as statfs(2) says it.
const TMPFS: i64 = 0x0102_1994;

type Outcome = Result<(), Kind>;

/// How the tree is mounted.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub layout: Layout,
    /// The kernel itself reads and writes the files.
    pub shared_files: bool,
    /// The tree takes in what happens in the folder, also what it did itself.
    pub watches: bool,
}

struct World {
    folder: PathBuf,
    way: Way,
    /// `None` only between two mounts.
    kernel: Option<Kernel>,
    reference: Reference,
    openers: Openers,
    next: u64,
    /// tmpfs lists a file once more when the next one goes while the listing pauses.
    may_repeat: bool,
}

/// Runs the operations in an empty folder below `base`; says where mount and reference differ.
pub fn run(base: &Path, way: Way, operations: &[Op]) -> Result<(), String> {
    quietly(|| run_all(base, way, operations))
}

fn run_all(base: &Path, way: Way, operations: &[Op]) {
    let temp = tempfile::tempdir_in(base).unwrap();
    let folder = temp.path().join("storage");
    std::fs::create_dir_all(folder.join("key_value_stores").join(STORES[0])).unwrap();
    let mut world = World {
        kernel: Some(Kernel::mount(&folder, way)),
        folder,
        way,
        reference: Reference::new(STORES[0], way.layout != Layout::Plain),
        openers: Openers::new(&temp.path().join("openers")),
        next: 1,
        may_repeat: rustix::fs::statfs(base).unwrap().f_type == TMPFS,
    };
    for op in operations
        .iter()
        .chain([&Op::Check, &Op::Remount, &Op::Check])
    {
        world.step(op);
    }
}

impl World {
    fn kernel(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    /// The handle that is meant, when there is one.
    fn pick(&self, index: usize) -> Option<u64> {
        let open = &self.reference.handles;
        open.keys().nth(index % open.len().max(1)).copied()
    }

    fn pick_writer(&self, index: usize) -> Option<u64> {
        self.pick(index)
            .filter(|handle| self.reference.handles[handle].writer)
    }

    fn step(&mut self, op: &Op) {
        self.kernel().settle();
        if let Some((got, expected)) = self.apply(op) {
            assert_eq!(got, expected, "result of {op:?}");
        }
        self.follow_names();
        self.kernel().settle();
        compare::disk(&self.folder, self.way.layout, &self.reference);
        let kernel = self.kernel.as_mut().unwrap();
        compare::handles(kernel, &self.reference);
        if let Op::Unlink { name }
        | Op::Rename { to: name, .. }
        | Op::Open { name, .. }
        | Op::SetType { name, .. } = op
        {
            compare::name(kernel, &self.reference, *name);
        }
    }

    /// What the mount answered and what it should have, where there is an answer.
    #[allow(clippy::too_many_lines)] // one arm for each operation
    fn apply(&mut self, op: &Op) -> Option<(Outcome, Outcome)> {
        let kernel = self.kernel.as_mut().unwrap();
        let reference = &mut self.reference;
        Some(match op {
            Op::Open {
                name,
                how,
                mode,
                by,
                blind,
            } => return Some(self.open(*name, *how, *mode, *by, *blind)),
            Op::Write { handle, at, bytes } => {
                let handle = self.pick_writer(*handle)?;
                let append = self.reference.handles[&handle].append;
                self.reference.write(handle, *at, bytes.get());
                self.kernel().write(handle, *at, bytes.get(), append);
                return None;
            }
            Op::Truncate { handle, size } => {
                let handle = self.pick_writer(*handle)?;
                self.reference.truncate(handle, *size);
                (self.kernel().truncate(handle, *size), Ok(()))
            }
            Op::Flush { handle, by } => {
                let handle = self.pick(*handle)?;
                return self.flush(handle, *by);
            }
            Op::LetGo { handle } => {
                let handle = self.pick(*handle)?;
                self.let_go(handle);
                return self.flush(handle, Closer::Opener);
            }
            Op::Close { handle, by } => {
                let handle = self.pick(*handle)?;
                self.let_go(handle);
                let flushed = self.flush(handle, *by);
                self.reference.release(handle);
                self.kernel().release(handle);
                return flushed;
            }
            Op::Fsync { handle } => {
                let handle = self.pick(*handle)?;
                self.reference.fsync(handle);
                (self.kernel().fsync(handle), Ok(()))
            }
            Op::Unlink { name } => (kernel.unlink(*name), reference.unlink(*name)),
            Op::Rename {
                from,
                to,
                no_replace,
            } => (
                kernel.rename(*from, *to, *no_replace),
                reference.rename(*from, *to, *no_replace),
            ),
            Op::SetSize { name, size } => {
                let change = Change {
                    size: Some(*size),
                    ..Change::default()
                };
                (kernel.set(*name, change), reference.set_size(*name, *size))
            }
            Op::SetMode { name, mode } => {
                let change = Change {
                    mode: Some(*mode),
                    ..Change::default()
                };
                (kernel.set(*name, change), reference.set_mode(*name, *mode))
            }
            Op::SetTime { name, seconds } => {
                let modified = Some(Some(*seconds * 1_000_000_000));
                let change = Change {
                    modified,
                    ..Change::default()
                };
                (
                    kernel.set(*name, change),
                    reference.set_time(*name, *seconds),
                )
            }
            Op::SetType { name, to } => (
                kernel.set_xattr(*name, "user.mime_type", *to),
                reference.set_type(*name, *to),
            ),
            Op::SetNote { name, to } => (
                kernel.set_xattr(*name, NOTE, *to),
                reference.set_note(*name, *to),
            ),
            Op::MakeStore { store } => (kernel.make_store(store), reference.make_store(store)),
            Op::RemoveStore { store } => {
                (kernel.remove_store(store), reference.remove_store(store))
            }
            Op::RenameStore {
                from,
                to,
                no_replace,
            } => (
                kernel.rename_store(from, to, *no_replace),
                reference.rename_store(from, to, *no_replace),
            ),
            Op::List {
                store,
                page,
                plus,
                between,
            } => {
                self.list(store, *page, *plus, between.as_deref());
                return None;
            }
            Op::Forget { name } => {
                kernel.forget(*name);
                // Others may have left the cache before, when their inodes were found to be stale.
                for name in reference.all_on_disk().filter(|name| !kernel.has(*name)) {
                    reference.forget(name);
                }
                return None;
            }
            Op::Check => {
                compare::tree(kernel, reference);
                self.read_all();
                return None;
            }
            Op::Remount => {
                self.remount();
                return None;
            }
        })
    }

    fn open(
        &mut self,
        name: Name,
        how: How,
        mode: u32,
        by: Opener,
        blind: bool,
    ) -> (Outcome, Outcome) {
        let (handle, thread) = (self.next, self.openers.thread(by));
        let got = self.kernel().open(name, how, mode, thread, blind, handle);
        let expected = self.reference.open(name, how, mode, by, handle);
        if expected.is_ok() {
            self.next += 1;
            let writer = self.reference.handles[&handle].writer;
            if self.openers.hold(by, handle, name, writer) {
                self.reference.handles.get_mut(&handle).unwrap().held = Some(name);
            }
        }
        (got, expected)
    }

    /// The opener closes what it has.
    fn let_go(&mut self, handle: u64) {
        let open = self.reference.handles.get_mut(&handle).unwrap();
        if let Some(name) = open.held.take() {
            self.openers.let_go(open.opener, handle, name);
        }
    }

    /// Openers see the names of their open files change.
    fn follow_names(&mut self) {
        let held: Vec<_> = self
            .reference
            .handles
            .iter()
            .filter_map(|(handle, open)| Some((*handle, open.held?, open.node)))
            .collect();
        for (handle, from, node) in held {
            match self
                .reference
                .name_of(node)
                .filter(|name| Openers::can_hold(*name))
            {
                Some(to) if to != from => {
                    self.openers.renamed(handle, from, to);
                    self.reference.handles.get_mut(&handle).unwrap().held = Some(to);
                }
                Some(_) => {}
                None => self.let_go(handle),
            }
        }
    }

    fn flush(&mut self, handle: u64, by: Closer) -> Option<(Outcome, Outcome)> {
        let open = self.reference.handles[&handle].clone();
        let by_opener = by == Closer::Opener && open.opener != Opener::Gone;
        if open.opener == Opener::Me && !(by_opener && self.reference.is_dirty(handle)) {
            // This process has the folder's own files open too, so /proc says nothing about it.
            return None;
        }
        let thread = if by_opener {
            self.openers.thread(open.opener)
        } else {
            self.openers.stranger()
        };
        let name = self.reference.name_of(open.node);
        let held = |by: fn(Opener, Opener) -> bool| {
            let mut others = self.reference.handles.values();
            name.is_some()
                && others.any(|other| {
                    other.writer && by(other.opener, open.opener) && other.held == name
                })
        };
        let holds = held(|other, opener| other == opener);
        // The other processes are children of this one.
        let child_holds = held(|other, opener| opener == Opener::Me && other != Opener::Me);
        self.reference.flush(handle, by_opener, holds, child_holds);
        Some((self.kernel().flush(handle, thread), Ok(())))
    }

    /// What is there all the time is listed once; what comes or goes meanwhile may be.
    fn list(&mut self, store: &'static str, page: usize, plus: bool, between: Option<&Op>) {
        let before = self.reference.listed(store);
        if !self.reference.stores().contains(&store) {
            return;
        }
        let mut touched = Vec::new();
        let mut listed = Vec::new();
        let mut offset = 0;
        loop {
            let found = self
                .kernel()
                .page(store, offset, page, plus, &*KEYS)
                .unwrap();
            let Some((_, next)) = found.last() else { break };
            assert!(
                listed.len() < 100,
                "the listing of {store} goes on for ever"
            );
            offset = *next;
            listed.extend(found.into_iter().map(|(name, _)| name));
            if let Some(op) = between.filter(|_| touched.is_empty()) {
                if let Op::Unlink { name } = op {
                    touched.push(name.key);
                } else if let Op::Rename { from, to, .. } = op {
                    touched.extend([from.key, to.key]);
                }
                self.step(op);
            }
        }
        let after = self.reference.listed(store);
        for key in *KEYS {
            let count = listed.iter().filter(|name| *name == key).count();
            let there = before.contains(&key) && after.contains(&key);
            if !touched.contains(&key) && there && self.may_repeat && between.is_some() {
                assert!(count > 0, "{key} in the listing {listed:?} of {store}");
            } else if !touched.contains(&key) {
                assert_eq!(
                    count,
                    usize::from(there),
                    "{key} in the listing {listed:?} of {store}"
                );
            } else if !before.contains(&key) && !after.contains(&key) {
                assert_eq!(count, 0, "{key} in the listing {listed:?} of {store}");
            }
        }
        assert!(
            listed
                .iter()
                .all(|name| name == "." || name == ".." || KEYS.contains(&name.as_str())),
            "{listed:?}"
        );
    }

    /// Every name read by a program of its own.
    fn read_all(&mut self) {
        for store in self.reference.stores() {
            for key in *KEYS {
                let name = Name { store, key };
                let handle = self.next;
                let (got, expected) = self.open(name, How::Read, 0, Opener::Gone, false);
                assert_eq!(got, expected, "open {name:?}");
                if expected.is_ok() {
                    compare::handles(self.kernel.as_ref().unwrap(), &self.reference);
                    self.reference.release(handle);
                    self.kernel().release(handle);
                }
            }
        }
    }

    fn remount(&mut self) {
        let handles: Vec<_> = self.reference.handles.keys().copied().collect();
        for handle in handles {
            self.let_go(handle);
        }
        let alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        self.kernel = None;
        drop(alone);
        self.reference.remount();
        self.kernel = Some(Kernel::mount(&self.folder, self.way));
    }
}
