//! Every endpoint, once. The router, the OpenAPI document and the README's table follow this table.

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Operation {
    ListStores,
    CreateStore,
    GetStore,
    UpdateStore,
    DeleteStore,
    ListKeys,
    GetRecords,
    GetRecord,
    HeadRecord,
    PutRecord,
    DeleteRecord,
    Changes,
    Me,
    User,
    Run,
    UpdateRun,
    Document,
    Health,
    Metrics,
    /// A path or a method that is none.
    Unknown,
}

/// The operations in the order of their numbers.
pub(super) const OPERATIONS: [(Operation, &str); 20] = [
    (Operation::ListStores, "list_stores"),
    (Operation::CreateStore, "create_store"),
    (Operation::GetStore, "get_store"),
    (Operation::UpdateStore, "update_store"),
    (Operation::DeleteStore, "delete_store"),
    (Operation::ListKeys, "list_keys"),
    (Operation::GetRecords, "get_records"),
    (Operation::GetRecord, "get_record"),
    (Operation::HeadRecord, "head_record"),
    (Operation::PutRecord, "put_record"),
    (Operation::DeleteRecord, "delete_record"),
    (Operation::Changes, "changes"),
    (Operation::Me, "me"),
    (Operation::User, "user"),
    (Operation::Run, "run"),
    (Operation::UpdateRun, "update_run"),
    (Operation::Document, "document"),
    (Operation::Health, "health"),
    (Operation::Metrics, "metrics"),
    (Operation::Unknown, "unknown"),
];

/// How a path says which store is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Root {
    /// By a reference to the store itself.
    Store,
    /// The default store of a run.
    Run,
    /// The default store of the last run of an Actor.
    ActorsLastRun,
    /// The default store of the last run of a task.
    TasksLastRun,
    /// The path is not about one store.
    None,
}

/// The paths that lead to one store.
pub(super) const ROOTS: [(Root, &str); 5] = [
    (Root::Store, "/v2/key-value-stores/{storeId}"),
    (Root::Run, "/v2/actor-runs/{runId}/key-value-store"),
    (
        Root::ActorsLastRun,
        "/v2/actors/{actorId}/runs/last/key-value-store",
    ),
    (
        Root::ActorsLastRun,
        "/v2/acts/{actorId}/runs/last/key-value-store",
    ),
    (
        Root::TasksLastRun,
        "/v2/actor-tasks/{actorTaskId}/runs/last/key-value-store",
    ),
];

/// What one store has, below each of the `ROOTS`.
const OF_STORE: [(&str, &str, Operation); 11] = [
    ("GET", "", Operation::GetStore),
    ("PUT", "", Operation::UpdateStore),
    ("DELETE", "", Operation::DeleteStore),
    ("GET", "/keys", Operation::ListKeys),
    ("GET", "/records", Operation::GetRecords),
    ("GET", "/records/{recordKey}", Operation::GetRecord),
    ("HEAD", "/records/{recordKey}", Operation::HeadRecord),
    ("PUT", "/records/{recordKey}", Operation::PutRecord),
    ("POST", "/records/{recordKey}", Operation::PutRecord),
    ("DELETE", "/records/{recordKey}", Operation::DeleteRecord),
    ("GET", "/changes", Operation::Changes),
];

/// The other endpoints.
const OTHERS: [(&str, &str, Operation); 9] = [
    ("GET", "/v2/key-value-stores", Operation::ListStores),
    ("POST", "/v2/key-value-stores", Operation::CreateStore),
    ("GET", "/v2/users/me", Operation::Me),
    ("GET", "/v2/users/{userId}", Operation::User),
    ("GET", "/v2/actor-runs/{runId}", Operation::Run),
    ("PUT", "/v2/actor-runs/{runId}", Operation::UpdateRun),
    ("GET", "/v2/openapi.json", Operation::Document),
    ("GET", "/health", Operation::Health),
    ("GET", "/metrics", Operation::Metrics),
];

/// The paths of the run that began last.
const LAST_RUNS: [(Root, &str); 3] = [
    (Root::ActorsLastRun, "/v2/actors/{actorId}/runs/last"),
    (Root::ActorsLastRun, "/v2/acts/{actorId}/runs/last"),
    (
        Root::TasksLastRun,
        "/v2/actor-tasks/{actorTaskId}/runs/last",
    ),
];

/// First parts of paths that the API has and this server has not.
pub(super) const ELSEWHERE: [&str; 19] = [
    "acts",
    "actors",
    "actor-builds",
    "actor-runs",
    "actor-tasks",
    "browser-info",
    "datasets",
    "key-value-stores-export",
    "logs",
    "request-queues",
    "run-sync",
    "schedules",
    "store",
    "tools",
    "users",
    "webhook-dispatches",
    "webhooks",
    "webhook-templates",
    "actor-events",
];

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// `GET` and so on.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: String,
    /// What it does.
    pub operation: Operation,
    /// How the path says which store is meant.
    pub root: Root,
}

/// Every endpoint.
pub(super) fn all() -> Vec<Route> {
    let others = OTHERS.iter().map(|(method, path, operation)| Route {
        method,
        path: (*path).to_owned(),
        operation: *operation,
        root: Root::None,
    });
    let of_stores = ROOTS.iter().flat_map(|(root, before)| {
        OF_STORE
            .iter()
            .map(move |(method, after, operation)| Route {
                method,
                path: format!("{before}{after}"),
                operation: *operation,
                root: *root,
            })
    });
    let last_runs = LAST_RUNS.iter().map(|(root, path)| Route {
        method: "GET",
        path: (*path).to_owned(),
        operation: Operation::Run,
        root: *root,
    });
    others.chain(last_runs).chain(of_stores).collect()
}

/// The methods of a path that is not a template.
pub(super) fn methods(path: &str) -> Vec<&'static str> {
    let fits = |template: &str| {
        let (mut asked, mut known) = (path.split('/'), template.split('/'));
        loop {
            match (asked.next(), known.next()) {
                (None, None) => return true,
                (Some(part), Some(name)) if name.starts_with('{') && !part.is_empty() => {}
                (Some(part), Some(name)) if part == name => {}
                _ => return false,
            }
        }
    };
    let mut methods = Vec::new();
    // A path may fit two templates: `/v2/users/me` is one, and a user's, too.
    for route in all().into_iter().filter(|route| fits(&route.path)) {
        if !methods.contains(&route.method) {
            methods.push(route.method);
        }
    }
    methods
}
