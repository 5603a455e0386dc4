//! The verb `serve`: opens the source, takes the port, says how to reach it, serves until a signal comes.

use super::args::ServeArgs;
use super::config::Surroundings;
use super::exit::print;
use super::options::{self, Options};
use super::own_temp::OwnTemp;
use super::token::unseen;
use super::{Outcome, credentials, lines, log, source};
use crate::backend::dir::{DirBackend, FolderOptions};
use crate::backend::open::{self, Opened, Place};
use crate::backend::{Backend, NewStore};
use crate::error::{Error, Kind, Result};
use crate::record::StoreName;
use crate::serve::tokens::TokenFile;
use crate::serve::{self, Limits, Server, Users};
use crate::sys;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

const OP: &str = "serve at";
/// How the folder begins of a server whose records are not in a folder here.
const TEMP: &str = "storefs-serve-";
/// Threads that may wait for the disk at one time.
const WAITING: usize = 64;
/// Memory of at least this length goes back to the system when it is free: the windows of decoders, but no piece of a body.
const LARGE: u32 = 1 << 20;
/// How many bytes of encoded bodies are kept beside the records.
const KEEP_ENCODED: u64 = 1 << 30;

/// What is served.
struct Source {
    backend: Arc<dyn Backend>,
    /// The same, when it is a folder, which keeps counts that are written down at the end.
    of_folder: Option<DirBackend>,
    shown: String,
    /// It is no other server.
    is_here: bool,
    /// The server's own folder.
    folder: PathBuf,
    /// Removed at the end, if there is one.
    _temp: Option<OwnTemp>,
}

/// `storefs serve`.
pub(super) fn serve(args: &ServeArgs, here: &Surroundings) -> Outcome {
    log::start(here);
    sys::give_back_blocks_of(LARGE);
    // Before anything is written, above all a token that nobody would see.
    let public_url = args.public_url.as_deref().map(checked_url).transpose()?;
    let source = open(args, here)?;
    let listener = listen(&args.listen)?;
    let (users, made) = users(args, here)?;
    let default_store = here.default_store(&Options::default());
    let default_store = default_store.unwrap_or_else(|| "default".to_owned());
    let options = serve::Options {
        public_url: public_url.clone(),
        users,
        max_record_size: args.max_record_size,
        folder: source.folder.clone(),
        keep_encoded: KEEP_ENCODED,
        default_store: default_store.clone(),
        run: here.run_id(),
        limits: Limits::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .max_blocking_threads(WAITING)
        .build()
        .map_err(|why| Error::io("start the runtime", "", why))?;
    runtime.block_on(async {
        let signals = [SignalKind::terminate(), SignalKind::interrupt()];
        let signals = signals.map(signal);
        if source.is_here {
            make_store(&*source.backend, &default_store).await;
        }
        let server = Server::new(source.backend.clone(), listener, options)?;
        let url = format!("http://{}", server.address());
        let mut told = format!("serving {} at {url}\n", source.shown);
        if let Some(token) = &made {
            let base = public_url.as_deref().unwrap_or(&url);
            told += &format!("export APIFY_TOKEN={token}\nexport APIFY_API_BASE_URL={base}\n");
        }
        if let Err(why) = print(&told) {
            return match &made {
                Some(token) => unseen(&token_file(args.tokens.as_ref(), here), token, &why),
                None => Err(why),
            };
        }
        server.run(stop(signals)).await;
        if let Some(folder) = &source.of_folder {
            folder.flush().await?;
        }
        Ok::<_, Error>(())
    })?;
    tracing::info!("ended");
    Ok(())
}

/// The default store is there from the start, as below a mount.
async fn make_store(backend: &dyn Backend, name: &str) {
    let made = async {
        let new = NewStore::named(StoreName::new(name)?);
        backend.create_store(new).await
    };
    if let Err(why) = made.await {
        tracing::warn!("the store {name} is not made: {why}");
    }
}

/// Waits for a signal. The next one ends the process at once.
async fn stop(signals: [std::io::Result<Signal>; 2]) {
    let [mut terminate, mut interrupt] = signals;
    next(&mut terminate, &mut interrupt).await;
    tracing::info!("asked to end: finishing the requests under way");
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        tracing::warn!("asked again: ending now, requests are cut off");
        lines::flush();
        std::process::exit(1);
    });
}

async fn next(terminate: &mut std::io::Result<Signal>, interrupt: &mut std::io::Result<Signal>) {
    let one = async |signal: &mut std::io::Result<Signal>| match signal {
        Ok(signal) => signal.recv().await,
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        _ = one(terminate) => {}
        _ = one(interrupt) => {}
    }
}

fn open(args: &ServeArgs, here: &Surroundings) -> Result<Source> {
    let named = args
        .source
        .as_deref()
        .map(open::Source::parse)
        .transpose()?;
    let named = match named {
        None | Some(open::Source::Folder(_)) => {
            open::Source::Folder(source::folder(args.source.as_deref(), here)?)
        }
        Some(other) => other,
    };
    let layout = options::parse(&[format!("layout={}", args.layout)], false)?.layout;
    let token = credentials::token(&named, args.token_file.as_deref(), here)?;
    let is_known = token.is_some();
    let (_, input_keys) = here.input_keys(&Options::default())?;
    let access = open::Access {
        token,
        api_base: credentials::api_base(here),
        insecure: args.insecure,
        compress: false,
        read_only: false,
        folder: FolderOptions {
            layout,
            read_only: false,
            input_keys,
        },
    };
    let Opened { backend, place } = open::open(&named, access)?;
    if let (open::Source::Server(url), false) = (&named, is_known) {
        let why =
            "a server wants a token, and there is none (set APIFY_TOKEN, or --token-file FILE)";
        return Err(Error::because("serve", url.as_str(), Kind::Denied, why));
    }
    let shown = match (&named, &place) {
        (open::Source::Folder(root), _) => root.display().to_string(),
        (_, Place::Server(server)) => server.inner().base().to_string(),
        (_, Place::Folder(_) | Place::Memory) => "memory:".to_owned(),
    };
    let is_here = !matches!(place, Place::Server(_));
    let of_folder = match place {
        Place::Folder(folder) => Some(folder),
        Place::Memory | Place::Server(_) => None,
    };
    let (folder, temp) = match &named {
        open::Source::Folder(root) => (root.join(".storefs/serve"), None),
        open::Source::Memory | open::Source::Apify | open::Source::Server(_) => {
            let temp = OwnTemp::make(TEMP)?;
            (temp.path().join("serve"), Some(temp))
        }
    };
    Ok(Source {
        backend,
        of_folder,
        shown,
        is_here,
        folder,
        _temp: temp,
    })
}

fn listen(address: &str) -> Result<TcpListener> {
    let addresses = address.to_socket_addrs().map_err(|why| {
        Error::because(
            OP,
            address,
            Kind::Invalid,
            format!("{why} (write ADDRESS:PORT, such as 127.0.0.1:8010)"),
        )
    })?;
    let addresses: Vec<_> = addresses.collect();
    TcpListener::bind(&addresses[..]).map_err(|why| {
        if why.kind() == std::io::ErrorKind::AddrInUse {
            let advice = format!("{why} (choose another port with --listen)");
            return Error::because(OP, address, Kind::Busy, advice);
        }
        Error::io(OP, address, why)
    })
}

fn checked_url(url: &str) -> Result<String> {
    let legal = url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"<>?#".contains(&byte));
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    if legal && host.is_some_and(|host| !host.is_empty()) {
        // Some write the version, which every path has already.
        let url = url.trim_end_matches('/');
        return Ok(url.strip_suffix("/v2").unwrap_or(url).to_owned());
    }
    Err(Error::because(
        "hand out URLs below",
        url,
        Kind::Invalid,
        "write it as https://HOST[:PORT][/PATH]",
    ))
}

/// The file of tokens that is meant.
pub(super) fn token_file(named: Option<&PathBuf>, here: &Surroundings) -> TokenFile {
    TokenFile::new(match named {
        Some(path) => here.absolute(path),
        None => here.config_dir().join("tokens.json"),
    })
}

/// Who may use the server, and the token that was made because there was none.
fn users(args: &ServeArgs, here: &Surroundings) -> Result<(Users, Option<String>)> {
    if args.any_token {
        return Ok((Users::AnyToken(here.user_name()), None));
    }
    let file = token_file(args.tokens.as_ref(), here);
    let made = match file.read()?.is_empty() {
        true => Some(file.add(&here.user_name(), false, None)?),
        false => None,
    };
    Ok((Users::File(file), made))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn public_urls_are_checked_and_lose_what_follows_anyway() {
        assert_eq!(
            checked_url("https://a.example/").unwrap(),
            "https://a.example"
        );
        assert_eq!(checked_url("http://a:1/kvs/v2/").unwrap(), "http://a:1/kvs");
        for wrong in [
            "a.example",
            "ftp://a",
            "https://",
            "https://a b",
            "https://a?x",
        ] {
            assert!(checked_url(wrong).is_err(), "{wrong}");
        }
    }
}
