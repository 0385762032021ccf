//! The overlay in real kernels: two nodes and their tasks in network namespaces. Needs root.
#![expect(clippy::unwrap_used, reason = "a test's site that cannot be made is a failure")]

#[path = "overlay/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_agent::facts::links;
use mesh_agent::netns::start_of;
use mesh_agent::overlay::OverlayPlane;
use mesh_agent::plane::{Applied, Depth, Plane};
use mesh_core::model::{Block, NetworkId, Origin, TaskId};
use mesh_core::plan::Route;
use site::{APP, DARK, Site, Space, device};

/// Tasks `t1` and `t2`, one on each node.
async fn connected(prefix: &str, length: u8) -> (Site, [Space; 2]) {
    let mut site = Site::new(prefix, length);
    let tasks = [Space::new(), Space::new()];
    for (node, task) in tasks.iter().enumerate() {
        site.task(&format!("t{}", node + 1), node, 2, &[APP, DARK], task.origin());
    }
    assert!(site.settle(Depth::Delta).await > 0);
    (site, tasks)
}

fn inside_mtu(task: &Space) -> String {
    task.sh(
        "cat /proc/thread-self/net/dev >/dev/null; ip -o link show eth0 | sed 's/.* mtu \\([0-9]*\\).*/\\1/'",
    )
}

#[tokio::test]
async fn tasks_reach_each_other_through_the_tunnel() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    for target in ["10.0.17.2", "fd00:1::1100:0:2", "10.1.17.2"] {
        assert!(tasks[0].pings(target), "{target}");
    }
    for target in ["10.0.16.2", "fd00:1::1000:0:2", "10.1.16.2"] {
        assert!(tasks[1].pings(target), "{target}");
    }
    // The whole MTU arrives, and not a byte more fits.
    assert_eq!(inside_mtu(&tasks[0]).trim(), "1450");
    assert!(tasks[0].pings("-M do -s 1422 10.0.17.2"));
    assert!(!tasks[0].pings("-M do -s 1423 10.0.17.2"));
    assert!(tasks[0].pings("-M do -s 1402 fd00:1::1100:0:2"));
    // The VIP is answered where it is asked for; the node's own address too.
    for target in ["10.0.0.1", "fd00:1::1", "10.0.16.1", "fd00:1::1000:0:1", "10.0.17.1", "fd00:1::1100:0:1"]
    {
        assert!(tasks[0].pings(target), "{target}");
        assert!(site.nodes[0].pings(target), "node: {target}");
    }
    // The node itself reaches tasks, near and far, with or without a way to the world.
    for target in ["10.0.16.2", "10.1.16.2", "10.0.17.2", "10.1.17.2", "fd00:1::1000:0:2", "fd00:1::1100:0:2"]
    {
        assert!(site.nodes[0].pings(target), "node: {target}");
    }
    // What leads nowhere says so.
    for target in ["10.0.3.3", "10.0.16.99", "10.0.99.1", "fd00:1::3:3", "fd00:1::9900:0:1"] {
        tasks[0].is_refused(target);
        site.nodes[0].is_refused(target);
    }
    site.is_settled().await;
}

#[tokio::test]
async fn an_ipv6_underlay_carries_both_families() {
    let (mut site, tasks) = connected("fd99::", 64).await;
    assert_eq!(inside_mtu(&tasks[0]).trim(), "1430");
    assert!(tasks[0].pings("-M do -s 1402 10.0.17.2"));
    assert!(!tasks[0].pings("-M do -s 1403 10.0.17.2"));
    assert!(tasks[1].pings("-M do -s 1382 fd00:1::1000:0:2"));
    assert!(site.nodes[0].pings("10.1.17.2"));
    site.is_settled().await;
}

#[tokio::test]
async fn whatever_was_tampered_with_is_repaired() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    let veth = device("t1", APP);
    let on_node = [
        "ip route delete 10.0.17.0/24",
        "ip -6 route delete fd00:1::1100:0:0/88",
        "ip route replace 10.0.17.0/24 dev uplink proto 77",
        "ip route add 10.0.44.0/24 dev uplink proto 77 metric 9",
        "ip route delete local 10.0.0.1 table local",
        "ip -6 address delete fd00:1::1000:0:1/128 dev mesh0",
        "ip neighbour delete 192.168.9.2 dev mesh0",
        "ip neighbour replace 192.168.9.2 lladdr 02:00:00:00:00:09 dev mesh0",
        "ip link delete mesh0",
        "ip link set mesh0 down",
        "ip link set mesh0 mtu 1400 address 02:00:00:00:00:07",
        "ip link delete mesh0; ip link add mesh0 type vxlan id 7 dstport 4789 dev uplink",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "echo 0 > /proc/sys/net/ipv4/conf/mesh0/route_localnet",
    ];
    let veth_commands = ["delete VETH", "set VETH down", "set VETH group 5", "set VETH mtu 1300"]
        .map(|command| format!("ip link {}", command.replace("VETH", &veth)));
    let in_task = [
        "ip address delete 10.0.16.2/32 dev eth0",
        "ip -6 address delete fd00:1::1000:0:2/128 dev eth0",
        "ip route delete default",
        "ip -6 route delete fd00:1::/64",
        "ip route delete 10.1.0.0/16",
        "ip neighbour replace 169.254.1.1 lladdr 02:00:00:00:00:09 dev eth0",
        "ip link set eth0 down",
        "ip link set lo down",
        "ip link set eth0 mtu 1000",
        "ip link set eth0 down; ip link set eth0 name mine",
        "ip link delete eth0",
        "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
    ];
    let on_node = on_node.into_iter().map(str::to_owned).chain(veth_commands).map(|c| (&site.nodes[0], c));
    let spaces: Vec<_> = on_node.chain(in_task.map(|c| (&tasks[0], c.to_owned()))).collect();
    let commands: Vec<(bool, String)> =
        spaces.into_iter().map(|(space, command)| (std::ptr::eq(space, &tasks[0]), command)).collect();
    for (inside, command) in commands {
        assert!(!site.differs().await, "before {command}");
        let space = if inside { &tasks[0] } else { &site.nodes[0] };
        space.sh(&command);
        assert!(site.differs().await, "{command}: not told");
        assert!(site.settle(Depth::Sweep).await > 0, "{command}: not noticed");
        for target in ["10.0.17.2", "fd00:1::1100:0:2", "10.1.17.2", "10.0.0.1"] {
            assert!(tasks[0].pings(target), "after {command}: {target}");
        }
        assert_eq!(site.settle(Depth::Sweep).await, 0, "{command}: not repaired in one round");
    }
    assert_eq!(site.nodes[0].sh("ip route show 10.0.44.0/24"), "");
    site.is_settled().await;
}

/// Whatever judges a task's packets is there before any can come.
#[tokio::test]
async fn a_tasks_device_is_down_until_it_is_guarded() {
    let mut site = Site::new("192.168.9.", 24);
    let [node, own] = [(); 2].map(|()| site.nodes[0].origin_netns());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    let guard = move |_, name: &str| {
        let show = || Command::new("ip").args(["-o", "link", "show", "dev", name]).output().unwrap();
        let shown = String::from_utf8(node.run(show).unwrap().stdout).unwrap();
        let mut calls = noted.lock().unwrap();
        calls.push((name.to_owned(), shown.contains(",UP")));
        // It cannot be done at first: in a round that is tried twice.
        if calls.len() <= 2 { Err("no program".to_owned()) } else { Ok(()) }
    };
    site.planes[0] = OverlayPlane::of_node(own).guarded(Box::new(guard));
    let task = Space::new();
    site.task("t1", 0, 2, &[APP], task.origin());
    let veth = device("t1", APP);
    let down = (veth.clone(), false);
    let said: String = site.round(0, Depth::Delta).await.errors.into_values().collect();
    assert!(said.contains("its device stays down: no program"), "{said}");
    assert!(!site.nodes[0].sh(&format!("ip -o link show dev {veth}")).contains(",UP"));
    site.settle(Depth::Delta).await;
    assert!(task.pings("10.0.16.1"));
    site.settle(Depth::Sweep).await;
    let calls = calls.lock().unwrap();
    assert_eq!(*calls, [(); 3].map(|()| down.clone()));
}

#[tokio::test]
async fn a_delta_follows_the_plan() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    // One more task; the others are left alone.
    let third = Space::new();
    site.task("t3", 0, 3, &[APP], third.origin());
    assert!(site.settle(Depth::Delta).await > 0);
    assert!(third.pings("10.0.17.2") && third.pings("10.0.16.2"));
    // Restarted: the same task in another namespace.
    let again = Space::new();
    let mut task = mesh_core::model::Task::clone(&site.world.tasks[&TaskId::new("t3")]);
    task.origin = again.origin();
    site.world.tasks.insert(task.id.clone(), Arc::new(task));
    assert!(site.settle(Depth::Delta).await > 0);
    assert!(again.pings("10.0.17.2") && tasks[1].pings("10.0.16.3"));
    assert_eq!(third.sh("ip -o link").lines().count(), 1);
    // Its network changes; so does the tunnel's port.
    let network = Arc::make_mut(site.world.networks.get_mut(&NetworkId::new(APP)).unwrap());
    network.mtu = Some(1400);
    network.internal = true;
    for node in site.world.nodes.values_mut() {
        Arc::make_mut(node).vxlan_port = 8472;
    }
    assert!(site.settle(Depth::Delta).await > 0);
    assert!(again.pings("-M do -s 1372 10.0.17.2") && !again.pings("-M do -s 1373 10.0.17.2"));
    assert_eq!(again.sh("ip route show default; ip -6 route show default"), "");
    // Gone: no trace, and its address is refused.
    site.world.tasks.remove(&TaskId::new("t3"));
    assert!(site.settle(Depth::Delta).await > 0);
    assert_eq!(again.sh("ip -o link").lines().count(), 1);
    tasks[0].is_refused("10.0.16.3");
    site.is_settled().await;
    // A VIP stays while a task runs, for the flows that it has, and goes with the service.
    assert!(tasks[0].pings("10.0.0.1") && tasks[0].pings("fd00:1::1"));
    site.change_tasks(|task| task.draining = true);
    assert_eq!(site.settle(Depth::Delta).await, 0);
    assert!(tasks[0].pings("10.0.0.1"));
    site.world.services.clear();
    assert!(site.settle(Depth::Delta).await > 0);
    tasks[0].is_refused("10.0.0.1");
    tasks[0].is_refused("fd00:1::1");
    assert!(tasks[0].pings("10.0.17.2"));
    site.is_settled().await;
}

#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    let (mut site, _tasks) = connected("192.168.9.", 24).await;
    let node = &site.nodes[0];
    node.sh("ip link add meshnet0 type bridge && ip link set meshnet0 up");
    node.sh("ip link add mesh-user type veth peer name user-mesh && ip link set mesh-user up");
    node.sh("ip link add mesh0123456789a type veth peer name other && ip link set other up");
    node.sh("ip link add meshvx type vxlan id 9 dstport 9999 dev uplink");
    node.sh("ip address add 172.30.0.1/24 dev meshnet0");
    node.sh("ip route add 10.99.0.0/16 dev meshnet0 proto static");
    node.sh("ip -6 route add fd77::/64 dev meshnet0 proto static");
    node.sh("ip neighbour replace 192.168.9.77 lladdr 02:00:00:00:00:77 dev uplink nud permanent");
    // Not even where it is in the way: that is an error, and everything else is done.
    node.sh("ip route delete 10.0.17.0/24 && ip route add 10.0.17.0/24 dev uplink proto static");
    let applied = site.round(0, Depth::Sweep).await;
    assert_eq!(applied.errors.keys().collect::<Vec<_>>(), ["route 10.0.17.0/24"]);
    assert!(applied.errors["route 10.0.17.0/24"].contains("not the mesh's"), "{applied:?}");
    let foreign = "ip -o link show type bridge; ip -o link show type veth; ip -o link show meshvx; \
                   ip route show proto static; ip -6 route show proto static; ip neighbour show dev uplink nud permanent";
    let others = |text: String| -> Vec<String> {
        let ours = [device("t1", APP), device("t1", DARK)];
        text.lines().filter(|line| !ours.iter().any(|name| line.contains(name))).map(str::to_owned).collect()
    };
    let before = others(site.nodes[0].sh(foreign));
    assert_eq!(before.len(), 11, "{before:#?}");
    let applied = site.planes[0].remove_all().await;
    assert!(applied.errors.is_empty() && applied.changed > 0, "{applied:?}");
    assert_eq!(others(site.nodes[0].sh(foreign)), before);
    let node = &site.nodes[0];
    assert_eq!(node.sh("ip route show table all proto 77; ip -6 route show table all proto 77"), "");
    assert_eq!(node.sh("ip -o link | grep -c mesh0: || true").trim(), "0");
    assert_eq!(node.sh(&format!("ip -o link | grep -c {} || true", device("t1", APP))).trim(), "0");
    assert_eq!(site.planes[0].remove_all().await, Applied::default());
    // And it all comes back.
    site.nodes[0].sh("ip route delete 10.0.17.0/24");
    assert!(site.settle(Depth::Delta).await > 0);
    site.is_settled().await;
}

#[tokio::test]
async fn a_task_that_cannot_be_found_fails_alone() {
    let (mut site, _tasks) = connected("192.168.9.", 24).await;
    let bystander = Space::new();
    let dead = {
        let space = Space::new();
        space.origin()
    };
    let pid = bystander.pid();
    let other_start = Origin::Process { pid, start: start_of(pid).unwrap() + 1, supervised: false };
    let own = Origin::Netns { path: format!("/proc/{}/ns/net", site.nodes[0].pid()).into() };
    let of_another_kind = Origin::Netns { path: format!("/proc/{pid}/ns/mnt").into() };
    let ordinary = Origin::Netns { path: "/etc/hostname".into() };
    let pipe = tempfile::tempdir().unwrap();
    site.nodes[0].sh(&format!("mkfifo {}/pipe", pipe.path().display()));
    let waiting = Origin::Netns { path: pipe.path().join("pipe") };
    let missing = Origin::Netns { path: "/run/netns/there-is-no-such".into() };
    let cases = [
        ("dead", dead, "has ended"),
        ("reused", other_start, "belongs to another process now"),
        ("own", own, "the node's own network namespace"),
        ("kind", of_another_kind, "is not a network namespace"),
        ("file", ordinary, "is not a network namespace"),
        ("pipe", waiting, "is not a network namespace"),
        ("missing", missing, "cannot open the network namespace /run/netns/there-is-no-such"),
    ];
    for (place, (id, origin, _)) in (10..).zip(&cases) {
        site.task(id, 0, place, &[APP], origin.clone());
    }
    // By path, and with a device name that is taken inside.
    let by_path = Space::new();
    site.task(
        "path",
        0,
        20,
        &[APP],
        Origin::Netns { path: format!("/proc/{}/ns/net", by_path.pid()).into() },
    );
    let taken = Space::new();
    taken.sh("ip link add eth0 type veth peer name eth9");
    site.task("taken", 0, 21, &[APP], taken.origin());
    for depth in [Depth::Delta, Depth::Sweep, Depth::Delta] {
        let applied = site.round(0, depth).await;
        for (id, _, why) in &cases {
            let error = &applied.errors[&format!("endpoint {}", device(id, APP))];
            assert!(error.contains(why) && error.contains(id), "{id}: {error}");
        }
        let error = &applied.errors[&format!("endpoint {}", device("taken", APP))];
        assert!(error.contains("already has a device eth0"), "{error}");
        assert!(by_path.pings("10.0.17.2"), "{depth:?}");
    }
    // Their addresses are refused, as are those of nobody.
    by_path.is_refused("10.0.16.10");
}

#[tokio::test]
async fn a_foreign_device_of_our_name_stays() {
    let mut site = Site::new("192.168.9.", 24);
    site.nodes[0].sh("ip link add mesh0 type bridge");
    let applied = site.round(0, Depth::Delta).await;
    assert!(applied.errors["device mesh0"].contains("not the mesh's"), "{applied:?}");
    // What needs no tunnel is there all the same.
    assert!(!applied.errors.contains_key("route 10.0.0.0/16"));
    site.nodes[0].is_refused("10.0.3.3");
    assert!(site.planes[0].remove_all().await.errors.is_empty());
    site.nodes[0].sh("ip link show mesh0 type bridge");
    // The port is taken by somebody else.
    site.nodes[1].sh("ip link add other type vxlan external dstport 4789 && ip link set other up");
    let applied = site.round(1, Depth::Delta).await;
    assert!(applied.errors["device mesh0"].contains("UDP port 4789"), "{applied:?}");
}

#[tokio::test]
async fn a_network_leaves_without_a_trace() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    let dark = NetworkId::new(DARK);
    site.world.networks.remove(&dark);
    site.world.blocks.retain(|(network, _), _| *network != dark);
    site.change_tasks(|task| _ = task.addresses.remove(&dark));
    assert!(site.settle(Depth::Delta).await > 0);
    for node in &site.nodes {
        assert_eq!(node.sh("ip route show table all | grep -c '10\\.1\\.' || true").trim(), "0");
    }
    assert!(tasks[0].pings("10.0.17.2"));
    site.is_settled().await;
    // A peer too.
    site.world.nodes.remove(&site::node_id(1));
    let applied = site.round(0, Depth::Delta).await;
    assert_eq!(applied.errors, BTreeMap::new());
    assert_eq!(site.nodes[0].sh("ip neighbour show dev mesh0 nud permanent"), "");
    assert!(!site.want(0).routes.values().any(|route| matches!(route, Route::Tunnel { .. })));
    tasks[0].is_refused("10.0.17.2");
}

#[tokio::test]
async fn a_namespace_changes_hands_in_one_round() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    // Its networks change places, and with them the names of the devices inside.
    let service = Arc::make_mut(site.world.services.values_mut().next().unwrap());
    let mut first = service.networks[0].clone();
    (first.network, first.vip) = (NetworkId::new(DARK), None);
    service.networks.insert(0, first);
    assert!(site.settle(Depth::Delta).await > 0);
    assert!(tasks[0].sh("ip -o address show eth0").contains("10.1.16.2/32"));
    assert!(tasks[0].sh("ip -o address show eth1").contains("10.0.16.2/32"));
    assert!(tasks[0].pings("10.0.17.2") && tasks[0].pings("10.1.17.2"));
    site.is_settled().await;
    // Another task lives there now.
    site.world.tasks.remove(&TaskId::new("t1"));
    site.task("t9", 0, 9, &[APP], tasks[0].origin());
    assert!(site.settle(Depth::Delta).await > 0);
    assert!(tasks[0].pings("10.0.17.2") && tasks[1].pings("10.0.16.9"));
    site.is_settled().await;
}

#[tokio::test]
async fn rounds_lose_no_packet_and_leave_no_socket() {
    let (mut site, tasks) = connected("192.168.9.", 24).await;
    let sockets = |site: &Site| site.nodes[0].sh("wc -l < /proc/thread-self/net/netlink").trim().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = sockets(&site);
    let targets = ["10.0.17.2", "fd00:1::1100:0:2", "10.0.0.1"];
    assert!(targets.iter().all(|target| tasks[0].pings(target)));
    let pings = targets.map(|target| tasks[0].start(&format!("ping -q -i 0.002 -c 1000 {target}")));
    for round in 0..15 {
        site.settle(Depth::Sweep).await;
        // The MTU of a network, and a block more of it elsewhere.
        let network = Arc::make_mut(site.world.networks.get_mut(&NetworkId::new(APP)).unwrap());
        network.mtu = Some(1400 + round);
        let owner = site.world.blocks.keys().next().unwrap().0.clone();
        let extra = (owner, Block(15 + 16 * (1 + u32::from(round % 2))));
        site.world.blocks.retain(|(_, block), _| block.0 < 30);
        site.world.blocks.insert(extra, site::node_id(1));
        assert!(site.settle(Depth::Delta).await > 0);
    }
    for ping in pings {
        let output = ping.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(sockets(&site), before);
}

#[tokio::test]
async fn uplinks_that_listen_for_routers_go_on_listening() {
    let mut site = Site::new("192.168.9.", 24);
    site.nodes[0].sh("echo 1 > /proc/sys/net/ipv6/conf/uplink/accept_ra");
    site.nodes[1].sh("echo 0 > /proc/sys/net/ipv6/conf/uplink/accept_ra");
    site.settle(Depth::Sweep).await;
    let accepts = |node: usize| site.nodes[node].sh("cat /proc/sys/net/ipv6/conf/uplink/accept_ra");
    assert_eq!(accepts(0).trim(), "2");
    assert_eq!(accepts(1).trim(), "0");
    assert_eq!(site.nodes[0].sh("cat /proc/sys/net/ipv6/conf/mesh0/accept_ra").trim(), "0");
}

#[tokio::test]
async fn a_node_knows_its_links() {
    let (site, _tasks) = connected("192.168.9.", 24).await;
    let node = &site.nodes[0];
    node.sh("ip link set uplink mtu 1400 && ip route add 172.20.0.0/16 via 192.168.9.254");
    node.sh("ip route add default via 192.168.9.254 && ip -6 route add fd77::/48 dev uplink");
    let (mtu, absent, routes) = node
        .netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let address = "192.168.9.1".parse().unwrap();
                let absent = links::uplink_mtu("192.168.9.9".parse().unwrap()).await.unwrap_err();
                (links::uplink_mtu(address).await.unwrap(), absent.to_string(), links::foreign_routes().await)
            })
        })
        .unwrap();
    assert_eq!(mtu, 1400);
    assert!(absent.contains("192.168.9.9") && absent.contains("192.168.9.1"), "{absent}");
    let routes: Vec<_> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["172.20.0.0/16", "192.168.9.0/24", "fd77::/48"]);
}
