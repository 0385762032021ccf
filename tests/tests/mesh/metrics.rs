//! The real Prometheus reads what nodes tell of themselves.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, eventually};
use serde_json::Value;

use crate::kit::{Cli, READY, Task, curl, lab, on_ebpf, started, url};

/// Where rules and the dashboard are.
fn packaging() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../mesh-agent/packaging/prometheus")
}

/// What Prometheus answers to a query: values by one of the labels.
fn query(lab: &Lab, expression: &str, label: &str) -> Result<Vec<(String, f64)>> {
    let ask = ["curl", "-sS", "-m", "5", "-G", "http://127.0.0.1:9090/api/v1/query", "--data-urlencode"];
    let asked = format!("query={expression}");
    let said = lab.client().command(ask.into_iter().chain([asked.as_str()])).ok()?;
    let said: Value = serde_json::from_str(&said).context(said)?;
    ensure!(said["status"] == "success", "{said}");
    let rows = said["data"]["result"].as_array().context("no result")?;
    let row = |row: &Value| {
        let value = row["value"][1].as_str().context("no value")?;
        Ok((row["metric"][label].as_str().unwrap_or_default().to_owned(), value.parse()?))
    };
    rows.iter().map(row).collect()
}

#[test]
fn prometheus_reads_nodes_and_their_alerts() -> Result<()> {
    started(lab()?.nodes(2).config("[metrics]\nlisten = \"0.0.0.0:7305\"\n"), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let task = Task::web(lab, n2, "web")?;
        let dir = lab.dir().join("prometheus");
        fs::create_dir_all(&dir)?;
        let rules = packaging().join("mesh.rules.yml");
        let targets = lab.nodes().iter().map(|node| format!("'{}:7305'", node.address())).collect::<Vec<_>>();
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: mesh\n    static_configs: [{{targets: [{}]}}]\n",
            rules.display(),
            targets.join(", ")
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, text)?;
        lab.client()
            .command(["promtool".as_ref(), "check".as_ref(), "config".as_ref(), file.as_os_str()])
            .ok()?;
        let page =
            lab.client().command(["curl", "-sS", &format!("http://{}:7305/metrics", n1.address())]).ok()?;
        let checked = lab.client().command(["promtool", "check", "metrics"]).stdin(page).ok();
        checked.context("promtool finds fault with the metrics")?;
        let flags = [
            "prometheus".to_owned(),
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
        ];
        let _prometheus = lab.client().spawn_daemon("prometheus", &flags)?;

        eventually(READY, "both nodes are up and say that a task serves", || {
            let up = query(lab, "up", "instance")?;
            ensure!(up.len() == 2 && up.iter().all(|(_, value)| *value == 1.0), "{up:?}");
            let serving = query(lab, "max by (service) (mesh_service_serving_tasks)", "service")?;
            ensure!(serving == [("web".to_owned(), 1.0)], "{serving:?}");
            let behind = query(lab, "mesh_wanted_revision - mesh_applied_revision > 0", "instance")?;
            ensure!(behind.is_empty(), "{behind:?}");
            Ok(())
        })?;
        if on_ebpf(lab, &["flows are not seen", "counters"])? {
            for _ in 0..10 {
                curl(lab.client(), &url(n1, 8080))?;
            }
            eventually(READY, "the flows that n1 sent to the task are counted", || {
                let flows = query(lab, "sum by (task) (mesh_backend_flows_total)", "task")?;
                ensure!(flows == [(task.name.clone(), 10.0)], "{flows:?}");
                Ok(())
            })?;
        }
        lab.unplug("n2")?;
        eventually(READY, "an alert waits for a node that does not answer", || {
            let alerts = query(lab, "ALERTS{alertname=\"MeshNodeUnreachable\"}", "node")?;
            ensure!(alerts.iter().any(|(node, _)| node == "n2"), "{alerts:?}");
            Ok(())
        })
    })
}

/// Every query of the dashboard is one, and asks for metrics that there are.
#[test]
fn the_dashboard_asks_for_what_there_is() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(packaging().join("grafana.json"))?)?;
    let known = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md"))?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut names = 0;
    for panel in panels {
        let expression = panel["targets"][0]["expr"].as_str().context("no query")?;
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("mesh_") || word.starts_with("process_")) {
            ensure!(
                known.contains(&format!("| `{name}")),
                "{name} of {} is not in docs/metrics.md",
                panel["title"]
            );
            names += 1;
        }
    }
    ensure!(names > panels.len() / 2, "{names} names in {} panels", panels.len());
    Ok(())
}

/// Which alerts there are when, by Prometheus' own judgement.
#[test]
fn alerts_come_when_they_should() -> Result<()> {
    let file = packaging().join("mesh.rules.test.yml");
    let said = Command::new("promtool").args(["test", "rules"]).arg(&file).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    Ok(())
}
