//! Random operations on the tree, without a kernel, against a reference model.
#![allow(clippy::unwrap_used)]

mod model;

use model::{Bytes, Closer, How, Name, Op, Opener, Way};
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
fn check(base: &Path, way: Way, cases: u32) {
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
        model::run(base, way, &operations).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(why, operations)) = outcome {
        panic!("{why}\nafter {operations:#?}");
    }
    outcome.unwrap();
}

/// The daemon reads and writes.
fn served(layout: Layout) -> Way {
    Way {
        layout,
        shared_files: false,
        watches: false,
    }
}

/// The kernel reads and writes by itself.
fn passed_through(layout: Layout) -> Way {
    Way {
        shared_files: true,
        ..served(layout)
    }
}

#[test]
fn random_operations_on_plain_stores_do_what_the_reference_does() {
    check(&memory(), served(Layout::Plain), 600);
}

#[test]
fn random_operations_on_files_that_the_kernel_reads_itself_do_what_the_reference_does() {
    check(&memory(), passed_through(Layout::Plain), 600);
}

#[test]
fn random_operations_on_a_disk_do_what_the_reference_does() {
    check(&std::env::temp_dir(), served(Layout::Plain), 100);
}

#[test]
fn random_operations_on_stores_for_both_sdks_do_what_the_reference_does() {
    check(&memory(), served(Layout::Dual), 200);
}

#[test]
fn random_operations_on_stores_of_the_javascript_sdk_do_what_the_reference_does() {
    check(&memory(), passed_through(Layout::Js), 200);
}

#[test]
fn random_operations_on_stores_of_the_python_sdk_do_what_the_reference_does() {
    check(&memory(), served(Layout::Python), 200);
}

#[test]
fn a_tree_that_watches_the_folder_does_what_the_reference_does() {
    let watching = |way| Way {
        watches: true,
        ..way
    };
    check(&memory(), watching(served(Layout::Plain)), 150);
    check(&memory(), watching(passed_through(Layout::Dual)), 150);
}

/// How the clock of the disk stands decides whether a closed file counts as changed, so this is done many times.
#[test]
fn a_type_that_was_removed_after_the_last_close_does_not_come_back() {
    let name = Name {
        store: "default",
        key: "OUTPUT",
    };
    let open = |how| Op::Open {
        name,
        how,
        mode: 0o600,
        by: Opener::Me,
        blind: false,
    };
    let close = Op::Close {
        handle: 0,
        by: Closer::Opener,
    };
    let set = |to| Op::SetType { name, to };
    let operations = [
        open(How::Save),
        close.clone(),
        open(How::Log),
        set(Some("application/json; charset=utf-8")),
        close,
        set(None),
        open(How::Read),
        Op::SetSize { name, size: 0 },
    ];
    for way in [served(Layout::Plain), passed_through(Layout::Plain)] {
        for _ in 0..100 {
            model::run(&memory(), way, &operations).unwrap();
        }
    }
}

/// The draft that a truncation began keeps the name alive; when the older one is finished after it, the name is on the disk.
#[test]
fn a_store_that_holds_only_a_scratch_file_can_be_removed_while_another_version_is_written() {
    let name = Name {
        store: "default",
        key: "OUTPUT~",
    };
    let open = |how, by| Op::Open {
        name,
        how,
        mode: 0o600,
        by,
        blind: false,
    };
    let operations = [
        open(How::Log, Opener::Other(0)),
        open(How::Truncate, Opener::Me),
        Op::Write {
            handle: 0,
            at: 0,
            bytes: Bytes::Json,
        },
        Op::Flush {
            handle: 0,
            by: Closer::Opener,
        },
        Op::RemoveStore { store: "default" },
    ];
    for layout in [Layout::Plain, Layout::Dual] {
        model::run(&memory(), served(layout), &operations).unwrap();
    }
}

/// A type that was set while somebody wrote is the record's by the time that he is done, and no more his than anybody's.
#[test]
fn a_type_that_the_last_writer_has_left_follows_other_bytes() {
    let name = Name {
        store: "default",
        key: "b.txt",
    };
    let open = |how| Op::Open {
        name,
        how,
        mode: 0o600,
        by: Opener::Me,
        blind: false,
    };
    let operations = [
        open(How::Save),
        Op::Flush {
            handle: 0,
            by: Closer::Opener,
        },
        open(How::Read),
        Op::SetType {
            name,
            to: Some("application/json; charset=utf-8"),
        },
        Op::Close {
            handle: 0,
            by: Closer::Opener,
        },
        Op::SetSize { name, size: 3 },
    ];
    for way in [served(Layout::Plain), passed_through(Layout::Plain)] {
        model::run(&memory(), way, &operations).unwrap();
    }
}

/// What is written into a scratch file of a store that another one replaced is in neither of them.
#[test]
fn a_scratch_file_of_a_replaced_store_is_not_one_of_the_new_store() {
    let name = Name {
        store: "default",
        key: "OUTPUT~",
    };
    let open = |how| Op::Open {
        name,
        how,
        mode: 0o600,
        by: Opener::Me,
        blind: false,
    };
    let close = Op::Close {
        handle: 0,
        by: Closer::Opener,
    };
    let operations = [
        open(How::Save),
        close.clone(),
        Op::MakeStore { store: "other" },
        open(How::Truncate),
        Op::RenameStore {
            from: "other",
            to: "default",
            no_replace: false,
        },
        close,
    ];
    for layout in [Layout::Plain, Layout::Dual] {
        model::run(&memory(), served(layout), &operations).unwrap();
    }
}

/// The new name says the type that was set under the old one.
#[test]
fn a_type_that_was_set_before_a_rename_is_kept_only_where_the_name_does_not_say_it() {
    let name = |key| Name {
        store: "default",
        key,
    };
    let operations = [
        Op::Open {
            name: name("OUTPUT"),
            how: How::Save,
            mode: 0o600,
            by: Opener::Me,
            blind: false,
        },
        Op::Write {
            handle: 0,
            at: 0,
            bytes: Bytes::Json,
        },
        Op::Flush {
            handle: 0,
            by: Closer::Opener,
        },
        Op::SetType {
            name: name("OUTPUT"),
            to: Some("application/json; charset=utf-8"),
        },
        Op::Rename {
            from: name("OUTPUT"),
            to: name("a.json"),
            no_replace: false,
        },
        Op::SetSize {
            name: name("a.json"),
            size: 0,
        },
    ];
    for way in [served(Layout::Plain), passed_through(Layout::Plain)] {
        model::run(&memory(), way, &operations).unwrap();
    }
}
