//! What only inodes have that are no records, or that were opened since the kernel was told of them. An inode leads to it as
//! if it were its own; it takes room once something of it is set.

use super::{Guessed, Inode, Node, OpenFile};
use crate::record::ETag;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An inode that has no file of its own: what its thread opens by it is the file of the one that has the name then.
#[derive(Clone, Copy, Debug)]
pub(in crate::fs) struct Private {
    thread: u32,
    /// The inode whose file was opened.
    pub(in crate::fs) serves: Option<u64>,
}

impl Private {
    /// Whether this thread found it and has not opened it yet.
    pub(in crate::fs) fn is_for(&self, thread: u32) -> bool {
        self.thread == thread && self.serves.is_none()
    }

    pub(super) fn of(thread: u32) -> Self {
        Self {
            thread,
            serves: None,
        }
    }
}

#[derive(Debug)]
pub(in crate::fs) struct Rare {
    pub(in crate::fs) node: Node,
    /// Handles that are open.
    pub(in crate::fs) handles: u32,
    /// It lost its name to a newer draft; its own draft is still to be committed under it.
    pub(in crate::fs) superseded: bool,
    /// Handles by which its file is written and that the kernel has of other inodes.
    pub(in crate::fs) beside: u32,
    /// A thread found it for itself.
    pub(in crate::fs) private: Option<Private>,
    /// Its file, while it is open or parked.
    pub(in crate::fs) open: Option<Arc<OpenFile>>,
    /// What its type was guessed to be when it was made here, if it was, as far as this mount knows.
    pub(in crate::fs) guessed: Option<Guessed>,
    /// The server's tag of the version of which the kernel may have bytes in its cache and of no other; none when they may be
    /// of any.
    pub(in crate::fs) paged: Option<ETag>,
    /// It stands in the queue of parked files.
    pub(super) queued: bool,
}

/// The rare part of those that have none.
static PLAIN: Rare = Rare::new(Node::Record);

impl Rare {
    const fn new(node: Node) -> Self {
        Self {
            node,
            handles: 0,
            superseded: false,
            beside: 0,
            private: None,
            open: None,
            guessed: None,
            paged: None,
            queued: false,
        }
    }

    pub(super) fn of(node: Node) -> Option<Box<Self>> {
        match node {
            Node::Record => None,
            Node::Store(_) | Node::Link(_) => Some(Box::new(Self::new(node))),
        }
    }
}

impl Deref for Inode {
    type Target = Rare;

    fn deref(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&PLAIN)
    }
}

impl DerefMut for Inode {
    fn deref_mut(&mut self) -> &mut Rare {
        self.rare
            .get_or_insert_with(|| Box::new(Rare::new(Node::Record)))
    }
}
