//! **Effect.** A run: rounds of faults, under traffic and changes, and the judgement.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};

use super::{
    Change, Millis, Outage, Report, Round,
    changes::Changes,
    cluster::{self, SERVICES, SIZE},
    convergence::converges,
    faults::{harm, harm_store},
    given_twice, judge, known_after,
    schedule::{CALM, Size, schedule},
    store::Store,
    traffic::Traffic,
};
use crate::{Lab, lab_test};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// What everything follows from.
    pub seed: u64,
    /// About how long faults go on; a start and an end come to that.
    pub length: Duration,
    /// These rounds and not those of the seed.
    pub rounds: Option<Vec<Round>>,
    /// The kernels answer no ICMP probe, so that on the nftables plane nobody finds out who is dead: a mesh that breaks
    /// its promises.
    pub deaf: bool,
    /// The first nodes are managers, and have the store; else it is beside them.
    pub managed: bool,
    /// The data plane of the agents, `ebpf` or `nft`; none: as the environment has it.
    pub dataplane: Option<String>,
}

impl Options {
    /// What the seed says, for so long.
    pub fn new(seed: u64, length: Duration) -> Self {
        Self { seed, length, rounds: None, deaf: false, managed: false, dataplane: None }
    }

    /// What is done.
    pub fn schedule(&self) -> Vec<Round> {
        let of_seed = || {
            let length = self.length.as_millis() as Millis;
            schedule(self.seed, length, Size { managed: self.managed, ..SIZE })
        };
        self.rounds.clone().unwrap_or_else(of_seed)
    }
}

/// Runs the `mesh` program at that path in a lab of its own, and says what came of it. Progress goes to
/// standard error, and so does the state of the lab when a promise was not kept.
pub fn run(mesh: &Path, options: &Options) -> Result<Report> {
    let mut report = None;
    let builder = cluster::lab(mesh, options.managed);
    let builder = match &options.dataplane {
        Some(plane) => builder.dataplane(plane),
        None => builder,
    };
    // Of a promise that is not kept, the state of the lab is evidence.
    let ended = lab_test(builder, |lab| {
        let report = report.insert(run_in(lab, options)?);
        ensure!(report.is_clean(), "promises were not kept: {:#?}", report.violations);
        Ok(())
    });
    match (report, ended) {
        (Some(report), _) => Ok(report),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => bail!("nothing was run"),
    }
}

fn run_in(lab: &Lab, options: &Options) -> Result<Report> {
    if options.deaf {
        for node in lab.nodes() {
            node.sysctl("net/ipv4/icmp_echo_ignore_all", "1")?;
        }
    }
    let (mut store, clients) = cluster::start(lab, options.managed)?;
    let mut run = Run { lab, start: Instant::now(), outages: Vec::new(), changes: Changes::default() };
    let traffic = Traffic::start(&clients, run.start)?;
    thread::sleep(Duration::from_secs(1));
    let rounds = options.schedule();
    let mut violations = Vec::new();
    for (number, round) in rounds.iter().enumerate() {
        let at = run.start.elapsed().as_secs();
        eprintln!("{at:>4} s  round {} of {}: {}", number + 1, rounds.len(), said(round));
        let ended = run.round(&mut store, round)?;
        match converges(lab, ended) {
            Ok(took) => eprintln!("        all nodes are as they should be {took:.1?} after that"),
            Err(error) => violations.push(format!("round {}: {error:#}", number + 1)),
        }
        thread::sleep(Duration::from_millis(CALM).saturating_sub(ended.elapsed()));
    }
    eprintln!("        {} requests; the records are looked through", traffic.count());
    let requests = traffic.stop()?;
    let tasks = SERVICES.map(|nodes| nodes.iter().copied().collect::<BTreeSet<_>>());
    for outage in &run.outages {
        let Outage { begin, end, severed } = outage;
        let late = known_after(&requests, outage, &tasks, SIZE.nodes);
        let late =
            late.map_or("no request".to_owned(), |late| format!("requests until {late} ms after that"));
        eprintln!("        {severed:?} from {begin} to {end} ms: {late} went there in vain");
    }
    let judgement = judge(&requests, &run.outages, &tasks, SIZE.nodes);
    let history = store.history()?;
    let (asked, refused) = run.changes.counts();
    let events = history.len();
    eprintln!("        {asked} changes, {refused} of them not acknowledged; {events} changes of records");
    violations.extend(judgement.violations);
    violations.extend(given_twice(&history));
    violations.extend(run.changes.lost(&history));
    Ok(Report {
        seed: options.seed,
        faults: rounds.iter().map(Round::faults).sum(),
        requests: requests.len(),
        failed_in_flight: judgement.in_flight,
        failed_other: judgement.other,
        violations,
    })
}

struct Run<'a> {
    lab: &'a Lab,
    start: Instant,
    outages: Vec<Outage>,
    changes: Changes,
}

impl Run<'_> {
    /// Does a round, and says when the last of it was over.
    fn round(&mut self, store: &mut Store<'_>, round: &Round) -> Result<Instant> {
        let (lab, start, changes) = (self.lab, self.start, &mut self.changes);
        for change in &round.before {
            changes.ask(lab, change);
        }
        let outage = thread::scope(|scope| {
            let node = scope.spawn(|| match &round.node {
                Some(fault) => harm(lab, fault, start),
                None => Ok(None),
            });
            let stored = scope.spawn(|| {
                let Some((after, fault)) = &round.store else { return Ok(()) };
                thread::sleep(Duration::from_millis(*after));
                harm_store(store, fault)
            });
            ask_meanwhile(lab, changes, &round.meanwhile);
            let panicked = |_| anyhow!("a thread of a fault panicked");
            stored.join().map_err(panicked)??;
            node.join().map_err(panicked)?
        })?;
        self.outages.extend(outage);
        Ok(Instant::now())
    }
}

fn ask_meanwhile(lab: &Lab, changes: &mut Changes, meanwhile: &[(Millis, Change)]) {
    let begun = Instant::now();
    for (at, change) in meanwhile {
        thread::sleep(Duration::from_millis(*at).saturating_sub(begun.elapsed()));
        changes.ask(lab, change);
    }
}

/// A round in short. Nodes count from 0.
fn said(round: &Round) -> String {
    let node = round.node.as_ref().map(|fault| format!("{fault:?}"));
    let store = round.store.as_ref().map(|(after, fault)| format!("the store after {after} ms: {fault:?}"));
    let changes = round.before.len() + round.meanwhile.len();
    let parts = [node, store, (changes > 0).then(|| format!("{changes} changes"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
