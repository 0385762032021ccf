//! **Decision.** Services come, change and go.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Change, Fresh, HealthWish, ProgramWish, Refusal, ports};
use crate::kv::Txn;
use crate::model::{
    Affinity, Attachment, Balancing, Discovery, EndpointMode, Locality, Name, Network, PortName, Protocol,
    PublishMode, PublishedPort, ReturnPath, Service, ServiceId, Snapshot, Vip, fnv64,
};
use crate::records::{self, Claim};

/// A wish to be in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// Name or id.
    pub network: String,
    /// Further names there.
    pub aliases: Vec<String>,
}

/// A wish for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest {
    /// A DNS label.
    pub name: String,
    /// At least one.
    pub networks: Vec<AttachmentRequest>,
    /// VIP or dnsrr.
    pub mode: EndpointMode,
    /// Ports of the nodes.
    pub ports: Vec<PublishedPort>,
    /// How flows are spread.
    pub balancing: Balancing,
    /// Whether a client's flows stay together.
    pub affinity: Affinity,
    /// Whether near backends are preferred.
    pub locality: Locality,
    /// How long running flows of a leaving task may take to end.
    pub drain_timeout: Duration,
    /// How answers return from a task on another node.
    pub return_path: ReturnPath,
    /// How long a silent flow is remembered; none: as long as the data plane does by itself.
    pub idle_timeout: Option<Duration>,
    /// How long a new task's share grows; zero: not at all.
    pub slow_start: Duration,
    /// What tells whether a task can serve.
    pub health: HealthWish,
    /// Whether tasks are left out for what they make of connections.
    pub passive_health: bool,
    /// What DNS tells of it beside its addresses.
    pub discovery: Discovery,
    /// What the mesh is to run for it.
    pub program: ProgramWish,
    /// Free text.
    pub labels: BTreeMap<String, String>,
}

/// Which published ports are meant: those of a target port, as Docker's `--publish-rm 80`; with a published
/// port (`8080:80`) that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPattern {
    /// See [`PublishedPort::published`].
    pub published: Option<u16>,
    /// See [`PublishedPort::target`].
    pub target: u16,
    /// See [`PublishedPort::protocol`].
    pub protocol: Protocol,
    /// See [`PublishedPort::mode`].
    pub mode: PublishMode,
}

impl PortPattern {
    fn matches(&self, port: &PublishedPort) -> bool {
        self.published.is_none_or(|published| published == port.published)
            && (self.target, self.protocol, self.mode) == (port.target, port.protocol, port.mode)
    }
}

impl fmt::Display for PortPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(published) = self.published {
            write!(f, "{published}:")?;
        }
        write!(f, "{}/{} ({})", self.target, self.protocol, self.mode)
    }
}

/// How long a silent flow may be remembered.
const IDLE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(5 * 24);
/// The longest slow start.
const SLOWEST_START: Duration = Duration::from_hours(1);

/// What to change; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceUpdate {
    /// The version that the caller saw; a newer one is a conflict.
    pub version: Option<u64>,
    /// Ports to add.
    pub publish_add: Vec<PublishedPort>,
    /// Ports to remove.
    pub publish_rm: Vec<PortPattern>,
    /// Networks to join.
    pub network_add: Vec<AttachmentRequest>,
    /// Networks to leave, by name or id.
    pub network_rm: Vec<String>,
    /// New spread.
    pub balancing: Option<Balancing>,
    /// New affinity.
    pub affinity: Option<Affinity>,
    /// New locality.
    pub locality: Option<Locality>,
    /// New mode.
    pub mode: Option<EndpointMode>,
    /// New drain timeout.
    pub drain_timeout: Option<Duration>,
    /// New return path.
    pub return_path: Option<ReturnPath>,
    /// New idle timeout; none inside: as long as the data plane does by itself.
    pub idle_timeout: Option<Option<Duration>>,
    /// New slow start.
    pub slow_start: Option<Duration>,
    /// What to change of the health check.
    pub health: HealthWish,
    /// Whether tasks are left out for what they make of connections.
    pub passive_health: Option<bool>,
    /// Whether the names of its tasks lead to those that cannot serve, too.
    pub publish_not_ready: Option<bool>,
    /// Names of ports to add; a name that there is gets the new port.
    pub port_name_add: Vec<PortName>,
    /// Names of ports to remove, in either protocol.
    pub port_name_rm: Vec<String>,
    /// What to change of what the mesh runs for it.
    pub program: ProgramWish,
    /// Labels to set.
    pub label_add: BTreeMap<String, String>,
    /// Labels to remove.
    pub label_rm: Vec<String>,
}

/// Makes a service, with a VIP in each of its networks.
pub fn create_service(
    world: &Snapshot,
    request: ServiceRequest,
    fresh: Fresh,
) -> Result<Change<Service>, Refusal> {
    let name: Name = request.name.parse()?;
    if let Some(other) = world.services.values().find(|service| service.name == name) {
        return Err(Refusal::Conflict(format!(
            "name conflicts with an existing object: service {name} already exists ({})",
            other.id.short()
        )));
    }
    if request.networks.is_empty() {
        return Err(Refusal::Invalid(format!(
            "service {name} is in no network: name one with --network (see 'mesh network ls')"
        )));
    }
    check_times(request.idle_timeout, request.slow_start)?;
    ports::check_names(&request.discovery.port_names)?;
    ports::check(world, None, &request.ports, &[])?;
    let mut txn = Txn::default();
    let mut service = Service {
        id: ServiceId::from_random(fresh.id),
        name,
        mode: request.mode,
        networks: Vec::new(),
        ports: request.ports,
        balancing: request.balancing,
        affinity: request.affinity,
        locality: request.locality,
        drain_timeout: request.drain_timeout,
        return_path: request.return_path,
        idle_timeout: request.idle_timeout,
        slow_start: request.slow_start,
        health: request.health.apply(None)?,
        passive_health: request.passive_health,
        discovery: request.discovery,
        program: None,
        labels: request.labels,
        version: 1,
        created: fresh.now,
        updated: fresh.now,
    };
    service.program = request.program.apply(&service, fresh.now)?;
    for (place, wish) in request.networks.iter().enumerate() {
        attach(world, &mut service, wish, &mut txn)?;
        if service.networks.len() == place {
            return Err(Refusal::Invalid(format!("network {} is named twice", wish.network)));
        }
    }
    txn.claim(records::service_name(&service.name), service.id.as_str());
    txn.claim(records::service(&service.id), records::to_json(&service));
    guard_networks(world, &mut txn, &service.id);
    if !service.ports.is_empty() {
        guard_ports(world, &mut txn, &service.id);
    }
    Ok(Change { txn, result: service })
}

/// Changes a service in place. Ports and networks that are not named keep working throughout.
pub fn update_service(
    world: &Snapshot,
    reference: &str,
    update: ServiceUpdate,
    fresh: Fresh,
) -> Result<Change<Service>, Refusal> {
    let old = world.service(reference).ok_or_else(|| Refusal::not_found("service", reference))?;
    if let Some(version) = update.version.filter(|version| *version != old.version) {
        return Err(Refusal::Conflict(format!(
            "update out of sequence: service {} is at version {}, not {version}; look at it again",
            old.name, old.version
        )));
    }
    let mut txn = Txn::default();
    let mut service = old.as_ref().clone();
    for pattern in &update.publish_rm {
        let before = service.ports.len();
        service.ports.retain(|port| !pattern.matches(port));
        if service.ports.len() == before {
            let reference = format!("{pattern} of service {}", old.name);
            return Err(Refusal::NotFound { kind: "published port", reference });
        }
    }
    for port in update.publish_add {
        // Adding what is there already changes nothing: the command can be repeated.
        if !service.ports.contains(&port) {
            service.ports.push(port);
        }
    }
    ports::check(world, Some(&old.id), &service.ports, &old.ports)?;
    // What is left needs no VIP for the new mode.
    for reference in &update.network_rm {
        detach(world, &mut service, reference, fresh, &mut txn)?;
    }
    service.mode = update.mode.unwrap_or(service.mode);
    change_mode(world, &mut service, fresh, &mut txn)?;
    for wish in &update.network_add {
        attach(world, &mut service, wish, &mut txn)?;
    }
    if service.networks.is_empty() {
        return Err(Refusal::Invalid(format!("service {} must stay in at least one network", old.name)));
    }
    service.balancing = update.balancing.unwrap_or(service.balancing);
    service.affinity = update.affinity.unwrap_or(service.affinity);
    service.locality = update.locality.unwrap_or(service.locality);
    service.drain_timeout = update.drain_timeout.unwrap_or(service.drain_timeout);
    service.return_path = update.return_path.unwrap_or(service.return_path);
    service.idle_timeout = update.idle_timeout.unwrap_or(service.idle_timeout);
    service.slow_start = update.slow_start.unwrap_or(service.slow_start);
    service.health = update.health.apply(service.health.as_ref())?;
    service.passive_health = update.passive_health.unwrap_or(service.passive_health);
    service.program = update.program.apply(old, fresh.now)?;
    check_times(service.idle_timeout, service.slow_start)?;
    service.discovery.publish_not_ready =
        update.publish_not_ready.unwrap_or(service.discovery.publish_not_ready);
    change_port_names(&mut service, &update.port_name_rm, update.port_name_add)?;
    service.labels.extend(update.label_add);
    service.labels.retain(|key, _| !update.label_rm.contains(key));
    if service == **old {
        return Ok(Change { txn: Txn::default(), result: service });
    }
    service.version += 1;
    service.updated = fresh.now;
    let key = records::service(&service.id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, records::to_json(&service));
    if service.networks != old.networks {
        guard_networks(world, &mut txn, &service.id);
    }
    if service.ports != old.ports {
        guard_ports(world, &mut txn, &service.id);
    }
    Ok(Change { txn, result: service })
}

/// Removes a service. Its tasks are told to stop by their own nodes, which see that it is gone.
pub fn remove_service(world: &Snapshot, reference: &str, fresh: Fresh) -> Result<Change<Service>, Refusal> {
    let service = world.service(reference).ok_or_else(|| Refusal::not_found("service", reference))?;
    let mut txn = Txn::default();
    let key = records::service(&service.id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.delete(key);
    txn.delete(records::service_name(&service.name));
    txn.delete(records::replicas_guard(&service.id));
    for attachment in &service.networks {
        release_vip(world, service, attachment, fresh, &mut txn);
    }
    guard_ports(world, &mut txn, &service.id);
    guard_networks(world, &mut txn, &service.id);
    Ok(Change { txn, result: service.as_ref().clone() })
}

fn change_port_names(service: &mut Service, rm: &[String], add: Vec<PortName>) -> Result<(), Refusal> {
    let names = &mut service.discovery.port_names;
    for name in rm {
        let before = names.len();
        names.retain(|port| port.name.as_str() != name);
        if names.len() == before {
            let reference = format!("{name} of service {}", service.name);
            return Err(Refusal::NotFound { kind: "port name", reference });
        }
    }
    ports::check_names(&add)?;
    names.retain(|old| !add.iter().any(|new| (&new.name, new.protocol) == (&old.name, old.protocol)));
    names.extend(add);
    Ok(())
}

fn check_times(idle_timeout: Option<Duration>, slow_start: Duration) -> Result<(), Refusal> {
    if let Some(idle) = idle_timeout.filter(|idle| !IDLE_TIMEOUTS.contains(idle)) {
        return Err(Refusal::Invalid(format!(
            "invalid idle timeout ({idle:?}): must be between 10s and 120h, or 'default'"
        )));
    }
    if slow_start > SLOWEST_START {
        return Err(Refusal::Invalid(format!("invalid slow start ({slow_start:?}): must be at most 1h")));
    }
    Ok(())
}

fn attach(
    world: &Snapshot,
    service: &mut Service,
    wish: &AttachmentRequest,
    txn: &mut Txn,
) -> Result<(), Refusal> {
    let network = world.network(&wish.network).ok_or_else(|| Refusal::not_found("network", &wish.network))?;
    let aliases = wish.aliases.iter().map(|alias| alias.parse()).collect::<Result<Vec<Name>, _>>()?;
    check_names(world, service, network, &aliases)?;
    if let Some(there) = service.networks.iter_mut().find(|there| there.network == network.id) {
        // The command can be repeated, and gives other aliases without taking the VIP away.
        if !aliases.is_empty() {
            there.aliases = aliases;
        }
        return Ok(());
    }
    let vip = match service.mode {
        EndpointMode::Vip => Some(claim_vip(world, network, &service.id, txn)?),
        EndpointMode::Dnsrr => None,
    };
    service.networks.push(Attachment { network: network.id.clone(), vip, aliases });
    Ok(())
}

/// A name means one service in a network: of two that have it, the clients of one would get the other.
fn check_names(
    world: &Snapshot,
    service: &Service,
    network: &Network,
    aliases: &[Name],
) -> Result<(), Refusal> {
    let others = world.services.values().filter(|other| other.id != service.id);
    for (other, there) in others.filter_map(|other| Some((other, other.attachment(&network.id)?))) {
        let alias_of = format!("an alias of service {} in network {}", other.name, network.name);
        let (kind, name, whose) = if let Some(alias) = aliases.iter().find(|alias| **alias == other.name) {
            ("alias", alias, format!("the name of service {} in network {}", other.name, network.name))
        } else if let Some(alias) = aliases.iter().find(|alias| there.aliases.contains(alias)) {
            ("alias", alias, alias_of)
        } else if there.aliases.contains(&service.name) {
            ("name", &service.name, alias_of)
        } else {
            continue;
        };
        let why = format!("{kind} conflicts with an existing object: {name} is {whose}");
        return Err(Refusal::Conflict(why));
    }
    Ok(())
}

fn detach(
    world: &Snapshot,
    service: &mut Service,
    reference: &str,
    fresh: Fresh,
    txn: &mut Txn,
) -> Result<(), Refusal> {
    let network = world.network(reference).ok_or_else(|| Refusal::not_found("network", reference))?;
    let place = service.networks.iter().position(|a| a.network == network.id).ok_or_else(|| {
        Refusal::Invalid(format!("service {} is not in network {}", service.name, network.name))
    })?;
    let attachment = service.networks.remove(place);
    release_vip(world, service, &attachment, fresh, txn);
    Ok(())
}

fn change_mode(world: &Snapshot, service: &mut Service, fresh: Fresh, txn: &mut Txn) -> Result<(), Refusal> {
    for index in 0..service.networks.len() {
        let attachment = service.networks[index].clone();
        match (service.mode, attachment.vip) {
            (EndpointMode::Vip, None) => {
                let Some(network) = world.networks.get(&attachment.network) else {
                    continue;
                };
                service.networks[index].vip = Some(claim_vip(world, network, &service.id, txn)?);
            }
            (EndpointMode::Dnsrr, Some(_)) => {
                release_vip(world, service, &attachment, fresh, txn);
                service.networks[index].vip = None;
            }
            (EndpointMode::Vip, Some(_)) | (EndpointMode::Dnsrr, None) => {}
        }
    }
    Ok(())
}

/// The first free place from where the service's id points: services made at the same moment rarely meet.
fn claim_vip(
    world: &Snapshot,
    network: &Network,
    service: &ServiceId,
    txn: &mut Txn,
) -> Result<Vip, Refusal> {
    let count = network.vip_count();
    let first = (fnv64(service.as_str().as_bytes()) % u64::from(count)) as u32;
    let place = (0..count)
        .map(|step| 1 + (first + step) % count)
        .find(|place| !world.claims.contains_key(&*records::vip_claim(&network.id, *place)))
        .ok_or_else(|| {
            Refusal::Exhausted(format!(
                "could not find an available IP while allocating VIP: all {count} of network {} are taken",
                network.name
            ))
        })?;
    txn.claim(records::vip_claim(&network.id, place), Claim::held(service.as_str()));
    Ok(network.vip(place))
}

/// The VIP waits, so that no node still sends it to the old service when it has a new owner.
fn release_vip(world: &Snapshot, service: &Service, attachment: &Attachment, fresh: Fresh, txn: &mut Txn) {
    let Some((network, vip)) = world.networks.get(&attachment.network).zip(attachment.vip) else {
        return;
    };
    let place = u32::from(vip.v4).wrapping_sub(u32::from(network.v4.network()));
    txn.put(records::vip_claim(&network.id, place), Claim::given_back(service.id.as_str(), fresh.now));
}

fn guard_ports(world: &Snapshot, txn: &mut Txn, service: &ServiceId) {
    txn.unchanged(records::GUARD_PORTS, world.rev_of(records::GUARD_PORTS));
    txn.put(records::GUARD_PORTS, service.as_str());
}

fn guard_networks(world: &Snapshot, txn: &mut Txn, service: &ServiceId) {
    txn.unchanged(records::GUARD_SUBNETS, world.rev_of(records::GUARD_SUBNETS));
    txn.put(records::GUARD_SUBNETS, service.as_str());
}
