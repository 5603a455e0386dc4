//! The rules of the house, read off the source: floors, rooms of crates, words, sizes. Each check is shown to fail, too.
#![allow(clippy::unwrap_used)]

mod lex;

use lex::{declared, paths, tokens, without_tests, words};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the project, by its path from the project's folder.
struct Source {
    path: String,
    text: String,
}

/// What a check has to say against a file.
type Complaints = Vec<String>;

/// The rooms of `src` and their floors. A room imports only from floors below its own.
const FLOORS: [(&str, u8); 11] = [
    ("error", 0),
    ("record", 0),
    ("sys", 0),
    ("backend", 1),
    ("volume", 2),
    ("fs", 3),
    ("mount", 4),
    ("serve", 4),
    ("control", 4),
    ("actor", 5),
    ("cli", 6),
];

/// Crates and parts of the standard library that one room has to itself, as beginnings of paths.
const ROOMS: [(&str, &[&str]); 17] = [
    ("fuser", &["src/mount/"]),
    ("axum", &["src/serve/"]),
    ("hyper", &["src/serve/"]),
    ("hyper_util", &["src/serve/"]),
    ("reqwest", &["src/backend/apify/"]),
    ("rustls", &["src/backend/apify/"]),
    ("object_store", &["src/backend/objects.rs"]),
    ("rusqlite", &["src/volume/cached/"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("std::env", &["src/cli/", "src/actor/env.rs", "src/main.rs"]),
    ("std::io::stdin", &["src/cli/", "src/main.rs"]),
    ("std::io::stdout", &["src/cli/", "src/main.rs"]),
    ("std::io::stderr", &["src/cli/", "src/main.rs"]),
    ("io::stdin", &["src/cli/", "src/main.rs"]),
    ("io::stdout", &["src/cli/", "src/main.rs"]),
    ("io::stderr", &["src/cli/", "src/main.rs"]),
];

/// The most lines of a file. Most have far fewer.
const MAX_LINES: usize = 420;

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: [&str; 6] = ["manager", "handler", "util", "helper", "common", "item"];
/// Words of another field. One file speaks that language.
const FOREIGN_WORDS: [&str; 2] = ["object", "bucket"];
const FOREIGN_ROOM: &str = "src/backend/objects.rs";

const TOP_LEVEL: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    ".gitignore",
    ".ci",
    "README.md",
    "src",
    "tests",
    "scripts",
];

fn floor(room: &str) -> Option<u8> {
    let found = FLOORS.iter().find(|(name, _)| *name == room);
    found.map(|(_, floor)| *floor)
}

/// The room a file of `src` is in: `fs` for `src/fs/inode.rs`, `sys` for `src/sys.rs`.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    (room != "main" && room != "lib").then_some(room)
}

/// How many `super` lead from a file's module to the root of the crate.
fn depth(path: &str) -> usize {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.trim_end_matches("/mod").split('/').count()
}

/// The room of this crate that a path leads to, if it leads out of its own file's module tree.
fn imported<'p>(file: &str, path: &'p str) -> Option<&'p str> {
    if let Some(inside) = path.strip_prefix("crate::") {
        return inside.split("::").next();
    }
    let supers = path.split("::").take_while(|part| *part == "super").count();
    let reaches_root = supers > 0 && supers >= depth(file);
    let name = path.split("::").nth(supers)?;
    (reaches_root && floor(name).is_some()).then_some(name)
}

fn imports_go_down(source: &Source) -> Complaints {
    let Some(own) = room(&source.path) else {
        return Vec::new();
    };
    let Some(own_floor) = floor(own) else {
        return vec![format!("{}: the room {own} is on no floor", source.path)];
    };
    let paths = paths(&tokens(&source.text));
    let rooms = paths.iter().filter_map(|path| imported(&source.path, path));
    let bad = rooms.filter(|other| match floor(other) {
        // A test room, a macro or a type that `lib.rs` itself declares: there is none.
        None => true,
        Some(_) if *other == own => false,
        Some(0) if own_floor == 0 => *other != "error",
        Some(other_floor) => other_floor >= own_floor,
    });
    bad.map(|other| format!("{}: {own} imports {other}", source.path))
        .collect()
}

fn crates_stay_in_their_rooms(source: &Source) -> Complaints {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(&source.text));
    let mut complaints = Vec::new();
    for path in paths(&tokens) {
        for (start, rooms) in ROOMS {
            let inside = path.strip_prefix(start);
            let meant = inside.is_some_and(|rest| {
                rest.starts_with("::") || (rest.is_empty() && start.contains("::"))
            });
            if meant && !rooms.iter().any(|room| source.path.starts_with(room)) {
                complaints.push(format!("{}: {path} belongs to {rooms:?}", source.path));
            }
        }
    }
    let speaks = ["src/cli/", "src/main.rs"]
        .iter()
        .any(|room| source.path.starts_with(room));
    for pair in tokens.windows(2) {
        let prints = ["print", "println", "eprint", "eprintln", "dbg"].contains(&pair[0].as_str());
        if prints && pair[1] == "!" && !speaks {
            complaints.push(format!(
                "{}: {}! writes to the terminal",
                source.path, pair[0]
            ));
        }
    }
    complaints
}

fn unsafe_code_is_in_sys(source: &Source) -> Complaints {
    let found = source.path != "src/sys.rs" && tokens(&source.text).iter().any(|t| t == "unsafe");
    found
        .then(|| format!("{}: unsafe code", source.path))
        .into_iter()
        .collect()
}

fn words_know_no_async(source: &Source) -> Complaints {
    if !source.path.starts_with("src/record/") {
        return Vec::new();
    }
    let tokens = tokens(&source.text);
    let found = tokens.iter().filter(|token| {
        ["async", "await", "tokio", "rustix", "OpenOptions"].contains(&token.as_str())
    });
    found
        .map(|token| format!("{}: {token}", source.path))
        .collect()
}

fn files_are_short(source: &Source) -> Complaints {
    let lines = source.text.lines().count();
    (lines > MAX_LINES)
        .then(|| format!("{}: {lines} lines", source.path))
        .into_iter()
        .collect()
}

fn modules_say_what_they_are(source: &Source) -> Complaints {
    (!source.text.starts_with("//! "))
        .then(|| format!("{}: does not begin with //!", source.path))
        .into_iter()
        .collect()
}

fn nothing_is_left_to_do(source: &Source) -> Complaints {
    let tokens = tokens(&source.text);
    let found = tokens
        .windows(2)
        .filter(|pair| ["todo", "unimplemented"].contains(&pair[0].as_str()) && pair[1] == "!");
    found
        .map(|pair| format!("{}: {}!", source.path, pair[0]))
        .collect()
}

fn names_mean_something(source: &Source) -> Complaints {
    let tokens = tokens(&source.text);
    let mut names = declared(&tokens);
    // The one file that speaks the other language has to be declared by its name.
    names.retain(|name| source.path != "src/backend/mod.rs" || *name != "objects");
    names.extend(source.path.trim_end_matches(".rs").split('/'));
    let bad = |name: &&str| {
        words(name).iter().any(|word| {
            let foreign = FOREIGN_WORDS.contains(&word.as_str());
            EMPTY_WORDS.contains(&word.as_str()) || (foreign && source.path != FOREIGN_ROOM)
        })
    };
    let bad = names.into_iter().filter(bad);
    bad.map(|name| format!("{}: the name {name}", source.path))
        .collect()
}

/// Numbers of a tracker, and paths that exist on one machine only. `owner/project#12` cites somebody else's and is fine.
fn nothing_points_outside(source: &Source) -> Complaints {
    let machine = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("../sha", "red"),
    ];
    let mut complaints = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let lower = line.to_ascii_lowercase();
        let digit_after = |mark: &str| {
            lower.match_indices(mark).any(|(at, _)| {
                let before = lower[..at].chars().next_back();
                let after = lower[at + mark.len()..].chars().next();
                before.is_none_or(|c| c == ' ' || c == '(')
                    && after.is_some_and(|c| c.is_ascii_digit())
            })
        };
        let tracker = ["#", "issue ", "issue #"]
            .iter()
            .any(|mark| digit_after(mark));
        let path = machine.iter().find(|path| line.contains(**path));
        if tracker || path.is_some() {
            complaints.push(format!("{}:{number}: {}", source.path, line.trim()));
        }
    }
    complaints
}

fn top_level_is_known(path: &str) -> Complaints {
    let first = path.split('/').next().unwrap_or(path);
    let known = TOP_LEVEL.contains(&first) || (first.starts_with("LICENSE") && first == path);
    (!known)
        .then(|| format!("{first}: not an entry of the top level"))
        .into_iter()
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, but not what tools leave there.
fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if [".git", "target", "node_modules", "__pycache__"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        } else {
            let inside = path.strip_prefix(root()).unwrap();
            found.push(inside.to_string_lossy().into_owned());
        }
    }
}

fn read(path: String) -> Option<Source> {
    // Fixtures may hold bytes that are no text, or links that lead nowhere.
    let text = fs::read_to_string(root().join(&path)).ok()?;
    Some(Source { path, text })
}

/// The Rust of the project.
fn rust() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    walk(&root().join("tests"), &mut files);
    let rust = files.into_iter().filter(|path| path.ends_with(".rs"));
    rust.filter_map(read).collect()
}

/// What is kept under version control; without that, every file there is.
fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
    {
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        return names.split_terminator('\0').map(str::to_owned).collect();
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files
}

fn assert_clean(sources: &[Source], check: fn(&Source) -> Complaints) {
    assert!(!sources.is_empty());
    let complaints: Complaints = sources.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_import_goes_down_the_floors() {
    assert_clean(&rust(), imports_go_down);
}

#[test]
fn every_crate_stays_in_its_room() {
    assert_clean(&rust(), crates_stay_in_their_rooms);
}

#[test]
fn the_only_unsafe_code_is_in_sys() {
    assert_clean(&rust(), unsafe_code_is_in_sys);
}

#[test]
fn the_words_know_nothing_asynchronous() {
    assert_clean(&rust(), words_know_no_async);
}

#[test]
fn no_file_is_long() {
    assert_clean(&rust(), files_are_short);
}

#[test]
fn every_module_says_what_it_is() {
    assert_clean(&rust(), modules_say_what_they_are);
}

#[test]
fn nothing_is_a_stub() {
    assert_clean(&rust(), nothing_is_left_to_do);
}

#[test]
fn every_name_means_something() {
    assert_clean(&rust(), names_mean_something);
}

#[test]
fn no_file_points_outside_the_project() {
    let locked = |path: &String| path != "Cargo.lock";
    let sources: Vec<_> = tracked()
        .into_iter()
        .filter(locked)
        .filter_map(read)
        .collect();
    assert_clean(&sources, nothing_points_outside);
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    let complaints: Complaints = tracked()
        .iter()
        .flat_map(|path| top_level_is_known(path))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn the_map_names_every_room() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for source in rust() {
        if let Some(room) = room(&source.path) {
            assert!(
                map.contains(&format!("`{room}`")),
                "src/lib.rs does not name {room}"
            );
        }
    }
}

#[path = "lex/proof.rs"]
mod proof;
