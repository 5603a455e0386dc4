//! The OpenAPI document of what this server does, made from the table of endpoints.

use super::{reply, routes};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

/// The document.
pub(super) fn document(base: &str) -> Response {
    let mut paths = serde_json::Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = json!({"responses": {}});
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {"title": "storefs serve", "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": base}],
        "paths": paths,
    });
    reply::json(StatusCode::OK, document.to_string())
}
