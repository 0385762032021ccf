//! **Decision.** The names of one network, and who has which. Tasks' own names are not written down: they are found by
//! those of their services.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::{Target, is_number};
use crate::model::{Name, NetworkId, PortName, Protocol, ServiceId, SharedMap, Task, TaskAddress};

/// Several may want a name; who comes first has it.
type Claims<T> = SharedMap<Arc<str>, Arc<Vec<T>>>;

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkNames {
    id: NetworkId,
    /// The network's own name, which may follow a name in it: `web.app`.
    pub(super) name: Name,
    /// By their names and aliases. A service's own name wins over another's alias.
    services: Claims<(Claim, Arc<Served>)>,
    /// Tasks of no service.
    alone: Claims<(Reverse<bool>, Arc<Task>)>,
    reverse: SharedMap<IpAddr, Owner>,
}

/// By what right a service wants a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// It is its own.
    Own,
    Alias,
    /// Only its tasks are still in this network: they alone are found by it.
    Former,
}

/// A service in one network.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) id: ServiceId,
    pub(super) name: Name,
    /// None: only its tasks are still there.
    pub(super) attached: Option<Attached>,
    /// Those that have not ended, by slot; of several in one slot that one comes first which the slot's name means.
    pub(super) tasks: Box<[Arc<Task>]>,
}

/// What a service's name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) aliases: Vec<Name>,
    /// A VIP, or all tasks under dnsrr.
    pub(super) whole: Arc<[IpAddr]>,
    pub(super) vip: Option<Vec<IpAddr>>,
    /// `tasks.web`
    pub(super) all: Arc<[IpAddr]>,
    /// `nearest.web`: those on this node, if any.
    pub(super) nearest: Arc<[IpAddr]>,
    /// For `_80._tcp.web`.
    pub(super) ready: Box<[Arc<Task>]>,
    /// For `_http._tcp.web`.
    pub(super) ports: Vec<PortName>,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Service(Arc<Served>),
    Task(Arc<Task>, Option<Arc<Served>>),
}

/// What a name means.
pub(super) enum Addresses<'a> {
    Many(&'a [IpAddr]),
    /// A task's: so many of these.
    One([IpAddr; 2], usize),
}

impl Deref for Addresses<'_> {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match self {
            Self::Many(all) => all,
            Self::One(both, count) => both.get(..*count).unwrap_or_default(),
        }
    }
}

impl From<TaskAddress> for Addresses<'_> {
    fn from(TaskAddress { v4, v6 }: TaskAddress) -> Self {
        let v4 = IpAddr::V4(v4);
        Self::One([v4, v6.map_or(v4, IpAddr::V6)], 1 + usize::from(v6.is_some()))
    }
}

impl NetworkNames {
    pub(super) fn of(id: NetworkId, name: Name) -> Self {
        let (services, alone, reverse) = Default::default();
        Self { id, name, services, alone, reverse }
    }

    /// After very many were put in.
    pub(super) fn compact(&mut self) {
        self.services.compact();
        self.alone.compact();
        self.reverse.compact();
    }

    /// What a name means, in small letters.
    pub(super) fn addresses(&self, name: &str) -> Option<Addresses<'_>> {
        let mut labels = name.split('.');
        match (labels.next()?, labels.next(), labels.next(), labels.next()) {
            (name, None, _, _) => {
                let whole = self.attached(name).map(|(_, found)| Addresses::Many(&found.whole));
                whole.or_else(|| self.address(&self.alone.get(name)?.first()?.1))
            }
            ("tasks", Some(name), None, _) => Some(Addresses::Many(&self.attached(name)?.1.all)),
            ("nearest", Some(name), None, _) => Some(Addresses::Many(&self.attached(name)?.1.nearest)),
            (name, Some(slot), None, _) if is_number(slot) => {
                let slot = slot.parse().ok().filter(|number: &u32| number.to_string() == slot)?;
                self.address(self.tasks_named(name).find(|task| task.slot == slot)?)
            }
            (name, Some(id), None, _) => {
                let mut tasks = self.alone.get(name)?.iter();
                self.address(&tasks.find(|(_, task)| task.id.as_str() == id)?.1)
            }
            (name, Some(slot), Some(id), None) => {
                let mut tasks = self.tasks_named(name);
                let found = tasks.find(|task| task.id.as_str() == id)?;
                self.address(found).filter(|_| found.slot.to_string() == slot)
            }
            _ => None,
        }
    }

    /// Whose an address is, as a whole name.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<String> {
        let front = match self.reverse.get(&address)? {
            Owner::Service(served) => served.name.to_string(),
            Owner::Task(task, Some(served)) => format!("{}.{}", served.name, task.slot),
            Owner::Task(task, None) => name_alone(task).to_owned(),
        };
        Some(format!("{front}.{}", self.name))
    }

    /// A service's ready tasks, and the number of its port, if it has one of that name.
    pub(super) fn serving(
        &self,
        service: &str,
        port: &str,
        protocol: Protocol,
    ) -> Option<(Vec<Target>, Option<u16>)> {
        let (served, attached) = self.attached(service)?;
        let largest = attached.ready.iter().map(|task| task.weight).max().unwrap_or_default();
        let target = |task: &Arc<Task>| {
            let addresses = task.addresses.get(&self.id)?.addresses().collect();
            let name = format!("{}.{}.{}.{}", served.name, task.slot, task.id, self.name);
            Some(Target { name, weight: srv_weight(task.weight, largest), addresses })
        };
        let named = |known: &&PortName| known.name.as_str() == port && known.protocol == protocol;
        let named = || attached.ports.iter().find(named).map(|known| known.port);
        let number = || port.parse().ok().filter(|number| is_number(port) && *number != 0);
        Some((attached.ready.iter().filter_map(target).collect(), number().or_else(named)))
    }

    /// The service whose tasks a name in small letters means, which is not the service's own.
    pub(super) fn tasks_of(&self, name: &str) -> Option<&ServiceId> {
        let labels: Vec<_> = name.split('.').collect();
        let served = match labels[..] {
            ["tasks" | "nearest", name] => self.attached(name)?.0,
            [port, protocol, name] if port.starts_with('_') && protocol.starts_with('_') => {
                self.attached(name)?.0
            }
            [name, slot] | [name, slot, _] if is_number(slot) => {
                self.services.get(name)?.iter().find(|(claim, _)| *claim != Claim::Alias)?.1.as_ref()
            }
            _ => return None,
        };
        Some(&served.id)
    }

    fn address(&self, task: &Task) -> Option<Addresses<'static>> {
        task.addresses.get(&self.id).map(|address| (*address).into())
    }

    fn attached(&self, name: &str) -> Option<(&Served, &Attached)> {
        let (_, served) = self.services.get(name)?.first()?;
        Some((served, served.attached.as_ref()?))
    }

    /// The tasks of services that are named so.
    fn tasks_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<Task>> {
        let claims = self.services.get(name).into_iter().flat_map(|claims| claims.iter());
        claims.filter(|(claim, _)| *claim != Claim::Alias).flat_map(|(_, served)| served.tasks.iter())
    }

    /// Says whether one of its addresses was somebody else's.
    pub(super) fn put_service(&mut self, served: &Arc<Served>) -> bool {
        let mut contested = false;
        for (claim, name) in served.claims() {
            put(&mut self.services, name.as_str(), (claim, Arc::clone(served)), |(claim, served)| {
                (*claim, served.id.clone())
            });
        }
        for task in served.tasks.iter() {
            contested |= self.own(task, &Owner::Task(Arc::clone(task), Some(Arc::clone(served))));
        }
        for address in served.attached.iter().flat_map(|attached| attached.vip.iter().flatten()) {
            contested |= self.reverse.insert(*address, Owner::Service(Arc::clone(served))).is_some();
        }
        contested
    }

    pub(super) fn take_service(&mut self, served: &Served) {
        for (_, name) in served.claims() {
            take(&mut self.services, name.as_str(), |(_, other)| other.id == served.id);
        }
        served.tasks.iter().for_each(|task| self.disown(task));
        for address in served.attached.iter().flat_map(|attached| attached.vip.iter().flatten()) {
            self.reverse.remove(address);
        }
    }

    /// A task of no service; as with one.
    pub(super) fn put_task(&mut self, task: &Arc<Task>, serves: bool) -> bool {
        put(&mut self.alone, name_alone(task), (Reverse(serves), Arc::clone(task)), |(serves, task)| {
            (*serves, Reverse((task.created, task.state)), task.id.clone())
        });
        self.own(task, &Owner::Task(Arc::clone(task), None))
    }

    pub(super) fn take_task(&mut self, task: &Task) {
        take(&mut self.alone, name_alone(task), |(_, other)| other.id == task.id);
        self.disown(task);
    }

    fn own(&mut self, task: &Task, owner: &Owner) -> bool {
        let mut contested = false;
        for address in task.addresses.get(&self.id).into_iter().flat_map(TaskAddress::addresses) {
            contested |= self.reverse.insert(address, owner.clone()).is_some();
        }
        contested
    }

    fn disown(&mut self, task: &Task) {
        for address in task.addresses.get(&self.id).into_iter().flat_map(TaskAddress::addresses) {
            self.reverse.remove(&address);
        }
    }
}

impl Served {
    fn claims(&self) -> impl Iterator<Item = (Claim, &Name)> {
        let own = if self.attached.is_some() { Claim::Own } else { Claim::Former };
        let aliases = self.attached.iter().flat_map(|attached| &attached.aliases);
        let aliases = aliases.filter(|alias| **alias != self.name);
        std::iter::once((own, &self.name)).chain(aliases.map(|alias| (Claim::Alias, alias)))
    }
}

/// As `Snapshot::task_name` of a task whose service is not known, if it says that it has one.
fn name_alone(task: &Task) -> &str {
    task.name.as_ref().map_or(task.id.as_str(), Name::as_str)
}

fn put<T: Clone, K: Ord>(claims: &mut Claims<T>, name: &str, one: T, order: impl Fn(&T) -> K) {
    let Some(all) = claims.get_mut(name) else {
        claims.insert(name.into(), Arc::new(vec![one]));
        return;
    };
    let at = all.partition_point(|other| order(other) < order(&one));
    Arc::make_mut(all).insert(at, one);
}

fn take<T: Clone>(claims: &mut Claims<T>, name: &str, is: impl Fn(&T) -> bool) {
    let Some(all) = claims.get_mut(name) else { return };
    Arc::make_mut(all).retain(|one| !is(one));
    if all.is_empty() {
        claims.remove(name);
    }
}

/// A task's weight as SRV records have it (RFC 2782): times 256, or as many times as the service's largest has room for.
/// HAProxy, which knows weights up to 256, divides by 256 and rounds up: it would take all small weights for 1.
fn srv_weight(weight: u16, largest: u16) -> u16 {
    weight * (u16::MAX / largest.max(1)).min(256)
}

#[cfg(test)]
mod tests {
    use super::srv_weight;

    /// As HAProxy 2.6 reads it (src/resolvers.c).
    fn haproxy(weight: u16) -> u32 {
        u32::from(weight).div_ceil(256)
    }

    #[test]
    fn weights_keep_their_ratios_on_their_way_to_haproxy() {
        for largest in [1, 3, 100, 255] {
            for weight in 0..=largest {
                assert_eq!(haproxy(srv_weight(weight, largest)), u32::from(weight), "of {largest}");
            }
        }
        assert_eq!([300, 600].map(|weight| haproxy(srv_weight(weight, 600))), [128, 256]);
        for largest in 1..=u16::MAX {
            assert!(haproxy(srv_weight(largest, largest)) <= 256 && srv_weight(1, largest) > 0);
        }
        assert_eq!(srv_weight(0, 0), 0);
    }
}
