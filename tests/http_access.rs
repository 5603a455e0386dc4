//! Who may do what: tokens, other users, open stores, and a server that takes any token.
#![allow(clippy::unwrap_used)]

mod http;

use http::{Client, Reply, Served};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};
use storefs::serve::Users;

const ALL: &str = "/v2/key-value-stores";
const NO_PERMISSION: &str = "Insufficient permissions for the key-value store. Make sure you're passing a correct API \
                             token and that it has the required permissions.";

/// Asks until the answer is as wanted: the server looks at its tokens now and then.
fn until(status: u16, ask: impl Fn() -> Reply) -> Reply {
    for _ in 0..200 {
        let reply = ask();
        if reply.status == status {
            return reply;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never {status}: {:?}", ask());
}

#[test]
fn without_a_token_and_with_a_wrong_one_nothing_is_told() {
    let served = Served::memory();
    let store = served.store("s");
    served
        .client()
        .put(&format!("{store}/records/a"), "text/plain", b"x");
    let nobody = served.client_with(None);
    let wrong = served.client_with(Some("storefs_aaaaaaaa_bbbbbbbb"));
    for (method, path) in [
        ("GET", ALL.to_owned()),
        ("POST", ALL.to_owned()),
        ("GET", store.clone()),
        ("PUT", store.clone()),
        ("DELETE", store.clone()),
        ("GET", format!("{store}/keys")),
        ("GET", format!("{store}/records")),
        ("GET", format!("{store}/records/a")),
        ("PUT", format!("{store}/records/a")),
        ("POST", format!("{store}/records/a")),
        ("DELETE", format!("{store}/records/a")),
        ("GET", format!("{store}/changes")),
        ("GET", format!("{ALL}/aaaaaaaaaaaaaaaaa")),
        ("GET", format!("{ALL}/aaaaaaaaaaaaaaaaa/records/a")),
        ("GET", "/v2/users/me".to_owned()),
        ("GET", "/v2/actor-runs/aaaaaaaaaaaaaaaaa".to_owned()),
        (
            "PUT",
            "/v2/actor-runs/aaaaaaaaaaaaaaaaa/key-value-store/records/a".to_owned(),
        ),
    ] {
        let reply = nobody.send(method, &path, &[], b"");
        reply.assert_error(401, "token-not-provided");
        wrong
            .send(method, &path, &[], b"")
            .assert_error(401, "invalid-token");
    }
    for scheme in ["Basic YTpi", "Bearer", "Token x", &served.token] {
        let reply = nobody.get_with(ALL, &[("authorization", scheme)]);
        reply.assert_error(401, "invalid-token");
    }
    assert_eq!(
        served.client().get(&format!("{store}/records/a")).body,
        b"x"
    );
}

#[test]
fn a_token_in_the_query_is_as_good_as_in_the_header() {
    let served = Served::memory();
    let token = &served.token;
    let nobody = served.client_with(None);
    assert_eq!(nobody.get(&format!("{ALL}?token={token}")).status, 200);
    assert_eq!(nobody.get(&format!("{ALL}?token=")).status, 401);
    let made = nobody.get(&format!("{ALL}?method=POST&name=via-get&token={token}"));
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("{ALL}/via-get/records/a");
    assert_eq!(
        nobody
            .get(&format!("{path}?method=put&token={token}"))
            .status,
        201
    );
    assert_eq!(
        nobody
            .get(&format!("{path}?method=HEAD&token={token}"))
            .status,
        200
    );
    assert_eq!(
        nobody
            .get(&format!("{path}?method=DELETE&token={token}"))
            .status,
        204
    );
    // Only a GET can be turned into something else.
    let kept = nobody.send(
        "POST",
        &format!("{path}?method=DELETE&token={token}"),
        &[],
        b"x",
    );
    assert_eq!(kept.status, 201);
}

#[test]
fn a_read_only_token_reads() {
    let served = Served::memory();
    let store = served.store("s");
    let path = format!("{store}/records/a");
    served.client().put(&path, "text/plain", b"x");
    let token = served.tokens.add("ann", true, None).unwrap();
    let reader = served.client_with(Some(&token));
    until(200, || reader.get(&path));
    assert_eq!(reader.get(&format!("{store}/keys")).status, 200);
    assert_eq!(reader.post(&format!("{ALL}?name=s"), b"").status, 200);
    let forbidden = (403, "insufficient-permissions".to_owned());
    for (method, path) in [
        ("PUT", &path),
        ("DELETE", &path),
        ("PUT", &store),
        ("DELETE", &store),
        ("POST", &format!("{ALL}?name=new")),
        ("POST", &ALL.to_owned()),
    ] {
        assert_eq!(
            reader.send(method, path, &[], b"").error(),
            forbidden,
            "{method} {path}"
        );
    }
    assert_eq!(served.client().get(&path).body, b"x");
    // A run whose default store is not there yet is not there either, and to ask for it makes nothing.
    let run = "/v2/actor-runs/aRun0000000000000";
    reader.get(run).assert_error(404, "record-not-found");
    assert_eq!(served.client().get(run).status, 200);
    assert_eq!(reader.get(run).status, 200);
}

#[test]
fn tokens_come_end_and_expire_without_a_restart() {
    let served = Served::memory();
    let bob = served.client_of("bob");
    assert_eq!(bob.get("/v2/users/me").data()["username"], "bob");
    let soon = SystemTime::now() + Duration::from_millis(1500);
    let brief = served.tokens.add("bob", false, Some(soon)).unwrap();
    let brief_client = served.client_with(Some(&brief));
    until(200, || brief_client.get(ALL));
    until(401, || brief_client.get(ALL)).assert_error(401, "invalid-token");
    served.tokens.revoke(&served.token).unwrap();
    until(401, || served.client().get(ALL));
    assert_eq!(bob.get(ALL).status, 200);
}

#[test]
fn the_file_of_tokens_is_private_and_holds_no_token() {
    let served = Served::memory();
    let path = served.tokens.path();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(path).unwrap();
    let secret = served.token.rsplit('_').next().unwrap();
    assert!(secret.len() >= 32 && !text.contains(secret));
    let other = served.tokens.add("ann", false, None).unwrap();
    assert_ne!(served.token, other);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    let refused = served.tokens.read().unwrap_err();
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    for wrong in ["", "a b", "a/b", "me", "a~b"] {
        assert!(served.tokens.add(wrong, false, None).is_err(), "{wrong}");
    }
}

#[test]
fn another_user_sees_and_changes_nothing() {
    let served = Served::memory();
    let store = served.store("private");
    let record = format!("{store}/records/a");
    served.client().put(&record, "text/plain", b"x");
    let bob = served.client_of("bob");
    for (method, path) in [
        ("GET", &store),
        ("PUT", &store),
        ("DELETE", &store),
        ("GET", &format!("{store}/keys")),
        ("GET", &format!("{store}/records")),
        ("GET", &record),
        ("PUT", &record),
        ("DELETE", &record),
        ("GET", &format!("{ALL}/ann~private/records/a")),
        ("GET", &format!("{store}/changes")),
    ] {
        let refused = bob.send(method, path, &[], b"");
        refused.assert_error(403, "insufficient-permissions");
        assert_eq!(refused.json()["error"]["message"], NO_PERMISSION);
    }
    assert_eq!(bob.send("HEAD", &record, &[], b"").status, 403);
    assert_eq!(bob.get(&format!("{ALL}?unnamed=1")).data()["total"], 0);
    // The same name is another store of this user's own.
    bob.get(&format!("{ALL}/private"))
        .assert_error(404, "record-not-found");
    let own = bob.post(&format!("{ALL}?name=private"), b"");
    assert_eq!(own.status, 201);
    assert_eq!(own.data()["username"], "bob");
    assert!(!store.ends_with(own.data()["id"].as_str().unwrap()));
    assert_eq!(bob.get(&format!("{ALL}/ann~private")).status, 403);
    assert_eq!(
        served.client().get(&format!("{ALL}/bob~private")).status,
        403
    );
    assert_eq!(served.client().get(&record).body, b"x");
    let public = bob.get("/v2/users/ann").data();
    assert_eq!(public["username"], "ann");
    assert_eq!(public.get("email"), None);
}

#[test]
fn an_open_store_is_read_by_everybody_and_changed_by_its_owner() {
    let served = Served::memory();
    let store = served.store("open");
    let record = format!("{store}/records/a");
    served.client().put(&record, "text/plain", b"x");
    let (nobody, bob) = (served.client_with(None), served.client_of("bob"));
    let by_name = format!("{ALL}/ann~open/records/a");
    let set = |access: &str| {
        let body = format!("{{\"generalAccess\":\"{access}\"}}");
        let set = served
            .client()
            .put(&store, "application/json", body.as_bytes());
        assert_eq!(set.status, 200, "{set:?}");
    };
    let reads = |client: &Client, path: &str| client.get(path).status == 200;
    for (access, id, name) in [
        ("ANYONE_WITH_ID_CAN_READ", true, false),
        ("ANYONE_WITH_NAME_CAN_READ", true, true),
        ("RESTRICTED", false, false),
        ("FOLLOW_USER_SETTING", false, false),
    ] {
        set(access);
        for client in [&nobody, &bob] {
            assert_eq!(reads(client, &record), id, "{access}");
            assert_eq!(reads(client, &format!("{store}/keys")), id, "{access}");
            assert_eq!(reads(client, &format!("{store}/records")), id, "{access}");
            assert_eq!(reads(client, &store), id, "{access}");
            assert_eq!(reads(client, &by_name), name, "{access}");
            assert!(client.put(&record, "text/plain", b"y").status >= 401);
            assert!(client.delete(&store).status >= 401);
        }
        assert!(reads(&served.client(), &by_name));
    }
    set("ANYONE_WITH_ID_CAN_READ");
    let shown = bob.get(&store).data();
    assert_eq!(shown.get("urlSigningSecretKey"), None);
    assert!(
        !shown["keysPublicUrl"]
            .as_str()
            .unwrap()
            .contains("signature")
    );
}

#[test]
fn a_server_that_takes_any_token_is_for_programs_of_its_own_machine() {
    let served = Served::with(|options| options.users = Users::AnyToken("ann".to_owned()));
    let anybody = served.client_with(Some("whatever"));
    assert_eq!(anybody.post(&format!("{ALL}?name=s"), b"").status, 201);
    let me = anybody.get("/v2/users/me").data();
    assert_eq!(
        (&me["username"], me["id"].as_str().unwrap().len()),
        (&"ann".into(), 17)
    );
    served
        .client_with(None)
        .get(ALL)
        .assert_error(401, "token-not-provided");
    for page in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let refused = anybody.get_with(ALL, &[page]);
        refused.assert_error(403, "insufficient-permissions");
    }
    let head = "GET /v2/key-value-stores HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer x\r\n\
                connection: close\r\n\r\n";
    anybody
        .raw(&[head.as_bytes()], "GET")
        .assert_error(403, "insufficient-permissions");
}

#[test]
fn any_token_on_an_address_of_the_network_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let tokens = storefs::serve::tokens::TokenFile::new(temp.path().join("t"));
    let mut options = http::options(temp.path(), &tokens);
    options.users = Users::AnyToken("ann".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let backend = std::sync::Arc::new(storefs::backend::memory::Memory::new());
    let refused = storefs::serve::Server::new(backend, listener, options);
    let why = refused.err().map(|why| why.to_string()).unwrap_or_default();
    assert!(
        why.contains("loopback") && why.contains("token new"),
        "{why}"
    );
}
