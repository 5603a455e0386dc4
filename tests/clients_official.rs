//! The official clients work against a server as they are. Each is a real one, in a process that makes many checks; the
//! folder is read afterwards by processes of the SDKs, which know nothing of a server.
#![allow(clippy::unwrap_used)]

mod clients;
mod http;
mod sdk;
mod support;

use http::Served;
use sdk::{Case, Flavour, Sdk, cases};
use storefs::backend::dir::Layout;

/// The store in which every client leaves the cases, and a record of 20 MB.
const STORE: &str = "cases";

/// Fresh processes of both SDKs find in the folder what a client has set through the server.
fn the_sdks_find_the_cases(server: &Served) {
    let root = server.path().join("storage");
    for flavour in [Flavour::Js, Flavour::Python] {
        let mut sdk = Sdk::start(flavour, &root);
        let listed = sdk.list(Some(STORE));
        for Case {
            id,
            key,
            content_type,
            bytes,
        } in &cases()
        {
            assert!(listed.contains(key), "{flavour:?} finds no {id}");
            let read = sdk.get(Some(STORE), key).unwrap();
            assert_eq!(read.content_type, *content_type, "{flavour:?}, {id}");
            let unreadable =
                content_type.starts_with("text/") && std::str::from_utf8(bytes).is_err();
            let holds = (flavour == Flavour::Python && unreadable) || read.holds(bytes);
            assert!(holds, "{flavour:?}, {id}: {read:?}");
        }
        assert!(sdk.exists(Some(STORE), "stream"));
        assert!(!sdk.exists(Some(STORE), "gone"));
        sdk.finish();
    }
}

#[test]
fn the_javascript_client_works_unchanged() {
    let server = Served::in_layout(Layout::Dual);
    let mut command = clients::node();
    command.arg(clients::script("js.mjs"));
    clients::run(&server, command, 13);
    the_sdks_find_the_cases(&server);
}

#[test]
fn the_python_client_works_unchanged() {
    let server = Served::in_layout(Layout::Dual);
    let mut command = clients::python();
    command.arg(clients::script("py.py")).arg("sync");
    clients::run(&server, command, 12);
    the_sdks_find_the_cases(&server);
}

#[test]
fn the_asynchronous_python_client_works_unchanged() {
    let server = Served::in_layout(Layout::Dual);
    let mut command = clients::python();
    command.arg(clients::script("py.py")).arg("async");
    clients::run(&server, command, 12);
    the_sdks_find_the_cases(&server);
}

#[test]
fn the_clients_work_unchanged_on_stores_in_memory() {
    let mut command = clients::node();
    command.arg(clients::script("js.mjs"));
    clients::run(&Served::memory(), command, 13);
}
