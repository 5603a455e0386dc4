//! Runs whose stores are on a server: one store for the command's files, the SDKs and the API there.
#![allow(clippy::unwrap_used)]

mod runs;
mod sdk;
mod shop;
mod support;

use runs::{Running, mount_of, prelude};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};
use shop::Shop;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use support::{Said, as_nobody, mountinfo, said, wait_until};

/// What a script asks the server with: `api GET /records/KEY` for the run's store.
const API: &str = r#"
    api() { curl -sf -H "Authorization: Bearer $APIFY_TOKEN" -X "$1" "${@:3}" \
        "$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID$2"; }
    D="${ACTOR_MOUNT-}/default"
"#;

/// A run on the shop's server with these options. What is kept on this machine is in the world.
fn start(shop: &Shop, options: &[&str], mount: &str, command: &[&str]) -> Running {
    let cache = format!("cache={},{mount}", cache(shop).display());
    let url = shop.url();
    let arguments = [&["-o", &cache], options, &[&url, "--"], command].concat();
    let mut command = runs::command(&shop.world, &arguments);
    command.env("APIFY_TOKEN", &shop.token);
    Running::of(&mut command, std::process::Stdio::null())
}

fn bash<'s>(script: &'s str) -> [&'s str; 5] {
    ["bash", "-euo", "pipefail", "-c", script]
}

/// Runs a script to its end, which has to be a good one. What it printed.
#[track_caller]
fn script(shop: &Shop, options: &[&str], text: &str) -> String {
    let text = format!("{API}{text}");
    let said = start(shop, options, "", &bash(&text)).ended();
    let errors = fs::read_to_string(shop.world.root().join("errors")).unwrap_or_default();
    assert_eq!(said.code, Some(0), "{text}\n{said:#?}\n{errors}");
    said.out
}

fn cache(shop: &Shop) -> PathBuf {
    shop.world.root().join("kept")
}

/// The runs that this machine knows of, the oldest first.
fn kept(shop: &Shop) -> Vec<Value> {
    let entries = fs::read_dir(cache(shop).join("runs"));
    let mut runs: Vec<Value> = entries
        .into_iter()
        .flatten()
        .map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    runs.sort_by_key(|run| run["started"].as_str().unwrap().to_owned());
    runs
}

fn last(shop: &Shop) -> (String, String) {
    let run = kept(shop).pop().unwrap();
    let text = |name: &str| run[name].as_str().unwrap().to_owned();
    (text("id"), text("store"))
}

/// The runs that have left something unsent.
fn unsent(shop: &Shop) -> usize {
    let entries = fs::read_dir(cache(shop).join("unsent"));
    entries.map_or(0, Iterator::count)
}

/// Asserts that nothing of the last run is mounted or waits to be sent.
#[track_caller]
fn nothing_is_left(shop: &Shop) {
    let mount = mount_of(&last(shop).0);
    wait_until("the mount goes", || mountinfo(&mount).is_none());
    wait_until("its folder goes", || !mount.parent().unwrap().exists());
    assert_eq!(unsent(shop), 0);
    let caches = fs::read_dir(cache(shop).join("cache/of-runs"));
    assert_eq!(caches.map_or(0, Iterator::count), 0);
}

// README: S122, S125
#[test]
fn shell_sdks_and_the_api_of_the_server_have_one_store() {
    let shop = Shop::open();
    let printed = script(
        &shop,
        &["--input", r#"{"url":"https://example.com"}"#],
        &(prelude(&sdk::tools())
            + r#"
        export APIFY_TOKEN
        jq -c . "$D/INPUT"; type_of "$D/INPUT"
        js '{"op":"input"}' | jq -c .ok.json
        py '{"op":"input"}' | jq -c .ok.json
        actor get-input | jq -c .
        api GET /records/INPUT
        echo
        printf 'GIF89a\x01\x00' >"$D/cat.gif"
        js '{"op":"get","key":"cat.gif"}' '{"op":"set","key":"OUTPUT","json":{"by":"js"}}' | jq -c '.ok.type // .'
        until [ -e "$D/OUTPUT" ]; do sleep 0.01; done
        jq -c . "$D/OUTPUT"; type_of "$D/OUTPUT"
        echo '{"by":"sh"}' >"$D/OUTPUT"
        py '{"op":"get","key":"OUTPUT"}' '{"op":"set","key":"a","json":1}' '{"op":"delete","key":"cat.gif"}' | jq -c '.ok.value.json // .'
        until [ -e "$D/a" ] && [ ! -e "$D/cat.gif" ]; do sleep 0.01; done
        js '{"op":"set","key":"a","json":null}' >/dev/null
        until [ ! -e "$D/a" ]; do sleep 0.01; done
        ls "$D"
        "#),
    );
    let input = r#"{"url":"https://example.com"}"#;
    let json_type = "application/json; charset=utf-8";
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            input,
            json_type,
            input,
            input,
            input,
            input,
            "\"image/gif\"",
            r#"{"ok":null}"#,
            r#"{"by":"js"}"#,
            json_type,
            r#"{"by":"sh"}"#,
            r#"{"ok":null}"#,
            r#"{"ok":null}"#,
            "INPUT",
            "OUTPUT",
        ],
        "{printed}"
    );
    nothing_is_left(&shop);
    let (_, store) = last(&shop);
    assert_eq!(
        shop.behind(&store, "OUTPUT.json").unwrap(),
        b"{\"by\":\"sh\"}\n"
    );
}

// README: S5
#[test]
fn a_store_of_the_server_that_is_really_called_default_is_hidden_and_left_alone() {
    let shop = Shop::open();
    fs::write(shop.world.source("default/MINE.txt"), "mine").unwrap();
    let printed = script(
        &shop,
        &["--input", "1"],
        r#"
        ls "$ACTOR_MOUNT"; ls "$D"; echo 2 >"$D/OUTPUT"; ls "$D"
        A="Authorization: Bearer $APIFY_TOKEN"; V="$APIFY_API_BASE_URL/v2/key-value-stores"
        id=$(curl -sf -H "$A" "$V/~default" | jq -r .data.id)
        ! ls "$ACTOR_MOUNT/$id" 2>/dev/null
        curl -sf -H "$A" "$V/~default/keys" | jq -c '[.data.items[].key]'
        "#,
    );
    assert_eq!(printed, "default\nINPUT\nINPUT\nOUTPUT\n[\"MINE\"]\n");
    nothing_is_left(&shop);
}

// README: S123
#[test]
fn what_a_file_has_when_it_is_closed_the_server_has() {
    let shop = Shop::open();
    let printed = script(
        &shop,
        &[],
        r#"
        for i in $(seq 30); do
            echo "first $i" >"$D/k$i"; [ "$(api GET "/records/k$i")" = "first $i" ]
            echo "$i" >>"$D/k$i"; [ "$(api GET "/records/k$i" | tail -n 1)" = "$i" ]
        done
        sed -i s/first/last/ "$D/k1"; api GET /records/k1 | head -n 1
        api PUT /records/note -H 'Content-Type: text/csv' --data a,b >/dev/null
        until [ "$(cat "$D/note" 2>/dev/null)" = a,b ]; do sleep 0.01; done
        api PUT /records/note -H 'Content-Type: text/csv' --data c,d >/dev/null
        until [ "$(cat "$D/note")" = c,d ]; do sleep 0.01; done
        getfattr --only-values --absolute-names -n user.mime_type "$D/note"; echo
        rm "$D/note"; storefs sync "$ACTOR_MOUNT"; ! api GET /records/note
        "#,
    );
    assert_eq!(printed, "last 1\ntext/csv\n");
    nothing_is_left(&shop);
}

// README: S122
#[test]
fn two_runs_at_once_and_a_mount_write_to_one_named_store_without_loss() {
    let shop = Shop::open();
    let mount = shop.mount("mnt");
    let body = |name: &str| {
        format!(
            r#"{API}
            [ "$(readlink "$D")" = shared ]
            echo ready; while [ ! -e go ]; do sleep 0.01; done
            for i in $(seq 40); do
                echo "$i" >"$D/{name}-file-$i"
                [ $((i % 4)) != 0 ] || api PUT "/records/{name}-api-$i" -H 'Content-Type: text/plain' --data "$i" >/dev/null
            done
            "#
        )
    };
    let named = ["--store", "shared"];
    let (one, two) = (body("one"), body("two"));
    let mut first = start(&shop, &named, "", &bash(&one));
    let mut second = start(&shop, &named, "", &bash(&two));
    first.until_out("ready");
    second.until_out("ready");
    fs::write(shop.world.root().join("go"), "").unwrap();
    for run in [first, second] {
        let said = run.ended();
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.err.contains("in store shared at http"), "{said:?}");
    }
    let mut expected = BTreeSet::new();
    for name in ["one", "two"] {
        for number in 1..=40 {
            expected.insert(format!("{name}-file-{number}"));
            if number % 4 == 0 {
                expected.insert(format!("{name}-api-{number}"));
            }
        }
    }
    mount.sync();
    let found = mount.sh("ls $MNT/shared");
    let found: BTreeSet<String> = found.lines().map(str::to_owned).collect();
    assert_eq!(found, expected);
    let ids: BTreeSet<String> = kept(&shop).iter().map(|run| run["store"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one store");
    mount.unmount();
    nothing_is_left(&shop);
}

// README: S122
#[test]
fn it_metamorphs_there_too() {
    let shop = Shop::open();
    let show = r#"echo "$ACTOR_INPUT_KEY $(api GET "/records/$ACTOR_INPUT_KEY") $(cat "$D/INPUT") $(readlink "$D/INPUT") $(cat "$D/../.storefs/INPUT")""#;
    let third = format!("{API}{show}; echo {{}} >\"$D/OUTPUT\"");
    let second = format!("{API}{show}; exec storefs metamorph --input 2 -- bash -euc \"$THIRD\"");
    let said = start(
        &shop,
        &[
            "--input",
            "0",
            "--env",
            &format!("THIRD={third}"),
            "--env",
            &format!("SECOND={second}"),
        ],
        "",
        &bash(
            r#"cat "$ACTOR_MOUNT/default/INPUT"; ls "$ACTOR_MOUNT/default"; storefs metamorph --input 1 -- bash -euc "$SECOND"; echo never"#,
        ),
    )
    .ended();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        said.out,
        "0INPUT\n\
         INPUT-METAMORPH-1 1 1 INPUT-METAMORPH-1 0\n\
         INPUT-METAMORPH-2 2 2 INPUT-METAMORPH-2 0\n"
    );
    let (_, store) = last(&shop);
    assert!(shop.behind(&store, "OUTPUT.json").is_some());
    nothing_is_left(&shop);
}

// README: S122, S125
#[test]
fn the_output_the_run_and_the_exit_code_are_told() {
    let shop = Shop::open();
    let store = |key: &str| format!("{API}echo '{{\"n\":7}}' >\"$D/{key}\"; echo aside; exit 6");
    let said = start(&shop, &["--output"], "", &bash(&store("OUTPUT"))).ended();
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(6), "{\"n\":7}\n"),
        "{said:?}"
    );
    let (id, name) = last(&shop);
    let url = format!("{}/v2/key-value-stores/{name}/records/OUTPUT", shop.url());
    let line = format!("run {id} in store {name} at {}: FAILED", shop.url());
    assert!(said.err.contains(&line), "{said:?}");
    assert!(said.err.contains("exit code 6, 1 record written"), "{said:?}");
    assert!(said.err.ends_with(&format!("OUTPUT is {url}\n")), "{said:?}");
    let said = start(
        &shop,
        &["--json", "--no-mount", "--input", "1"],
        "",
        &bash(&format!(
            r#"{API}[ -z "${{ACTOR_MOUNT-}}" ]; [ "$(api GET /records/INPUT)" = 1 ]"#
        )),
    )
    .ended();
    assert_eq!(said.code, Some(0), "{said:?}");
    let run: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(run["status"], "SUCCEEDED");
    assert_eq!(run["id"], json!(last(&shop).0));
    assert_eq!(run["defaultKeyValueStoreId"], json!(last(&shop).1));
    let said = start(&shop, &["--timeout", "500ms"], "", &bash("sleep 600")).ended();
    assert_eq!(said.code, Some(124), "{said:?}");
    assert_eq!(kept(&shop).pop().unwrap()["status"], "TIMED-OUT");
    nothing_is_left(&shop);
}

/// What a run tells that could not send everything.
#[track_caller]
fn tells_what_is_unsent(said: &Said, shop: &Shop, count: usize) {
    assert_eq!(said.code, Some(3), "{said:?}");
    let told = format!("storefs: send to {}: {count} not sent yet", shop.url());
    assert!(
        said.err.contains(&told) && said.err.contains("next run or mount"),
        "{said:?}"
    );
    assert_eq!(unsent(shop), 1);
}

// README: S124
#[test]
fn what_could_not_be_sent_stays_and_the_next_run_or_mount_sends_it() {
    let mut shop = Shop::open();
    let later = "write=back,debounce=10m,drain=1s";
    let wait = format!(
        r#"{API}
        for i in $(seq 9); do echo "$i" >"$D/k$i"; done; echo '{{}}' >"$D/OUTPUT"
        echo ready; until [ -e go-$1 ]; do sleep 0.01; done"#
    );
    for round in ["run", "mount"] {
        let command = [&bash(&wait)[..], &["-", round]].concat();
        let running = start(&shop, &["--output"], later, &command);
        wait_until("it has written", || running.err().contains("ready"));
        shop.close();
        fs::write(shop.world.root().join(format!("go-{round}")), "").unwrap();
        let said = running.ended();
        tells_what_is_unsent(&said, &shop, 10);
        assert_eq!(said.out, "", "an OUTPUT that was not sent is not printed");
        assert_eq!(mountinfo(&mount_of(&last(&shop).0)), None);
        let (_, store) = last(&shop);
        shop.start();
        assert_eq!(shop.behind(&store, "k9.json"), None);
        match round {
            "run" => {
                script(&shop, &[], "true");
            }
            _ => {
                let path = shop.world.root().join("mnt");
                let mut command = shop.world.storefs(&[
                    "mount",
                    "--foreground",
                    "-o",
                    &format!("cache={}", cache(&shop).display()),
                    &shop.url(),
                    "mnt",
                ]);
                command.env("APIFY_TOKEN", &shop.token);
                let mount = support::Mount::start(command, &path, &shop.world.storage());
                mount.sync();
                mount.unmount();
            }
        }
        for number in 1..=9 {
            let sent = shop.behind(&store, &format!("k{number}.json")).unwrap();
            assert_eq!(sent, format!("{number}\n").as_bytes());
        }
        assert_eq!(shop.behind(&store, "OUTPUT.json").unwrap(), b"{}\n");
        assert_eq!(unsent(&shop), 0);
    }
}

// README: S123, S124
#[test]
fn a_close_fails_without_the_server_and_what_was_written_is_sent_later() {
    let mut shop = Shop::open();
    let body = r#"
import os, sys, time
f = os.open(os.environ["ACTOR_MOUNT"] + "/default/late", os.O_WRONLY | os.O_CREAT)
os.write(f, b"text")
print("ready", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
try:
    os.close(f)
except OSError as why:
    print(why.errno, flush=True)
"#;
    let mut running = start(&shop, &[], "drain=10m", &["python3", "-c", body]);
    running.until_out("ready");
    shop.close();
    fs::write(shop.world.root().join("go"), "").unwrap();
    running.until_out(&Errno::NETUNREACH.raw_os_error().to_string());
    // It would wait long for the server to come back, but for somebody who does not.
    wait_until("the command has ended", || {
        mountinfo(&mount_of(&last(&shop).0)).is_none()
    });
    running.signal(Signal::TERM);
    let said = running.ended();
    tells_what_is_unsent(&said, &shop, 1);
    let (_, store) = last(&shop);
    shop.start();
    script(&shop, &[], "true");
    assert_eq!(shop.behind(&store, "late.txt").unwrap(), b"text");
    nothing_is_left(&shop);
}

// README: S124
#[test]
fn a_run_that_is_killed_leaves_nothing_mounted_and_the_next_one_sends_what_it_wrote() {
    let shop = Shop::open();
    let body = format!(r#"{API}for i in $(seq 20); do echo "$i" >"$D/k$i"; done; echo ready; sleep 600"#);
    let mut running = start(&shop, &[], "write=back,debounce=10m", &bash(&body));
    running.until_out("ready");
    let (id, store) = last(&shop);
    running.signal(Signal::KILL);
    let said = running.ended();
    assert_eq!(said.code, None, "{said:?}");
    wait_until("its end is known", || {
        kept(&shop).pop().unwrap()["status"] == "FAILED"
    });
    wait_until("the mount goes", || mountinfo(&mount_of(&id)).is_none());
    assert_eq!(shop.behind(&store, "k1.json"), None);
    script(&shop, &[], "true");
    for number in 1..=20 {
        let sent = shop.behind(&store, &format!("k{number}.json")).unwrap();
        assert_eq!(sent, format!("{number}\n").as_bytes());
    }
    nothing_is_left(&shop);
}

// README: S122, S125
#[test]
fn a_user_without_rights_runs_on_a_server_too() {
    let shop = Shop::open();
    let (url, token) = (shop.url(), &shop.token);
    let shown = as_nobody(
        &shop.world,
        &format!(
            r#"
        export APIFY_TOKEN={token}
        storefs run --input '{{"a":1}}' --output {url} -- bash -euo pipefail -c '
            grep -c " $ACTOR_MOUNT fuse.storefs" /proc/mounts
            cp "$ACTOR_MOUNT/default/INPUT" "$ACTOR_MOUNT/default/OUTPUT"' 2>said
        echo; head -n 1 said
        ! grep " $XDG_RUNTIME_DIR/.* fuse.storefs " /proc/mounts
        ls "$XDG_STATE_HOME"/storefs/*/runs | wc -l
        ls -A "$XDG_STATE_HOME"/storefs/*/unsent "$XDG_RUNTIME_DIR/storefs/runs"
        "#
        ),
    );
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("{\"a\":1}"), "{shown}");
    assert_eq!(lines.next(), Some("1"), "{shown}");
    assert_eq!(lines.next(), Some("1"), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.ends_with(".json")).count(), 0);
}

// README: S122
#[test]
fn what_cannot_be_is_refused_before_the_command_starts() {
    let mut shop = Shop::open();
    let refused = |shop: &Shop, arguments: &[&str], token: &str, code: i32, why: &str| {
        let url = shop.url();
        let cache = format!("cache={}", cache(shop).display());
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|argument| match *argument {
                "URL" => url.as_str(),
                "CACHE" => cache.as_str(),
                other => other,
            })
            .collect();
        let all = [&arguments[..], &["--", "touch", "started"]].concat();
        let said = said(runs::command(&shop.world, &all).env("APIFY_TOKEN", token));
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
        assert!(!shop.world.root().join("started").exists());
        assert!(!said.err.contains("s3cr3t"), "{said:?}");
    };
    let token = shop.token.clone();
    refused(&shop, &["-o", "CACHE", "URL"], "s3cr3t", 1, "token");
    refused(&shop, &["-o", "ro", "URL"], &token, 2, "a run decides");
    refused(&shop, &["-o", "ttl=1s", "storage"], &token, 2, "on a server");
    refused(&shop, &["-o", "CACHE", "--input", "{", "URL"], &token, 2, "no JSON");
    assert!(kept(&shop).is_empty());
    script(&shop, &[], "true");
    shop.close();
    refused(&shop, &["-o", "CACHE", "URL"], &token, 1, "cannot be reached");
    assert_eq!((kept(&shop).len(), unsent(&shop)), (1, 0));
}
