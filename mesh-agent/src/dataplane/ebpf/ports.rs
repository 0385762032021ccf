//! **Effect.** Which devices are ports of a bridge.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;

use crate::netns::Netns;

/// Their names, in the calling thread's namespace. The kernel lists few others to who asks about bridges (rtnetlink(7),
/// `RTM_GETLINK` of `AF_BRIDGE`): cards that are a bridge themselves, and belong to nobody.
pub(super) async fn of_bridges() -> Result<BTreeSet<String>, String> {
    let failed = |error: &dyn std::error::Error| format!("cannot list the ports of bridges: {error}");
    let handle = Netns::own().and_then(|netns| netns.connect()).map_err(|error| failed(&error))?;
    let mut ask = handle.link().get();
    ask.message_mut().header.interface_family = AddressFamily::Bridge;
    let links: Vec<_> = ask.execute().try_collect().await.map_err(|error| failed(&error))?;
    let is_port = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Controller(_));
    let name = |attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    };
    let ports = links.into_iter().filter(|link| link.attributes.iter().any(is_port));
    Ok(ports.filter_map(|link| link.attributes.into_iter().find_map(name)).collect())
}
