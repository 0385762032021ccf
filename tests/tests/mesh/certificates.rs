//! Certificates that end, and are renewed before, while everything goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Lab, Load, Node, eventually};
use nix::sys::signal::{Signal, kill};

use crate::kit::{Cli, READY, SOON, Task, mentions, served_by, text, url};
use crate::managed::{clustered_with, etcd, is, leader, patiently};

/// How long they are good.
const LIFE: Duration = Duration::from_secs(15);

/// How long no change may come through while members start anew: a member that leads drops what is on its way to it, and is
/// left after 1.5 s; the rest is what a machine that runs other labs takes.
const PAUSE: Duration = Duration::from_secs(3);

/// The certificates that there are, by file: of every node, and of every manager's member of etcd.
fn certificates(lab: &Lab) -> Result<BTreeMap<PathBuf, String>> {
    let files = |node: &Node| ["pki/node.pem", "etcd/member.pem"].map(|name| node.state_dir().join(name));
    let there = lab.nodes().iter().flat_map(files).filter(|file| file.exists());
    there.map(|file| Ok((file.clone(), fs::read_to_string(&file).context("no certificate")?))).collect()
}

/// A change by a manager, and until all others know of it.
fn a_change_is_everywhere(lab: &Lab, number: usize) -> Result<()> {
    let by = &lab.nodes()[number % 3];
    by.ok(&format!("service update --detach --label-add turn={number} web"))?;
    eventually(SOON, "every node knows of a change", || {
        for node in lab.nodes() {
            let labels = node.inspect("service", "web")?["Spec"]["Labels"].clone();
            ensure!(text(&labels["turn"]) == number.to_string(), "{} has {labels}", node.name());
        }
        Ok(())
    })
}

/// Nodes, and members of etcd, get their next certificates before those that they have end. Nobody's requests are lost,
/// changes are made and known of everywhere all the time, and a member that comes back afterwards is let in.
#[test]
fn certificates_are_renewed_while_everything_goes_on() -> Result<()> {
    let life = LIFE.as_secs();
    let short = format!("[cluster]\ncertificate_life = {life}\nmember_certificate_life = {life}\n");
    clustered_with(4, 3, &short, |lab| {
        let [n1, n2, .., n4] = lab.nodes() else { bail!("too few nodes") };
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n4, "web")?];
        for node in [n1, n4] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let begun = Instant::now();
        let first = certificates(lab)?;
        ensure!(first.len() == 7, "{:?}", first.keys());
        let load = Load::start(
            lab.client().netns(),
            &[(n1.address(), 8080).into(), (n4.address(), 8080).into()],
            50,
        )?;
        let mut number = 0;
        let kept = || -> Result<Vec<PathBuf>> {
            let now = certificates(lab)?.into_iter();
            Ok(now.filter(|(file, text)| first.get(file) == Some(text)).map(|(file, _)| file).collect())
        };
        // Whatever was good at the beginning has ended.
        while begun.elapsed() < LIFE || !kept()?.is_empty() {
            number += 1;
            a_change_is_everywhere(lab, number)?;
            ensure!(begun.elapsed() < READY, "not renewed: {:?}", kept()?);
        }
        let leads = leader(lab, n1)?;
        kill(etcd(leads)?, Signal::SIGKILL)?;
        for node in &lab.nodes()[..3] {
            is(node, "managed")?;
        }
        eventually(READY, "all members are there again", || {
            let status = n1.mesh_json(["cluster", "status"])?;
            ensure!(status["Reachable"] == 3, "{status}");
            Ok(())
        })?;
        a_change_is_everywhere(lab, number + 1)?;
        load.stop()?.lossless()
    })
}

/// A node that reaches no manager cannot renew, and it is told of before and after its certificate has ended: by its status,
/// by the doctor, and for Prometheus.
#[test]
fn a_certificate_that_is_not_renewed_is_told_of() -> Result<()> {
    let short = "[cluster]\ncertificate_life = 25\n[metrics]\nlisten = \"127.0.0.1:7305\"\n";
    clustered_with(2, 1, short, |lab| {
        let [n1, n2] = lab.nodes() else { bail!("too few nodes") };
        let metric = |name: &str| -> Result<f64> {
            let page = n2.exec(["curl", "-sS", "http://127.0.0.1:7305/metrics"])?.ok()?;
            let line = page.lines().find_map(|line| line.strip_prefix(&format!("mesh_certificate_{name} ")));
            Ok(line.with_context(|| format!("no {name} in {page}"))?.parse()?)
        };
        let ends = || metric("expiration_timestamp_seconds");
        ensure!(ends()? - metric("issued_timestamp_seconds")? == 25.0);
        ensure!(!n2.mesh(["status"])?.stdout.contains("certificate"), "nothing is wrong yet");
        let table = format!(
            "add table inet cut; add chain inet cut in {{ type filter hook prerouting priority raw - 10; }}; \
             add rule inet cut in ip saddr {} tcp dport 7300 drop",
            n2.address()
        );
        n1.exec(["nft", &table])?.ok()?;
        let told = |words: &[&str]| {
            eventually(READY, "it is told of", || {
                let all = [&["certificate", "could not be renewed"], words].concat();
                mentions(&n2.mesh(["status"])?.stdout, &all)
            })
        };
        told(&["ends in"])?;
        let doctor = || -> Result<String> {
            let config = n2.config_file().display().to_string();
            Ok(n2.mesh(["doctor", "--config", &config])?.stdout)
        };
        mentions(&doctor()?, &["certificate", "could not be renewed", "TCP port 7300"])?;
        told(&["ended"])?;
        mentions(&doctor()?, &["certificate", "ended", "join again"])?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        ensure!(ends()? < now, "it ended at {} and it is {now}", ends()?);
        // Traffic and what it knows stay.
        ensure!(n2.rows("node ls")?.len() == 2);
        Ok(())
    })
}

/// The authorities that a node trusts.
fn trusted(node: &Node) -> Result<Vec<String>> {
    let file = node.state_dir().join("pki/ca.pem");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let all = text.split_inclusive("-----END CERTIFICATE-----").map(|one| one.trim().to_owned());
    Ok(all.filter(|one| !one.is_empty()).collect())
}

/// Another authority takes the place of the mesh's while everything goes on, though a manager's agent and the leader of
/// etcd are killed meanwhile; a node that is away is waited for, and is not locked out.
#[test]
fn the_authority_is_replaced_while_everything_goes_on() -> Result<()> {
    clustered_with(4, 3, "", |lab| {
        let [n1, n2, _, n4] = lab.nodes() else { bail!("not four nodes") };
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n4, "web")?];
        for node in [n1, n4] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let former = trusted(n1)?;
        ensure!(former.len() == 1, "{former:?}");
        let load = Load::start(
            lab.client().netns(),
            &[(n1.address(), 8080).into(), (n4.address(), 8080).into()],
            50,
        )?;
        n4.stop_agent()?;
        n1.ok("cluster ca --rotate --detach")?;
        n2.kill_agent()?;
        kill(etcd(leader(lab, n1)?)?, Signal::SIGKILL)?;
        n2.start_agent()?;
        is(n2, "managed")?;
        eventually(READY, "all who are there have followed", || {
            for node in &lab.nodes()[..3] {
                let now = trusted(node)?;
                ensure!(now.len() == 2 && now[1] == former[0], "{} trusts {}", node.name(), now.len());
            }
            Ok(())
        })?;
        n4.start_agent()?;
        // It goes on with what was begun.
        let said = n2.mesh_command(["cluster", "ca", "--rotate"]).timeout(READY).run()?;
        ensure!(said.stderr.contains("4 out of 4 nodes"), "{}", said.stderr);
        let shown = said.ok()?;
        eventually(SOON, "nobody trusts the former authority", || {
            for node in lab.nodes() {
                let now = trusted(node)?;
                ensure!(now.len() == 1 && now != former, "{} trusts {}", node.name(), now.len());
                ensure!(shown.contains(&now[0]), "it is another than was shown");
            }
            Ok(())
        })?;
        for number in 0..3 {
            a_change_is_everywhere(lab, number)?;
        }
        load.stop()?.lossless()
    })
}

/// Changes, one after the other, each by another manager: until they are to end, and how long there was none at most.
struct Changes {
    end: Arc<AtomicBool>,
    maker: JoinHandle<Result<Duration>>,
}

impl Changes {
    fn start(managers: &[Node]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let label = |turn| format!("service update --detach --label-add turn={turn} web");
        let commands: Vec<_> = (0..1000)
            .map(|turn| managers[turn % managers.len()].mesh_command(label(turn).split_whitespace()))
            .collect();
        let ends = Arc::clone(&end);
        let maker = thread::spawn(move || {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            for command in commands {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                command.timeout(SOON).run()?.ok().context("a change was refused")?;
                longest = longest.max(last.elapsed());
                last = Instant::now();
                thread::sleep(Duration::from_millis(100));
            }
            Ok(longest)
        });
        Self { end, maker }
    }

    fn stop(self) -> Result<Duration> {
        self.end.store(true, Ordering::Relaxed);
        self.maker.join().unwrap_or_else(|_| bail!("whoever makes changes panicked"))
    }
}

/// Whom the members of etcd trust, each the same, and whose certificates they have.
fn members_trust(managers: &[Node]) -> Result<String> {
    let read = |node: &Node, name: &str| {
        let file = node.state_dir().join("etcd").join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let roots = read(&managers[0], "ca.pem")?;
    ensure!(roots.matches("BEGIN").count() == 1, "{} trusts more than one", managers[0].name());
    for node in managers {
        ensure!(read(node, "ca.pem")? == roots, "{} trusts another", node.name());
        let verified = Command::new("openssl")
            .args(["verify", "-CAfile"])
            .args([node.state_dir().join("etcd/ca.pem"), node.state_dir().join("etcd/member.pem")])
            .output()?;
        ensure!(verified.status.success(), "{}: {}", node.name(), String::from_utf8_lossy(&verified.stderr));
    }
    Ok(roots)
}

/// Whether a manager's member of etcd answers who has these files.
fn is_let_in(node: &Node, files: &Path) -> Result<bool> {
    let file = |name: &str| files.join(name).display().to_string();
    let authority = node.state_dir().join("etcd/ca.pem").display().to_string();
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints=https://127.0.0.1:7301", "--command-timeout=1s"]);
    command.args(["--cacert", &authority, "--cert", &file("member.pem"), "--key", &file("member.key")]);
    command.args(["get", "nothing"]);
    Ok(node.netns().spawn(command)?.wait()?.success())
}

/// Another authority takes the place of that of etcd's members: nobody's requests are lost, changes go on, and whoever has
/// nothing but a certificate of the former one is let in by none. Then again, while an agent, and etcd's leader, are
/// killed.
#[test]
fn the_authority_of_members_is_replaced_while_everything_goes_on() -> Result<()> {
    clustered_with(4, 3, "", |lab| {
        let [n1, n2, n3, n4] = lab.nodes() else { bail!("not four nodes") };
        let managers = &lab.nodes()[..3];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n4, "web")?];
        for node in [n1, n4] {
            served_by(lab.client(), &url(node, 8080), &[&tasks[0], &tasks[1]])?;
        }
        let former = members_trust(managers)?;
        let kept = lab.dir().join("kept");
        fs::create_dir(&kept)?;
        for name in ["member.pem", "member.key"] {
            fs::copy(n3.state_dir().join("etcd").join(name), kept.join(name))?;
        }
        ensure!(is_let_in(n1, &kept)?, "a member's certificate is good");
        let load = Load::start(
            lab.client().netns(),
            &[(n1.address(), 8080).into(), (n4.address(), 8080).into()],
            50,
        )?;

        let changes = Changes::start(managers);
        let begun = Instant::now();
        let said = n1.mesh_command(["cluster", "ca", "--rotate", "--members"]).timeout(READY).run()?;
        mentions(&said.stderr, &["9 out of 9 steps"])?;
        let lasted = begun.elapsed();
        let longest = changes.stop()?;
        println!("it lasted {lasted:?}; between two changes passed {longest:?} at most");
        ensure!(longest <= PAUSE, "no change for {longest:?}");
        let next = members_trust(managers)?;
        ensure!(next != former, "the authority is the former one");
        for node in managers {
            ensure!(!is_let_in(node, &kept)?, "{} lets the former certificate in", node.name());
            ensure!(
                is_let_in(node, &node.state_dir().join("etcd"))?,
                "{} does not let its own in",
                node.name()
            );
        }

        n2.ok("cluster ca --rotate --members --detach")?;
        n3.kill_agent()?;
        kill(etcd(leader(lab, n1)?)?, Signal::SIGKILL)?;
        thread::sleep(Duration::from_secs(2));
        n3.start_agent()?;
        is(n3, "managed")?;
        n3.mesh_command(["cluster", "ca", "--rotate", "--members"]).timeout(READY).run()?.ok()?;
        ensure!(members_trust(managers)? != next, "it was replaced again");
        for number in 0..3 {
            a_change_is_everywhere(lab, number)?;
        }
        load.stop()?.lossless()
    })
}

/// The names of the secrets that managers keep in etcd.
fn secrets(node: &Node) -> Result<Vec<String>> {
    let file = |name: &str| node.state_dir().join("etcd").join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("member.pem"), file("member.key"));
    let argv =
        ["etcdctl", "--endpoints=https://127.0.0.1:7301", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let get = ["get", "--prefix", "--keys-only", "/mesh/secret/"];
    let found = node.command(argv.into_iter().chain(get)).env("ETCDCTL_API", "3").run()?.ok()?;
    let names = found.lines().filter(|line| !line.is_empty()).map(|key| key.replace("/mesh/secret/", ""));
    Ok(names.collect())
}

/// All managers trust and use one authority of their members, all nodes one of theirs, and of former ones no secret is left.
fn all_is_of_one_authority(lab: &Lab, managers: &[Node]) -> Result<()> {
    eventually(READY, "all is of one authority, and nothing is left of those before", || {
        members_trust(managers)?;
        let roots = trusted(&managers[0])?;
        ensure!(roots.len() == 1, "{} trusts {}", managers[0].name(), roots.len());
        for node in lab.nodes() {
            ensure!(trusted(node)? == roots, "{} trusts others", node.name());
        }
        let secrets = secrets(&managers[0])?;
        let kinds: Vec<_> = secrets.iter().map(|name| name.split('/').next().unwrap_or_default()).collect();
        ensure!(kinds == ["authority", "etcd-authority", "etcd-ca.key"], "{secrets:?}");
        Ok(())
    })
}

/// A node that becomes a manager while the authority of members, and then that of nodes, is replaced does its part of it; in
/// the end it has certificates of the next ones and can give some, and nobody's request is lost.
#[test]
fn a_node_becomes_a_manager_while_authorities_are_replaced() -> Result<()> {
    clustered_with(4, 3, "", |lab| {
        let [n1, n2, _, n4] = lab.nodes() else { bail!("not four nodes") };
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let tasks = [Task::web(lab, n2, "web")?, Task::web(lab, n4, "web")?];
        served_by(lab.client(), &url(n1, 8080), &[&tasks[0], &tasks[1]])?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 50)?;
        for (turn, pause) in [0, 6].into_iter().enumerate() {
            let begun = Instant::now();
            n1.ok("cluster ca --rotate --members --detach")?;
            n2.ok("cluster ca --rotate --detach")?;
            thread::sleep(Duration::from_secs(pause));
            patiently(n1, "cluster promote n4")?;
            is(n4, "managed")?;
            println!("a manager {:?} after the replacement had begun", begun.elapsed());
            for option in ["--members", ""] {
                let command = format!("cluster ca --rotate {option}");
                let words: Vec<_> = command.split_whitespace().collect();
                // Joins what goes on, and begins another where that has come to its end.
                n1.mesh_command(words).timeout(READY * 2).run()?.ok()?;
            }
            all_is_of_one_authority(lab, lab.nodes())?;
            n4.ok("cluster token worker --quiet")?;
            a_change_is_everywhere(lab, turn)?;
            patiently(n1, "cluster demote n4")?;
            is(n4, "gateway")?;
        }
        load.stop()?.lossless()
    })
}
