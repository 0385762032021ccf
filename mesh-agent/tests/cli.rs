//! The real program against the real API: what scripts rely on.

mod harness;

use std::process::Stdio;

use harness::{Mesh, mesh};
use mesh_core::plan::Problem;
use serde_json::{Value, json};

/// `docs/` promise of byte-exact JSON: key names and order are Docker's (swarm.md A24, A25, A33).
#[tokio::test]
async fn endpoints_are_dockers_byte_for_byte() {
    let m = Mesh::with_web().await;
    let ports = r#"[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}]"#;
    let network = m.get("/v1/networks/app").await["ID"].as_str().unwrap().to_owned();
    let vips = m.stdout(&["service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web"]).await;
    let address = serde_json::from_str::<Value>(&vips).unwrap()[0]["Addr"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.7.") && address.ends_with("/16"), "{address}");
    assert_eq!(vips, format!("[{{\"NetworkID\":\"{network}\",\"Addr\":\"{address}\"}}]\n"));
    let asked = m.stdout(&["service", "inspect", "--format", "{{json .Endpoint.Spec.Ports}}", "web"]).await;
    assert_eq!(asked, format!("{ports}\n"));
    let endpoint = m.stdout(&["service", "inspect", "web", "--format", "{{json .Endpoint}}"]).await;
    assert_eq!(
        endpoint,
        format!("{{\"Spec\":{{\"Mode\":\"vip\",\"Ports\":{ports}}},\"Ports\":{ports},\"VirtualIPs\":{vips}")
            .trim_end()
            .to_owned()
            + "}\n"
    );
    m.stdout(&["service", "update", "-d", "--publish-rm", "8080:80", "web"]).await;
    let endpoint = m.stdout(&["service", "inspect", "--format", "{{json .Endpoint}}", "web"]).await;
    assert_eq!(endpoint, format!("{{\"Spec\":{{\"Mode\":\"vip\"}},\"VirtualIPs\":{}}}\n", vips.trim_end()));
}

#[tokio::test]
async fn a_service_from_first_to_last() {
    let m = Mesh::start().await;
    let id = m
        .stdout(&["network", "create", "-d", "overlay", "--attachable", "--subnet", "10.7.0.0/16", "app"])
        .await;
    assert_eq!(id.trim_end().len(), 25);
    let made = m
        .mesh(&[
            "service",
            "create",
            "--name",
            "web",
            "--network",
            "app,alias=www",
            "-p",
            "8080-8082:80-82",
            "-p",
            "53:53/udp",
        ])
        .await;
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8(made.stderr).unwrap();
    assert_eq!(said, "overall progress: 1 out of 1 nodes\nverify: Service converged\n");
    let quiet = m
        .mesh(&["service", "create", "-q", "--name", "db", "--network", "app", "--endpoint-mode", "dnsrr"])
        .await;
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
    m.task().await;
    let ls = m
        .stdout(&["service", "ls", "--format", "table {{.Name}}\\t{{.Mode}}\\t{{.Replicas}}\\t{{.Ports}}"])
        .await;
    insta::assert_snapshot!(ls, @r"
    NAME   MODE    REPLICAS   PORTS
    db     dnsrr   0/0
    web    vip     1/1        *:8080-8082->80-82/tcp, *:53->53/udp
    ");
    let ls = m.stdout(&["service", "ls"]).await;
    assert!(ls.starts_with("ID             NAME   MODE    REPLICAS   PORTS\n"), "{ls}");
    let ids = m.stdout(&["service", "ls", "-q"]).await;
    assert!(ids.lines().count() == 2 && ids.lines().all(|id| id.len() == 12), "{ids}");
    let rows = m.stdout(&["service", "ls", "--format", "json"]).await;
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[1]["Name"], &rows[1]["Replicas"]), (&json!("web"), &json!("1/1")));
    let ps = m.stdout(&["service", "ps", "web"]).await;
    assert!(ps.contains("web.1   n1     Running         Running"), "{ps}");
    let labels = ["--label-add", "a=b", "--network-add", "nope"];
    let (said, code) = m.refused(&[&["service", "update"], &labels[..], &["web"]].concat()).await;
    assert_eq!((said.as_str(), code), ("mesh: network nope not found\n", 1));
    let again = ["--network-add", "app", "--balancing", "maglev", "web"];
    let update = [&["service", "update", "--label-add", "a=b"], &again[..]].concat();
    assert_eq!(m.stdout(&update).await, "web\n", "it is in that network already");
    let shown =
        m.stdout(&["service", "inspect", "--format", "{{.Spec.Labels.a}} {{.Spec.Balancing}}", "web"]).await;
    assert_eq!(shown, "b maglev\n");
    let pretty = m.stdout(&["service", "inspect", "--pretty", "web"]).await;
    assert!(pretty.contains("Endpoint Mode:\tvip\n"), "{pretty}");
    assert_eq!(m.stdout(&["task", "rm", "--force", "web.1"]).await, "web.1\n");
    assert_eq!(m.stdout(&["service", "rm", "web", "db"]).await, "web\ndb\n");
    assert_eq!(m.stdout(&["network", "rm", "app"]).await, "app\n");
    assert_eq!(m.stdout(&["network", "ls", "-q"]).await, "");
}

#[tokio::test]
async fn of_several_each_failure_is_told() {
    let m = Mesh::with_web().await;
    let output = m.mesh(&["service", "inspect", "nope", "web", "no/pe"]).await;
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found.as_array().unwrap().len() == 1 && found[0]["Spec"]["Name"] == "web");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "mesh: service nope not found\nmesh: service no/pe not found\n");
    let output = m.mesh(&["service", "rm", "-d", "nope", "web"]).await;
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"web\n"[..]));
}

#[tokio::test]
async fn nodes_and_convergence() {
    let m = Mesh::with_web().await;
    m.join("node0000000000000000000n2", "n2", "192.0.2.2").await;
    m.live("node0000000000000000000n2", 9999, &["uplink is slow"]).await;
    let ls = m.stdout(&["node", "ls"]).await;
    insta::assert_snapshot!(ls, @r"
    ID                            HOSTNAME   STATUS   AVAILABILITY   ADDRESS     APPLIED
    node0000000000000000000n1 *   n1         Ready    Active         192.0.2.1   5
    node0000000000000000000n2     n2         Ready    Active         192.0.2.2   9999
    ");
    let drained = m.mesh(&["node", "update", "--availability", "drain", "n2"]).await;
    assert!(drained.status.success());
    let said = String::from_utf8(drained.stderr).unwrap();
    assert!(
        said.contains("overall progress: 2 out of 2 nodes, 0 connections left\nverify: Drained"),
        "{said}"
    );
    assert_eq!(m.stdout(&["node", "inspect", "--format", "{{.Spec.Availability}}", "n2"]).await, "drain\n");
    assert!(m.stdout(&["node", "inspect", "--pretty", "n2"]).await.contains(" - uplink is slow\n"));
    assert_eq!(m.stdout(&["node", "ls", "--format", "{{.Hostname}} {{.Self}}"]).await, "n1 true\nn2 false\n");
    assert_eq!(m.refused(&["node", "rm", "n2"]).await.1, 1);
    assert_eq!(m.stdout(&["node", "rm", "--force", "n2"]).await, "n2\n");
}

#[tokio::test]
async fn status_and_explain() {
    let m = Mesh::with_web().await;
    m.task().await;
    let status = m.stdout(&["status"]).await;
    assert!(status.starts_with("Node:     n1 (node0000000000000000000n1), healthy, mesh "), "{status}");
    m.store.say(|status| {
        status.problems.push(Problem { about: "network app".to_owned(), message: "has no room".to_owned() });
    });
    let output = m.mesh(&["status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("  network app: has no room\n"));
    let output = m.mesh(&["status", "--format", "json"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["Healthy"], false);
    let explained = m.stdout(&["explain", "web.1", "web:80"]).await;
    assert!(explained.contains("balanced by node n1 over 1 task of web"), "{explained}");
    assert!(explained.contains("\nTASK    NODE   ADDRESS"), "{explained}");
    let verdict = m
        .stdout(&["explain", "198.51.100.1", "192.0.2.1:8080", "--format", "{{.Service}} {{.Refused}}"])
        .await;
    assert_eq!(verdict, "web false\n");
    // The port of the client changes nothing of the decision; without a kernel there is no more to tell.
    let explained = m.stdout(&["explain", "web.1:4000", "web:80"]).await;
    assert!(explained.contains("balanced by node n1") && !explained.contains("In the kernel"), "{explained}");
    let (said, code) = m.refused(&["monitor"]).await;
    assert_eq!(code, 1);
    assert_eq!(
        said,
        "mesh: the nft data plane has no monitor; with dataplane.mode = \"ebpf\" there is one\n"
    );
    let (said, _) = m.refused(&["monitor", "--service", "a b"]).await;
    assert_eq!(said, "mesh: service a b not found\n");
    let (said, _) = m.refused(&["monitor", "--format", "{{.Nmae}}"]).await;
    assert!(said.contains("there is no field .Nmae"), "{said}");
}

#[tokio::test]
async fn wrong_usage_and_templates() {
    let m = Mesh::with_web().await;
    for (args, code, said) in [
        (
            &["service", "ls", "--format", "{{.Nmae}}"][..],
            1,
            "template: there is no field .Nmae; there are .ID, .Name,",
        ),
        (&["service", "ls", "--format", "{{if}}"], 2, "is not understood"),
        (
            &["service", "create", "--name", "x", "-p", "published=1,target=1,mode=x"],
            2,
            "invalid publish mode value (x): must be either 'ingress' or 'host'",
        ),
        (&["service", "create", "--name", "x", "--drain-timeout", "5"], 2, "a unit is missing"),
        (&["service", "create", "--name", "wéb", "--network", "app"], 1, "mesh: invalid name 'wéb'"),
        (&["service", "create", "--name", "x", "--network", "app", "-p", "8080:80"], 1, "as an ingress port"),
        (&["network", "create", "--subnet", "10.0.3.0", "x"], 2, "did you mean 10.0.3.0/24?"),
        (&["network", "create", "--opt", "encrypted", "x"], 1, "encrypted networks are not supported yet"),
        (&["service", "frobnicate"], 2, "unrecognized subcommand"),
        (
            &["task", "run", "--service", "web", "--", "no-such-command"],
            127,
            "no-such-command: command not found",
        ),
        (
            &["task", "run", "-d", "--service", "web", "--", "/etc/passwd"],
            126,
            "/etc/passwd: permission denied",
        ),
    ] {
        let (stderr, found) = m.refused(args).await;
        assert!(found == code && stderr.contains(said), "{args:?}: {found} {stderr}");
    }
    assert_eq!(m.stdout(&["service", "ls", "--format", "{{.Name}}: {{.Replicas}}"]).await, "web: 0/0\n");
}

#[tokio::test]
async fn a_missing_agent_is_named() {
    let output = mesh("unix:///nowhere/mesh.sock", &["service", "ls"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "mesh: cannot connect to the mesh agent at unix:///nowhere/mesh.sock: no such file. Is the agent running?\n"
    );
    let output = mesh("unix:///nowhere/mesh.sock", &["version"]).await;
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stdout).unwrap().starts_with("Client: ")),
        (Some(1), true)
    );
}

/// A reader that has seen enough is no error.
#[tokio::test]
async fn a_closed_pipe_is_no_panic() {
    let m = Mesh::with_web().await;
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["service", "inspect", "web"])
        .env("MESH_HOST", &m.host)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn completions_know_every_verb() {
    let script = String::from_utf8(mesh("unix:///x", &["completions", "bash"]).await.stdout).unwrap();
    for verb in ["network", "service", "task", "node", "status", "explain", "monitor"] {
        assert!(script.contains(verb));
    }
    let offered = script.lines().filter(|line| line.trim_start().starts_with("opts="));
    assert!(!offered.collect::<String>().contains("task-exec"));
}
