//! What a command finds in its environment: the variables that SDKs read on the platform, and where the mount is. It is the
//! only place that knows their names.

use crate::serve::Run;
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Says where the control socket of a run is.
pub const CONTROL: &str = "STOREFS_RUN_SOCKET";
/// Nothing of the platform has this id; SDKs want one.
const NOTHING: &str = "storefs0000000000";

/// Variables that would tell of another run, or of what a run here does not have.
const NOT_OURS: [&str; 10] = [
    "ACTOR_TASK_ID",
    "APIFY_ACTOR_TASK_ID",
    "ACTOR_EVENTS_WEBSOCKET_URL",
    "APIFY_ACTOR_EVENTS_WS_URL",
    "ACTOR_TIMEOUT_AT",
    "APIFY_TIMEOUT_AT",
    "ACTOR_MOUNT",
    "APIFY_TOKEN",
    "APIFY_ACTOR_PRICING_INFO",
    "APIFY_CHARGED_ACTOR_EVENT_COUNTS",
];

/// Variables that change with a metamorph.
const INPUT_KEYS: [&str; 3] = ["ACTOR_INPUT_KEY", "APIFY_INPUT_KEY", "CRAWLEE_INPUT_KEY"];

/// What a run's environment is made of.
pub(super) struct Setting<'s> {
    pub run: &'s Run,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// The default store's directory in the storage folder.
    pub directory: &'s str,
    pub storage: Option<&'s Path>,
    pub input_key: &'s str,
    pub base_url: &'s str,
    pub token: Option<&'s str>,
    pub user: &'s str,
    /// The API knows of the run.
    pub is_known: bool,
    pub mountpoint: Option<&'s Path>,
    pub control: &'s Path,
}

/// Names and values; `None` takes a variable away.
pub(super) type Variables = Vec<(OsString, Option<OsString>)>;

fn iso(time: std::time::SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The variables of a run.
pub(super) fn variables(setting: &Setting<'_>) -> Variables {
    let run = setting.run;
    let mut set: Vec<(&str, OsString)> = Vec::new();
    let mut put = |names: &[&'static str], value: &dyn Fn() -> OsString| {
        set.extend(names.iter().map(|name| (*name, value())));
    };
    let text = |value: &str| OsString::from(value);
    put(
        &["ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID", "APIFY_ACT_RUN_ID"],
        &|| text(&run.id),
    );
    put(&["ACTOR_ID", "APIFY_ACTOR_ID", "APIFY_ACT_ID"], &|| {
        text(&run.actor)
    });
    put(&["ACTOR_BUILD_ID", "APIFY_ACTOR_BUILD_ID"], &|| {
        text(NOTHING)
    });
    put(&["ACTOR_BUILD_NUMBER", "APIFY_ACTOR_BUILD_NUMBER"], &|| {
        text("0.0.1")
    });
    put(
        &[
            "ACTOR_DEFAULT_KEY_VALUE_STORE_ID",
            "APIFY_DEFAULT_KEY_VALUE_STORE_ID",
        ],
        &|| text(&run.store),
    );
    // Without the SDK, Crawlee knows no API: it opens the folder, where the store goes by its directory's name.
    put(&["CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID"], &|| {
        text(setting.directory)
    });
    put(
        &[
            "ACTOR_DEFAULT_DATASET_ID",
            "APIFY_DEFAULT_DATASET_ID",
            "CRAWLEE_DEFAULT_DATASET_ID",
            "ACTOR_DEFAULT_REQUEST_QUEUE_ID",
            "APIFY_DEFAULT_REQUEST_QUEUE_ID",
            "CRAWLEE_DEFAULT_REQUEST_QUEUE_ID",
        ],
        &|| text(&run.id),
    );
    put(&INPUT_KEYS, &|| text(setting.input_key));
    put(&["ACTOR_STORAGES_JSON"], &|| {
        let storages = serde_json::json!({
            "keyValueStores": {"default": run.store},
            "datasets": {"default": run.id},
            "requestQueues": {"default": run.id},
        });
        storages.to_string().into()
    });
    if let Some(token) = setting.token {
        put(&["APIFY_TOKEN"], &|| text(token));
    }
    put(
        &[
            "APIFY_API_BASE_URL",
            "APIFY_API_PUBLIC_BASE_URL",
            "APIFY_CLIENT_BASE_URL",
        ],
        &|| text(setting.base_url),
    );
    put(&["APIFY_IS_AT_HOME"], &|| text("1"));
    put(&["APIFY_META_ORIGIN"], &|| text("API"));
    put(&["APIFY_USER_ID"], &|| text(setting.user));
    put(&["ACTOR_STARTED_AT", "APIFY_STARTED_AT"], &|| {
        iso(run.started).into()
    });
    if let Some(timeout) = setting.timeout {
        put(&["ACTOR_TIMEOUT_AT", "APIFY_TIMEOUT_AT"], &|| {
            iso(run.started + timeout).into()
        });
    }
    put(&["ACTOR_MEMORY_MBYTES", "APIFY_MEMORY_MBYTES"], &|| {
        run.memory_mbytes.to_string().into()
    });
    // What opens the folder must empty no store in it.
    put(&["CRAWLEE_PURGE_ON_START", "APIFY_PURGE_ON_START"], &|| {
        text("0")
    });
    if let Some(storage) = setting.storage {
        put(&["CRAWLEE_STORAGE_DIR", "APIFY_LOCAL_STORAGE_DIR"], &|| {
            storage.into()
        });
    }
    if !setting.is_known {
        // The SDKs ask the API for the run at their start, unless they are told what they want to know: the price.
        put(&["APIFY_ACTOR_PRICING_INFO"], &|| {
            text(r#"{"pricingModel":"FREE"}"#)
        });
        put(&["APIFY_CHARGED_ACTOR_EVENT_COUNTS"], &|| text("{}"));
    }
    put(&[CONTROL], &|| setting.control.into());
    if let Some(mountpoint) = setting.mountpoint {
        put(&["ACTOR_MOUNT"], &|| mountpoint.into());
    }
    let removed = NOT_OURS.iter().map(|name| (OsString::from(name), None));
    let set = set
        .into_iter()
        .map(|(name, value)| (OsString::from(name), Some(value)));
    removed.chain(set).chain(past_the_proxy()).collect()
}

/// What of these is set again at a metamorph: its environment has the variables already that were set for the run beside these,
/// as they are where it was asked for.
pub(super) fn again(variables: Variables, beside: &[(OsString, OsString)]) -> Variables {
    let is_set = |name: &OsString| beside.iter().any(|(set, _)| set == name);
    let changes = |name: &OsString| INPUT_KEYS.iter().any(|key| name == key);
    let kept = variables.into_iter();
    kept.filter(|(name, _)| changes(name) || !is_set(name))
        .collect()
}

/// Where a proxy is set, clients must not go through it to reach this machine.
fn past_the_proxy() -> Vec<(OsString, Option<OsString>)> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let proxies = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    if !proxies.iter().any(is_set) {
        return Vec::new();
    }
    let names = ["NO_PROXY", "no_proxy"];
    let known = names
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    let direct = match known {
        Some(known) => format!("{known},127.0.0.1,localhost"),
        None => "127.0.0.1,localhost".to_owned(),
    };
    let set = names.map(|name| (OsString::from(name), Some(OsString::from(&direct))));
    set.to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(variables: &Variables, name: &str) -> Option<String> {
        let set = variables.iter().rfind(|(known, _)| known == name)?;
        Some(set.1.as_ref()?.to_str().unwrap().to_owned())
    }

    #[test]
    fn old_and_new_names_agree_and_nothing_of_another_run_is_left() {
        let run = Run::begun("runOfATest0000001", "storeOfATest00001");
        let setting = Setting {
            run: &run,
            timeout: Some(Duration::from_millis(1500)),
            directory: "results",
            storage: Some(Path::new("/s")),
            input_key: "INPUT-METAMORPH-1",
            base_url: "http://127.0.0.1:1",
            token: Some("t"),
            user: "u",
            is_known: true,
            mountpoint: None,
            control: Path::new("/c"),
        };
        let made = variables(&setting);
        for (new, old) in [
            ("ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID"),
            (
                "ACTOR_DEFAULT_KEY_VALUE_STORE_ID",
                "APIFY_DEFAULT_KEY_VALUE_STORE_ID",
            ),
            ("ACTOR_INPUT_KEY", "APIFY_INPUT_KEY"),
            ("ACTOR_TIMEOUT_AT", "APIFY_TIMEOUT_AT"),
            ("ACTOR_MEMORY_MBYTES", "APIFY_MEMORY_MBYTES"),
        ] {
            assert!(value(&made, new).is_some(), "{new}");
            assert_eq!(value(&made, new), value(&made, old), "{new} {old}");
        }
        let at = iso(run.started + Duration::from_millis(1500));
        assert_eq!(value(&made, "ACTOR_TIMEOUT_AT"), Some(at));
        let id = value(&made, "ACTOR_DEFAULT_KEY_VALUE_STORE_ID");
        assert_eq!(id.as_deref(), Some("storeOfATest00001"));
        let directory = value(&made, "CRAWLEE_DEFAULT_KEY_VALUE_STORE_ID");
        assert_eq!(directory.as_deref(), Some("results"));
        for gone in ["ACTOR_MOUNT", "ACTOR_TASK_ID"] {
            assert!(made.contains(&(gone.into(), None)), "{gone}");
        }
        let beside = ["APIFY_IS_AT_HOME", "APIFY_INPUT_KEY", "ACTOR_TASK_ID"];
        let beside = beside.map(|name| (name.into(), "mine".into()));
        let made = again(made, &beside);
        assert_eq!(value(&made, "APIFY_IS_AT_HOME"), None);
        assert!(!made.contains(&("ACTOR_TASK_ID".into(), None)));
        assert!(value(&made, "ACTOR_RUN_ID").is_some());
        let key = value(&made, "APIFY_INPUT_KEY");
        assert_eq!(key.as_deref(), Some("INPUT-METAMORPH-1"));
    }
}
