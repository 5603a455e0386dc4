//! The clauses of the contract that a server can keep which does no more than the public API's documents say: no tags, no
//! parts, no conditions, no feed, no lengths.
#![allow(clippy::unwrap_used)]

mod contract;
mod http;
mod remote;

use contract::World;
use http::Served;
use remote::{Proxy, options};
use std::sync::Arc;
use storefs::backend::apify::Apify;
use storefs::backend::retry::{Policy, Retry};
use storefs::record::key::MAX_KEY;

fn world() -> World {
    let server = Served::memory();
    let proxy = Proxy::new(server.address);
    let backend = Apify::new(options(proxy.address(), &server.token)).unwrap();
    let backend = Arc::new(Retry::new(backend, Policy::default()));
    World::remote(backend, (proxy, server), MAX_KEY)
}

macro_rules! clauses {
    ($($part:ident: [$($clause:ident)*]),*) => {
        $($(
            #[test]
            fn $clause() {
                contract::$part::$clause(&world());
            }
        )*)*
    };
}

clauses! {
    records: [
        a_file_is_as_good_a_body_as_bytes
        every_class_of_key_is_kept
        the_longest_key_is_kept
        a_range_is_cut_at_the_end
    ], listing: [
        keys_are_listed_in_byte_order
        pages_of_any_size_make_the_whole_listing
        a_prefix_and_a_start_narrow_the_listing
        a_listing_tells_what_head_tells
        an_empty_store_has_no_keys
        a_store_made_again_is_listed_afresh
    ], stores: [
        a_store_that_is_missing_is_said_to_be_missing
        creating_a_store_twice_gives_the_same_store
        stores_are_listed_once_in_order
        a_renamed_store_keeps_its_id_and_its_records
        a_taken_name_is_refused
        a_deleted_store_takes_its_records_along
        unnamed_stores_are_reached_by_id
        a_name_is_one_name_in_any_letter_case
        what_is_said_of_a_store_is_kept
    ]
}
