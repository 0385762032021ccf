use proptest::prelude::*;

use super::*;
use crate::change::{Fresh, begin as first_manager};
use crate::kv::{KvState, Listing};
use crate::model::Certificate;
use crate::replica::Replica;

/// Managers whose members of etcd are modelled: whom each trusts since it started, and whose certificate it shows.
struct Cluster {
    store: KvState,
    replica: Replica,
    managers: Vec<Manager>,
    /// Wanted as a manager, and no member yet.
    coming: bool,
}

#[derive(Clone)]
struct Manager {
    id: NodeId,
    trusts: BTreeSet<&'static str>,
    shows: &'static str,
    /// Its member is starting.
    away: bool,
}

impl Cluster {
    fn of(managers: usize) -> Self {
        let (store, mut replica) = (KvState::default(), Replica::default());
        let empty = Listing { cluster: "c".to_owned(), rev: store.rev(), kvs: Vec::new() };
        replica.resync(empty, false).unwrap();
        let mut cluster = Self { store, replica, managers: Vec::new(), coming: false };
        (0..managers).for_each(|_| cluster.add("old"));
        let txn = begin_member_rotation(cluster.replica.world(), Rev(0), "new").unwrap().txn;
        assert!(cluster.commit(&txn));
        cluster
    }

    fn add(&mut self, shows: &'static str) {
        let id = self.want();
        self.managers.push(Manager { id, trusts: ["old"].into(), shows, away: false });
    }

    /// The records say that one more is to be a manager.
    fn want(&mut self) -> NodeId {
        let id = NodeId::new(format!("n{}", self.managers.len()));
        let certificate = Certificate { serial: id.to_string(), until: 9 };
        let txn = first_manager(&Snapshot::default(), &id, certificate, Fresh { id: [0; 16], now: 0 }).txn;
        assert!(self.commit(&txn));
        id
    }

    /// A manager signs for it, and tells it whom to trust; then it is one.
    fn let_in(&mut self, signer: usize) {
        let id = NodeId::new(format!("n{}", self.managers.len()));
        let Manager { trusts, shows, .. } = self.managers[signer].clone();
        self.managers.push(Manager { id, trusts, shows, away: false });
        self.coming = false;
    }

    fn commit(&mut self, txn: &Txn) -> bool {
        let Ok(batch) = self.store.prepare(txn).unwrap() else { return false };
        self.store.install(batch.clone());
        self.replica.apply(batch);
        true
    }

    /// A manager looks and acts, by the records as they are or as they were.
    fn act(&mut self, place: usize, world: &Snapshot) {
        let others_well =
            !self.coming && self.managers.iter().enumerate().all(|(at, one)| at == place || !one.away);
        let me = self.managers[place].clone();
        match trust_duty(world, &me.id, me.shows, others_well, !me.away) {
            TrustDuty::Nothing => {}
            TrustDuty::Write(txn) => drop(self.commit(&txn)),
            TrustDuty::TakeOver => self.managers[place].shows = "new",
            TrustDuty::StartAnew { both, .. } if me.away => {
                let one = &mut self.managers[place];
                one.away = false;
                one.trusts = if both { ["old", "new"].into() } else { ["new"].into() };
                if let Some(txn) = done(world, &me.id) {
                    self.commit(&txn);
                }
            }
            TrustDuty::StartAnew { still, .. } => self.managers[place].away = self.commit(&still),
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.managers.iter().filter(|one| one.away).count() < 2, "two are away at once");
        for (one, other) in self.managers.iter().flat_map(|a| self.managers.iter().map(move |b| (a, b))) {
            prop_assert!(one.trusts.contains(other.shows), "{} would not know {}", one.id, other.id);
        }
        Ok(())
    }
}

proptest! {
    /// Whoever acts when, and by how old a copy of the records: never are two members away, each knows the others all
    /// the time, and it comes to an end.
    #[test]
    fn members_know_each_other_and_only_one_is_away(
        managers in 1_usize..6,
        acts in prop::collection::vec((0_usize..6, any::<bool>()), 0..200),
    ) {
        let mut cluster = Cluster::of(managers);
        let mut older = cluster.replica.world().clone();
        for (place, lags) in acts {
            let now = cluster.replica.world().clone();
            cluster.act(place % managers, if lags { &older } else { &now });
            cluster.check()?;
            if !lags {
                older = now;
            }
        }
        for round in 0..40 * managers {
            let now = cluster.replica.world().clone();
            cluster.act(round % managers, &now);
            cluster.check()?;
        }
        prop_assert!(!is_rotating(cluster.replica.world()));
        prop_assert_eq!(member_rotation_progress(cluster.replica.world()), (3 * managers, 3 * managers));
        for one in &cluster.managers {
            prop_assert_eq!((&one.trusts, one.shows), (&["new"].into(), "new"));
        }
    }
}

proptest! {
    /// A node becomes a manager at any moment of a replacement, and is signed for at any moment after that, by whomever.
    #[test]
    fn who_becomes_a_manager_meanwhile_is_known_by_all_and_knows_them(
        managers in 1_usize..5,
        acts in prop::collection::vec((0_usize..6, any::<bool>()), 60..200),
        (wanted, later, signer) in (0_usize..60, 0_usize..60, 0_usize..5),
    ) {
        let mut cluster = Cluster::of(managers);
        let mut older = cluster.replica.world().clone();
        for (number, (place, lags)) in acts.into_iter().enumerate() {
            if number == wanted {
                cluster.want();
                cluster.coming = true;
            }
            if cluster.coming && number >= wanted + later {
                cluster.let_in(signer % managers);
            }
            let now = cluster.replica.world().clone();
            let at = place % cluster.managers.len();
            // Whoever has signed for it, and it itself, know of it from then on.
            let knows = cluster.managers.len() > managers && [signer % managers, managers].contains(&at);
            cluster.act(at, if lags && !knows { &older } else { &now });
            cluster.check()?;
            if !lags {
                older = now;
            }
        }
        if cluster.coming {
            cluster.let_in(signer % managers);
        }
        for round in 0..40 * (managers + 1) {
            let now = cluster.replica.world().clone();
            cluster.act(round % (managers + 1), &now);
            cluster.check()?;
        }
        prop_assert!(!is_rotating(cluster.replica.world()));
        for one in &cluster.managers {
            prop_assert_eq!((&one.trusts, one.shows), (&["new"].into(), "new"));
        }
    }
}

#[test]
fn a_turn_of_who_is_no_manager_any_more_passes() {
    let mut cluster = Cluster::of(2);
    let world = cluster.replica.world().clone();
    cluster.act(0, &world);
    let mut world = cluster.replica.world().clone();
    let (me, gone) = (cluster.managers[1].id.clone(), cluster.managers[0].id.clone());
    assert_eq!(trust_duty(&world, &me, "old", true, true), TrustDuty::Nothing);
    world.identities.remove(&gone);
    assert!(matches!(trust_duty(&world, &me, "old", true, true), TrustDuty::Write(_)));
    assert_eq!(trust_duty(&world, &me, "old", false, true), TrustDuty::Nothing, "another does not answer");
    assert_eq!(trust_duty(&world, &me, "old", true, false), TrustDuty::Nothing, "its own does not answer");
}

#[test]
fn a_manager_that_came_in_with_the_former_authority_takes_over_the_next_one() {
    let mut cluster = Cluster::of(1);
    for _ in 0..20 {
        let world = cluster.replica.world().clone();
        cluster.act(0, &world);
    }
    let world = cluster.replica.world();
    assert!(!is_rotating(world));
    assert_eq!(trust_duty(world, &cluster.managers[0].id, "old", true, true), TrustDuty::TakeOver);
    let seen = world.rev_of(MEMBER_ROTATION);
    assert!(begin_member_rotation(world, seen, "third").is_ok());
    assert!(begin_member_rotation(world, Rev(seen.0 - 1), "third").is_err(), "its secret may be gone");
}
