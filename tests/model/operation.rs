//! The operations, and how random lists of them are made.

use proptest::prelude::*;
use std::fmt;
use std::sync::LazyLock;

/// Names of stores.
pub const STORES: [&str; 3] = ["default", "other", "third"];
/// The only attribute that users set here beside the type.
pub const NOTE: &str = "user.note";

/// The longest key there can be; no disk keeps a name as long.
static LONGEST: LazyLock<String> = LazyLock::new(|| "longest-".repeat(32));
/// Keys with and without a type in the name, the longest one, and a scratch name.
pub static KEYS: LazyLock<[&str; 6]> = LazyLock::new(|| {
    [
        "OUTPUT",
        "INPUT",
        "a.json",
        "b.txt",
        "OUTPUT~",
        LONGEST.as_str(),
    ]
});

/// A name in a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub store: &'static str,
    pub key: &'static str,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.len() > 100 {
            "LONGEST"
        } else {
            self.key
        };
        write!(f, "{}/{key}", self.store)
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Read,
    /// O_RDWR
    Edit,
    /// O_WRONLY | O_APPEND
    Append,
    /// O_RDWR | O_TRUNC
    Truncate,
    /// O_WRONLY | O_CREAT | O_TRUNC
    Save,
    /// O_RDWR | O_CREAT
    Create,
    /// O_RDONLY | O_CREAT, as flock(1) opens its file
    CreateRead,
    /// O_WRONLY | O_CREAT | O_APPEND
    Log,
    /// O_RDWR | O_CREAT | O_EXCL
    New,
}

/// Who has a file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// This process.
    Me,
    /// Another living process.
    Other(usize),
    /// A process that ended since.
    Gone,
}

/// Who closes a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closer {
    Opener,
    Stranger,
}

/// Bytes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Json,
    Text,
    Word,
    Png,
    Binary,
}

impl Bytes {
    pub fn get(self) -> &'static [u8] {
        match self {
            Self::Json => b"{\"json\": [1, 2, 3]}",
            Self::Text => b"A line of text, and not a short one.\n",
            Self::Word => b"word",
            Self::Png => b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR",
            Self::Binary => b"\xff\xfe\x00\x01binary\x80",
        }
    }
}

/// One operation. Handles are said by their place among those that are open, counted around.
#[derive(Clone, Debug)]
pub enum Op {
    Open {
        name: Name,
        how: How,
        mode: u32,
        by: Opener,
        /// The kernel believes that the name is free and asks for creation.
        blind: bool,
    },
    Write {
        handle: usize,
        at: u64,
        bytes: Bytes,
    },
    Truncate {
        handle: usize,
        size: u64,
    },
    /// One descriptor of several is closed.
    Flush {
        handle: usize,
        by: Closer,
    },
    /// The opener closes its last descriptor; another process still has one.
    LetGo {
        handle: usize,
    },
    Close {
        handle: usize,
        by: Closer,
    },
    Fsync {
        handle: usize,
    },
    Unlink {
        name: Name,
    },
    Rename {
        from: Name,
        to: Name,
        no_replace: bool,
    },
    SetSize {
        name: Name,
        size: u64,
    },
    SetMode {
        name: Name,
        mode: u32,
    },
    SetTime {
        name: Name,
        seconds: i64,
    },
    SetType {
        name: Name,
        to: Option<&'static str>,
    },
    SetNote {
        name: Name,
        to: Option<&'static str>,
    },
    MakeStore {
        store: &'static str,
    },
    RemoveStore {
        store: &'static str,
    },
    RenameStore {
        from: &'static str,
        to: &'static str,
        no_replace: bool,
    },
    /// A listing in pages; between the first two of them something happens.
    List {
        store: &'static str,
        page: usize,
        plus: bool,
        between: Option<Box<Op>>,
    },
    Forget {
        name: Name,
    },
    /// Every name, attribute and byte is compared.
    Check,
    /// The mount ends without a chance to finish anything, and another one begins.
    Remount,
}

fn store() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![5 => Just(STORES[0]), 2 => Just(STORES[1]), 1 => Just(STORES[2])]
}

fn name() -> impl Strategy<Value = Name> + Clone {
    // Few names, so that operations meet.
    let key = prop_oneof![
        6 => Just(KEYS[0]),
        2 => Just(KEYS[1]),
        2 => Just(KEYS[2]),
        2 => Just(KEYS[3]),
        1 => Just(KEYS[4]),
        1 => Just(KEYS[5]),
    ];
    (store(), key).prop_map(|(store, key)| Name { store, key })
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        2 => Just(How::Read),
        2 => Just(How::Edit),
        2 => Just(How::Append),
        2 => Just(How::Truncate),
        6 => Just(How::Save),
        2 => Just(How::Create),
        1 => Just(How::CreateRead),
        1 => Just(How::Log),
        1 => Just(How::New),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    proptest::sample::select(vec![0o600_u32, 0o644, 0o664, 0o755])
}

fn opener() -> impl Strategy<Value = Opener> {
    prop_oneof![
        2 => Just(Opener::Me),
        3 => (0..2_usize).prop_map(Opener::Other),
        1 => Just(Opener::Gone),
    ]
}

fn closer() -> impl Strategy<Value = Closer> {
    prop_oneof![2 => Just(Closer::Opener), 1 => Just(Closer::Stranger)]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    use Bytes::{Binary, Json, Png, Text, Word};
    proptest::sample::select(vec![Json, Text, Word, Png, Binary])
}

fn content_type() -> impl Strategy<Value = Option<&'static str>> {
    proptest::sample::select(vec![
        None,
        Some("application/json; charset=utf-8"),
        Some("text/html"),
        Some("image/png"),
        Some("application/x-own"),
    ])
}

fn change_of_names() -> impl Strategy<Value = Op> + Clone {
    prop_oneof![
        2 => name().prop_map(|name| Op::Unlink { name }),
        3 => (name(), name(), any::<bool>()).prop_map(|(from, to, no_replace)| Op::Rename { from, to, no_replace }),
    ]
}

fn operation() -> impl Strategy<Value = Op> {
    let handle = 0..6_usize;
    let size = proptest::sample::select(vec![0_u64, 3, 20, 100]);
    let at = proptest::sample::select(vec![0_u64, 4, 50]);
    let note = proptest::sample::select(vec![None, Some("one"), Some("two")]);
    let open = (name(), how(), mode(), opener(), any::<bool>()).prop_map(
        |(name, how, mode, by, blind)| Op::Open {
            name,
            how,
            mode,
            by,
            blind,
        },
    );
    let between = proptest::option::of(change_of_names().prop_map(Box::new));
    let list =
        (store(), 1..4_usize, any::<bool>(), between).prop_map(|(store, page, plus, between)| {
            Op::List {
                store,
                page,
                plus,
                between,
            }
        });
    prop_oneof![
        24 => open,
        16 => (handle.clone(), at, bytes()).prop_map(|(handle, at, bytes)| Op::Write { handle, at, bytes }),
        2 => (handle.clone(), size.clone()).prop_map(|(handle, size)| Op::Truncate { handle, size }),
        8 => (handle.clone(), closer()).prop_map(|(handle, by)| Op::Flush { handle, by }),
        3 => handle.clone().prop_map(|handle| Op::LetGo { handle }),
        16 => (handle.clone(), closer()).prop_map(|(handle, by)| Op::Close { handle, by }),
        2 => handle.prop_map(|handle| Op::Fsync { handle }),
        10 => change_of_names(),
        2 => (name(), size).prop_map(|(name, size)| Op::SetSize { name, size }),
        2 => (name(), mode()).prop_map(|(name, mode)| Op::SetMode { name, mode }),
        // In the future: what was not touched for a while and says a wrong size may be mended by any look.
        1 => (name(), 4_000_000_000..4_000_000_009_i64).prop_map(|(name, seconds)| Op::SetTime { name, seconds }),
        4 => (name(), content_type()).prop_map(|(name, to)| Op::SetType { name, to }),
        2 => (name(), note).prop_map(|(name, to)| Op::SetNote { name, to }),
        3 => store().prop_map(|store| Op::MakeStore { store }),
        1 => store().prop_map(|store| Op::RemoveStore { store }),
        2 => (store(), store(), any::<bool>()).prop_map(|(from, to, no_replace)| Op::RenameStore { from, to, no_replace }),
        4 => list,
        2 => name().prop_map(|name| Op::Forget { name }),
        3 => Just(Op::Check),
        1 => Just(Op::Remount),
    ]
}

/// Random lists of operations.
pub fn operations(most: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(operation(), 1..most)
}
