//! The command line client works against a server as it is. It starts slowly, so each test makes its way with few commands.
#![allow(clippy::unwrap_used)]

mod clients;
mod http;
mod sdk;
mod support;

use http::Served;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output};
use storefs::backend::dir::Layout;

const RUN: &str = "storefsRun0000001";

/// A user of the command line client, with a home that is gone afterwards.
struct Terminal<'s> {
    server: &'s Served,
    home: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl<'s> Terminal<'s> {
    fn new(server: &'s Served) -> Self {
        Self {
            server,
            home: tempfile::tempdir().unwrap(),
            env: Vec::new(),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, program: &str) -> Command {
        let mut command = clients::node();
        let url = format!("http://{}", self.server.address);
        support::clean(&mut command)
            .arg(sdk::tools().join("cli/node_modules/.bin").join(program))
            .env("HOME", self.home.path())
            .env("APIFY_CLIENT_BASE_URL", &url)
            .env("APIFY_API_BASE_URL", &url)
            .env("APIFY_DISABLE_KEYRING", "1")
            .env("APIFY_CLI_DISABLE_TELEMETRY", "1")
            .env("APIFY_CLI_SKIP_UPDATE_CHECK", "1")
            .env("NO_PROXY", "127.0.0.1")
            .env("CI", "1")
            .envs(self.env.iter().cloned())
            .current_dir(self.home.path());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        clients::ended(self.command(program).args(arguments))
    }

    /// Standard output of a command that succeeds.
    #[track_caller]
    fn apify(&self, arguments: &[&str]) -> String {
        Self::good(self.run("apify", arguments), arguments)
    }

    #[track_caller]
    fn actor(&self, arguments: &[&str]) -> String {
        Self::good(self.run("actor", arguments), arguments)
    }

    #[track_caller]
    fn good(said: Output, arguments: &[&str]) -> String {
        let errors = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.status.success(),
            "{arguments:?}: {} {errors}",
            said.status
        );
        String::from_utf8(said.stdout).unwrap()
    }

    /// What a command complains about. Some of them end well all the same.
    #[track_caller]
    fn complaint(&self, arguments: &[&str]) -> String {
        let said = self.run("apify", &[&["key-value-stores"], arguments].concat());
        let errors = String::from_utf8(said.stderr).unwrap();
        assert!(errors.contains("Error"), "{arguments:?}: {errors}");
        errors
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.apify(arguments);
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
    }
}

#[test]
fn the_command_line_client_makes_fills_lists_renames_and_removes_stores() {
    let server = Served::in_layout(Layout::Dual);
    let terminal = Terminal::new(&server);
    terminal.apify(&["login", "--token", &server.token]);
    let kvs = |arguments: &[&str]| terminal.apify(&[&["key-value-stores"], arguments].concat());
    kvs(&["create", "cli-store"]);
    assert!(
        terminal
            .complaint(&["create", "cli-store"])
            .contains("same name")
    );
    kvs(&["set-value", "cli-store", "json", r#"{"a":"žluť"}"#]);
    kvs(&[
        "set-value",
        "cli-store",
        "text",
        "some text",
        "--content-type",
        "text/plain",
    ]);
    let value: Value = serde_json::from_str(&kvs(&["get-value", "cli-store", "json"])).unwrap();
    assert_eq!(value, json!({"a": "žluť"}));
    assert_eq!(
        kvs(&["get-value", "cli-store", "text"]).trim_end(),
        "some text"
    );
    let first = terminal.json(&[
        "key-value-stores",
        "keys",
        "cli-store",
        "--json",
        "--limit",
        "1",
    ]);
    assert_eq!(
        (first["count"].as_u64(), &first["nextExclusiveStartKey"]),
        (Some(1), &json!("json"))
    );
    assert!(kvs(&["ls"]).contains("cli-store"));
    let info = terminal.json(&["key-value-stores", "info", "cli-store", "--json"]);
    assert_eq!(info["name"], "cli-store");
    kvs(&["delete-value", "cli-store", "text", "--yes"]);
    kvs(&["rename", "cli-store", "other-store"]);
    let folder = server.path().join("storage/key_value_stores");
    assert_eq!(
        std::fs::read(folder.join("other-store/json.json")).unwrap(),
        "{\"a\":\"žluť\"}".as_bytes()
    );
    assert!(!folder.join("other-store/text.txt").exists());
    kvs(&["rename", "other-store", "--unname"]);
    let id = info["id"].as_str().unwrap();
    assert!(kvs(&["ls", "--unnamed"]).contains(id));
    kvs(&["rm", id, "--yes"]);
    assert!(terminal.complaint(&["info", id]).contains("not found"));
}

#[test]
fn a_user_of_the_command_line_client_does_not_get_at_the_stores_of_another() {
    let server = Served::in_layout(Layout::Dual);
    let store = server.store("of-ann");
    let token = server.tokens.add("bob", false, None).unwrap();
    server.wait_for(&token);
    let terminal = Terminal::new(&server);
    terminal.apify(&["login", "--token", &token]);
    let id = store.rsplit_once('/').unwrap().1;
    for arguments in [&["set-value", id, "key", "1"][..], &["rm", id, "--yes"]] {
        // It takes a store that it may not see for one that is not there.
        terminal.complaint(arguments);
    }
    assert_eq!(server.client().get(&store).status, 200);
}

#[test]
fn the_commands_inside_an_actor_read_and_write_its_default_store() {
    let server = Served::in_layout(Layout::Dual);
    let run = server.client().get(&format!("/v2/actor-runs/{RUN}")).data();
    let id = run["defaultKeyValueStoreId"].as_str().unwrap();
    let path = format!("/v2/key-value-stores/{id}");
    let put = |key: &str, body: &[u8]| {
        server
            .client()
            .put(&format!("{path}/records/{key}"), "application/json", body)
    };
    put("INPUT", br#"{"from":"first"}"#);
    put("INPUT-METAMORPH-1", br#"{"from":"second"}"#);
    let terminal = Terminal::new(&server)
        .with("APIFY_IS_AT_HOME", "1")
        .with("APIFY_TOKEN", &server.token)
        .with("ACTOR_RUN_ID", RUN)
        .with("ACTOR_INPUT_KEY", "INPUT-METAMORPH-1")
        .with("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", id);
    let input: Value = serde_json::from_str(&terminal.actor(&["get-input"])).unwrap();
    assert_eq!(input, json!({"from": "second"}));
    terminal.actor(&["set-value", "OUTPUT", r#"{"x":1}"#]);
    let output: Value = serde_json::from_str(&terminal.actor(&["get-value", "OUTPUT"])).unwrap();
    assert_eq!(output, json!({"x": 1}));
    // What is piped in, is sent as it is.
    let mut piped = tempfile::tempfile().unwrap();
    piped.write_all("z roury 🐎\n".as_bytes()).unwrap();
    std::io::Seek::rewind(&mut piped).unwrap();
    let mut command = terminal.command("actor");
    command.args([
        "set-value",
        "piped",
        "-",
        "--content-type",
        "text/plain; charset=utf-8",
    ]);
    Terminal::good(
        clients::ended_with(&mut command, piped.into()),
        &["set-value", "-"],
    );
    let record = server.client().get(&format!("{path}/records/piped"));
    assert_eq!(
        record.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(String::from_utf8(record.body).unwrap(), "z roury 🐎\n");
    terminal.actor(&["set-value", "OUTPUT", "null"]);
    assert_eq!(
        server
            .client()
            .get(&format!("{path}/records/OUTPUT"))
            .status,
        404
    );
    let url = terminal.actor(&["get-public-url", "piped"]);
    let signed = url.trim().split_once("/v2/").unwrap().1;
    assert_eq!(
        server
            .client_with(None)
            .get(&format!("/v2/{signed}"))
            .status,
        200
    );
}
