//! Content encodings of requests: which one an upload has, which ones a client accepts.

use super::problem::{Answer, Problem};
pub(super) use crate::record::encoding::Encoding;
use axum::http::{HeaderMap, StatusCode, header};

/// Those that records may be sent in. The API knows no others.
const UPLOADS: [Encoding; 3] = [Encoding::Brotli, Encoding::Gzip, Encoding::Deflate];

impl Encoding {
    /// How the body of a request is encoded; `None` for not at all. 415 for anything that is not known.
    pub(super) fn of_upload(headers: &HeaderMap) -> Answer<Option<Self>> {
        let mut found = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            let name = text.trim();
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            match Self::named(name) {
                Some(encoding) if found.is_none() && UPLOADS.contains(&encoding) => {
                    found = Some(encoding)
                }
                _ => {
                    return Err(Problem::new(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        "unsupported-content-encoding",
                        format!("Content-Encoding \"{name}\" is not supported."),
                    ));
                }
            }
        }
        Ok(found)
    }

    /// Whether the client accepts a body encoded so.
    pub(super) fn is_accepted(self, headers: &HeaderMap) -> bool {
        let mut by_star = false;
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            let Ok(text) = value.to_str() else { continue };
            for choice in text.split(',') {
                let (name, weight) = choice.split_once(';').unwrap_or((choice, ""));
                let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse);
                let wanted = weight.is_ok_and(|weight: f32| weight > 0.0);
                if name.trim().eq_ignore_ascii_case(self.name()) {
                    return wanted;
                }
                by_star |= name.trim() == "*" && wanted;
            }
        }
        by_star
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_client_accepts_follows_names_and_weights() {
        let accepts = |text: &str, encoding: Encoding| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            encoding.is_accepted(&headers)
        };
        assert!(accepts("gzip, compress, deflate, br", Encoding::Brotli));
        assert!(accepts("zstd,GZIP", Encoding::Gzip));
        assert!(!accepts("gzip;q=0, *", Encoding::Gzip));
        assert!(accepts("gzip;q=0, *", Encoding::Brotli));
        assert!(!accepts("identity", Encoding::Deflate));
        assert!(accepts("br;q=0.5", Encoding::Brotli));
        assert!(!Encoding::Gzip.is_accepted(&HeaderMap::new()));
    }
}
