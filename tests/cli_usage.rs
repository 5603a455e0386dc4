//! The command line without a mount: help, errors, exit codes, completions, manual pages.
#![allow(clippy::unwrap_used)]

mod support;

use support::{STOREFS, Said, World, said};

#[track_caller]
fn fails(world: &World, arguments: &[&str], code: i32) -> Said {
    let said = said(&mut world.storefs(arguments));
    assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
    assert!(said.err.starts_with("storefs: "), "{said:?}");
    assert_eq!(said.out, "", "an error belongs on standard error: {said:?}");
    said
}

#[test]
fn help_and_version_are_results() {
    let world = World::new();
    let help = said(&mut world.storefs(&["--help"]));
    assert_eq!(help.code, Some(0));
    for word in [
        "mount",
        "umount",
        "sync",
        "status",
        "completions",
        "man",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.out.contains(word), "{word} is missing in {}", help.out);
    }
    let version = said(&mut world.storefs(&["--version"]));
    assert_eq!(
        version.out,
        format!("storefs {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn every_verb_has_help_with_an_example() {
    let world = World::new();
    for verb in ["mount", "umount", "sync", "status", "completions", "man"] {
        let help = said(&mut world.storefs(&[verb, "--help"]));
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.out.contains("Example"), "{verb}: {}", help.out);
    }
}

#[test]
fn help_of_mount_tells_of_servers_and_of_every_option() {
    let world = World::new();
    let help = said(&mut world.storefs(&["mount", "--help"])).out;
    for word in [
        "memory:",
        "apify:",
        "https://",
        "APIFY_TOKEN",
        "APIFY_API_BASE_URL",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    // The error of an unknown option lists what the parser knows.
    let known = fails(&world, &["mount", "-o", "wibble", "m"], 2).err;
    let (_, known) = known.split_once("there are: ").unwrap();
    let known = known.replace("for remote sources ", "");
    let options: Vec<_> = known.split(", ").filter(|it| !it.contains(' ')).collect();
    assert!(options.len() > 20, "{options:?}");
    let readme = include_str!("../README.md");
    for option in options {
        assert!(help.contains(&format!("  {option}")), "{option}: {help}");
        assert!(
            ["rw", "exec"].contains(&option) || readme.contains(&format!("`{option}")),
            "{option}"
        );
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let world = World::new();
    fails(&world, &["wibble"], 2);
    fails(&world, &["mount"], 2);
    fails(&world, &["mount", "a", "b", "c"], 2);
    fails(&world, &["sync", "--timeout", "soon", "m"], 2);
    fails(&world, &[], 2);
}

#[test]
fn an_unknown_mount_option_is_named_with_those_there_are() {
    let world = World::new();
    let said = fails(&world, &["mount", "-o", "ro,wibble=3", "storage", "m"], 2);
    assert!(
        said.err.contains("`wibble=3`") && said.err.contains("allow_other"),
        "{said:?}"
    );
    let said = fails(&world, &["mount", "-o", "write=through", "storage", "m"], 2);
    assert!(said.err.contains("remote sources"), "{said:?}");
    assert!(!world.root().join("m").exists());
}

#[test]
fn mount_options_may_come_from_the_environment() {
    let world = World::new();
    let said = said(
        world
            .storefs(&["mount", "storage", "m"])
            .env("STOREFS_OPTIONS", "wibble"),
    );
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("`wibble`"), "{said:?}");
}

#[test]
fn a_source_that_is_no_folder_is_refused_in_words() {
    let world = World::new();
    let said = fails(&world, &["mount", "s3://bucket", "m"], 1);
    assert!(said.err.contains("not supported yet"), "{said:?}");
    let said = fails(&world, &["mount", "nowhere", "m"], 1);
    assert!(said.err.contains("mkdir -p"), "{said:?}");
    std::fs::write(world.root().join("file"), "x").unwrap();
    let said = fails(&world, &["mount", "file", "m"], 1);
    assert!(said.err.contains("it is a file"), "{said:?}");
}

#[test]
fn without_any_source_the_error_shows_how_to_make_one() {
    let world = World::new();
    let empty = world.root().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let said = said(world.storefs(&["mount", "m"]).current_dir(&empty));
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("mkdir -p storage/key_value_stores/default"),
        "{said:?}"
    );
}

#[test]
fn verbs_on_a_place_without_a_mount_say_so() {
    let world = World::new();
    for verb in ["umount", "sync", "status"] {
        let said = fails(&world, &[verb, "storage"], 1);
        assert!(said.err.contains("nothing is mounted there"), "{said:?}");
    }
}

// README: S42
#[test]
fn a_mount_of_another_type_is_never_touched() {
    let world = World::new();
    for verb in ["umount", "sync", "status"] {
        let said = fails(&world, &[verb, "/proc"], 1);
        assert!(said.err.contains("type proc"), "{said:?}");
    }
    assert!(std::path::Path::new("/proc/self/mountinfo").exists());
}

#[test]
fn completions_are_accepted_by_their_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = said(&mut world.storefs(&["completions", shell]));
        assert_eq!(said.code, Some(0));
        assert!(said.out.contains("umount"), "{shell}: {}", said.out);
        std::fs::write(world.root().join(shell), said.out).unwrap();
    }
    world.sh("source ./bash; complete -p storefs");
    fails(&world, &["completions", "cmd"], 2);
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure() {
    let world = World::new();
    let full = || std::fs::File::options().write(true).open("/dev/full");
    for arguments in [
        &["completions", "bash"][..],
        &["--help"],
        &["--version"],
        &["status"],
        &["token", "--tokens", "t.json", "list"],
        &["token", "--tokens", "t.json", "new", "--user", "ann"],
        &[
            "serve",
            "memory:",
            "--tokens",
            "t.json",
            "--listen",
            "127.0.0.1:0",
        ],
        &["run", "--json", "memory:", "--", "true"],
    ] {
        let mut command = world.storefs(arguments);
        let output = command.stdout(full().unwrap()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {told}");
        assert!(told.contains("No space left"), "{arguments:?} {told}");
    }
    let listed = said(&mut world.storefs(&["token", "--tokens", "t.json", "list"]));
    assert!(listed.out.starts_with("no tokens"), "{listed:?}");
    // Whoever reads only the first line has what he wants.
    world.sh(&format!(
        "{STOREFS} completions bash | head -n 1 >/dev/null; [ ${{PIPESTATUS[0]}} = 0 ]"
    ));
}

#[test]
fn a_working_directory_that_is_gone_hinders_only_what_needs_it() {
    let world = World::new();
    world.sh(&format!(
        "mkdir gone; cd gone; rmdir ../gone; {STOREFS} completions bash >/dev/null; {STOREFS} status; ! {STOREFS} mount a b"
    ));
}

#[test]
fn manual_pages_are_written_and_named() {
    let world = World::new();
    let said = said(&mut world.storefs(&["man", "pages"]));
    assert_eq!(said.code, Some(0), "{said:?}");
    for path in said.out.lines() {
        let page = std::fs::read_to_string(world.root().join(path)).unwrap();
        assert!(page.contains(".TH") && page.contains(".SH NAME"), "{path}");
    }
    assert!(world.root().join("pages/storefs-mount.1").exists());
    assert!(world.root().join("pages/mount.fuse.storefs.8").exists());
}

#[test]
fn the_list_of_mounts_is_json_when_asked() {
    let world = World::new();
    let said = said(&mut world.storefs(&["status", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(value.is_array(), "{value}");
}
