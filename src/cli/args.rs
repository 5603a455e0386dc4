//! The command line as clap sees it: verbs, arguments, help. It never reads a file or starts anything.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  storefs mount mnt                   mount the project's storage folder at ./mnt
  storefs mount ~/app/storage /mnt/s  mount another folder
  cat mnt/default/INPUT               print the input
  echo '{\"ok\":true}' > mnt/default/OUTPUT
  getfattr -n user.mime_type mnt/default/OUTPUT
  storefs umount mnt

Environment:
  STOREFS_LOG                    what is logged: error, warn, info (default), debug, trace
  APIFY_LOCAL_STORAGE_DIR, CRAWLEE_STORAGE_DIR
                                 the storage folder, when no SOURCE is given
  ACTOR_DEFAULT_KEY_VALUE_STORE_ID, ACTOR_INPUT_KEY
                                 the default store and the key of the input

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not finished in time.";

const MOUNT_NOTES: &str = "\
Options of -o:
  ro, rw                read-only, or writable (the default)
  allow_other           other users may use the mount
  uid=N, gid=N          every file belongs to this user, this group
  umask=OOO             permission bits that are taken away, in octal
  nonempty              mount over a directory that is not empty
  default=STORE         which store is `default`
  store=NAME            show only this store; may be repeated
  input-key=KEY         the key of the input, when it is not INPUT
  ttl=1s                how old what `stat` and `ls` say may be; 0 is exact
  layout=auto|plain|js|python|dual
                        how records are laid out in the folder
  drain=30s             how long TERM waits for a mount in use
Options of mount(8) such as noauto, nofail, _netdev and x-... are accepted and ignored.

Examples:
  storefs mount mnt
  storefs mount -o ro,default=my-store ./storage mnt
  storefs mount --foreground ./storage mnt
  mount -t fuse.storefs /srv/app/storage /mnt/s -o allow_other";

/// Mounts Apify key-value stores as ordinary directories.
#[derive(Parser, Debug)]
#[command(name = "storefs", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// Mount a storage folder as a directory
    #[command(after_help = MOUNT_NOTES, allow_missing_positional = true)]
    Mount(MountArgs),
    /// Unmount, after everything written is safe
    #[command(
        visible_alias = "unmount",
        after_help = "Examples:\n  storefs umount mnt\n  storefs umount --timeout 1m mnt\n  storefs umount --lazy mnt"
    )]
    Umount(UmountArgs),
    /// Wait until everything written, and every change seen in the folder, is handled
    #[command(after_help = "Examples:\n  storefs sync mnt\n  storefs sync mnt my-store")]
    Sync(SyncArgs),
    /// Show the mounts, or one of them
    #[command(after_help = "Examples:\n  storefs status\n  storefs status --json mnt")]
    Status(StatusArgs),
    /// Print a shell's completions
    #[command(
        after_help = "Example:\n  storefs completions bash > /usr/share/bash-completion/completions/storefs"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  storefs man /usr/local/share/man/man1")]
    Man {
        /// The directory, made when missing
        dir: PathBuf,
    },
}

/// Arguments of `mount`.
#[derive(Args, Debug)]
pub(super) struct MountArgs {
    /// The storage folder [default: the project's, from the environment or the working directory]
    pub source: Option<String>,
    /// Where to mount it; made when missing
    pub mountpoint: PathBuf,
    /// Mount options, separated by commas; may be repeated
    #[arg(
        short = 'o',
        long = "options",
        value_name = "OPT[=VALUE],...",
        env = "STOREFS_OPTIONS"
    )]
    pub options: Vec<String>,
    /// Stay in the foreground; Ctrl-C unmounts
    #[arg(short, long)]
    pub foreground: bool,
}

/// Arguments of `umount`.
#[derive(Args, Debug)]
pub(super) struct UmountArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Detach it now, and let go when the last open file is closed
    #[arg(short, long)]
    pub lazy: bool,
    /// Try for so long while it is in use, such as 30s or 2m
    #[arg(long, value_name = "D", value_parser = duration, env = "STOREFS_TIMEOUT")]
    pub timeout: Option<Duration>,
}

/// Arguments of `sync`.
#[derive(Args, Debug)]
pub(super) struct SyncArgs {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Only this store
    pub store: Option<String>,
    /// Give up after so long, such as 30s or 2m
    #[arg(long, value_name = "D", value_parser = duration, env = "STOREFS_TIMEOUT")]
    pub timeout: Option<Duration>,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Where it is mounted [default: all mounts]
    pub mountpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The command line mount(8) uses: `mount.fuse.storefs SOURCE MOUNTPOINT [-sfnv] [-o ...]`.
#[derive(Parser, Debug)]
#[command(
    name = "mount.fuse.storefs",
    version,
    about = "Mounts a storage folder for mount(8)"
)]
pub(super) struct Mount8Args {
    /// The storage folder
    pub source: String,
    /// Where to mount it
    pub mountpoint: PathBuf,
    /// Mount options, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPT[=VALUE],...")]
    pub options: Vec<String>,
    /// The type, as mount(8) passes it on
    #[arg(short = 't', value_name = "TYPE")]
    pub kind: Option<String>,
    /// Check everything, mount nothing
    #[arg(short = 'f')]
    pub fake: bool,
    /// Accept unknown options
    #[arg(short = 's')]
    pub sloppy: bool,
    /// No entry in mtab: accepted, there is none
    #[arg(short = 'n')]
    pub no_mtab: bool,
    /// Say more: accepted
    #[arg(short = 'v')]
    pub verbose: bool,
}

/// A length of time as people write it: `0`, `500ms`, `1s`, `2m`. A bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|why| why.to_string());
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no length of time such as 500ms, 30s or 2m"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
        Mount8Args::command().debug_assert();
    }

    #[test]
    fn one_argument_of_mount_is_the_mountpoint() {
        let Verb::Mount(one) = Cli::try_parse_from(["storefs", "mount", "m"]).unwrap().verb else {
            panic!("another verb");
        };
        assert_eq!((one.source, one.mountpoint), (None, PathBuf::from("m")));
        let Verb::Mount(two) = Cli::try_parse_from(["storefs", "mount", "s", "m", "-o", "ro"])
            .unwrap()
            .verb
        else {
            panic!("another verb");
        };
        assert_eq!(two.source.as_deref(), Some("s"));
        assert_eq!(two.mountpoint, PathBuf::from("m"));
        assert_eq!(two.options, ["ro"]);
    }

    #[test]
    fn mount_8_may_put_options_after_the_places() {
        let line = [
            "mount.fuse.storefs",
            "/s",
            "/m",
            "-n",
            "-o",
            "rw,noauto",
            "-t",
            "fuse.storefs",
        ];
        let args = Mount8Args::try_parse_from(line).unwrap();
        assert_eq!(args.source, "/s");
        assert_eq!(args.options, ["rw,noauto"]);
    }

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert_eq!(duration("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        assert!(duration("soon").is_err());
        assert!(duration("-1").is_err());
        assert!(duration("inf").is_err());
    }
}
