//! **Effect.** `mesh cluster status`.

use serde_json::Value;

use crate::api::types::{Cluster, ClusterMember, ClusterNode};
use crate::cli::format::{self, Format, FormatArg};
use crate::cli::{OK, Session, table};

/// Show the cluster, as this node sees it
///
/// MANAGER STATUS is that of Docker: Leader, Reachable, Unreachable; Joining while a manager has no vote yet. INDEX is how
/// far it has written down what the managers agreed on.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: StatusArgs, session: Session) -> anyhow::Result<u8> {
    let value: Value = session.client.get("/v1/cluster").await?;
    match args.format.format.as_ref() {
        None | Some(Format::Table) => session.out.bytes(text(&serde_json::from_value(value)?).as_bytes()),
        format => format::records(&session.out, format, "Cluster", &[value])?,
    }
    Ok(OK)
}

fn text(cluster: &Cluster) -> String {
    let Cluster { role, generation, leader, voters, reachable, size, quota, alarms, warning, waits, nodes } =
        cluster;
    let mut text = format!("Role:       {role}\nGeneration: {generation}\n");
    if role == "manager" {
        let leader = if leader.is_empty() { "no leader" } else { leader };
        text.push_str(&format!("Managers:   {reachable} of {voters} reachable, leader {leader}\n"));
        text.push_str(&format!("Records:    {} of {} used\n", bytes(*size), bytes(*quota)));
    }
    if !alarms.is_empty() {
        text.push_str(&format!("ALARMS:     {}\n", alarms.join(", ")));
    }
    if !warning.is_empty() {
        text.push_str(&format!("Warning:    {warning}\n"));
    }
    if !waits.is_empty() {
        text.push_str(&format!("Waiting:    {waits}\n"));
    }
    let rows: Vec<_> = nodes.iter().map(row).collect();
    text.push_str(&table::render(
        &["ID", "HOSTNAME", "ADDRESS", "ROLE", "MANAGER STATUS", "ETCD", "SIZE", "INDEX"],
        &rows,
    ));
    text
}

fn row(node: &ClusterNode) -> Vec<String> {
    let ClusterNode { node_id, hostname, addr, role, member } = node;
    let mut row = vec![node_id.clone(), hostname.clone(), addr.clone(), role.clone()];
    match member {
        Some(ClusterMember { id: _, status, leader, version, size, raft_index, alarms: _ }) => {
            let status = match (leader, status.as_str()) {
                (true, _) => "Leader",
                (false, "reachable") => "Reachable",
                (false, "joining") => "Joining",
                (false, _) => "Unreachable",
            };
            let known = |text: String| if version.is_empty() { "-".to_owned() } else { text };
            row.extend([
                status.to_owned(),
                known(version.clone()),
                known(bytes(*size)),
                known(raft_index.to_string()),
            ]);
        }
        None => row.extend(["", "", "", ""].map(str::to_owned)),
    }
    row
}

/// `20.5 MiB`
fn bytes(count: u64) -> String {
    match count {
        0..1_048_576 => format!("{} KiB", count.div_ceil(1024)),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_before_the_nodes() {
        let member = |status: &str, leader: bool| {
            serde_json::json!({"ID": "1", "Status": status, "Leader": leader, "Version": "3.4.23", "Size": 20480,
                "RaftIndex": 12})
        };
        let cluster = serde_json::json!({
            "Role": "manager", "Generation": 7, "Leader": "n1", "Voters": 2, "Reachable": 2, "Size": 20480,
            "Quota": 4_294_967_296_u64, "Alarms": ["NOSPACE"], "Warning": "with two managers…", "Waits": "",
            "Nodes": [
                {"NodeID": "a", "Hostname": "n1", "Addr": "192.0.2.1", "Role": "manager",
                    "Member": member("reachable", true)},
                {"NodeID": "b", "Hostname": "n2", "Addr": "192.0.2.2", "Role": "manager",
                    "Member": member("joining", false)},
                {"NodeID": "c", "Hostname": "n3", "Addr": "192.0.2.3", "Role": "worker"}]
        });
        insta::assert_snapshot!(text(&serde_json::from_value(cluster).unwrap()), @r"
        Role:       manager
        Generation: 7
        Managers:   2 of 2 reachable, leader n1
        Records:    20 KiB of 4.0 GiB used
        ALARMS:     NOSPACE
        Warning:    with two managers…
        ID   HOSTNAME   ADDRESS     ROLE      MANAGER STATUS   ETCD     SIZE     INDEX
        a    n1         192.0.2.1   manager   Leader           3.4.23   20 KiB   12
        b    n2         192.0.2.2   manager   Joining          3.4.23   20 KiB   12
        c    n3         192.0.2.3   worker
        ");
    }
}
