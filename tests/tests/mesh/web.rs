//! The web page in a real browser.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Browser, Lab, LabBuilder, Load, Node, eventually};

use crate::kit::{Cli, READY, everywhere, lab, mentions, on_ebpf, started};

/// How soon the page shows what happened, also where ten others have the processors.
const SHOWN: Duration = Duration::from_secs(5);
/// A first look, on a busy machine.
const OPENED: Duration = Duration::from_secs(20);

fn with_page(nodes: usize) -> Result<LabBuilder> {
    Ok(lab()?.nodes(nodes).config("[web]\nlisten = \"0.0.0.0:7306\"\n"))
}

fn page(node: &Node) -> String {
    format!("http://{}:7306/ui/", node.address())
}

/// The page of a node, once it shows what there is.
fn open(lab: &Lab, node: &Node) -> Result<Browser> {
    let mut browser = Browser::on(lab.client())?;
    browser.resize(1280, 800)?;
    browser.open(&page(node))?;
    browser.becomes(OPENED, "document.getElementById('connection')?.textContent", "Live")?;
    Ok(browser)
}

/// How many boxes of tasks are in some condition.
const SERVING: &str = "document.querySelectorAll('.task[data-condition=serving]').length";
const TASKS: &str = "document.querySelector('.services [role=row] .tasks')?.firstChild.textContent ?? ''";

/// A service whose tasks the mesh runs.
fn create(lab: &Lab, node: &Node, name: &str, options: &str) -> Result<()> {
    let server = lab.programs().web(80).join(" ");
    let words = format!("service create --name {name} --network app {options} --cmd");
    node.mesh(words.split_whitespace().chain([server.as_str()]))?.ok().map(drop)
}

/// Nothing went wrong in the page, and it asked only the node that it came from.
fn is_clean(browser: &mut Browser, node: &Node) -> Result<()> {
    let faults = browser.faults()?;
    ensure!(faults.is_empty(), "{faults:#?}");
    let own = format!("http://{}:7306/", node.address());
    let requests = browser.requests()?;
    ensure!(requests.len() > 10 && requests.iter().all(|url| url.starts_with(&own)), "{requests:#?}");
    Ok(())
}

/// What the mesh is told to do is on the page within a second, as is what its tasks get.
#[test]
fn the_page_follows_the_mesh() -> Result<()> {
    started(with_page(3)?, |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        let mut browser = open(lab, n1)?;
        let shown: String = browser.value("document.querySelector('#services').innerText")?;
        mentions(&shown, &["No service yet", "mesh service create"])?;
        browser.becomes(SHOWN, "document.querySelectorAll('.node').length", 3)?;
        n1.ok("network create app")?;
        create(lab, n1, "web", "-p 8080:80 --replicas 2")?;
        browser.becomes(SHOWN, SERVING, 2)?;
        n2.ok("service scale --detach web=5")?;
        let scaled = Instant::now();
        eventually(SHOWN, "five are wanted", || {
            let tasks: String = browser.value(TASKS)?;
            ensure!(tasks.ends_with("/5"), "{tasks}");
            Ok(())
        })?;
        println!("the page shows what was scaled {:?} after the command", scaled.elapsed());
        browser.becomes(READY, SERVING, 5)?;
        browser.becomes(SHOWN, TASKS, "5/5")?;
        n2.ok("task drain --detach web.1")?;
        let drained = "document.querySelector('.task[aria-label^=\"web.1,\"]').dataset.condition";
        browser.becomes(SHOWN, drained, "draining")?;
        for told in ["service create\nweb", "task drain\nweb.1"] {
            let told = serde_json::to_string(told)?;
            let listed = format!(
                "[...document.querySelectorAll('#events li')].some((line) => line.innerText.endsWith({told}))"
            );
            browser.becomes(SHOWN, &listed, true)?;
        }
        if on_ebpf(lab, &["flows are not seen", "counters"])? {
            let load = Load::start(lab.client().netns(), &[(n1.address(), 8080).into()], 100)?;
            let rate = "parseFloat(document.querySelector('.services .flows').textContent)";
            eventually(READY, "the page tells how many flows begin", || {
                let rate: f64 = browser.value(rate)?;
                // The load is what it can be on a busy machine.
                ensure!((20.0..=140.0).contains(&rate), "{rate}");
                Ok(())
            })?;
            load.stop()?;
            browser.becomes(READY, rate, 0)?;
        } else {
            browser.becomes(
                SHOWN,
                "getComputedStyle(document.querySelector('.trend')).visibility",
                "hidden",
            )?;
        }
        is_clean(&mut browser, n1)
    })
}

/// All of it can be reached by keys, and read on a phone.
#[test]
fn the_page_is_for_keys_and_for_phones() -> Result<()> {
    started(with_page(2)?, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app")?;
        create(lab, n1, "web", "-p 8080:80 -p 8081:81 --replicas 4")?;
        create(lab, n1, "a-service-with-a-name-of-as-many-letters-as-a-name-may-have-63", "")?;
        let mut browser = open(lab, n1)?;
        browser.becomes(OPENED, SERVING, 5)?;
        let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null";
        let painted = eventually(OPENED, "something was painted", || browser.value::<f64>(paint))?;
        println!("the first paint came {painted:.0} ms after the request");
        // What it is without others on the machine is printed above, for people; this is for machines full of tests.
        ensure!(painted < 10_000.0, "the first paint came after {painted} ms");

        browser.press("/")?;
        browser.write("web.2")?;
        let names = "[...document.querySelectorAll('.task')].filter((box) => box.offsetParent)
            .map((box) => box.querySelector('.name').textContent).join()";
        browser.becomes(SHOWN, names, "web.2")?;
        browser.press("Escape")?;
        browser.becomes(SHOWN, "document.querySelector('#filter input').value", "")?;
        let all = "[...document.querySelectorAll('.task')].filter((box) => box.offsetParent).length";
        browser.becomes(SHOWN, all, 5)?;

        // By Tab from the box to the services, and to one of the tasks only.
        browser.press("/")?;
        let focus = "document.activeElement.className + ' ' + document.activeElement.textContent";
        browser.press("Tab")?;
        browser.press("Tab")?;
        browser.becomes(SHOWN, focus, "service web")?;
        browser.press("Tab")?;
        browser.becomes(SHOWN, "document.activeElement.className", "task")?;
        let which = "document.activeElement.querySelector('.name').textContent";
        let first: String = browser.value(which)?;
        browser.press("ArrowRight")?;
        let second: String = browser.value(which)?;
        ensure!(first != second, "{first} {second}");
        let outline: String = browser.value("getComputedStyle(document.activeElement).outlineStyle")?;
        ensure!(outline == "solid", "{outline}");
        browser.press("Enter")?;
        browser.becomes(SHOWN, "document.querySelector('dialog[open] h2')?.textContent", second.as_str())?;
        browser.press("Escape")?;
        browser.becomes(SHOWN, which, second.as_str())?;
        browser.press("End")?;
        browser.press("Home")?;
        browser.becomes(SHOWN, which, first.as_str())?;

        browser.resize(360, 740)?;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme)?;
            browser.becomes(SHOWN, "document.documentElement.scrollWidth", 360)?;
            let wide = "[...document.querySelectorAll('main *')].filter((one) => one.offsetParent
                && one.getBoundingClientRect().right > 361).map((one) => one.className).join()";
            browser.becomes(SHOWN, wide, "")?;
        }
        is_clean(&mut browser, n1)
    })
}

/// When the agent is gone, or answers nothing, the page says that it is old, and goes on by itself afterwards.
#[test]
fn the_page_says_when_it_is_old() -> Result<()> {
    started(with_page(1)?, |lab| {
        let n1 = lab.node("n1")?;
        let mut browser = open(lab, n1)?;
        let phase = "document.getElementById('connection').textContent";
        n1.kill_agent()?;
        browser.becomes(READY, phase, "Old data")?;
        let told: String = browser.value("document.getElementById('notices').innerText")?;
        mentions(&told, &["does not answer", "is from", "Trying again"])?;
        n1.start_agent()?;
        browser.becomes(READY, phase, "Live")?;
        n1.pause_agent()?;
        browser.becomes(READY, phase, "Old data")?;
        n1.resume_agent()?;
        browser.becomes(READY, phase, "Live")?;
        // An agent that stops is not held up by pages.
        let stopped = Instant::now();
        n1.stop_agent()?;
        ensure!(stopped.elapsed() < Duration::from_secs(8), "{:?}", stopped.elapsed());
        ensure!(!n1.log_tail(20).contains("did not stop in time"), "{}", n1.log_tail(20));
        Ok(())
    })
}

/// At its address there is the page and nothing else, for nobody else's page, and no secret in it.
#[test]
fn the_page_can_only_be_read() -> Result<()> {
    started(with_page(1)?, |lab| {
        let n1 = lab.node("n1")?;
        mentions(&n1.log_tail(100), &["web.listen is no loopback address"])?;
        n1.ok("network create app --label key=hunter2")?;
        n1.ok("service create --name web --network app --label key=hunter2")?;
        n1.mesh(["task", "run", "-d", "--service", "web", "--", "env", "TOKEN=hunter2", "sleep", "1000"])?
            .ok()?;
        let root = format!("http://{}:7306", n1.address());
        let ask = |arguments: &[&str], path: &str| {
            let url = format!("{root}{path}");
            let curl = ["curl", "-sS", "-m", "3", "-w", "\n%{http_code}"];
            lab.client().command(curl.iter().chain(arguments).copied().chain([url.as_str()])).run()
        };
        let code = |arguments: &[&str], path: &str| -> Result<String> {
            Ok(ask(arguments, path)?.stdout.lines().last().unwrap_or_default().to_owned())
        };
        for (arguments, path, expected) in [
            (&["-X", "POST"][..], "/ui/", "405"),
            (&["-X", "DELETE"], "/v1/ui/stream", "405"),
            (&[], "/v1/services", "404"),
            (&[], "/v1/status", "404"),
            (&[], "/metrics", "404"),
            (&[], "/ui/..%2f..%2fetc%2fpasswd", "404"),
            (&[], "/", "308"),
            (&["-H", "Host: evil.example"], "/ui/", "421"),
            (&["-H", "Host: n1"], "/ui/", "200"),
            (&["-H", "Sec-Fetch-Site: cross-site"], "/v1/ui/stream", "421"),
        ] {
            let code = code(arguments, path)?;
            ensure!(code == expected, "{arguments:?} {path}: {code}, and not {expected}");
        }
        let headers = ask(&["-D", "-", "-o", "/dev/null"], "/ui/page.js")?.stdout;
        mentions(&headers, &["default-src 'self'", "nosniff", "no-referrer", "text/javascript"])?;
        ensure!(!headers.to_lowercase().contains("cookie") && !headers.contains("unsafe"), "{headers}");
        let told = ask(&[], "/v1/ui/stream")?.stdout;
        mentions(&told, &["event: state", "event: rates", "web.1"])?;
        ensure!(!told.contains("hunter2") && !told.contains("sleep"), "{told}");
        // On the API's socket there is the same.
        let socket = n1.socket().display().to_string();
        let same = n1.command(["curl", "-sS", "--unix-socket", &socket, "http://mesh/ui/"]).ok()?;
        mentions(&same, &["<title>Mesh</title>"])
    })
}

/// Whoever sets it wants pictures to show to others, in target/web.
const KEEP: &str = "MESH_TEST_PICTURES";

/// Pictures of a mesh at work.
#[test]
fn the_page_has_its_picture_taken() -> Result<()> {
    started(with_page(4)?, |lab| {
        let n1 = lab.node("n1")?;
        n1.ok("network create app --subnet 10.30.0.0/16")?;
        create(lab, n1, "web", "-p 8080:80 --replicas 6")?;
        create(lab, n1, "shop", "-p 8443:80 --replicas 4")?;
        create(lab, n1, "search", "-p 9200:80 --replicas 3")?;
        create(lab, n1, "mail", "--replicas 2")?;
        let mut browser = open(lab, n1)?;
        browser.becomes(OPENED, SERVING, 15)?;
        let web = Load::start(lab.client().netns(), &everywhere(lab, 8080), 60)?;
        let shop = Load::start(lab.client().netns(), &everywhere(lab, 8443), 25)?;
        n1.ok("task drain --detach shop.2")?;
        // Charts go back a minute, which only pictures that are kept are worth waiting for.
        let past = if std::env::var_os(KEEP).is_some() { 45 } else { 3 };
        std::thread::sleep(Duration::from_secs(past));
        lab.unplug("n4")?;
        browser.becomes(READY, "document.querySelectorAll('.node[data-state=down]').length", 1)?;
        std::thread::sleep(Duration::from_secs(8));
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/web");
        fs::create_dir_all(&dir)?;
        let mut take = |name: &str, width, height, scheme| -> Result<()> {
            browser.resize(width, height)?;
            browser.prefer(scheme)?;
            std::thread::sleep(Duration::from_secs(2));
            let picture = browser.picture()?;
            let file = dir.join(name);
            let mut decode = std::process::Command::new("base64");
            decode.arg("-d").stdin(std::process::Stdio::piped()).stdout(fs::File::create(&file)?);
            let mut child = decode.spawn()?;
            std::io::Write::write_all(&mut child.stdin.take().context("no pipe")?, picture.as_bytes())?;
            ensure!(child.wait()?.success());
            // A page without anything on it is smaller.
            ensure!(fs::metadata(&file)?.len() > 20_000, "{} is empty", file.display());
            Ok(())
        };
        take("light.png", 1280, 880, "light")?;
        take("dark.png", 1280, 880, "dark")?;
        take("phone.png", 360, 740, "light")?;
        web.stop()?;
        shop.stop()?;
        Ok(())
    })
}
