//! The lab itself: what tests and demos rely on.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Cgroup, Host, Lab, LabBuilder, LabInfo, Load, Netns, Process, eventually, lab_test};

const SOON: Duration = Duration::from_secs(5);

/// A lab whose mesh program is a stand-in.
fn lab() -> LabBuilder {
    Lab::builder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-mesh"))
}

/// A web server that answers already.
fn web(lab: &Lab, host: &Host, port: u16, name: &str) -> Result<Process> {
    let server = host.spawn_daemon(name, lab.programs().web_named(port, name))?;
    let url = format!("http://127.0.0.1:{port}/");
    eventually(SOON, "the web server answers", || host.exec(["curl", "-s", &url])?.ok())?;
    Ok(server)
}

#[test]
fn a_namespace_is_apart_and_goes_with_its_last_holder() -> Result<()> {
    let netns = Netns::new()?;
    let links = || -> Result<String> {
        let out = Command::new("ip").args(["-brief", "link"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let inside = netns.run(links)??;
    assert_eq!(inside.lines().count(), 1, "only a loopback: {inside}");
    let path = netns.path();
    assert!(path.exists());
    drop(netns);
    assert!(!path.exists() || !fs::read_link(&path)?.starts_with("net:"));
    Ok(())
}

#[test]
fn a_lab_of_three_is_made_within_a_second() -> Result<()> {
    // The best of some, because other tests and builds run on the machine.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let _lab = lab().nodes(3).build()?;
        best = best.min(start.elapsed());
    }
    println!("made in {best:?}");
    ensure!(best < Duration::from_secs(1), "made in {best:?}");
    Ok(())
}

#[test]
fn all_hosts_reach_each_other() -> Result<()> {
    lab_test(lab().nodes(3), |lab| {
        let ends = || lab.nodes().iter().map(|node| &**node).chain([lab.client(), lab.outside()]);
        for from in ends() {
            for to in ends() {
                let ping = |address: String| from.exec(["ping", "-c1", "-W2", &address])?.ok();
                ping(to.address().to_string())?;
                ping(to.address6().to_string())?;
            }
        }
        assert_eq!(lab.node("n3")?.address().to_string(), "192.168.77.13");
        assert_eq!(lab.node("n1")?.address6().to_string(), "fd77::11");
        assert_eq!(lab.client().address6().to_string(), "fd77::100");
        Ok(())
    })
}

#[test]
fn the_outside_does_not_know_overlay_addresses() -> Result<()> {
    lab_test(lab().node("n1"), |lab| {
        let node = lab.node("n1")?;
        node.ip("address add 10.0.0.5/32 dev lo\n")?;
        node.exec(["ping", "-c1", "-W2", "198.51.100.1"])?.ok()?;
        node.exec(["ping", "-c1", "-W1", "-I", "10.0.0.5", "198.51.100.1"])?.failed()?;
        // With masquerade it works: nothing but the address was wrong.
        let rules = "table ip t { chain c { type nat hook postrouting priority 100; oif eth0 ip saddr 10.0.0.0/8 masquerade; }; }";
        node.command(["nft", "-f", "-"]).stdin(rules).ok()?;
        node.exec(["ping", "-c1", "-W2", "-I", "10.0.0.5", "198.51.100.1"])?.ok()?;
        Ok(())
    })
}

#[test]
fn the_outside_has_a_name_server() -> Result<()> {
    lab_test(lab().node("n1"), |lab| {
        let _dns = lab.outside().spawn_daemon("dns", lab.programs().internet_dns())?;
        let dig = |name: &str| {
            lab.node("n1")?.exec(["dig", "+short", "+time=1", "+tries=1", "@198.51.100.1", name])?.ok()
        };
        eventually(SOON, "the name server answers", || {
            ensure!(dig("www.example.test")?.trim() == "198.51.100.1");
            Ok(())
        })?;
        assert_eq!(dig("www.example.org")?, "");
        Ok(())
    })
}

#[test]
fn an_unplugged_node_is_cut_off_with_its_link_up() -> Result<()> {
    lab_test(lab().nodes(2), |lab| {
        let ping = || lab.node("n1")?.exec(["ping", "-c1", "-W1", "192.168.77.12"]);
        ping()?.ok()?;
        lab.unplug("n2")?;
        ping()?.failed()?;
        let link = lab.node("n2")?.exec(["ip", "-brief", "link", "show", "eth0"])?.ok()?;
        ensure!(link.contains("LOWER_UP"), "{link}");
        lab.plug("n2")?;
        eventually(SOON, "the node is back", || ping()?.ok())?;
        Ok(())
    })
}

#[test]
fn labs_in_parallel_have_the_same_addresses_and_do_not_meet() -> Result<()> {
    let (first, second) = (lab().nodes(2).build()?, lab().nodes(2).build()?);
    let _web =
        [web(&first, first.node("n1")?, 80, "first")?, web(&second, second.node("n1")?, 80, "second")?];
    for (lab, name) in [(&first, "first"), (&second, "second")] {
        let answer = lab.client().exec(["curl", "-s", "http://192.168.77.11/"])?.ok()?;
        assert_eq!(answer, format!("{name} from 192.168.77.100\n"));
        let answer = lab.client().exec(["curl", "-s", "http://[fd77::11]/"])?.ok()?;
        assert_eq!(answer, format!("{name} from fd77::100\n"));
    }
    Ok(())
}

#[test]
fn commands_tell_their_output_and_failure_and_end_in_time() -> Result<()> {
    lab_test(lab().node("n1"), |lab| {
        let node = lab.node("n1")?;
        assert_eq!(node.exec(["echo", "a b"])?.ok()?, "a b\n");
        assert_eq!(node.command(["cat"]).stdin("in").ok()?, "in");
        assert_eq!(node.command(["sh", "-c", "echo $X"]).env("X", "1").ok()?, "1\n");

        let error = node.exec(["sh", "-c", "echo why >&2; exit 3"])?.ok().unwrap_err().to_string();
        for part in ["n1: sh -c", "exit status: 3", "why"] {
            ensure!(error.contains(part), "{error}");
        }
        let error = node.exec(["no-such-program"])?.ok().unwrap_err().to_string();
        ensure!(error.contains("no-such-program") && error.contains("not found"), "{error}");

        // A program that hangs, and one that leaves another with its output open.
        let start = Instant::now();
        let error = node.command(["sh", "-c", "echo so far; sleep 99; echo more"]);
        let error = error.timeout(Duration::from_millis(200)).run().unwrap_err().to_string();
        ensure!(error.contains("did not end within 200ms") && error.contains("so far"), "{error}");
        eventually(SOON, "its children are killed too", || {
            let left = node.cgroup().processes()?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })?;
        assert_eq!(node.exec(["sh", "-c", "sleep 99 & echo started"])?.ok()?, "started\n");
        ensure!(start.elapsed() < SOON, "took {:?}", start.elapsed());
        Ok(())
    })
}

#[test]
fn the_servers_tell_who_answers_and_who_asked() -> Result<()> {
    lab_test(lab().nodes(2), |lab| {
        let node = lab.node("n1")?;
        let _web = web(lab, node, 80, "web.1")?;
        let _udp = node.spawn_daemon("udp", lab.programs().udp_named(53, "dns.1"))?;
        // Two requests over one connection.
        let urls = ["http://192.168.77.11/", "http://192.168.77.11/again"];
        let said = lab.client().exec(["curl", "-s", "-w", "%{num_connects}\n", urls[0], urls[1]])?.ok()?;
        assert_eq!(said, "web.1 from 192.168.77.100\n1\nweb.1 from 192.168.77.100\n0\n");
        let code = |path: &str, method: &str| {
            let url = format!("http://192.168.77.11{path}");
            let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, &url];
            lab.client().exec(curl)?.ok()
        };
        assert_eq!(code("/healthz", "GET")?, "200");
        assert_eq!(code("/sick", "POST")?, "200");
        assert_eq!(code("/healthz", "GET")?, "503");
        assert_eq!(code("/", "GET")?, "200");
        assert_eq!(code("/well", "POST")?, "200");
        assert_eq!(code("/healthz", "GET")?, "200");

        let ask = "import socket\n\
                   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n\
                   s.sendto(b'hi', ('192.168.77.11', 53)); print(s.recv(99).decode(), end='')";
        let answer =
            eventually(SOON, "the UDP server answers", || lab.client().exec(["python3", "-c", ask])?.ok())?;
        assert_eq!(answer, "dns.1 from 192.168.77.100\n");
        Ok(())
    })
}

#[test]
fn load_counts_what_is_answered_and_what_is_not() -> Result<()> {
    lab_test(lab().nodes(3), |lab| {
        let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
        let _first = web(lab, n1, 80, "web.1")?;
        let mut second = web(lab, n2, 80, "web.2")?;
        let targets = ["192.168.77.11:80".parse()?, "192.168.77.12:80".parse()?];

        let load = Load::start(lab.client().netns(), &targets, 200)?;
        thread::sleep(Duration::from_millis(500));
        let report = load.stop()?;
        report.lossless()?;
        let expected = report.lasted.as_secs_f64() * 200.0;
        ensure!((0.7..1.1).contains(&(report.ok as f64 / expected)), "the rate is kept: {report}");
        let share = |name| report.by_backend.get(name).copied().unwrap_or_default();
        ensure!(share("web.1").abs_diff(share("web.2")) <= 1, "the targets take turns: {report}");
        assert_eq!(report.by_client.keys().collect::<Vec<_>>(), ["192.168.77.100"]);

        let load = Load::start(lab.client().netns(), &targets, 100)?;
        thread::sleep(Duration::from_millis(300));
        second.kill()?;
        thread::sleep(Duration::from_millis(300));
        let report = load.stop()?;
        let error = report.lossless().unwrap_err().to_string();
        ensure!(error.contains("refused"), "{error}");
        ensure!(report.failed.len() > 5 && report.ok > 30, "{report}");
        for failure in &report.failed {
            assert_eq!(failure.target, targets[1]);
            ensure!(failure.at > Duration::from_millis(250), "{report}");
        }
        Ok(())
    })
}

#[test]
fn an_agent_is_started_frozen_killed_and_stopped() -> Result<()> {
    lab_test(lab().nodes(2), |lab| {
        lab.start_agents(SOON)?;
        let node = lab.node("n1")?;
        let first = node.agent_id()?;
        ensure!(node.start_agent().is_err(), "a second agent must be refused");
        assert_eq!(node.mesh_json(["status"])?["ready"], true);
        ensure!(node.mesh(["nonsense"])?.failed()?.contains("unknown command"));

        node.pause_agent()?;
        ensure!(node.wait_ready(Duration::from_millis(200)).is_err(), "a frozen agent must not be ready");
        node.resume_agent()?;
        node.wait_ready(SOON)?;

        // A task outlives its agent.
        let task = node.mesh(["task", "run", "sleep", "99"])?.ok()?;
        node.kill_agent()?;
        ensure!(!node.agent_runs());
        ensure!(Path::new("/proc").join(task.trim()).exists(), "the task must live on");
        ensure!(node.wait_ready(SOON).unwrap_err().to_string().contains("ended"));

        node.start_agent()?;
        node.wait_ready(SOON)?;
        node.restart_agent(SOON)?;
        ensure!(node.agent_id()? != first);
        ensure!(node.stop_agent()?.success());
        ensure!(node.log_tail(1) == "stopping", "{}", node.log_tail(9));
        ensure!(lab.node("n2")?.agent_runs(), "the other agent is left alone");
        let state = lab.diagnose();
        for part in ["nsenter --net=/proc/", "192.168.77.12/24", "stopping", "has ended", "mesh status"] {
            ensure!(state.contains(part), "no {part} in:\n{state}");
        }
        Ok(())
    })
}

#[test]
fn the_configuration_is_made_and_can_be_changed() -> Result<()> {
    let lab = lab().nodes(2).dataplane("nft").config("[dns]\nttl = 1\n");
    lab_test(lab.config_of("n2", "[node]\nbroken = true\n"), |lab| {
        ensure!(lab.dataplane() == Some("nft"), "{:?}", lab.dataplane());
        let config = |name: &str| -> Result<toml::Table> {
            Ok(fs::read_to_string(lab.node(name)?.config_file())?.parse()?)
        };
        let dir = lab.dir().display();
        let cgroup = lab.node("n1")?.cgroup().path().display();
        let expected = format!(
            "[node]\nname = 'n1'\naddress = '192.168.77.11'\nstate_dir = '{dir}/n1/state'\n\
             run_dir = '{dir}/n1/run'\ncgroup = '{cgroup}'\nboot_id = '{dir}/n1/boot_id'\n\
             [store]\nmode = 'local'\nlisten = '192.168.77.11:7300'\ntoken_file = '{dir}/token'\n\
             [dns]\nupstreams = ['198.51.100.1']\nttl = 1\n[dataplane]\npins = '{dir}/n1/run/bpf'\nmode = 'nft'\n"
        );
        assert_eq!(config("n1")?, expected.parse()?);
        let second = config("n2")?;
        assert_eq!(second["store"]["mode"].as_str(), Some("gateway"));
        assert_eq!(second["store"]["gateway"].as_str(), Some("192.168.77.11:7300"));

        let node = lab.node("n2")?;
        node.start_agent()?;
        let error = node.wait_ready(SOON).unwrap_err().to_string();
        ensure!(error.contains("exit status: 3") && error.contains("broken by configuration"), "{error}");
        node.configure("[node]\nbroken = false\n")?;
        node.start_agent()?;
        node.wait_ready(SOON)
    })
}

#[test]
fn another_process_can_enter_a_published_lab() -> Result<()> {
    let published = tempfile::tempdir()?;
    let lab = lab().node("n1").build()?;
    let _web = web(&lab, lab.node("n1")?, 80, "web.1")?;
    lab.publish_state(published.path())?;

    let info = LabInfo::load(published.path())?;
    assert_eq!(info, LabInfo::of(&lab));
    let said = info.command("client", ["curl", "-s", "http://192.168.77.11/"])?.output()?;
    assert_eq!(String::from_utf8_lossy(&said.stdout), "web.1 from 192.168.77.100\n");
    let said = info.command("n1", ["sh", "-c", "echo $MESH_HOST; cat /proc/self/cgroup"])?.output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.starts_with(&format!("unix:///run/{}/n1/run/mesh.sock\n", lab.id())), "{said}");
    ensure!(said.contains(&format!("/{}/n1\n", lab.id())), "{said}");
    ensure!(info.command("n9", ["true"]).unwrap_err().to_string().contains("it has n1, client"));

    drop(lab);
    ensure!(!published.path().join(LabInfo::FILE).exists(), "the file goes with the lab");
    ensure!(LabInfo::load(published.path()).unwrap_err().to_string().contains("no lab runs here"));
    fs::write(published.path().join(LabInfo::FILE), serde_json::to_vec(&info)?)?;
    ensure!(LabInfo::load(published.path()).unwrap_err().to_string().contains("is gone"));
    Ok(())
}

#[test]
fn a_failure_or_panic_of_a_test_goes_through_and_the_lab_goes() -> Result<()> {
    let id = Mutex::new(String::new());
    let note = |lab: &Lab| lab.id().clone_into(&mut id.lock().unwrap());
    let failed = lab_test(lab().node("n1"), |lab| {
        note(lab);
        bail!("on purpose")
    });
    assert_eq!(failed.unwrap_err().to_string(), "on purpose");
    ensure!(left_by(&id.lock().unwrap())?.is_empty());
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        lab_test(lab().node("n1"), |lab| {
            note(lab);
            panic!("on purpose")
        })
    }));
    ensure!(panicked.is_err());
    ensure!(left_by(&id.lock().unwrap())?.is_empty());
    Ok(())
}

#[test]
fn names_that_cannot_be_are_refused() -> Result<()> {
    for name in ["", "client", "N1", "a-name-too-long-", "../x"] {
        let error = lab().node(name).build().map(drop).unwrap_err().to_string();
        ensure!(error.contains("name"), "{name}: {error}");
    }
    ensure!(lab().node("n1").node("n1").build().is_err());
    ensure!(lab().node("n1").config_of("n2", "").build().is_err());
    ensure!(Lab::builder("/no/such/mesh").node("n1").build().is_err());
    Ok(())
}

#[test]
fn the_first_packet_after_the_making_arrives() -> Result<()> {
    for _ in 0..10 {
        // Names that `ip` could take for its own words.
        let lab = lab().node("dev").node("a").build()?;
        let ping = |host: &Host, to: &str| host.exec(["ping", "-c1", "-W1", to])?.ok();
        ping(lab.node("dev")?, "192.168.77.12")?;
        ping(lab.client(), "198.51.100.1")?;
        ping(lab.node("a")?, "fd77::11")?;
        ping(lab.client(), "2001:db8:51::1")?;
    }
    Ok(())
}

/// What a lab left: its directory, its control group, and processes and mounts that mention it.
fn left_by(id: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let cgroup = Cgroup::new(&format!("{id}-probe"))?.path().with_file_name(id);
    let paths = [Path::new("/run").join(id), cgroup];
    left.extend(paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
    let mounts = fs::read_to_string("/proc/mounts")?;
    left.extend(mounts.lines().filter(|line| line.contains(id)).map(Into::into));
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let environ = fs::read(path.join("environ")).unwrap_or_default();
        let holds = |text: &[u8]| String::from_utf8_lossy(text).contains(id);
        if holds(&words) || holds(&environ) {
            left.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&words)));
        }
    }
    Ok(left)
}

/// Gives a lab all that has to be cleaned up: agents, tasks that left their group, daemons, mounts.
fn fill(lab: &Lab) -> Result<()> {
    lab.start_agents(SOON)?;
    let node = lab.node("n1")?;
    node.mesh(["task", "run", "sleep", "99"])?.ok()?;
    node.exec(["sh", "-c", "trap '' TERM HUP; sleep 98 & echo"])?.ok()?;
    let inner = node.cgroup().path().join("task/inner");
    fs::create_dir_all(&inner)?;
    let point = node.run_dir().join("bpf");
    fs::create_dir(&point)?;
    node.command(
        ["mount", "-t", "tmpfs", "none"].into_iter().map(Into::into).chain([point.into_os_string()]),
    )
    .ok()?;
    Ok(())
}

#[test]
fn nothing_is_left_after_a_drop() -> Result<()> {
    let lab = lab().nodes(3).build()?;
    let id = lab.id().to_owned();
    fill(&lab)?;
    let _daemon = lab.client().spawn_daemon("sleep", ["sleep", "97"])?;
    ensure!(left_by(&id)?.len() > 5, "the search finds what is there: {:?}", left_by(&id)?);
    let start = Instant::now();
    drop(lab);
    println!("dropped in {:?}", start.elapsed());
    let left = left_by(&id)?;
    ensure!(left.is_empty(), "left: {left:#?}");
    ensure!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    Ok(())
}

/// The directory where the killed process of the next test publishes its lab.
const VICTIM: &str = "MESH_LAB_VICTIM";

#[test]
fn nothing_is_left_after_the_process_is_killed() -> Result<()> {
    if let Some(dir) = env::var_os(VICTIM) {
        // This is the process to be killed: the same test, run again.
        let lab = lab().nodes(2).build()?;
        fill(&lab)?;
        lab.publish_state(Path::new(&dir))?;
        thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let published = tempfile::tempdir()?;
    let mut victim = Command::new(env::current_exe()?)
        .args(["--exact", "nothing_is_left_after_the_process_is_killed"])
        .env(VICTIM, published.path())
        .stdout(Stdio::null())
        .spawn()?;
    let info = eventually(SOON, "the victim has a lab", || LabInfo::load(published.path()));
    victim.kill()?;
    victim.wait()?;
    let info = info.context("the victim made no lab")?;
    eventually(SOON, "nothing is left of the victim's lab", || {
        let left = left_by(&info.id)?;
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    })?;
    ensure!(!published.path().join(LabInfo::FILE).exists(), "the file goes with the lab");
    Ok(())
}
