//! Processes that open files. Which of them still holds one is what /proc says, so these are real ones: each has a file
//! open whose path ends as the record's would in a mount.

use super::operation::{Name, Opener};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A shell that opens and closes files when it is told.
struct Shell {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Shell {
    fn new() -> Self {
        let mut child = Command::new("bash")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shell = Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        // From its first answer on it has no descriptor of ours.
        shell.tell(":");
        shell
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order} && echo done").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n", "{order}");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes of a test.
pub struct Openers {
    shells: [Shell; 2],
    gone: u32,
    stranger: Shell,
    folder: PathBuf,
}

/// A child has copies of all descriptors until it begins its own program, and with them every lock. So nobody drops a
/// mount meanwhile.
pub static SPAWNING: Mutex<()> = Mutex::new(());

impl Openers {
    pub fn new(folder: &Path) -> Self {
        let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut short = Command::new("true").spawn().unwrap();
        let gone = short.id();
        short.wait().unwrap();
        Self {
            shells: [Shell::new(), Shell::new()],
            gone,
            stranger: Shell::new(),
            folder: folder.to_owned(),
        }
    }

    /// The thread that the kernel names.
    pub fn thread(&self, who: Opener) -> u32 {
        match who {
            Opener::Me => rustix::thread::gettid().as_raw_nonzero().get() as u32,
            Opener::Other(which) => self.shells[which].child.id(),
            Opener::Gone => self.gone,
        }
    }

    /// A process that has nothing open.
    pub fn stranger(&self) -> u32 {
        self.stranger.child.id()
    }

    fn path(&self, handle: u64, name: Name) -> PathBuf {
        self.folder
            .join(handle.to_string())
            .join(name.store)
            .join(&name.key[..name.key.len().min(255)])
    }

    /// Whether a process can be shown to hold a name; the longest key is none that a disk keeps.
    pub fn can_hold(name: Name) -> bool {
        name.key.len() <= 255
    }

    /// The opener now has a descriptor of the name. False where that is nothing that can be shown.
    pub fn hold(&mut self, who: Opener, handle: u64, name: Name, writer: bool) -> bool {
        let Opener::Other(which) = who else {
            return false;
        };
        if !Self::can_hold(name) {
            return false;
        }
        let path = self.path(handle, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        let way = if writer { ">" } else { "<" };
        let order = format!("exec {}{way} '{}'", handle + 10, path.display());
        self.shells[which].tell(&order);
        true
    }

    /// The file that the opener holds has another name now.
    pub fn renamed(&self, handle: u64, from: Name, to: Name) {
        let (from, to) = (self.path(handle, from), self.path(handle, to));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(from, to).unwrap();
    }

    /// The opener's descriptor is closed.
    pub fn let_go(&mut self, who: Opener, handle: u64, name: Name) {
        let Opener::Other(which) = who else { return };
        self.shells[which].tell(&format!("exec {}>&-", handle + 10));
        std::fs::remove_file(self.path(handle, name)).unwrap();
    }
}
