//! Shows that each rule of the house can be broken: made-up sources, one against each.

use super::*;

#[track_caller]
fn refuses(check: fn(&Source) -> Complaints, path: &str, text: &str) {
    let complaints = check(&source(path, text));
    assert!(!complaints.is_empty(), "{path} was let through: {text}");
    assert!(complaints.iter().all(|complaint| complaint.contains(path)));
}

#[track_caller]
fn accepts(check: fn(&Source) -> Complaints, path: &str, text: &str) {
    assert_eq!(check(&source(path, text)), Complaints::new(), "{text}");
}

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn an_import_upwards_is_seen_however_it_is_written() {
    let check = imports_go_down;
    refuses(check, "src/fs/inode.rs", "use crate::mount::Session;");
    refuses(check, "src/mount/reply.rs", "use crate::control::Socket;");
    refuses(check, "src/record/key.rs", "use crate::sys;");
    refuses(check, "src/error.rs", "fn f() -> crate::record::Key {}");
    refuses(
        check,
        "src/backend/mod.rs",
        "use crate::{error::Kind, volume::{Now, local}};",
    );
    refuses(check, "src/backend/mod.rs", "use super::volume::Now;");
    refuses(
        check,
        "src/backend/dir/plain.rs",
        "use super::super::super::fs::Fs;",
    );
    refuses(check, "src/volume/local.rs", "pub(in crate::fs) fn f() {}");
    refuses(check, "src/shed/mod.rs", "");
    refuses(check, "src/fs/mod.rs", "use crate::shed::Spade;");
    accepts(
        check,
        "src/fs/inode.rs",
        "use crate::{error::Kind, fs::Fs, volume::{Now, Draft}};",
    );
    accepts(check, "src/record/key.rs", "use crate::error::Error;");
    accepts(
        check,
        "src/cli/mount.rs",
        "use crate::mount; use super::mount; use crate::actor::run;",
    );
    accepts(
        check,
        "src/fs/inode.rs",
        "// crate::mount\nconst S: &str = \"crate::mount\"; /* crate::cli */",
    );
    accepts(check, "src/main.rs", "use storefs::cli;");
    accepts(check, "tests/any.rs", "use crate::mount::Mounted;");
}

#[test]
fn a_crate_outside_its_room_is_seen() {
    let check = crates_stay_in_their_rooms;
    refuses(check, "src/fs/mod.rs", "use fuser::FileAttr;");
    refuses(check, "src/fs/mod.rs", "fn f() -> fuser::Errno {}");
    refuses(check, "src/volume/local.rs", "use std::{env, fs};");
    refuses(
        check,
        "src/volume/local.rs",
        "let home = std::env::var(\"HOME\");",
    );
    refuses(check, "src/mount/session.rs", "use clap::{Args};");
    refuses(
        check,
        "src/backend/open.rs",
        "use object_store::ObjectStore;",
    );
    refuses(check, "src/control/mod.rs", "println!(\"done\");");
    refuses(
        check,
        "src/control/mod.rs",
        "use std::io::{self}; fn f() { io::stderr(); }",
    );
    accepts(check, "src/mount/session.rs", "use fuser::Session;");
    accepts(
        check,
        "src/cli/config.rs",
        "use clap::Args; use std::env; fn f() { println!(); }",
    );
    accepts(check, "src/actor/env.rs", "use std::env::vars;");
    accepts(
        check,
        "src/fs/mod.rs",
        "let fuser = 1; let v = env!(\"CARGO_PKG_VERSION\");",
    );
    accepts(
        check,
        "src/fs/mod.rs",
        "#[cfg(test)] mod tests { fn f() { println!(\"{}\", 1); } } fn g() {}",
    );
    refuses(
        check,
        "src/fs/mod.rs",
        "#[cfg(test)] mod tests { fn f() {} } fn g() { println!(); }",
    );
    accepts(
        check,
        "tests/any.rs",
        "use std::env; fn f() { println!(); }",
    );
}

#[test]
fn unsafe_code_and_stubs_are_seen() {
    refuses(
        unsafe_code_is_in_sys,
        "src/fs/mod.rs",
        "fn f() { unsafe { g() } }",
    );
    accepts(
        unsafe_code_is_in_sys,
        "src/sys.rs",
        "fn f() { unsafe { g() } }",
    );
    accepts(
        unsafe_code_is_in_sys,
        "src/fs/mod.rs",
        "#![deny(unsafe_code)] // unsafe\n",
    );
    refuses(nothing_is_left_to_do, "src/fs/mod.rs", "fn f() { todo!() }");
    refuses(
        nothing_is_left_to_do,
        "src/fs/mod.rs",
        "fn f() { unimplemented!(\"later\") }",
    );
    accepts(
        nothing_is_left_to_do,
        "src/fs/mod.rs",
        "fn todo() { \"todo!()\"; }",
    );
    refuses(words_know_no_async, "src/record/key.rs", "async fn f() {}");
    accepts(words_know_no_async, "src/backend/mod.rs", "async fn f() {}");
}

#[test]
fn a_long_or_silent_file_is_seen() {
    refuses(
        files_are_short,
        "src/fs/mod.rs",
        &"\n".repeat(MAX_LINES + 1),
    );
    accepts(files_are_short, "src/fs/mod.rs", &"\n".repeat(MAX_LINES));
    refuses(
        modules_say_what_they_are,
        "src/fs/mod.rs",
        "use std::fs;\n//! late",
    );
    refuses(modules_say_what_they_are, "src/fs/mod.rs", "");
    accepts(modules_say_what_they_are, "src/fs/mod.rs", "//! Files.\n");
}

#[test]
fn a_name_without_meaning_is_seen() {
    let check = names_mean_something;
    refuses(check, "src/fs/mod.rs", "struct StoreManager;");
    refuses(check, "src/fs/mod.rs", "fn path_utils() {}");
    refuses(check, "src/fs/mod.rs", "struct A { event_handler: u8 }");
    refuses(check, "src/fs/mod.rs", "let bucket = 1;");
    refuses(check, "src/fs/mod.rs", "for item in list {}");
    refuses(check, "src/fs/helpers.rs", "");
    refuses(check, "src/volume/objects.rs", "");
    refuses(check, "tests/common/mod.rs", "");
    refuses(check, "src/backend/objects.rs", "struct BucketManager;");
    accepts(
        check,
        "src/backend/objects.rs",
        "struct Objects { bucket: Bucket }",
    );
    accepts(check, "src/backend/mod.rs", "pub mod objects;");
    accepts(
        check,
        "src/fs/mod.rs",
        "let utility = list.items().handler(); // a helper",
    );
}

#[test]
fn a_word_of_a_place_outside_is_seen() {
    let check = nothing_points_outside;
    for mark in ["#", "issue ", "Issue #"] {
        refuses(check, "README.md", &format!("as {mark}{} says", 12));
    }
    for folder in ["ho", "wo", "ro"].iter().zip(["me", "rk", "ot"]) {
        refuses(
            check,
            "src/fs/mod.rs",
            &format!("\"/{}{}/x\"", folder.0, folder.1),
        );
    }
    accepts(
        check,
        "README.md",
        "# 1. Title\nrust-lang/rust#12, the #first, issue an order, \"/tmp/x\", $#",
    );
}

#[test]
fn a_stray_entry_of_the_top_level_is_seen() {
    for path in [
        "docs/a.md",
        "notes.md",
        "build.rs",
        "LICENSES/MIT",
        ".github/x.yml",
    ] {
        assert!(!top_level_is_known(path).is_empty(), "{path}");
    }
    for path in [
        "src/lib.rs",
        ".ci/run",
        "LICENSE-MIT",
        "README.md",
        "scripts/check.sh",
    ] {
        assert!(top_level_is_known(path).is_empty(), "{path}");
    }
}

#[test]
fn the_lexer_sees_code_and_only_code() {
    let code = "let a: &'static str = r#\"\"crate::x\" \"#; let c = '\"'; let d = '\\''; f(b'x', b\"y\\\"z\", 'l', \"//\")";
    let words: Vec<_> = tokens(code)
        .into_iter()
        .filter(|t| t.starts_with(lex::is_word))
        .collect();
    assert_eq!(
        words,
        ["let", "a", "static", "str", "let", "c", "let", "d", "f"]
    );
    let found = paths(&tokens("use a::{b, c::{d as e, f}, self, *}; g::<u8>::h()"));
    let full: Vec<_> = found.iter().filter(|path| path.contains("::")).collect();
    assert_eq!(
        full,
        [
            "a::b", "a::c::d", "a::c::f", "a::self", "a::*", "c::d", "c::f"
        ]
    );
    assert_eq!(
        lex::words("ObjectStore_items2x"),
        ["object", "store", "items2x"]
    );
}
