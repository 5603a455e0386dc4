//! The backend that fails by script does what the script says and nothing else.
#![allow(clippy::unwrap_used)]

mod contract;

use contract::{World, kind, record};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use storefs::backend::Backend;
use storefs::backend::faulty::{Call, Fault, Faulty, Gate, Rule, Verb};
use storefs::backend::memory::Memory;
use storefs::error::Kind;
use storefs::record::{Precondition, RecordId, StoreName};

struct Stage {
    world: World,
    faulty: Arc<Faulty<Memory>>,
    id: RecordId,
}

/// A backend with one store and no rules yet.
fn stage() -> Stage {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    let world = World::new(faulty.clone(), None);
    let id = record(&world.store(), "K");
    Stage { world, faulty, id }
}

impl Stage {
    fn put(&self, bytes: &[u8]) -> storefs::error::Result<()> {
        let put = self
            .world
            .try_put(&self.id, bytes, "text/plain", Precondition::None);
        put.map(drop)
    }

    /// What the backend behind holds.
    fn behind(&self) -> Option<Vec<u8>> {
        let fetched = self.world.wait(self.faulty.inner().get(&self.id, None));
        let mut bytes = Vec::new();
        fetched.ok()?.bytes.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }
}

#[test]
fn a_failure_leaves_the_record_as_it_was() {
    let stage = stage();
    stage
        .faulty
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Offline)).times(2));
    assert_eq!(kind(stage.put(b"1")), Kind::Offline);
    assert_eq!(kind(stage.put(b"1")), Kind::Offline);
    assert_eq!(stage.behind(), None);
    stage.put(b"2").unwrap();
    assert_eq!(stage.behind().unwrap(), b"2");
}

#[test]
fn a_failure_after_the_deed_leaves_it_done() {
    let stage = stage();
    stage
        .faulty
        .add(Rule::on(Verb::Put, Fault::FailAfter(Kind::TimedOut)).times(1));
    assert_eq!(kind(stage.put(b"1")), Kind::TimedOut);
    assert_eq!(stage.behind().unwrap(), b"1");
    stage
        .faulty
        .add(Rule::on(Verb::Delete, Fault::FailAfter(Kind::Io)));
    assert_eq!(
        kind(stage.world.delete(&stage.id, Precondition::None)),
        Kind::Io
    );
    assert_eq!(stage.behind(), None);
    let missing = stage.world.delete(&stage.id, Precondition::None);
    assert_eq!(
        kind(missing),
        Kind::NotFound,
        "a failure of its own comes first"
    );
}

#[test]
fn a_rule_meets_only_what_it_names() {
    let stage = stage();
    let other = record(&stage.id.store, "other");
    stage
        .faulty
        .add(Rule::on(Verb::Head, Fault::Fail(Kind::Denied)).key("K"));
    stage.put(b"1").unwrap();
    stage.world.put(&other, b"2", "text/plain");
    assert_eq!(kind(stage.world.head(&stage.id)), Kind::Denied);
    assert!(stage.world.head(&other).is_ok());
    assert!(stage.world.get(&stage.id).is_ok());
    stage.faulty.clear();
    assert!(stage.world.head(&stage.id).is_ok());
}

#[test]
fn a_rule_skips_and_counts() {
    let stage = stage();
    stage.faulty.add(
        Rule::on(Verb::Put, Fault::Fail(Kind::NoSpace))
            .skip(1)
            .times(2),
    );
    let results = [b"1", b"2", b"3", b"4"].map(|bytes| stage.put(bytes).is_ok());
    assert_eq!(results, [true, false, false, true]);
}

#[test]
fn a_rule_by_number_counts_every_operation() {
    let stage = stage();
    // The first operation made the store.
    stage
        .faulty
        .add(Rule::any(Fault::Fail(Kind::Corrupt)).number(3));
    stage.put(b"1").unwrap();
    assert_eq!(kind(stage.world.head(&stage.id)), Kind::Corrupt);
    assert!(stage.world.head(&stage.id).is_ok());
    let store = Some(stage.id.store.clone());
    let call = |verb, key| Call {
        verb,
        store: store.clone(),
        key,
    };
    let made = Call {
        verb: Verb::CreateStore,
        store: Some(StoreName::new("contract").unwrap()),
        key: None,
    };
    let key = Some(stage.id.key.clone());
    let heads = [call(Verb::Head, key.clone()), call(Verb::Head, key.clone())];
    let calls = [vec![made, call(Verb::Put, key)], heads.into()].concat();
    assert_eq!(stage.faulty.calls(), calls);
    assert_eq!(stage.faulty.count(Verb::Head), 2);
}

#[test]
fn the_first_rule_that_meets_a_call_decides() {
    let stage = stage();
    stage
        .faulty
        .add(Rule::on(Verb::Put, Fault::Fail(Kind::Busy)).times(1));
    stage.faulty.add(Rule::any(Fault::Fail(Kind::Io)));
    assert_eq!(kind(stage.put(b"1")), Kind::Busy);
    assert_eq!(kind(stage.put(b"1")), Kind::Io);
}

#[test]
fn a_hanging_operation_goes_on_when_it_is_let_go() {
    let stage = stage();
    for (fault, done_while_hanging) in [
        (Fault::Hang as fn(Gate) -> Fault, false),
        (Fault::HangAfter as fn(Gate) -> Fault, true),
    ] {
        let gate = Gate::closed();
        stage.faulty.clear();
        stage
            .faulty
            .add(Rule::on(Verb::Put, fault(gate.clone())).times(1));
        std::thread::scope(|scope| {
            let put = scope.spawn(|| stage.put(b"late"));
            stage.world.wait(gate.until_arrived(1));
            assert_eq!(stage.behind().is_some(), done_while_hanging);
            assert_eq!(gate.arrived(), 1);
            gate.open();
            put.join().unwrap().unwrap();
        });
        assert_eq!(stage.behind().unwrap(), b"late");
        stage.world.delete(&stage.id, Precondition::None).unwrap();
    }
}

#[test]
fn a_delayed_operation_is_done_in_the_end() {
    let stage = stage();
    stage
        .faulty
        .add(Rule::any(Fault::Delay(Duration::from_millis(1))));
    stage.put(b"1").unwrap();
    assert_eq!(stage.world.get(&stage.id).unwrap().0, b"1");
}

#[test]
fn bytes_break_off_where_the_script_says() {
    let stage = stage();
    stage.put(b"0123456789").unwrap();
    stage
        .faulty
        .add(Rule::on(Verb::Get, Fault::BreakOff(4)).times(1));
    let mut fetched = stage
        .world
        .wait(stage.world.backend.get(&stage.id, None))
        .unwrap();
    let mut got = Vec::new();
    let error = fetched.bytes.read_to_end(&mut got).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(got, b"0123");
    assert_eq!(stage.world.get(&stage.id).unwrap().0, b"0123456789");
}
