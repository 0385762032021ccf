//! **Effect.** The command line: Swarm's verbs, flags, columns and exit codes, so that its users feel at home.
//!
//! Results go to stdout, everything else to stderr. It exits with 0 when all was done, 1 when something was
//! refused or failed, 2 for wrong usage; `task run` exits as its command does.

mod ago;
mod cluster;
mod completions;
mod converge;
mod docs;
mod doctor;
mod events;
mod explain;
mod follow;
mod format;
mod haproxy;
mod health;
mod leaving;
mod moment;
mod monitor;
mod network;
mod node;
mod options;
mod output;
mod ports;
mod program;
mod publish;
mod replicas;
mod service;
mod several;
mod status;
mod store;
mod table;
mod task;
mod template;
mod top;
mod verify;
mod version;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::agent::AgentArgs;
use crate::api::client::{Client, DEFAULT_HOST, Host};
use crate::cluster::EtcdArgs;
use crate::demo::DemoArgs;
use output::Out;
pub(crate) use task::run::Started;

/// Everything was done.
const OK: u8 = 0;
/// Something was refused or failed.
const FAILED: u8 = 1;

/// A routing mesh and VIP load balancer: any node's published port, or a service's VIP, reaches a healthy task
#[derive(Debug, Parser)]
#[command(name = "mesh", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli<C: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Clone, Args)]
struct Global {
    /// Where the agent listens
    #[arg(short = 'H', long, global = true, env = "MESH_HOST", default_value = DEFAULT_HOST,
        value_name = "ADDRESS", hide_env_values = true)]
    host: Host,
}

/// All that the program understands.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Verb(Verb),
    #[command(hide = true)]
    GenDocs(docs::DocsArgs),
    #[command(hide = true)]
    TaskExec(task::exec::ExecArgs),
    /// Run this node's member of etcd
    #[command(hide = true)]
    Etcd(EtcdArgs),
}

/// What is meant for people: documented and completed.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Manage networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Manage services
    #[command(subcommand)]
    Service(service::Verb),
    /// Manage tasks
    #[command(subcommand)]
    Task(task::Verb),
    /// Manage nodes
    #[command(subcommand)]
    Node(node::Verb),
    /// Manage the cluster of nodes that keep the records
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Put HAProxy in front of services
    #[command(subcommand)]
    Haproxy(haproxy::Verb),
    /// Manage where this node's records are
    #[command(subcommand)]
    Store(store::Verb),
    Status(status::StatusArgs),
    Explain(explain::ExplainArgs),
    Verify(verify::VerifyArgs),
    Top(top::TopArgs),
    Monitor(monitor::MonitorArgs),
    Events(events::EventsArgs),
    Doctor(doctor::DoctorArgs),
    Template(template::TemplateArgs),
    /// Run the mesh's daemon on this node
    Agent(AgentArgs),
    /// Show the mesh at work on this machine, in namespaces of its own
    Demo(DemoArgs),
    Completions(completions::CompletionsArgs),
    Version(version::VersionArgs),
}

/// What every verb works with.
struct Session {
    client: Client,
    out: Out,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::<Command>::parse();
    let out = Out::new();
    let code = match command {
        Command::Verb(verb) => run(verb, &global, &out),
        Command::GenDocs(args) => docs::run(&args),
        Command::Etcd(args) => crate::cluster::supervise(&args).map(|()| OK),
        Command::TaskExec(args) => Ok(task::exec::run(&args, &out)),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        out.error(&error);
        FAILED
    }))
}

fn run(verb: Verb, global: &Global, out: &Out) -> anyhow::Result<u8> {
    match verb {
        Verb::Agent(args) => crate::agent::main(&args).map(|()| OK),
        Verb::Demo(args) => crate::demo::main(&args).map(|()| OK),
        Verb::Store(verb) => store::run(verb, out),
        Verb::Completions(args) => completions::run(&args, out),
        // A task's supervisor enters namespaces, which only a process without threads can do as a whole.
        Verb::Task(task::Verb::Run(args)) => Ok(task::run::run(&args, &global.host, out)),
        Verb::Network(verb) => talk(global, |session| network::run(verb, session)),
        Verb::Service(verb) => talk(global, |session| service::run(verb, session)),
        Verb::Task(verb) => talk(global, |session| task::run(verb, session)),
        Verb::Node(verb) => talk(global, |session| node::run(verb, session)),
        Verb::Cluster(verb) => talk(global, |session| cluster::run(verb, session)),
        Verb::Haproxy(verb) => talk(global, |session| haproxy::run(verb, session)),
        Verb::Status(args) => talk(global, |session| status::run(args, session)),
        Verb::Explain(args) => talk(global, |session| explain::run(args, session)),
        Verb::Verify(args) => talk(global, |session| verify::run(args, session)),
        Verb::Doctor(args) => talk(global, |session| doctor::run(args, session)),
        Verb::Events(args) => talk(global, |session| events::run(args, session)),
        Verb::Top(args) => talk(global, |session| top::run(args, session)),
        Verb::Monitor(args) => talk(global, |session| monitor::run(args, session)),
        Verb::Template(args) => talk(global, |session| template::run(args, session)),
        Verb::Version(args) => talk(global, |session| version::run(args, session)),
    }
}

/// Runs a verb that talks to the agent.
fn talk<F>(global: &Global, verb: impl FnOnce(Session) -> F) -> anyhow::Result<u8>
where
    F: Future<Output = anyhow::Result<u8>>,
{
    let session = Session { client: Client::new(global.host.clone()), out: Out::new() };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb(session))
}
