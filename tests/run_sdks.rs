//! The real SDKs, the command line client and the shell in one run: each sees what the others have stored.
#![allow(clippy::unwrap_used)]

mod runs;
mod sdk;
mod support;

use runs::{attempt, prelude, store_of_last};
use serde_json::{Value, json};
use std::fs;
use support::World;

#[track_caller]
fn script(world: &World, options: &[&str], script: &str) -> String {
    let said = attempt(world, options, &(prelude(&sdk::tools()) + script));
    let errors = fs::read_to_string(world.root().join("errors")).unwrap_or_default();
    assert_eq!(said.code, Some(0), "{script}\n{said:#?}\n{errors}");
    said.out
}

/// The answers, one in each line.
#[track_caller]
fn answers(printed: &str) -> Vec<Value> {
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no answer: {printed}")))
        .collect()
}

// README: S93
#[test]
fn the_same_input_is_seen_by_all() {
    let world = World::new();
    let printed = script(
        &world,
        &["--input", r#"{"url":"https://example.com","ž":[1,null]}"#],
        r#"
        jq -c . "$ACTOR_MOUNT/default/INPUT"
        js '{"op":"input"}' | jq -c .ok.json
        py '{"op":"input"}' | jq -c .ok.json
        actor get-input | jq -c .
        actor get-value INPUT | jq -c .
        "#,
    );
    let expected = json!({"url": "https://example.com", "ž": [1, null]});
    assert_eq!(answers(&printed), vec![expected; 5]);
}

#[test]
fn the_command_line_client_can_be_the_command() {
    let world = World::new();
    let actor = sdk::tools().join("cli/node_modules/.bin/actor");
    let run = |options: &[&str], asked: &[&str]| {
        let command = ["--", "node", actor.to_str().unwrap()];
        let arguments = [&["--store", "one"], options, &command, asked].concat();
        let mut command = runs::command(&world, &arguments);
        let home = world.root();
        command.env("HOME", home).env("APIFY_DISABLE_KEYRING", "1");
        command
            .env("APIFY_CLI_DISABLE_TELEMETRY", "1")
            .env("CI", "1");
        let said = support::said(&mut command);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out
    };
    let input = run(&["--input", r#"{"a":[1]}"#], &["get-input"]);
    assert_eq!(
        serde_json::from_str::<Value>(&input).unwrap(),
        json!({"a": [1]})
    );
    run(&[], &["set-value", "OUTPUT", r#"{"b":2}"#]);
    let file = world.source("one/OUTPUT.json");
    let stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored, json!({"b": 2}));
    let output = run(&[], &["get-value", "OUTPUT"]);
    assert_eq!(
        serde_json::from_str::<Value>(&output).unwrap(),
        json!({"b": 2})
    );
    run(&[], &["set-value", "OUTPUT", "null"]);
    assert!(!file.exists());
}

// README: S96
#[test]
fn outputs_and_pictures_cross_between_them_with_their_types() {
    let world = World::new();
    let printed = script(
        &world,
        &[],
        r#"
        D="$ACTOR_MOUNT/default"
        js '{"op":"set","key":"OUTPUT","json":{"by":"js"}}' '{"op":"set","key":"picture","hex":"89504e470d0a1a0a00ff","type":"image/png"}'
        jq -r .by "$D/OUTPUT"; type_of "$D/OUTPUT"; type_of "$D/picture"; od -An -tx1 "$D/picture" | tr -d " "
        py '{"op":"get","key":"picture"}' '{"op":"set","key":"OUTPUT","json":{"by":"py"}}'
        js '{"op":"get","key":"OUTPUT"}'
        printf 'GIF89a\x01\x00' >"$D/cat.gif"
        echo '{"by":"sh"}' >"$D/OUTPUT"
        js '{"op":"get","key":"cat.gif"}' '{"op":"get","key":"OUTPUT"}'
        py '{"op":"get","key":"cat.gif"}' '{"op":"set","key":"page","hex":"3c703e","type":"text/html"}'
        type_of "$D/page"
        actor get-value OUTPUT | jq -c .
        actor set-value OUTPUT '{"by":"cli"}'
        cat "$D/OUTPUT"; echo
        actor set-value note 'some text' --content-type text/plain
        cat "$D/note"; echo; type_of "$D/note"
        "#,
    );
    let lines: Vec<&str> = printed.lines().collect();
    let value = |at: usize| -> Value { serde_json::from_str(lines[at]).unwrap() };
    let ok = json!({"ok": null});
    assert_eq!((value(0), value(1)), (ok.clone(), ok.clone()), "{printed}");
    assert_eq!(
        &lines[2..6],
        [
            "js",
            "application/json; charset=utf-8",
            "image/png",
            "89504e470d0a1a0a00ff"
        ]
    );
    // The Python SDK takes no type from the API's listing, so what it makes of the bytes has to do.
    assert_eq!(
        value(6)["ok"]["value"],
        json!({"kind": "bytes", "hex": "89504e470d0a1a0a00ff"})
    );
    assert_eq!(value(8)["ok"]["value"]["json"], json!({"by": "py"}));
    assert_eq!(value(9)["ok"]["type"], "image/gif");
    assert_eq!(value(9)["ok"]["raw"], "4749463839610100");
    assert_eq!(value(10)["ok"]["value"]["json"], json!({"by": "sh"}));
    assert_eq!(value(11)["ok"]["value"]["kind"], "bytes");
    assert_eq!(lines[13], "text/html", "{printed}");
    assert_eq!(value(14), json!({"by": "sh"}));
    assert_eq!(value(15), json!({"by": "cli"}));
    assert_eq!(&lines[16..], ["some text", "text/plain"], "{printed}");
}

#[test]
fn null_deletes_the_file_and_a_removed_file_is_nothing_to_them() {
    let world = World::new();
    let printed = script(
        &world,
        &[],
        r#"
        D="$ACTOR_MOUNT/default"
        echo 1 >"$D/a"; echo 2 >"$D/b"; echo 3 >"$D/c"; echo 4 >"$D/d"
        js '{"op":"set","key":"a","json":null}' '{"op":"set","store":"results","key":"shared","json":7}' >/dev/null
        py '{"op":"delete","key":"b"}' >/dev/null
        actor set-value c null
        rm "$D/d"
        ls "$D"
        js '{"op":"get","key":"d"}' '{"op":"list"}'
        py '{"op":"get","key":"d"}' '{"op":"list"}' '{"op":"list","store":"results"}'
        cat "$ACTOR_MOUNT/results/shared"
        "#,
    );
    let nothing = [json!({"ok": null}), json!({"ok": []})];
    // A store that one opens by its name is the same for all.
    let shared = vec![json!({"ok": ["shared"]}), json!(7)];
    let nothing = nothing.to_vec();
    assert_eq!(
        answers(&printed),
        [nothing.clone(), nothing, shared].concat()
    );
}

#[test]
fn long_values_and_a_key_of_every_legal_character_cross() {
    let world = World::new();
    let key = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!-_.'()";
    fs::write(world.root().join("key"), key).unwrap();
    let printed = script(
        &world,
        &[],
        r#"
        D="$ACTOR_MOUNT/default"; key=$(cat key)
        request() { jq -nc --arg key "$key" "$1"; }
        js "$(request '{op: "set", key: $key, json: {by: "js"}}')"
        ls "$D"; cat "$D/$key" | jq -c .
        echo '{"by":"sh"}' >"$D/$key"
        py "$(request '{op: "get", key: $key}')" "$(request '{op: "delete", key: $key}')" | jq -c '.ok.value.json // .'
        ls "$D"

        # 50 MB that the clients compress fast.
        block=$(head -c 700000 /dev/urandom | base64 -w0)
        for i in $(seq 54); do printf '%s %s\n' "$i" "$block"; done >"$D/long.txt"; truncate -s 50000000 "$D/long.txt"
        cat >long.mjs <<'JS'
        import { createRequire } from 'node:module';
        import crypto from 'node:crypto';
        const require = createRequire(process.env.STOREFS_TEST_TOOLS + '/js/x.js');
        const { Actor } = require('apify');
        await Actor.init();
        const text = await Actor.getValue('long.txt');
        console.log('js', text.length, crypto.createHash('md5').update(text).digest('hex'));
        await Actor.setValue('long.js', Buffer.from(text).reverse(), { contentType: 'application/octet-stream' });
        process.exit(0);
JS
        cat >long.py <<'PY'
import asyncio, hashlib, logging
from apify import Actor
logging.disable(logging.CRITICAL)
async def main():
    async with Actor(exit_process=False, configure_logging=False):
        value = await Actor.get_value('long.js')
        print('py', len(value), hashlib.md5(value).hexdigest())
        await Actor.set_value('long.py', bytes(reversed(value)), content_type='text/plain; charset=utf-8')
asyncio.run(main())
PY
        node long.mjs 2>>errors | grep '^js'
        "$STOREFS_TEST_TOOLS/py/bin/python" long.py 2>>errors
        md5sum <"$D/long.txt"; md5sum <"$D/long.js"; cmp "$D/long.txt" "$D/long.py"
        "#,
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], r#"{"ok":null}"#);
    assert_eq!(&lines[1..3], [key, r#"{"by":"js"}"#]);
    assert_eq!(
        &lines[3..5],
        [r#"{"by":"sh"}"#, r#"{"ok":null}"#],
        "{printed}"
    );
    let sum = |at: usize| lines[at].split_whitespace().next().unwrap();
    assert_eq!(lines[5], format!("js 50000000 {}", sum(7)), "{printed}");
    assert_eq!(lines[6], format!("py 50000000 {}", sum(8)), "{printed}");
    assert_eq!(lines.len(), 9, "{printed}");
}

// README: S104
#[test]
fn the_sdks_read_the_input_of_a_metamorphed_run() {
    let world = World::new();
    let printed = script(
        &world,
        &["--input", r#"{"n":0}"#],
        r#"
        export -f js py
        storefs metamorph --input '{"n":1}' -- bash -c "js '{\"op\":\"input\"}'; py '{\"op\":\"input\"}'; storefs metamorph --input '{\"n\":2}' -- bash -c \"py '{\\\"op\\\":\\\"input\\\"}'\""
        "#,
    );
    let told = answers(&printed);
    let told: Vec<&Value> = told.iter().map(|answer| &answer["ok"]["json"]).collect();
    assert_eq!(told, [&json!({"n": 1}), &json!({"n": 1}), &json!({"n": 2})]);
}

#[test]
fn what_sdks_say_of_themselves_takes_no_time_and_is_told() {
    let world = World::new();
    script(
        &world,
        &[],
        r#"
        cat >message.mjs <<'JS'
        import { createRequire } from 'node:module';
        const require = createRequire(process.env.STOREFS_TEST_TOOLS + '/js/x.js');
        const { Actor } = require('apify');
        await Actor.init();
        await Actor.setStatusMessage('working');
        await Actor.fail('it is the end', { exit: false });
        process.exit(0);
JS
        timeout 30 node message.mjs >/dev/null
        "#,
    );
    let run = runs::only_run(&world);
    assert_eq!(run["message"], "it is the end");
}

/// Runs the crawler; its records are looked at while it runs.
fn crawls(options: &[&str], how: &str) {
    let world = World::new();
    let options = [&["--input", r#"{"name":"n"}"#], options].concat();
    let printed = script(
        &world,
        &options,
        &format!(
            r#"
            export GO=$PWD/go
            node "$TESTS/runs/crawler.mjs" {how} >>errors 2>&1 & crawler=$!
            D="$ACTOR_MOUNT/default"
            for i in $(seq 1500); do [ ! -e "$D/one" ] || break; sleep 0.02; done
            kill -0 $crawler
            jq -c . "$D/one"; [ ! -e "$D/two" ]
            touch go; wait $crawler
            jq -c . "$D/two"; cat "$ACTOR_MOUNT/crawled-pages/two"; echo; type_of "$ACTOR_MOUNT/crawled-pages/two"
            "#
        ),
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"path":"/","of":"n"}"#,
            r#"{"path":"/two","of":"n"}"#,
            "<title>two</title>",
            "text/html; charset=utf-8"
        ],
        "{printed}"
    );
    assert!(store_of_last(&world).join("two.json").exists());
    assert!(world.source("crawled-pages").is_dir());
}

// README: S109
#[test]
fn a_crawler_runs_unchanged_and_its_records_are_files_meanwhile() {
    crawls(&[], "");
}

// README: S109
#[test]
fn a_crawler_that_is_an_actor_can_be_told_to_use_the_folder() {
    crawls(&["--env", "APIFY_IS_AT_HOME="], "actor");
}
