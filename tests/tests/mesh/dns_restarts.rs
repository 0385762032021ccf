//! Names while agents go and come back, where somebody keeps their sockets meanwhile.

use std::{
    fs::{self, File},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, LabBuilder, Node, Process, eventually, lab_test};

use crate::kit::{Cli, READY, SOON, Task, dig, lab, vip};
use crate::managed::{APART, is, patiently};

/// Asks for names in a task, again and again, until it is told to stop. A line of what it says is a question's outcome.
struct Asking {
    process: Process,
    question: &'static str,
    answer: String,
    dir: PathBuf,
}

impl Asking {
    fn start(from: &Task<'_>, name: &str, question: &'static str, answer: &str) -> Result<Self> {
        let dir = from.node.dir();
        File::create(dir.join("asked"))?;
        // Whoever waits for the lock alone would wait for ever if nobody else stood back.
        let script = format!(
            "cd {} && until [ -e stop ]; do while [ -e pause ]; do sleep 0.01; done; \
             said=$(flock --shared asked {question} 2>&1); echo $? $said; done",
            dir.display()
        );
        let pid = from.pid.to_string();
        let argv = ["nsenter", "-t", &pid, "-n", "-m", "--", "sh", "-c", &script];
        let process = from.node.spawn_daemon(&format!("ask-{name}"), argv)?;
        Ok(Self { process, question, answer: format!("0 {answer}"), dir: dir.to_owned() })
    }

    /// An error if any question had another answer than it should.
    fn stop(mut self, at_least: usize) -> Result<()> {
        File::create(self.dir.join("stop"))?;
        self.process.wait(SOON)?;
        let said = fs::read_to_string(self.process.log())?;
        let wrong: Vec<_> = said.lines().filter(|line| !line.starts_with(&self.answer)).collect();
        let all = said.lines().count();
        ensure!(wrong.is_empty(), "`{}`: of {all} questions these failed: {wrong:#?}", self.question);
        ensure!(all >= at_least, "`{}` was asked {all} times", self.question);
        Ok(())
    }
}

/// Runs something while no question is under way: what an agent has just read dies with it when it is killed.
fn between_questions<T>(node: &Node, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let pause = node.dir().join("pause");
    File::create(&pause)?;
    let asked = File::open(node.dir().join("asked"))?;
    asked.lock().context("cannot wait for the end of a question")?;
    let outcome = act();
    fs::remove_file(pause)?;
    outcome
}

/// A node whose agents' descriptors are kept, with a service and a task that looks at it.
fn kept(test: impl FnOnce(&Lab, &Node, &Task<'_>) -> Result<()>) -> Result<()> {
    kept_in(lab()?, test)
}

fn kept_in(lab: LabBuilder, test: impl FnOnce(&Lab, &Node, &Task<'_>) -> Result<()>) -> Result<()> {
    lab_test(lab.nodes(1), |lab| {
        let n1 = lab.node("n1")?;
        n1.keep_descriptors()?;
        lab.start_agents(READY)?;
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app")?;
        let idle = Task::idle(n1, "app")?;
        eventually(SOON, "the name is known", || dig(&idle, "web")?.ip())?;
        test(lab, n1, &idle)
    })
}

/// Every name that is asked for while the agent is away waits for its return and is answered: the mesh's and the world's,
/// by UDP and TCP, by `dig`, which asks once, and by the C library. Asked to end, or killed; nobody is refused, and nobody
/// waits until he asks again.
#[test]
fn no_question_is_lost_while_the_agent_is_started_anew() -> Result<()> {
    kept(|lab, n1, idle| {
        let _dns = lab.outside().spawn_daemon("dns", lab.programs().internet_dns())?;
        eventually(SOON, "the world's names are known", || dig(idle, "www.example.test")?.ip())?;
        let web = vip(n1, "web")?.to_string();
        let world = lab.outside().address().to_string();
        let asking = [
            Asking::start(idle, "udp", "dig +tries=1 +time=4 +short web", &web)?,
            Asking::start(idle, "tcp", "dig +tries=1 +time=4 +short +tcp web", &web)?,
            Asking::start(idle, "c", "timeout 4 getent hosts web", &web)?,
            Asking::start(idle, "world", "dig +tries=1 +time=4 +short www.example.test", &world)?,
        ];
        for _ in 0..2 {
            for killed in [false, true] {
                thread::sleep(Duration::from_millis(500));
                if killed {
                    between_questions(n1, || n1.kill_agent())?;
                } else {
                    n1.stop_agent()?;
                }
                thread::sleep(Duration::from_millis(300));
                n1.start_agent()?;
                n1.wait_ready(READY)?;
            }
        }
        thread::sleep(Duration::from_millis(500));
        asking.into_iter().try_for_each(|asking| asking.stop(10))
    })
}

/// What is kept is of tasks that there are: of those that went, also while no agent ran, nothing is, and what others have
/// kept is theirs. Nothing of all this is known to what the agent starts.
#[test]
fn sockets_are_kept_as_long_as_their_tasks() -> Result<()> {
    kept(|_, n1, idle| {
        let has = |count: usize| {
            eventually(SOON, "what is kept is of tasks that there are", || {
                let names = n1.kept_descriptors()?;
                ensure!(names.len() == count, "not {count}: {names:?}");
                Ok(names)
            })
        };
        has(2)?;
        let another = || Task::run(n1, "--network app", &["sleep", "1000"]);
        let other = another()?;
        has(4)?;
        other.rm()?;
        has(2)?;

        let other = another()?;
        has(4)?;
        n1.keep_stranger("somebody-elses")?;
        let before = has(5)?;
        n1.stop_agent()?;
        n1.exec(["kill", "-9", &other.pid.to_string()])?.ok()?;
        ensure!(has(5)? == before, "an agent that ends takes nothing away");
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        let left = has(3)?;
        ensure!(left.iter().filter(|name| *name == "somebody-elses").count() == 1, "{left:?}");
        ensure!(left.iter().all(|name| before.contains(name)), "others: {left:?}, before: {before:?}");
        let log = n1.log_tail(50);
        let told =
            log.lines().filter(|line| line.contains("WARN") && line.contains("somebody-elses")).count();
        ensure!(told == 1, "{log}");
        ensure!(dig(idle, "web")?.ip()? == vip(n1, "web")?);

        let process = PathBuf::from(format!("/proc/{}", n1.agent_id()?));
        let environment = fs::read(process.join("environ"))?;
        ensure!(
            !String::from_utf8_lossy(&environment).contains("LISTEN_"),
            "the agent's children have its variables"
        );
        for info in fs::read_dir(process.join("fdinfo"))? {
            let info = info?.path();
            let number: u32 = info.file_name().and_then(|name| name.to_str()).context("no name")?.parse()?;
            // One may be closed by now.
            let text = fs::read_to_string(&info).unwrap_or_default();
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
            let closes = flags.is_none_or(|flags| {
                u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o2000000 != 0)
            });
            ensure!(number < 3 || closes, "the agent's children have its descriptor {number}: {text}");
        }
        Ok(())
    })
}

/// A task that is added when the agent is about to be killed, and one whose rules are gone when the next one comes.
#[test]
fn a_task_of_the_last_moment_and_one_without_rules_are_served() -> Result<()> {
    kept(|_, n1, idle| {
        let young = Task::run(n1, "--network app", &["sleep", "1000"])?;
        let web = vip(n1, "web")?;
        n1.kill_agent()?;
        idle.command(["nft", "delete", "table", "inet", "mesh_dns"]).ok()?;
        n1.start_agent()?;
        n1.wait_ready(READY)?;
        for task in [&young, idle] {
            eventually(SOON, "the task is answered", || {
                ensure!(dig(task, "web")?.ip()? == web);
                Ok(())
            })?;
        }
        // The same sockets as before, for the task is the same.
        let names = n1.kept_descriptors()?;
        ensure!(names.len() == 4, "{names:?}");
        Ok(())
    })
}

/// A node that becomes a manager has another agent, in the same process: nothing that was asked is lost.
#[test]
fn no_question_is_lost_when_a_node_becomes_a_manager() -> Result<()> {
    kept_in(lab()?.config(APART), |_, n1, idle| {
        let asking =
            Asking::start(idle, "udp", "dig +tries=1 +time=4 +short web", &vip(n1, "web")?.to_string())?;
        patiently(n1, "cluster init")?;
        is(n1, "managed")?;
        asking.stop(5)?;
        let names = n1.kept_descriptors()?;
        ensure!(names.len() == 2, "{names:?}");
        Ok(())
    })
}
