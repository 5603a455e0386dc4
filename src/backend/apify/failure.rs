//! What answers and broken connections mean. Nothing of a token, a signature or an endless message gets into an error.

use super::base::{Token, place_of};
use crate::backend::trouble::Trouble;
use crate::error::{Error, Kind};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use std::error::Error as _;
use std::io;
use std::time::{Duration, SystemTime};

/// The most characters of a server's own words.
const MESSAGE: usize = 300;
/// The longest rest that a server can ask for.
const LONGEST_REST: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Envelope {
    error: Told,
}

/// What a server says of a failure.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Told {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

impl Told {
    /// It does not speak as the API does.
    pub(super) fn is_nothing(&self) -> bool {
        self.kind.is_empty()
    }

    /// From the body of an answer, which may be anything.
    pub(super) fn of(body: &[u8]) -> Self {
        serde_json::from_slice::<Envelope>(body).map_or_else(|_| Self::default(), |it| it.error)
    }
}

/// What was asked for, as far as errors go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub op: &'static str,
    pub subject: &'a str,
    /// Whether something was to be changed.
    pub writes: bool,
}

impl Asked<'_> {
    /// An error that stays one.
    pub(super) fn wrong(&self, why: impl Into<String>) -> Error {
        Trouble::lasting(why).error(self.op, self.subject, Kind::Corrupt)
    }

    /// The answer was not the one hoped for.
    pub(super) fn refused(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        told: &Told,
        token: Option<&Token>,
    ) -> Error {
        let mut why = format!("the server answered {status}");
        for part in [&told.kind, &told.message] {
            let part = readable(part, token);
            if !part.is_empty() {
                why += ": ";
                why += &part;
            }
        }
        why += advice(status);
        let trouble = match status.as_u16() {
            408 | 429 => Trouble::passing(why).after(rest_asked(headers)),
            501 | 505 | 507 => Trouble::lasting(why),
            // Who stands between may have passed the request on before it said so.
            500.. => Trouble::passing(why)
                .unsure(self.writes)
                .after(rest_asked(headers)),
            _ => Trouble::lasting(why),
        };
        trouble.error(self.op, self.subject, kind_of(status, &told.kind))
    }

    /// There was no answer, or it broke off.
    pub(super) fn broken(&self, why: &reqwest::Error) -> Error {
        let kind = kind_of_broken(why);
        let said = reasons(why);
        if why.is_builder() {
            return Trouble::lasting(said).error(self.op, self.subject, Kind::Invalid);
        }
        let sent = kind != Kind::Offline;
        Trouble::passing(said)
            .unsure(self.writes && sent)
            .error(self.op, self.subject, kind)
    }

    /// Nothing moved for so long.
    pub(super) fn stalled(&self, time: Duration) -> Error {
        let why = format!("the server has not answered and taken nothing for {time:?}");
        Trouble::passing(why).silent().unsure(self.writes).error(
            self.op,
            self.subject,
            Kind::TimedOut,
        )
    }
}

fn kind_of(status: StatusCode, told: &str) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Denied,
        402 | 507 => Kind::NoSpace,
        404 => Kind::NotFound,
        405 | 501 => Kind::Unsupported,
        // A rate limit that outlasts all tries is no progress in time.
        408 | 429 => Kind::TimedOut,
        409 if told == "name-not-unique" => Kind::Exists,
        409 | 412 => Kind::Changed,
        413 => Kind::TooLarge,
        400..500 => Kind::Invalid,
        500.. => Kind::Io,
        _ => Kind::Corrupt,
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => " (check the token: APIFY_TOKEN or the token file)",
        403 => " (the token has no right to this)",
        _ => "",
    }
}

fn kind_of_broken(why: &reqwest::Error) -> Kind {
    if why.is_connect() {
        return Kind::Offline;
    }
    let mut cause = why.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
            )
        {
            return Kind::Offline;
        }
        cause = error.source();
    }
    if why.is_timeout() {
        Kind::TimedOut
    } else {
        Kind::Io
    }
}

/// All causes in one line, without the URL.
pub(super) fn reasons(why: &reqwest::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    if why.is_connect() {
        let place = why.url().map_or_else(|| "the server".to_owned(), place_of);
        said.push(format!("no connection to {place}"));
    }
    let mut cause = why.source();
    while let Some(error) = cause {
        let text = readable(&error.to_string(), None);
        // Some causes repeat the one below them, and one says only what is said already.
        let empty = text == "client error (Connect)";
        if !empty && !said.iter().any(|known| known.contains(&text)) {
            said.push(text);
        }
        cause = error.source();
    }
    if said.is_empty() {
        said.push("the request failed".to_owned());
    }
    let mut said = said.join(": ");
    // The first bytes were no TLS.
    if said.contains("InvalidContentType") {
        said += " (it does not speak TLS: http:// instead of https://?)";
    }
    said
}

/// Words of a server, made fit for one line of a log.
fn readable(text: &str, token: Option<&Token>) -> String {
    let short: String = text.chars().take(MESSAGE * 4).collect();
    let hidden = token.map_or_else(|| short.clone(), |token| token.hidden_in(&short));
    let plain = hidden.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = plain.take(MESSAGE).collect();
    if hidden.chars().count() > MESSAGE {
        plain.push('…');
    }
    plain.trim().to_owned()
}

/// `Retry-After`, in seconds or as a date.
pub(super) fn rest_asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let when = httpdate::parse_http_date(text).ok()?;
            when.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(asked.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backend::trouble::{is_passing, is_unsure, wait_asked};

    fn answered(status: u16, body: &str, writes: bool) -> Error {
        let asked = Asked {
            op: "put",
            subject: "s/k",
            writes,
        };
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let token = Token::new("s3cr3t").unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        asked.refused(status, &headers, &Told::of(body.as_bytes()), Some(&token))
    }

    #[test]
    fn each_status_has_its_meaning() {
        for (status, kind, passing, unsure) in [
            (400, Kind::Invalid, false, false),
            (401, Kind::Denied, false, false),
            (402, Kind::NoSpace, false, false),
            (403, Kind::Denied, false, false),
            (404, Kind::NotFound, false, false),
            (412, Kind::Changed, false, false),
            (413, Kind::TooLarge, false, false),
            (429, Kind::TimedOut, true, false),
            (500, Kind::Io, true, true),
            (501, Kind::Unsupported, false, false),
            (503, Kind::Io, true, true),
            (507, Kind::NoSpace, false, false),
        ] {
            let error = answered(status, "<html>", true);
            assert_eq!(error.kind(), kind, "{status}");
            assert_eq!((is_passing(&error), is_unsure(&error)), (passing, unsure));
            assert!(!is_unsure(&answered(status, "", false)), "a read");
        }
        assert_eq!(
            wait_asked(&answered(429, "", false)),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_message_is_one_short_line_without_the_token() {
        let body = format!(
            r#"{{"error": {{"type": "t", "message": "you sent s3cr3t\n\u001b[31m{}"}}}}"#,
            "x".repeat(5000)
        );
        let text = answered(400, &body, true).to_string();
        assert!(
            text.starts_with("put s/k: the server answered 400 Bad Request: t: you sent ***"),
            "{text}"
        );
        assert!(
            text.len() < 500 && !text.contains(char::is_control),
            "{text}"
        );
    }

    #[test]
    fn a_rest_is_asked_for_in_seconds_or_as_a_date() {
        let mut headers = HeaderMap::new();
        assert_eq!(rest_asked(&headers), None);
        for (text, least, most) in [
            ("0", 0, 0),
            ("99999999999", 3600, 3600),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ] {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let rest = rest_asked(&headers).unwrap().as_secs();
            assert!((least..=most).contains(&rest), "{text}");
        }
        headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(rest_asked(&headers), None);
    }
}
