//! A mount whose server does not say every time who we are.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;
mod support;

use remote::{Answer, STORE, Scripted};
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
