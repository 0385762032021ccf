//! **Effect.** Faults, done and undone.

use std::{
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Millis, NodeFault, Outage, Place, Severed, StoreFault,
    cluster::{SIZE, node, start_agent, truncate},
    managed::Managed,
    store::Store,
};
use crate::Lab;

fn rest(millis: Millis) {
    thread::sleep(Duration::from_millis(millis));
}

/// Does something to a node, and undoes it. What packets were lost meanwhile is told.
pub(super) fn harm(lab: &Lab, fault: &NodeFault, start: Instant) -> Result<Option<Outage>> {
    let outage =
        |severed: Severed, cut: &dyn Fn() -> Result<()>, lasts: Millis, heal: &dyn Fn() -> Result<()>| {
            let begin = start.elapsed().as_millis() as Millis;
            cut()?;
            rest(lasts);
            heal()?;
            let end = start.elapsed().as_millis() as Millis;
            Ok(Some(Outage { begin, end, severed }))
        };
    let heal = || remove_walls(lab);
    match fault {
        NodeFault::Kill(place, lasts) | NodeFault::Truncate(place, lasts) => {
            let node = node(lab, *place)?;
            node.kill_agent()?;
            if matches!(fault, NodeFault::Truncate(..)) {
                truncate(&node.state_dir().join("cache"))?;
            }
            rest(*lasts);
            start_agent(node)?;
            Ok(None)
        }
        NodeFault::Freeze(place, lasts) => {
            let node = node(lab, *place)?;
            node.pause_agent()?;
            rest(*lasts);
            node.resume_agent()?;
            Ok(None)
        }
        NodeFault::Unplug(place, lasts) => {
            let name = node(lab, *place)?.name();
            outage(Severed::Node(*place), &|| lab.unplug(name), *lasts, &|| lab.plug(name))
        }
        NodeFault::Split(left, lasts) => {
            let severed = Severed::Split(left.clone());
            let passes = |from: Place, to: Place| left.contains(&from) == left.contains(&to);
            outage(severed, &|| wall(lab, &passes), *lasts, &heal)
        }
        NodeFault::OneWay(from, to, lasts) => {
            let passes = |a: Place, b: Place| (a, b) != (*from, *to);
            outage(Severed::OneWay(*from, *to), &|| wall(lab, &passes), *lasts, &heal)
        }
        NodeFault::Loss(percent, lasts) => outage(Severed::Loss, &|| lose(lab, *percent), *lasts, &heal),
        NodeFault::KillLeader(lasts) => {
            let managed = Managed::of(lab);
            let leader = managed.leader();
            eprintln!("        that is node {leader}");
            managed.kill_node(leader)?;
            rest(*lasts);
            start_agent(node(lab, leader)?)?;
            managed.is_well(leader)?;
            Ok(None)
        }
        NodeFault::UnplugLeader(lasts) => {
            let leader = Managed::of(lab).leader();
            eprintln!("        that is node {leader}");
            harm(lab, &NodeFault::Unplug(leader, *lasts), start)
        }
    }
}

/// Does something to the store, and undoes it.
pub(super) fn harm_store(store: &mut Store<'_>, fault: &StoreFault) -> Result<()> {
    match *fault {
        StoreFault::KillLeader(lasts) => {
            let leader = store.leader();
            harm_store(store, &StoreFault::Kill(leader, lasts))
        }
        StoreFault::Kill(member, lasts) => {
            store.kill(member)?;
            rest(lasts);
            store.restart(member)
        }
        StoreFault::Freeze(member, lasts) => {
            store.freeze(member)?;
            rest(lasts);
            store.thaw(member)
        }
        StoreFault::KillSupervisor(member) => {
            store.kill_supervisor(member)?;
            store.restart(member)
        }
        StoreFault::KillAll(lasts) => {
            store.kill_all()?;
            rest(lasts);
            store.restart_all()
        }
    }
}

/// Drops in the switch what one node sends to another, where it does not pass.
fn wall(lab: &Lab, passes: &dyn Fn(Place, Place) -> bool) -> Result<()> {
    let mut rules = Vec::new();
    for from in 0..SIZE.nodes {
        let barred: Vec<_> = (0..SIZE.nodes).filter(|to| !passes(from, *to)).collect();
        let addresses: Vec<_> =
            barred.iter().map(|to| Ok(node(lab, *to)?.address().to_string())).collect::<Result<_>>()?;
        if !addresses.is_empty() {
            rules.push((from, format!("ip daddr {{ {} }} drop", addresses.join(", "))));
        }
    }
    build_wall(lab, &rules)
}

/// Loses so many of a hundred packets of all that nodes send.
fn lose(lab: &Lab, percent: u32) -> Result<()> {
    let rule = format!("numgen random mod 100 < {percent} drop");
    build_wall(lab, &(0..SIZE.nodes).map(|from| (from, rule.clone())).collect::<Vec<_>>())
}

/// Where frames come into the switch from a node, which is before and after all that its own kernel does.
fn build_wall(lab: &Lab, rules: &[(Place, String)]) -> Result<()> {
    let mut text = "table netdev chaos {\n".to_owned();
    for (from, rule) in rules {
        let name = node(lab, *from)?.name();
        let hook = format!("type filter hook ingress device \"{name}\" priority 0");
        writeln!(text, "chain {name} {{\n{hook}\n{rule}\n}}")?;
    }
    text += "}\n";
    lab.fabric().command(["nft", "-f", "-"]).stdin(text).ok()?;
    Ok(())
}

fn remove_walls(lab: &Lab) -> Result<()> {
    lab.fabric().exec(["nft", "delete", "table", "netdev", "chaos"])?.ok()?;
    Ok(())
}
