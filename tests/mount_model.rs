//! Two mounts of one folder and somebody beside them who writes as the SDKs do: random operations through the kernel,
//! against maps. And races, of which exactly one side wins.
#![allow(clippy::unwrap_used)]

mod mounts;
mod support;

use mounts::{Op, Pair, operations};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Barrier;

/// `PROPTEST_CASES` makes it longer.
fn check(options: &str, outside: bool, settle: bool) {
    let wanted = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: wanted.unwrap_or(8),
        failure_persistence: None,
        max_shrink_iters: 150,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&operations(outside, 40), |operations: Vec<Op>| {
        mounts::quiet::quietly(|| Pair::new(options, settle).run(&operations))
            .map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(why, operations)) = outcome {
        panic!("{options}: {why}\nafter {operations:#?}");
    }
    outcome.unwrap();
}

#[test]
fn two_mounts_and_a_writer_beside_them_agree_when_settled() {
    check("layout=plain", true, true);
}

#[test]
fn two_mounts_that_read_by_themselves_agree_when_settled() {
    check("layout=plain,no_passthrough", true, true);
}

#[test]
fn two_mounts_without_caches_agree_at_once() {
    check("layout=plain,ttl=0", true, false);
}

#[test]
fn two_mounts_without_caches_that_read_by_themselves_agree_at_once() {
    check("layout=plain,ttl=0,no_passthrough", true, false);
}

#[test]
fn two_mounts_of_a_store_for_both_sdks_agree_when_settled() {
    check("layout=dual", false, true);
}

// README: S55
#[test]
fn a_type_that_the_other_mount_set_goes_along_with_a_rename_over_a_record() {
    for options in ["layout=plain", "layout=plain,no_passthrough", "layout=dual"] {
        Pair::new(options, true).run(&[
            Op::Save {
                by: 0,
                key: "INPUT",
                text: "old",
            },
            Op::Save {
                by: 1,
                key: "OUTPUT",
                text: "new",
            },
            Op::SetType {
                by: 0,
                key: "OUTPUT",
                to: "text/html",
            },
            Op::Rename {
                by: 1,
                from: "OUTPUT",
                to: "INPUT",
            },
        ]);
    }
}

#[test]
fn an_open_file_that_the_other_mount_renames_and_appends_to_shows_what_was_appended() {
    for options in ["layout=plain", "layout=plain,no_passthrough"] {
        Pair::new(options, true).run(&[
            Op::Save {
                by: 0,
                key: "INPUT",
                text: "",
            },
            Op::Open {
                by: 1,
                key: "INPUT",
            },
            Op::Rename {
                by: 0,
                from: "INPUT",
                to: "OUTPUT",
            },
            Op::Append {
                by: 0,
                key: "OUTPUT",
                text: "one",
            },
        ]);
    }
}

/// Runs the work on both mounts at the same moment; who succeeded.
fn race(
    pair: &Pair,
    work: impl Fn(PathBuf, usize) -> io::Result<()> + Sync,
) -> [io::Result<()>; 2] {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let both = [0, 1].map(|which| {
            let (start, work) = (&start, &work);
            let path = pair.path(which, "default");
            scope.spawn(move || {
                start.wait();
                work(path, which)
            })
        });
        both.map(|side| side.join().unwrap())
    })
}

#[track_caller]
fn one_won(results: &[io::Result<()>; 2], loser: i32, what: &str) -> usize {
    let winner = results.iter().position(Result::is_ok);
    let Some(winner) = winner else {
        panic!("{what}: nobody won: {results:?}");
    };
    match &results[1 - winner] {
        Ok(()) => panic!("{what}: both won"),
        Err(why) => assert_eq!(why.raw_os_error(), Some(loser), "{what}: {why}"),
    }
    winner
}

#[test]
fn of_two_exclusive_creations_one_wins() {
    for options in ["layout=plain", "layout=plain,no_passthrough", "layout=dual"] {
        let pair = Pair::new(options, true);
        let mut won = [0, 0];
        for round in 0..60 {
            let name = format!("lock-{round}");
            let results = race(&pair, |store, which| {
                let mut file = File::create_new(store.join(&name))?;
                if round % 2 == 0 {
                    // Half of the winners are still at work when the other one comes.
                    std::thread::yield_now();
                }
                write!(file, "{which}")
            });
            let winner = one_won(&results, libc::EEXIST, &format!("{options}: {name}"));
            won[winner] += 1;
            pair.settle();
            for which in [0, 1] {
                let text = fs::read_to_string(pair.path(which, "default").join(&name)).unwrap();
                assert_eq!(
                    text,
                    winner.to_string(),
                    "{options}: {name} on mount {which}"
                );
            }
        }
        assert_eq!(won[0] + won[1], 60);
    }
}

#[test]
fn of_two_renames_of_one_record_one_wins() {
    for options in ["layout=plain", "layout=dual"] {
        let pair = Pair::new(options, true);
        for round in 0..40 {
            let name = format!("one-{round}");
            fs::write(pair.path(0, "default").join(&name), &name).unwrap();
            pair.settle();
            let results = race(&pair, |store, which| {
                fs::rename(store.join(&name), store.join(format!("{name}-{which}")))
            });
            let winner = one_won(&results, libc::ENOENT, &format!("{options}: {name}"));
            pair.settle();
            for which in [0, 1] {
                let store = pair.path(which, "default");
                assert_eq!(
                    fs::read_to_string(store.join(format!("{name}-{winner}"))).unwrap(),
                    name,
                    "{options}"
                );
                assert!(
                    !store.join(&name).exists(),
                    "{options}: {name} is still on mount {which}, beside it {:?}",
                    pair.files()
                );
                assert!(
                    !store.join(format!("{name}-{}", 1 - winner)).exists(),
                    "{options}: {name} on mount {which}"
                );
            }
        }
    }
}

#[test]
fn of_two_records_renamed_to_one_name_none_is_mixed() {
    for options in ["layout=plain", "layout=dual"] {
        let pair = Pair::new(options, true);
        for round in 0..40 {
            let values = [format!("first {round}"), format!("second, longer {round}")];
            for which in [0, 1] {
                fs::write(
                    pair.path(which, "default").join(format!("from-{which}")),
                    &values[which],
                )
                .unwrap();
            }
            pair.settle();
            let results = race(&pair, |store, which| {
                fs::rename(store.join(format!("from-{which}")), store.join("to"))
            });
            assert!(results.iter().all(Result::is_ok), "{options}: {results:?}");
            pair.settle();
            let seen = [0, 1]
                .map(|which| fs::read_to_string(pair.path(which, "default").join("to")).unwrap());
            assert_eq!(seen[0], seen[1], "{options}");
            assert!(values.contains(&seen[0]), "{options}: {}", seen[0]);
            for which in [0, 1] {
                let listed = fs::read_dir(pair.path(which, "default")).unwrap().count();
                assert_eq!(listed, 1, "{options}: mount {which}");
            }
        }
    }
}
