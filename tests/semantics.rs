//! README.md against the program: every numbered sentence is named by a test, and the tour prints what it says.
//! Must never change the document.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{STOREFS, World, clean, mountinfo};

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(project().join("README.md")).unwrap()
}

/// The numbers that follow `S` in a text such as `S12, S13`.
fn ids(text: &str) -> impl Iterator<Item = u32> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| word.strip_prefix('S')?.parse().ok())
}

/// The ids that the document gives to its sentences: `**S12**`.
fn sentences() -> Vec<u32> {
    let text = readme();
    let pieces = text.split("**").filter(|piece| {
        piece.starts_with('S') && piece[1..].bytes().all(|byte| byte.is_ascii_digit())
    });
    pieces.flat_map(ids).collect()
}

/// The ids that tests name in comments `README: S12`, each with where, and the tests they stand above.
fn named() -> BTreeMap<u32, Vec<String>> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut folders = vec![project().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "fixtures" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                for (at, line) in lines.iter().enumerate() {
                    let Some(list) = line.trim().strip_prefix("// README: ") else {
                        continue;
                    };
                    let place = format!("{}:{}", path.display(), at + 1);
                    let next = lines.get(at + 1).map_or("", |line| line.trim());
                    assert_eq!(next, "#[test]", "{place}: the comment stands above no test");
                    for id in ids(list) {
                        found.entry(id).or_default().push(place.clone());
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_sentence_of_the_readme_is_named_by_a_test() {
    let sentences = sentences();
    let expected: Vec<u32> = (1..=u32::try_from(sentences.len()).unwrap()).collect();
    assert_eq!(sentences, expected, "the sentences are numbered in order");
    let named = named();
    let untested: Vec<u32> = expected
        .iter()
        .copied()
        .filter(|id| !named.contains_key(id))
        .collect();
    assert!(untested.is_empty(), "no test names S{untested:?}");
}

#[test]
fn every_sentence_that_a_test_names_is_in_the_readme() {
    let sentences: BTreeSet<u32> = sentences().into_iter().collect();
    let stray: Vec<(u32, Vec<String>)> = named()
        .into_iter()
        .filter(|(id, _)| !sentences.contains(id))
        .collect();
    assert!(stray.is_empty(), "not in README.md: {stray:?}");
    let referred: BTreeSet<u32> = ids(&readme()).collect();
    assert!(
        referred.is_subset(&sentences),
        "a reference leads nowhere: {:?}",
        referred.difference(&sentences)
    );
}

/// Detaches what the tour mounted, whatever happens.
struct Detached(PathBuf);

impl Drop for Detached {
    fn drop(&mut self) {
        if mountinfo(&self.0).is_some() {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
}

/// The lines of the tour: each command and what the document says it prints.
fn tour() -> Vec<(String, String)> {
    let text = readme();
    let (_, rest) = text.split_once("<!-- tour:begin -->").unwrap();
    let (tour, _) = rest.split_once("<!-- tour:end -->").unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in tour.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), String::new())),
                None => {
                    let (_, printed) = steps.last_mut().unwrap();
                    printed.push_str(line);
                    printed.push('\n');
                }
            }
        }
    }
    steps
}

#[test]
fn the_tour_prints_what_the_readme_says() {
    let steps = tour();
    assert!(steps.len() > 15, "the tour was not found");
    let world = World::new();
    let folder = world.root().join("demo");
    fs::create_dir(&folder).unwrap();
    let _mounted = Detached(folder.join("mnt"));
    let script: String = steps
        .iter()
        .map(|(command, _)| format!("{command}\nprintf '\\1'\n"))
        .collect();
    let path = std::env::var("PATH").unwrap();
    let programs = Path::new(STOREFS).parent().unwrap();
    let mut command = Command::new("bash");
    clean(&mut command)
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{complaints}");
    // The document's tour is in /tmp/demo.
    let here = folder.to_str().unwrap();
    let log = format!("{}-mnt.log", here.trim_matches('/').replace('/', "-"));
    let printed = printed
        .replace(&log, "tmp-demo-mnt.log")
        .replace(here, "/tmp/demo");
    for ((command, says), prints) in steps.iter().zip(printed.split('\u{1}')) {
        assert_eq!(prints, says, "$ {command}");
    }
    let _ = fs::remove_file(Path::new("/var/lib/storefs").join(log));
}
