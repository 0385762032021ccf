//! **Effect.** What the demo begins with: three nodes, a network, a service of three tasks on two of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, Lab, Load, Node, eventually};
use serde_json::Value;

use super::{Dataplane, DemoStore};

/// Each node begins with records of its own.
const APART: &str = "[store]\nmode = \"local\"\nlisten = \"\"\ngateway = \"\"\ntoken_file = \"\"\n";
/// How long it may take until a node is a manager.
const CLUSTERED: Duration = Duration::from_secs(60);

/// The demo's mesh.
pub(super) struct Scene {
    pub(super) lab: Lab,
}

impl Scene {
    /// Builds it.
    pub(super) fn set(
        dataplane: Option<Dataplane>,
        store: DemoStore,
        progress: &dyn Fn(&str),
    ) -> Result<Self> {
        let mesh = std::env::current_exe().context("cannot find the mesh program")?;
        progress("three nodes, a client and an outside host, each in a network namespace of its own");
        let mut lab = Lab::builder(mesh).nodes(3);
        if let Some(dataplane) = dataplane {
            lab = lab.dataplane(dataplane.word());
        }
        if store == DemoStore::Etcd {
            lab = lab.config(APART);
        }
        let lab = lab.build()?;
        lab.start_agents(Duration::from_secs(20))?;
        let scene = Self { lab };
        if store == DemoStore::Etcd {
            progress("n1 makes a cluster, n2 and n3 join it as managers; etcd wants some seconds for each");
            scene.cluster()?;
        }
        progress("network app; service web, port 8080 on every node, with three tasks on n1 and n2");
        scene.mesh(
            "n1",
            &["network", "create", "app", "--subnet", "10.30.0.0/16", "--subnet", "fd00:30::/48"],
        )?;
        // HAProxy keeps idle connections open; a stop waits for those no longer than this.
        let web = [
            "service",
            "create",
            "--name",
            "web",
            "--network",
            "app",
            "-p",
            "8080:80",
            "--drain-timeout",
            "2s",
        ];
        scene.mesh("n1", &web)?;
        scene.mesh(
            "n1",
            &["service", "create", "--name", "echo", "--network", "app", "-p", "9000:9000/udp"],
        )?;
        for node in ["n1", "n1", "n2"] {
            scene.run_web(node)?;
        }
        scene.run_task("n2", "echo", &scene.lab.programs().udp(9000))?;
        Ok(scene)
    }

    /// All three keep the records.
    fn cluster(&self) -> Result<()> {
        self.mesh("n1", &["cluster", "init"])?;
        for node in ["n2", "n3"] {
            let token = self.mesh("n1", &["cluster", "token", "manager", "--quiet"])?;
            self.mesh(node, &["cluster", "join", token.trim()])?;
        }
        eventually(CLUSTERED, "all three have a vote", || {
            let cluster = self.lab.node("n1")?.mesh_json(["cluster", "status"])?;
            ensure!(cluster["Voters"] == 3 && cluster["Reachable"] == 3, "{cluster}");
            Ok(())
        })
    }

    /// The node whose member of etcd leads.
    pub(super) fn leader(&self) -> Result<&Node> {
        let cluster = self.lab.node("n1")?.mesh_json(["cluster", "status"])?;
        let name = cluster["Leader"].as_str().filter(|name| !name.is_empty());
        self.lab.node(name.context("etcd has no leader")?)
    }

    /// The data plane that the agents use.
    pub(super) fn dataplane(&self) -> Result<Dataplane> {
        let status: Value = serde_json::from_str(&self.mesh("n1", &["status", "--format", "json"])?)?;
        let ebpf = status["Planes"].get(Dataplane::Ebpf.word()).is_some();
        Ok(if ebpf { Dataplane::Ebpf } else { Dataplane::Nft })
    }

    /// Runs the CLI against a node.
    pub(super) fn mesh(&self, node: &str, words: &[&str]) -> Result<String> {
        self.lab.node(node)?.mesh_command(words).timeout(CLUSTERED).run()?.ok()
    }

    /// Runs one task in the background.
    pub(super) fn run_task(&self, node: &str, service: &str, program: &[String]) -> Result<()> {
        let mut words = vec!["task", "run", "--detach", "--service", service, "--"];
        words.extend(program.iter().map(String::as_str));
        self.mesh(node, &words).map(drop)
    }

    /// Runs one more task of the service web.
    pub(super) fn run_web(&self, node: &str) -> Result<()> {
        self.run_task(node, "web", &self.lab.programs().web(80))
    }

    /// Runs one command in a task of its own on a network, as a neighbour of the service's tasks.
    pub(super) fn beside(&self, node: &str, network: &str, command: &[&str]) -> Result<mesh_tests::Output> {
        let mut words = vec!["task", "run", "--network", network, "--"];
        words.extend(command);
        self.lab.node(node)?.mesh(words)
    }

    /// One request of the client's to a node.
    pub(super) fn curl(&self, node: &Node, port: u16) -> Result<String> {
        let url = format!("http://{}:{port}/", node.address());
        self.lab
            .client()
            .exec(["curl", "-sS", "--max-time", "3", &url])?
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Steady requests of the client's to a port of every node.
    pub(super) fn load(&self, port: u16) -> Result<Load> {
        let targets: Vec<_> =
            self.lab.nodes().iter().map(|node| SocketAddr::from((node.address(), port))).collect();
        Load::start(self.lab.client().netns(), &targets, 200)
    }

    /// Lines to copy and paste.
    pub(super) fn what_to_try(&self) -> Result<String> {
        let mesh = std::env::current_exe().context("cannot find the mesh program")?;
        let exec = format!("{} demo exec", mesh.display());
        let client: &Host = self.lab.client();
        let web = self.lab.programs().web(80).join(" ");
        let addresses: Vec<_> =
            self.lab.nodes().iter().map(|node| format!("{} {}", node.name(), node.address())).collect();
        Ok(format!(
            "
The mesh is up: {addresses}; the client is {client}. Ctrl-C ends it. In another terminal:

  see it          {exec} n1 -- mesh service ls
                  {exec} n1 -- mesh service ps web
                  {exec} n1 -- mesh node ls
                  {exec} n1 -- mesh status
  any node        {exec} client -- curl -s http://{n1}:8080/ http://{n2}:8080/ http://{n3}:8080/
  who asks        {exec} client -- curl -s -w 'own: %{{local_ip}}:%{{local_port}}\\n' http://{n3}:8080/peer
  by name         {exec} n3 -- mesh task run --network app -- curl -s http://web/
                  {exec} n3 -- mesh task run --network app -- dig +short web tasks.web
                  {exec} n3 -- mesh task run --network app -- ping -c 2 web
  scale           {exec} n3 -- mesh task run -d --service web -- {web}
                  {exec} n1 -- mesh task rm web.1
  publish         {exec} n1 -- mesh service update --publish-add 9090:80 web
                  {exec} n1 -- mesh service update --publish-rm 9090:80 web
  why             {exec} n1 -- mesh explain {client} {n3}:8080
  drain           {exec} n1 -- mesh node update --availability drain n2
  the inside      {exec} n1 -- nft list table inet mesh
                  {exec} n1 -- ip route show table all proto 77
",
            addresses = addresses.join(", "),
            client = client.address(),
            n1 = self.lab.node("n1")?.address(),
            n2 = self.lab.node("n2")?.address(),
            n3 = self.lab.node("n3")?.address(),
        ))
    }
}
