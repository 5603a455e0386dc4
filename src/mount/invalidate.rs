//! Tells the kernel what to drop from its caches, from a thread of its own: it waits for locks that a request may hold.

use crate::fs::Notice;
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::sync::mpsc::Receiver;

/// Starts the thread. It ends when nobody can send notices any more.
pub(super) fn start(notifier: Notifier, notices: Receiver<Notice>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("storefs-notify".into())
        .spawn(move || {
            for notice in notices {
                // The kernel may have forgotten it long ago, or the mount may be gone; neither is a failure.
                let done = match &notice {
                    Notice::Entry { parent, name } => {
                        notifier.inval_entry(INodeNo(*parent), OsStr::new(&**name))
                    }
                    // A negative offset means attributes only.
                    Notice::Attributes(ino) => notifier.inval_inode(INodeNo(*ino), -1, 0),
                    Notice::Contents(ino) => notifier.inval_inode(INodeNo(*ino), 0, 0),
                    Notice::Barrier(done) => {
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        Ok(())
                    }
                };
                if let Err(error) = done {
                    tracing::debug!("{notice:?}: {error}");
                }
            }
        })?;
    Ok(())
}
