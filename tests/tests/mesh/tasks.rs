//! Processes and namespaces that take part.

use std::{collections::BTreeSet, fs, io::Read, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Exec, Lab, Node, Process, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kit::{
    Cli, SOON, Task, answers, curl, dig, listens, mentions, mesh, one_message, refuses, served_by, text, url,
    vip,
};

/// How long a task that ended may be among the living.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// `mesh task run OPTIONS -- sh -c SCRIPT`
fn run(node: &Node, options: &str, script: &str) -> Exec {
    let mut argv = vec!["task", "run"];
    argv.extend(options.split_whitespace());
    argv.extend(["--", "sh", "-c", script]);
    node.mesh_command(argv)
}

/// The same in the background.
fn spawn(lab: &Lab, node: &Node, name: &str, command: &[&str]) -> Result<Process> {
    let mesh = lab.mesh_program().to_string_lossy().into_owned();
    let mut argv = vec![mesh.as_str(), "task", "run", "--name", name, "--network", "app", "--"];
    argv.extend(command);
    node.spawn_daemon(name, argv)
}

fn says(process: &Process, word: &str) -> Result<()> {
    eventually(SOON, &format!("it says {word}"), || {
        ensure!(process.log_tail(9).contains(word), "{}", process.log_tail(9));
        Ok(())
    })
}

/// Waits until a task is in no listing and no name.
fn is_gone(task: &Task<'_>, asker: &Task<'_>, left: usize) -> Result<()> {
    eventually(GONE_WITHIN, &format!("{} is gone", task.name), || {
        for node in [task.node, asker.node] {
            ensure!(!node.names("task")?.contains(&task.name));
        }
        let answer = dig(asker, "tasks.web")?;
        ensure!(answer.data.len() == left, "{}", answer.text);
        Ok(())
    })
}

/// `mesh task run` is like running the command itself: input, output, errors and exit code are the command's.
#[test]
fn a_task_in_the_foreground_is_the_command_itself() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let script = "cat; echo $COLOR; echo trouble >&2; exit 7";
        for options in ["--service web -e COLOR=blue", "--name job --network app -e COLOR=blue"] {
            let output = run(n1, options, script).stdin("from outside\n").run()?;
            ensure!(output.code() == Some(7), "{output:?}");
            ensure!(output.stdout == "from outside\nblue\n", "{output:?}");
            ensure!(output.stderr == "trouble\n", "{output:?}");
        }
        // Arguments are passed on as they are.
        let words = [
            "task",
            "run",
            "--name",
            "job",
            "--network",
            "app",
            "--",
            "printf",
            "%s|",
            "a b",
            "-d",
            "--name",
            "",
        ];
        let said = n1.mesh(words)?.ok()?;
        ensure!(said == "a b|-d|--name||", "{said}");
        eventually(GONE_WITHIN, "the tasks are gone", || {
            ensure!(n1.names("task")?.is_empty(), "{:?}", n1.names("task")?);
            Ok(())
        })
    })
}

/// A one-off needs no name: `mesh task run --network app -- CMD` is a task of its own on that network.
#[test]
fn a_one_off_needs_no_name() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let _web = Task::web(lab, n1, "web")?;
        for _ in 0..2 {
            let words =
                ["task", "run", "--network", "app", "--", "curl", "-sS", "--max-time", "2", "http://web/"];
            let said = n1.mesh(words)?.ok()?;
            ensure!(said.starts_with("web.1 from "), "{said}");
        }
        Ok(())
    })
}

/// Signals reach the command, and what it does about them is what the caller sees.
#[test]
fn signals_are_passed_on() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let trap = "trap 'echo got TERM; exit 5' TERM; trap 'echo got INT; exit 6' INT; echo up; \
                    while :; do sleep 0.02; done";
        for (signal, code, word) in [(Signal::SIGTERM, 5, "got TERM"), (Signal::SIGINT, 6, "got INT")] {
            let mut task = spawn(lab, n1, "polite", &["sh", "-c", trap])?;
            says(&task, "up")?;
            task.signal(signal)?;
            let status = task.wait(SOON)?;
            ensure!(status.code() == Some(code), "{status}: {}", task.log_tail(9));
            says(&task, word)?;
            eventually(GONE_WITHIN, "it is gone", || {
                ensure!(n1.names("task")?.is_empty());
                Ok(())
            })?;
            fs::remove_file(task.log())?;
        }
        // One that does nothing about it ends by it, as a shell tells it.
        let mut task = spawn(lab, n1, "plain", &["sh", "-c", "echo up; exec sleep 1000"])?;
        says(&task, "up")?;
        task.signal(Signal::SIGTERM)?;
        let status = task.wait(SOON)?;
        ensure!(status.code() == Some(143) || nix_signal(status) == Some(15), "{status}");
        Ok(())
    })
}

fn nix_signal(status: std::process::ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// A command that does not exist is 127, one that cannot be run 126; both are named, and no task is left.
#[test]
fn a_command_that_cannot_run_is_told() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        let plain = lab.dir().join("plain");
        fs::write(&plain, "no program")?;
        let plain = plain.to_string_lossy().into_owned();
        for (command, code) in [("no-such-program", 127), ("/no/such/program", 127), (&plain, 126)] {
            let output = n1.mesh(["task", "run", "--name", "job", "--network", "app", "--", command])?;
            ensure!(output.code() == Some(code), "{output:?}");
            mentions(&output.stderr, &[command])?;
            ensure!(output.stderr.lines().count() == 1, "{output:?}");
            // Detached, it is told all the same.
            let output =
                n1.mesh(["task", "run", "-d", "--name", "job2", "--network", "app", "--", command])?;
            ensure!(output.code() == Some(code), "{output:?}");
            mentions(&output.stderr, &[command])?;
        }
        eventually(GONE_WITHIN, "no task is left", || {
            ensure!(n1.names("task")?.is_empty(), "{:?}", n1.names("task")?);
            Ok(())
        })
    })
}

/// `-d` returns when the task runs and tells which; a task has a name, a slot, a node and a state.
#[test]
fn a_detached_task_is_listed() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let tasks = [Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?];
        let third = run(n2, "--service web", "echo I am $MESH_TASK_NAME").ok()?;
        ensure!(third == "I am web.3\n", "{third}");
        for node in [n1, n2] {
            eventually(SOON, "both tasks are listed", || {
                ensure!(node.names("task")? == ["web.1", "web.2"], "{:?}", node.names("task")?);
                let rows = node.rows("service ps web")?;
                ensure!(rows.len() == 2, "{rows:?}");
                for (row, node) in rows.iter().zip(["n1", "n2"]) {
                    ensure!(text(&row["Node"]) == node, "{row}");
                    ensure!(text(&row["CurrentState"]).starts_with("Running"), "{row}");
                }
                Ok(())
            })?;
            let ids = node.ok("task ls -q")?;
            ensure!(ids.lines().count() == 2, "{ids}");
            for id in ids.lines() {
                ensure!(text(&node.inspect("task", id)?["Name"]).starts_with("web."));
            }
        }
        // A slot that is free is used again.
        tasks[0].rm()?;
        ensure!(Task::web(lab, n2, "web")?.name == "web.1");
        Ok(())
    })
}

/// A task whose process ends, by itself or by kill -9, is out of every listing and the balance within two seconds.
#[test]
fn a_process_that_ends_takes_its_task_with_it() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let stays = Task::web(lab, n1, "web")?;
        let stop = lab.dir().join("stop");
        let script = format!(
            "{} & while ! test -e {}; do sleep 0.02; done; kill $!",
            lab.programs().web(80).join(" "),
            stop.display()
        );
        let ends = Task::run(n2, "--service web", &["sh", "-c", &script])?;
        ends.listens("tcp6", 80)?;
        served_by(lab.client(), &url(n1, 8080), &[&stays, &ends])?;
        fs::write(&stop, "")?;
        is_gone(&ends, &stays, 1)?;
        served_by(lab.client(), &url(n1, 8080), &[&stays])?;

        let killed = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&stays, &killed])?;
        kill_all(n2, "web.py")?;
        is_gone(&killed, &stays, 1)?;
        served_by(lab.client(), &url(n2, 8080), &[&stays])?;

        // The last one leaves a port that is refused.
        kill_all(n1, "web.py")?;
        eventually(GONE_WITHIN, "the port is refused", || refuses(lab.client(), &url(n2, 8080)))
    })
}

/// The processes of a node whose command line has a word.
fn processes(node: &Node, word: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(id) = name.parse::<u32>() else { continue };
        let groups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
        let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let inside = node.cgroup().path().file_name().context("no name")?.to_string_lossy();
        let lab = node.cgroup().path().parent().and_then(Path::file_name);
        let group = format!("/{}/{inside}", lab.context("no lab")?.to_string_lossy());
        if groups.contains(&group) && words.contains(word) {
            found.push(id);
        }
    }
    Ok(found)
}

fn kill_all(node: &Node, word: &str) -> Result<()> {
    let found = processes(node, word)?;
    ensure!(!found.is_empty(), "no process {word}");
    for id in found {
        // One that ends with another is no failure.
        let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
    }
    Ok(())
}

/// A shim that is killed with -9 takes its task out of the balance, and the command does not stay behind unseen.
#[test]
fn a_killed_shim_takes_its_task_with_it() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let stays = Task::web(lab, n1, "web")?;
        let killed = Task::web(lab, n2, "web")?;
        served_by(lab.client(), &url(n1, 8080), &[&stays, &killed])?;
        let shim: Vec<_> = processes(n2, "task run")?;
        ensure!(shim.len() == 1, "{shim:?}");
        kill_all(n2, "task run")?;
        is_gone(&killed, &stays, 1)?;
        served_by(lab.client(), &url(n2, 8080), &[&stays])?;
        eventually(GONE_WITHIN, "the command ends with its shim", || {
            let left = processes(n2, "web.py")?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })
    })
}

/// A process in a network namespace of its own, without a mesh in it.
pub(crate) fn foreign(node: &Node) -> Result<Process> {
    let process = node.spawn_daemon("foreign", ["unshare", "--net", "sleep", "1000"])?;
    let of = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).context("no namespace");
    let own = of(&node.agent_id()?.to_string())?;
    eventually(SOON, "it has a namespace", || {
        let is = of(&process.id().to_string())?;
        let name = fs::read_to_string(format!("/proc/{}/comm", process.id()))?;
        ensure!(is != own && name.trim() == "sleep");
        Ok(())
    })?;
    Ok(process)
}

/// A web server in the namespace of a process.
pub(crate) fn web_in(lab: &Lab, node: &Node, pid: u32, name: &str) -> Result<Process> {
    let pid = pid.to_string();
    let mut argv: Vec<String> = ["nsenter", "-t", &pid, "-n", "--"].map(Into::into).into();
    argv.extend(lab.programs().web_named(80, name));
    let server = node.spawn_daemon(name, argv)?;
    listens(pid.parse()?, "tcp6", 80)?;
    Ok(server)
}

/// `task add --pid` takes a process's namespace in: VIP, published ports and names work for it and in it. When the
/// process ends, so does the task.
#[test]
fn a_process_with_a_namespace_is_taken_in() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let process = foreign(n1)?;
        let _web = web_in(lab, n1, process.id(), "foreign.web")?;
        n1.ok(&format!("task add --service web --pid {}", process.id()))?;
        let task = Task::find(n1, "web.1")?;
        let idle = Task::idle(n2, "app")?;
        let answer = answers(&idle, "http://web/")?;
        ensure!(answer.starts_with("foreign.web from"), "{answer}");
        answers(lab.client(), &url(n2, 8080))?;

        let inside = ["nsenter", "-t", &process.id().to_string(), "-n", "--"].map(str::to_owned);
        let ask = |words: &[&str]| {
            let words = inside.iter().cloned().chain(words.iter().map(|&word| word.into()));
            n1.command(words).ok()
        };
        let answer = ask(&["dig", "+short", "+time=2", "+tries=1", "@127.0.0.11", "web"])?;
        ensure!(answer.trim() == vip(n1, "web")?.to_string(), "{answer}");
        ask(&["curl", "-sS", "--max-time", "2", &format!("http://{}/", vip(n1, "web")?)])?;

        drop(process);
        is_gone(&task, &idle, 0)?;
        refuses(&idle, "http://web/")
    })
}

/// `task add --netns` takes a namespace in by its path; `task rm` lets it go as it was, and it may come again.
#[test]
fn a_namespace_is_taken_in_and_let_go() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        // As `ip netns add` does it.
        let path = lab.dir().join("blue").to_string_lossy().into_owned();
        fs::write(&path, "")?;
        n1.exec(["unshare", &format!("--net={path}"), "true"])?.ok()?;
        let inside = |words: &[&str]| {
            let enter = format!("--net={path}");
            n1.command(["nsenter", &enter, "--"].iter().chain(words)).ok()
        };
        // That its loopback is up afterwards harms nobody.
        inside(&["ip", "link", "set", "lo", "up"])?;
        let all = "ip link; ip address; ip route show table all; nft list ruleset";
        let before = inside(&["sh", "-c", all])?;
        let mut server: Vec<String> = ["nsenter", &format!("--net={path}"), "--"].map(Into::into).into();
        server.extend(lab.programs().web_named(80, "blue.web"));
        let _server = n1.spawn_daemon("blue", server)?;
        let idle = Task::idle(n2, "app")?;
        for _ in 0..2 {
            n1.ok(&format!("task add --service web --netns {path}"))?;
            let answer = answers(&idle, "http://web/")?;
            ensure!(answer.starts_with("blue.web from"), "{answer}");
            let links = inside(&["ip", "link"])?;
            ensure!(links.contains("mtu 1450"), "{links}");
            n1.ok("task rm web.1")?;
            eventually(SOON, "it is let go", || {
                refuses(&idle, "http://web/")?;
                let after = inside(&["sh", "-c", all])?;
                ensure!(after == before, "before:\n{before}\nafter:\n{after}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// What cannot be taken in is refused with one message, and nothing is registered.
#[test]
fn what_is_no_namespace_is_refused() -> Result<()> {
    mesh(1, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let file = lab.dir().join("file").to_string_lossy().into_owned();
        fs::write(&file, "just a file")?;
        let own = n1.agent_id()?.to_string();
        let web = Task::web(lab, n1, "web")?;
        let before = n1.rows("task ls")?.len();
        for (what, name) in [
            ("--netns /run/no/such/netns".to_owned(), "/run/no/such/netns"),
            (format!("--netns {file}"), &*file),
            ("--netns /proc/self/ns/mnt".to_owned(), "/proc/self/ns/mnt"),
            (format!("--pid {own}"), &*own),
            (format!("--netns /proc/{own}/ns/net"), "namespace"),
            ("--pid 4194999".to_owned(), "4194999"),
            ("--pid 0".to_owned(), "0"),
            // Taken already.
            (format!("--pid {}", web.pid), "task"),
        ] {
            let message = n1.refused(&format!("task add --service web {what}"))?;
            mentions(&message, &[name])?;
            let rows = n1.rows("task ls")?;
            ensure!(rows.len() == before, "{what}: {rows:?}");
        }
        n1.refused("task add --service web")?;
        let process = foreign(n1)?;
        let message = n1.refused(&format!("task add --service nope --pid {}", process.id()))?;
        mentions(&message, &["nope"])?;
        // What was refused is not half taken in: it can be taken in rightly.
        n1.ok(&format!("task add --service web --pid {}", process.id()))?;
        curl(&web, "http://127.0.0.1/").map(drop)
    })
}

/// `task rm` ends the process politely and is done when it is gone; a task that is not there is an error.
#[test]
fn a_removed_task_is_ended_politely() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let said = lab.dir().join("said");
        let script = format!(
            "trap 'echo bye > {0}; exit 0' TERM; echo up > {0}; while :; do sleep 0.02; done",
            said.display()
        );
        for from in [n1, n2] {
            let task = Task::run(n1, "--service web", &["sh", "-c", &script])?;
            eventually(SOON, "it is up", || {
                ensure!(fs::read_to_string(&said)? == "up\n");
                Ok(())
            })?;
            from.ok(&format!("task rm {}", task.name))?;
            eventually(SOON, "it has said bye", || {
                ensure!(fs::read_to_string(&said)? == "bye\n");
                ensure!(!Path::new("/proc").join(task.pid.to_string()).exists());
                Ok(())
            })?;
            for node in [n1, n2] {
                eventually(GONE_WITHIN, "it is gone", || {
                    ensure!(node.names("task")?.is_empty());
                    Ok(())
                })?;
            }
            fs::remove_file(&said)?;
        }
        mentions(&one_message(n1.mesh(["task", "rm", "web.9"])?)?, &["web.9"])
    })
}

/// Inside, the network's packets leave room for the tunnel; large transfers between nodes arrive whole, both ways.
#[test]
fn large_transfers_between_nodes_are_whole() -> Result<()> {
    mesh(2, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        let mut data = vec![0; 5 << 20];
        fs::File::open("/dev/urandom")?.read_exact(&mut data)?;
        let dir = lab.dir().join("files");
        fs::create_dir(&dir)?;
        fs::write(dir.join("large"), &data)?;
        let dir = dir.to_string_lossy().into_owned();
        let files = ["python3", "-m", "http.server", "80", "--bind", "0.0.0.0", "--directory", &dir]
            .map(str::to_owned);
        let serve = |node, service| Task::serve(node, service, &files, "tcp", 80);
        n1.ok("service create --name one --network app -p 8081:80")?;
        n1.ok("service create --name two --network app -p 8082:80")?;
        let tasks = [serve(n1, "one")?, serve(n2, "two")?];
        let mut copies = BTreeSet::new();
        let mut copy = |exec: &dyn Fn(&[&str]) -> Exec, url: &str| -> Result<()> {
            let file = lab.dir().join(format!("copy{}", copies.len()));
            copies.insert(file.clone());
            exec(&["curl", "-sSf", "--max-time", "8", "-o", &file.to_string_lossy(), url]).ok()?;
            ensure!(fs::read(&file)? == data, "{url} is not whole");
            Ok(())
        };
        for task in &tasks {
            let links = task.command(["ip", "link"]).ok()?;
            ensure!(links.contains("mtu 1450"), "{links}");
            answers(task, "http://one/").and_then(|_| answers(task, "http://two/"))?;
            copy(&|argv| task.command(argv), "http://one/large")?;
            copy(&|argv| task.command(argv), "http://two/large")?;
        }
        for node in [n1, n2] {
            copy(&|argv| lab.client().command(argv), &(url(node, 8081) + "large"))?;
            copy(&|argv| lab.client().command(argv), &(url(node, 8082) + "large"))?;
        }
        Ok(())
    })
}
