use proptest::prelude::*;

use super::*;

fn id(number: usize) -> NodeId {
    NodeId::new(format!("n{number}"))
}

/// A node among others whose answers are what a test says.
struct Sim {
    detector: Detector,
    now: Millis,
    count: usize,
}

impl Sim {
    /// All of them answer.
    fn new(count: usize) -> Self {
        let mut detector = Detector::new(Timing::DEFAULT);
        detector.set_peers(&(0..count).map(id).collect());
        let mut sim = Self { detector, now: 1000, count };
        sim.run(5, |_| true);
        assert!((0..count).all(|peer| sim.verdict(peer) == Verdict::Up));
        sim
    }

    fn verdict(&self, peer: usize) -> Verdict {
        self.detector.verdict(&id(peer)).unwrap()
    }

    /// So many windows in which those answer.
    fn run(&mut self, windows: usize, answers: impl Fn(usize) -> bool) {
        for _ in 0..windows {
            self.window(Timing::DEFAULT.period, &answers);
        }
    }

    fn window(&mut self, took: Millis, answers: impl Fn(usize) -> bool) -> Vec<Action> {
        for peer in (0..self.count).filter(|peer| answers(*peer)) {
            self.detector.heard(&id(peer));
        }
        self.now += took;
        self.detector.tick(self.now)
    }

    fn masked(&self) -> Vec<NodeId> {
        self.detector.masks().keys().cloned().collect()
    }
}

#[test]
fn who_falls_silent_is_suspect_then_dead_and_back_after_three_answers() {
    let mut sim = Sim::new(3);
    let silent = |peer| peer != 1;
    sim.run(3, silent);
    assert_eq!(sim.verdict(1), Verdict::Up);
    sim.run(1, silent);
    assert_eq!(sim.verdict(1), Verdict::Suspect);
    sim.run(3, silent);
    assert_eq!((sim.verdict(1), sim.masked()), (Verdict::Suspect, vec![]));
    sim.run(1, silent);
    assert_eq!((sim.verdict(1), sim.masked()), (Verdict::Dead, vec![id(1)]));
    sim.run(2, |_| true);
    sim.run(1, silent);
    sim.run(2, |_| true);
    assert_eq!(sim.masked(), [id(1)], "two answers in a row are not three");
    sim.run(1, |_| true);
    assert_eq!((sim.verdict(1), sim.masked()), (Verdict::Up, vec![]));
}

#[test]
fn one_answer_clears_of_suspicion() {
    let mut sim = Sim::new(3);
    for _ in 0..10 {
        sim.run(7, |peer| peer != 1);
        assert_eq!(sim.verdict(1), Verdict::Suspect);
        sim.run(1, |_| true);
        assert_eq!(sim.verdict(1), Verdict::Up);
    }
}

#[test]
fn who_was_never_heard_is_not_judged() {
    let mut detector = Detector::new(Timing::DEFAULT);
    detector.set_peers(&[id(0)].into());
    for tick in 0..100 {
        detector.tick(tick * 100);
    }
    assert_eq!(detector.verdict(&id(0)), Some(Verdict::Unheard));
    assert!(detector.masks().is_empty());
}

/// A tunnel that was blocked from the start, while the node itself answers.
#[test]
fn who_was_never_heard_but_must_be_there_is_judged() {
    let mut detector = Detector::new(Timing::TUNNEL);
    detector.set_peers(&[id(0), id(1)].into());
    for window in 1..=u64::from(Timing::TUNNEL.dead) {
        assert!(detector.masks().is_empty());
        detector.expect(&id(0));
        // The first window says nothing: it had no beginning.
        detector.tick(window * Timing::TUNNEL.period);
    }
    detector.tick(u64::from(Timing::TUNNEL.dead + 1) * Timing::TUNNEL.period);
    assert_eq!(detector.masks().iter().collect::<Vec<_>>(), [(&id(0), &Verdict::Dead)]);
}

/// Those that come later have a first window, too: their first probe leaves at its end.
#[test]
fn a_window_without_a_probe_says_nothing() {
    let mut sim = Sim::new(3);
    sim.count = 4;
    sim.detector.set_peers(&(0..4).map(id).collect());
    sim.detector.expect(&id(3));
    sim.run(8, |peer| peer < 3);
    assert!(sim.masked().is_empty());
    sim.run(1, |peer| peer < 3);
    assert_eq!(sim.masked(), [id(3)]);
}

/// The agent before masked it: nothing goes there until it answers.
#[test]
fn who_was_silent_before_is_silent_until_it_answers_three_times() {
    let mut detector = Detector::new(Timing::DEFAULT);
    detector.remember((1..6).map(id).collect());
    assert!(detector.masks().is_empty());
    detector.set_peers(&(0..6).map(id).collect());
    assert_eq!(detector.masks().keys().cloned().collect::<Vec<_>>(), (1..6).map(id).collect::<Vec<_>>());
    let mut sim = Sim { detector, now: 0, count: 6 };
    sim.run(2, |peer| peer < 2);
    assert!(sim.masked().contains(&id(1)));
    sim.run(1, |peer| peer < 2);
    assert_eq!(sim.masked(), (2..6).map(id).collect::<Vec<_>>());
    assert!(!sim.detector.is_alone(), "that they are many is nothing new");
    sim.detector.set_peers(&[id(0), id(1)].into());
    sim.detector.set_peers(&(0..6).map(id).collect());
    assert!(sim.masked().is_empty(), "whoever comes anew is judged anew");
}

/// Its kernel answers again, and what makes tunnels there is not there yet.
#[test]
fn who_is_doubted_is_masked_until_it_answers_three_times() {
    let mut sim = Sim::new(3);
    sim.detector.doubt(&id(1), sim.now);
    sim.detector.heard(&id(1));
    sim.run(2, |_| true);
    assert_eq!(sim.masked(), [id(1)]);
    sim.run(1, |_| true);
    assert_eq!((sim.verdict(1), sim.masked()), (Verdict::Up, vec![]));
    let mut unheard = Detector::new(Timing::TUNNEL);
    unheard.set_peers(&[id(0)].into());
    unheard.doubt(&id(0), 0);
    assert_eq!(unheard.verdict(&id(0)), Some(Verdict::Unheard), "there may be no tunnel to it");
}

#[test]
fn whoever_others_hear_is_not_dead_but_cut_off_from_us() {
    let mut sim = Sim::new(4);
    for _ in 0..15 {
        let now = sim.now;
        let actions = sim.window(Timing::DEFAULT.period, |peer| peer != 1);
        let asked = actions.iter().filter(
            |action| matches!(action, Action::Ask { about, via } if *about == id(1) && *via != id(1)),
        );
        if sim.verdict(1) == Verdict::Suspect {
            assert_eq!(asked.count(), 3, "all others that are up");
        }
        sim.detector.vouched(&id(1), now);
        assert!(sim.masked().is_empty());
    }
    sim.run(1, |peer| peer != 1);
    assert_eq!(sim.detector.masks()[&id(1)], Verdict::PathDown);
    // Nobody says so any more.
    sim.run(10, |peer| peer != 1);
    assert_eq!(sim.detector.masks()[&id(1)], Verdict::Dead);
}

/// A node that was not given the processor knows nothing of others, but what it knew before stands.
#[test]
fn windows_that_were_slept_through_say_nothing() {
    let mut sim = Sim::new(3);
    sim.run(4, |peer| peer != 1);
    for _ in 0..50 {
        sim.window(1500, |peer| peer != 1);
    }
    assert_eq!(sim.verdict(1), Verdict::Suspect);
    sim.run(4, |peer| peer != 1);
    assert_eq!(sim.verdict(1), Verdict::Dead);
    assert_eq!((sim.verdict(0), sim.verdict(2)), (Verdict::Up, Verdict::Up));
}

#[test]
fn who_loses_all_others_at_once_masks_nobody() {
    let mut sim = Sim::new(8);
    sim.run(30, |peer| peer != 7);
    assert_eq!(sim.masked(), [id(7)]);
    sim.run(40, |_| false);
    assert!(sim.detector.is_alone());
    assert_eq!(sim.masked(), [id(7)], "what it knew before stands");
    sim.run(3, |peer| peer != 6 && peer != 7);
    assert!(!sim.detector.is_alone());
    assert_eq!(sim.masked(), [id(6), id(7)]);
}

/// The network between may fail piece by piece.
#[test]
fn those_that_fell_silent_moments_before_the_rest_are_part_of_it() {
    let mut sim = Sim::new(8);
    sim.run(5, |peer| peer > 2);
    sim.run(5, |_| false);
    assert_eq!(sim.masked().len(), 3);
    sim.run(5, |_| false);
    assert!(sim.detector.is_alone());
    assert!(sim.masked().is_empty(), "{:?}", sim.masked());
}

proptest! {
    /// Whatever is lost: who answers in one of eight windows is never dead, and who answers in none is after eight.
    #[test]
    fn silence_and_nothing_else_is_death(windows in prop::collection::vec(any::<[bool; 3]>(), 1..200)) {
        let mut sim = Sim::new(3);
        let mut silent = [0; 3];
        for heard in windows {
            let before: Vec<_> = (0..3).map(|peer| sim.verdict(peer)).collect();
            sim.run(1, |peer| heard[peer]);
            for peer in 0..3 {
                silent[peer] = if heard[peer] { 0 } else { silent[peer] + 1 };
                let dead = sim.verdict(peer) == Verdict::Dead;
                prop_assert_eq!(dead && before[peer] != Verdict::Dead, silent[peer] == 8 && before[peer] != Verdict::Dead);
                prop_assert_eq!(dead, sim.detector.masks().contains_key(&id(peer)));
            }
        }
    }
}
