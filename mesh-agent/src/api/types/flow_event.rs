//! **Fact.** What becomes of a flow, on the wire.

use std::net::{IpAddr, SocketAddr};

use mesh_core::model::{Protocol, Timestamp, Vni};
use mesh_core::whois::Whois;
use mesh_ebpf::abi::{Backend, ICMP, ICMP6, Record, TCP, UDP};
use mesh_ebpf::verdict::Event;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rfc3339;

/// A flow that began, or a packet that was turned away. A line of `/v1/monitor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FlowEvent {
    /// When the agent heard of it, RFC 3339.
    pub time: String,
    /// The node that it came in by.
    pub node: String,
    /// What happened: `balanced`, `refused`, `dropped` or `answered`.
    pub outcome: String,
    /// Why, in the words of the counters: `new_flow`, `no_backend`, …
    pub event: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Who sent; with a port, where that is known: a socket of the node or its tasks may be led to its task before
    /// it has one.
    pub client: String,
    /// To whom.
    pub destination: String,
    /// The service that it was for; empty: none.
    pub service: String,
    /// `web.1`: where it went; empty: nowhere.
    pub task: String,
    /// The task's node.
    pub task_node: String,
    /// How many events before it were not told, because this client of the API read too slowly.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl FlowEvent {
    /// With names. `backend`: the one that the record names.
    pub fn of(
        whois: &Whois,
        node: &str,
        time: Timestamp,
        record: &Record,
        backend: Option<&Backend>,
        missed: u64,
    ) -> Self {
        let Record { tuple, event, proto, .. } = record;
        let event = Event::ALL.get(*event as usize);
        let end = |ip: IpAddr, port: u16| match *proto {
            TCP | UDP if port != 0 => SocketAddr::new(ip, port).to_string(),
            _ => ip.to_string(),
        };
        let (dst, port) = (IpAddr::from(tuple.dst), tuple.dport().number());
        let by = if *proto == UDP { Protocol::Udp } else { Protocol::Tcp };
        let owner = backend.and_then(|backend| whois.task(Vni(backend.vni), backend.addr.into()));
        let meant = whois.service(by, dst, port).or_else(|| owner.and_then(|owner| owner.service.as_ref()));
        Self {
            time: rfc3339(time),
            node: node.to_owned(),
            outcome: outcome(event).to_owned(),
            event: event.map_or("", |event| event.name()).to_owned(),
            protocol: match *proto {
                TCP => "tcp",
                UDP => "udp",
                ICMP | ICMP6 => "icmp",
                _ => "",
            }
            .to_owned(),
            client: end(tuple.src.into(), tuple.sport().number()),
            destination: end(dst, port),
            service: meant.map_or_else(String::new, ToString::to_string),
            task: owner.map_or_else(String::new, |owner| owner.task.clone()),
            task_node: owner.map_or_else(String::new, |owner| owner.node.clone()),
            missed,
        }
    }
}

fn outcome(event: Option<&Event>) -> &'static str {
    match event {
        Some(Event::NewFlow | Event::MidFlow) => "balanced",
        Some(Event::NoBackend | Event::BackendGone | Event::Prohibited | Event::TooBig) => "refused",
        Some(Event::Ping) => "answered",
        _ => "dropped",
    }
}

#[cfg(test)]
mod tests {
    use mesh_ebpf::abi::{Addr16, NetPort};
    use mesh_ebpf::packet::Tuple;

    use super::*;

    #[test]
    fn records_become_events() {
        let addr = |text: &str| Addr16::from(text.parse::<IpAddr>().unwrap());
        let new = NetPort::new;
        let tuple = Tuple::new(addr("198.51.100.1"), new(4000), addr("fd00::1"), new(80));
        let record = Record { tuple, backend: 0, event: Event::NoBackend as u32, proto: TCP, pad: [0; 3] };
        let event = FlowEvent::of(&Whois::default(), "n1", 0, &record, None, 2);
        insta::assert_snapshot!(serde_json::to_string(&event).unwrap(), @r#"{"Time":"1970-01-01T00:00:00Z","Node":"n1","Outcome":"refused","Event":"no_backend","Protocol":"tcp","Client":"198.51.100.1:4000","Destination":"[fd00::1]:80","Service":"","Task":"","TaskNode":"","Missed":2}"#);
        let ping = Record { proto: ICMP, event: Event::Ping as u32, ..record };
        let event = FlowEvent::of(&Whois::default(), "n1", 0, &ping, None, 0);
        assert_eq!((event.outcome.as_str(), event.client.as_str()), ("answered", "198.51.100.1"));
    }
}
