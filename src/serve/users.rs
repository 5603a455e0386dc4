//! Users: the caller, and what anybody may know of another one.

use super::Door;
use super::asked::Asked;
use super::problem::{Answer, Problem};
use super::reply;
use super::tokens::User;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Features of the platform that clients ask for by name.
const FEATURES: [&str; 10] = [
    "ACTORS",
    "STORAGE",
    "SCHEDULER",
    "PROXY",
    "PROXY_EXTERNAL_ACCESS",
    "PROXY_RESIDENTIAL",
    "PROXY_SERPS",
    "WEBHOOKS",
    "ACTORS_PUBLIC_ALL",
    "ACTORS_PUBLIC_DEVELOPER",
];

/// `GET` of the caller.
pub(super) fn me(door: &Door, asked: &Asked) -> Answer {
    let caller = door.known.caller(asked)?;
    let bearer = caller.ok_or_else(Problem::no_token)?;
    Ok(reply::data(StatusCode::OK, &private(&bearer.user)))
}

/// `GET` of a user, by name or id.
pub(super) fn user(door: &Door, asked: &Asked) -> Answer {
    door.known.caller(asked)?;
    let reference = asked.reference()?;
    let user = door.known.roster().user(&reference).cloned();
    let user = user.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "record-not-found",
            "User was not found.",
        )
    })?;
    Ok(reply::data(StatusCode::OK, &public(&user)))
}

fn public(user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.name,
        "profile": {"name": user.name},
    })
}

/// With every member that the official clients demand. Only the storage is there.
fn private(user: &User) -> Value {
    let features: Map<String, Value> = FEATURES
        .iter()
        .map(|name| {
            let enabled = *name == "STORAGE";
            let feature = json!({
                "isEnabled": enabled,
                "disabledReason": (!enabled).then_some("This server has key-value stores only."),
                "disabledReasonType": (!enabled).then_some("DISABLED"),
                "isTrial": false,
                "trialExpirationAt": null,
            });
            ((*name).to_owned(), feature)
        })
        .collect();
    json!({
        "id": user.id,
        "username": user.name,
        "profile": {"name": user.name},
        "email": format!("{}@storefs.invalid", user.name),
        "proxy": {"password": "", "groups": []},
        "plan": {
            "id": "STOREFS",
            "description": "storefs serve",
            "isEnabled": true,
            "monthlyBasePriceUsd": 0,
            "monthlyUsageCreditsUsd": 0,
            "usageDiscountPercent": 0,
            "enabledPlatformFeatures": ["STORAGE"],
            "maxMonthlyUsageUsd": 0,
            "maxActorMemoryGbytes": 0,
            "maxMonthlyActorComputeUnits": 0,
            "maxMonthlyResidentialProxyGbytes": 0,
            "maxMonthlyProxySerps": 0,
            "maxMonthlyExternalDataTransferGbytes": 0,
            "maxActorCount": 0,
            "maxActorTaskCount": 0,
            "dataRetentionDays": 0,
            "availableProxyGroups": {},
            "teamAccountSeatCount": 1,
            "supportLevel": "COMMUNITY",
            "availableAddOns": [],
            "tier": "FREE",
            "apiRateLimitBoosts": 0,
            "maxScheduleCount": 0,
            "maxConcurrentActorRuns": 0,
        },
        "effectivePlatformFeatures": features,
        "createdAt": "2024-01-01T00:00:00.000Z",
        "isPaying": false,
    })
}
