//! Who may use a published port.

use anyhow::Result;

use crate::kit::{
    Cli, DUAL, Datagrams, SOON, Task, addresses, mesh, refuses, refuses_udp, served_by, url_at,
};
use mesh_tests::eventually;

/// `allow` holds at the node that is asked, by the client's own address, of both families and for both protocols,
/// wherever the task is; who is not let in is refused at once.
#[test]
fn allow_holds_where_the_client_enters() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok(DUAL)?;
        let client = format!("{}/32;{}/128", lab.client().address(), lab.client().address6());
        let internet = "198.51.100.0/24;2001:db8:51::/64";
        n1.ok(&format!(
            "service create --name web --network app \
             --publish published=8080,target=80,allow={client} \
             --publish published=8080,target=80,protocol=udp,allow={client} \
             --publish published=8081,target=80,allow={internet} \
             --publish published=8081,target=80,protocol=udp,allow={internet}"
        ))?;
        let web = Task::both(lab, n2, "web")?;
        for address in lab.nodes().iter().flat_map(|node| addresses(node)) {
            for (port, inside, out) in
                [(8080, lab.client(), lab.outside()), (8081, lab.outside(), lab.client())]
            {
                served_by(inside, &url_at(address, port), &[&web])?;
                eventually(SOON, "it answers by UDP", || {
                    Datagrams::open(inside, (address, port))?.ask("who are you?")
                })?;
                refuses(out, &url_at(address, port))?;
                refuses_udp(out, (address, port))?;
            }
        }
        // Another node is as any other machine.
        for address in addresses(n1) {
            refuses(n2, &url_at(address, 8080))?;
            refuses_udp(n2, (address, 8080))?;
        }
        Ok(())
    })
}

/// A port at one address of a node is closed at its others, for both protocols, with the task on another node, and its
/// node's own processes are no exception.
#[test]
fn host_ip_holds_where_the_client_enters() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ip("address add 192.168.77.111/24 dev eth0\naddress add fd77::111/64 dev eth0 nodad\n")?;
        n1.ok(DUAL)?;
        let two = "192.168.77.111;fd77::111";
        n1.ok(&format!(
            "service create --name web --network app \
             --publish published=8080,target=80,host_ip={two} \
             --publish published=8080,target=80,protocol=udp,host_ip={two}"
        ))?;
        let web = Task::both(lab, n2, "web")?;
        for open in ["192.168.77.111".parse()?, "fd77::111".parse()?] {
            for from in [lab.client(), lab.outside(), n1] {
                served_by(from, &url_at(open, 8080), &[&web])?;
                Datagrams::open(from, (open, 8080))?.ask("who are you?")?;
            }
        }
        for closed in [n1, n2].into_iter().flat_map(|node| addresses(node)) {
            for from in [lab.client(), lab.outside(), n1] {
                refuses(from, &url_at(closed, 8080))?;
                refuses_udp(from, (closed, 8080))?;
            }
        }
        Ok(())
    })
}
