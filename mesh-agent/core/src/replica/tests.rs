use super::*;
use crate::model::NodeId;

fn kv(key: &str, value: &str, rev: u64) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), created: Rev(rev), modified: Rev(rev), lease: None }
}

fn listing(rev: u64, kvs: Vec<KeyValue>) -> Listing {
    Listing { cluster: "c1".to_owned(), rev: Rev(rev), kvs }
}

fn stops(count: usize, rev: u64) -> Vec<KeyValue> {
    (0..count).map(|n| kv(&format!("svc/{n}"), "poison", rev)).collect()
}

#[test]
fn old_revisions_are_passed_over() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
    replica.apply(Batch { rev: Rev(5), events: vec![Event::Delete("stop/t".to_owned())] });
    assert_eq!(replica.world().stops.len(), 1);
    replica.apply(Batch { rev: Rev(6), events: vec![Event::Delete("stop/t".to_owned())] });
    assert!(replica.world().stops.is_empty());
}

#[test]
fn signs_of_life_do_not_count_as_change() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![]), false).unwrap();
    let live = kv("live/n1", r#"{"epoch":1,"applied":5}"#, 6);
    replica.apply(Batch { rev: Rev(6), events: vec![Event::Put(live)] });
    assert_eq!((replica.world().rev, replica.world().changed), (Rev(6), Rev(0)));
    assert_eq!(replica.world().live.len(), 1);
    assert!(replica.to_cache().unwrap().kvs.is_empty());
}

#[test]
fn an_empty_store_does_not_empty_the_world() {
    let mut replica = Replica::default();
    replica.resync(listing(5, stops(20, 5)), false).unwrap();
    let refused = replica.resync(listing(9, vec![]), false).unwrap_err();
    assert_eq!(refused, Refused::TooManyDeletions { what: "services", missing: 20, known: 20 });
    assert_eq!(replica.texts.len(), 20, "nothing half-applied");
    replica.resync(listing(9, stops(16, 5)), false).unwrap();
    replica.resync(listing(9, vec![]), true).unwrap();
    assert!(replica.texts.is_empty());
}

#[test]
fn another_store_or_an_older_one_changes_nothing() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![]), false).unwrap();
    assert!(matches!(replica.resync(listing(4, vec![]), false), Err(Refused::WentBack { .. })));
    let other = Listing { cluster: "c2".to_owned(), rev: Rev(9), kvs: vec![] };
    assert!(matches!(replica.resync(other, true), Err(Refused::WrongCluster { .. })));
}

#[test]
fn a_later_generation_is_meant() {
    let generation = |number: u64, rev| {
        let mut kvs = stops(1, rev);
        kvs.push(kv(records::GENERATION, &number.to_string(), rev));
        listing(rev, kvs)
    };
    let mut replica = Replica::default();
    replica.resync(listing(90, stops(20, 5)), false).unwrap();
    replica.resync(generation(7, 3), false).unwrap();
    assert_eq!((replica.world().rev, replica.world().changed, replica.texts.len()), (Rev(3), Rev(3), 2));
    assert!(matches!(replica.resync(generation(7, 2), false), Err(Refused::WentBack { .. })));
    assert!(matches!(replica.resync(generation(6, 2), false), Err(Refused::WentBack { .. })));
    replica.resync(generation(8, 2), false).unwrap();
    let other = Listing { cluster: "c2".to_owned(), ..generation(9, 9) };
    assert!(matches!(replica.resync(other, false), Err(Refused::WrongCluster { .. })));
}

#[test]
fn going_back_on_purpose_is_a_change() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
    replica.resync(listing(3, vec![kv("stop/t", "{}", 3)]), true).unwrap();
    assert_eq!((replica.world().rev, replica.world().changed), (Rev(3), Rev(3)));
}

#[test]
fn signs_of_life_listed_apart_are_not_undone_by_what_is_older() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
    let live = |rev| kv("live/n1", r#"{"epoch":1,"applied":5}"#, rev);
    replica.refresh_live(listing(9, vec![live(8)])).unwrap();
    assert_eq!(replica.world().rev, Rev(5), "the rest is still to come");
    replica.apply(Batch { rev: Rev(6), events: vec![Event::Put(live(6))] });
    replica.apply(Batch { rev: Rev(7), events: vec![Event::Delete("live/n1".to_owned())] });
    assert_eq!(replica.world().rev_of("live/n1"), Rev(8));
    replica.apply(Batch { rev: Rev(10), events: vec![Event::Delete("live/n1".to_owned())] });
    assert!(replica.world().live.is_empty());
    let other = Listing { cluster: "c2".to_owned(), rev: Rev(99), kvs: vec![] };
    assert!(matches!(replica.refresh_live(other), Err(Refused::WrongCluster { .. })));
}

/// Or a worker that becomes a manager could neither make one nor let anybody in.
#[test]
fn tokens_are_listed_apart_and_not_undone_by_what_is_older() {
    let mut replica = Replica::default();
    replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
    let token = |rev| kv("token/worker", r#"{"tokens":[]}"#, rev);
    replica.refresh_tokens(listing(9, vec![token(8)])).unwrap();
    assert_eq!((replica.world().rev, replica.world().rev_of("token/worker")), (Rev(5), Rev(8)));
    written(&mut replica, "token/worker", r#"{"tokens":[]}"#, 7);
    assert_eq!((replica.world().tokens.len(), replica.world().rev_of("token/worker")), (1, Rev(8)));
    // Whoever may not read them has none.
    replica.refresh_tokens(listing(9, Vec::new())).unwrap();
    assert!(replica.world().tokens.is_empty() && replica.world().stops.len() == 1);
}

#[test]
fn poison_is_set_aside_and_leaves_when_mended() {
    let mut replica = Replica::default();
    replica.resync(listing(1, vec![kv("svc/a", "{", 1), kv("stop/t", "{}", 1)]), false).unwrap();
    assert_eq!(replica.world().poison.len(), 1);
    assert_eq!(replica.world().stops.len(), 1);
    replica.apply(Batch { rev: Rev(2), events: vec![Event::Delete("svc/a".to_owned())] });
    assert!(replica.world().poison.is_empty());
}

const SPEC: &str = "nodespec/n1";
const PAUSED: &str = r#"{"availability":"pause"}"#;
const DRAINED: &str = r#"{"availability":"drain"}"#;

fn written(replica: &mut Replica, key: &str, value: &str, rev: u64) {
    replica.apply(Batch { rev: Rev(rev), events: vec![Event::Put(kv(key, value, rev))] });
}

fn is(replica: &Replica, word: &str) -> bool {
    replica.world().availability(&NodeId::new("n1")).as_str() == word
}

/// What is made of it is not what was there, nor nothing, and whoever mends it compares with what is there.
#[test]
fn the_form_that_could_be_read_stays_in_force() {
    let mut replica = Replica::default();
    replica.resync(listing(1, vec![kv(SPEC, PAUSED, 1)]), false).unwrap();
    // No text, of a newer version, of another type; each time the last good form stays.
    for (rev, odd) in (2..).zip(["{", r#"{"availability":"hibernate"}"#, r#"{"availability":7}"#]) {
        written(&mut replica, SPEC, odd, rev);
        assert!(is(&replica, "pause") && replica.world().poison.contains_key(SPEC), "{odd}");
        assert_eq!(replica.world().rev_of(SPEC), Rev(rev));
        let again = Replica::from_cache(replica.to_cache().unwrap());
        assert_eq!(again.world(), replica.world(), "the next start knows it, too");
    }
    written(&mut replica, SPEC, DRAINED, 5);
    assert!(is(&replica, "drain") && replica.world().poison.is_empty() && replica.aside().is_empty());
    written(&mut replica, SPEC, "{", 6);
    replica.apply(Batch { rev: Rev(7), events: vec![Event::Delete(SPEC.to_owned())] });
    assert!(is(&replica, "active") && replica.world().poison.is_empty() && replica.aside().is_empty());
    // In a listing as in a watch.
    written(&mut replica, SPEC, PAUSED, 8);
    replica.resync(listing(9, vec![kv(SPEC, "{", 9)]), false).unwrap();
    assert!(is(&replica, "pause") && replica.world().poison.len() == 1);
    replica.resync(listing(10, vec![kv(SPEC, DRAINED, 10)]), false).unwrap();
    assert!(is(&replica, "drain") && replica.world().poison.is_empty());
}

/// A node whose sign of life cannot be read shows none that can.
#[test]
fn an_old_sign_of_life_is_none() {
    let mut replica = Replica::default();
    replica.resync(listing(1, vec![kv("live/n1", r#"{"epoch":1,"applied":5}"#, 1)]), false).unwrap();
    written(&mut replica, "live/n1", "{", 2);
    assert!(replica.world().live.is_empty() && replica.world().poison.len() == 1);
}

/// Or a condition on it could never hold again.
#[test]
fn a_claim_that_is_set_aside_is_compared_as_it_is_now() {
    let mut replica = Replica::default();
    let held = kv("claim/vni/4096", r#"{"owner":"n","released":5}"#, 1);
    replica.resync(listing(1, vec![held]), false).unwrap();
    written(&mut replica, "claim/vni/4096", "{", 2);
    assert_eq!(replica.world().claims["claim/vni/4096"].modified, Rev(2));
}

#[test]
fn what_is_barred_is_not_in_force_before_it_is_written_anew() {
    let mut replica = Replica::default();
    replica.resync(listing(1, vec![kv(SPEC, PAUSED, 1)]), false).unwrap();
    // Before it comes: the form that is here stays.
    replica.bar(SPEC, Rev(2), "the agent broke", None);
    assert!(is(&replica, "pause") && replica.world().poison.is_empty());
    written(&mut replica, SPEC, DRAINED, 2);
    assert!(is(&replica, "pause"));
    assert_eq!(replica.world().poison[SPEC], "the agent broke");
    let kept = replica.to_cache().unwrap();
    assert_eq!(Replica::from_cache(kept.clone()).world(), replica.world());
    let other = Replica::from_cache(Cache { agent: "another".to_owned(), ..kept });
    assert!(is(&other, "drain") && other.world().poison.is_empty(), "another agent may not break by it");
    written(&mut replica, SPEC, DRAINED, 3);
    assert!(is(&replica, "drain") && replica.world().poison.is_empty() && replica.aside().is_empty());
    // When it is in force already: what was there before is told, or it is as if it were not there.
    let mut forgotten = replica.clone();
    replica.bar(SPEC, Rev(3), "why", Some(kv(SPEC, PAUSED, 1)));
    assert!(is(&replica, "pause") && replica.world().poison.len() == 1);
    forgotten.bar(SPEC, Rev(3), "why", None);
    assert!(is(&forgotten, "active") && forgotten.world().poison.len() == 1);
    for mut replica in [replica, forgotten] {
        replica.admit(SPEC);
        assert!(is(&replica, "drain") && replica.world().poison.is_empty() && replica.aside().is_empty());
    }
}

#[test]
fn the_cache_gives_the_same_world_back() {
    let mut replica = Replica::default();
    replica.resync(listing(3, vec![kv("stop/t", "{}", 3), kv("guard/ports", "1", 2)]), false).unwrap();
    let again = Replica::from_cache(replica.to_cache().unwrap());
    assert_eq!(again.world(), replica.world());
}
