//! **Decision.** What templates are made of: services with the tasks that get flows, and nodes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::format::template::Shape;
use crate::api::types::{Node, Protocol, Service, Task, WatchAction, WatchEvent};

/// What templates may look up: `service "NAME"` are a service's tasks.
pub(super) const FUNCTIONS: [&str; 3] = ["service", "services", "nodes"];

const TASK: [&str; 10] =
    ["ID", "Name", "Address", "Address6", "Port", "Weight", "Slot", "Node", "NodeAddress", "Labels"];
const SERVICE: [&str; 6] = ["ID", "Name", "VIP", "Ports", "Tasks", "Labels"];
const PORT: [&str; 4] = ["Published", "Target", "Protocol", "Mode"];
const NODE: [&str; 5] = ["ID", "Name", "Address", "State", "Availability"];

/// What a watch has told so far.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    services: BTreeMap<String, Service>,
    tasks: BTreeMap<String, Task>,
    nodes: BTreeMap<String, Node>,
    /// Something was told since all was known last.
    news: bool,
    known: BTreeSet<String>,
}

impl Catalog {
    /// Takes in an event; true: all is known, and something is new.
    pub(super) fn apply(&mut self, event: WatchEvent) -> bool {
        let WatchEvent { revision: _, action, kind: _, id, network: _, service, task, node } = event;
        match action {
            // What was known stays until all is known anew: a file is never written from half of it.
            WatchAction::Reset => {
                self.known =
                    self.services.keys().chain(self.tasks.keys()).chain(self.nodes.keys()).cloned().collect();
            }
            WatchAction::Set => {
                self.known.remove(&id);
                self.services.extend(service.map(|service| (id.clone(), service)));
                self.tasks.extend(task.map(|task| (id.clone(), task)));
                self.nodes.extend(node.map(|node| (id, node)));
            }
            WatchAction::Remove => self.forget(&id),
            WatchAction::Synced => {
                for id in std::mem::take(&mut self.known) {
                    self.forget(&id);
                }
                return std::mem::take(&mut self.news);
            }
        }
        self.news = true;
        false
    }

    fn forget(&mut self, id: &str) {
        self.services.remove(id);
        self.tasks.remove(id);
        self.nodes.remove(id);
    }

    /// What templates see.
    pub(super) fn whole(&self) -> Value {
        let mut tasks: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
        for task in self.tasks.values().filter(|task| task.in_balance) {
            tasks.entry(&task.service_id).or_default().push(task);
        }
        let mut services: Vec<_> = self.services.values().collect();
        services.sort_by_key(|service| &service.spec.name);
        let mut nodes: Vec<_> = self.nodes.values().collect();
        nodes.sort_by_key(|node| &node.description.hostname);
        let mut by_name = Map::new();
        for service in &services {
            let mut tasks = tasks.remove(service.id.as_str()).unwrap_or_default();
            tasks.sort_by_key(|task| task.slot);
            let tasks: Vec<_> = tasks.into_iter().map(|task| self.task(service, task)).collect();
            by_name.insert(service.spec.name.clone(), tasks.into());
        }
        let services: Vec<_> = services.into_iter().map(about_service).collect();
        let nodes: Vec<_> = nodes.into_iter().map(about_node).collect();
        json!({"service": by_name, "services": services, "nodes": nodes})
    }

    /// A task, by its addresses in the service's first network.
    fn task(&self, service: &Service, task: &Task) -> Value {
        let first = service.spec.networks.first().map(|network| &network.target);
        let place = task.networks_attachments.iter().find(|place| Some(&place.network.id) == first);
        let addresses = place.into_iter().flat_map(|place| &place.addresses);
        let addresses = addresses.filter_map(|address| Some(address.split_once('/')?.0));
        let (v6, v4): (Vec<_>, Vec<_>) = addresses.partition(|address| address.contains(':'));
        let port = service.endpoint.ports.iter().min_by_key(|port| port.protocol != Protocol::Tcp);
        json!({
            "ID": task.id, "Name": task.name, "Address": v4.first(), "Address6": v6.first(),
            "Port": port.map(|port| port.target_port), "Weight": task.weight, "Slot": task.slot,
            "Node": task.node_name, "NodeAddress": self.nodes.get(&task.node_id).map(|node| &node.status.addr),
            "Labels": service.spec.labels,
        })
    }

    /// Which fields there are.
    pub(super) fn shape() -> Shape {
        let task = fields(&TASK, &[("Labels", json!({"additionalProperties": {}}))]);
        let ports = json!({"items": fields(&PORT, &[])});
        let service = fields(&SERVICE, &[("Labels", json!({"additionalProperties": {}})), ("Ports", ports)]);
        Shape::of(json!({"properties": {
            "service": {"additionalProperties": {"items": task}},
            "services": {"items": service},
            "nodes": {"items": fields(&NODE, &[])},
        }}))
    }
}

fn fields(names: &[&str], inner: &[(&str, Value)]) -> Value {
    let of = |name: &str| {
        inner.iter().find(|(of, _)| *of == name).map_or_else(|| json!({}), |(_, shape)| shape.clone())
    };
    let fields: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), of(name))).collect();
    json!({ "properties": fields })
}

fn about_service(service: &Service) -> Value {
    let ports: Vec<_> = service
        .endpoint
        .ports
        .iter()
        .map(|port| {
            json!({"Published": port.published_port, "Target": port.target_port, "Protocol": port.protocol,
                "Mode": port.publish_mode})
        })
        .collect();
    let vip = service.endpoint.virtual_ips.first().and_then(|vip| Some(vip.addr.split_once('/')?.0));
    json!({"ID": service.id, "Name": service.spec.name, "VIP": vip, "Ports": ports,
        "Tasks": service.service_status.running_tasks, "Labels": service.spec.labels})
}

fn about_node(node: &Node) -> Value {
    json!({"ID": node.id, "Name": node.description.hostname, "Address": node.status.addr, "State": node.status.state,
        "Availability": node.spec.availability})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::template::Template;

    fn event(action: &str, kind: &str, id: &str, value: Value) -> WatchEvent {
        let mut event = json!({"Revision": 1, "Action": action, "ID": id});
        if !kind.is_empty() {
            event["Kind"] = kind.into();
            event[&format!("{}{}", kind[..1].to_uppercase(), &kind[1..])] = value;
        }
        serde_json::from_value(event).unwrap()
    }

    fn service(id: &str, name: &str) -> WatchEvent {
        let time = "2026-11-28T12:00:00Z";
        let ports =
            json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]);
        let spec = json!({"Name": name, "Networks": [{"Target": "net"}]});
        event(
            "set",
            "service",
            id,
            json!({"ID": id, "Version": {"Index": 1}, "CreatedAt": time, "UpdatedAt": time,
            "Spec": spec, "Endpoint": {"Spec": {}, "Ports": ports, "VirtualIPs": [{"NetworkID": "net", "Addr": "10.0.0.2/16"}]},
            "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1}}),
        )
    }

    fn task(id: &str, slot: u32, in_balance: bool) -> WatchEvent {
        let time = "2026-11-28T12:00:00Z";
        let network =
            json!({"Network": {"ID": "net", "Name": "app"}, "Addresses": [format!("10.0.1.{slot}/16")]});
        event(
            "set",
            "task",
            id,
            json!({"ID": id, "CreatedAt": time, "UpdatedAt": time, "Name": format!("web.{slot}"),
            "ServiceID": "s1", "Slot": slot, "NodeID": "node", "NodeName": "n1",
            "Status": {"Timestamp": time, "State": "running"}, "DesiredState": "running", "NetworksAttachments": [network],
            "Health": "none", "Weight": 1, "Draining": false, "InBalance": in_balance, "Availability": "active", "Origin": {}}),
        )
    }

    fn synced() -> WatchEvent {
        event("synced", "", "", Value::Null)
    }

    fn servers(catalog: &Catalog) -> String {
        let text = "{{range service \"web\"}}{{.Address}}:{{.Port}} {{else}}none{{end}}";
        let template = Template::file(text, &FUNCTIONS).unwrap();
        template.check(&Catalog::shape()).unwrap();
        template.render(&catalog.whole()).unwrap()
    }

    #[test]
    fn a_service_is_its_tasks_that_get_flows() {
        let mut catalog = Catalog::default();
        for event in [
            event("reset", "", "", Value::Null),
            service("s1", "web"),
            task("b", 2, true),
            task("a", 1, true),
        ] {
            assert!(!catalog.apply(event), "it is not all yet");
        }
        assert!(catalog.apply(synced()) && !catalog.apply(synced()));
        assert_eq!(servers(&catalog), "10.0.1.1:80 10.0.1.2:80 ");
        catalog.apply(task("a", 1, false));
        assert_eq!(servers(&catalog), "10.0.1.2:80 ");
        catalog.apply(event("remove", "", "b", Value::Null));
        assert_eq!(servers(&catalog), "none");
    }

    #[test]
    fn what_is_not_told_again_after_a_reset_is_gone_when_all_is_known() {
        let mut catalog = Catalog::default();
        for event in [service("s1", "web"), task("a", 1, true), task("b", 2, true), synced()] {
            catalog.apply(event);
        }
        for event in [event("reset", "", "", Value::Null), service("s1", "web"), task("b", 2, true)] {
            catalog.apply(event);
        }
        assert_eq!(servers(&catalog), "10.0.1.1:80 10.0.1.2:80 ");
        assert!(catalog.apply(synced()));
        assert_eq!(servers(&catalog), "10.0.1.2:80 ");
    }

    #[test]
    fn every_field_is_there() {
        let mut catalog = Catalog::default();
        catalog.apply(service("s1", "web"));
        catalog.apply(task("a", 1, true));
        let whole = catalog.whole();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(keys(&whole["service"]["web"][0]), names(&TASK));
        assert_eq!(keys(&whole["services"][0]), names(&SERVICE));
        assert_eq!(keys(&whole["services"][0]["Ports"][0]), names(&PORT));
    }
}
