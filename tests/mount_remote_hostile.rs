//! A mount of a server that lies: whoever asks for such a thing gets an error, the log says why, and neither memory nor disk fill
//! up. The parts of the backend are tested one by one in `remote_hostile`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

#[path = "remote/scripted.rs"]
mod scripted;
mod shop;
mod support;

use scripted::{Answer, Request, Scripted};
use shop::Shop;
use std::process::Command;
use support::{Mount, said};

/// The stores, by what is wrong with each.
const STORES: [&str; 8] = [
    "slash", "nul", "circle", "flood", "bomb", "short", "away", "endless",
];

/// An id of 17 characters.
fn id(store: &str) -> String {
    format!("{store:x<17}")
}

fn store(name: &str) -> String {
    format!(
        r#"{{"id":"{}","name":"{name}","userId":"mE3dE5gH7jK9mN1pQ"}}"#,
        id(name)
    )
}

fn page(keys: &[&str], next: Option<&str>) -> Answer {
    let lines: Vec<_> = keys
        .iter()
        .map(|key| serde_json::json!({ "key": key, "size": 10, "etag": "v1" }))
        .collect();
    let data = serde_json::json!({
        "items": lines, "isTruncated": next.is_some(), "nextExclusiveStartKey": next, "limit": 1000, "count": lines.len()
    });
    Answer::json(200, serde_json::json!({ "data": data }).to_string())
}

/// A little gzip that becomes very long.
fn bomb() -> Vec<u8> {
    let packed = Command::new("bash")
        .args(["-c", "head -c 300000000 /dev/zero | gzip -1 -c"])
        .output();
    packed.unwrap().stdout
}

fn answer(request: &Request, bomb: &[u8]) -> Answer {
    let path = request.path.split('?').next().unwrap();
    let Some(rest) = path.strip_prefix("/v2/key-value-stores") else {
        return Answer::status(404);
    };
    let mut parts = rest.trim_start_matches('/').split('/');
    let named = parts.next().unwrap_or_default().trim_start_matches('~');
    if named.is_empty() {
        let all: Vec<_> = STORES.iter().map(|name| store(name)).collect();
        let all = format!(
            r#"{{"data":{{"total":{},"count":{0},"offset":0,"items":[{}]}}}}"#,
            all.len(),
            all.join(",")
        );
        return Answer::json(200, all);
    }
    let Some(name) = STORES
        .iter()
        .find(|name| named == **name || named == id(name))
    else {
        return Answer::status(404);
    };
    match (parts.next(), *name) {
        (None, _) => Answer::json(200, format!(r#"{{"data":{}}}"#, store(name))),
        (Some("keys"), "slash") => page(&["../../../etc/passwd"], None),
        (Some("keys"), "nul") => page(&["a\0b"], None),
        (Some("keys"), "circle") => page(&["a"], Some("a")),
        (Some("keys"), "flood") => Answer::Endless(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"data\":{\"items\":["
                .to_vec(),
            br#"{"key":"a","size":1},"#.repeat(1000),
        ),
        (Some("keys"), "bomb") => Answer::Full(200, Vec::new(), bomb.to_vec())
            .with("content-type", "application/json")
            .with("content-encoding", "gzip"),
        (Some("keys"), _) => page(&["k"], None),
        (Some("records"), "short") if request.method == "GET" => Answer::Raw(
            b"HTTP/1.1 200 OK\r\netag: \"v1\"\r\ncontent-length: 10\r\n\r\nfive!".to_vec(),
        ),
        (Some("records"), "away") => {
            Answer::Full(302, Vec::new(), Vec::new()).with("location", "file:///etc/passwd")
        }
        (Some("records"), "endless") if request.method == "GET" => Answer::Endless(
            b"HTTP/1.1 200 OK\r\netag: \"v1\"\r\n\r\n".to_vec(),
            vec![b'x'; 64 << 10],
        ),
        (Some("records"), _) => Answer::record(b"0123456789").with("etag", "\"v1\""),
        _ => Answer::status(404),
    }
}

fn peak_of(mount: &Mount) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn a_server_that_lies_gives_errors_and_fills_neither_memory_nor_disk() {
    let bomb = bomb();
    let server = Scripted::new(move |request| answer(request, &bomb));
    let mut shop = Shop::open();
    shop.front = Some(format!("http://{}", server.address));
    let mount = shop.mount_with("mnt", "default=short");
    let end = |program: &str, path: &str| {
        let mut command = Command::new("timeout");
        let said = said(
            command
                .args(["-s", "KILL", "120", program])
                .arg(mount.path(path)),
        );
        assert_ne!(said.code, Some(0), "{program} {path}: {said:?}");
        assert_ne!(said.code, Some(137), "{program} {path} never ended");
        assert_eq!(said.out, "", "{program} {path}");
    };
    for name in ["slash", "nul", "circle", "flood", "bomb"] {
        end("ls", name);
    }
    for name in ["short", "away", "endless"] {
        assert_eq!(mount.sh(&format!("ls $MNT/{name}")), "k\n");
        end("md5sum", &format!("{name}/k"));
    }
    assert!(
        mount.log().contains("ERROR") || mount.log().contains("WARN"),
        "{}",
        mount.log()
    );
    assert!(!mount.log().contains(&shop.token));
    let peak = peak_of(&mount);
    assert!(peak < 400 << 20, "{peak} bytes of memory");
    let kept = mount.sh("du -sm cache-mnt | cut -f1");
    assert!(
        kept.trim().parse::<u64>().unwrap() < 100,
        "{kept} MB of disk"
    );
    // It still does what a mount does.
    assert_eq!(mount.sh("ls -d $MNT/short | wc -l"), "1\n");
    mount.unmount();
}
