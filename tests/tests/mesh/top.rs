//! `mesh top` in a real terminal.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Load, Node, Terminal, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::kit::{Cli, READY, Task, mentions, mesh, on_ebpf};

/// How soon something is seen, also where ten others have the processors.
const SHOWN: Duration = Duration::from_secs(10);

/// A terminal of a node in which `mesh top` runs.
struct Top<'a> {
    terminal: Terminal,
    node: &'a Node,
}

impl<'a> Top<'a> {
    fn start(node: &'a Node, options: &str) -> Result<Self> {
        let top = Self { terminal: Terminal::on(node, 80, 24)?, node };
        top.again(options)?;
        Ok(top)
    }

    /// Starts it where it ran before. The settings of the terminal, and its id, are noted first.
    fn again(&self, options: &str) -> Result<()> {
        let dir = self.node.dir().display();
        let (host, note) = (self.node.socket(), format!("stty -a >{dir}/before; echo not lost"));
        self.terminal.run(&note)?;
        let start =
            format!("sh -c 'echo $$ >{dir}/top.pid; exec mesh -H unix://{} top {options}'", host.display());
        self.terminal.run(&start)
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        keys.iter().try_for_each(|key| self.terminal.press(key))
    }

    /// Waits until all of that is seen, and returns what is.
    fn shows(&self, parts: &[&str]) -> Result<String> {
        self.becomes(&format!("{parts:?} is seen"), |screen| mentions(screen, parts))
    }

    fn becomes(&self, what: &str, check: impl Fn(&str) -> Result<()>) -> Result<String> {
        eventually(SHOWN, what, || {
            let screen = self.terminal.screen()?;
            check(&screen)?;
            Ok(screen)
        })
    }

    /// It has ended, and the terminal is as it was.
    fn gave_back(&self) -> Result<()> {
        let dir = self.node.dir();
        eventually(SHOWN, "the shell is back", || {
            let modes = self.terminal.modes()?;
            ensure!(modes == (false, true), "alternate screen, cursor: {modes:?}");
            self.terminal.waits()
        })?;
        mentions(&self.terminal.screen()?, &["not lost"])?;
        self.terminal.run(&format!("stty -a >{}/after", dir.display()))?;
        eventually(SHOWN, "the terminal has the settings that it had", || {
            let [before, after] = ["before", "after"].map(|name| fs::read_to_string(dir.join(name)));
            let (before, after) = (before?, after?);
            // A window that has another size now tells of it.
            let rest = |text: &str| text.split_once(';').map(|(_, rest)| settings(rest));
            ensure!(rest(&before).is_some() && rest(&before) == rest(&after), "{before}\n{after}");
            fs::remove_file(dir.join("after"))?;
            Ok(())
        })
    }
}

/// Without the size.
fn settings(text: &str) -> Vec<String> {
    let all = text.split([';', '\n']).map(|setting| setting.trim().to_owned());
    all.filter(|setting| !setting.starts_with("rows") && !setting.starts_with("columns")).collect()
}

/// The words of the row that begins with this name.
fn row(screen: &str, name: &str) -> Result<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut rows = screen.lines().map(words);
    rows.find(|words| words.first().is_some_and(|word| word == name))
        .with_context(|| format!("no row of {name} in:\n{screen}"))
}

/// The place of a row in its table.
fn at(screen: &str, name: &str) -> Result<usize> {
    let place = screen.lines().position(|line| line.split_whitespace().next() == Some(name));
    place.with_context(|| format!("no row of {name} in:\n{screen}"))
}

/// A service with two tasks on two nodes, and one without.
fn services(lab: &Lab) -> Result<[Task<'_>; 2]> {
    let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
    n1.ok("network create app")?;
    n1.ok("service create --name web --network app -p 8080:80")?;
    n1.ok("service create --name db --network app")?;
    Ok([Task::web(lab, n1, "web")?, Task::web(lab, n2, "web")?])
}

/// What the mesh is, and what its tasks get, is seen as it changes.
#[test]
fn the_mesh_is_seen_in_a_terminal() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        let _tasks = services(lab)?;
        let top = Top::start(n1, "--interval 500ms")?;
        let screen = top.shows(&["SERVICE", "FLOWS/S", "2 nodes · 2 services · 2 tasks"])?;
        ensure!(row(&screen, "web")?[1..3] == ["2/2", "serving"], "{screen}");
        ensure!(row(&screen, "db")?[1..4] == ["0/0", "no", "tasks"], "{screen}");
        ensure!(top.terminal.modes()? == (true, false));
        let rates = |screen: &str| -> Result<[String; 4]> {
            let words = row(screen, "web")?;
            words.get(3..7).and_then(|words| words.to_vec().try_into().ok()).context("too few columns")
        };
        if on_ebpf(lab, &["flows are not seen", "counters"])? {
            let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
            top.becomes("the rates are those of the load", |screen| {
                let [flows, bytes, packets, active] = rates(screen)?;
                // The load is what it can be on a busy machine.
                ensure!((20.0..=140.0).contains(&flows.parse::<f64>()?), "{screen}");
                let nothing = |rate: &String| rate == "-" || rate.starts_with(['0', '<']);
                ensure!(![bytes, packets, active].iter().any(nothing), "{screen}");
                Ok(())
            })?;
            top.press(&["2"])?;
            top.becomes("each task has its part", |screen| {
                for name in ["web.1", "web.2"] {
                    let words = row(screen, name)?;
                    let flows: f64 = words.get(4).context("no rate")?.parse()?;
                    ensure!((5.0..=100.0).contains(&flows), "{screen}");
                }
                Ok(())
            })?;
            load.stop()?;
            top.press(&["1"])?;
            top.becomes("nothing begins any more", |screen| {
                let [flows, bytes, packets, _] = rates(screen)?;
                ensure!([flows, bytes, packets].iter().all(|rate| rate == "0"), "{screen}");
                Ok(())
            })?;
        } else {
            let screen = top.shows(&["counts no flows"])?;
            ensure!(rates(&screen)?.iter().all(|rate| rate == "-"), "{screen}");
        }
        n1.ok("task drain --detach web.1")?;
        top.becomes("a drain is seen", |screen| {
            let words = row(screen, "web")?;
            ensure!(words[1..4] == ["1/2", "1", "draining"], "{screen}");
            Ok(())
        })?;
        n1.ok("node update --availability drain n2")?;
        top.press(&["3"])?;
        top.becomes("of a node, too", |screen| {
            ensure!(row(screen, "n2")?[1..3] == ["ready", "drain"], "{screen}");
            Ok(())
        })?;
        top.press(&["q"])?;
        top.gave_back()
    })
}

/// Keys choose, sort and filter; the picture is as large as the window.
#[test]
fn keys_and_windows_change_what_is_seen() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        let _tasks = services(lab)?;
        let top = Top::start(n1, "--view tasks")?;
        let in_order = |first: &'static str, second: &'static str| {
            top.becomes(&format!("{first} is above {second}"), |screen| {
                ensure!(at(screen, first)? < at(screen, second)?, "{screen}");
                Ok(())
            })
        };
        in_order("web.1", "web.2")?;
        top.press(&["r"])?;
        in_order("web.2", "web.1")?;
        top.press(&["s"])?;
        top.shows(&["NODE↑"])?;
        in_order("web.1", "web.2")?;
        top.press(&["<"])?;
        top.shows(&["TASK↑"])?;
        top.press(&["/"])?;
        top.terminal.write("node:n2")?;
        top.becomes("only what is looked for is seen", |screen| {
            ensure!(at(screen, "web.1").is_err() && row(screen, "web.2").is_ok(), "{screen}");
            Ok(())
        })?;
        top.press(&["Enter", "Escape"])?;
        in_order("web.1", "web.2")?;
        top.press(&["Tab", "BTab", "1", "?"])?;
        top.shows(&["turn the order round", "any key"])?;
        top.press(&["x", "End", "Enter"])?;
        // From the last service to its tasks.
        top.shows(&["/service:web", "web.1", "web.2"])?;
        top.press(&["Escape"])?;
        top.shows(&["SERVICE↑", "db"])?;

        ensure!(!top.terminal.screen()?.contains("ADDRESS"));
        top.terminal.resize(160, 30)?;
        top.shows(&["PORTS", "8080->80/tcp", "ADDRESS", "NETWORK"])?;
        top.terminal.resize(44, 10)?;
        top.becomes("the important stays", |screen| {
            ensure!(
                row(screen, "web")?[1..3] == ["2/2", "serving"] && !screen.contains("ACTIVE"),
                "{screen}"
            );
            Ok(())
        })?;
        top.terminal.resize(30, 6)?;
        top.shows(&["too small: 30×6"])?;
        top.terminal.resize(80, 24)?;
        top.shows(&["SERVICE↑", "ACTIVE"])?;
        // Magenta says that something is not as it should be, and nothing says it where no colours are wanted.
        let coloured = |screen: &str| {
            screen.contains("[38;") || (30..=37).any(|code| screen.contains(&format!("[{code}m")))
        };
        let painted = top.terminal.painted()?;
        ensure!(painted.contains("[38;5;5mno tasks") && coloured(&painted), "{painted:?}");
        top.press(&["C-c"])?;
        top.gave_back()?;
        top.terminal.run("export NO_COLOR=1")?;
        top.again("")?;
        top.shows(&["SERVICE↑", "db"])?;
        let painted = top.terminal.painted()?;
        ensure!(painted.contains("no tasks") && !coloured(&painted), "{painted:?}");
        top.press(&["Escape"])?;
        top.gave_back()
    })
}

/// An agent that is gone, or says nothing, is told of, and what it said last is marked; then it goes on by itself. However it
/// ends, the terminal is given back.
#[test]
fn an_agent_that_does_not_answer_is_told_of() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        let _tasks = services(lab)?;
        let top = Top::start(n1, "")?;
        top.shows(&["web", "2/2"])?;
        let goes_on = || {
            top.becomes("it goes on", |screen| {
                ensure!(!screen.contains("no answer") && row(screen, "web").is_ok(), "{screen}");
                Ok(())
            })
        };
        n1.kill_agent()?;
        let screen = top.becomes("it is silent for three seconds", |screen| {
            mentions(screen, &["no answer from", "s: what is shown is old"])?;
            let since = screen.split_once(" since ").and_then(|(_, rest)| rest.split(' ').next());
            let since: u64 = since.context("since when?")?.parse()?;
            ensure!((3..30).contains(&since), "{screen}");
            Ok(())
        })?;
        ensure!(row(&screen, "web")?[1] == "2/2", "{screen}");
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        goes_on()?;
        n1.pause_agent()?;
        top.shows(&["no answer from", "what is shown is old"])?;
        n1.resume_agent()?;
        goes_on()?;

        let signal = |signal| -> Result<()> {
            let id = fs::read_to_string(n1.dir().join("top.pid"))?.trim().parse()?;
            Ok(kill(Pid::from_raw(id), signal)?)
        };
        for ended in [Signal::SIGTERM, Signal::SIGHUP] {
            signal(ended)?;
            top.gave_back()?;
            top.again("")?;
            goes_on()?;
        }
        // To the back, and to the front again.
        top.press(&["C-z"])?;
        eventually(SHOWN, "the shell is back", || top.terminal.waits())?;
        top.terminal.run("fg")?;
        goes_on()?;
        top.press(&["q"])?;
        top.gave_back()?;

        // Where nobody answers from the beginning it waits for somebody.
        n1.kill_agent()?;
        top.again("")?;
        top.shows(&["no answer from", "trying again", "Is the agent running?"])?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        goes_on()?;
        top.press(&["q"])?;
        top.gave_back()
    })
}

/// Where there is no terminal it is one table, or one document for each row.
#[test]
fn without_a_terminal_it_is_one_table() -> Result<()> {
    mesh(2, |lab| {
        let n1 = lab.node("n1")?;
        let _tasks = services(lab)?;
        let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
        let counts = on_ebpf(lab, &["flows are not seen", "counters"])?;
        let said = n1.ok("top --interval 2s --sort tasks")?;
        let lines: Vec<_> = said.lines().collect();
        ensure!(lines.len() == 3 && lines[0].starts_with("SERVICE   TASKS   STATE"), "{said}");
        // The most first.
        ensure!(lines[1].starts_with("web       2/2     serving"), "{said}");
        let rows = n1.rows("top --once --interval 1s --view tasks")?;
        ensure!(rows.len() == 2, "{rows:#?}");
        for (place, row) in rows.iter().enumerate() {
            ensure!(row["Name"] == format!("web.{}", place + 1) && row["State"] == "serving", "{row:#}");
            let flows = row["FlowsPerSecond"].as_str().context("no rate")?;
            if counts {
                ensure!((5.0..=100.0).contains(&flows.parse::<f64>()?), "{row:#}");
            } else {
                ensure!(flows == "-" && row["Active"] == "-", "{row:#}");
            }
        }
        load.stop()?;
        let names = n1.mesh(["top", "--view", "nodes", "--format", "{{.Name}} {{.State}}"])?.ok()?;
        ensure!(names == "n1 ready\nn2 ready\n", "{names}");
        mentions(&n1.refused("top --sort cpu")?, &["services have no column 'cpu'", "flows/s"])?;
        mentions(&n1.refused("top --interval 1ms")?, &["from 100ms to 1h"])?;
        n1.kill_agent()?;
        mentions(&n1.refused("top --once")?, &["cannot connect", "Is the agent running?"])
    })
}
