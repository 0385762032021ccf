//! Tokens let nodes in as often and as long as they say; certificates are renewed and denied.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::time::Duration;

use mesh_core::change::{self, Applicant, Follow, TokenTerms, standing};
use mesh_core::kv::Txn;
use mesh_core::model::{Certificate, Live, NodeId, Role};
use mesh_core::records;
use mesh_core::token::{JoinToken, TokenSecret};
use proptest::prelude::*;
use sim::Sim;

const MONTH: u64 = 30 * 86_400_000;

fn token(sim: &mut Sim, role: Role, life: Option<u64>, uses: Option<u32>, rotate: bool) -> JoinToken {
    let terms = TokenTerms { role, life: life.map(Duration::from_secs), uses, rotate };
    sim.change(|world, fresh| change::add_token(world, [1; 32], terms, fresh)).unwrap()
}

fn applicant(sim: &mut Sim, name: &str, token: &JoinToken) -> Applicant {
    let until = sim.now() + MONTH;
    let certificate = Certificate { serial: format!("{:032x}", sim.fresh().now), until };
    Applicant {
        secret: token.secret.clone(),
        node: NodeId::new(format!("{name}id")),
        name: name.parse().unwrap(),
        certificate,
    }
}

fn admit(sim: &mut Sim, name: &str, token: &JoinToken) -> Result<Role, String> {
    let who = applicant(sim, name, token);
    sim.change(|world, fresh| change::admit(world, &who, fresh)).map_err(|refusal| refusal.to_string())
}

#[test]
fn a_token_says_what_a_node_becomes_and_how_often() {
    let mut sim = Sim::new();
    let worker = token(&mut sim, Role::Worker, None, None, false);
    let manager = token(&mut sim, Role::Manager, None, Some(1), false);
    assert_eq!(admit(&mut sim, "n1", &worker), Ok(Role::Worker));
    assert_eq!(admit(&mut sim, "n2", &manager), Ok(Role::Manager));
    assert!(admit(&mut sim, "n3", &manager).unwrap_err().contains("as many nodes as the join token is for"));
    // The answer got lost, and it asks again: the same node, no further use.
    assert_eq!(admit(&mut sim, "n2", &manager), Ok(Role::Manager));
    assert_eq!(sim.world().identities[&NodeId::new("n2id")].certificates.len(), 2);
    let stored = &sim.store.get("token/manager").unwrap().value;
    assert!(
        !stored.contains(&manager.secret.expose()) && stored.contains(&manager.secret.hash()),
        "{stored}"
    );
}

#[test]
fn a_token_ends() {
    let mut sim = Sim::new();
    let short = token(&mut sim, Role::Worker, Some(60), None, false);
    let old = token(&mut sim, Role::Worker, None, None, false);
    admit(&mut sim, "n1", &short).unwrap();
    sim.wait(3700);
    let why = admit(&mut sim, "n2", &short).unwrap_err();
    assert!(why.contains("expired 1 hour ago") && why.contains("'mesh cluster token'"), "{why}");
    let new = token(&mut sim, Role::Worker, None, None, true);
    for gone in [&short, &old, &JoinToken { secret: TokenSecret::from_random([9; 16]), ..old.clone() }] {
        assert!(admit(&mut sim, "n2", gone).unwrap_err().contains("not known here"));
    }
    admit(&mut sim, "n2", &new).unwrap();
    assert!(!sim.world().identities.contains_key(&NodeId::new("n3id")));
}

#[test]
fn tokens_that_let_nobody_in_and_too_many_are_refused() {
    let mut sim = Sim::new();
    for (life, uses, expected) in [(None, Some(0), "0 times"), (Some(Duration::ZERO), None, "ends at once")] {
        let terms = TokenTerms { role: Role::Worker, life, uses, rotate: false };
        let fresh = sim.fresh();
        let refusal = change::add_token(sim.world(), [0; 32], terms, fresh).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    for _ in 0..64 {
        token(&mut sim, Role::Worker, Some(1000), None, false);
    }
    let terms = TokenTerms { role: Role::Worker, life: None, uses: None, rotate: false };
    let fresh = sim.fresh();
    let refusal = change::add_token(sim.world(), [0; 32], terms, fresh).unwrap_err().to_string();
    assert!(refusal.contains("64 worker tokens") && refusal.contains("--rotate"), "{refusal}");
    sim.wait(5000);
    token(&mut sim, Role::Worker, None, None, false);
    assert_eq!(sim.world().tokens[&Role::Worker].tokens.len(), 1, "those that have ended make room");
}

#[test]
fn a_name_is_given_once_and_only_who_may_join_learns_of_it() {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    let good = token(&mut sim, Role::Worker, None, None, false);
    let wrong = JoinToken { secret: TokenSecret::from_random([7; 16]), ..good.clone() };
    let other = |sim: &mut Sim, token| {
        let who = Applicant { node: NodeId::new("x"), ..applicant(sim, "n1", token) };
        sim.change(|world, fresh| change::admit(world, &who, fresh)).unwrap_err().to_string()
    };
    assert!(other(&mut sim, &wrong).contains("not known here"));
    assert!(other(&mut sim, &good).contains("a node named n1 is in the mesh already"));
    assert!(sim.world().identities.is_empty(), "nothing was changed");
}

#[test]
fn who_is_removed_has_no_certificate_any_more() {
    let mut sim = Sim::new();
    let good = token(&mut sim, Role::Worker, None, None, false);
    admit(&mut sim, "n1", &good).unwrap();
    sim.join("n1", "192.0.2.1").unwrap();
    let id = NodeId::new("n1id");
    let next = applicant(&mut sim, "n1", &good).certificate;
    sim.change(|world, fresh| change::renew(world, &id, next.clone(), fresh)).unwrap();
    let serials: Vec<String> = sim.world().identities[&id]
        .certificates
        .iter()
        .map(|certificate| certificate.serial.clone())
        .collect();
    assert_eq!(serials.len(), 2);
    assert_eq!(standing(sim.world(), &id, &serials[0], Role::Worker), Ok(Role::Worker));
    sim.change(|world, _| change::remove_node(world, "n1", false)).unwrap();
    for serial in &serials {
        let why = standing(sim.world(), &id, serial, Role::Worker).unwrap_err();
        assert!(why.contains("node n1id was removed") && why.contains("join again"), "{why}");
    }
    let fresh = sim.fresh();
    let why = change::renew(sim.world(), &id, next, fresh).unwrap_err().to_string();
    assert!(why.contains("it was removed"), "{why}");
    // It may come back with a token, and denials go when they say nothing any more.
    sim.wait(2 * MONTH / 1000);
    admit(&mut sim, "n1", &good).unwrap();
    assert!(sim.world().denied.is_empty());
}

/// Whoever asks for certificates again and again fills nothing.
#[test]
fn certificates_are_not_without_number() {
    let mut sim = Sim::new();
    let id = NodeId::new("n1id");
    let certificate = |n: u64, until| Certificate { serial: format!("{n:032x}"), until };
    sim.change(|world, fresh| Ok(change::begin(world, &id, certificate(0, MONTH), fresh))).unwrap();
    let renew = |sim: &mut Sim, n, until| {
        sim.change(|world, fresh| change::renew(world, &id, certificate(n, until), fresh)).map(drop)
    };
    for n in 1..64 {
        renew(&mut sim, n, MONTH).unwrap();
    }
    let why = renew(&mut sim, 64, MONTH).unwrap_err().to_string();
    assert!(why.contains("64 certificates that have not ended"), "{why}");
    sim.wait(2 * MONTH / 1000);
    renew(&mut sim, 65, 4 * MONTH).unwrap();
    assert_eq!(sim.world().identities[&id].certificates.len(), 1);
}

/// Of a connection that began with a certificate which has ended, the next one counts; of a node that was removed, none.
#[test]
fn whoever_renewed_in_time_stays_connected() {
    let mut sim = Sim::new();
    let id = NodeId::new("n1id");
    let certificate = |serial: &str, until| Certificate { serial: serial.to_owned(), until };
    sim.change(|world, fresh| Ok(change::begin(world, &id, certificate("a", MONTH), fresh))).unwrap();
    assert!(change::is_certified(sim.world(), &id, MONTH));
    assert!(!change::is_certified(sim.world(), &id, MONTH + 1));
    sim.change(|world, fresh| change::renew(world, &id, certificate("b", 2 * MONTH), fresh)).unwrap();
    assert!(change::is_certified(sim.world(), &id, MONTH + 1));
    assert!(!change::is_certified(sim.world(), &NodeId::new("n2id"), 0));
}

/// The former authority is trusted until every node that is let in says that it uses the new one.
#[test]
fn an_authority_is_replaced_when_all_nodes_say_so() {
    let mut sim = Sim::new();
    let ids = ["n1", "n2"].map(NodeId::new);
    for id in &ids {
        let certificate = Certificate { serial: id.as_str().to_owned(), until: MONTH };
        sim.change(|world, fresh| Ok(change::begin(world, id, certificate, fresh))).unwrap();
    }
    let follow = |sim: &Sim, issuer: &str, trusted| change::follow(sim.world(), issuer, trusted);
    let says = |sim: &mut Sim, id: &NodeId, authority: &str| {
        let live = Live { epoch: 1, authority: authority.to_owned(), ..Live::default() };
        let mut txn = Txn::default();
        txn.put(records::live(id), records::to_json(&live));
        assert!(sim.commit(&txn));
    };
    ids.iter().for_each(|id| says(&mut sim, id, "old"));
    assert_eq!((follow(&sim, "old", 1), change::settle_rotation(sim.world())), (Follow::Nothing, None));
    sim.change(|world, _| change::begin_rotation(world, "old", "new")).unwrap();
    let again = sim.change(|world, _| change::begin_rotation(world, "new", "newer")).unwrap_err().to_string();
    assert!(again.contains("being replaced already"), "{again}");
    assert_eq!((follow(&sim, "old", 1), follow(&sim, "new", 2)), (Follow::Renew, Follow::Nothing));
    says(&mut sim, &ids[0], "new");
    assert_eq!((change::rotated(sim.world()), change::settle_rotation(sim.world())), ((2, 1), None));
    says(&mut sim, &ids[1], "new");
    let settled = change::settle_rotation(sim.world()).unwrap();
    assert!(sim.commit(&settled));
    assert_eq!(change::settle_rotation(sim.world()), None);
    assert_eq!((follow(&sim, "new", 2), follow(&sim, "new", 1)), (Follow::Forget, Follow::Nothing));
    let late = sim.change(|world, _| change::begin_rotation(world, "old", "newer")).unwrap_err().to_string();
    assert!(late.contains("just now"), "{late}");
    sim.change(|world, _| change::begin_rotation(world, "new", "newer")).unwrap();
    assert!(sim.world().poison.is_empty());
}

#[test]
fn rights_grow_with_the_next_certificate_and_shrink_at_once() {
    let mut sim = Sim::new();
    let id = NodeId::new("n1id");
    let certificate = Certificate { serial: "a".to_owned(), until: MONTH };
    sim.change(|world, fresh| Ok(change::begin(world, &id, certificate, fresh))).unwrap();
    let standing = |sim: &Sim, role| standing(sim.world(), &id, "a", role).unwrap();
    assert_eq!((standing(&sim, Role::Worker), standing(&sim, Role::Manager)), (Role::Worker, Role::Manager));
    sim.change(|world, _| change::set_role(world, &id, Role::Worker)).unwrap();
    assert_eq!(standing(&sim, Role::Manager), Role::Worker);
    assert!(change::set_role(sim.world(), &NodeId::new("none"), Role::Worker).is_err());
    assert!(sim.store.get(&records::identity(&id)).is_some() && sim.world().poison.is_empty());
}

/// A worker may not, so it must not be its turn.
#[test]
fn where_nodes_have_roles_a_manager_tidies_up() {
    let mut sim = Sim::new();
    let tidies = |sim: &Sim, node: &str| change::is_first(sim.world(), &NodeId::new(node));
    for node in ["a", "b", "c"] {
        let mut txn = Txn::default();
        let live = Live { epoch: 1, ..Live::default() };
        txn.put(records::live(&NodeId::new(node)), records::to_json(&live));
        assert!(sim.commit(&txn));
    }
    assert!(tidies(&sim, "a") && !tidies(&sim, "b"));
    for (node, role) in [("a", Role::Worker), ("b", Role::Manager), ("c", Role::Manager)] {
        let certificate = Certificate { serial: node.to_owned(), until: MONTH };
        let id = NodeId::new(node);
        sim.change(|world, fresh| Ok(change::begin(world, &id, certificate, fresh))).unwrap();
        sim.change(|world, _| change::set_role(world, &id, role)).unwrap();
    }
    assert!(!tidies(&sim, "a") && tidies(&sim, "b") && !tidies(&sim, "c"));
}

proptest! {
    /// However many ask in whatever order: never more get in than the token says.
    #[test]
    fn a_token_is_used_no_more_often_than_it_says(uses in 1..5u32, who in proptest::collection::vec(0..8u8, 0..20)) {
        let mut sim = Sim::new();
        let token = token(&mut sim, Role::Worker, None, Some(uses), false);
        for n in who {
            let _ = admit(&mut sim, &format!("n{n}"), &token);
        }
        prop_assert!(sim.world().identities.len() <= uses as usize);
    }
}
