//! What people get wrong: one clear message, an exit code, and nothing half done.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use mesh_tests::{Node, eventually, lab_test};

use crate::kit::{Cli, READY, SOON, Task, lab, listens, mentions, mesh, one_message, text, vip};

/// Everything that commands can change.
fn records(node: &Node) -> Result<String> {
    let mut all = String::new();
    for listing in ["network ls", "service ls", "task ls"] {
        for mut row in node.rows(listing)? {
            // It tells for how long.
            row["CurrentState"].take();
            all += &format!("{row}\n");
        }
    }
    for name in node.names("service")? {
        all += &node.inspect("service", &name)?["Endpoint"].to_string();
    }
    Ok(all)
}

/// Refused with a message that has these parts, and nothing changed.
fn refuse(node: &Node, command: &str, parts: &[&str]) -> Result<()> {
    let before = records(node)?;
    mentions(&node.refused(command)?, parts)?;
    let after = records(node)?;
    ensure!(before == after, "`{command}` changed\n{before}\nto\n{after}");
    Ok(())
}

/// Subnets overlap neither each other, nor a route of any node; one that the mesh chooses itself does not either.
#[test]
fn subnets_that_overlap() -> Result<()> {
    lab_test(lab()?.nodes(2), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        // The second is where the choice would fall first.
        n2.ip("route add 10.50.0.0/16 via 192.168.77.1\nroute add 10.0.0.0/16 via 192.168.77.1\n")?;
        lab.start_agents(READY)?;
        n1.ok("network create app --subnet 10.20.0.0/16")?;
        let known = || {
            ensure!(n1.rows("node ls")?.len() == 2);
            Ok(())
        };
        eventually(READY, "the nodes know each other", known)?;
        refuse(n1, "network create app2 --subnet 10.20.5.0/24", &["10.20.5.0/24", "app"])?;
        refuse(n1, "network create app2 --subnet 10.0.0.0/8", &["10.0.0.0/8"])?;
        refuse(n1, "network create app2 --subnet 10.50.3.0/24", &["10.50.3.0/24", "n2"])?;
        refuse(n1, "network create app2 --subnet 192.168.77.0/24", &["192.168.77.0/24"])?;
        refuse(n1, "network create app2 --subnet 10.30.0.0/16 --subnet 10.30.1.0/24", &["at most one IPv4"])?;
        for nonsense in ["10.30.0.0", "10.30.0.0/33", "10.300.0.0/16", "127.0.0.0/8", "224.0.0.0/16"] {
            refuse(n1, &format!("network create app2 --subnet {nonsense}"), &[nonsense])?;
        }
        n1.ok("network create own")?;
        let own = n1.inspect("network", "own")?.to_string();
        for taken in ["\"10.0.0.0/", "\"10.20.", "\"10.50."] {
            ensure!(!own.contains(taken), "{own}");
        }
        Ok(())
    })
}

/// A published port that another service has, that is protected, or that is given twice.
#[test]
fn ports_that_are_taken() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        n1.ok("service create --name api --network app")?;
        let taken = ["port '8080' is already in use by service 'web'", "as an ingress port"];
        refuse(n1, "service create --name other --network app -p 8080:81", &taken)?;
        refuse(n1, "service create --name other --network app -p 9090:80 -p 8080:81", &taken)?;
        refuse(n2, "service update --publish-add 8080:80 api", &taken)?;
        refuse(
            n1,
            "service create --name other --network app --publish published=8080,target=80,mode=host",
            &["8080", "web"],
        )?;
        refuse(n1, "service create --name other --network app -p 22:22", &["22"])?;
        refuse(n1, "service update --publish-add 22:80 api", &["22"])?;
        // Two targets of one port.
        refuse(n1, "service create --name other --network app -p 9090:80 -p 9090:81", &["9090"])?;
        // The agents' own.
        refuse(n1, "service create --name other --network app -p 4789:80/udp", &["4789"])?;
        refuse(n1, "service create --name other --network app -p 7300:80", &["7300", "n1"])?;
        n1.ok("service update --publish-add 8080:53/udp api").map(drop)
    })
}

/// A port that another process of some node listens on is refused with the node's name, within some seconds; once
/// that process is gone it can be had.
#[test]
fn a_port_that_a_process_has() -> Result<()> {
    mesh(3, |lab| {
        let [n1, n3] = [lab.node("n1")?, lab.node("n3")?];
        n1.ok("network create app")?;
        let server =
            n3.spawn_daemon("server", ["python3", "-m", "http.server", "8080", "--bind", "0.0.0.0"])?;
        listens(server.id(), "tcp", 8080)?;
        let create = "service create --name web --network app -p 8080:80";
        let message = eventually(Duration::from_secs(8), "the port is seen to be taken", || {
            let output = n1.mesh(create.split_whitespace())?;
            if output.status.success() {
                n1.ok("service rm web")?;
            }
            one_message(output)
        })?;
        mentions(&message, &["8080", "n3"])?;
        refuse(n1, create, &["8080", "n3"])?;
        // Elsewhere it is free.
        n1.ok("service create --name near --network app --publish published=8080,target=80,nodes=n1")?;
        n1.ok("service rm near")?;
        drop(server);
        eventually(Duration::from_secs(8), "the port is seen to be free", || n1.ok(create)).map(drop)
    })
}

/// Names of things that are not there, and names that cannot be given.
#[test]
fn names_that_are_unknown_taken_or_no_names() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let _web = Task::web(lab, n1, "web")?;
        for command in [
            "service create --name api --network nope",
            "service create --name api --network app --network nope",
            "network inspect nope",
            "network rm nope",
            "service inspect nope",
            "service ps nope",
            "service rm nope",
            "service update --publish-add 80:80 nope",
            "service update --network-add nope web",
            "service update --network-rm nope web",
            "task inspect nope",
            "task rm nope",
            "task run --service nope -- true",
            "task run --name job --network nope -- true",
            "node inspect nope",
            "node update --availability drain nope",
            "node rm nope",
            "service create --name api --network app --publish published=80,target=80,nodes=nope",
        ] {
            refuse(n1, command, &["nope"])?;
        }
        refuse(n1, "network create app", &["app", "exists"])?;
        refuse(n1, "service create --name web --network app", &["web", "exists"])?;
        let long = "a".repeat(64);
        for name in ["WEB", "wéb", "веб", "a.b", "-a", "a-", "a/b", "1:2", &*long] {
            refuse(n1, &format!("network create -- {name}"), &[name])?;
            refuse(n1, &format!("service create --name={name} --network app"), &[name])?;
        }
        let before = records(n1)?;
        one_message(n1.mesh(["network", "create", ""])?)?;
        one_message(n1.mesh(["service", "create", "--name", "", "--network", "app"])?)?;
        ensure!(records(n1)? == before);
        Ok(())
    })
}

/// Ports that cannot be understood are shown as they were given.
#[test]
fn ports_that_are_no_ports() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        for (port, part) in [
            ("abc", "abc"),
            ("8080:", "8080:"),
            (":", ":"),
            ("0:80", "0"),
            ("80:0", "0"),
            ("70000:80", "70000"),
            ("-1:80", "-1"),
            ("8080:80/xyz", "xyz"),
            ("8080:80:90", "8080:80:90"),
            ("published=8080", "target"),
            ("published=8080,target=eighty", "eighty"),
            ("published=8080,target=80,colour=blue", "colour"),
            ("published=8080,target=80,protocol=xyz", "xyz"),
            ("published=8080,target=80,allow=nonsense", "nonsense"),
            ("published=8080,target=80,allow=10.0.0.0/40", "10.0.0.0/40"),
            ("published=8080,target=80,host_ip=nonsense", "nonsense"),
        ] {
            refuse(n1, &format!("service create --name api --network app --publish={port}"), &[part])?;
            refuse(n1, &format!("service update --publish-add={port} web"), &[part])?;
        }
        refuse(
            n1,
            "service create --name api --network app --publish published=8080,target=80,mode=foo",
            &["foo", "ingress", "host"],
        )?;
        refuse(n1, "service create --name api --network app --endpoint-mode foo", &["foo", "vip", "dnsrr"])?;
        refuse(n1, "node update --availability foo n1", &["foo", "active", "pause", "drain"])?;
        refuse(n1, "service update --publish-rm 99:99 web", &["99"])
    })
}

/// A network that a service or a task is on stays.
#[test]
fn a_network_in_use() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("network create jobs")?;
        n1.ok("service create --name web --network app")?;
        let job = Task::run(n2, "--name job --network jobs", &["sleep", "1000"])?;
        refuse(n1, "network rm app", &["app", "web"])?;
        eventually(SOON, "the task is seen", || n1.inspect("task", "job"))?;
        refuse(n1, "network rm jobs", &["jobs", "job"])?;
        n1.ok("service rm web")?;
        n1.ok("network rm app")?;
        job.rm()?;
        eventually(SOON, "the network is free", || n1.ok("network rm jobs"))?;
        ensure!(n1.names("network")?.is_empty());
        Ok(())
    })
}

/// Flags and verbs that do not exist are errors of usage (2) and named; help is none.
#[test]
fn words_that_are_no_commands() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        for (command, part) in [
            ("service ls --nonsense", "--nonsense"),
            ("frobnicate", "frobnicate"),
            ("service frobnicate", "frobnicate"),
            ("service create --network app", "--name"),
            ("network create", "<NETWORK>"),
            ("agent --nonsense", "--nonsense"),
        ] {
            let output = n1.mesh(command.split_whitespace())?;
            ensure!(output.code() == Some(2), "{output:?}");
            mentions(&one_message(output)?, &[part])?;
        }
        for help in ["--help", "service --help", "service create --help", "task run --help", "--version"] {
            let output = n1.mesh(help.split_whitespace())?;
            ensure!(output.stderr.is_empty() && !output.ok()?.is_empty());
        }
        Ok(())
    })
}

/// Without an agent the command says where it looked.
#[test]
fn no_agent_to_talk_to() -> Result<()> {
    lab_test(lab()?.node("n1"), |lab| {
        let n1 = lab.node("n1")?;
        let socket = n1.socket().to_string_lossy().into_owned();
        for command in
            ["service ls", "status", "network create app", "task run --name job --network app -- true"]
        {
            mentions(&n1.refused(command)?, &[&socket])?;
        }
        let other = n1.mesh_command(["service", "ls"]).env("MESH_HOST", "unix:///run/no/such.sock").run()?;
        mentions(&one_message(other)?, &["/run/no/such.sock"])?;
        let other = n1.mesh_command(["service", "ls"]).env("MESH_HOST", "nonsense").run()?;
        mentions(&one_message(other)?, &["nonsense"])?;
        // The socket of an agent that was killed.
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        n1.kill_agent()?;
        mentions(&n1.refused("service ls")?, &[&socket])
    })
}

/// What the configuration gets wrong is named with file and line, and the agent does not start.
#[test]
fn a_configuration_that_is_wrong() -> Result<()> {
    lab_test(lab()?.node("n1"), |lab| {
        let n1 = lab.node("n1")?;
        let good = fs::read_to_string(n1.config_file())?;
        let config = n1.config_file().to_string_lossy().into_owned();
        for (wrong, line, part) in [
            ("[node]\ncolour = \"blue\"", 2, "colour"),
            ("[nod]\nname = \"x\"", 1, "nod"),
            ("\n[dns]\nupstreams = 7", 3, "upstreams"),
            ("\n\n[store]\nmode = \"magic\"", 4, "magic"),
            ("[dns\n", 1, "expected"),
        ] {
            fs::write(n1.config_file(), format!("{wrong}\n"))?;
            let message = n1.mesh(["agent", "--config", &config])?.failed()?;
            mentions(&message, &[part, &format!("{config}:{line}")])?;
        }
        for (wrong, key, value) in [
            ("[dns]\nupstreams = [\"nonsense\"]", "dns.upstreams", "nonsense"),
            ("[node]\naddress = \"nonsense\"", "node.address", "nonsense"),
            ("[node]\nname = \"UPPER\"", "node.name", "UPPER"),
            ("[store]\nlisten = \"nonsense\"", "store.listen", "nonsense"),
        ] {
            fs::write(n1.config_file(), &good)?;
            n1.configure(wrong)?;
            mentions(&n1.mesh(["agent", "--config", &config])?.failed()?, &[key, value])?;
        }
        fs::remove_file(n1.config_file())?;
        let message = n1.mesh(["agent", "--config", &config])?.failed()?;
        mentions(&message, &[&config])?;
        fs::write(n1.config_file(), good)?;
        let message = n1.mesh(["agent", "--config", &config, "--set", "node.colour=blue"])?.failed()?;
        mentions(&message, &["node.colour"])?;
        n1.start_agent()?;
        n1.wait_ready(READY)
    })
}

/// When a network has no address for a VIP left, the service is not made and the reason is told; one that is given
/// back is used again.
#[test]
fn a_network_without_a_free_vip() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create tiny --subnet 10.9.0.0/26")?;
        let mut made = 0;
        let message = loop {
            let name = format!("s{made}");
            let output = n1.mesh(["service", "create", "--name", &name, "--network", "tiny"])?;
            if !output.status.success() {
                break one_message(output)?;
            }
            made += 1;
            ensure!(made < 64, "more services than addresses");
        };
        ensure!(made > 0);
        mentions(&message, &["could not find an available IP while allocating VIP", "tiny"])?;
        refuse(n1, "service create --name more --network tiny", &["tiny"])?;
        ensure!(n1.names("service")?.len() == made);
        // Without a VIP there is room.
        n1.ok("service create --name rr --network tiny --endpoint-mode dnsrr")?;
        let freed = vip(n1, "s0")?;
        n1.ok("service rm s0")?;
        eventually(SOON, "the address is free again", || {
            n1.ok("service create --name again --network tiny")
        })?;
        ensure!(vip(n1, "again")? == freed);
        ensure!(text(&n1.inspect("service", "again")?["Spec"]["Name"]) == "again");
        Ok(())
    })
}
