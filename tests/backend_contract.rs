//! One contract for every backend: each clause runs against each place of records.
#![allow(clippy::unwrap_used)]

mod contract;
mod http;
mod remote;

use contract::World;
use http::Served;
use std::sync::Arc;
use storefs::backend::dir::{DirBackend, Folder, FolderOptions, Layout};
use storefs::backend::faulty::Faulty;
use storefs::backend::memory::Memory;
use storefs::record::key::MAX_KEY;
use tempfile::TempDir;

/// A folder that holds nothing yet.
fn folder(layout: Option<Layout>) -> World {
    let root = TempDir::new().unwrap();
    let options = FolderOptions {
        layout,
        ..FolderOptions::default()
    };
    // One level down, so that nothing beside it tells of a project.
    let opened = Folder::open(&root.path().join("storage"), options).unwrap();
    World::new(Arc::new(DirBackend::new(opened)), Some(root))
}

/// The same where the system is not asked what changes.
fn polled(layout: Layout) -> World {
    let root = TempDir::new().unwrap();
    let options = FolderOptions {
        layout: Some(layout),
        ..FolderOptions::default()
    };
    let opened = Folder::open(&root.path().join("storage"), options).unwrap();
    World::new(Arc::new(DirBackend::polling(opened)), Some(root))
}

/// A server in this process, asked over the network, whose abilities have shown.
fn served(server: Served, max_key: usize) -> World {
    let remote = remote::opened(&server);
    let world = World::remote(remote.clone(), server, max_key);
    let store = world.create("warm-up").id;
    world.put(&contract::record(&store, "k"), b"x", "text/plain");
    let detected = world.wait(remote.inner().detect(&store)).unwrap();
    assert!(
        detected.conditional_put
            && detected.ranged_get
            && detected.exact_sizes
            && detected.change_feed,
        "{detected:?}"
    );
    world.wait(world.backend.delete_store(&store)).unwrap();
    world
}

/// Makes a module per backend with a test per clause.
macro_rules! contract {
    ($($name:ident: $make:expr;)*) => {
        $(contract! { @one $name $make, records: [
            bytes_and_types_come_back
            an_empty_record_is_a_record
            a_record_of_3_megabytes_comes_back
            a_file_is_as_good_a_body_as_bytes
            types_are_kept_verbatim
            the_input_is_kept_whatever_its_type
            every_class_of_key_is_kept
            the_longest_key_is_kept
            a_range_is_cut_at_the_end
            a_missing_record_is_not_found
            an_overwrite_replaces_bytes_type_and_tag
            a_deleted_record_is_gone
            a_reader_keeps_the_version_it_opened
        ], listing: [
            keys_are_listed_in_byte_order
            pages_of_any_size_make_the_whole_listing
            a_prefix_and_a_start_narrow_the_listing
            a_listing_tells_what_head_tells
            an_empty_store_has_no_keys
            a_listing_has_every_write_before_it
            a_store_made_again_is_listed_afresh
        ], stores: [
            a_store_that_is_missing_is_said_to_be_missing
            creating_a_store_twice_gives_the_same_store
            stores_are_listed_once_in_order
            a_renamed_store_keeps_its_id_and_its_records
            a_taken_name_is_refused
            a_deleted_store_takes_its_records_along
            unnamed_stores_are_reached_by_id
            ids_are_spelt_as_the_platform_spells_them
            a_name_is_one_name_in_any_letter_case
            two_owners_may_have_stores_of_one_name
            what_is_said_of_a_store_is_kept
            uses_are_counted
        ], races: [
            only_an_absent_record_is_created
            only_the_version_meant_is_replaced
            only_the_version_meant_is_deleted
            of_16_creators_one_wins
            of_16_editors_of_a_version_one_wins
            of_16_deleters_one_wins
            racing_writers_leave_one_whole_record
            no_increment_of_16_counters_is_lost
        ], changes: [
            a_feed_tells_every_change_in_order
            a_feed_goes_on_where_it_was_left
            whoever_missed_too_much_is_told_to_look_again
            every_listener_is_told
            a_slow_listener_holds_nobody_back_and_misses_nothing_that_is_kept
            a_feed_ends_with_its_store
        ]})*
    };
    (@one $name:ident $make:expr, $($part:ident: [$($clause:ident)*]),*) => {
        mod $name {
            use super::*;
            $($(
                #[test]
                fn $clause() {
                    contract::$part::$clause(&$make);
                }
            )*)*
        }
    };
}

contract! {
    memory: World::new(Arc::new(Memory::new()), None);
    plain_folder: folder(Some(Layout::Plain));
    js_folder: folder(Some(Layout::Js));
    python_folder: folder(Some(Layout::Python));
    dual_folder: folder(Some(Layout::Dual));
    new_folder: folder(None);
    polled_plain_folder: polled(Layout::Plain);
    polled_dual_folder: polled(Layout::Dual);
    served_memory: served(Served::memory(), MAX_KEY);
    served_dual_folder: served(Served::in_layout(Layout::Dual), 219);
    memory_behind_an_empty_script: World::new(Arc::new(Faulty::new(Memory::new())), None);
}
