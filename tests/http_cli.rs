//! The program itself: `serve` and `token` from the command line, in processes of their own.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Serving, home, run, storefs, text};

#[test]
fn the_first_start_makes_a_token_and_the_next_ones_take_it() {
    let (_temp, home) = home();
    std::fs::create_dir_all(home.join("storage/key_value_stores/default")).unwrap();
    std::fs::write(
        home.join("storage/key_value_stores/default/INPUT.json"),
        "{\"a\":1}",
    )
    .unwrap();
    let args = ["serve", "--tokens", "t.json", "--listen", "127.0.0.1:0"];
    let serving = Serving::start(&home, &args, 3);
    let shown = home.join("storage").display().to_string();
    assert!(serving.lines[0].starts_with(&format!("serving {shown} at http://127.0.0.1:")));
    let token = serving.lines[1]
        .strip_prefix("export APIFY_TOKEN=")
        .unwrap()
        .to_owned();
    let base = serving.lines[2]
        .strip_prefix("export APIFY_API_BASE_URL=http://")
        .unwrap();
    assert_eq!(base, serving.address());
    let client = serving.client(&token);
    let input = "/v2/key-value-stores/default/records/INPUT";
    assert_eq!(client.get(input).body, b"{\"a\":1}");
    assert_eq!(client.get("/v2/users/me").data()["username"], "ann");
    let store = client.get("/v2/key-value-stores/default").data();
    let (status, log) = serving.end(rustix::process::Signal::TERM);
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains(&format!("GET {input} 200")), "{log}");
    assert!(!log.contains(&token), "{log}");
    let serving = Serving::start(&home, &args, 1);
    let client = serving.client(&token);
    assert_eq!(client.get(input).status, 200);
    assert_eq!(
        client.get("/v2/key-value-stores/default").data()["id"],
        store["id"]
    );
    assert_eq!(serving.end(rustix::process::Signal::INT).0, Some(0));
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let (_temp, home) = home();
    let token = |args: &[&str]| {
        let done = run(&home, &[&["token", "--tokens", "t.json"], args].concat());
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    assert!(token(&["list"]).1.contains("no tokens"));
    let (status, made, error) = token(&["new", "--user", "bob"]);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(made.starts_with("storefs_") && made.lines().count() == 1);
    let (_, brief, _) = token(&["new", "--user", "bob", "--read-only", "--expires", "30d"]);
    assert_ne!(made, brief);
    let (_, listed, _) = token(&["list"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("read-write") && listed.contains("never"));
    assert!(!listed.contains(made.trim()));
    let (_, json, _) = token(&["list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["user"], "bob");
    assert_eq!(
        (&json[1]["readOnly"], json[1]["expiresAt"].is_string()),
        (&true.into(), true)
    );
    assert_eq!(json[0]["userId"], json[1]["userId"]);
    assert_eq!(
        token(&["revoke", json[0]["id"].as_str().unwrap()]).0,
        Some(0)
    );
    assert_eq!(token(&["revoke", brief.trim()]).0, Some(0));
    let (status, _, error) = token(&["revoke", "nothing1"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("storefs token list"), "{error}");
    assert_eq!(token(&["new", "--user", "a b"]).0, Some(2));
}

#[test]
fn stores_in_memory_are_served_to_any_token() {
    let (_temp, home) = home();
    let serving = Serving::start(
        &home,
        &["serve", "memory:", "--any-token", "--listen", "127.0.0.1:0"],
        1,
    );
    assert!(serving.lines[0].starts_with("serving memory: at"));
    let client = serving.client("anything");
    let output = "/v2/key-value-stores/default/records/OUTPUT";
    assert_eq!(client.put(output, "application/json", b"{}").status, 201);
    assert_eq!(client.post("/v2/key-value-stores?name=s", b"").status, 201);
    assert_eq!(
        client
            .put("/v2/key-value-stores/s/records/a", "text/plain", b"x")
            .status,
        201
    );
    assert_eq!(client.get("/v2/key-value-stores/s/records/a").body, b"x");
    assert_eq!(serving.end(rustix::process::Signal::TERM).0, Some(0));
}

// README: S121
#[test]
fn what_a_killed_server_of_memory_left_goes_with_the_next_one() {
    let (_temp, home) = home();
    let temp = home.join("tmp");
    std::fs::create_dir(&temp).unwrap();
    let start = || {
        let arguments = ["serve", "memory:", "--any-token", "--listen", "127.0.0.1:0"];
        let mut command = storefs(&home, &arguments);
        command.env("TMPDIR", &temp);
        Serving::of(command, 1)
    };
    let left = || std::fs::read_dir(&temp).unwrap().count();
    let (killed, held) = (start(), start());
    killed.end(rustix::process::Signal::KILL);
    assert_eq!(left(), 2);
    let next = start();
    assert_eq!(left(), 2);
    let output = "/v2/key-value-stores/default/records/OUTPUT";
    let put = held
        .client("any")
        .put(output, "application/json", &[b'1'; 1 << 20]);
    assert_eq!(put.status, 201);
    for serving in [held, next] {
        assert_eq!(serving.end(rustix::process::Signal::TERM).0, Some(0));
    }
    assert_eq!(left(), 0);
}

#[test]
fn what_cannot_be_served_is_told_with_what_to_do() {
    let (_temp, home) = home();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.local_addr().unwrap().to_string();
    for (args, code, advice) in [
        (
            vec!["serve", "memory:", "--any-token", "--listen", "0.0.0.0:0"],
            2,
            "loopback",
        ),
        (
            vec!["serve", "memory:", "--listen", "nowhere"],
            2,
            "ADDRESS:PORT",
        ),
        (
            vec!["serve", "memory:", "--max-record-size", "many"],
            2,
            "5GiB",
        ),
        (
            vec!["serve", "memory:", "--public-url", "me"],
            2,
            "https://",
        ),
        (vec!["serve", "apify:"], 1, "APIFY_TOKEN"),
        (vec!["serve", "http://127.0.0.1:9"], 1, "APIFY_TOKEN"),
        (vec!["serve", "s3://b"], 1, "not supported yet"),
        (vec!["serve", "http://192.0.2.1"], 2, "insecure"),
        (vec!["serve", "nowhere"], 1, "mkdir -p"),
        (vec!["serve"], 1, "mkdir -p"),
    ] {
        let done = run(&home, &[&args[..], &["--tokens", "t.json"]].concat()[..]);
        let done = if args.contains(&"--any-token") {
            run(&home, &args)
        } else {
            done
        };
        let error = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?} {error}");
        assert!(error.contains(advice), "{args:?} {error}");
    }
    // The first start that comes about makes the token, and shows it.
    assert!(!home.join("t.json").exists());
    let done = run(
        &home,
        &["serve", "memory:", "--any-token", "--listen", &held],
    );
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("another port"));
    drop(listener);
}

#[test]
fn two_servers_of_one_folder_see_each_others_records() {
    let (_temp, home) = home();
    std::fs::create_dir_all(home.join("storage")).unwrap();
    let args = ["serve", "--tokens", "t.json", "--listen", "127.0.0.1:0"];
    let one = Serving::start(&home, &args, 3);
    let two = Serving::start(&home, &args, 1);
    let token = one.lines[1].strip_prefix("export APIFY_TOKEN=").unwrap();
    let (first, second) = (one.client(token), two.client(token));
    let made = first.post("/v2/key-value-stores?name=both", b"").data();
    assert_eq!(
        second.get("/v2/key-value-stores/both").data()["id"],
        made["id"]
    );
    std::thread::scope(|scope| {
        for client in [&first, &second] {
            scope.spawn(move || {
                for number in 0..100 {
                    let path = format!("/v2/key-value-stores/both/records/k{}", number % 10);
                    let body = format!("{number}").repeat(100);
                    assert_eq!(client.put(&path, "text/plain", body.as_bytes()).status, 201);
                    let got = client.get(&path);
                    let start = &got.body[..got.body.len() / 100];
                    assert!(
                        got.status == 200 && got.body == start.repeat(100),
                        "{got:?}"
                    );
                }
            });
        }
    });
    for client in [&first, &second] {
        assert_eq!(
            client.get("/v2/key-value-stores/both/keys").data()["count"],
            10
        );
    }
}
