//! The OpenAPI document of what this server does, made from the table of endpoints.

use super::problem::Answer;
use super::reply;
use super::routes::{self, OPERATIONS, Operation, Root, Route};
use crate::error::{Error, Kind};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Parameters, schemas and error answers, which the operations refer to.
const COMPONENTS: &str = include_str!("components.json");

const ABOUT: &str = "The key-value-store part of the Apify API v2. What is called an extension is not in that API: sizes, \
                     types, times and tags in listings, conditions and ranges, and the changes of a store.";

/// What the document says of an operation.
struct Told {
    summary: &'static str,
    parameters: &'static [&'static str],
    /// Content type and schema of the body; a schema of `""` is any bytes.
    body: Option<(&'static str, &'static str)>,
    /// Statuses of success, with content type and schema.
    answers: &'static [(&'static str, &'static str, &'static str)],
    errors: &'static [&'static str],
}

const JSON: &str = "application/json";
const READ: &[&str] = &["401", "403", "404", "405", "503"];
const WRITE: &[&str] = &[
    "400", "401", "403", "404", "405", "408", "409", "413", "503",
];

fn told(operation: Operation) -> Told {
    let (summary, parameters, body, answers, errors): (_, &[_], _, &[_], &[_]) = match operation {
        Operation::ListStores => (
            "List the caller's stores, by age",
            &["offset", "limit", "desc", "unnamed", "ownership"],
            None,
            &[("200", JSON, "StoreList")],
            &["400", "401", "405", "503"],
        ),
        Operation::CreateStore => (
            "Get the caller's store of this name, or make it",
            &["name"],
            Some((JSON, "NewStore")),
            &[("200", JSON, "StoreAnswer"), ("201", JSON, "StoreAnswer")],
            &["400", "401", "403", "405", "408", "409", "413", "503"],
        ),
        Operation::GetStore => (
            "Get a store",
            &[],
            None,
            &[("200", JSON, "StoreAnswer")],
            READ,
        ),
        Operation::UpdateStore => (
            "Change the name, the title, the access or the schema of a store",
            &[],
            Some((JSON, "StoreChange")),
            &[("200", JSON, "StoreAnswer")],
            WRITE,
        ),
        Operation::DeleteStore => (
            "Delete a store with its records",
            &[],
            None,
            &[("204", "", "")],
            READ,
        ),
        Operation::ListKeys => (
            "List the keys of a store, in byte order",
            &[
                "limit",
                "exclusiveStartKey",
                "prefix",
                "collection",
                "signature",
            ],
            None,
            &[("200", JSON, "KeyList")],
            &["400", "401", "403", "404", "405", "501", "503"],
        ),
        Operation::GetRecords => (
            "Get the records of a store as a ZIP archive",
            &["prefix", "collection", "signature"],
            None,
            &[("200", "application/zip", "")],
            &["400", "401", "403", "404", "405", "501", "503"],
        ),
        Operation::GetRecord => (
            "Get a record",
            &[
                "signature",
                "attachment",
                "ifMatch",
                "ifNoneMatch",
                "ifModifiedSince",
                "range",
            ],
            None,
            &[("200", "*/*", ""), ("206", "*/*", ""), ("304", "", "")],
            &["400", "401", "403", "404", "405", "412", "416", "503"],
        ),
        Operation::HeadRecord => (
            "Tell whether a record exists, and what is known of it",
            &["signature", "ifMatch", "ifNoneMatch", "ifModifiedSince"],
            None,
            &[("200", "", ""), ("304", "", "")],
            &["400", "401", "403", "404", "405", "412", "503"],
        ),
        Operation::PutRecord => (
            "Store a record, which is replaced whole",
            &["contentEncoding", "ifMatch", "ifNoneMatch"],
            Some(("*/*", "")),
            &[("201", JSON, "")],
            &[
                "400", "401", "403", "404", "405", "408", "412", "413", "415", "503",
            ],
        ),
        Operation::DeleteRecord => (
            "Delete a record; one that is not there is deleted already",
            &["ifMatch", "ifNoneMatch"],
            None,
            &[("204", "", "")],
            &["400", "401", "403", "404", "405", "412", "503"],
        ),
        Operation::Changes => (
            "Extension: the changes of a store, as server-sent events",
            &["lastEventId", "lastEventIdHeader"],
            None,
            &[("200", "text/event-stream", "")],
            &["400", "401", "403", "404", "405", "501", "503"],
        ),
        Operation::Me => (
            "Get the caller",
            &[],
            None,
            &[("200", JSON, "PrivateUser")],
            &["401", "405"],
        ),
        Operation::User => (
            "Get a user",
            &[],
            None,
            &[("200", JSON, "PublicUser")],
            &["400", "401", "404", "405"],
        ),
        Operation::Run => ("Get a run", &[], None, &[("200", JSON, "Run")], READ),
        Operation::UpdateRun => (
            "Set the status message of a run",
            &[],
            Some((JSON, "RunChange")),
            &[("200", JSON, "Run")],
            WRITE,
        ),
        Operation::Document => (
            "Get this document",
            &[],
            None,
            &[("200", JSON, "")],
            &["405"],
        ),
        Operation::Health => (
            "Tell whether the server serves",
            &[],
            None,
            &[("200", JSON, "Health")],
            &["405", "503"],
        ),
        Operation::Metrics => (
            "Get counters, for Prometheus",
            &[],
            None,
            &[("200", "text/plain", "")],
            &["405"],
        ),
        Operation::Unknown => ("", &[], None, &[], &[]),
    };
    Told {
        summary,
        parameters,
        body,
        answers,
        errors,
    }
}

/// The document.
pub(super) fn document(base: &str) -> Answer {
    let components: Value = serde_json::from_str(COMPONENTS).map_err(|why| {
        Error::because(
            "read the components of",
            "the document",
            Kind::Corrupt,
            why.to_string(),
        )
    })?;
    let mut paths = serde_json::Map::new();
    for route in routes::all() {
        let method = route.method.to_ascii_lowercase();
        let described = described(&route);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = described;
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "storefs serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
        },
        "servers": [{"url": base}],
        "security": [{"httpBearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": components,
    });
    Ok(reply::json(StatusCode::OK, document.to_string()))
}

fn described(route: &Route) -> Value {
    let told = told(route.operation);
    let of_path = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{'));
    let mut parameters: Vec<&str> = of_path.map(|part| part.trim_end_matches('}')).collect();
    if matches!(route.root, Root::ActorsLastRun | Root::TasksLastRun) {
        parameters.extend(["status", "origin"]);
    }
    parameters.extend(told.parameters);
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| reference("parameters", name))
        .collect();
    let mut responses = serde_json::Map::new();
    for (status, content_type, schema) in told.answers {
        responses.insert((*status).to_owned(), success(status, content_type, schema));
    }
    for status in told.errors {
        responses.insert(
            (*status).to_owned(),
            reference("responses", error_of(status)),
        );
    }
    let mut described = json!({
        "operationId": operation_id(route),
        "summary": told.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((content_type, schema)) = told.body {
        described["requestBody"] = json!({
            "required": false,
            "content": {content_type: {"schema": schema_of(schema)}},
        });
    }
    if matches!(
        route.operation,
        Operation::Document | Operation::Health | Operation::Metrics
    ) {
        described["security"] = json!([]);
    }
    // A signature opens these, and some stores are open to anybody.
    if matches!(
        route.operation,
        Operation::User
            | Operation::GetStore
            | Operation::ListKeys
            | Operation::GetRecords
            | Operation::GetRecord
            | Operation::HeadRecord
            | Operation::Changes
    ) {
        described["security"] = json!([{}, {"httpBearer": []}, {"apiKey": []}]);
    }
    described
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn schema_of(name: &str) -> Value {
    match name {
        "" => json!({}),
        name => reference("schemas", name),
    }
}

fn success(status: &str, content_type: &str, schema: &str) -> Value {
    let description = match status {
        "201" => "It is stored.",
        "204" => "It is gone.",
        "206" => "Extension: the part that was asked for.",
        "304" => "Extension: it has not changed.",
        _ => "Here it is.",
    };
    match content_type {
        "" => json!({"description": description}),
        content_type => json!({
            "description": description,
            "content": {content_type: {"schema": schema_of(schema)}},
        }),
    }
}

/// The name of what an error status is answered with.
fn error_of(status: &str) -> &'static str {
    match status {
        "400" => "BadRequest",
        "401" => "Unauthorized",
        "403" => "Forbidden",
        "404" => "NotFound",
        "405" => "MethodNotAllowed",
        "408" => "RequestTimeout",
        "409" => "Conflict",
        "412" => "PreconditionFailed",
        "413" => "PayloadTooLarge",
        "415" => "UnsupportedMediaType",
        "416" => "RangeNotSatisfiable",
        "501" => "NotImplemented",
        _ => "Unavailable",
    }
}

fn operation_id(route: &Route) -> String {
    let (_, name) = OPERATIONS[route.operation as usize];
    let before = match route.root {
        Root::Run => "run_",
        Root::ActorsLastRun if route.path.starts_with("/v2/acts") => "act_last_run_",
        Root::ActorsLastRun => "actor_last_run_",
        Root::TasksLastRun => "task_last_run_",
        Root::Store | Root::None => "",
    };
    let after = if route.method == "POST" && route.operation == Operation::PutRecord {
        "_by_post"
    } else {
        ""
    };
    format!("{before}{name}{after}")
}
