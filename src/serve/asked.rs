//! One request as the operations see it: its path in parts, its query, its headers.

use super::problem::{Answer, Problem};
use super::query::Query;
use super::routes::{Operation, Root};
use crate::record::Key;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

/// A request that has a route.
#[derive(Clone)]
pub(super) struct Asked {
    /// What it asks for.
    pub operation: Operation,
    /// How its path says which store is meant.
    pub root: Root,
    /// Everything but its body.
    pub parts: Parts,
}

impl Asked {
    /// Takes a request apart.
    pub(super) fn of(
        operation: Operation,
        root: Root,
        request: axum::http::Request<Body>,
    ) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let asked = Self {
            operation,
            root,
            parts,
        };
        (asked, body)
    }

    /// Its headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Its query.
    pub(super) fn query(&self) -> Query<'_> {
        Query(self.parts.uri.query().unwrap_or(""))
    }

    /// The part of the path at this place, decoded once. The first part has number 0.
    pub(super) fn part(&self, number: usize) -> Answer<String> {
        let raw = self.parts.uri.path().split('/').nth(number + 1);
        let text = percent_decode_str(raw.unwrap_or("")).decode_utf8();
        let text = text.map_err(|_| Problem::bad("invalid-id", "The path is not UTF-8."))?;
        Ok(text.into_owned())
    }

    /// What stands where the path says which store, run, Actor, task or user is meant.
    pub(super) fn reference(&self) -> Answer<String> {
        self.part(2)
    }

    /// The key: the last part of the path, decoded exactly once.
    pub(super) fn key(&self) -> Answer<Key> {
        let raw = self.parts.uri.path().rsplit('/').next().unwrap_or("");
        let text = percent_decode_str(raw).decode_utf8().ok();
        let key = text.and_then(|text| Key::new(&text).ok());
        key.ok_or_else(|| {
            Problem::bad(
                "invalid-record-key",
                "Record key contains invalid character. A key has 1 to 256 of the characters \
                 a-z A-Z 0-9 ! - _ . ' ( ) and is neither \".\" nor \"..\".",
            )
        })
    }
}
