//! Names inside tasks: A1 to A10 of what people expect.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Process, eventually};
use serde_json::json;

use crate::kit::{Cli, SOON, Task, dig, mentions, mesh, vip};

/// A task finds its name server in /etc/resolv.conf without being configured; the node's own file is left alone.
#[test]
fn a_task_has_a_name_server() -> Result<()> {
    let before = fs::read("/etc/resolv.conf")?;
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let web = Task::web(lab, n1, "web")?;
        let conf = web.command(["cat", "/etc/resolv.conf"]).ok()?;
        let servers: Vec<_> = conf.lines().filter(|line| line.starts_with("nameserver")).collect();
        ensure!(servers == ["nameserver 127.0.0.11"], "{conf}");
        ensure!(fs::read("/etc/resolv.conf")? == before, "the node's file changed");

        // The C library's way, which most programs take.
        let found = web.command(["getent", "ahostsv4", "web"]).ok()?;
        ensure!(found.starts_with(&vip(n1, "web")?.to_string()), "{found}");
        Ok(())
    })
}

/// It answers by UDP and TCP, at once, as a server that knows and that would ask others.
#[test]
fn the_name_server_speaks_udp_and_tcp() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let address = vip(n1, "web")?;
        for node in [n1, n2] {
            let idle = Task::idle(node, "app")?;
            for question in ["web", "WEB", "web.", "+tcp web", "@127.0.0.11 web", "+noedns web"] {
                let answer = dig(&idle, question)?;
                ensure!(answer.ip()? == address, "{}", answer.text);
                ensure!(answer.status == "NOERROR", "{}", answer.text);
                for flag in ["qr", "rd", "ra"] {
                    ensure!(answer.flags.iter().any(|has| has == flag), "{}", answer.text);
                }
                ensure!(answer.text.contains("SERVER: 127.0.0.11#53"), "{}", answer.text);
            }
            // A name without an address of that kind exists all the same.
            let answer = dig(&idle, "web AAAA")?;
            ensure!(answer.status == "NOERROR" && answer.data.is_empty(), "{}", answer.text);
        }
        Ok(())
    })
}

/// `tasks.web` is every task, `web.1` one, from every node; answers are shuffled.
#[test]
fn tasks_have_names() -> Result<()> {
    mesh(3, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let mut tasks = Vec::new();
        for node in lab.nodes() {
            tasks.push(Task::web(lab, node, "web")?);
        }
        let names: BTreeSet<_> = tasks.iter().map(|task| task.name.as_str()).collect();
        ensure!(names == ["web.1", "web.2", "web.3"].into(), "{names:?}");
        let addresses: BTreeSet<_> = tasks.iter().map(Task::address).collect::<Result<_>>()?;
        ensure!(addresses.len() == 3, "{addresses:?}");
        for asker in &tasks {
            eventually(SOON, "the name of all tasks is complete", || {
                let answer = dig(asker, "tasks.web")?;
                ensure!(answer.set()? == addresses, "{addresses:?}, but:\n{}", answer.text);
                Ok(())
            })?;
            for task in &tasks {
                ensure!(dig(asker, &task.name)?.ip()? == task.address()?, "{}", task.name);
            }
        }
        let mut orders = BTreeSet::new();
        eventually(SOON, "two orders of the same answer are seen", || {
            orders.insert(dig(&tasks[0], "tasks.web")?.ips()?);
            ensure!(orders.len() > 1);
            Ok(())
        })?;

        // One that is gone is in no answer.
        tasks[2].rm()?;
        eventually(SOON, "the task's names are gone", || {
            for asker in &tasks[..2] {
                ensure!(dig(asker, "tasks.web")?.set()?.len() == 2);
                let answer = dig(asker, &tasks[2].name)?;
                ensure!(answer.data.is_empty(), "{}", answer.text);
            }
            Ok(())
        })
    })
}

/// Answers about addresses: the names of a VIP and of a task.
#[test]
fn addresses_have_names() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let web = Task::web(lab, n1, "web")?;
        let idle = Task::idle(n2, "app")?;
        for (address, name) in [(vip(n1, "web")?, "web"), (web.address()?, "web.1")] {
            let answer = eventually(SOON, "the address has a name", || {
                let answer = dig(&idle, &format!("-x {address}"))?;
                ensure!(!answer.data.is_empty(), "{}", answer.text);
                Ok(answer)
            })?;
            // Docker's form: the network is its domain.
            let names = [format!("{name}."), format!("{name}.app.")];
            ensure!(answer.data.len() == 1, "{}", answer.text);
            ensure!(names.contains(&answer.data[0]), "{name}, but:\n{}", answer.text);
        }
        Ok(())
    })
}

/// The internet's name server, and it knows every name: what should never be asked there shows.
fn internet_that_knows_all(lab: &Lab) -> Result<Process> {
    let mut argv = lab.programs().internet_dns();
    argv.push("--address=/#/203.0.113.66".into());
    lab.outside().spawn_daemon("dns", argv)
}

/// Other names are the internet's to answer, by UDP and TCP, also those that it does not know.
#[test]
fn other_names_are_asked_outside() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let _dns = lab.outside().spawn_daemon("dns", lab.programs().internet_dns())?;
        for node in [n1, n2] {
            let idle = Task::idle(node, "app")?;
            let answer = eventually(SOON, "the world's names are known", || {
                let answer = dig(&idle, "www.example.test")?;
                ensure!(answer.ip()? == lab.outside().address());
                Ok(answer)
            })?;
            ensure!(answer.text.contains("SERVER: 127.0.0.11#53"), "{}", answer.text);
            let answer = dig(&idle, "+tcp www.example.test")?;
            ensure!(answer.ip()? == lab.outside().address());
            let answer = dig(&idle, "www.example.org")?;
            ensure!(answer.data.is_empty() && answer.status != "NOERROR", "{}", answer.text);
        }
        Ok(())
    })
}

/// A service's name is the mesh's, also while it has no task: nobody outside is asked for it.
#[test]
fn a_service_without_a_task_keeps_its_name() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        n1.ok("service create --name rr --network app --endpoint-mode dnsrr")?;
        let _dns = internet_that_knows_all(lab)?;
        let idle = Task::idle(n2, "app")?;
        eventually(SOON, "the world is asked for what is its own", || {
            let answer = dig(&idle, "nobody.example.org")?;
            ensure!(answer.ip()?.to_string() == "203.0.113.66", "{}", answer.text);
            Ok(())
        })?;
        let known = || {
            ensure!(dig(&idle, "web")?.ip()? == vip(n1, "web")?);
            for name in ["rr", "tasks.web", "tasks.rr", "web.1", "rr.1"] {
                let answer = dig(&idle, name)?;
                ensure!(answer.data.is_empty(), "{name}:\n{}", answer.text);
            }
            Ok(())
        };
        known()?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n1, "rr")?];
        eventually(SOON, "the name has an address", || dig(&idle, "rr")?.ip())?;
        for task in tasks {
            task.rm()?;
        }
        eventually(SOON, "the names are known and empty", known)
    })
}

/// A name is known on the networks of its service only: for others it does not exist.
#[test]
fn a_name_is_known_on_its_networks_only() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("network create other")?;
        n1.ok("service create --name web --network app")?;
        let web = Task::web(lab, n1, "web")?;
        for node in [n1, n2] {
            let (friend, stranger) = (Task::idle(node, "app")?, Task::idle(node, "other")?);
            eventually(SOON, "the names are known inside", || dig(&friend, "web.1")?.ip())?;
            let reverse = format!("-x {}", web.address()?);
            for question in ["web", "tasks.web", "web.1", &reverse] {
                let answer = dig(&stranger, question)?;
                ensure!(answer.status == "NXDOMAIN" && answer.data.is_empty(), "{}", answer.text);
            }
        }
        Ok(())
    })
}

/// Where the tasks of a service listen, by the name of the port; how much each can take, and which one it is.
#[test]
fn ports_are_found_by_name() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app --port-name http=80")?;
        for (node, weight) in [(n1, 1), (n2, 3)] {
            let server = lab.programs().web(80);
            Task::run(node, &format!("--service web --weight {weight}"), &server)?.listens("tcp6", 80)?;
        }
        let idle = Task::idle(n2, "app")?;
        let answer = eventually(SOON, "both tasks are told", || {
            let answer = dig(&idle, "_http._tcp.web SRV")?;
            ensure!(answer.data.len() == 2, "{}", answer.text);
            Ok(answer)
        })?;
        let mut told: Vec<Vec<_>> = answer.data.iter().map(|data| data.split(' ').collect()).collect();
        told.sort();
        for (words, weight, name) in [(&told[0], "256", "web.1."), (&told[1], "768", "web.2.")] {
            ensure!(words[..3] == ["0", weight, "80"] && words[3].starts_with(name), "{}", answer.text);
            dig(&idle, words[3])?.ip()?;
        }
        n1.ok("service update --port-name-rm http --port-name-add www=80 web")?;
        eventually(SOON, "the other name is known", || {
            ensure!(dig(&idle, "_www._tcp.web SRV")?.data.len() == 2);
            ensure!(dig(&idle, "_http._tcp.web SRV")?.status == "NXDOMAIN");
            Ok(())
        })?;
        let shown = n1.ok("service inspect web")?;
        ensure!(shown.contains("PortNames") && shown.contains("www"), "{shown}");
        Ok(())
    })
}

/// A task's name server, domain and options are its own, and the mesh's names stay.
#[test]
fn a_task_chooses_its_name_servers() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let options =
            "--name chooses --network app --dns 127.0.0.1 --dns-search example.test --dns-option timeout:1";
        let script = "dnsmasq -k --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
                      --bind-interfaces --listen-address=127.0.0.1 --host-record=www.example.test,192.0.2.77";
        let task = Task::run(n1, options, &["sh", "-c", script])?;
        let conf = task.command(["cat", "/etc/resolv.conf"]).ok()?;
        let wanted = "nameserver 127.0.0.11\nsearch example.test\noptions ndots:0 timeout:1\n";
        ensure!(conf == wanted, "{conf}");
        eventually(SOON, "its own name server is asked", || {
            let answer = dig(&task, "www.example.test")?;
            ensure!(answer.ip()?.to_string() == "192.0.2.77", "{}", answer.text);
            Ok(())
        })?;
        let found = task.command(["getent", "ahostsv4", "www"]).ok()?;
        ensure!(found.starts_with("192.0.2.77"), "{found}");
        ensure!(dig(&task, "web")?.ip()? == vip(n1, "web")?);
        Ok(())
    })
}

/// The same of tasks that the mesh runs: each change starts them anew.
#[test]
fn a_service_chooses_its_name_servers() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let server = "dnsmasq -k --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
                      --bind-interfaces --listen-address=127.0.0.1 --host-record=www.example.test,192.0.2.77";
        let dns = "--dns 127.0.0.1 --dns-search example.test --dns-opt timeout:1";
        let create = format!("service create --name names --network app {dns} --cmd");
        n1.mesh(create.split_whitespace().chain([server]))?.ok()?;
        let conf = |name: &str| Task::find(n1, name)?.command(["cat", "/etc/resolv.conf"]).ok();
        let wanted = "nameserver 127.0.0.11\nsearch example.test\noptions ndots:0 timeout:1\n";
        ensure!(conf("names.1")? == wanted, "{}", conf("names.1")?);
        let task = Task::find(n1, "names.1")?;
        eventually(SOON, "its own name server is asked", || {
            let answer = dig(&task, "www.example.test")?;
            ensure!(answer.ip()?.to_string() == "192.0.2.77", "{}", answer.text);
            Ok(())
        })?;
        let config = || -> Result<_> {
            let spec = n1.inspect("service", "names")?["Spec"]["Program"].clone();
            Ok((spec["Command"][0].clone(), spec["DNSConfig"].clone()))
        };
        let known =
            json!({"Nameservers": ["127.0.0.1"], "Search": ["example.test"], "Options": ["timeout:1"]});
        ensure!(config()? == (json!("dnsmasq"), known), "{:?}", config()?);
        mentions(
            &n1.ok("service inspect --pretty names")?,
            &["DNS:\t127.0.0.1\nDNS Search:\texample.test\n"],
        )?;

        let update = "--dns-search-rm example.test --dns-search-add other.test --dns-option-rm timeout:1";
        n1.ok(&format!("service update --dns-rm 127.0.0.1 {update} names"))?;
        let wanted = "nameserver 127.0.0.11\nsearch other.test\noptions ndots:0\n";
        ensure!(conf("names.1")? == wanted, "{}", conf("names.1")?);
        ensure!(config()?.1 == json!({"Search": ["other.test"]}), "{:?}", config()?);
        n1.ok("service update --rollback names")?;
        ensure!(conf("names.1")?.contains("search example.test\n"), "{}", conf("names.1")?);

        let refused = n1.mesh(["service", "update", "--dns-search-add", "a b", "names"])?;
        mentions(&refused.stderr, &["'a b' is not one word of resolv.conf(5)"])?;
        mentions(&n1.refused("service update --dns-add nowhere names")?, &["nowhere"])?;
        n1.ok("service create --name web --network app")?;
        mentions(&n1.refused("service update --dns-add 192.0.2.53 web")?, &["--cmd"])
    })
}

/// Members of a cluster find each other before they are ready.
#[test]
fn those_that_are_not_ready_can_be_found() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name db --network app --health-tcp 80 --health-interval 1s")?;
        let db = Task::run(n1, "--service db", &["sleep", "1000"])?;
        let idle = Task::idle(n1, "app")?;
        ensure!(dig(&idle, "tasks.db")?.data.is_empty());
        n1.ok("service update --publish-not-ready db")?;
        eventually(SOON, "it is told", || {
            ensure!(dig(&idle, "tasks.db")?.ip()? == db.address()?);
            Ok(())
        })?;
        n1.ok("service update --publish-not-ready=false db")?;
        eventually(SOON, "it is told no more", || {
            ensure!(dig(&idle, "tasks.db")?.data.is_empty());
            Ok(())
        })
    })
}
