//! The server's own folder in a storage folder that belongs to somebody else, who may have prepared it, or wants to use it
//! afterwards.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Serving, home, run, storefs, text};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const STORE: &str = "/v2/key-value-stores/default";
const SERVE: [&str; 5] = ["serve", "storage", "--any-token", "--listen", "127.0.0.1:0"];
/// More than the server keeps of encoded bodies.
const HOLE: u64 = 2 << 30;
const NOBODY: u32 = 65534;

/// A storage folder, and a folder elsewhere with something precious in it.
fn prepare(home: &Path) {
    fs::create_dir_all(home.join("storage/.storefs/serve")).unwrap();
    fs::create_dir_all(home.join("elsewhere/inside")).unwrap();
    for precious in ["precious", "inside/precious"] {
        let path = home.join("elsewhere").join(precious);
        fs::write(&path, "precious").unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        File::open(path).unwrap().set_modified(old).unwrap();
    }
}

#[track_caller]
fn is_untouched(home: &Path, what: &str) {
    for (folder, expected) in [("elsewhere", 2), ("elsewhere/inside", 1)] {
        let folder = home.join(folder);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), expected, "{what}");
        let precious = fs::read_to_string(folder.join("precious"));
        assert_eq!(precious.unwrap(), "precious", "{what}");
    }
}

/// Puts a short and a long encoded record and reads them.
#[track_caller]
fn serves(client: &Client, what: &str) {
    let made = client.post("/v2/key-value-stores?name=default", b"");
    assert!([200, 201].contains(&made.status), "{what}: {made:?}");
    for length in [10, 300_000] {
        let plain: Vec<u8> = (0..length)
            .map(|at: u32| (at.wrapping_mul(at) >> 3) as u8)
            .collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gzip.write_all(&plain).unwrap();
        let path = format!("{STORE}/records/k{length}");
        let headers = [
            ("content-type", "application/x-any"),
            ("content-encoding", "gzip"),
        ];
        let put = client.send("PUT", &path, &headers, &gzip.finish().unwrap());
        assert_eq!(put.status, 201, "{what}: {put:?}");
        assert!(client.get(&path).body == plain, "{what}");
        let encoded = client.get_with(&path, &[("accept-encoding", "gzip")]);
        assert_eq!(encoded.status, 200, "{what}: {encoded:?}");
    }
}

#[test]
fn a_server_follows_no_link_in_its_own_folder() {
    for link in ["serve", "serve/encoded", "serve/encoded/x", "serve/runs"] {
        let (_temp, home) = home();
        prepare(&home);
        let ours = home.join("storage/.storefs");
        if link == "serve" {
            fs::remove_dir(ours.join("serve")).unwrap();
        }
        if link == "serve/encoded/x" {
            fs::create_dir_all(ours.join("serve/encoded/store")).unwrap();
            let hole = File::create(ours.join("serve/encoded/store/hole")).unwrap();
            hole.set_len(HOLE).unwrap();
        }
        symlink(home.join("elsewhere"), ours.join(link)).unwrap();
        let serving = Serving::start(&home, &SERVE, 1);
        let client = serving.client("any");
        serves(&client, link);
        let deleted = client.delete(STORE);
        assert_eq!(deleted.status, 204, "{link}: {deleted:?}");
        client.get("/v2/actors/any/runs/last");
        drop(serving);
        is_untouched(&home, link);
        // What is too much was swept all the same.
        assert!(!ours.join("serve/encoded/store/hole").exists());
        let ran = run(&home, &["run", "storage", "--no-mount", "--", "/bin/true"]);
        assert_eq!(ran.status.code(), Some(0), "{link}: {}", text(&ran.stderr));
        is_untouched(&home, link);
    }
}

#[test]
fn a_pipe_or_a_directory_in_the_place_of_a_run_holds_nobody_up() {
    let (_temp, home) = home();
    prepare(&home);
    let runs = home.join("storage/.storefs/serve/runs");
    fs::create_dir_all(runs.join("bbbbbbbbbbbbbbbbb.json")).unwrap();
    let pipe = runs.join("aaaaaaaaaaaaaaaaa.json");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
    let serving = Serving::start(&home, &SERVE, 1);
    let client = serving.client("any");
    serves(&client, "pipe");
    for path in [
        "actor-runs/aaaaaaaaaaaaaaaaa",
        "actor-runs/bbbbbbbbbbbbbbbbb",
        "acts/any/runs/last",
    ] {
        assert_eq!(client.get(&format!("/v2/{path}")).status, 200, "{path}");
    }
}

/// Runs a copy of the program as a user without rights.
fn as_nobody(home: &Path, args: &[&str]) -> Output {
    let program = storefs(home, args).get_program().to_owned();
    let copy = home.join("storefs");
    if !copy.exists() {
        // Another program copies: what this one has open for writing, a child of another thread may inherit.
        let copied = Command::new("cp").arg(program).arg(&copy).status();
        assert!(copied.unwrap().success());
    }
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&copy)
        .args(args)
        .env("HOME", home.join("own"))
        .env("XDG_RUNTIME_DIR", home.join("own"))
        .current_dir(home)
        .output()
        .unwrap()
}

/// Everything below a folder.
fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            found.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found
}

#[test]
fn where_root_has_served_and_run_the_owner_of_the_folder_goes_on() {
    if !rustix::process::geteuid().is_root() {
        return; // it is about root
    }
    let (_temp, home) = home();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["storage", "own"] {
        fs::create_dir(home.join(folder)).unwrap();
        chown(home.join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let serving = Serving::start(&home, &SERVE, 1);
    serves(&serving.client("any"), "as root");
    drop(serving);
    let args = ["run", "storage", "--no-mount", "--", "/bin/true"];
    let ran = run(&home, &args);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let own = home.join("storage/.storefs/serve");
    let made = below(&own);
    assert!(made.iter().any(|path| path.ends_with("runs")), "{made:?}");
    assert!(made.iter().filter(|path| path.is_file()).count() >= 3);
    for path in made {
        assert_eq!(path.metadata().unwrap().uid(), NOBODY, "{path:?}");
    }
    let ran = as_nobody(&home, &args);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(!text(&ran.stderr).contains("WARN"), "{}", text(&ran.stderr));
    assert_eq!(fs::read_dir(own.join("runs")).unwrap().count(), 2);
}

#[test]
fn a_folder_that_cannot_be_used_is_a_warning() {
    if !rustix::process::geteuid().is_root() {
        return; // it takes another user
    }
    let (_temp, home) = home();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["storage", "storage/.storefs", "own"] {
        fs::create_dir(home.join(folder)).unwrap();
        chown(home.join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Root's, and closed.
    let own = home.join("storage/.storefs/serve");
    for mode in [0o700, 0o755] {
        let _ = fs::create_dir(&own);
        fs::set_permissions(&own, fs::Permissions::from_mode(mode)).unwrap();
        let ran = as_nobody(
            &home,
            &[
                "run",
                "storage",
                "--no-mount",
                "--",
                "/bin/sh",
                "-c",
                "exit 7",
            ],
        );
        let error = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(7), "{error}");
        assert!(error.contains("chown"), "{error}");
    }
}

#[test]
fn a_key_that_the_layout_cannot_keep_is_refused_with_what_serve_can_do() {
    let (_temp, home) = home();
    prepare(&home);
    let serving = Serving::start(&home, &SERVE, 1);
    let client = serving.client("any");
    client.post("/v2/key-value-stores?name=default", b"");
    for key in ["INPUT.bak", "__metadata__", &"k".repeat(256)] {
        let put = client.put(&format!("{STORE}/records/{key}"), "text/plain", b"x");
        assert_eq!(put.status, 400, "{key}: {put:?}");
        let said = put.json()["error"]["message"].to_string();
        assert!(said.contains("storefs serve --layout plain"), "{said}");
        // Whoever passes it on may cut it.
        assert!(said.len() < 300, "{said}");
    }
}
