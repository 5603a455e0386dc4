//! Signatures of public URLs, as the official clients compute them. It never sees a token.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The first 120 bits of the HMAC-SHA256 of the message, in base 62.
fn sign(secret: &str, message: &str) -> String {
    // An HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(message.as_bytes());
    let digest = mac.finalize().into_bytes();
    base62(
        digest[..15]
            .iter()
            .fold(0, |number, byte| number << 8 | u128::from(*byte)),
    )
}

fn base62(mut number: u128) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS[(number % 62) as usize]);
        number /= 62;
        if number == 0 {
            break;
        }
    }
    digits.reverse();
    digits.into_iter().map(char::from).collect()
}

/// The signature of a record's URL.
pub fn of_key(secret: &str, key: &str) -> String {
    sign(secret, key)
}

/// The signature of a store's listing that never expires.
pub fn of_store(secret: &str, store: &str) -> String {
    let signature = sign(secret, &format!("0.0.{store}"));
    URL_SAFE_NO_PAD.encode(format!("0.0.{signature}"))
}

/// Whether this signs the record of this key.
pub fn opens_key(secret: &str, key: &str, signature: &str) -> bool {
    same(&of_key(secret, key), signature)
}

/// Whether this signs the store's listing, at `now` in milliseconds since 1970.
pub fn opens_store(secret: &str, store: &str, signature: &str, now: u64) -> bool {
    let Ok(content) = URL_SAFE
        .decode(signature)
        .or_else(|_| URL_SAFE_NO_PAD.decode(signature))
    else {
        return false;
    };
    let Ok(content) = String::from_utf8(content) else {
        return false;
    };
    let mut parts = content.splitn(3, '.');
    let (Some("0"), Some(expires), Some(given)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let in_time = match expires.parse::<u64>() {
        Ok(0) => true,
        Ok(expires) => now < expires,
        Err(_) => false,
    };
    in_time && same(&sign(secret, &format!("0.{expires}.{store}")), given)
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3tKey0123456789ab";
    const STORE: &str = "WkzbQMuFYuamGv3YF";

    #[test]
    fn keys_are_signed_as_the_clients_sign_them() {
        for (key, signature) in [
            ("OUTPUT", "qZ9Ppgvyiq1QXveOxie6"),
            ("obj", "ua9jguXbZFUAKc8blpdq"),
            ("k1", "1ivMEhUFeGI5q9sECAyCz"),
        ] {
            assert_eq!(of_key(SECRET, key), signature);
            assert!(opens_key(SECRET, key, signature));
            assert!(!opens_key(SECRET, "other", signature));
            assert!(!opens_key("another secret", key, signature));
        }
    }

    #[test]
    fn a_listing_opens_padded_or_not_until_it_expires() {
        for token in [
            "MC4wLjEyakJ4aWJad1h4SGE0TGZmUTRyVQ==",
            "MC4wLjEyakJ4aWJad1h4SGE0TGZmUTRyVQ",
        ] {
            assert!(opens_store(SECRET, STORE, token, u64::MAX));
            assert!(!opens_store(SECRET, "AnotherStore00001", token, 0));
        }
        assert_eq!(
            of_store(SECRET, STORE),
            "MC4wLjEyakJ4aWJad1h4SGE0TGZmUTRyVQ"
        );
        let timed = "MC4xNzk1NDEwODI5NTE1LjF1TnNkS1BIalFGUU1tcnhvcVU2eQ==";
        assert!(opens_store(SECRET, STORE, timed, 1_795_410_829_514));
        assert!(!opens_store(SECRET, STORE, timed, 1_795_410_829_515));
        for broken in ["", "MC4w", "????", "MS4wLjEyakJ4aWJad1h4SGE0TGZmUTRyVQ"] {
            assert!(!opens_store(SECRET, STORE, broken, 0));
        }
    }

    #[test]
    fn numbers_have_the_digits_of_base_62() {
        for (number, text) in [(0, "0"), (61, "Z"), (62, "10"), (3843, "ZZ")] {
            assert_eq!(base62(number), text);
        }
    }
}
