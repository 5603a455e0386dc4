//! The state of a record under any string of events: nothing is lost, nothing is forgotten twice, nothing leaks.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::BTreeSet;
use storefs::record::ETag;
use storefs::volume::cached::state::{Change, Dirty, Edit, Event, Remote, State};

/// What is drawn: edits get their numbers as they are saved.
#[derive(Clone, Debug)]
enum Drawn {
    Save(Change, Remote),
    Start,
    Accept(Remote),
    Refuse(Remote),
    Ours(Remote),
    Fail(bool),
    See(Remote),
}

fn remote() -> impl Strategy<Value = Remote> {
    prop_oneof![
        Just(Remote::Unknown),
        Just(Remote::Absent),
        (0..4u8).prop_map(|number| Remote::At(ETag::new(&number.to_string()))),
    ]
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let change = prop_oneof![3 => Just(Change::Put), 1 => Just(Change::Delete)];
    prop_oneof![
        3 => (change, remote()).prop_map(|(change, base)| Drawn::Save(change, base)),
        4 => Just(Drawn::Start),
        2 => remote().prop_map(Drawn::Accept),
        1 => remote().prop_map(Drawn::Refuse),
        1 => remote().prop_map(Drawn::Ours),
        3 => any::<bool>().prop_map(Drawn::Fail),
        1 => remote().prop_map(Drawn::See),
    ]
}

/// The spool beside a record.
#[derive(Default)]
struct Spool {
    kept: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    aside: BTreeSet<u64>,
}

impl Spool {
    fn forget(&mut self, seq: u64) {
        assert!(
            self.kept.remove(&seq),
            "{seq} is forgotten and was not kept"
        );
        assert!(self.gone.insert(seq), "{seq} is forgotten twice");
    }
}

fn check(events: Vec<Drawn>) {
    let mut state = State::Clean {
        remote: Remote::Absent,
    };
    let mut spool = Spool::default();
    let mut next = 0;
    for event in events {
        let before = state.clone();
        let event = match event {
            Drawn::Save(change, base) => {
                next += 1;
                spool.kept.insert(next);
                Event::Saved(Edit { seq: next, change }, base)
            }
            Drawn::Start => Event::Started,
            Drawn::Accept(remote) => Event::Accepted(remote),
            Drawn::Refuse(remote) => Event::Refused(remote),
            Drawn::Ours(remote) => Event::Ours(remote),
            Drawn::Fail(maybe) => Event::Failed { maybe },
            Drawn::See(remote) => Event::Seen(remote),
        };
        let step = match state.next(event.clone()) {
            Ok(step) => step,
            Err(illegal) => {
                assert_eq!(illegal.state, before);
                let legal = match (&before, &event) {
                    (_, Event::Saved(..) | Event::Seen(_)) => true,
                    (State::Dirty { .. }, Event::Started) => true,
                    (State::Uploading { .. }, Event::Started) => false,
                    (State::Uploading { .. }, _) => true,
                    _ => false,
                };
                assert!(!legal, "{before:?} does not take {event:?}");
                state = before;
                continue;
            }
        };
        for edit in &step.forget {
            spool.forget(edit.seq);
        }
        if let Some(edit) = step.rename_aside {
            assert!(spool.kept.remove(&edit.seq));
            assert_eq!(edit.change, Change::Put);
            spool.aside.insert(edit.seq);
        }
        judge(&before, &event, &step.state, step.rename_aside, &spool);
        if before != step.state && matches!(step.state, State::Dirty { .. }) {
            assert!(
                step.enqueue,
                "{before:?} {event:?} leaves something that nobody sends"
            );
        }
        state = step.state;
    }
}

fn judge(before: &State, event: &Event, after: &State, aside: Option<Edit>, spool: &Spool) {
    let held: BTreeSet<u64> = after.edits().iter().map(|edit| edit.seq).collect();
    assert_eq!(held, spool.kept, "{before:?} {event:?} {after:?}");
    if let Some(newest) = after.newest() {
        assert!(spool.kept.contains(&newest.seq));
    }
    // The newest edit goes only when it was accepted, refused, or replaced by a newer one.
    let newest = if let Event::Saved(edit, _) = event {
        Some(*edit)
    } else {
        before.newest()
    };
    let Some(newest) = newest else { return };
    let kept = after.newest() == Some(newest);
    let settled = match event {
        Event::Accepted(_) => true,
        Event::Refused(_) => aside == Some(newest) || newest.change == Change::Delete,
        Event::Saved(..)
        | Event::Started
        | Event::Ours(_)
        | Event::Failed { .. }
        | Event::Seen(_) => false,
    };
    assert!(kept || settled, "{before:?} {event:?} loses {newest:?}");
    if let (Event::Seen(_), false) = (event, matches!(before, State::Clean { .. })) {
        assert_eq!(before, after, "what was only seen moved an edit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_string_of_events_loses_forgets_twice_or_leaks_an_edit(events in prop::collection::vec(drawn(), 0..60)) {
        check(events);
    }
}

#[test]
fn a_refused_edit_that_was_tried_before_is_not_a_conflict_with_ourselves() {
    let base = Remote::At(ETag::new("base"));
    let edit = |seq| Edit {
        seq,
        change: Change::Put,
    };
    let step = |state: State, event| state.next(event).unwrap().state;
    let clean = State::Clean {
        remote: base.clone(),
    };
    let state = step(clean, Event::Saved(edit(1), base.clone()));
    let state = step(state, Event::Started);
    let state = step(state, Event::Failed { maybe: true });
    let state = step(state, Event::Saved(edit(2), Remote::Unknown));
    let state = step(state, Event::Started);
    assert_eq!(state.tried(), [edit(1), edit(2)]);
    let ours = Remote::At(ETag::new("ours"));
    let after = state.next(Event::Ours(ours.clone())).unwrap();
    assert_eq!(after.forget, [edit(1)]);
    assert_eq!(after.rename_aside, None);
    let tried = Vec::new();
    let expected = State::Dirty(Box::new(Dirty {
        base: ours,
        edit: edit(2),
        tried,
    }));
    assert_eq!(after.state, expected);
}
