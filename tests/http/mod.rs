//! What tests of `serve` stand on: a server in this process, on a real socket, and a client that sends exactly the bytes
//! it is told to. Whatever happens in a test, nothing of it goes on.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod client;
mod events;
mod program;

pub use client::{Client, Reply};
pub use events::{Event, Events};
pub use program::{Serving, home, run, storefs, text};

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storefs::backend::Backend;
use storefs::backend::dir::{DirBackend, Folder, FolderOptions, Layout};
use storefs::backend::memory::Memory;
use storefs::serve::tokens::TokenFile;
use storefs::serve::{Limits, Options, Server, Users};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// A server that ends with the test.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its users and tokens.
    pub tokens: TokenFile,
    /// A token of the first user, `ann`.
    pub token: String,
    /// What it serves.
    pub backend: Arc<dyn Backend>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    done: Option<tokio::task::JoinHandle<()>>,
    temp: tempfile::TempDir,
}

/// Options of a test's server, to be changed.
pub fn options(folder: &Path, tokens: &TokenFile) -> Options {
    Options {
        public_url: None,
        users: Users::File(tokens.clone()),
        max_record_size: 64 << 20,
        folder: folder.to_owned(),
        keep_encoded: 64 << 20,
        default_store: "default".to_owned(),
        run: None,
        limits: Limits {
            grace: Duration::from_secs(5),
            ..Limits::default()
        },
    }
}

impl Served {
    /// Stores in memory.
    pub fn memory() -> Self {
        Self::with(|_| {})
    }

    /// Stores in memory, with other options.
    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self::start(temp, Arc::new(Memory::new()), change)
    }

    /// Stores in a folder of plain layout.
    pub fn folder() -> Self {
        Self::in_layout(Layout::Plain)
    }

    /// Stores in a folder of this layout.
    pub fn in_layout(layout: Layout) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let folder = FolderOptions {
            layout: Some(layout),
            ..FolderOptions::default()
        };
        std::fs::create_dir(temp.path().join("storage")).unwrap();
        let folder = Folder::open(&temp.path().join("storage"), folder).unwrap();
        Self::start(temp, Arc::new(DirBackend::new(folder)), |_| {})
    }

    /// One of each kind.
    pub fn each() -> [Self; 2] {
        [Self::memory(), Self::folder()]
    }

    fn start(
        temp: tempfile::TempDir,
        backend: Arc<dyn Backend>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let tokens = TokenFile::new(temp.path().join("tokens.json"));
        let token = tokens.add("ann", false, None).unwrap();
        let mut options = options(&temp.path().join("server"), &tokens);
        change(&mut options);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = {
            let _inside = runtime.enter();
            Server::new(backend.clone(), listener, options).unwrap()
        };
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let done = runtime.spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            tokens,
            token,
            backend,
            runtime: Some(runtime),
            stop: Some(stop),
            done: Some(done),
            temp,
        }
    }

    /// A client of the first user.
    pub fn client(&self) -> Client {
        Client::new(self.address, Some(&self.token))
    }

    /// A client that shows this token, or none.
    pub fn client_with(&self, token: Option<&str>) -> Client {
        Client::new(self.address, token)
    }

    /// A client of another user.
    pub fn client_of(&self, user: &str) -> Client {
        let token = self.tokens.add(user, false, None).unwrap();
        self.wait_for(&token)
    }

    /// Waits until the server takes a token, and returns a client that shows it.
    pub fn wait_for(&self, token: &str) -> Client {
        let client = Client::new(self.address, Some(token));
        // The server looks at the file now and then.
        for _ in 0..200 {
            if client.get("/v2/users/me").status == 200 {
                return client;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the new token is not taken");
    }

    /// Makes a store and returns its path.
    pub fn store(&self, name: &str) -> String {
        let made = self
            .client()
            .post(&format!("/v2/key-value-stores?name={name}"), b"");
        assert!(made.status == 201, "{made:?}");
        format!(
            "/v2/key-value-stores/{}",
            made.data()["id"].as_str().unwrap()
        )
    }

    /// The test's own folder; the storage folder, if there is one, is `storage` in it.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Files below the server's folder, whose names are kept bodies.
    pub fn kept(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.temp.path().join("server")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path),
                }
            }
        }
        found
    }

    /// Asks it to end; `true` when it has ended within the time.
    pub fn stop(&mut self, within: Duration) -> bool {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let (Some(runtime), Some(done)) = (&self.runtime, self.done.take()) else {
            return true;
        };
        runtime.block_on(async { tokio::time::timeout(within, done).await.is_ok() })
    }

    /// Asks it to end, and does not wait.
    pub fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.begin_to_stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}
