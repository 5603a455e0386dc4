//! The one error of the program: what was tried, on what, and why it failed. It never decides how a door reports it.

use std::fmt;
use std::io;

/// The result of every fallible operation here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The record, file or attribute target does not exist.
    NotFound,
    /// The store does not exist.
    StoreNotFound,
    /// The attribute does not exist.
    NoAttribute,
    /// A name, value or option that is not legal.
    Invalid,
    /// A legal name that this place cannot hold.
    NameTooLong,
    /// The name is taken.
    Exists,
    /// The store still holds records.
    NotEmpty,
    /// The caller or its token has no right to this.
    Denied,
    /// Nobody may do this here.
    NotPermitted,
    /// The source or the mount is read-only.
    ReadOnly,
    /// The disk or the quota is full.
    NoSpace,
    /// The body is larger than the place accepts.
    TooLarge,
    /// The precondition does not hold: somebody else changed the record.
    Changed,
    /// The version or the file that was open is gone.
    Stale,
    /// The two names are in places that cannot be joined by one rename.
    CrossDevice,
    /// The place cannot do this at all.
    Unsupported,
    /// A value does not fit into the space the caller gave.
    Range,
    /// Something else holds it.
    Busy,
    /// A directory was expected.
    NotADirectory,
    /// A record was expected and this is a directory.
    IsADirectory,
    /// The name leads through a link that is not followed.
    Loop,
    /// No free descriptor, memory or other resource of the process or machine.
    Exhausted,
    /// The backend cannot be reached.
    Offline,
    /// No progress within the time allowed.
    TimedOut,
    /// What was read cannot be right.
    Corrupt,
    /// Any other failure of a disk or a peer.
    Io,
}

/// What was tried (`op`), on what (`subject`), and why it failed.
pub struct Error {
    op: &'static str,
    subject: String,
    kind: Kind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with no lower cause.
    pub fn new(op: &'static str, subject: impl Into<String>, kind: Kind) -> Self {
        Self {
            op,
            subject: subject.into(),
            kind,
            source: None,
        }
    }

    /// An error with a sentence that says why and what to do.
    pub fn because(
        op: &'static str,
        subject: impl Into<String>,
        kind: Kind,
        why: impl Into<String>,
    ) -> Self {
        let why: String = why.into();
        Self {
            op,
            subject: subject.into(),
            kind,
            source: Some(why.into()),
        }
    }

    /// An error with a lower cause of its own type.
    pub fn caused(
        op: &'static str,
        subject: impl Into<String>,
        kind: Kind,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            op,
            subject: subject.into(),
            kind,
            source: Some(Box::new(cause)),
        }
    }

    /// An error of the operating system; its kind follows from its number.
    pub fn io(op: &'static str, subject: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self {
            op,
            subject: subject.into(),
            kind: kind_of(&source),
            source: Some(Box::new(source)),
        }
    }

    /// The same error with another kind, when the caller knows better.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Why it failed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was tried.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// What it was tried on.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The system's error number, when the cause is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source
            .as_ref()?
            .downcast_ref::<io::Error>()?
            .raw_os_error()
    }
}

fn kind_of(error: &io::Error) -> Kind {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Kind::NotFound,
        Some(libc::ENODATA) => Kind::NoAttribute,
        Some(libc::EINVAL) => Kind::Invalid,
        Some(libc::ENAMETOOLONG) => Kind::NameTooLong,
        Some(libc::EEXIST) => Kind::Exists,
        Some(libc::ENOTEMPTY) => Kind::NotEmpty,
        Some(libc::EACCES) => Kind::Denied,
        Some(libc::EPERM) => Kind::NotPermitted,
        Some(libc::EROFS) => Kind::ReadOnly,
        Some(libc::ENOSPC | libc::EDQUOT) => Kind::NoSpace,
        Some(libc::EFBIG) => Kind::TooLarge,
        Some(libc::ESTALE) => Kind::Stale,
        Some(libc::EXDEV) => Kind::CrossDevice,
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => Kind::Unsupported,
        Some(libc::ERANGE | libc::E2BIG) => Kind::Range,
        Some(libc::EBUSY | libc::ETXTBSY) => Kind::Busy,
        Some(libc::ENOTDIR) => Kind::NotADirectory,
        Some(libc::EISDIR) => Kind::IsADirectory,
        Some(libc::ELOOP) => Kind::Loop,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Kind::Exhausted,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ECONNREFUSED) => Kind::Offline,
        Some(libc::ETIMEDOUT) => Kind::TimedOut,
        _ => Kind::Io,
    }
}

impl Kind {
    /// The cause in a few words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "no such record",
            Self::StoreNotFound => "no such store",
            Self::NoAttribute => "no such attribute",
            Self::Invalid => "not valid",
            Self::NameTooLong => "name too long",
            Self::Exists => "exists already",
            Self::NotEmpty => "not empty",
            Self::Denied => "permission denied",
            Self::NotPermitted => "not permitted",
            Self::ReadOnly => "read-only",
            Self::NoSpace => "no space left",
            Self::TooLarge => "too large",
            Self::Changed => "changed by somebody else",
            Self::Stale => "the version that was open is gone",
            Self::CrossDevice => "not in one place",
            Self::Unsupported => "not supported here",
            Self::Range => "does not fit",
            Self::Busy => "busy",
            Self::NotADirectory => "not a directory",
            Self::IsADirectory => "is a directory",
            Self::Loop => "a link that is not followed",
            Self::Exhausted => "out of descriptors or memory",
            Self::Offline => "not reachable",
            Self::TimedOut => "no progress in time",
            Self::Corrupt => "not readable as what it should be",
            Self::Io => "input/output error",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => write!(f, ": {}", self.kind.reason()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
