//! What README.md says of SDK processes that work beside a mount.
//! Must never wait a fixed time.
#![allow(clippy::unwrap_used)]

mod sdk;
mod support;

use sdk::project::{Layout, Project};
use sdk::{Flavour, Given, Sdk};

const TEXT: &str = "text/plain; charset=utf-8";

// README: S87, S88
#[test]
fn a_running_js_process_is_lost_after_a_record_it_knew_went_and_a_new_one_is_not() {
    for layout in [Layout::Js, Layout::Dual] {
        for change in ["delete", "type"] {
            let project = Project::new();
            let mount = project.mount(layout);
            mount.make_store("default");
            mount.write_typed("default", "notes", b"words", TEXT);
            mount.write_typed("default", "page", b"<p>", TEXT);
            let mut sdk = Sdk::start(Flavour::Js, &project.root());
            assert_eq!(sdk.list(None).len(), 2);
            if change == "delete" {
                mount.remove("default", "page");
            } else {
                mount
                    .set_type("default", "page", "text/html; charset=utf-8")
                    .unwrap();
            }
            let what = format!("{layout:?}, {change}");
            if (layout, change) == (Layout::Dual, "type") {
                // It falls back to the name without an extension, which is our link, and takes the bytes for text.
                assert_eq!(sdk.value(None, "page"), Given::text("<p>"), "{what}");
                assert_eq!(sdk.list(None).len(), 2, "{what}");
            } else {
                let said = sdk.complaint_of_get("page").unwrap_or_default();
                assert!(said.contains("Could not find file at"), "{what}: {said}");
                let said = sdk.complaint_of_list().unwrap_or_default();
                assert!(said.contains("Could not find file at"), "{what}: {said}");
            }
            // The rest of the process works on.
            assert_eq!(sdk.value(None, "notes"), Given::text("words"), "{what}");
            sdk.finish();
            let mut sdk = Sdk::start(Flavour::Js, &project.root());
            assert_eq!(
                sdk.list(None).len(),
                if change == "delete" { 1 } else { 2 },
                "{what}"
            );
            sdk.finish();
        }
    }
}
