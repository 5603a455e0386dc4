//! What only inodes have that are no records, or that were opened since the kernel was told of them. An inode leads to it as
//! if it were its own; it takes room once something of it is set.

use super::{Guessed, Inode, Node, OpenFile};
use crate::record::ETag;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

#[derive(Debug)]
pub(in crate::fs) struct Rare {
    pub(in crate::fs) node: Node,
    /// Handles that are open.
    pub(in crate::fs) handles: u32,
    /// It lost its name to a newer draft; its own draft is still to be committed under it.
    pub(in crate::fs) superseded: bool,
    /// Only this thread may open it first.
    pub(in crate::fs) reserved: Option<u32>,
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
            reserved: None,
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
