//! **Decision.** Which requests may fail.
//!
//! A request may fail when it is in flight to what dies, or was begun so soon after that nobody could know yet. It may
//! fail, too, when its entry reaches nobody, or no task of the service. Everything else is Mesh's fault.

use std::collections::BTreeSet;

use super::{Failed, Millis, Outage, Place, Request, Severed};

/// From when a node that is dead gets no new flows: 0.9 s until it is known (`mesh_core::liveness`), and what a busy
/// machine of two processors takes to tell the kernel: a window that a prober slept through says nothing, and the
/// limit of that is 200 ms; a round that is under way when the verdict comes is finished first.
const DEAD_AFTER: Millis = 1_500;
/// The same of a path that is down while others hear the node: 1.7 s until it is known.
const PATH_DOWN_AFTER: Millis = 2_300;
/// A SYN that was lost is sent again after a second (RFC 6298 §2.1), and no processor is so busy that it would take
/// a kernel as long to answer.
const SYN_LOST: Millis = 950;
/// How many violations are told in words; a broken mesh has thousands.
const TOLD: usize = 20;

/// What a request is to the oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered as it should be.
    Good,
    /// It failed, and may: it was in flight to what died.
    InFlight,
    /// It failed, or went where it must not go: why it may not.
    Wrong(String),
}

/// What all requests together are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// How many failed, and may.
    pub in_flight: usize,
    /// How many failed, and may not.
    pub other: usize,
    /// The first that may not.
    pub violations: Vec<String>,
}

/// Judges all requests. `tasks` says for each service on which nodes it has tasks all the time.
pub fn judge(requests: &[Request], outages: &[Outage], tasks: &[BTreeSet<Place>], nodes: usize) -> Judgement {
    let mut judgement = Judgement::default();
    for request in requests {
        let none = BTreeSet::new();
        let tasks = tasks.get(request.service).unwrap_or(&none);
        match verdict(request, outages, tasks, nodes) {
            Verdict::Good => {}
            Verdict::InFlight => judgement.in_flight += 1,
            Verdict::Wrong(why) => {
                judgement.other += usize::from(request.outcome.is_err());
                if judgement.violations.len() < TOLD {
                    judgement.violations.push(why);
                }
            }
        }
    }
    judgement
}

/// Judges one request.
fn verdict(request: &Request, outages: &[Outage], tasks: &BTreeSet<Place>, nodes: usize) -> Verdict {
    let overlap = |outage: &&Outage| outage.begin <= request.ended() && request.at <= outage.end;
    let excuse = |outage: &Outage| excuses(request, outage, tasks, nodes);
    let excused = outages.iter().filter(overlap).any(excuse);
    match &request.outcome {
        Ok(_) if request.connect.is_none_or(|took| took < SYN_LOST) || excused => Verdict::Good,
        Err(Failed::Silence) if excused => Verdict::InFlight,
        Ok(_) => Verdict::Wrong(told(request, "had its first packet lost")),
        // What is dead says nothing, so whoever said no is not.
        Err(Failed::Refused(why)) => Verdict::Wrong(told(request, &format!("was refused ({why})"))),
        Err(Failed::Silence) => Verdict::Wrong(told(request, "was not answered")),
    }
}

/// How long after the beginning of an outage the last connection was begun that led to where nothing comes from, of
/// those that could have gone elsewhere: how long it took Mesh to know.
pub fn known_after(
    requests: &[Request],
    outage: &Outage,
    tasks: &[BTreeSet<Place>],
    nodes: usize,
) -> Option<Millis> {
    let Outage { begin, end, severed } = outage;
    let none = BTreeSet::new();
    let late = requests.iter().filter(|request| {
        let lost = request.outcome == Err(Failed::Silence) || request.connect >= Some(SYN_LOST);
        let tasks = tasks.get(request.service).unwrap_or(&none);
        let new = request.kept.is_none() && (begin..=end).contains(&&request.opened);
        lost && new && *severed != Severed::Loss && !has_no_way(request, severed, tasks, nodes)
    });
    late.map(|request| request.opened - begin).max()
}

/// Whether the client does not reach the entry, or the entry no other node, or no task: nobody can do anything then.
fn has_no_way(request: &Request, severed: &Severed, tasks: &BTreeSet<Place>, nodes: usize) -> bool {
    let entry = request.entry;
    // Nobody can know whether everybody else is gone or oneself.
    !request.inside && severed.from_outside(entry)
        || severed.isolates(entry, nodes)
        || tasks.iter().all(|task| severed.between(entry, *task))
}

/// Whether packets of the request may have been lost in the outage.
fn excuses(request: &Request, outage: &Outage, tasks: &BTreeSet<Place>, nodes: usize) -> bool {
    let Outage { begin, severed, .. } = outage;
    if *severed == Severed::Loss || has_no_way(request, severed, tasks, nodes) {
        return true;
    }
    let gone = |task: Place| severed.between(request.entry, task);
    let known_after = if matches!(severed, Severed::OneWay(..)) { PATH_DOWN_AFTER } else { DEAD_AFTER };
    let in_time = request.opened <= begin + known_after;
    match request.kept {
        Some(kept) => in_time && gone(kept.by),
        // Tasks may have been added on any node.
        None => in_time && (0..nodes).any(gone),
    }
}

fn told(request: &Request, what: &str) -> String {
    let Request { opened, at, took, entry, service, kept, .. } = request;
    let place = if request.inside { "a task of" } else { "the port of" };
    let age = if kept.is_some() { format!(" over a connection of {opened} ms") } else { String::new() };
    format!(
        "at {at} ms a request for service {service} by {place} n{}{age} {what} after {took} ms",
        entry + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Kept;

    /// Five nodes; the service has tasks on n1 and n3.
    const TASKS: [Place; 2] = [0, 2];

    fn of(request: Request, severed: Severed) -> Verdict {
        let outages = [Outage { begin: 10_000, end: 20_000, severed }];
        verdict(&request, &outages, &BTreeSet::from(TASKS), 5)
    }

    /// From outside by n2.
    fn silent(at: Millis) -> Request {
        let outcome = Err(Failed::Silence);
        let (opened, took, connect, kept) = (at, 3_000, Some(3_000), None);
        Request { opened, at, took, connect, entry: 1, inside: false, service: 0, kept, outcome }
    }

    fn answered(at: Millis, connect: Millis) -> Request {
        Request { took: connect + 1, connect: Some(connect), outcome: Ok(0), ..silent(at) }
    }

    fn kept(at: Millis, opened: Millis, by: Place) -> Request {
        Request { opened, connect: None, kept: Some(Kept { by }), ..silent(at) }
    }

    fn is_wrong(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wrong(_))
    }

    #[test]
    fn what_is_in_flight_to_a_node_that_dies_may_fail() {
        assert_eq!(of(silent(9_000), Severed::Node(2)), Verdict::InFlight);
        assert_eq!(of(silent(10_900), Severed::Node(2)), Verdict::InFlight);
    }

    #[test]
    fn three_seconds_later_it_may_not() {
        assert!(is_wrong(&of(silent(13_000), Severed::Node(2))));
        assert!(is_wrong(&of(silent(11_501), Severed::Node(2))));
    }

    #[test]
    fn nor_may_it_before_or_after() {
        assert!(is_wrong(&of(silent(6_000), Severed::Node(2))));
        assert!(is_wrong(&of(silent(20_001), Severed::Node(2))));
    }

    #[test]
    fn a_refusal_is_never_excused() {
        let refused = Request { outcome: Err(Failed::Refused("reset".into())), ..silent(10_100) };
        assert!(is_wrong(&of(refused, Severed::Node(2))));
    }

    #[test]
    fn nobody_is_asked_to_reach_a_node_that_is_cut_off() {
        assert_eq!(of(silent(15_000), Severed::Node(1)), Verdict::InFlight);
        let inside = Request { inside: true, ..silent(15_000) };
        assert_eq!(of(inside, Severed::Node(1)), Verdict::InFlight);
    }

    #[test]
    fn an_entry_that_reaches_nobody_or_no_task_may_fail() {
        assert_eq!(of(silent(15_000), Severed::Split(BTreeSet::from([1]))), Verdict::InFlight);
        assert_eq!(of(silent(15_000), Severed::Split(BTreeSet::from([1, 3]))), Verdict::InFlight);
        assert!(is_wrong(&of(silent(15_000), Severed::Split(BTreeSet::from([1, 2])))), "n3 is on its side");
    }

    #[test]
    fn a_path_takes_longer_to_be_known() {
        assert_eq!(of(silent(12_200), Severed::OneWay(2, 1)), Verdict::InFlight);
        assert!(is_wrong(&of(silent(12_400), Severed::OneWay(1, 2))));
        assert!(is_wrong(&of(silent(10_500), Severed::OneWay(2, 3))), "it is not the entry's path");
    }

    #[test]
    fn old_connections_to_what_died_end_and_others_do_not() {
        assert_eq!(of(kept(15_000, 2_000, 2), Severed::Node(2)), Verdict::InFlight);
        assert!(is_wrong(&of(kept(15_000, 2_000, 0), Severed::Node(2))), "its task lives");
        assert!(is_wrong(&of(kept(15_000, 14_000, 2), Severed::Node(2))), "it was made when that was dead");
    }

    #[test]
    fn a_lost_syn_is_a_flow_to_the_dead() {
        assert_eq!(of(answered(15_000, 900), Severed::Node(2)), Verdict::Good);
        assert!(is_wrong(&of(answered(15_000, 1_010), Severed::Node(2))));
        assert_eq!(of(answered(10_500, 1_010), Severed::Node(2)), Verdict::Good);
        assert_eq!(of(answered(15_000, 1_010), Severed::Loss), Verdict::Good);
    }

    #[test]
    fn loss_excuses_silence() {
        assert_eq!(of(silent(15_000), Severed::Loss), Verdict::InFlight);
    }

    #[test]
    fn how_long_it_took_to_know_is_told() {
        let outage = Outage { begin: 10_000, end: 20_000, severed: Severed::Node(2) };
        let elsewhere = Request { entry: 2, ..silent(19_000) };
        let requests =
            [silent(9_000), silent(10_300), answered(10_800, 1_010), answered(15_000, 3), elsewhere];
        assert_eq!(known_after(&requests, &outage, &[BTreeSet::from(TASKS)], 5), Some(800));
        assert_eq!(known_after(&requests[3..], &outage, &[BTreeSet::from(TASKS)], 5), None);
    }

    #[test]
    fn failures_are_counted_by_their_kind() {
        let outages = [Outage { begin: 10_000, end: 20_000, severed: Severed::Node(2) }];
        let requests = [silent(10_100), silent(15_000), answered(15_000, 1_100), answered(100, 2)];
        let judgement = judge(&requests, &outages, &[BTreeSet::from(TASKS)], 5);
        assert_eq!((judgement.in_flight, judgement.other, judgement.violations.len()), (1, 1, 2));
    }
}
