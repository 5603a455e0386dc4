//! A storage folder behind `storefs serve`, and mounts of that server. Whatever happens, its process ends with the test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use crate::support::{Mount, Said, World, said, wait_until};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SERVER: &str = "http://127.0.0.1:";

/// A storage folder behind a server, and folders for mounts of it.
pub struct Shop {
    server: Option<Child>,
    port: String,
    /// Where mounts find it, when that is not its own address.
    pub front: Option<String>,
    pub token: String,
    pub world: World,
}

impl Shop {
    pub fn open() -> Self {
        let mut shop = Self {
            server: None,
            port: "0".to_owned(),
            front: None,
            token: String::new(),
            world: World::new(),
        };
        shop.start();
        shop
    }

    /// Starts the server, at the port that it had.
    pub fn start(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.world.root().join("serve.log"))
            .unwrap();
        let mut child = self
            .world
            .storefs(&[
                "serve",
                "storage",
                "--tokens",
                "tokens.json",
                "--listen",
                &listen,
            ])
            .env("USER", "ann")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Kept before anything can fail, so that it is killed in any case.
        self.server = Some(child);
        for line in lines.take(if self.token.is_empty() { 3 } else { 1 }) {
            let line = line.unwrap();
            if let Some(at) = line.find(SERVER) {
                let rest = &line[at + SERVER.len()..];
                self.port = rest.chars().take_while(char::is_ascii_digit).collect();
            }
            if let Some((_, token)) = line.split_once("APIFY_TOKEN=") {
                self.token = token.to_owned();
            }
        }
        assert!(!self.token.is_empty() && self.port != "0");
    }

    /// Kills the server.
    pub fn close(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("{SERVER}{}", self.port)
    }

    /// The command that mounts the server at a name, with a cache of that name.
    pub fn command(&self, name: &str, options: &str) -> Command {
        let cache = self.world.root().join(format!("cache-{name}"));
        let options = format!("cache={},{options}", cache.display());
        let source = self.front.clone().unwrap_or_else(|| self.url());
        let mut command = self
            .world
            .storefs(&["mount", "--foreground", "-o", &options, &source]);
        command
            .arg(self.world.root().join(name))
            .env("APIFY_TOKEN", &self.token)
            .env("HOME", self.world.root());
        command
    }

    #[track_caller]
    pub fn mount(&self, name: &str) -> Mount {
        self.mount_with(name, "")
    }

    #[track_caller]
    pub fn mount_with(&self, name: &str, options: &str) -> Mount {
        let path = self.world.root().join(name);
        Mount::start(self.command(name, options), &path, &self.world.storage())
    }

    /// What a mount that must not come about says.
    pub fn refused(&self, command: &mut Command) -> Said {
        let said = said(command);
        assert_eq!(said.code, Some(1), "{said:?}");
        said
    }

    /// The bytes of a record as the server's folder has them.
    pub fn behind(&self, store: &str, file: &str) -> Option<Vec<u8>> {
        fs::read(self.world.source(store).join(file)).ok()
    }

    /// How many requests of this method the server has logged for a key.
    pub fn requests(&self, method: &str, key: &str) -> usize {
        let log = self.log();
        let end = format!("/records/{key} ");
        let asked = format!(" {method} /");
        log.lines()
            .filter(|line| line.contains(&asked) && line.contains(&end))
            .count()
    }
}

impl Shop {
    /// The server's log, with a line for each request that is answered by now: its lines are written a moment later.
    fn log(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let read = || fs::read_to_string(self.world.root().join("serve.log")).unwrap();
        // What is in the folder may still have to be answered.
        std::thread::sleep(Duration::from_millis(50));
        let mark = format!("/mark-{} ", NUMBER.fetch_add(1, Ordering::Relaxed));
        let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{}", self.port)) else {
            // It has ended, and its log with it.
            return read();
        };
        write!(stream, "GET {mark}HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        wait_until("the log has come this far", || read().contains(&mark));
        read()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.close();
    }
}

/// The text of a file.
#[track_caller]
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
