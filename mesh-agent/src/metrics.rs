//! **Fact.** What there is to measure of a node, in the text format of Prometheus. docs/metrics.md explains each family.
//!
//! Nothing is counted here: maps and status are read when somebody asks, and written down.

mod page;
mod process;

use std::fmt;
use std::sync::Arc;

use mesh_core::certificate::Validity;
use mesh_core::liveness::Verdict;
use mesh_core::model::{NodeId, Snapshot, Task};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

use crate::api::types::{AllCounters, BackendCounters};
use crate::dns::DnsCounters;
use crate::status::Status;
use crate::store::timed::Taken;
use page::Page;

/// Beyond so many backends only their services' sums are told: a scrape is to stay small.
pub const BACKENDS: usize = 2_000;

/// All that a scrape is made of.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// What the data plane counts; none where it counts nothing.
    pub counters: Option<AllCounters>,
    /// How many backends it has.
    pub backends: usize,
    /// What came of the last rounds.
    pub status: Arc<Status>,
    /// The world as this node knows it.
    pub world: Arc<Snapshot>,
    /// This node.
    pub node: NodeId,
    /// What became of tasks' questions for names.
    pub dns: DnsCounters,
    /// What became of requests to the store, by kind.
    pub store: Vec<(&'static str, Taken)>,
    /// From when to when the node's certificate is good; none: it has none.
    pub certificate: Option<Validity>,
}

impl Scrape {
    /// The text.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("mesh");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        process::write(&mut text)?;
        Ok(text)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.agent(&mut page)?;
        self.planes(&mut page)?;
        self.records(&mut page)?;
        self.dns(&mut page)?;
        let Some(counters) = &self.counters else { return Ok(()) };
        data_plane(&mut page, counters, self.backends)
    }
}

impl Scrape {
    fn agent(&self, page: &mut Page<'_>) -> fmt::Result {
        let Status {
            planned: _,
            applied,
            store,
            planes,
            silent: _,
            problems,
            features: _,
            limits: _,
            verified: _,
        } = &*self.status;
        page.gauge("build_info", "The agent's version", [([("version", env!("CARGO_PKG_VERSION"))], 1.0)])?;
        let bad = problems.len() + planes.values().map(|plane| plane.last.errors.len()).sum::<usize>();
        page.one("problems", "What is not as it should be on this node, as in mesh status", bad as f64)?;
        page.one(
            "records_set_aside",
            "Records that make no sense: what they were before stays in force",
            self.world.poison.len() as f64,
        )?;
        page.one(
            "store_connected",
            "Whether the agent is in step with the store",
            f64::from(u8::from(store.connected)),
        )?;
        page.one("store_revision", "The newest revision of the records that was seen", store.rev.0 as f64)?;
        page.one(
            "wanted_revision",
            "The newest revision that changes what nodes do",
            self.world.changed.0 as f64,
        )?;
        page.one("applied_revision", "All up to this revision is in the kernel", applied.0 as f64)?;
        if let Some(validity) = &self.certificate {
            page.one(
                "certificate_issued_timestamp_seconds",
                "When the node's certificate was issued, in seconds since 1970",
                validity.issued() as f64 / 1e3,
            )?;
            page.one(
                "certificate_expiration_timestamp_seconds",
                "When the node's certificate ends, in seconds since 1970: it is renewed before four fifths of its life",
                validity.until as f64 / 1e3,
            )?;
        }
        let store = |value: fn(&Taken) -> f64| {
            self.store.iter().map(move |(kind, taken)| ([("request", *kind)], value(taken)))
        };
        page.counter("store_requests", "Requests to the store", store(|taken| taken.requests as f64))?;
        page.counter(
            "store_failed_requests",
            "Those that failed, or of which nobody knows what became",
            store(|taken| taken.failed as f64),
        )?;
        page.counter(
            "store_request_seconds",
            "How long all requests to the store took",
            store(|taken| taken.micros as f64 / 1e6),
        )
    }

    fn dns(&self, page: &mut Page<'_>) -> fmt::Result {
        let DnsCounters {
            addresses,
            names,
            targets,
            no_data,
            nx_domain,
            forwarded,
            cached,
            failed,
            refused,
            malformed,
            truncated,
        } = self.dns;
        let answers = [
            ("addresses", addresses),
            ("names", names),
            ("targets", targets),
            ("no_data", no_data),
            ("nx_domain", nx_domain),
            ("forwarded", forwarded),
            ("failed", failed),
            ("refused", refused),
            ("malformed", malformed),
        ];
        page.counter(
            "dns_answers",
            "What became of tasks' questions for names",
            answers.map(|(answer, count)| ([("answer", answer)], count as f64)),
        )?;
        page.counter("dns_cached_answers", "Forwarded ones that were known", [([], cached as f64)])?;
        page.counter(
            "dns_truncated_answers",
            "Answers that were cut to fit into UDP",
            [([], truncated as f64)],
        )
    }

    fn planes(&self, page: &mut Page<'_>) -> fmt::Result {
        let planes = &self.status.planes;
        page.counter(
            "rounds",
            "Rounds of a part of the kernel that is kept as planned",
            planes.iter().map(|(name, plane)| ([("plane", *name)], plane.rounds as f64)),
        )?;
        page.counter(
            "changes",
            "Objects that all rounds made, changed or removed",
            planes.iter().map(|(name, plane)| ([("plane", *name)], plane.changed as f64)),
        )?;
        page.counter(
            "round_seconds",
            "How long all rounds took",
            planes.iter().map(|(name, plane)| ([("plane", *name)], plane.total_micros as f64 / 1e6)),
        )?;
        page.gauge(
            "failing_objects",
            "Objects that the last round could not apply",
            planes.iter().map(|(name, plane)| ([("plane", *name)], plane.last.errors.len() as f64)),
        )
    }

    /// Services and nodes, as the records have them.
    fn records(&self, page: &mut Page<'_>) -> fmt::Result {
        let world = &self.world;
        let mut rows = Vec::new();
        for service in world.services.values() {
            let masks = &self.status.silent;
            let is_heard = |node: &NodeId| !masks.nodes.contains_key(node);
            let tasks = &*masks.noted(world.tasks.of(&service.id));
            let turnout = world.turnout_where_heard(service, tasks, is_heard);
            let running = tasks.iter().filter(|task| !task.state.is_terminal()).count();
            let serves = |task: &&Arc<Task>| world.serves(task, &turnout) && is_heard(&task.node);
            let serving = tasks.iter().filter(serves).count();
            rows.push((service.name.as_str(), running, serving, turnout));
        }
        page.gauge(
            "service_tasks",
            "Tasks of a service that have not ended",
            rows.iter().map(|(name, running, ..)| ([("service", *name)], *running as f64)),
        )?;
        page.gauge(
            "service_serving_tasks",
            "Tasks of a service that get new flows, on nodes that answer this one",
            rows.iter().map(|(name, _, serving, _)| ([("service", *name)], *serving as f64)),
        )?;
        page.gauge(
            "service_panics",
            "Whether sick tasks get flows, for most are sick",
            rows.iter()
                .map(|(name, .., turnout)| ([("service", *name)], f64::from(u8::from(turnout.panics)))),
        )?;
        page.gauge(
            "service_ejected_tasks",
            "Tasks that are left out for now, for they refuse connections or do not answer them",
            rows.iter().map(|(name, .., turnout)| ([("service", *name)], turnout.left_out() as f64)),
        )?;
        let others = world.nodes.values().filter(|node| node.id != self.node);
        page.gauge(
            "node_reachable",
            "Whether another node answers this one, and through the tunnel",
            others.map(|node| {
                let verdict = self.status.silent.nodes.get(&node.id).copied().unwrap_or(Verdict::Up);
                ([("node", node.name.as_str())], f64::from(u8::from(verdict == Verdict::Up)))
            }),
        )
    }
}

fn data_plane(page: &mut Page<'_>, counters: &AllCounters, all: usize) -> fmt::Result {
    let AllCounters { events, tables, services } = counters;
    page.counter(
        "events",
        "What became of packets and flows, by reason",
        events.iter().map(|(event, count)| ([("event", event.as_str())], *count as f64)),
    )?;
    let table = |of: fn(&crate::api::types::FlowTable) -> u64| {
        tables.iter().map(move |(protocol, table)| ([("protocol", protocol.as_str())], of(table) as f64))
    };
    page.gauge("flow_entries", "Entries of the table of flows that count", table(|table| table.live))?;
    page.gauge("flow_entries_established", "Those of established flows", table(|table| table.established))?;
    page.gauge("flow_slots", "Entries that there is room for", table(|table| table.slots))?;
    let service = |of: fn(&crate::api::types::ServiceCounters) -> u64| {
        services.iter().map(move |service| ([("service", service.name.as_str())], of(service) as f64))
    };
    page.gauge(
        "service_backends_flows",
        "New flows that this node sent to the tasks that there are now",
        service(|s| s.flows),
    )?;
    page.gauge("service_backends_packets", "Packets to them", service(|s| s.packets))?;
    page.gauge("service_backends_bytes", "Their bytes, IP headers included", service(|s| s.bytes))?;
    let backends = || {
        services.iter().filter(|_| all <= BACKENDS).flat_map(|service| {
            service.backends.iter().map(|backend| {
                let BackendCounters { task, node, network, .. } = backend;
                (
                    [
                        ("service", service.name.as_str()),
                        ("task", task),
                        ("node", node),
                        ("network", network),
                    ],
                    backend,
                )
            })
        })
    };
    page.counter(
        "backend_flows",
        "New flows that this node sent to a task",
        backends().map(|(labels, backend)| (labels, backend.flows as f64)),
    )?;
    page.counter(
        "backend_packets",
        "Packets that this node sent to a task",
        backends().map(|(labels, backend)| (labels, backend.packets as f64)),
    )?;
    page.counter(
        "backend_bytes",
        "Their bytes, IP headers included",
        backends().map(|(labels, backend)| (labels, backend.bytes as f64)),
    )?;
    page.one(
        "backends",
        "Backends of this node's data plane; of more than 2000 only their services are told of",
        all as f64,
    )
}

#[cfg(test)]
mod tests;
