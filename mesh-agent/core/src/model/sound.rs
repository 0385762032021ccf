//! Whether what can be read makes sense by itself. Looser than what a wish is checked by, and than any version will be:
//! only what would harm a node that believes it is refused.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{
    Affinity, FIRST_VNI, HealthCheck, LAST_VNI, Network, Node, Origin, Program, Resolver, Service, Task,
    Timestamp,
};

/// No time is longer: a hundred years. Sums of two are still times.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
/// No moment is later: the year 9999.
const LATEST: Timestamp = 253_402_300_800_000;
/// A number that grows by one with each start, or change, does not get there.
const MOST: u64 = 1 << 53;
/// The most tasks that one service can have run.
pub const MOST_REPLICAS: u32 = 10_000;

type Sound = Result<(), String>;

impl Network {
    /// Whether it makes sense.
    pub fn check(&self) -> Sound {
        self.check_sizes()?;
        if !(FIRST_VNI..=LAST_VNI).contains(&self.vni.0) {
            return Err(format!("{} is no network identifier (VNI): {FIRST_VNI} to {LAST_VNI}", self.vni));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < 68) {
            return Err(format!("no packet fits into {mtu} bytes"));
        }
        for subnet in self.subnets() {
            if subnet.trunc() != subnet {
                return Err(format!("subnet {subnet} has host bits set"));
            }
            if !is_usable(subnet) {
                return Err(format!("the addresses of subnet {subnet} have a meaning of their own"));
            }
        }
        moments(&[self.created])
    }
}

/// Whether a network can have these addresses.
pub(crate) fn is_usable(subnet: IpNet) -> bool {
    match subnet {
        IpNet::V4(net) => {
            let a = net.network();
            let first = a.octets()[0];
            !(a.is_loopback() || a.is_multicast() || a.is_link_local() || first == 0 || first >= 224)
        }
        IpNet::V6(net) => {
            let a = net.network();
            !(a.is_loopback() || a.is_multicast() || a.is_unicast_link_local())
        }
    }
}

impl Service {
    /// Whether it makes sense.
    pub fn check(&self) -> Sound {
        let Self { drain_timeout, idle_timeout, slow_start, .. } = self;
        times(&[("drain timeout", *drain_timeout), ("slow start", *slow_start)])?;
        times(&[("idle timeout", idle_timeout.unwrap_or_default())])?;
        if let Affinity::ClientIp { timeout } = self.affinity {
            times(&[("affinity", timeout)])?;
        }
        if self.ports.iter().any(|port| port.published == 0 || port.target == 0) {
            return Err("0 is no port".to_owned());
        }
        if let Some(check) = &self.health {
            check.check()?;
        }
        if let Some(program) = &self.program {
            program.check()?;
        }
        number("version", self.version)?;
        moments(&[self.created, self.updated])
    }
}

impl HealthCheck {
    fn check(&self) -> Sound {
        let Self { interval, start_interval, timeout, start_period, .. } = self;
        times(&[("interval", *interval), ("start interval", *start_interval), ("timeout", *timeout)])?;
        times(&[("start period", *start_period)])?;
        // It would be asked all the time.
        if *interval < Duration::from_millis(1) || *start_interval < Duration::from_millis(1) {
            return Err("a health check without a pause".to_owned());
        }
        Ok(())
    }
}

impl Program {
    fn check(&self) -> Sound {
        if self.replicas > MOST_REPLICAS {
            return Err(format!("{} tasks are too many: at most {MOST_REPLICAS}", self.replicas));
        }
        for run in [Some(&self.run), self.previous.as_ref()].into_iter().flatten() {
            if run.command.first().is_none_or(String::is_empty) {
                return Err("the command is empty".to_owned());
            }
            let words = run.resolver.search.iter().chain(&run.resolver.options);
            words.into_iter().try_for_each(|word| Resolver::word(word))?;
        }
        let grace = self.grace.unwrap_or_default();
        times(&[("delay", self.update.delay), ("monitor", self.update.monitor), ("grace", grace)])?;
        let (started, completed) =
            self.rollout.as_ref().map_or((0, 0), |rollout| (rollout.started, rollout.completed));
        number("version of the program", self.version)?;
        moments(&[started, completed])
    }
}

impl Task {
    /// Whether it makes sense.
    pub fn check(&self) -> Sound {
        if let Origin::Process { pid, .. } = self.origin
            && !i32::try_from(pid).is_ok_and(|pid| pid > 0)
        {
            return Err(format!("{pid} is no process"));
        }
        number("epoch", self.epoch)?;
        number("version of the program", self.program.unwrap_or_default())?;
        moments(&[self.ready_since, self.created, self.updated])
    }
}

impl Node {
    /// Whether it makes sense.
    pub fn check(&self) -> Sound {
        let special = self.address.is_unspecified() || self.address.is_multicast();
        if special || self.address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
            return Err(format!("{} is no address of a node", self.address));
        }
        if self.vxlan_port == 0 {
            return Err("0 is no port".to_owned());
        }
        number("epoch", self.epoch)?;
        moments(&[self.started])
    }
}

fn times(times: &[(&str, Duration)]) -> Sound {
    match times.iter().find(|(_, time)| *time > LONGEST) {
        Some((name, time)) => Err(format!("{name} of {} s: no time is so long", time.as_secs())),
        None => Ok(()),
    }
}

/// Zero is when that was not written down.
pub(crate) fn moments(moments: &[Timestamp]) -> Sound {
    match moments.iter().find(|moment| **moment > LATEST) {
        Some(moment) => Err(format!("{moment} is no moment, in milliseconds since 1970")),
        None => Ok(()),
    }
}

fn number(name: &str, number: u64) -> Sound {
    if number > MOST {
        Err(format!("{name} {number}: it grows by one, and does not get there"))
    } else {
        Ok(())
    }
}
