//! Signed URLs: each opens what it signs for reading, for as long as it says, and nothing else.
#![allow(clippy::unwrap_used)]

mod http;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::Served;
use std::time::{SystemTime, UNIX_EPOCH};

/// As the official clients do it.
fn sign(secret: &str, message: &str) -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let mut number = u128::from_str_radix(&hex[..30], 16).unwrap();
    let mut text = Vec::new();
    while number > 0 {
        text.insert(0, DIGITS[(number % 62) as usize]);
        number /= 62;
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_signature_opens_one_record_for_reading() {
    let served = Served::memory();
    let store = served.store("s");
    let client = served.client();
    for key in ["a", "b", "it's"] {
        client.put(
            &format!("{store}/records/{key}"),
            "text/plain",
            key.as_bytes(),
        );
    }
    let secret = client.get(&store).data()["urlSigningSecretKey"]
        .as_str()
        .unwrap()
        .to_owned();
    let (nobody, bob) = (served.client_with(None), served.client_of("bob"));
    let of_a = sign(&secret, "a");
    for client in [&nobody, &bob] {
        let get = |path: &str| client.get(&format!("{store}{path}?signature={of_a}"));
        assert_eq!(get("/records/a").body, b"a");
        get("/records/b").assert_error(403, "insufficient-permissions");
        get("/keys").assert_error(403, "insufficient-permissions");
        get("/records").assert_error(403, "insufficient-permissions");
        assert!([401, 403].contains(&get("").status));
        let path = format!("{store}/records/a?signature={of_a}");
        assert_eq!(client.send("HEAD", &path, &[], b"").status, 200);
        assert!([401, 403].contains(&client.put(&path, "text/plain", b"!").status));
        assert!([401, 403].contains(&client.delete(&path).status));
        let quoted = format!("{store}/records/it%27s?signature={}", sign(&secret, "it's"));
        assert_eq!(client.get(&quoted).body, b"it's");
    }
    for wrong in ["", "x", &of_a[1..], &format!("{of_a}0")] {
        let refused = nobody.get(&format!("{store}/records/a?signature={wrong}"));
        assert!([401, 403].contains(&refused.status), "{wrong}");
    }
    assert_eq!(client.get(&format!("{store}/records/a")).body, b"a");
}

#[test]
fn a_signature_opens_the_listing_until_it_expires() {
    let served = Served::memory();
    let store = served.store("s");
    let client = served.client();
    client.put(&format!("{store}/records/a"), "text/plain", b"x");
    let shown = client.get(&store).data();
    let (id, secret) = (
        shown["id"].as_str().unwrap(),
        shown["urlSigningSecretKey"].as_str().unwrap(),
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let token = |expires: u128| {
        let signature = sign(secret, &format!("0.{expires}.{id}"));
        format!("0.{expires}.{signature}")
    };
    let nobody = served.client_with(None);
    for text in [token(0), token(now + 60_000)] {
        for encoded in [
            URL_SAFE.encode(&text).replace('=', "%3D"),
            URL_SAFE_NO_PAD.encode(&text),
        ] {
            let listed = nobody.get(&format!("{store}/keys?signature={encoded}"));
            assert_eq!(listed.status, 200, "{listed:?}");
            let url = listed.data()["items"][0]["recordPublicUrl"]
                .as_str()
                .unwrap()
                .to_owned();
            let path = url
                .split_once(&served.address.to_string())
                .unwrap()
                .1
                .to_owned();
            assert_eq!(nobody.get(&path).body, b"x");
            assert_eq!(
                nobody
                    .get(&format!("{store}/records?signature={encoded}"))
                    .status,
                200
            );
            let record = nobody.get(&format!("{store}/records/a?signature={encoded}"));
            record.assert_error(403, "insufficient-permissions");
        }
    }
    let late = URL_SAFE_NO_PAD.encode(token(now - 1));
    let refused = nobody.get(&format!("{store}/keys?signature={late}"));
    refused.assert_error(403, "insufficient-permissions");
    let other = served.store("other");
    let never = URL_SAFE_NO_PAD.encode(token(0));
    let refused = nobody.get(&format!("{other}/keys?signature={never}"));
    refused.assert_error(403, "insufficient-permissions");
    let url = shown["keysPublicUrl"].as_str().unwrap();
    assert_eq!(
        nobody
            .get(url.split_once(&served.address.to_string()).unwrap().1)
            .status,
        200
    );
}
