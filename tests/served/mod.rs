//! Runs on a shop's server, and what is left of them on this machine. It never looks at the records there.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use crate::runs::{self, Running, mount_of};
use crate::shop::Shop;
use crate::support::{mountinfo, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

/// What a script asks the server with: `api GET /records/KEY` for the run's store.
pub const API: &str = r#"
    api() { curl -sf -H "Authorization: Bearer $APIFY_TOKEN" -X "$1" "${@:3}" \
        "$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID$2"; }
    D="${ACTOR_MOUNT-}/default"
"#;

/// A run on the shop's server with these options. What is kept on this machine is in the world.
pub fn start(shop: &Shop, options: &[&str], mount: &str, command: &[&str]) -> Running {
    let cache = format!("cache={},{mount}", cache(shop).display());
    let url = shop.url();
    let arguments = [&["-o", &cache], options, &[&url, "--"], command].concat();
    let mut command = runs::command(&shop.world, &arguments);
    command.env("APIFY_TOKEN", &shop.token);
    Running::of(&mut command, Stdio::null())
}

pub fn bash(script: &str) -> [&str; 5] {
    ["bash", "-euo", "pipefail", "-c", script]
}

/// Runs a script to its end, which has to be a good one. What it printed.
#[track_caller]
pub fn script(shop: &Shop, options: &[&str], text: &str) -> String {
    let text = format!("{API}{text}");
    let said = start(shop, options, "", &bash(&text)).ended();
    let errors = fs::read_to_string(shop.world.root().join("errors")).unwrap_or_default();
    assert_eq!(said.code, Some(0), "{text}\n{said:#?}\n{errors}");
    said.out
}

pub fn cache(shop: &Shop) -> PathBuf {
    shop.world.root().join("kept")
}

/// The runs that this machine knows of, the oldest first.
pub fn kept(shop: &Shop) -> Vec<Value> {
    let entries = fs::read_dir(cache(shop).join("runs"));
    let mut runs: Vec<Value> = entries
        .into_iter()
        .flatten()
        .map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    runs.sort_by_key(|run| run["started"].as_str().unwrap().to_owned());
    runs
}

pub fn last(shop: &Shop) -> (String, String) {
    let run = kept(shop).pop().unwrap();
    let text = |name: &str| run[name].as_str().unwrap().to_owned();
    (text("id"), text("store"))
}

/// The runs that have left something unsent.
pub fn unsent(shop: &Shop) -> usize {
    let entries = fs::read_dir(cache(shop).join("unsent"));
    entries.map_or(0, Iterator::count)
}

/// Asserts that nothing of the last run is mounted or waits to be sent.
#[track_caller]
pub fn nothing_is_left(shop: &Shop) {
    let mount = mount_of(&last(shop).0);
    wait_until("the mount goes", || mountinfo(&mount).is_none());
    wait_until("its folder goes", || !mount.parent().unwrap().exists());
    assert_eq!(unsent(shop), 0);
    let caches = fs::read_dir(cache(shop).join("cache/of-runs"));
    assert_eq!(caches.map_or(0, Iterator::count), 0);
}
