//! **Effect.** What a worker does all the time: follows where the managers are, and becomes one when that is wanted.
//!
//! It asks for a certificate by a record of its own, gets it by a record of a manager's, learns from etcd itself that it
//! was let in, starts its member, and when that has a vote the agent starts anew as a manager.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::etcd::{MemberSpec, PEER_PORT, url};
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_core::model::{Role, Snapshot};
use mesh_core::records;
use tokio::time::interval;

use super::begin::AUTHORITY;
use super::duty::Issued;
use super::{Cluster, binary, gateway, managers};
use crate::store::Store;
use crate::store::etcd::{EtcdStore, Known};
use crate::store::gateway::SeveralGateways;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

/// Runs for ever.
pub(super) async fn run(cluster: &Cluster, gateways: &Arc<SeveralGateways>) {
    let mut timer = interval(LOOK);
    let mut known: Vec<SocketAddr> = Vec::new();
    let mut way: Option<EtcdStore> = None;
    let mut said = String::new();
    loop {
        timer.tick().await;
        if !cluster.0.control.status().store.connected {
            continue;
        }
        let world = cluster.0.control.world();
        let mut steps = async || -> anyhow::Result<()> {
            follow(cluster, &world, gateways, &mut known)?;
            if world.is_manager(&cluster.0.node) {
                return ascend(cluster, &world, gateways.as_ref(), &mut way).await;
            }
            way = None;
            // It was to become one, and is not any more.
            if cluster.own().dir().exists() && world.manager_ids().next().is_some() {
                cluster.own().remove().await?;
            }
            Ok(())
        };
        match steps().await {
            Ok(()) => said.clear(),
            Err(error) if format!("{error:#}") != said => {
                said = format!("{error:#}");
                tracing::warn!("on the way to become a manager: {said}");
            }
            Err(_) => {}
        }
    }
}

/// Takes up where the managers are.
fn follow(
    cluster: &Cluster,
    world: &Snapshot,
    gateways: &SeveralGateways,
    known: &mut Vec<SocketAddr>,
) -> anyhow::Result<()> {
    let now: Vec<_> = managers(world).into_values().map(gateway).collect();
    if now.is_empty() || now == *known {
        return Ok(());
    }
    gateways.set(&now);
    if cluster.moved(now.clone())? {
        *known = now;
    }
    Ok(())
}

/// The next thing to do on the way.
async fn ascend(
    cluster: &Cluster,
    world: &Snapshot,
    records: &dyn Store,
    way: &mut Option<EtcdStore>,
) -> anyhow::Result<()> {
    let (own, node) = (cluster.own(), &cluster.0.node);
    binary::find().await?;
    let trust = cluster.trust(&own);
    let request = trust.request()?;
    let (asks, gets) = (records::signing_request(node), records::certificate(node));
    let (asked, got) = (value(records, &asks).await?, value(records, &gets).await?);
    if asked.as_deref() != Some(request.as_str()) && own.spec()?.is_none() {
        // Signatures differ each time that they are made; a request that is there is as good if the key is the same.
        if asked.as_deref().is_none_or(|asked| !same_key(asked, &request)) {
            return ask(world, node, records, &asks, &request).await;
        }
    }
    if world.rev_of(&gets) <= world.rev_of(&asks) {
        return Ok(());
    }
    let Some(issued) = got else { return Ok(()) };
    let issued: Issued = serde_json::from_str(&issued).context("what a manager signed makes no sense")?;
    trust.accept(&issued.certificate, &issued.authority)?;

    let me = cluster.0.address;
    let others: Vec<IpAddr> = managers(world).into_values().filter(|address| *address != me).collect();
    let Some(file) = &cluster.0.file else { bail!("this node belongs to no cluster") };
    let known = Known { cluster: Some(file.cluster.clone()), ..Known::default() };
    let etcd = match way {
        Some(etcd) => etcd,
        None => way.insert(EtcdStore::new(own.options(false, &others, known)?)),
    };
    let members = etcd.members().await?;
    let peer = url(me, PEER_PORT);
    let Some((_, _, _, learner)) = members.iter().find(|(_, _, found, _)| *found == peer) else {
        return Ok(());
    };
    if let Some(key) = etcd.secret(AUTHORITY).await? {
        trust.accept_key(&String::from_utf8_lossy(&key))?;
    }
    if own.spec()?.is_none() {
        let named = members.iter().filter(|(_, name, found, _)| !name.is_empty() || *found == peer);
        let named = named.map(|(_, name, found, _)| {
            (if *found == peer { node.to_string() } else { name.clone() }, found.clone())
        });
        let spec = MemberSpec {
            node: node.to_string(),
            address: me,
            cluster: named.collect(),
            joins: true,
            token: file.cluster.clone(),
            quota: cluster.quota(),
            alone: None,
        };
        tracing::info!("starting this node's member of etcd");
        return own.run(&spec).await;
    }
    own.ensure().await?;
    // A manager's agent signs certificates: it starts when it can.
    let can_sign = cluster.files().authority().is_ok_and(|authority| authority.is_some());
    if !learner && can_sign {
        tracing::info!("this node is a manager now");
        let all = managers(world).into_values().map(gateway).collect();
        cluster.become_one(Role::Manager, &file.cluster, all)?;
    }
    Ok(())
}

async fn value(records: &dyn Store, key: &str) -> anyhow::Result<Option<String>> {
    let listing = records.list(key).await?;
    Ok(listing.kvs.into_iter().find(|kv| *kv.key == *key).map(|kv| kv.value.to_string()))
}

fn same_key(a: &str, b: &str) -> bool {
    let key = |pem: &str| {
        let request = rcgen::CertificateSigningRequestParams::from_pem(pem).ok()?;
        Some(rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec())
    };
    key(a).is_some() && key(a) == key(b)
}

/// Asks for a certificate, by a record that is this node's own.
async fn ask(
    world: &Snapshot,
    node: &mesh_core::model::NodeId,
    records: &dyn Store,
    key: &str,
    request: &str,
) -> anyhow::Result<()> {
    let mut txn = Txn::default();
    let guard = records::node(node);
    txn.unchanged(&guard, world.rev_of(&guard));
    txn.put(key, request);
    match records.txn(txn).await? {
        TxnOutcome::Committed { .. } => tracing::info!("asked for the certificate of a manager"),
        other => tracing::debug!(?other, "cannot ask yet"),
    }
    Ok(())
}
