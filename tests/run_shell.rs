//! What a command finds in a run, seen from a shell: the input, the mount, the environment, the API.
#![allow(clippy::unwrap_used)]

mod runs;
mod support;

use runs::{Running, attempt, command, kept, mount_of, only_run, run, script, store_of_last};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use support::{STOREFS, World, mountinfo, type_of};

// README: S90, S94
#[test]
fn a_run_has_a_store_of_its_own_that_stays() {
    let world = World::new();
    let shown = script(
        &world,
        &["--input", r#"{"a":1}"#],
        r#"cat "$ACTOR_MOUNT/default/INPUT"; echo '{"b":2}' >"$ACTOR_MOUNT/default/OUTPUT"; readlink "$ACTOR_MOUNT/default""#,
    );
    let run = only_run(&world);
    let store = run["store"].as_str().unwrap();
    assert_eq!(shown, format!("{{\"a\":1}}{store}\n"));
    assert_eq!(store.len(), 17);
    assert_eq!(run["id"].as_str().unwrap().len(), 17);
    let read = |file: &str| fs::read_to_string(world.source(store).join(file)).unwrap();
    assert_eq!(read("INPUT.json"), r#"{"a":1}"#);
    assert_eq!(read("OUTPUT.json"), "{\"b\":2}\n");
    // The next run knows nothing of it, and the store called default nothing of both.
    script(
        &world,
        &[],
        r#"[ -z "$(ls "$ACTOR_MOUNT/default")" ]; ls "$ACTOR_MOUNT""#,
    );
    assert_eq!(fs::read_dir(world.source("default")).unwrap().count(), 0);
    assert_eq!(kept(&world).len(), 2);
}

// README: S90
#[test]
fn a_store_can_be_named_and_keeps_what_is_in_it() {
    let world = World::new();
    for number in 1..=2 {
        let input = format!("{number}");
        let options = ["--store", "results", "--input", &input];
        script(
            &world,
            &options,
            r#"cd "$ACTOR_MOUNT/default"; cat INPUT >>log; [ "$(readlink "$ACTOR_MOUNT/default")" = results ]"#,
        );
    }
    assert_eq!(
        fs::read_to_string(world.source("results/log.json")).unwrap(),
        "12"
    );
    let runs = kept(&world);
    assert_eq!(runs[0]["store"], runs[1]["store"]);
    // By its id it is the same, and without an input the last one stays.
    let id = runs[0]["store"].as_str().unwrap();
    let shown = script(
        &world,
        &["--store", id],
        r#"cat "$ACTOR_MOUNT/default/INPUT""#,
    );
    assert_eq!(shown, "2");
}

// README: S91
#[test]
fn the_input_comes_from_a_file_from_standard_input_or_from_the_command_line() {
    let world = World::new();
    let show = r#"cd "$ACTOR_MOUNT/default"; cat INPUT; echo; getfattr --only-values -n user.mime_type INPUT"#;
    let json = "application/json; charset=utf-8";
    fs::write(world.root().join("in.json"), "[1]").unwrap();
    fs::write(world.root().join("in.csv"), "a,b").unwrap();
    let of = |options: &[&str]| script(&world, options, show);
    assert_eq!(of(&["--input", "in.json"]), format!("[1]\n{json}"));
    assert_eq!(of(&["-i", "\"text\""]), format!("\"text\"\n{json}"));
    assert_eq!(of(&["--input", "-1"]), format!("-1\n{json}"));
    assert_eq!(of(&["--input", "in.csv"]), "a,b\ntext/csv; charset=utf-8");
    assert_eq!(
        of(&["--input", "in.csv", "--content-type", "text/x-mine"]),
        "a,b\ntext/x-mine"
    );
    let mut command = command(&world, &["--input", "-", "--", "bash", "-c", show]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&[0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stdout.ends_with(b"\nimage/png"), "{output:?}");
    // What is no regular file is read once.
    let shown = world.sh(&format!(
        r#"PATH="{}:$PATH" storefs run --input <(printf '{{"p":1}}') -- bash -c 'cat "$ACTOR_MOUNT/default/INPUT"'"#,
        std::path::Path::new(support::STOREFS).parent().unwrap().display()
    ));
    assert_eq!(shown, r#"{"p":1}"#);
}

// README: S92
#[test]
fn a_broken_input_is_refused_before_anything_starts() {
    let world = World::new();
    fs::write(world.root().join("in.json"), "{\"a\":").unwrap();
    fs::write(world.root().join("empty.json"), "").unwrap();
    for wrong in [
        vec!["--input", "{\"a\":"],
        vec!["--input", "in.json"],
        vec!["--input", "empty.json"],
        vec!["--input", "no-such-file"],
        vec!["--input", "."],
        vec!["--input", "in.json", "--content-type", "nonsense"],
    ] {
        let said = run(&world, &[&wrong[..], &["--", "touch", "started"]].concat());
        assert!(matches!(said.code, Some(1 | 2)), "{wrong:?} {said:?}");
        assert!(said.err.starts_with("storefs: "), "{said:?}");
        assert!(!world.root().join("started").exists());
    }
    let said = run(&world, &["--", "no-such-program-at-all"]);
    assert_eq!(said.code, Some(127), "{said:?}");
    assert!(kept(&world).is_empty());
    let stores = fs::read_dir(world.source("")).unwrap();
    assert_eq!(stores.count(), 1, "only what was there before");
}

// README: S93
#[test]
fn a_variable_of_the_environment_need_not_be_text() {
    let world = World::new();
    let mut command = command(&world, &["--env"]);
    command.arg(OsStr::from_bytes(b"MINE=\xff="));
    command.args(["--", "sh", "-c", r#"printf %s "$MINE" | od -An -tx1"#]);
    let said = Running::of(&mut command, Stdio::null()).ended();
    assert_eq!(said.out.trim(), "ff 3d", "{said:?}");
    for wrong in ["MINE", "=1"] {
        let said = run(&world, &["--env", wrong, "--", "true"]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains("is not NAME=VALUE"), "{said:?}");
    }
}

// README: S93
#[test]
fn the_environment_is_that_of_the_platform() {
    let world = World::new();
    let mut command = command(
        &world,
        &[
            "--timeout",
            "1h",
            "--env",
            "MINE=a=b",
            "--env",
            "APIFY_USER_ID=me",
            "--",
            "env",
        ],
    );
    command
        .env("ACTOR_TASK_ID", "of another run")
        .env("ACTOR_INPUT_KEY", "OTHER")
        .env("http_proxy", "http://proxy.invalid:3128")
        .env("NO_PROXY", "example.com");
    let said = Running::of(&mut command, Stdio::null()).ended();
    let run = only_run(&world);
    let value = |name: &str| {
        let found = said.out.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("{name} is not set: {}", said.out))
    };
    for name in ["ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID", "APIFY_ACT_RUN_ID"] {
        assert_eq!(value(name), run["id"]);
    }
    for name in [
        "ACTOR_DEFAULT_KEY_VALUE_STORE_ID",
        "APIFY_DEFAULT_KEY_VALUE_STORE_ID",
        "CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID",
    ] {
        assert_eq!(value(name), run["store"]);
    }
    for name in ["ACTOR_INPUT_KEY", "APIFY_INPUT_KEY", "CRAWLEE_INPUT_KEY"] {
        assert_eq!(value(name), "INPUT");
    }
    for name in ["APIFY_API_BASE_URL", "APIFY_API_PUBLIC_BASE_URL"] {
        assert!(value(name).starts_with("http://127.0.0.1:"), "{name}");
    }
    let storages: Value = serde_json::from_str(&value("ACTOR_STORAGES_JSON")).unwrap();
    assert_eq!(storages["keyValueStores"], json!({"default": run["store"]}));
    assert_eq!(value("ACTOR_STARTED_AT"), run["started"]);
    assert!(value("ACTOR_TIMEOUT_AT") > value("ACTOR_STARTED_AT"));
    assert_eq!(value("APIFY_TIMEOUT_AT"), value("ACTOR_TIMEOUT_AT"));
    assert!(value("ACTOR_MEMORY_MBYTES").parse::<u64>().unwrap() >= 128);
    assert_eq!(value("APIFY_IS_AT_HOME"), "1");
    assert_eq!(value("CRAWLEE_PURGE_ON_START"), "0");
    assert_eq!(value("MINE"), "a=b");
    assert_eq!(value("APIFY_USER_ID"), "me");
    assert_eq!(value("NO_PROXY"), "example.com,127.0.0.1,localhost");
    assert!(!said.out.contains("ACTOR_TASK_ID"), "{}", said.out);
    let mountpoint = mount_of(run["id"].as_str().unwrap());
    assert_eq!(value("ACTOR_MOUNT"), mountpoint.display().to_string());
    // A token of this run alone, which nothing keeps.
    let token = value("APIFY_TOKEN");
    assert!(token.len() > 40, "{token}");
    let search = format!("! grep -r {token} storage /run/storefs 2>/dev/null");
    world.sh(&search);
}

// README: S95
#[test]
fn the_mount_is_where_it_was_asked_for_and_gone_afterwards() {
    let world = World::new();
    let at = world.root().join("here");
    let shown = script(
        &world,
        &["--mount", "here"],
        r#"echo "$ACTOR_MOUNT"; grep -c " $ACTOR_MOUNT fuse.storefs" /proc/mounts; echo 1 >here/default/one"#,
    );
    assert_eq!(shown, format!("{}\n1\n", at.display()));
    assert!(!at.exists(), "made for the run, and removed");
    assert!(store_of_last(&world).join("one.json").exists());
    // A private directory is closed to others, and goes too.
    let shown = script(
        &world,
        &[],
        r#"stat -c %a "$ACTOR_MOUNT/.."; echo "$ACTOR_MOUNT""#,
    );
    let (mode, path) = shown.trim_end().split_once('\n').unwrap();
    assert_eq!(mode, "700");
    assert_eq!(mountinfo(path.as_ref()), None);
    assert!(!std::path::Path::new(path).parent().unwrap().exists());
    // One in use is left alone.
    fs::create_dir(&at).unwrap();
    fs::write(at.join("file"), "").unwrap();
    let refused = attempt(&world, &["--mount", "here"], "true");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("not empty"), "{refused:?}");
    assert_eq!(kept(&world).len(), 2, "a run that never was is not kept");
}

// README: S98
#[test]
fn output_and_json_leave_standard_output_to_themselves() {
    let world = World::new();
    let body = r#"echo noise; echo '{"n":1}' >"$ACTOR_MOUNT/default/OUTPUT"; exit 3"#;
    let printed = attempt(&world, &["--output"], body);
    assert_eq!(
        (printed.code, printed.out.as_str()),
        (Some(3), "{\"n\":1}\n")
    );
    assert!(printed.err.starts_with("noise\nrun "), "{printed:?}");
    let printed = attempt(&world, &["--json"], body);
    let run: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(run["status"], "FAILED");
    assert_eq!(run["exitCode"], 3);
    assert_eq!(run["id"], kept(&world)[1]["id"]);
    assert!(run["finishedAt"].as_str().unwrap() >= run["startedAt"].as_str().unwrap());
    let none = attempt(&world, &["--output"], "true");
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    assert!(none.err.contains("no OUTPUT"), "{none:?}");
}

// README: S98
#[test]
fn one_line_says_how_it_ended() {
    let world = World::new();
    let said = attempt(
        &world,
        &["--input", "1"],
        r#"cd "$ACTOR_MOUNT/default"; echo 1 >OUTPUT; echo 2 >other"#,
    );
    let run = only_run(&world);
    let (id, store) = (run["id"].as_str().unwrap(), run["store"].as_str().unwrap());
    let output = world.source(store).join("OUTPUT.json");
    assert_eq!(said.out, "");
    assert!(
        said.err
            .starts_with(&format!("run {id} in store {store}: SUCCEEDED after ")),
        "{said:?}"
    );
    assert!(
        said.err.ends_with(&format!(
            ", exit code 0, 2 records written, OUTPUT is {}\n",
            output.display()
        )),
        "{said:?}"
    );
    // Of a store that others have filled, only what this run wrote counts, as far as the times of files tell.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let said = attempt(
        &world,
        &["--store", store],
        r#"echo 3 >"$ACTOR_MOUNT/default/third""#,
    );
    assert!(said.err.contains("1 record written"), "{said:?}");
}

// README: S108
#[test]
fn memory_is_for_one_run_only() {
    let world = World::new();
    let said = attempt(
        &world,
        &["memory:", "--output", "--input", "{\"a\":[]}"],
        r#"cp "$ACTOR_MOUNT/default/INPUT" "$ACTOR_MOUNT/default/OUTPUT"; echo "$CRAWLEE_STORAGE_DIR""#,
    );
    assert_eq!((said.code, said.out.as_str()), (Some(0), "{\"a\":[]}"));
    let folder = said.err.lines().next().unwrap();
    assert!(
        folder.starts_with('/') && !std::path::Path::new(folder).exists(),
        "{said:?}"
    );
    assert!(kept(&world).is_empty());
}

// README: S108
#[test]
fn sources_that_are_not_there_yet_are_refused_by_name() {
    let world = World::new();
    for source in ["s3://bucket", "gs://bucket", "ftp://host", "s3:b", "az:"] {
        let said = attempt(&world, &[source], "true");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(source), "{said:?}");
    }
}

#[test]
fn the_type_of_the_input_is_that_of_the_record() {
    let world = World::new();
    let mut running = Running::start(
        &world,
        &[
            "--input",
            "{}",
            "--mount",
            "m",
            "--",
            "sh",
            "-c",
            "echo ready; sleep 60",
        ],
    );
    running.until_out("ready");
    let path = world.root().join("m/default/INPUT");
    assert_eq!(type_of(&path), "application/json; charset=utf-8");
}

// README: S97 S98
#[test]
fn an_output_that_cannot_be_printed_changes_neither_the_exit_code_nor_the_last_line() {
    let world = World::new();
    let said = world.sh(&format!(
        r#"
        set +e
        {} run --output -- bash -c 'echo much > "$ACTOR_MOUNT/default/OUTPUT"; exit 3' 2>&1 >/dev/full
        echo "code $?"
        "#,
        support::STOREFS
    ));
    assert!(said.ends_with("code 3\n"), "{said}");
    assert!(said.contains("exit code 3, 1 record written"), "{said}");
    assert!(said.contains("No space left"), "{said}");
}

#[test]
fn the_command_has_the_limits_that_the_run_was_started_with() {
    let world = World::new();
    let shown = world.sh(&format!(
        "ulimit -Sn 1024; {STOREFS} run -- bash -c 'ulimit -Sn; ulimit -Hn' 2>/dev/null; ulimit -Hn"
    ));
    let limits: Vec<&str> = shown.lines().collect();
    assert_eq!((limits[0], limits[1]), ("1024", limits[2]));
}
