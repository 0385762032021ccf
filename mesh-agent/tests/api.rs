//! The API on a real socket: everything can be made, seen, changed and removed; what is refused says why.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod harness;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::{Mesh, origin, refusal};
use mesh_agent::api::document;
use mesh_agent::api::types::{
    Changed, Counters, ErrorKind, EventMessage, WatchAction, WatchEvent, WatchKind, format_moment,
};
use mesh_agent::dataplane::ebpf::{Occupancy, Served};
use mesh_core::whois::Whois;
use mesh_ebpf::abi::Stats;
use mesh_ebpf::verdict::Event;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[tokio::test]
async fn networks_live() {
    let mesh = Mesh::start().await;
    let spec = json!({"Name": "app", "Driver": "overlay", "Internal": true, "Labels": {"a": "b"},
        "IPAM": {"Config": [{"Subnet": "10.9.0.0/16"}, {"Subnet": "fd00:9::/64"}]},
        "Options": {"com.docker.network.driver.mtu": "1400"}});
    let made = mesh.post("/v1/networks", spec.clone()).await;
    assert!(made.name == "app" && made.revision > 0);
    let (message, kind) = refusal(mesh.client.post::<Changed>("/v1/networks", &spec).await);
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("network with name app already exists"), "{message}");
    let found = mesh.get(&format!("/v1/networks/{}", &made.id[..8])).await;
    assert_eq!(found, mesh.get("/v1/networks/app").await);
    assert_eq!(found["IPAM"]["Config"][1]["Subnet"], "fd00:9::/64");
    assert_eq!(
        (&found["Internal"], &found["Labels"]["a"], &found["VNI"]),
        (&json!(true), &json!("b"), &json!(4096))
    );
    assert_eq!(found["Options"]["com.docker.network.driver.mtu"], "1400");
    assert_eq!(mesh.get("/v1/networks").await, json!([found]));
    let gone: Changed = mesh.client.delete("/v1/networks/app").await.unwrap();
    assert!(gone.id == made.id && gone.revision > made.revision);
    assert_eq!(
        refusal(mesh.client.get::<Value>("/v1/networks/app").await),
        ("network app not found".to_owned(), ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn services_live() {
    let mesh = Mesh::with_web().await;
    let web = mesh.get("/v1/services/web").await;
    assert_eq!(web["Version"]["Index"], 1);
    assert_eq!(web["Spec"]["DrainTimeout"], "30s");
    assert_eq!(web["ServiceStatus"], json!({"RunningTasks": 0, "DesiredTasks": 0}));
    let update = json!({"Version": {"Index": 1}, "PublishAdd": [{"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53,
        "HostIP": ["192.0.2.1"], "Nodes": ["n1"], "Allow": ["10.0.0.0/8"]}], "Balancing": "maglev",
        "Affinity": {"Mode": "client-ip", "Timeout": "1m30s"}, "LabelAdd": {"tier": "front"}, "DrainTimeout": "500ms"});
    let changed: Changed = mesh.client.patch("/v1/services/web", &update).await.unwrap();
    assert_eq!(changed.id, web["ID"]);
    let (message, kind) = refusal(mesh.client.patch::<Changed>("/v1/services/web", &update).await);
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("update out of sequence"), "{message}");
    let web = mesh.get("/v1/services/web").await;
    assert_eq!(
        web["Endpoint"]["Ports"][1].to_string(),
        r#"{"Protocol":"udp","TargetPort":53,"PublishedPort":53,"PublishMode":"ingress","HostIP":["192.0.2.1"],"Nodes":["n1"],"Allow":["10.0.0.0/8"]}"#
    );
    assert_eq!(web["Spec"]["Affinity"], json!({"Mode": "client-ip", "Timeout": "1m30s"}));
    assert_eq!(
        (&web["Spec"]["ReturnPath"], web["Spec"].get("IdleTimeout"), &web["Spec"]["SlowStart"]),
        (&json!("tunnel"), None, &json!("0s"))
    );
    for (update, idle) in [
        (json!({"ReturnPath": "dsr", "IdleTimeout": "90s", "SlowStart": "10m"}), Some(json!("1m30s"))),
        (json!({"LabelAdd": {"tier": "back"}}), Some(json!("1m30s"))),
        (json!({"IdleTimeout": "default"}), None),
        (json!({"IdleTimeout": "120h"}), Some(json!("120h"))),
        (json!({"IdleTimeout": "0"}), None),
    ] {
        let _: Changed = mesh.client.patch("/v1/services/web", &update).await.unwrap();
        let spec = mesh.get("/v1/services/web").await["Spec"].clone();
        assert_eq!(spec.get("IdleTimeout"), idle.as_ref(), "{update}");
        assert_eq!((&spec["ReturnPath"], &spec["SlowStart"]), (&json!("dsr"), &json!("10m")), "{update}");
    }
    let changed: Changed = mesh
        .client
        .patch("/v1/services/web", &json!({"ReturnPath": "snat", "SlowStart": "0"}))
        .await
        .unwrap();
    let nothing: Changed = mesh.client.patch("/v1/services/web", &json!({})).await.unwrap();
    assert_eq!(
        nothing.revision, changed.revision,
        "what changes nothing is applied where the last change is"
    );
    let dnsrr: Changed =
        mesh.client.patch("/v1/services/web", &json!({"EndpointMode": "dnsrr"})).await.unwrap();
    assert!(dnsrr.revision > changed.revision);
    assert_eq!(mesh.get("/v1/services/web").await["Endpoint"].get("VirtualIPs"), None);
    let (message, kind) = refusal(mesh.client.delete::<Changed>("/v1/networks/app").await);
    assert_eq!((message.contains("in use by service web"), kind), (true, ErrorKind::Conflict));
    let _: Changed = mesh.client.delete("/v1/services/web").await.unwrap();
    assert_eq!(mesh.get("/v1/services").await, json!([]));
}

#[tokio::test]
async fn tasks_live() {
    let mesh = Mesh::with_web().await;
    let made = mesh.task().await;
    assert_eq!(made.name, "web.1");
    let task = mesh.get("/v1/tasks/web.1").await;
    assert_eq!(task["Origin"], origin());
    assert_eq!((&task["Status"]["State"], &task["InBalance"]), (&json!("running"), &json!(true)));
    let address = task["NetworksAttachments"][0]["Addresses"][0].as_str().unwrap();
    assert!(address.starts_with("10.7.") && address.ends_with("/16"), "{address}");
    assert_eq!(
        mesh.get("/v1/services/web").await["ServiceStatus"],
        json!({"RunningTasks": 1, "DesiredTasks": 1})
    );
    assert_eq!(task["InBalanceSince"], task["CreatedAt"], "it came running");
    let drain = json!({"Draining": true, "Health": "healthy", "Weight": 5, "Message": "soon"});
    let _: Changed = mesh.client.patch("/v1/tasks/web.1", &drain).await.unwrap();
    let task = mesh.get(&format!("/v1/tasks/{}", made.id)).await;
    assert_eq!((&task["Reason"], &task["Weight"]), (&json!("is draining"), &json!(5)));
    assert_eq!(task.get("InBalanceSince"), None);
    assert_eq!(mesh.get("/v1/services/web/tasks").await, json!([task]));
    let _: Changed = mesh.client.delete("/v1/tasks/web.1").await.unwrap();
    assert_eq!(mesh.get("/v1/tasks/web.1").await["DesiredState"], "shutdown");
    let _: Changed = mesh.client.delete("/v1/tasks/web.1?force").await.unwrap();
    assert_eq!(mesh.get("/v1/tasks").await, json!([]));
    for (origin, why) in [
        (json!({}), "either a Pid"),
        (json!({"Pid": 1}), "needs its StartTime"),
        (origin(), "the node's own network namespace"),
        (json!({"Pid": 1, "StartTime": 2, "Netns": "/x"}), "either a Pid"),
    ] {
        let (message, kind) = refusal(
            mesh.client.post::<Changed>("/v1/tasks", &json!({"Service": "web", "Origin": origin})).await,
        );
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains(why), "{message}");
    }
}

#[tokio::test]
async fn nodes_live() {
    let mesh = Mesh::start().await;
    mesh.join("node0000000000000000000n2", "n2", "192.0.2.2").await;
    let nodes = mesh.get("/v1/nodes").await;
    assert_eq!((&nodes[0]["Self"], &nodes[0]["Status"]["State"]), (&json!(true), &json!("ready")));
    assert_eq!((&nodes[1]["Self"], &nodes[1]["Status"]["State"]), (&json!(false), &json!("unknown")));
    let drained: Changed =
        mesh.client.patch("/v1/nodes/n2", &json!({"Availability": "drain"})).await.unwrap();
    assert_eq!(mesh.get("/v1/nodes/n2").await["Spec"]["Availability"], "drain");
    assert_eq!(mesh.get("/v1/nodes/self").await, mesh.get("/v1/nodes/n1").await);
    assert!(mesh.get("/v1/nodes/self").await["Status"]["AppliedRevision"].as_u64() >= Some(drained.revision));
    let (message, kind) = refusal(mesh.client.delete::<Changed>("/v1/nodes/n1").await);
    assert_eq!((message.contains("is alive"), kind), (true, ErrorKind::Conflict));
    let _: Changed = mesh.client.delete("/v1/nodes/n2").await.unwrap();
    let _: Changed = mesh.client.delete("/v1/nodes/n1?force=true").await.unwrap();
    assert_eq!(mesh.get("/v1/nodes").await, json!([]));
}

#[tokio::test]
async fn status_and_explanations() {
    let mesh = Mesh::with_web().await;
    mesh.task().await;
    let status = mesh.get("/v1/status").await;
    assert_eq!((&status["Healthy"], &status["NodeName"]), (&json!(true), &json!("n1")));
    assert_eq!(status["AppliedRevision"], status["WantedRevision"]);
    let ask = |client: &str, to: &str| json!({"Client": client, "Destination": to, "Port": 80});
    let answer: Value = mesh.client.post("/v1/explain", &ask("web.1", "web")).await.unwrap();
    assert_eq!(answer["Service"], "web");
    assert_eq!(answer["Backends"][0]["Task"], "web.1");
    let outside: Value = mesh.client.post("/v1/explain", &ask("203.0.113.9", "web")).await.unwrap();
    assert!(outside["Refused"] == true && outside["Verdict"].as_str().unwrap().contains("is not in it"));
    for (client, to, kind) in
        [("web.9", "web", ErrorKind::NotFound), ("203.0.113.9", "db", ErrorKind::NotFound)]
    {
        assert_eq!(refusal(mesh.client.post::<Value>("/v1/explain", &ask(client, to)).await).1, kind);
    }
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let mesh = Mesh::with_web().await;
    for (path, body, said) in [
        ("/v1/networks", json!({"Name": "a", "Subnet": "x"}), "unknown field `Subnet`"),
        ("/v1/networks", json!({"Name": "a", "Driver": "bridge"}), "every network is an 'overlay'"),
        ("/v1/networks", json!({"Name": "a", "Options": {"dsr": ""}}), "unknown network option 'dsr'"),
        (
            "/v1/networks",
            json!({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.0.0.0"}]}}),
            "invalid request body",
        ),
        ("/v1/networks", json!({"Name": "wéb"}), "invalid name 'wéb': 'é' is not allowed"),
        ("/v1/networks", json!({"Name": "網路"}), "a name is one DNS label"),
        (
            "/v1/services",
            json!({"Name": "a", "EndpointSpec": {"Mode": "x"}}),
            "unknown variant `x`, expected `vip` or `dnsrr`",
        ),
        (
            "/v1/services",
            json!({"Name": "a", "EndpointSpec": {"Ports": [{"TargetPort": 80}]}}),
            "missing field `PublishedPort`",
        ),
        ("/v1/services", json!({"Name": "a", "DrainTimeout": "5"}), "a unit is missing"),
        ("/v1/services", json!({"Name": "a", "IdleTimeout": "never"}), "a number is missing"),
        (
            "/v1/services",
            json!({"Name": "a", "Networks": [{"Target": "app"}], "IdleTimeout": "9999ms"}),
            "invalid idle timeout (9.999s): must be between 10s and 120h, or 'default'",
        ),
        (
            "/v1/services",
            json!({"Name": "a", "Networks": [{"Target": "app"}], "SlowStart": "1h1s"}),
            "invalid slow start (3601s): must be at most 1h",
        ),
        (
            "/v1/services",
            json!({"Name": "a", "ReturnPath": "nat"}),
            "unknown variant `nat`, expected one of `tunnel`, `dsr`, `snat`",
        ),
        ("/v1/services", json!({"Name": "a"}), "name one with --network"),
        ("/v1/services", json!(["a"]), "it is no JSON object"),
    ] {
        let (message, kind) = refusal(mesh.client.post::<Changed>(path, &body).await);
        assert!(message.contains(said), "{body}: {message}");
        assert_eq!(kind, ErrorKind::Invalid, "{message}");
    }
    let double = json!({"Name": "b", "Networks": [{"Target": "app"}],
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}});
    let (message, kind) = refusal(mesh.client.post::<Changed>("/v1/services", &double).await);
    assert!(message.starts_with("port '8080' is already in use by service 'web' ("), "{message}");
    assert!(message.ends_with(") as an ingress port") && kind == ErrorKind::Conflict);
    let (message, _) = refusal(mesh.client.get::<Value>("/v2/networks").await);
    assert_eq!(message, "no such path: /v2/networks");
    let (message, _) = refusal(mesh.client.delete::<Value>("/v1/status").await);
    assert_eq!(message, "DELETE is not possible on /v1/status");
    let (message, _) = refusal(mesh.client.delete::<Value>("/v1/tasks/web.1?froce").await);
    assert_eq!(message, "unknown query parameter 'froce': there is 'force'");
    let large = json!({"Name": "x".repeat(300 * 1024)});
    let (message, kind) = refusal(mesh.client.post::<Changed>("/v1/networks", &large).await);
    assert_eq!((message.contains("length limit"), kind), (true, ErrorKind::Invalid), "{message}");
    mesh.store.away.store(true, Ordering::Relaxed);
    let (message, kind) = refusal(mesh.client.delete::<Changed>("/v1/services/web").await);
    assert!(message.contains("does not answer: it is away") && kind == ErrorKind::Unavailable, "{message}");
}

/// Counters of backends become those of tasks and services.
#[tokio::test]
async fn counters_have_names() {
    let mesh = Mesh::with_web().await;
    mesh.task().await;
    let (message, kind) = refusal(mesh.client.get::<Value>("/v1/counters").await);
    assert_eq!(kind, ErrorKind::NotFound);
    assert_eq!(message, "the nft data plane has no counters; with dataplane.mode = \"ebpf\" there are");
    let world = mesh.control.world();
    let network = world.networks.values().next().unwrap();
    let address: std::net::IpAddr = world.tasks.values().next().unwrap().addresses[&network.id].v4.into();
    let stats = Stats { flows: 1, packets: 5, bytes: 300 };
    let of = |address, active| Served { vni: network.vni, address, active, stats };
    let served = [of(address, true), of("10.7.99.99".parse().unwrap(), false)];
    let table = Occupancy { live: 2, established: 1, slots: 8 };
    let counters = Counters::of(&[(Event::NewFlow, 7), (Event::Evicted, 0)], [table, Occupancy::default()]);
    let whois = Whois::of(&world, mesh.control.node());
    let all = serde_json::to_value(counters.with_services(&world, &whois, &served)).unwrap();
    assert_eq!(
        all,
        json!({
            "Events": {"evicted": 0, "new_flow": 7},
            "Tables": {"tcp": {"Live": 2, "Established": 1, "Slots": 8},
                "udp": {"Live": 0, "Established": 0, "Slots": 0}},
            "Services": [{"Name": "web", "Flows": 1, "Packets": 5, "Bytes": 300, "Backends": [{
                "Task": "web.1", "Node": "n1", "Network": "app", "Address": address.to_string(),
                "State": "active", "Flows": 1, "Packets": 5, "Bytes": 300}]}]
        })
    );
}

/// Nobody but root and the group may even look.
#[tokio::test]
async fn the_socket_is_closed_to_others() {
    let mesh = Mesh::start().await;
    assert_eq!(std::fs::metadata(&mesh.socket).unwrap().permissions().mode() & 0o777, 0o660);
}

/// Each path and method of the document is there, and answers with a status that the document has.
#[tokio::test]
async fn routes_answer_as_documented() {
    let mesh = Mesh::with_web().await;
    let document = mesh.get("/v1/openapi.json").await;
    assert_eq!(document, document::openapi());
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            routes += 1;
            if path == "/v1/verify" {
                // It waits for nodes, and here are none that answer.
                continue;
            }
            let documented = operation["responses"].as_object().unwrap();
            for (id, body) in [("nothing", ""), ("nothing", "{}"), ("web", "{\"Availability\":\"active\"}")] {
                let asked = path.replace("{id}", id);
                let (status, answer) = raw(&mesh, &method.to_uppercase(), &asked, body).await;
                assert!(documented.contains_key(&status), "{method} {asked}: {status} {answer}");
                assert!(!answer.contains("no such path"), "{method} {asked}");
                let ok = status.starts_with('2');
                assert!(
                    ok || serde_json::from_str::<Value>(&answer).unwrap()["kind"].is_string(),
                    "{answer}"
                );
            }
        }
    }
    assert_eq!(routes, 45);
}

async fn raw(mesh: &Mesh, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = UnixStream::connect(&mesh.socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What goes on is not waited for, also where it says something again and again.
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while let Ok(read) = tokio::time::timeout_at(end, stream.read_buf(&mut answer)).await {
        if read.unwrap() == 0 {
            break;
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

/// What a watch says up to the first line of which `until` is true.
async fn watched(mesh: &Mesh, query: &str, until: impl Fn(&WatchEvent) -> bool) -> Vec<WatchEvent> {
    let mut seen = Vec::new();
    let read = |line: &str| {
        seen.push(serde_json::from_str(line).unwrap());
        !until(&seen[seen.len() - 1])
    };
    let watch = mesh.client.lines(query, || (), read);
    assert!(tokio::time::timeout(Duration::from_secs(20), watch).await.unwrap().unwrap());
    seen
}

fn synced(event: &WatchEvent) -> bool {
    event.action == WatchAction::Synced
}

#[tokio::test]
async fn whoever_watches_is_told_of_all_and_goes_on_from_where_it_was() {
    let mesh = Mesh::with_web().await;
    let first = watched(&mesh, "/v1/watch?kind=service,task", synced).await;
    let actions: Vec<_> = first.iter().map(|event| event.action).collect();
    assert_eq!(actions, [WatchAction::Reset, WatchAction::Set, WatchAction::Synced]);
    assert_eq!(first[1].service.as_ref().unwrap().spec.name, "web");
    let at = first[2].revision;
    let resume = format!("/v1/watch?kind=service,task&since={at}");
    assert_eq!(watched(&mesh, &resume, synced).await.len(), 1, "nothing happened");

    let task = mesh.task().await;
    let both = watched(&mesh, &resume, synced).await;
    let kinds: Vec<_> = both.iter().filter_map(|event| event.kind).collect();
    assert_eq!(kinds, [WatchKind::Service, WatchKind::Task]);
    assert_eq!(both[1].task.as_ref().unwrap().id, task.id);

    // While it is open, too.
    let gone = |event: &WatchEvent| event.action == WatchAction::Remove;
    let (seen, _) = tokio::join!(watched(&mesh, "/v1/watch?kind=network", gone), async {
        let made = mesh.post("/v1/networks", json!({"Name": "other"})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        mesh.client.delete::<Changed>(&format!("/v1/networks/{}", made.id)).await.unwrap()
    });
    assert!(seen.iter().any(|event| event.network.as_ref().is_some_and(|network| network.name == "other")));

    // Of another history nothing is known: all is told anew.
    let anew = watched(&mesh, "/v1/watch?kind=service&since=999999", synced).await;
    assert_eq!(anew[0].action, WatchAction::Reset);
    let (message, kind) = refusal(mesh.client.get::<Value>("/v1/watch?kind=pod").await);
    assert!(kind == ErrorKind::Invalid && message.contains("'kind=pod' is not understood"), "{message}");
}

/// What `/v1/events` says, up to so many lines.
async fn events(mesh: &Mesh, query: &str, count: usize) -> Vec<EventMessage> {
    let mut seen: Vec<EventMessage> = Vec::new();
    let read = |line: &str| {
        seen.push(serde_json::from_str(line).unwrap());
        seen.len() < count
    };
    let path = format!("/v1/events?{query}");
    let lines = mesh.client.lines(&path, || (), read);
    tokio::time::timeout(Duration::from_secs(20), lines).await.unwrap().unwrap();
    seen
}

#[tokio::test]
async fn what_happens_is_told_in_dockers_words() {
    let mesh = Mesh::with_web().await;
    let task = mesh.task().await;
    let told = events(&mesh, "since=0&filters=%7B%22type%22%3A%5B%22task%22%5D%7D", 2).await;
    let start = serde_json::to_value(&told[1]).unwrap();
    assert_eq!(
        start["Actor"],
        json!({"ID": task.id, "Attributes": {"name": "web.1", "node": "n1", "service": "web"}})
    );
    let fields: Vec<_> = start.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["time", "timeNano", "Type", "Action", "Actor"]);
    assert_eq!((&start["Type"], &start["Action"]), (&json!("task"), &json!("start")));
    assert_eq!(told[1].time, told[1].time_nano / 1_000_000_000);
    // While it is open, too; and without an end that is asked for it goes on.
    let (next, _) = tokio::join!(events(&mesh, "", 1), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        mesh.post("/v1/networks", json!({"Name": "other"})).await
    });
    assert_eq!((next[0].kind.as_str(), next[0].action.as_str()), ("network", "create"));
    let all = events(&mesh, "follow=false", usize::MAX).await;
    assert_eq!(all.last(), next.last());
    let later = next[0].time_nano + 1;
    let since = format!("since={}&follow=false", format_moment(later));
    assert_eq!(events(&mesh, &since, usize::MAX).await, []);
    let until = format!("until={}", format_moment(later));
    assert_eq!(events(&mesh, &until, usize::MAX).await, all, "what is over ends by itself");
    let (message, kind) =
        refusal(mesh.client.get::<Value>("/v1/events?filters=%7B%22pod%22%3A%5B%22x%22%5D%7D").await);
    assert!(kind == ErrorKind::Invalid && message.contains("invalid filter 'pod'"), "{message}");
}

/// What commands print is told line by line, also what is no text, and what is printed later.
#[tokio::test]
async fn logs_are_told_and_followed() {
    let mesh = Mesh::with_web().await;
    let logs = mesh.socket.parent().unwrap().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let print = |slot: u32, line: &[u8]| {
        let path = logs.join(format!("web.{slot}.log"));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, line).unwrap();
    };
    print(1, b"2000-01-01T00:00:00Z stdout F of a service before this one\n");
    print(1, b"2100-01-01T00:00:01Z stdout F one\n2100-01-01T00:00:03Z stderr F th\xffree\n");
    print(2, b"2100-01-01T00:00:02Z stdout F two\n");
    let read = async |query: &str, last: &str| {
        let mut lines = Vec::new();
        let path = format!("/v1/services/web/logs?{query}");
        let each = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            lines.push(format!("{} {} {}", line["Task"], line["Stream"], line["Line"]).replace('"', ""));
            line["Line"] != last
        };
        mesh.client.lines(&path, || (), each).await.unwrap();
        lines
    };
    let all = ["web.1 stdout one", "web.2 stdout two", "web.1 stderr th\u{fffd}ree"];
    assert_eq!(read("", "").await, all);
    assert_eq!(read("tail=1", "").await, all[1..]);
    assert_eq!(read("since=4102444803", "").await, all[2..]);
    print(3, b"2100-01-01T00:00:09Z stdout F four\n");
    let (followed, ()) = tokio::join!(read("follow&tail=0", "five"), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        print(3, b"2100-01-01T00:00:10Z stdout F five\n");
    });
    assert_eq!(followed, ["web.3 stdout five"]);
    let (message, kind) = refusal(mesh.client.lines("/v1/services/nope/logs", || (), |_| true).await);
    assert_eq!((message.as_str(), kind), ("service nope not found", ErrorKind::NotFound));
}
