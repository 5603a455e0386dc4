//! The API that a command has in a run, beside its files.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{only_run, script, store_of_last};
use support::World;

// README: S96
#[test]
fn what_the_api_has_stored_is_a_file_by_the_time_it_answers_and_the_other_way_round() {
    let world = World::new();
    script(
        &world,
        &["--input", r#"{"a":1}"#],
        r#"
        S="$APIFY_API_BASE_URL/v2/key-value-stores/$ACTOR_DEFAULT_KEY_VALUE_STORE_ID"
        A="Authorization: Bearer $APIFY_TOKEN"
        [ "$(curl -sf -H "$A" "$S/records/INPUT")" = '{"a":1}' ]
        cd "$ACTOR_MOUNT/default"
        for i in $(seq 20); do
            ! cat "k$i" 2>/dev/null
            curl -sf -H "$A" -X PUT -H 'Content-Type: text/plain' --data "first $i" "$S/records/k$i" >/dev/null
            [ "$(cat "k$i")" = "first $i" ]
            curl -sf -H "$A" -X PUT -H 'Content-Type: text/plain' --data "$i" "$S/records/k$i" >/dev/null
            [ "$(cat "k$i")" = "$i" ]
            echo "back $i" >"k$i"
            [ "$(curl -sf -H "$A" "$S/records/k$i")" = "back $i" ]
            curl -sf -H "$A" -X DELETE "$S/records/k$i"
            [ ! -e "k$i" ]
        done
        [ "$(ls)" = INPUT ]
        # Nobody else may.
        [ "$(curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer storefs_run_x' "$S")" = 401 ]
        [ "$(curl -s -o /dev/null -w '%{http_code}' "$S")" = 401 ]
        "#,
    );
}

// README: S99
#[test]
fn runs_are_shown_by_the_api_while_they_last_and_later() {
    let world = World::new();
    let shown = script(
        &world,
        &["--timeout", "90s"],
        r#"
        A="Authorization: Bearer $APIFY_TOKEN"
        get() { curl -sf -H "$A" "$APIFY_API_BASE_URL/v2/$1"; }
        get "actor-runs/$ACTOR_RUN_ID" | jq -c '.data | [.id, .status, .defaultKeyValueStoreId, .options.timeoutSecs]'
        [ "$(get actors/any/runs/last | jq -r .data.id)" = "$ACTOR_RUN_ID" ]
        [ "$(get acts/any/runs/last/key-value-store | jq -r .data.id)" = "$ACTOR_DEFAULT_KEY_VALUE_STORE_ID" ]
        curl -sf -H "$A" -X PUT -H 'Content-Type: application/json' --data '{"statusMessage":"half done"}' \
            "$APIFY_API_BASE_URL/v2/actor-runs/$ACTOR_RUN_ID" | jq -r .data.statusMessage
        [ "$(curl -s -o /dev/null -w '%{http_code}' -H "$A" "$APIFY_API_BASE_URL/v2/actor-runs/aaaaaaaaaaaaaaaaa")" = 404 ]
        "#,
    );
    let run = only_run(&world);
    assert_eq!(
        shown,
        format!(
            "[{},\"RUNNING\",{},90]\nhalf done\n",
            run["id"], run["store"]
        )
    );
    assert_eq!(run["status"], "SUCCEEDED");
    assert_eq!(run["message"], "half done");
    // A server of the same folder tells of it, too.
    let id = run["id"].as_str().unwrap();
    let later = world.sh(&format!(
        r#"
        coproc {} serve --any-token --listen 127.0.0.1:0 storage 2>/dev/null
        trap 'kill $COPROC_PID' EXIT
        read -r line <&${{COPROC[0]}}
        url=${{line##* }}
        curl -sf -H 'Authorization: Bearer x' "$url/v2/actor-runs/{id}" | jq -r '.data.status, .data.statusMessage'
        curl -sf -H 'Authorization: Bearer x' "$url/v2/actor-tasks/t/runs/last" | jq -r .data.id
        curl -sf -H 'Authorization: Bearer x' "$url/v2/actor-runs/{id}/key-value-store" | jq -r .data.id
        "#,
        support::STOREFS
    ));
    let store = run["store"].as_str().unwrap();
    assert_eq!(later, format!("SUCCEEDED\nhalf done\n{id}\n{store}\n"));
}

// README: S109
#[test]
fn who_asks_for_a_request_queue_is_told_what_to_do() {
    let world = World::new();
    let shown = script(
        &world,
        &[],
        r#"
        for part in request-queues request-queues/x/requests datasets actors; do
            curl -s -X POST -H "Authorization: Bearer $APIFY_TOKEN" "$APIFY_API_BASE_URL/v2/$part" -w ' %{http_code}\n' |
                grep -o 'storefs run --env.*COMMAND, or in Python storefs run --env.*COMMAND\|nothing else\| [0-9]*$' | tr '\n' ' '
            echo
        done
        "#,
    );
    let queues = "storefs run --env APIFY_IS_AT_HOME= -- COMMAND, or in Python storefs run --env APIFY_IS_AT_HOME=0 -- COMMAND  501 \n";
    assert_eq!(shown, format!("{0}{0}{0}nothing else  501 \n", queues));
}

// README: S107
#[test]
fn without_a_mount_the_api_is_there_all_the_same() {
    let world = World::new();
    let shown = script(
        &world,
        &["--no-mount", "--input", "{\"a\":1}"],
        r#"
        [ -z "${ACTOR_MOUNT-}" ]
        S="$APIFY_API_BASE_URL/v2/actor-runs/$ACTOR_RUN_ID/key-value-store/records"
        curl -sf -H "Authorization: Bearer $APIFY_TOKEN" "$S/INPUT"
        curl -sf -H "Authorization: Bearer $APIFY_TOKEN" -X PUT --data '<p>' -H 'Content-Type: text/html' "$S/OUTPUT" >/dev/null
        "#,
    );
    assert_eq!(shown, "{\"a\":1}");
    assert!(store_of_last(&world).join("OUTPUT.html").exists());
}

// README: S99
#[test]
fn a_message_told_to_another_server_neither_hides_the_end_of_a_run_nor_is_lost() {
    let world = World::new();
    let shown = world.sh(&format!(
        r#"
        coproc {0} serve --any-token --listen 127.0.0.1:0 storage 2>/dev/null
        trap 'kill $COPROC_PID' EXIT
        read -r line <&${{COPROC[0]}}
        url=${{line##* }}
        A='Authorization: Bearer x'
        {0} run --no-mount -- bash -c '
            curl -sf -H "Authorization: Bearer x" -X PUT -H "Content-Type: application/json" \
                --data "{{\"statusMessage\":\"half done\"}}" "$1/v2/actor-runs/$ACTOR_RUN_ID" | jq -r .data.status
        ' bash "$url"
        curl -sf -H "$A" "$url/v2/acts/any/runs/last" | jq -r '.data.status, .data.statusMessage, .data.exitCode'
        "#,
        support::STOREFS
    ));
    assert_eq!(shown, "RUNNING\nSUCCEEDED\nhalf done\n0\n");
    assert_eq!(only_run(&world)["status"], "SUCCEEDED");
}

// README: S99
#[test]
fn a_run_that_cannot_start_is_none() {
    let world = World::new();
    // Where the input should go is something else.
    let input = world.source("default/INPUT.json");
    std::fs::create_dir_all(input.join("inside")).unwrap();
    let said = runs::run(
        &world,
        &[
            "--no-mount",
            "--store",
            "default",
            "--input",
            "{}",
            "--",
            "true",
        ],
    );
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(runs::kept(&world).is_empty(), "{:?}", runs::kept(&world));
}
