//! Stores: listed, made, shown, changed, deleted.

use super::Door;
use super::asked::Asked;
use super::auth::{Caller, may_change};
use super::problem::{Answer, Problem};
use super::reply;
use super::upload::receive_json;
use crate::backend::{NewStore, StoreChange, StoreInfo, StoreRef};
use crate::error::Kind;
use crate::record::store::{Access, api_store_name_fault};
use crate::record::{StoreName, signature};
use axum::body::Body;
use axum::http::{StatusCode, header};
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// The most stores of a page.
const PAGE: usize = 1000;

/// A store as the API shows it. The key that signs URLs is for its owner alone.
fn shown(door: &Door, asked: &Asked, caller: &Caller, store: &StoreInfo) -> Value {
    let id = store.id.as_str();
    let url = door.store_url(asked, id);
    let modified = store
        .modified
        .or(store.created)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let created = store.created.unwrap_or(modified);
    let accessed = store.accessed.map_or(modified, |time| time.max(modified));
    let user = door.known.user_of(store);
    let mut keys_url = format!("{url}/keys");
    let owns = door.known.owns(caller, store);
    if let Some(secret) = store.secret.as_ref().filter(|_| owns) {
        keys_url.push_str("?signature=");
        keys_url.push_str(&signature::of_store(secret, id));
    }
    let counts = store.counts;
    let mut stats = json!({
        "readCount": counts.reads,
        "writeCount": counts.writes,
        "deleteCount": counts.deletes,
        "listCount": counts.lists,
    });
    // The official command line cannot show a store of 0 bytes, but one without this number.
    if let Some(bytes) = store.bytes.filter(|bytes| *bytes > 0) {
        stats["s3StorageBytes"] = bytes.into();
        stats["storageBytes"] = bytes.into();
    }
    let mut shown = json!({
        "id": id,
        "name": store.name.as_ref().map(StoreName::as_str),
        "userId": user.as_ref().map(|user| &user.id),
        "username": user.as_ref().map(|user| &user.name),
        "title": store.title,
        "createdAt": reply::iso(created),
        "modifiedAt": reply::iso(modified),
        "accessedAt": reply::iso(accessed),
        "actId": store.actor,
        "actRunId": store.run,
        "consoleUrl": url,
        "keysPublicUrl": keys_url,
        "recordsPublicUrl": format!("{url}/records"),
        "schema": store.schema,
        "generalAccess": store.access.as_str(),
        "stats": stats,
    });
    if owns {
        shown["urlSigningSecretKey"] = json!(store.secret);
    }
    shown
}

/// `GET` of the stores.
pub(super) async fn list(door: &Door, asked: &Asked) -> Answer {
    let caller = door.known.caller(asked)?;
    if caller.is_none() {
        return Err(Problem::no_token());
    }
    let query = asked.query();
    let offset = query.count("offset")?.unwrap_or(0);
    let limit = match query.count("limit")? {
        None | Some(0) => PAGE,
        Some(limit) => limit.min(PAGE),
    };
    let (desc, unnamed) = (query.flag("desc")?, query.flag("unnamed")?);
    let shared = match query.get("ownership")?.as_deref() {
        None | Some("" | "ownedByMe") => false,
        Some("sharedWithMe") => true,
        Some(_) => {
            return Err(Problem::bad(
                "param-not-one-of",
                "The parameter \"ownership\" must be one of ownedByMe, sharedWithMe.",
            ));
        }
    };
    let mut stores = Vec::new();
    let mut after = None;
    // Nobody shares a store with one other user, so there is none to look for.
    let mut more = !shared;
    while more {
        let page = door.backend.stores(after.as_ref()).await?;
        stores.extend(
            page.stores.into_iter().filter(|store| {
                (unnamed || store.name.is_some()) && door.known.owns(&caller, store)
            }),
        );
        match page.next {
            Some(next) => after = Some(next),
            None => more = false,
        }
    }
    stores.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    if desc {
        stores.reverse();
    }
    let page = stores.iter().skip(offset).take(limit);
    let lines: Vec<Value> = page
        .map(|store| shown(door, asked, &caller, store))
        .collect();
    let data = json!({
        "total": stores.len(),
        "offset": offset,
        "limit": limit,
        "desc": desc,
        "count": lines.len(),
        "unnamed": unnamed,
        "items": lines,
    });
    Ok(reply::data(StatusCode::OK, &data))
}

/// `POST` of a store: gets the caller's store of this name, or makes it.
pub(super) async fn create(door: &Door, asked: &Asked, body: Body) -> Answer {
    let caller = door.known.caller(asked)?;
    let bearer = caller.as_ref().ok_or_else(Problem::no_token)?;
    let name = asked.query().get("name")?.filter(|name| !name.is_empty());
    let patience = door.options.limits.patience;
    let mut wanted = receive_json(body, patience).await?.unwrap_or_default();
    let schema = schema(&mut wanted)?.flatten();
    let owner = door.known.owner_of(&bearer.user);
    let name = match name.as_deref() {
        None => None,
        Some(name) => {
            let found = match StoreName::new(name) {
                Ok(name) => {
                    let reference = StoreRef::Name {
                        owner: owner.clone(),
                        name,
                    };
                    door.backend.store(&reference).await
                }
                Err(error) => Err(error),
            };
            match found {
                Ok(store) => {
                    let data = shown(door, asked, &caller, &store);
                    return Ok(reply::data(StatusCode::OK, &data));
                }
                Err(error) if matches!(error.kind(), Kind::StoreNotFound | Kind::Invalid) => {}
                Err(error) => return Err(error.into()),
            }
            Some(new_name(name)?)
        }
    };
    may_change(bearer)?;
    let new = NewStore {
        name,
        owner,
        schema,
        ..NewStore::default()
    };
    let (store, made) = door.backend.create_store(new).await?;
    door.remembered.clear();
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = reply::data(status, &shown(door, asked, &caller, &store));
    if made {
        let url = door.store_url(asked, store.id.as_str());
        reply::set(response.headers_mut(), header::LOCATION, &url);
    }
    Ok(response)
}

/// The name of a new store, by the rule of the API.
fn new_name(name: &str) -> Answer<StoreName> {
    match api_store_name_fault(name) {
        None => Ok(StoreName::new(name)?),
        Some(why) => Err(Problem::bad(
            "invalid-input",
            format!("The store name is not valid: {why}."),
        )),
    }
}

fn schema(wanted: &mut Map<String, Value>) -> Answer<Option<Option<Value>>> {
    match wanted.remove("schema") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(schema @ Value::Object(_)) => Ok(Some(Some(schema))),
        Some(_) => Err(Problem::bad(
            "invalid-input",
            "\"schema\" must be an object.",
        )),
    }
}

/// `GET` of a store.
pub(super) async fn get(door: &Door, asked: &Asked) -> Answer {
    let (store, caller) = door.to_read(asked, None).await?;
    // What was remembered serves to find a store, not to show it.
    let info = door
        .backend
        .store(&StoreRef::Id(store.info.id.clone()))
        .await?;
    Ok(reply::data(
        StatusCode::OK,
        &shown(door, asked, &caller, &info),
    ))
}

/// `PUT` of a store.
pub(super) async fn update(door: &Door, asked: &Asked, body: Body) -> Answer {
    let store = door.to_write(asked).await?;
    let caller = door.known.caller(asked)?;
    let wanted = receive_json(body, door.options.limits.patience).await?;
    let mut wanted = wanted.unwrap_or_default();
    let text = |wanted: &mut Map<String, Value>, name: &str| match wanted.remove(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => Ok(Some(Some(text))),
        Some(_) => Err(Problem::bad(
            "invalid-input",
            format!("\"{name}\" must be a string or null."),
        )),
    };
    let name = match text(&mut wanted, "name")? {
        Some(Some(name)) => {
            let same = store
                .info
                .name
                .as_ref()
                .is_some_and(|known| known.as_str() == name);
            // A folder may have names that the API does not give out; they can be kept.
            (!same).then(|| new_name(&name).map(Some)).transpose()?
        }
        Some(None) => Some(None),
        None => None,
    };
    let title = text(&mut wanted, "title")?;
    let access = match text(&mut wanted, "generalAccess")?.flatten() {
        None => None,
        Some(access) => Some(access.parse::<Access>().map_err(|_| {
            Problem::bad(
                "param-not-one-of",
                "\"generalAccess\" must be one of FOLLOW_USER_SETTING, RESTRICTED, \
                 ANYONE_WITH_ID_CAN_READ, ANYONE_WITH_NAME_CAN_READ.",
            )
        })?),
    };
    let change = StoreChange {
        name,
        title,
        access,
        schema: schema(&mut wanted)?,
    };
    let changed = door.backend.update_store(&store.info.id, change).await;
    door.remembered.clear();
    Ok(reply::data(
        StatusCode::OK,
        &shown(door, asked, &caller, &changed?),
    ))
}

/// `DELETE` of a store.
pub(super) async fn delete(door: &Door, asked: &Asked) -> Answer {
    let store = door.to_write(asked).await?;
    let deleted = door.backend.delete_store(&store.info.id).await;
    door.remembered.clear();
    deleted?;
    door.sent.forget_store(store.info.id.as_str()).await;
    Ok(reply::empty())
}
