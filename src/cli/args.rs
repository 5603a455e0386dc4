//! The command line as clap sees it: verbs, arguments, help. It never reads a file or starts anything.

use super::option_list;
use super::run_args::{METAMORPH_NOTES, MetamorphArgs, RUN_NOTES, RunArgs};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
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
  APIFY_TOKEN, APIFY_API_BASE_URL
                                 the token for apify: or a server, and where apify: is

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not finished in time.";

/// What `mount` is told beside its arguments.
fn mount_notes() -> String {
    option_list::help() + MOUNT_NOTES
}

const MOUNT_NOTES: &str = "
Environment, for apify: and servers:
  APIFY_TOKEN           the token; for apify: else the login of the Apify CLI
  APIFY_API_BASE_URL    where apify: is

Examples:
  storefs mount mnt
  storefs mount -o ro,default=my-store ./storage mnt
  storefs mount --foreground ./storage mnt
  APIFY_TOKEN=... storefs mount apify: mnt
  storefs mount -o token-file=/etc/storefs/token https://kvs.example.com mnt
  mount -t fuse.storefs /srv/app/storage /mnt/s -o allow_other";

const SERVE_NOTES: &str = "\
SOURCE is a storage folder, or memory: for stores that are gone when the server ends.
TERM and INT end it after the requests that are under way; a second one ends it at once.
It speaks plain HTTP. TLS and rate limits are left to a proxy in front of it.

Examples:
  storefs serve                       serve the project's storage folder on 127.0.0.1:8010
  storefs serve ~/app/storage --listen 0.0.0.0:80 --public-url https://kvs.example.com
  storefs serve memory: --any-token   for a try: any token will do

With no token yet, serve makes one and prints the lines that point a client at it:
  export APIFY_TOKEN=...
  export APIFY_API_BASE_URL=http://127.0.0.1:8010";

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
    /// Mount a storage folder, or the stores of a server, as a directory
    #[command(after_help = mount_notes(), allow_missing_positional = true)]
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
    /// Serve the key-value-store part of the Apify API v2 over HTTP
    #[command(after_help = SERVE_NOTES)]
    Serve(ServeArgs),
    /// Run a command as an Actor: with a store of its own, mounted, and the API behind it
    #[command(after_help = RUN_NOTES)]
    Run(RunArgs),
    /// Within `run`: put another command in the place of the one that runs
    #[command(after_help = METAMORPH_NOTES)]
    Metamorph(MetamorphArgs),
    /// Make, list and revoke tokens of `serve`
    #[command(
        after_help = "Examples:\n  storefs token new --user ann\n  storefs token new --user bot --read-only --expires 30d\n  \
                      storefs token list\n  storefs token revoke 4fK2bQ9x"
    )]
    Token(TokenArgs),
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
    /// The storage folder, memory:, apify:, or the URL of a server (http:// or https://) [default: the project's folder, from
    /// the environment or the working directory]
    pub source: Option<OsString>,
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

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// The storage folder, memory:, apify:, or the URL of a server [default: the project's folder, from the environment or
    /// the working directory]
    pub source: Option<OsString>,
    /// The file with the token for apify: or a server, which nobody else may read [default: APIFY_TOKEN, or for apify: the
    /// login of the Apify CLI]
    #[arg(long, value_name = "FILE", env = "STOREFS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Allow a server in plain http on another machine
    #[arg(long)]
    pub insecure: bool,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8010",
        env = "STOREFS_LISTEN"
    )]
    pub listen: String,
    /// The base of URLs that are handed out, when clients reach the server by another one
    #[arg(long, value_name = "URL", env = "STOREFS_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// The file of tokens [default: tokens.json in the configuration directory]
    #[arg(long, value_name = "FILE", env = "STOREFS_TOKENS")]
    pub tokens: Option<PathBuf>,
    /// Accept any token, as that of one user; on loopback addresses only
    #[arg(long, conflicts_with = "tokens")]
    pub any_token: bool,
    /// The longest record, such as 500MiB or 5GiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "5GiB", env = "STOREFS_MAX_RECORD_SIZE")]
    pub max_record_size: u64,
    /// How records are laid out in the folder: auto, plain, js, python or dual
    #[arg(
        long,
        value_name = "LAYOUT",
        default_value = "auto",
        env = "STOREFS_LAYOUT"
    )]
    pub layout: String,
}

/// Arguments of `token`.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// What to do with tokens.
    #[command(subcommand)]
    pub verb: TokenVerb,
    /// The file of tokens [default: tokens.json in the configuration directory]
    #[arg(long, value_name = "FILE", env = "STOREFS_TOKENS", global = true)]
    pub tokens: Option<PathBuf>,
}

/// The verbs of `token`.
#[derive(Subcommand, Debug)]
pub(super) enum TokenVerb {
    /// Make a token and print it; it is shown this once
    New {
        /// Whose it is; a new user is added
        #[arg(long, value_name = "NAME")]
        user: String,
        /// It may only read
        #[arg(long)]
        read_only: bool,
        /// It is valid for so long, such as 12h or 30d
        #[arg(long, value_name = "D", value_parser = duration)]
        expires: Option<Duration>,
    },
    /// Show the tokens, which are not in it
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token invalid, also for a server that runs
    Revoke {
        /// Its id, or the token itself
        id: String,
    },
}

/// The command line mount(8) uses: `mount.fuse.storefs SOURCE MOUNTPOINT [-sfnv] [-o ...]`.
#[derive(Parser, Debug)]
#[command(
    name = "mount.fuse.storefs",
    version,
    about = "Mounts a storage folder or a server for mount(8)",
    after_help = mount_notes()
)]
pub(super) struct Mount8Args {
    /// The storage folder, memory:, apify:, or the URL of a server (http:// or https://)
    pub source: OsString,
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

/// Longer waits are mistakes, and their ends are times that nobody writes.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A length of time as people write it: `0`, `500ms`, `1s`, `2m`. A bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let too_long = || format!("`{text}` is more than 100 years");
    let read = match text.parse::<f64>() {
        Ok(seconds) if seconds > LONGEST.as_secs_f64() => return Err(too_long()),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match read {
        Some(long) if long > LONGEST => Err(too_long()),
        Some(long) => Ok(long),
        None => Err(format!(
            "`{text}` is no length of time such as 500ms, 30s or 2m"
        )),
    }
}

/// A number of bytes as people write it: `1000`, `64KiB`, `10MB`, `5GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "kb" => 1000,
        "m" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        "t" | "tib" => 1 << 40,
        "tb" => 1_000_000_000_000,
        _ => 0,
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is no size such as 500MiB or 5GiB"))
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
        assert_eq!(two.source.as_deref(), Some("s".as_ref()));
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
        assert!(duration("soon").is_err() && duration("8000y").is_err());
        assert!(duration("-1").unwrap_err().contains("500ms"));
        assert!(duration("inf").is_err());
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!(size("17").unwrap(), 17);
        assert_eq!(size("64KiB").unwrap(), 65_536);
        assert_eq!(size("10mb").unwrap(), 10_000_000);
        assert_eq!(size("5 GiB").unwrap(), 5 << 30);
        for wrong in ["", "0", "-1", "1.5GiB", "5 apples", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
