//! **Effect.** `mesh network create`.

use ipnet::IpNet;

use crate::api::types::{Changed, Ipam, NetworkSpec, Subnet};
use crate::cli::options::{self, KeyValue};
use crate::cli::{OK, Session, converge};

/// Create a network
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreateArgs {
    /// Subnet in CIDR form; at most one IPv4 and one IPv6 [default: a free /16 of 10.0.0.0/8]
    #[arg(long, value_name = "CIDR", value_parser = options::subnet)]
    subnet: Vec<IpNet>,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Smaller MTU than the underlay allows
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// Set driver specific options: encrypted, com.docker.network.driver.mtu=N
    #[arg(short, long = "opt", value_name = "KEY[=VALUE]")]
    opt: Vec<KeyValue>,
    /// Set metadata on a network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<KeyValue>,
    /// Driver to manage the network; 'overlay' is the only one
    #[arg(short, long, default_value = "overlay", hide_default_value = true)]
    driver: String,
    /// Accepted for Docker's sake: every network can be attached to
    #[arg(long)]
    attachable: bool,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(long)]
    detach: bool,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    name: String,
}

pub(super) async fn run(args: CreateArgs, session: Session) -> anyhow::Result<u8> {
    let CreateArgs { subnet, internal, mtu, opt, label, driver, attachable, detach, name } = args;
    let mut options = options::map(opt);
    if let Some(mtu) = mtu {
        options.insert("com.docker.network.driver.mtu".to_owned(), mtu.to_string());
    }
    let config: Vec<_> = subnet.into_iter().map(|subnet| Subnet { subnet }).collect();
    let spec = NetworkSpec {
        name,
        driver: Some(driver),
        ipam: (!config.is_empty()).then_some(Ipam { config }),
        internal,
        attachable,
        options,
        labels: options::map(label),
    };
    let changed: Changed = session.client.post("/v1/networks", &spec).await?;
    session.out.line(&changed.id);
    if !detach {
        converge::wait(&session, "Network", changed.revision).await?;
    }
    Ok(OK)
}
