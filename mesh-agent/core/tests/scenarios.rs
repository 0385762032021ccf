//! Golden transcripts: scripts of `tests/scenarios/*.mesh` run against the decisions, every answer written
//! down. A change of behaviour shows up as a change of text.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::fmt::Write;
use std::time::Duration;

use mesh_core::change::{
    self, AttachmentRequest, NetworkRequest, PortPattern, ServiceRequest, ServiceUpdate, TaskChange,
};
use mesh_core::dns::{Answer, Question};
use mesh_core::explain::{self, Flow};
use mesh_core::liveness::Masks;
use mesh_core::model::{
    Affinity, Balancing, EndpointMode, Locality, NodeId, Protocol, PublishMode, PublishedPort, ReturnPath,
};
use mesh_core::plan::{self, Desired, Frontend, Pool, Route};
use sim::Sim;

#[test]
fn scenarios() {
    insta::glob!("scenarios/*.mesh", |path| {
        let script = std::fs::read_to_string(path).unwrap();
        let mut sim = Sim::new();
        let mut transcript = String::new();
        for line in script.lines() {
            if line.is_empty() || line.starts_with('#') {
                writeln!(transcript, "{line}").unwrap();
                continue;
            }
            writeln!(transcript, "> {line}").unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            match run(&mut sim, &words) {
                Ok(text) => transcript.push_str(&text),
                Err(refusal) => writeln!(transcript, "REFUSED: {refusal}").unwrap(),
            }
        }
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(transcript);
        });
    });
}

fn option<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn options<'a>(words: &[&'a str], key: &str) -> Vec<&'a str> {
    words.iter().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn run(sim: &mut Sim, words: &[&str]) -> Result<String, change::Refusal> {
    match words {
        ["node", "join", name, address] => {
            sim.join(name, address)?;
        }
        ["node", "availability", name, word] => {
            sim.change(|world, fresh| change::set_availability(world, name, word.parse().unwrap(), fresh))?;
        }
        ["node", "rm", name] => {
            sim.change(|world, _| change::remove_node(world, name, false))?;
        }
        ["blocks"] => sim.claim_blocks(),
        ["reattach"] => sim.reattach(),
        ["network", "create", name, rest @ ..] => {
            let request = NetworkRequest {
                name: (*name).to_owned(),
                subnets: options(rest, "subnet").iter().map(|net| net.parse().unwrap()).collect(),
                internal: rest.contains(&"internal"),
                ..NetworkRequest::default()
            };
            let network = sim.change(|world, fresh| change::create_network(world, request, fresh))?;
            return Ok(format!("{} {} vni {}\n", network.name, network.v4, network.vni));
        }
        ["network", "rm", name] => {
            sim.change(|world, fresh| change::remove_network(world, name, fresh))?;
        }
        ["service", "create", name, rest @ ..] => return service(sim, name, rest),
        ["service", "update", name, rest @ ..] => {
            let rm = options(rest, "publish-rm").iter().map(|text| pattern(text)).collect();
            let update = ServiceUpdate {
                publish_add: options(rest, "publish-add").iter().map(|p| port(p)).collect(),
                publish_rm: rm,
                network_add: attachments(&options(rest, "network-add")),
                network_rm: options(rest, "network-rm").iter().map(|n| (*n).to_owned()).collect(),
                mode: option(rest, "mode").map(|mode| mode.parse().unwrap()),
                return_path: option(rest, "return-path").map(|word| word.parse().unwrap()),
                idle_timeout: option(rest, "idle-timeout")
                    .map(|text| Some(seconds(text)).filter(|s| !s.is_zero())),
                slow_start: option(rest, "slow-start").map(seconds),
                ..ServiceUpdate::default()
            };
            let service = sim.change(|world, fresh| change::update_service(world, name, update, fresh))?;
            return Ok(format!("version {}\n", service.version));
        }
        ["service", "rm", name] => {
            sim.change(|world, fresh| change::remove_service(world, name, fresh))?;
        }
        ["task", "run", service, node] => {
            let task = sim.task(service, node)?;
            let address = task.addresses.values().next().unwrap();
            return Ok(format!("{} at {}\n", sim.world().task_name(&task), address.v4));
        }
        ["task", "weight", name, weight] => {
            let task = std::sync::Arc::clone(sim.world().task(name).unwrap());
            let node = sim.world().nodes[&task.node].name.to_string();
            sim.set(&node, &task.id, TaskChange { weight: weight.parse().ok(), ..TaskChange::default() })?;
        }
        ["task", "stop", name] => {
            sim.change(|world, _| change::stop_task(world, name))?;
        }
        ["task", "drain", name, draining] => {
            let task = std::sync::Arc::clone(sim.world().task(name).unwrap());
            let node = sim.world().nodes[&task.node].name.to_string();
            let draining = draining.parse().ok();
            sim.set(&node, &task.id, TaskChange { draining, ..TaskChange::default() })?;
        }
        ["plan", name] => {
            let id = sim.world().node(name).unwrap().id.clone();
            return Ok(print(&plan::desired(sim.world(), &id, sim.now())));
        }
        ["shares", service, node] => return Ok(shares(sim, service, node)),
        ["wait", seconds] => sim.wait(seconds.parse().unwrap()),
        ["dig", network, name] => return Ok(dig(sim, network, name)),
        ["explain", node, client, destination] => return Ok(why(sim, node, client, destination)),
        other => panic!("unknown line: {other:?}"),
    }
    Ok(String::new())
}

fn attachments(names: &[&str]) -> Vec<AttachmentRequest> {
    names.iter().map(|name| AttachmentRequest { network: (*name).to_owned(), aliases: Vec::new() }).collect()
}

fn pattern(text: &str) -> PortPattern {
    let PublishedPort { published, target, protocol, mode, .. } = port(text);
    PortPattern { published: text.contains(':').then_some(published), target, protocol, mode }
}

fn port(text: &str) -> PublishedPort {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (published, target) = ports.split_once(':').unwrap_or(("1", ports));
    PublishedPort {
        published: published.parse().unwrap(),
        target: target.parse().unwrap(),
        protocol: protocol.parse().unwrap(),
        mode: PublishMode::Ingress,
        host_ip: Vec::new(),
        nodes: Vec::new(),
        allow: Vec::new(),
    }
}

fn service(sim: &mut Sim, name: &str, rest: &[&str]) -> Result<String, change::Refusal> {
    let request = ServiceRequest {
        name: name.to_owned(),
        networks: attachments(&options(rest, "network")),
        mode: option(rest, "mode").map_or(EndpointMode::Vip, |mode| mode.parse().unwrap()),
        ports: options(rest, "publish").iter().map(|p| port(p)).collect(),
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: option(rest, "locality").map_or(Locality::Spread, |word| word.parse().unwrap()),
        drain_timeout: Duration::from_secs(30),
        return_path: option(rest, "return-path").map_or(ReturnPath::Tunnel, |word| word.parse().unwrap()),
        idle_timeout: option(rest, "idle-timeout").map(seconds),
        slow_start: option(rest, "slow-start").map(seconds).unwrap_or_default(),
        passive_health: true,
        health: Default::default(),
        discovery: Default::default(),
        program: Default::default(),
        labels: Default::default(),
    };
    let service = sim.change(|world, fresh| change::create_service(world, request, fresh))?;
    let vips: Vec<_> = service.networks.iter().filter_map(|a| Some(a.vip?.v4.to_string())).collect();
    Ok(format!("{} vip {}\n", service.name, if vips.is_empty() { "none".to_owned() } else { vips.join(" ") }))
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.parse().unwrap())
}

/// What a service's VIP gives to each task from now on, whenever that changes by itself.
fn shares(sim: &Sim, service: &str, node: &str) -> String {
    let id = sim.world().node(node).unwrap().id.clone();
    let mut text = String::new();
    let (mut now, mut last) = (sim.now(), String::new());
    loop {
        let desired = plan::desired(sim.world(), &id, now);
        let vip = |(at, pool): &(&Frontend, &std::sync::Arc<Pool>)| {
            matches!(at, Frontend::Vip { .. }) && pool.service.as_str() == service
        };
        let (_, pool) = desired.balance.frontends.iter().find(vip).unwrap();
        let weights: Vec<_> =
            pool.backends.iter().map(|b| format!("{}x{}", pool.task(b), b.weight)).collect();
        let line = weights.join(", ");
        if line != last {
            writeln!(text, "  in {} s: {line}", (now - sim.now()) as f64 / 1000.0).unwrap();
            last = line;
        }
        let Some(next) = desired.next else { return text };
        assert!(next > now, "a plan does not change before it is made");
        now = next;
    }
}

fn print(desired: &Desired) -> String {
    let mut text = String::new();
    for (prefix, route) in &desired.overlay.routes {
        let route = match route {
            Route::Tunnel { vni, remote, .. } => format!("tunnel {vni} to {remote}"),
            Route::Local { source: Some(source) } => format!("local from {source}"),
            Route::Local { source: None } => "local".to_owned(),
            Route::Endpoint { .. } => "task".to_owned(),
            Route::Unreachable => "unreachable".to_owned(),
        };
        writeln!(text, "  route {prefix} {route}").unwrap();
    }
    for (frontend, pool) in &desired.balance.frontends {
        let frontend = match frontend {
            Frontend::Vip { address, .. } => format!("vip {address}"),
            Frontend::Published { protocol, port, .. } => format!("port {port}/{protocol}"),
        };
        let backends: Vec<_> = pool
            .backends
            .iter()
            .map(|b| {
                format!("{}={}x{}{}", pool.task(b), b.address, b.weight, if b.local { " here" } else { "" })
            })
            .collect();
        let to = if backends.is_empty() { "refuse".to_owned() } else { backends.join(", ") };
        write!(text, "  {frontend} -> {to}").unwrap();
        if pool.return_path != ReturnPath::Tunnel {
            write!(text, ", back by {}", pool.return_path).unwrap();
        }
        if let Some(idle) = pool.idle {
            write!(text, ", idle for {idle:?}").unwrap();
        }
        text.push('\n');
    }
    for problem in &desired.problems {
        writeln!(text, "  problem {}: {}", problem.about, problem.message).unwrap();
    }
    text
}

fn dig(sim: &Sim, network: &str, name: &str) -> String {
    let world = sim.world();
    let asker = world.network(network).unwrap().id.clone();
    let zone = mesh_core::dns::Zone::build(world, &NodeId::new("nobody"));
    let question = if name.ends_with(".arpa") { Question::Ptr } else { Question::A };
    match zone.answer(&[asker], name, question, 7) {
        Answer::Addresses(mut addresses) => {
            addresses.sort();
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("  {}\n", addresses.join(" "))
        }
        other => format!("  {other:?}\n"),
    }
}

fn why(sim: &Sim, node: &str, client: &str, destination: &str) -> String {
    let (address, port) = destination.rsplit_once(':').unwrap();
    let flow = Flow {
        client: client.parse().unwrap(),
        destination: address.parse().unwrap(),
        port: port.parse().unwrap(),
        protocol: Protocol::Tcp,
    };
    let id = sim.world().node(node).unwrap().id.clone();
    let explained = explain::explain(sim.world(), &Masks::default(), &id, &flow, sim.now());
    let mut text = format!("  {}\n", explained.verdict);
    if let Some(frontend) = explained.frontend {
        writeln!(text, "  frontend {frontend}; {}", explained.policy).unwrap();
    }
    for share in explained.backends {
        writeln!(
            text,
            "  {:.0}% {} {}:{} on {}",
            share.share * 100.0,
            share.task,
            share.address,
            share.port,
            share.node
        )
        .unwrap();
    }
    for (task, reason) in explained.excluded {
        writeln!(text, "  not {task}: {reason}").unwrap();
    }
    text
}
