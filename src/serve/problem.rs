//! What goes wrong, in the words of the API: a status, a type from its list, a message. It never shows a client what only
//! the operator should know.

use crate::error::{Error, Kind};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

/// What an operation answers.
pub(super) type Answer<T = Response> = Result<T, Problem>;

/// The API's own words when somebody may not use a store.
const NO_PERMISSION: &str = "Insufficient permissions for the key-value store. Make sure you're passing a correct API \
                             token and that it has the required permissions.";

/// A refusal or a failure.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// A header that goes with the status.
    extra: Option<(HeaderName, String)>,
}

impl Problem {
    /// Any problem.
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            extra: None,
        }
    }

    /// 400 with this type.
    pub(super) fn bad(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, message)
    }

    /// 404 for a store.
    pub(super) fn no_store() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "record-not-found",
            "Store was not found.",
        )
    }

    /// 404 for a record.
    pub(super) fn no_record() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "record-not-found",
            "Record was not found.",
        )
    }

    /// 404 for a path that is none.
    pub(super) fn no_page() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "page-not-found",
            "There is nothing at this path. Check it: a store or a key may be missing from it.",
        )
    }

    /// 401 without a token.
    pub(super) fn no_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "token-not-provided",
            "Authentication token was not provided",
        )
    }

    /// 401 with a token that is not known, revoked or expired.
    pub(super) fn bad_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid-token",
            "Authentication token is not valid.",
        )
    }

    /// 403.
    pub(super) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "insufficient-permissions",
            NO_PERMISSION,
        )
    }

    /// 403 for a token that only reads.
    pub(super) fn read_only_token() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "insufficient-permissions",
            "Insufficient permissions: this API token may only read.",
        )
    }

    /// 405 with the methods that there are.
    pub(super) fn method(allowed: &[&str]) -> Self {
        let allowed = allowed.join(",");
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            format!(
                "This API end-point can only be accessed using the following HTTP methods: {allowed}"
            ),
        );
        problem.extra = Some((header::ALLOW, allowed));
        problem
    }

    /// 412.
    pub(super) fn changed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "The record is not in the state that the request demands.",
        )
    }

    /// 503 for what is taken by others for now.
    pub(super) fn busy(message: &str, again: Duration) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut problem = Self::new(status, "internal-server-error", message);
        problem.extra = Some((header::RETRY_AFTER, again.as_secs().to_string()));
        problem
    }

    /// 416 for a range that lies behind the end.
    pub(super) fn no_such_range(size: u64) -> Self {
        let mut problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "invalid-value",
            format!("The record has {size} bytes; none of the range exists."),
        );
        problem.extra = Some((header::CONTENT_RANGE, format!("bytes */{size}")));
        problem
    }

    /// 501 for what the API has and this server has not.
    pub(super) fn not_here(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", message)
    }

    /// What is no request, with the status that hyper gives it.
    pub(super) fn no_request(status: StatusCode, limit: usize) -> Self {
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => Self::new(
                status,
                "invalid-header",
                format!(
                    "The head of the request is too long (limit: {limit} bytes, {} headers).",
                    super::connection::HEADERS
                ),
            ),
            _ => Self::new(
                status,
                "invalid-request",
                "This is not a request of HTTP/1.1. Check the path for spaces, and the headers, above all Content-Length \
                 and Transfer-Encoding.",
            ),
        }
    }

    /// 413 for a record.
    pub(super) fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "record-too-large",
            format!("The record is too large (limit: {limit} bytes)."),
        )
    }

    /// The same, when what is not valid is a key.
    pub(super) fn about_key(mut self) -> Self {
        if self.kind == "invalid-input" {
            self.kind = "invalid-record-key";
        }
        self
    }

    /// The JSON that says it.
    pub(super) fn envelope(&self) -> String {
        json!({"error": {"type": self.kind, "message": self.message}}).to_string()
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, kind) = meaning(error.kind());
        if status == StatusCode::NOT_FOUND && error.kind() != Kind::StoreNotFound {
            return Self::no_record();
        } else if error.kind() == Kind::StoreNotFound {
            return Self::no_store();
        } else if error.kind() == Kind::Changed {
            return Self::changed();
        }
        // What the operator has to mend is for the log. The client gets the reason without paths.
        let hidden = status == StatusCode::FORBIDDEN
            || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
        let message = if hidden {
            tracing::error!("{error}");
            let reason = error.kind().reason();
            format!("The server could not do this: {reason}. Its log says more.")
        } else {
            error.to_string()
        };
        Self::new(status, kind, message)
    }
}

/// Status and type of each kind.
fn meaning(kind: Kind) -> (StatusCode, &'static str) {
    match kind {
        Kind::NotFound
        | Kind::StoreNotFound
        | Kind::NoAttribute
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::Loop => (StatusCode::NOT_FOUND, "record-not-found"),
        Kind::Invalid => (StatusCode::BAD_REQUEST, "invalid-input"),
        Kind::NameTooLong => (StatusCode::BAD_REQUEST, "invalid-record-key"),
        Kind::Range => (StatusCode::BAD_REQUEST, "invalid-value"),
        Kind::Exists => (StatusCode::CONFLICT, "name-not-unique"),
        Kind::NotEmpty => (StatusCode::CONFLICT, "operation-not-allowed"),
        Kind::Stale => (StatusCode::CONFLICT, "concurrent-update-detected"),
        Kind::Denied | Kind::NotPermitted | Kind::ReadOnly => {
            (StatusCode::FORBIDDEN, "operation-not-allowed")
        }
        Kind::Changed => (StatusCode::PRECONDITION_FAILED, "precondition-failed"),
        Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "record-too-large"),
        Kind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "not-implemented"),
        Kind::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "internal-server-error"),
        Kind::Busy | Kind::Exhausted | Kind::Offline | Kind::TimedOut => {
            (StatusCode::SERVICE_UNAVAILABLE, "internal-server-error")
        }
        Kind::CrossDevice | Kind::Corrupt | Kind::Io => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal-server-error")
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.envelope()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"storefs\""),
            );
        }
        if let Some((name, value)) = self.extra
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
        response
    }
}
