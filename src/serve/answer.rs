//! From a request to its answer: the route, the request's id, the count, the line in the log. It never looks into a store.

use super::asked::Asked;
use super::problem::{Answer, Problem};
use super::refused::{Answering, Turn, transfer};
use super::routes::{self, ELSEWHERE, Operation, Root};
use super::{Door, archive, changes, keys, openapi, records, reply, stores, users};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use hyper::body::{Body as _, Incoming};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower_service::Service;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The router of all endpoints.
pub(super) fn router(door: Arc<Door>) -> Router {
    let mut paths: BTreeMap<String, MethodRouter<Arc<Door>>> = BTreeMap::new();
    for route in routes::all() {
        let (operation, root) = (route.operation, route.root);
        let answer = on(
            filter(route.method),
            move |State(door): State<Arc<Door>>, request: Request| {
                dispatch(door, operation, root, request)
            },
        );
        let known = paths.remove(&route.path).unwrap_or_default();
        paths.insert(route.path, known.merge(answer));
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(&path, methods);
    }
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(door)
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "HEAD" => MethodFilter::HEAD,
        "PUT" => MethodFilter::PUT,
        "POST" => MethodFilter::POST,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

async fn dispatch(door: Arc<Door>, operation: Operation, root: Root, request: Request) -> Response {
    let (asked, body) = Asked::of(operation, root, request);
    // A missing store or key leaves an empty part, and what is left must not be taken for the path of something else.
    let path = asked.parts.uri.path();
    let answer = match path.contains("//") || path.ends_with('/') {
        true => Err(Problem::no_page()),
        false => operate(&door, &asked, body).await,
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(operation);
    response
}

async fn operate(door: &Arc<Door>, asked: &Asked, body: Body) -> Answer {
    match asked.operation {
        Operation::ListStores => stores::list(door, asked).await,
        Operation::CreateStore => stores::create(door, asked, body).await,
        Operation::GetStore => stores::get(door, asked).await,
        Operation::UpdateStore => stores::update(door, asked, body).await,
        Operation::DeleteStore => stores::delete(door, asked).await,
        Operation::ListKeys => keys::list(door, asked).await,
        Operation::GetRecords => archive::get(door, asked).await,
        Operation::GetRecord => records::get(door, asked, false).await,
        Operation::HeadRecord => records::get(door, asked, true).await,
        Operation::PutRecord => records::put(door, asked, body).await,
        Operation::DeleteRecord => records::delete(door, asked).await,
        Operation::Changes => changes::follow(door, asked).await,
        Operation::Me => users::me(door, asked),
        Operation::User => users::user(door, asked),
        Operation::Run => door.show_run(asked).await,
        Operation::UpdateRun => door.update_run(asked, body).await,
        Operation::Document => openapi::document(&door.base(asked)),
        Operation::Health => health(door),
        Operation::Metrics => Ok(door.metrics.answer()),
        Operation::Unknown => Err(Problem::no_page()),
    }
}

fn health(door: &Door) -> Answer {
    if *door.ending.borrow() {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "internal-server-error",
            "The server is ending.",
        ));
    }
    Ok(reply::json(StatusCode::OK, r#"{"status":"ok"}"#))
}

const NOTHING_ELSE: &str =
    "This server has the key-value stores of the Apify API and nothing else of it.";
const NO_QUEUES: &str = "This server has the key-value stores of the Apify API, no request queues and no datasets. In a run on a \
    folder an Actor can keep those in the folder: storefs run --env APIFY_IS_AT_HOME= -- COMMAND, or in Python \
    storefs run --env APIFY_IS_AT_HOME=0 -- COMMAND";

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let mut parts = path.split('/').skip(1);
    let elsewhere =
        parts.next() == Some("v2") && parts.next().is_some_and(|part| ELSEWHERE.contains(&part));
    let problem = if elsewhere && path.ends_with("/metamorph") {
        Problem::not_here(
            "This server cannot start another Actor in the place of this one. In a run of storefs run, call the program: \
             storefs metamorph --input INPUT -- COMMAND",
        )
    } else if elsewhere {
        let crawls = path.starts_with("/v2/request-queues") || path.starts_with("/v2/datasets");
        Problem::not_here(match crawls {
            true => NO_QUEUES,
            false => NOTHING_ELSE,
        })
    } else {
        Problem::no_page()
    };
    problem.into_response()
}

async fn no_method(request: Request) -> Response {
    let methods = routes::methods(request.uri().path());
    Problem::method(&methods).into_response()
}

/// Answers one request. It always succeeds: what goes wrong is an answer, too.
pub(super) async fn answer(
    door: Arc<Door>,
    mut router: Router,
    turn: Arc<Turn>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Answering>, Infallible> {
    let started = Instant::now();
    turn.asked();
    let mut request = request.map(Body::new);
    let id = door.metrics.request_id(request.headers().get(&REQUEST_ID));
    let method = overridden(&request);
    if let Some(method) = method {
        *request.method_mut() = method;
    }
    let method = request.method().clone();
    let uri = request.uri().clone();
    let may_go_on = !request.body().is_end_stream();
    let going = door.metrics.begin();
    let mut response = match transfer(request.headers()) {
        Ok(()) => router.call(request).await?,
        Err(problem) => closing(problem),
    };
    let operation = response.extensions().get::<Operation>().copied();
    let operation = operation.unwrap_or(Operation::Unknown);
    let spent = started.elapsed();
    door.metrics.end(operation, response.status(), spent);
    drop(going);
    if may_go_on && response.status().as_u16() >= 400 {
        turn.refused();
    }
    told(
        method.as_str(),
        uri.path(),
        response.status(),
        spent,
        id.to_str().unwrap_or(""),
    );
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response.map(|body| Answering::new(body, turn)))
}

/// An answer after which nothing is taken from the connection.
fn closing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// The line of an answer in the log. Never the query: tokens and signatures stand in it.
pub(super) fn told(method: &str, path: &str, status: StatusCode, spent: Duration, id: &str) {
    // Tenths of a millisecond.
    let tenths = u64::try_from((spent.as_micros() + 50) / 100).unwrap_or(u64::MAX);
    let (whole, part) = (tenths / 10, tenths % 10);
    tracing::info!(
        target: "access",
        "{method} {path} {} {whole}.{part}ms {id}",
        status.as_u16(),
    );
}

/// The method that `?method=` of a GET demands.
fn overridden(request: &Request) -> Option<Method> {
    if request.method() != Method::GET {
        return None;
    }
    let query = request.uri().query()?;
    let name = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("method="))?;
    match name.to_ascii_uppercase().as_str() {
        "HEAD" => Some(Method::HEAD),
        "PUT" => Some(Method::PUT),
        "POST" => Some(Method::POST),
        "DELETE" => Some(Method::DELETE),
        _ => None,
    }
}

/// Whether a request's own id may be kept.
pub(super) fn is_request_id(id: &HeaderValue) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    !id.is_empty() && id.len() <= 64 && id.as_bytes().iter().all(legal)
}
