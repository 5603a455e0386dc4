//! The program in front of a server: whose token it shows, where that may come from, and which way requests go.
#![allow(clippy::unwrap_used)]

mod http;
mod remote;

use http::{Client, Served, Serving, home, run, storefs, text};
use remote::{Answer, Scripted, TOKEN};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// `storefs serve SOURCE`, whose own token stands in the second line that it prints.
fn in_front(home: &Path, source: &str, more: &[&str], vars: &[(&str, &str)]) -> (Serving, Client) {
    let args = [
        &[
            "serve",
            source,
            "--tokens",
            "t.json",
            "--listen",
            "127.0.0.1:0",
        ],
        more,
    ]
    .concat();
    let mut command = storefs(home, &args);
    command.envs(vars.iter().copied());
    let serving = Serving::of(command, 3);
    let token = serving.lines[1].rsplit_once('=').unwrap().1.to_owned();
    let client = serving.client(&token);
    (serving, client)
}

#[test]
fn a_server_in_front_of_a_server_passes_everything_on() {
    let (_temp, home) = home();
    let behind = Served::memory();
    let source = format!("http://{}", behind.address);
    let (_serving, client) = in_front(&home, &source, &[], &[("APIFY_TOKEN", &behind.token)]);
    let made = client.post("/v2/key-value-stores?name=shop", b"");
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!(
        "/v2/key-value-stores/{}",
        made.data()["id"].as_str().unwrap()
    );
    let record = format!("{path}/records/a.txt");
    assert_eq!(client.put(&record, "text/plain", b"bytes").status, 201);
    let got = client.get(&record);
    assert_eq!((got.status, got.body.as_slice()), (200, &b"bytes"[..]));
    assert_eq!(behind.client().get(&record).body, b"bytes");
    let keys = client.get(&format!("{path}/keys"));
    assert_eq!(keys.data()["items"][0]["key"], "a.txt");
    assert_eq!(client.get("/v2/key-value-stores").data()["total"], 1);
    assert_eq!(client.get(&format!("{path}/records/none")).status, 404);
    assert_eq!(client.delete(&record).status, 204);
    assert_eq!(behind.client().get(&record).status, 404);
}

#[test]
fn the_token_file_is_for_its_owner_alone_and_its_token_in_no_message() {
    let (_temp, home) = home();
    let file = home.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let server = Scripted::new(|_| Answer::json(200, r#"{"data":{"total":0,"items":[]}}"#));
    let source = format!("http://{}", server.address);
    let args = [
        "serve",
        &source,
        "--token-file",
        "token",
        "--tokens",
        "t.json",
    ];
    let refused = run(&home, &args);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("chmod 600"));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let vars = [("STOREFS_LOG", "trace"), ("APIFY_TOKEN", "another")];
    let (serving, client) = in_front(&home, &source, &["--token-file", "token"], &vars);
    assert_eq!(client.get("/v2/key-value-stores").status, 200);
    let shown = server.requests();
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(shown[0].header("authorization"), Some(&*bearer));
    let (_, log) = serving.end(rustix::process::Signal::TERM);
    assert!(!log.is_empty() && !log.contains(TOKEN), "{log}");
}

#[test]
fn the_login_of_the_apify_cli_is_not_shown_to_other_servers() {
    let (_temp, home) = home();
    std::fs::create_dir(home.join(".apify")).unwrap();
    std::fs::write(
        home.join(".apify/auth.json"),
        format!(r#"{{"token":"{TOKEN}"}}"#),
    )
    .unwrap();
    let server = Scripted::new(|_| Answer::json(200, r#"{"data":{"total":0,"items":[]}}"#));
    let source = format!("http://{}", server.address);
    let refused = run(&home, &["serve", &source, "--tokens", "t.json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("APIFY_TOKEN"));
    let (_serving, client) = in_front(&home, &source, &[], &[("APIFY_TOKEN", "another")]);
    assert_eq!(client.get("/v2/key-value-stores").status, 200);
    assert!(!format!("{:?}", server.requests()).contains(TOKEN));
    let mut command = storefs(&home, &["serve", "apify:", "--tokens", "t.json"]);
    let refused = command.env("APIFY_API_BASE_URL", &source).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is no token"));
}

#[test]
fn requests_to_other_machines_go_by_the_proxy_of_the_environment_and_those_to_this_one_do_not() {
    let (_temp, home) = home();
    let proxy = Scripted::new(|_| Answer::json(200, r#"{"data":{"total":0,"items":[]}}"#));
    let by = format!("http://{}", proxy.address);
    let vars = [
        ("HTTP_PROXY", &*by),
        ("http_proxy", &*by),
        ("APIFY_TOKEN", TOKEN),
    ];
    let source = "http://storefs.invalid/api";
    let (_serving, client) = in_front(&home, source, &["--insecure"], &vars);
    assert_eq!(client.get("/v2/key-value-stores").status, 200);
    let asked = proxy.lines();
    assert!(
        asked
            .iter()
            .any(|line| line.starts_with("GET http://storefs.invalid/api/v2/key-value-stores?")),
        "{asked:?}"
    );
    let behind = Served::memory();
    let vars = [
        ("HTTP_PROXY", &*by),
        ("http_proxy", &*by),
        ("APIFY_TOKEN", &*behind.token),
    ];
    let before = proxy.lines().len();
    std::fs::remove_file(home.join("t.json")).unwrap();
    let source = format!("http://{}", behind.address);
    let (_serving, client) = in_front(&home, &source, &[], &vars);
    assert_eq!(client.get("/v2/key-value-stores").data()["total"], 0);
    assert_eq!(proxy.lines().len(), before);
}
