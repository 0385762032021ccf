//! What an agent, and what it starts, may not do although root starts it.

use std::fs;

use anyhow::{Context, Result, ensure};
use mesh_tests::eventually;

use crate::kit::{Cli, SOON, mesh};

/// Those that would let it change the machine beyond the network (`linux/capability.h`): modules, raw devices, the
/// clock, rebooting, the kernel's log, the rules of others about what is allowed.
const NEVER: [(&str, u32); 6] = [
    ("SYS_MODULE", 16),
    ("SYS_RAWIO", 17),
    ("SYS_BOOT", 22),
    ("SYS_TIME", 25),
    ("MAC_ADMIN", 33),
    ("SYSLOG", 34),
];

/// The sets of capabilities of every thread of a process that such a line begins.
fn sets(pid: u32, names: &[&str]) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended meanwhile.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        for line in status.lines() {
            let Some((name, bits)) = line.split_once(":\t") else { continue };
            if names.contains(&name) {
                found.push(u64::from_str_radix(bits, 16).with_context(|| format!("{line:?}"))?);
            }
        }
    }
    ensure!(!found.is_empty(), "process {pid} tells of no capabilities");
    Ok(found)
}

fn lacks(what: &str, sets: &[u64]) -> Result<()> {
    for (name, bit) in NEVER {
        ensure!(sets.iter().all(|set| set & (1 << bit) == 0), "{what} has {name}: {sets:x?}");
    }
    Ok(())
}

/// Neither the agent nor the command of a service can get back what the agent has given up; the command has what
/// ordinary servers need to become somebody else.
#[test]
fn an_agent_gives_up_what_it_does_not_need() -> Result<()> {
    mesh(1, |lab| {
        let node = lab.node("n1")?;
        let agent = node.agent_id()?;
        lacks("the agent", &sets(agent, &["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"])?)?;
        ensure!(
            sets(agent, &["CapEff"])?.iter().all(|set| set & (1 << 7) == 0),
            "the agent may become anybody"
        );
        node.ok("network create app")?;
        let server = lab.programs().web(80).join(" ");
        node.mesh(["service", "create", "--name", "web", "--network", "app", "--cmd", &server])?.ok()?;
        let pid = eventually(SOON, "the command runs", || {
            let task = node.rows("service ps web")?.first().cloned().context("there is no task")?;
            let id = task["ID"].as_str().context("it has no id")?.to_owned();
            node.inspect("task", &id)?["Origin"]["Pid"].as_u64().context("it has no process")
        })?;
        let pid = u32::try_from(pid)?;
        lacks("the command", &sets(pid, &["CapPrm", "CapEff", "CapBnd"])?)?;
        ensure!(
            sets(pid, &["CapEff"])?.iter().all(|set| set & (1 << 7) != 0),
            "the command may become nobody else"
        );
        Ok(())
    })
}
