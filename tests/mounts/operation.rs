//! What is done to two mounts and beside them.

use proptest::prelude::*;

/// Few keys, so that operations meet.
pub const KEYS: [&str; 4] = ["OUTPUT", "INPUT", "a.json", "b.txt"];

/// Through which mount.
pub type Which = usize;

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    Save {
        by: Which,
        key: &'static str,
        text: &'static str,
    },
    Append {
        by: Which,
        key: &'static str,
        text: &'static str,
    },
    Edit {
        by: Which,
        key: &'static str,
        at: u64,
        text: &'static str,
    },
    Truncate {
        by: Which,
        key: &'static str,
        size: u64,
    },
    Unlink {
        by: Which,
        key: &'static str,
    },
    Rename {
        by: Which,
        from: &'static str,
        to: &'static str,
    },
    SetType {
        by: Which,
        key: &'static str,
        to: &'static str,
    },
    /// A program opens a record and keeps it open.
    Open {
        by: Which,
        key: &'static str,
    },
    Close {
        reader: usize,
    },
    /// Beside the mounts, as Python does: another file is renamed to the name.
    Replace {
        key: &'static str,
        text: &'static str,
    },
    /// Beside the mounts, as JavaScript does: the file is truncated and written.
    Overwrite {
        key: &'static str,
        text: &'static str,
    },
    Remove {
        key: &'static str,
    },
}

fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(KEYS[0]), 1 => Just(KEYS[1]), 1 => Just(KEYS[2]), 2 => Just(KEYS[3])]
}

fn text() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "",
        "one",
        "two",
        "a longer line of text\n",
        "{\"json\": true}",
    ])
}

/// Random lists of operations; `outside`: also beside the mounts.
pub fn operations(outside: bool, most: usize) -> impl Strategy<Value = Vec<Op>> {
    let by = 0..2_usize;
    let types = proptest::sample::select(vec!["text/html", "application/x-own"]);
    let inside = prop_oneof![
        8 => (by.clone(), key(), text()).prop_map(|(by, key, text)| Op::Save { by, key, text }),
        4 => (by.clone(), key(), text()).prop_map(|(by, key, text)| Op::Append { by, key, text }),
        2 => (by.clone(), key(), 0..9_u64, text()).prop_map(|(by, key, at, text)| Op::Edit { by, key, at, text }),
        1 => (by.clone(), key(), 0..9_u64).prop_map(|(by, key, size)| Op::Truncate { by, key, size }),
        3 => (by.clone(), key()).prop_map(|(by, key)| Op::Unlink { by, key }),
        4 => (by.clone(), key(), key()).prop_map(|(by, from, to)| Op::Rename { by, from, to }),
        1 => (by.clone(), key(), types).prop_map(|(by, key, to)| Op::SetType { by, key, to }),
        3 => (by, key()).prop_map(|(by, key)| Op::Open { by, key }),
        2 => (0..4_usize).prop_map(|reader| Op::Close { reader }),
    ];
    let beside = prop_oneof![
        4 => (key(), text()).prop_map(|(key, text)| Op::Replace { key, text }),
        4 => (key(), text()).prop_map(|(key, text)| Op::Overwrite { key, text }),
        2 => key().prop_map(|key| Op::Remove { key }),
    ];
    let weight = if outside { 1 } else { 0 };
    proptest::collection::vec(prop_oneof![3 => inside, weight => beside], 1..most)
}
