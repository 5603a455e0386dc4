//! Runs whose stores are on a server: one store for the command's files, the SDKs and the API there.
#![allow(clippy::unwrap_used)]

mod runs;
mod sdk;
mod served;
mod shop;
mod support;

use runs::prelude;
use serde_json::{Value, json};
use served::{API, bash, cache, kept, last, nothing_is_left, script, start};
use shop::Shop;
use std::collections::BTreeSet;
use std::fs;
use support::{as_nobody, said};

// README: S128, S131
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

// README: S128
#[test]
fn long_values_every_legal_character_and_null_pass() {
    let shop = Shop::open();
    let key = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!-_.'()";
    fs::write(shop.world.root().join("key"), key).unwrap();
    let printed = script(
        &shop,
        &["--mount", "m"],
        &(prelude(&sdk::tools())
            + r#"
        [ "$ACTOR_MOUNT" = "$PWD/m" ]; key=$(cat key)
        request() { jq -nc --arg key "$key" "$1"; }
        js "$(request '{op: "set", key: $key, json: {by: "js"}}')" >/dev/null
        until [ -e "$D/$key" ]; do sleep 0.01; done
        jq -r .by "$D/$key"; echo '{"by":"sh"}' >"$D/$key"
        py "$(request '{op: "get", key: $key}')" | jq -r .ok.value.json.by
        js "$(request '{op: "set", key: $key, json: null}')" >/dev/null
        until [ ! -e "$D/$key" ]; do sleep 0.01; done
        head -c 50000000 /dev/urandom >long; cp long "$D/long"
        api GET /records/long | cmp - long
        api PUT /records/back -T long -H 'Content-Type: application/x-long' >/dev/null
        until [ -e "$D/back" ]; do sleep 0.01; done
        cmp "$D/back" long; ls "$D"
        "#),
    );
    assert_eq!(printed, "js\nsh\nback\nlong\n");
    assert!(!shop.world.root().join("m").exists());
    nothing_is_left(&shop);
}

// README: S128
#[test]
fn the_platforms_own_name_means_the_server_of_the_environment_and_the_token_may_be_in_a_file() {
    let shop = Shop::open();
    fs::write(shop.world.root().join("token"), &shop.token).unwrap();
    shop.world.sh("chmod 600 token");
    let options = format!("cache={},token-file=token", cache(&shop).display());
    let body = r#"echo "$APIFY_TOKEN" >$ACTOR_MOUNT/default/OUTPUT"#;
    let arguments = [
        "-o", &options, "--input", "1", "apify:", "--", "bash", "-c", body,
    ];
    let mut command = runs::command(&shop.world, &arguments);
    let said = said(command.env("APIFY_API_BASE_URL", shop.url()));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.err.contains(&shop.token), "{said:?}");
    let (_, store) = last(&shop);
    assert_eq!(shop.behind(&store, "INPUT.json").unwrap(), b"1");
    let token = format!("{}\n", shop.token);
    assert_eq!(shop.behind(&store, "OUTPUT.txt").unwrap(), token.as_bytes());
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

// README: S129
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

// README: S128
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
    let ids: BTreeSet<String> = kept(&shop)
        .iter()
        .map(|run| run["store"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "one store");
    mount.unmount();
    nothing_is_left(&shop);
}

// README: S128
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

// README: S131
#[test]
fn only_what_a_run_wrote_into_a_store_that_was_there_is_counted() {
    let shop = Shop::open();
    let first = r#"for n in 1 2 3; do echo $n >"$ACTOR_MOUNT/default/old-$n"; done"#;
    let said = start(&shop, &["--store", "shared"], "", &bash(first)).ended();
    assert!(said.err.contains("3 records written"), "{said:?}");
    // At once, although a server tells whole seconds.
    let next = r#"echo x >"$ACTOR_MOUNT/default/new""#;
    let said = start(&shop, &["--store", "shared"], "", &bash(next)).ended();
    assert!(said.err.contains(" 1 record written"), "{said:?}");
    let again = r#"echo other >"$ACTOR_MOUNT/default/old-1"; echo y >"$ACTOR_MOUNT/default/new""#;
    let said = start(&shop, &["--store", "shared"], "", &bash(again)).ended();
    assert!(said.err.contains(" 2 records written"), "{said:?}");
}

// README: S128, S131
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
    assert!(
        said.err.contains("exit code 6, 1 record written"),
        "{said:?}"
    );
    assert!(
        said.err.ends_with(&format!("OUTPUT is {url}\n")),
        "{said:?}"
    );
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
    // As the command was told.
    assert_eq!(run["defaultDatasetId"], run["id"]);
    assert_eq!(run["defaultRequestQueueId"], run["id"]);
    let said = start(&shop, &["--timeout", "500ms"], "", &bash("sleep 600")).ended();
    assert_eq!(said.code, Some(124), "{said:?}");
    assert_eq!(kept(&shop).pop().unwrap()["status"], "TIMED-OUT");
    nothing_is_left(&shop);
}

// README: S128, S131
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
    assert_eq!(
        shown.lines().filter(|line| line.ends_with(".json")).count(),
        0
    );
}
