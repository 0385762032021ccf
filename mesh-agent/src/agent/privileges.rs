//! **Effect.** What the agent may do, and what it starts: less than root may.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What the agent itself needs (`man 7 capabilities`).
const AGENT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    // To load programs, which look at more than a packet.
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    // To enter namespaces of tasks, whoever runs them, also for their health checks.
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_CHROOT)
    // The prober is not to wait for others' computations, and etcd not to be killed for others' memory.
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE)
    // To stop tasks, and to let a group use the API's socket.
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE);

/// What commands of services may need beyond that, such as those that start as root and become somebody else. With the
/// above it is at least what Docker leaves to containers.
const COMMANDS: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE);

/// Gives up for good what is not needed: nothing that this process or its children start gets it back.
///
/// Capabilities belong to a thread, and threads inherit them: this must come before the first one is started.
///
/// # Errors
///
/// The kernel refuses, which it does not do to root.
pub(super) fn drop_others() -> Result<(), Errno> {
    let had = capabilities(None)?;
    for capability in AGENT.union(COMMANDS).complement().iter() {
        // The kernel knows fewer than there are bits.
        if matches!(capability_is_in_bounding_set(capability), Ok(true)) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: had.effective.intersection(AGENT),
            permitted: had.permitted.intersection(AGENT),
            inheritable: CapabilitySet::empty(),
        },
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_unit_leaves_what_the_agent_keeps() {
        let unit = include_str!("../../packaging/systemd/mesh.service");
        let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let left: BTreeSet<_> = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
        let kept = AGENT.union(COMMANDS);
        let kept: BTreeSet<_> = kept.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
        assert_eq!(left, kept);
    }
}
