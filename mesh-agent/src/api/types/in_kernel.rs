//! **Fact.** What a node's kernel does with a flow, on the wire.

use mesh_core::model::{NodeId, Snapshot, Vni};
use mesh_core::whois::{Owner, Whois};
use mesh_ebpf::verdict::{Action, To};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dataplane::ebpf::{Foreseen, Live, State};

/// What a node's kernel does with a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct InKernel {
    /// What becomes of a flow that begins now, in one sentence.
    pub verdict: String,
    /// What would be counted: `new_flow`, `no_backend`, …
    pub events: Vec<String>,
    /// The slot of the frontend's table that it gets; left out where none counts: its client is remembered, or its
    /// port is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// How many slots the table has; 0: there is no frontend.
    pub slots: u32,
    /// The task behind the slot; empty: none, or not known without the client's port.
    pub task: String,
    /// Its node.
    pub node: String,
    /// Flows of the client that the node knows of, at most 20.
    pub flows: Vec<LiveFlow>,
}

/// A flow that a node remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LiveFlow {
    /// From which port of the client.
    pub client_port: u16,
    /// The port that the task sees instead, where two flows met in one; 0: it sees the client's own.
    pub changed_port: u16,
    /// `web.1`; empty: it has gone.
    pub task: String,
    /// Its node.
    pub node: String,
    /// Its address and port.
    pub address: String,
    /// `opening`, `established` or `closing`.
    pub state: String,
    /// For how many seconds nothing was heard of it.
    pub idle_seconds: u64,
    /// Whether this node translates it. Otherwise it is tunnelled as the client sends it.
    pub translated: bool,
    /// The node that it came in by, if that is another.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entered: String,
    /// Whether answers go from the task's node straight to the client.
    #[serde(default)]
    pub direct: bool,
    /// Whether its socket was led to the task as it connected: its packets need no translation.
    #[serde(default)]
    pub at_socket: bool,
}

impl InKernel {
    /// What was found. `port_known`: whether the client's port was given.
    pub fn of(whois: &Whois, port_known: bool, foreseen: &Foreseen) -> Self {
        let Foreseen { frontend, slot, backend, action, events, at_socket } = foreseen;
        let slots = frontend.map_or(0, |frontend| frontend.mask + 1);
        // Without its port a flow is sent somewhere, and another of the same client elsewhere.
        let by_client = frontend.is_some_and(|frontend| frontend.affinity != 0);
        let remembered = by_client && backend.is_some() && slot.is_none();
        let certain = port_known || by_client;
        let backend = if certain { *backend } else { None };
        let owner = backend.and_then(|backend| whois.task(Vni(backend.vni), backend.addr.into()));
        let to =
            owner.map_or_else(|| "a task".to_owned(), |Owner { task, node, .. }| format!("{task} on {node}"));
        let way = match action {
            Action::Send(To::Peer { tag: mesh_ebpf::tunnel::Tag::Forward(..), .. }) => "tunnelled as it is",
            _ => "translated here",
        };
        let why = || events.iter().map(|event| event.name()).collect::<Vec<_>>().join(", ");
        let verdict = match (action, slot) {
            (Action::Send(_), _) if !certain => {
                format!("gets one of {slots} slots by its client's port: ask with CLIENT:PORT to see which")
            }
            (Action::Send(_), Some(slot)) => format!("slot {slot} of {slots} leads to {to}, {way}"),
            (Action::Send(_), None) if remembered => {
                format!("its client is remembered: it goes to {to}, {way}")
            }
            (Action::Send(_), None) => format!("goes to {to}, {way}"),
            (Action::Refuse(_), _) => format!("refused: {}", why()),
            (Action::Drop(event), _) => format!("dropped: {}", event.name()),
            (Action::Echo, _) => "answered here".to_owned(),
            (Action::Pass, _) if events.is_empty() => {
                "left to the node's own stack: it meets no frontend".to_owned()
            }
            (Action::Pass, _) => format!("left to the node's own stack, which refuses it: {}", why()),
        };
        let led =
            "a socket that is bound to no address is led to any of the tasks as it connects; otherwise ";
        Self {
            verdict: if *at_socket { format!("{led}{verdict}") } else { verdict },
            events: events.iter().map(|event| event.name().to_owned()).collect(),
            slot: slot.filter(|_| certain),
            slots,
            task: owner.map_or_else(String::new, |owner| owner.task.clone()),
            node: owner.map_or_else(String::new, |owner| owner.node.clone()),
            flows: Vec::new(),
        }
    }

    /// Of a flow that does not begin at this node: only what comes of it here.
    pub fn elsewhere(world: &Snapshot, entry: &NodeId) -> Self {
        let name = world.nodes.get(entry).map_or_else(|| entry.to_string(), |node| node.name.to_string());
        Self { verdict: format!("begins at node {name}: ask there"), ..Self::default() }
    }
}

impl LiveFlow {
    /// With names.
    pub fn of(whois: &Whois, live: &Live) -> Self {
        let Live { client_port, changed_port, task, port, state, idle, here, entered, direct, at_socket } =
            *live;
        let owner = task.and_then(|(vni, address)| whois.task(vni, address));
        let named = |address| whois.node(address).map_or_else(|| address.to_string(), ToString::to_string);
        Self {
            client_port,
            changed_port: changed_port.unwrap_or_default(),
            task: owner.map_or_else(String::new, |owner| owner.task.clone()),
            node: owner.map_or_else(String::new, |owner| owner.node.clone()),
            address: task.map_or_else(String::new, |(_, ip)| std::net::SocketAddr::new(ip, port).to_string()),
            state: match state {
                State::Opening => "opening",
                State::Established => "established",
                State::Closing => "closing",
            }
            .to_owned(),
            idle_seconds: idle.as_secs(),
            translated: here,
            entered: entered.map_or_else(String::new, named),
            direct,
            at_socket,
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_ebpf::abi::{Backend, Frontend};
    use mesh_ebpf::tunnel::{Tag, Terms};
    use mesh_ebpf::verdict::{Event, Refusal};

    use super::*;

    fn verdict(port_known: bool, foreseen: &Foreseen) -> String {
        InKernel::of(&Whois::default(), port_known, foreseen).verdict
    }

    #[test]
    fn what_is_foreseen_is_said() {
        let to = To::Peer { peer: 1, tag: Tag::Network(4096), mac: [0; 6] };
        let new = Foreseen {
            frontend: Some(Frontend { mask: 63, ..Frontend::NONE }),
            slot: Some(5),
            backend: Some(Backend::default()),
            action: Action::Send(to),
            events: vec![Event::NewFlow],
            at_socket: false,
        };
        assert_eq!(verdict(true, &new), "slot 5 of 64 leads to a task, translated here");
        let led = verdict(true, &Foreseen { at_socket: true, ..new.clone() });
        assert!(
            led.starts_with("a socket that is bound to no address is led to") && led.contains("slot 5"),
            "{led}"
        );
        let unknown = verdict(false, &new);
        assert_eq!(unknown, "gets one of 64 slots by its client's port: ask with CLIENT:PORT to see which");
        assert_eq!(InKernel::of(&Whois::default(), false, &new).slot, None);
        let sticky = Some(Frontend { mask: 63, affinity: 9, ..Frontend::NONE });
        let tag = Tag::Forward(mesh_ebpf::abi::NetPort::new(80), Terms::default());
        let action = Action::Send(To::Peer { peer: 1, tag, mac: [0; 6] });
        let kept = Foreseen { frontend: sticky, slot: None, action, ..new.clone() };
        assert_eq!(verdict(false, &kept), "its client is remembered: it goes to a task, tunnelled as it is");
        let none = Foreseen { slot: None, backend: None, events: vec![Event::NoBackend], ..new };
        let by = |action| verdict(true, &Foreseen { action, ..none.clone() });
        assert_eq!(by(Action::Refuse(Refusal::Closed)), "refused: no_backend");
        assert_eq!(by(Action::Pass), "left to the node's own stack, which refuses it: no_backend");
        assert_eq!(by(Action::Drop(Event::NoRoute)), "dropped: no_route");
        let other = Foreseen { events: Vec::new(), action: Action::Pass, frontend: None, ..none };
        assert_eq!(verdict(true, &other), "left to the node's own stack: it meets no frontend");
    }
}
