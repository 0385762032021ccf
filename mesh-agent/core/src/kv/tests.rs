use super::*;

fn commit(state: &mut KvState, txn: &Txn) -> Rev {
    let batch = state.prepare(txn).unwrap().unwrap();
    let rev = batch.rev;
    state.install(batch);
    rev
}

fn put(key: &str, value: &str) -> Txn {
    let mut txn = Txn::default();
    txn.put(key, value);
    txn
}

#[test]
fn a_claim_is_given_once() {
    let mut state = KvState::default();
    let mut claim = Txn::default();
    claim.claim("claim/vni/4096", "a");
    assert_eq!(commit(&mut state, &claim), Rev(1));
    let found = state.prepare(&claim).unwrap().unwrap_err();
    assert_eq!(&*found[0].value, "a");
    assert_eq!(state.rev(), Rev(1));
}

#[test]
fn modified_compares_the_exact_revision_and_zero_is_absent() {
    let mut state = KvState::default();
    let mut cas = put("k", "1");
    cas.unchanged("k", Rev(0));
    let first = commit(&mut state, &cas);
    assert!(state.prepare(&cas).unwrap().is_err());
    let mut next = put("k", "2");
    next.unchanged("k", first);
    commit(&mut state, &next);
    assert_eq!(state.get("k").unwrap().created, first);
    assert!(state.prepare(&next).unwrap().is_err());
}

#[test]
fn history_resumes_or_says_that_it_is_gone() {
    let mut state = KvState::default();
    for n in 0..(HISTORY + 5) {
        commit(&mut state, &put(if n % 2 == 0 { "a/x" } else { "b/x" }, &n.to_string()));
    }
    assert_eq!(state.since(Rev(2), ""), Err(Rev(5)));
    let rest = state.since(Rev(HISTORY as u64), "a/").unwrap();
    assert_eq!(rest.len(), 3);
    assert!(rest.iter().all(|batch| batch.events.iter().all(|e| e.key() == "a/x")));
    let restored = KvState::restore(state.rev(), state.range("").cloned().collect::<Vec<_>>());
    assert!(restored.since(Rev(3), "").is_err(), "a restored store has no history");
    assert_eq!(restored.since(restored.rev(), "").unwrap(), []);
}

#[test]
fn a_lease_takes_its_keys_with_it() {
    let mut state = KvState::default();
    state.grant(LeaseId(7));
    let leased = |key: &str| Op::Put { key: key.to_owned(), value: "1".to_owned(), lease: Some(LeaseId(7)) };
    commit(&mut state, &Txn { compares: vec![], ops: vec![leased("a"), leased("b")] });
    commit(&mut state, &put("b", "now without"));
    let revocation = state.revocation(LeaseId(7));
    assert_eq!(revocation.ops, [Op::Delete("a".to_owned())]);
    let unknown = Txn {
        compares: vec![],
        ops: vec![Op::Put { key: "c".to_owned(), value: String::new(), lease: Some(LeaseId(8)) }],
    };
    assert_eq!(state.prepare(&unknown), Err(InvalidTxn::UnknownLease(LeaseId(8))));
}

#[test]
fn nonsense_is_refused_and_nothing_written() {
    let state = KvState::default();
    let twice = Txn { compares: vec![], ops: vec![Op::Delete("k".to_owned()), Op::Delete("k".to_owned())] };
    assert!(matches!(state.prepare(&twice), Err(InvalidTxn::Twice(_))));
    assert!(matches!(state.prepare(&put("", "v")), Err(InvalidTxn::Key { .. })));
    assert!(matches!(state.prepare(&put("k", &"v".repeat(MAX_VALUE + 1))), Err(InvalidTxn::Key { .. })));
    let many = (0..=MAX_OPS).map(|n| Op::Delete(n.to_string())).collect();
    assert!(matches!(state.prepare(&Txn { compares: vec![], ops: many }), Err(InvalidTxn::TooLarge(_))));
}

#[test]
fn a_group_sees_its_own_writes_and_leaves_the_state_alone() {
    let mut state = KvState::default();
    state.grant(LeaseId(1));
    let leased = Op::Put { key: "k".to_owned(), value: "1".to_owned(), lease: Some(LeaseId(1)) };
    let mut group = Group::of(&state);
    let mut claim = Txn::default();
    claim.claim("c", "a");
    let first = group.txn(&claim).unwrap().unwrap();
    assert_eq!(&*group.txn(&claim).unwrap().unwrap_err()[0].value, "a");
    let second = group.txn(&Txn { compares: vec![], ops: vec![leased.clone()] }).unwrap().unwrap();
    let third = group.revoke(LeaseId(1));
    assert_eq!((first.rev, second.rev, third.rev, group.rev()), (Rev(1), Rev(2), Rev(3), Rev(3)));
    assert_eq!(third.events, [Event::Delete("k".to_owned())]);
    let late = group.txn(&Txn { compares: vec![], ops: vec![leased] });
    assert_eq!(late, Err(InvalidTxn::UnknownLease(LeaseId(1))), "a lease that ended takes no more keys");
    assert_eq!(state.rev(), Rev(0));
    for batch in [first, second, third] {
        state.install(batch);
    }
    assert_eq!(state.range("").map(|kv| &*kv.key).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn history_is_bounded_in_bytes_too() {
    let mut state = KvState::default();
    for _ in 0..80 {
        commit(&mut state, &put("k", &"v".repeat(MAX_VALUE)));
    }
    assert!(state.oldest() > Rev(60) && state.oldest() < Rev(80), "{}", state.oldest());
    let restored = KvState::restore(state.rev(), state.range("").cloned().collect::<Vec<_>>())
        .with_history(state.newer(Rev(state.oldest().0 - 1)).unwrap().cloned().collect::<Vec<_>>());
    assert_eq!(restored.oldest(), state.oldest());
}

#[test]
fn what_is_kept_and_in_the_history_is_one_text() {
    let mut state = KvState::default();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        commit(&mut state, &put(key, value));
    }
    // As it is read: each text by itself.
    let text = |text: &Arc<str>| Arc::from(&**text);
    let read = |kv: &KeyValue| KeyValue { key: text(&kv.key), value: text(&kv.value), ..kv.clone() };
    let log: Vec<Batch> = state.newer(Rev(0)).unwrap().cloned().collect();
    let apart = log.iter().map(|Batch { rev, events }| {
        let events = events.iter().map(|event| match event {
            Event::Put(kv) => Event::Put(read(kv)),
            Event::Delete(key) => Event::Delete(key.clone()),
        });
        Batch { rev: *rev, events: events.collect() }
    });
    let restored = KvState::restore(state.rev(), state.range("").map(read)).with_history(apart);
    assert!(restored.newer(Rev(0)).unwrap().eq(&log));
    let shared = |rev: u64| {
        let batch = restored.newer(Rev(rev - 1)).unwrap().next().unwrap();
        let Event::Put(kv) = &batch.events[0] else { unreachable!() };
        Arc::ptr_eq(&kv.value, &restored.get(&kv.key).unwrap().value)
    };
    assert_eq!([1, 2, 3].map(shared), [false, true, true]);
}
