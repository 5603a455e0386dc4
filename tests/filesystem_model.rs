//! Random operations on the tree, without a kernel, against a reference model.
#![allow(clippy::unwrap_used)]

mod model;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::path::{Path, PathBuf};
use storefs::backend::dir::Layout;

/// In memory where there is such a folder with user attributes: every operation is followed by a look at the disk.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let usable = tempfile::NamedTempFile::new_in(&memory)
        .is_ok_and(|file| xattr::set(file.path(), "user.test", b"1").is_ok());
    if usable { memory } else { std::env::temp_dir() }
}

/// `PROPTEST_CASES` makes it longer.
fn check(base: &Path, layout: Layout, shared_files: bool, cases: u32) {
    let wanted = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: wanted.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&model::operations(60), |operations| {
        model::run(base, layout, shared_files, &operations).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(why, operations)) = outcome {
        panic!("{why}\nafter {operations:#?}");
    }
    outcome.unwrap();
}

#[test]
fn random_operations_on_plain_stores_do_what_the_reference_does() {
    check(&memory(), Layout::Plain, false, 600);
}

#[test]
fn random_operations_on_files_that_the_kernel_reads_itself_do_what_the_reference_does() {
    check(&memory(), Layout::Plain, true, 600);
}

#[test]
fn random_operations_on_a_disk_do_what_the_reference_does() {
    check(&std::env::temp_dir(), Layout::Plain, false, 100);
}

#[test]
fn random_operations_on_stores_for_both_sdks_do_what_the_reference_does() {
    check(&memory(), Layout::Dual, false, 200);
}

#[test]
fn random_operations_on_stores_of_the_javascript_sdk_do_what_the_reference_does() {
    check(&memory(), Layout::Js, true, 200);
}

#[test]
fn random_operations_on_stores_of_the_python_sdk_do_what_the_reference_does() {
    check(&memory(), Layout::Python, false, 200);
}
