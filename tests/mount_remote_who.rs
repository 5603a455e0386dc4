//! A mount whose server does not say every time who we are.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;
mod shop;
mod support;

use remote::{Answer, STORE, Scripted};
use shop::Shop;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Mount, World, said};

fn command(world: &World, server: &Scripted) -> Command {
    let url = format!("http://{}", server.address);
    let mut command = world.storefs(&["mount", "--foreground", "-o", "debounce=10m", &url]);
    command
        .arg(world.root().join("mnt"))
        .env("APIFY_TOKEN", remote::TOKEN)
        .env("HOME", world.root());
    command
}

// README: S115
#[test]
fn who_was_known_before_is_still_the_same_when_somebody_answers_for_the_server() {
    let world = World::new();
    let known = Arc::new(AtomicBool::new(true));
    let (knows, store) = (
        known.clone(),
        format!(r#"{{"id":"{STORE}","name":"default","userId":"uS3dE5gH7jK9mN1pQ"}}"#),
    );
    let server = Scripted::bare(move |request| match &*request.path {
        path if path.ends_with("/users/me") => match knows.load(Ordering::SeqCst) {
            true => Answer::json(
                200,
                r#"{"data":{"id":"uS3dE5gH7jK9mN1pQ","username":"ann"}}"#,
            ),
            false => Answer::status(404),
        },
        path if path.contains("/keys") => {
            Answer::json(200, r#"{"data":{"items":[],"isTruncated":false}}"#)
        }
        path if path.contains("/records/") || path.ends_with("/changes") => Answer::status(404),
        path if path.starts_with("/v2/key-value-stores?") => Answer::json(
            200,
            format!(
                r#"{{"data":{{"items":[{store}],"total":1,"count":1,"offset":0,"limit":1000}}}}"#
            ),
        ),
        _ => Answer::json(200, format!(r#"{{"data":{store}}}"#)),
    });
    let path = world.root().join("mnt");
    let mut mount = Mount::start(command(&world, &server), &path, &world.storage());
    fs::write(mount.path("default/mine"), "unsent").unwrap();
    mount.kill();
    support::detach(&path);
    known.store(false, Ordering::SeqCst);
    let mut mount = Mount::start(command(&world, &server), &path, &world.storage());
    assert_eq!(
        fs::read_to_string(mount.path("default/mine")).unwrap(),
        "unsent"
    );
    let told = said(&mut mount.storefs(&["status"]));
    assert!(told.out.contains("pending: 1"), "{told:?}");
    mount.kill();
    support::detach(&path);
}

#[test]
fn an_address_where_no_api_answers_is_refused_in_words() {
    let shop = Shop::open();
    let plain = Scripted::bare(|_| Answer::status(404));
    let pages = Scripted::bare(|request| match request.path.ends_with("/users/me") {
        true => Answer::status(404),
        false => Answer::record(b"<html>").with("content-type", "text/html"),
    });
    for url in [
        format!("{}/typo", shop.url()),
        format!("http://{}", plain.address),
        format!("http://{}", pages.address),
    ] {
        for arguments in [
            &["mount", "--foreground", &url, "mnt"][..],
            &["run", &url, "--", "true"],
        ] {
            let mut command = shop.world.storefs(arguments);
            command.env("APIFY_TOKEN", &shop.token);
            let said = shop.refused(command.env("HOME", shop.world.root()));
            for part in [&*url, "no Apify API answers there", "check the address"] {
                assert!(said.err.contains(part), "{part}: {said:?}");
            }
            assert!(!shop.world.root().join("mnt").exists());
        }
    }
    // The right place in the wrong way.
    let url = shop.url().replace("http:", "https:");
    let mut command = shop.world.storefs(&["mount", "--foreground", &url, "mnt"]);
    command.env("APIFY_TOKEN", &shop.token);
    let said = shop.refused(command.env("HOME", shop.world.root()));
    assert!(said.err.contains("http:// instead of"), "{said:?}");
}

#[test]
fn a_server_that_lists_no_stores_to_this_token_can_be_mounted() {
    let world = World::new();
    for status in [401, 403, 500] {
        let server = Scripted::bare(move |request| match &*request.path {
            path if path.ends_with("/users/me") => Answer::status(404),
            _ => Answer::status(status),
        });
        let path = world.root().join("mnt");
        let mut mount = Mount::start(command(&world, &server), &path, &world.storage());
        mount.kill();
        support::detach(&path);
    }
    // And one that has only the store which is named.
    let server = Scripted::bare(|_| Answer::status(404));
    let mut command = command(&world, &server);
    command.env("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", STORE);
    let path = world.root().join("mnt");
    let mut mount = Mount::start(command, &path, &world.storage());
    mount.kill();
    support::detach(&path);
}
