//! Answers: JSON, dates, headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use std::time::{Duration, SystemTime};

/// The last second of 9999: no time that is told lies behind it.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// JSON that is written already.
pub(super) fn json(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// `{"data": ...}`.
pub(super) fn data(status: StatusCode, data: &serde_json::Value) -> Response {
    json(status, format!("{{\"data\":{data}}}"))
}

/// 204.
pub(super) fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Sets a header, if its value can stand in one.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn within_reach(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + since.min(LAST)
}

/// A time of the API: ISO 8601 in UTC with milliseconds.
pub(super) fn iso(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(within_reach(time)).to_string()
}

/// A time of HTTP.
pub(super) fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(within_reach(time))
}
