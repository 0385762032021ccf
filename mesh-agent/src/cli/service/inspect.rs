//! **Effect.** `mesh service inspect`.

use crate::api::types::{EndpointMode, HealthConfig, ResolverConfig, Service, Shortage};
use crate::cli::format::FormatArg;
use crate::cli::{Session, several};

/// Display detailed information on one or more services
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Print the information in a human friendly format
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Names or IDs
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, session: Session) -> anyhow::Result<u8> {
    let path = |id: &str| format!("/v1/services/{id}");
    if !args.pretty {
        return several::inspect(&session, &args.services, path, args.format.format.as_ref(), "Service")
            .await;
    }
    let (found, code) = several::fetch(&session, &args.services, path).await?;
    for (place, service) in found.into_iter().enumerate() {
        if place > 0 {
            session.out.line("");
        }
        session.out.bytes(pretty(&serde_json::from_value(service)?).as_bytes());
    }
    Ok(code)
}

/// Docker's lines, and ours after them.
fn pretty(service: &Service) -> String {
    let Service {
        id,
        version: _,
        created_at,
        updated_at,
        spec,
        endpoint,
        service_status,
        update_status,
        shortages,
    } = service;
    let mut text = format!("ID:\t\t{id}\nName:\t\t{}\n", spec.name);
    if !spec.labels.is_empty() {
        text.push_str("Labels:\n");
        spec.labels.iter().for_each(|(key, value)| text.push_str(&format!(" {key}={value}\n")));
    }
    text.push_str(&format!("Created:\t{created_at}\nUpdated:\t{updated_at}\n"));
    text.push_str(&format!("Replicas:\t{}/{}\n", service_status.running_tasks, service_status.desired_tasks));
    if let Some(status) = update_status {
        text.push_str(&format!(
            "UpdateStatus:\n State:\t\t{}\n Message:\t{}\n",
            status.state, status.message
        ));
    }
    if !shortages.is_empty() {
        text.push_str("Shortages:\n");
    }
    for Shortage { object, reason, cure } in shortages {
        text.push_str(&format!(" {object}: {reason}\n  {cure}\n"));
    }
    if let Some(program) = &spec.program {
        text.push_str(&format!("Command:\t{}\n", program.command.clone().unwrap_or_default().join(" ")));
        let stop = [("Stop Signal", &program.stop_signal), ("Stop Grace Period", &program.stop_grace_period)];
        for (name, value) in stop {
            value.iter().for_each(|value| text.push_str(&format!("{name}:\t{value}\n")));
        }
        let ResolverConfig { nameservers, search, options } = program.dns_config.clone().unwrap_or_default();
        let servers = nameservers.iter().map(ToString::to_string).collect();
        for (name, words) in [("DNS", servers), ("DNS Search", search), ("DNS Options", options)] {
            if !words.is_empty() {
                text.push_str(&format!("{name}:\t{}\n", words.join(" ")));
            }
        }
    }
    let targets: Vec<_> = spec.networks.iter().map(|network| network.target.as_str()).collect();
    text.push_str(&format!("Networks: {}\n", targets.join(" ")));
    text.push_str(&format!(
        "Endpoint Mode:\t{}\n",
        spec.endpoint_spec.mode.unwrap_or(EndpointMode::Vip).as_str()
    ));
    if !endpoint.virtual_ips.is_empty() {
        text.push_str("Virtual IPs:\n");
        endpoint
            .virtual_ips
            .iter()
            .for_each(|vip| text.push_str(&format!(" {} in {}\n", vip.addr, vip.network_id)));
    }
    if !endpoint.ports.is_empty() {
        text.push_str("Ports:\n");
    }
    for port in &endpoint.ports {
        text.push_str(&format!(
            " PublishedPort = {}\n  Protocol = {}\n  TargetPort = {}\n  PublishMode = {}\n",
            port.published_port,
            port.protocol.as_str(),
            port.target_port,
            port.publish_mode.as_str()
        ));
        let lists = [
            ("HostIP", port.host_ip.iter().map(ToString::to_string).collect::<Vec<_>>()),
            ("Nodes", port.nodes.clone()),
            ("Allow", port.allow.iter().map(ToString::to_string).collect()),
        ];
        for (name, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
            text.push_str(&format!("  {name} = {}\n", values.join(" ")));
        }
    }
    let words = [
        ("Balancing", spec.balancing.map(|word| word.as_str().to_owned())),
        ("Locality", spec.locality.map(|word| word.as_str().to_owned())),
        (
            "Affinity",
            spec.affinity.as_ref().and_then(|a| a.timeout.as_ref().map(|t| format!("client-ip={t}"))),
        ),
        ("Drain Timeout", spec.drain_timeout.clone()),
        ("Return Path", spec.return_path.map(|word| word.as_str().to_owned())),
        ("Idle Timeout", Some(spec.idle_timeout.clone().unwrap_or_else(|| "default".to_owned()))),
        ("Health Check", spec.healthcheck.as_ref().map(health)),
        ("Passive Health", Some(if spec.passive_health == Some(false) { "off" } else { "on" }.to_owned())),
        ("Slow Start", spec.slow_start.clone().filter(|window| window != "0s")),
    ];
    for (name, value) in words {
        text.push_str(&format!("{name}:\t{}\n", value.as_deref().unwrap_or("none")));
    }
    text
}

fn health(check: &HealthConfig) -> String {
    let time = |time: &Option<String>| time.clone().unwrap_or_default();
    let panic = check.panic.filter(|least| *least > 0);
    let panic = panic.map(|least| format!(", all serve when fewer than {least}% are healthy"));
    format!(
        "{} every {}, within {}, {} retries{}",
        check.test.join(" "),
        time(&check.interval),
        time(&check.timeout),
        check.retries.unwrap_or_default(),
        panic.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_has_dockers_lines() {
        let service = serde_json::json!({
            "ID": "abc", "Version": {"Index": 3}, "CreatedAt": "2026-01-01T00:00:00Z",
            "UpdatedAt": "2026-01-02T00:00:00Z",
            "Spec": {"Name": "web", "Labels": {"tier": "front"}, "Networks": [{"Target": "n1"}],
                "EndpointSpec": {"Mode": "vip"}, "Balancing": "maglev",
                "Affinity": {"Mode": "client-ip", "Timeout": "10m"}, "Locality": "spread", "DrainTimeout": "30s",
                "ReturnPath": "dsr", "SlowStart": "5m",
                "Healthcheck": {"Test": ["HTTP", "80/ready"], "Interval": "5s", "Timeout": "1s", "Retries": 3}},
            "Endpoint": {"Spec": {"Mode": "vip"}, "Ports": [{"Protocol": "tcp", "TargetPort": 80,
                "PublishedPort": 8080, "PublishMode": "ingress", "HostIP": ["10.0.0.1"], "Allow": ["10.0.0.0/8"]}],
                "VirtualIPs": [{"NetworkID": "n1", "Addr": "10.0.0.5/16"}]},
            "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3}
        });
        insta::assert_snapshot!(pretty(&serde_json::from_value(service).unwrap()), @r"
        ID:		abc
        Name:		web
        Labels:
         tier=front
        Created:	2026-01-01T00:00:00Z
        Updated:	2026-01-02T00:00:00Z
        Replicas:	2/3
        Networks: n1
        Endpoint Mode:	vip
        Virtual IPs:
         10.0.0.5/16 in n1
        Ports:
         PublishedPort = 8080
          Protocol = tcp
          TargetPort = 80
          PublishMode = ingress
          HostIP = 10.0.0.1
          Allow = 10.0.0.0/8
        Balancing:	maglev
        Locality:	spread
        Affinity:	client-ip=10m
        Drain Timeout:	30s
        Return Path:	dsr
        Idle Timeout:	default
        Health Check:	HTTP 80/ready every 5s, within 1s, 3 retries
        Passive Health:	on
        Slow Start:	5m
        ");
    }
}
