//! Drives the real SDKs: one process each, asked line by line, and the 45 cases they are compared on.
//! Must never skip a test: without the SDKs it fails and names the script that installs them.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, unused_imports)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clean;

pub mod project;

/// How long one answer may take before the process counts as hung.
const HUNG: Duration = Duration::from_secs(90);

/// The two SDKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Js,
    Python,
}

/// A running SDK process; it is ended when dropped.
pub struct Sdk {
    flavour: Flavour,
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

/// One record as an SDK hands it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub content_type: String,
    /// The bytes as stored; only the JS SDK can give them for every record.
    pub raw: Option<Vec<u8>>,
    pub value: Given,
}

/// What `getValue` and `get_value` return.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    Nothing,
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Json(Value),
}

/// How to start a process.
pub struct Start<'a> {
    /// The storage folder.
    pub root: &'a Path,
    /// Whether it empties the default store first, as it does unless told otherwise.
    pub purge: bool,
    /// More environment.
    pub env: &'a [(&'a str, &'a str)],
}

impl Sdk {
    /// A process on the storage folder `root` that purges nothing.
    pub fn start(flavour: Flavour, root: &Path) -> Sdk {
        let env = &[];
        Sdk::start_with(
            flavour,
            &Start {
                root,
                purge: false,
                env,
            },
        )
    }

    /// A process started as told; returns when its Actor has been initialised.
    pub fn start_with(flavour: Flavour, start: &Start<'_>) -> Sdk {
        let tools = tools();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        // Its own working folder: the JS SDK looks for INPUT there too.
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("stderr.log");
        let mut command = match flavour {
            Flavour::Js => Command::new("node"),
            Flavour::Python => Command::new(tools.join("py/bin/python")),
        };
        command.arg(scripts.join(match flavour {
            Flavour::Js => "js.mjs",
            Flavour::Python => "py.py",
        }));
        let purge = if start.purge { "1" } else { "0" };
        clean(&mut command)
            .env("STOREFS_TEST_TOOLS", &tools)
            .env("CRAWLEE_STORAGE_DIR", start.root)
            .env("APIFY_LOCAL_STORAGE_DIR", start.root)
            .env("CRAWLEE_PURGE_ON_START", purge)
            .env("APIFY_PURGE_ON_START", purge)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(start.env.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start the {flavour:?} SDK: {error}; run scripts/install-tools.sh")
        });
        let (send, answers) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let requests = child.stdin.take();
        let mut sdk = Sdk {
            flavour,
            child,
            requests,
            answers,
            log,
            _folder: folder,
        };
        let ready = sdk.answer();
        assert_eq!(
            ready,
            json!({"ready": true}),
            "the {flavour:?} SDK did not start"
        );
        sdk
    }

    /// The keys that `forEachKey` or `iterate_keys` gives.
    pub fn list(&mut self, store: Option<&str>) -> BTreeSet<String> {
        serde_json::from_value(self.ask(json!({"op": "list", "store": store}))).unwrap()
    }

    /// Whether these are the keys; the JS SDK cannot list a store at all while one file in it is not as it should be.
    pub fn lists(&mut self, store: Option<&str>, keys: &BTreeSet<String>) -> bool {
        let listed = self.try_ask(&json!({"op": "list", "store": store}));
        listed.is_ok_and(|listed| {
            serde_json::from_value::<BTreeSet<String>>(listed).unwrap() == *keys
        })
    }

    /// One record, or nothing where the SDK knows none of that key.
    pub fn get(&mut self, store: Option<&str>, key: &str) -> Option<Read> {
        let answer = self.ask(json!({"op": "get", "store": store, "key": key}));
        (!answer.is_null()).then(|| Read {
            content_type: answer["type"].as_str().unwrap().to_owned(),
            raw: answer["raw"].as_str().map(unhex),
            value: Given::from(&answer["value"]),
        })
    }

    /// What `getValue` gives for `key`.
    pub fn value(&mut self, store: Option<&str>, key: &str) -> Given {
        self.get(store, key)
            .map_or(Given::Nothing, |read| read.value)
    }

    /// What the SDK says of a listing that it cannot make, or nothing.
    pub fn complaint_of_list(&mut self) -> Option<String> {
        self.complaint(&json!({"op": "list", "store": null}))
    }

    /// What the SDK says of a record that it cannot read, or nothing.
    pub fn complaint_of_get(&mut self, key: &str) -> Option<String> {
        self.complaint(&json!({"op": "get", "store": null, "key": key}))
    }

    fn complaint(&mut self, request: &Value) -> Option<String> {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
        let answer = self.answer();
        answer.get("error").map(|error| error.to_string())
    }

    /// Stores bytes with a content type.
    pub fn set(&mut self, store: Option<&str>, key: &str, bytes: &[u8], content_type: &str) {
        self.ask(json!({"op": "set", "store": store, "key": key, "hex": hex(bytes), "type": content_type}));
    }

    /// Stores a value without naming a type, as most Actors do.
    pub fn set_json(&mut self, store: Option<&str>, key: &str, value: &Value) {
        self.ask(json!({"op": "set", "store": store, "key": key, "json": value}));
    }

    /// Deletes a record.
    pub fn delete(&mut self, store: Option<&str>, key: &str) {
        self.ask(json!({"op": "delete", "store": store, "key": key}));
    }

    /// Whether the SDK says that the record exists.
    pub fn exists(&mut self, store: Option<&str>, key: &str) -> bool {
        self.ask(json!({"op": "exists", "store": store, "key": key}))
            .as_bool()
            .unwrap()
    }

    /// What `getPublicUrl` gives for `key`.
    pub fn url(&mut self, store: Option<&str>, key: &str) -> String {
        let url = self.ask(json!({"op": "url", "store": store, "key": key}));
        url.as_str().unwrap().to_owned()
    }

    /// Removes a store with all its records.
    pub fn drop_store(&mut self, store: &str) {
        self.ask(json!({"op": "drop", "store": store}));
    }

    /// What `getInput()` returns.
    pub fn input(&mut self) -> Given {
        Given::from(&self.ask(json!({"op": "input"})))
    }

    /// Ends the process as an Actor ends, and checks that it left without an error.
    pub fn finish(mut self) {
        drop(self.requests.take());
        let status = self.child.wait().unwrap();
        assert!(
            status.success(),
            "the {:?} SDK ended with {status}: {}",
            self.flavour,
            self.log()
        );
    }

    fn ask(&mut self, request: Value) -> Value {
        let what = format!("{:?} SDK, {request}", self.flavour);
        self.try_ask(&request)
            .unwrap_or_else(|error| panic!("{what}: {error}: {}", self.log()))
    }

    fn try_ask(&mut self, request: &Value) -> Result<Value, String> {
        let requests = self.requests.as_mut().unwrap();
        writeln!(requests, "{request}").unwrap();
        let mut answer = self.answer();
        match answer.get("error") {
            None => Ok(answer["ok"].take()),
            Some(error) => Err(error.to_string()),
        }
    }

    fn answer(&mut self) -> Value {
        match self.answers.recv_timeout(HUNG) {
            Ok(line) => serde_json::from_str(&line).unwrap(),
            Err(error) => panic!(
                "the {:?} SDK gave no answer ({error}): {}",
                self.flavour,
                self.log()
            ),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Given {
    fn from(shown: &Value) -> Given {
        match shown["kind"].as_str().unwrap() {
            "none" => Given::Nothing,
            "text" => Given::Text(unhex(shown["hex"].as_str().unwrap())),
            "bytes" => Given::Bytes(unhex(shown["hex"].as_str().unwrap())),
            "json" => Given::Json(shown["json"].clone()),
            other => panic!("the script gave a value of kind {other}"),
        }
    }

    /// A text, for comparing.
    pub fn text(text: &str) -> Given {
        Given::Text(text.as_bytes().to_vec())
    }
}

impl Read {
    /// Whether this is the record with these bytes: to the byte where the SDK gives bytes or text, by value where it gives JSON.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let given = match &self.value {
            Given::Nothing => self.raw.is_some(),
            Given::Text(text) if self.content_type.contains("json") => {
                serde_json::from_slice::<Value>(bytes).ok()
                    == String::from_utf8(text.clone()).ok().map(Value::String)
            }
            // A JS string cannot hold bytes that are not UTF-8; the raw bytes decide there.
            Given::Text(text) => text == bytes || std::str::from_utf8(bytes).is_err(),
            Given::Bytes(own) => own == bytes,
            Given::Json(value) => {
                serde_json::from_slice::<Value>(bytes).ok().as_ref() == Some(value)
            }
        };
        given && self.raw.as_deref().is_none_or(|raw| raw == bytes)
    }
}

/// One of the 45 cases: a key, a content type and the bytes.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    pub key: String,
    pub content_type: String,
    pub bytes: Vec<u8>,
}

impl Case {
    /// Python gives nothing back for text that is not UTF-8, also from its own stores.
    pub fn unreadable_for_python(&self) -> bool {
        self.content_type.starts_with("text/") && std::str::from_utf8(&self.bytes).is_err()
    }

    /// Whether the mount accepts this type: an SDK may store one that is not `type/subtype`.
    pub fn has_valid_type(&self) -> bool {
        self.content_type.contains('/')
    }
}

/// All cases, as the SDKs were recorded with.
pub fn cases() -> Vec<Case> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/cases.json"))
            .unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 45);
    let word = |case: &Value, field: &str| case[field].as_str().unwrap().to_owned();
    let bytes = |case: &Value| match case["hex"].as_str() {
        Some(digits) => unhex(digits),
        None => word(case, "text").into_bytes(),
    };
    all.iter()
        .map(|c| Case {
            id: word(c, "id"),
            key: word(c, "key"),
            content_type: word(c, "type"),
            bytes: bytes(c),
        })
        .collect()
}

/// A content type without what a JS file name cannot keep: the default charset and the way parameters are spaced.
pub fn without_default_charset(content_type: &str) -> String {
    let parts = content_type
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase());
    parts
        .filter(|part| part != "charset=utf-8")
        .collect::<Vec<_>>()
        .join("; ")
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(
        digits.len().is_multiple_of(2) && digits.is_ascii(),
        "not hexadecimal: {digits}"
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// The folder that `scripts/install-tools.sh` fills.
pub fn tools() -> PathBuf {
    let tools = match std::env::var_os("STOREFS_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/storefs-tools"),
    };
    for needed in ["js/.installed", "py/.installed", "cli/.installed"] {
        let path = tools.join(needed);
        assert!(
            path.exists(),
            "the real SDKs are not installed ({} is missing): run scripts/install-tools.sh",
            path.display()
        );
    }
    tools
}
