//! **Effect.** `mesh service logs`.

use anyhow::bail;

use crate::api::client::ClientError;
use crate::api::types::{ErrorKind, LogLine, LogStream, Service, Task, format_moment};
use crate::cli::Session;
use crate::cli::moment::moment;
use crate::cli::several::encode;

/// Fetch the logs of a service or task
///
/// Shows what the commands print that the mesh runs on this node, and says on which node to ask for the others.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogsArgs {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since a moment (2026-11-29T10:00:00Z), or a duration before now (42m)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Number of lines to show from the end of each task's log, or 'all'
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Name or ID
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
}

/// How many of the last lines; none: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail(Option<u64>);

pub(super) async fn run(args: LogsArgs, session: Session) -> anyhow::Result<u8> {
    let Some((path, tasks)) = find(&session, &args.name).await? else {
        bail!("no such task or service: {}", args.name);
    };
    let mut query = vec![format!("follow={}", args.follow)];
    query.extend(args.tail.0.map(|lines| format!("tail={lines}")));
    query.extend(args.since.map(|since| format!("since={}", format_moment(since))));
    let width = tasks.iter().map(|task| task.name.len() + 1 + task.node_name.len()).max().unwrap_or_default();
    let show = |line: &str| Ok(print(&session, &serde_json::from_str(line)?, width, args.timestamps));
    session.follow(&format!("{path}/logs?{}", query.join("&")), || (), show, || !args.follow).await
}

/// Where its logs are, and whose these are. None: there is no such thing.
async fn find(session: &Session, name: &str) -> anyhow::Result<Option<(String, Vec<Task>)>> {
    let service = format!("/v1/services/{}", encode(name));
    if let Some(found) = present(session.client.get::<Service>(&service).await)? {
        let tasks = session.client.get(&format!("/v1/services/{}/tasks", found.id)).await?;
        return Ok(Some((service, tasks)));
    }
    let task = format!("/v1/tasks/{}", encode(name));
    Ok(present(session.client.get::<Task>(&task).await)?.map(|found| (task, vec![found])))
}

fn present<T>(found: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match found {
        Err(ClientError::Refused { kind: ErrorKind::NotFound, .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// Prints it where it was printed; false: nobody reads any more.
fn print(session: &Session, line: &LogLine, width: usize, timestamps: bool) -> bool {
    let who = format!("{}@{}", line.task, line.node);
    let time = if timestamps && !line.time.is_empty() { format!("{} ", line.time) } else { String::new() };
    let text = format!("{time}{who:width$}    | {}", line.line);
    match line.stream {
        LogStream::Stdout => return session.out.is_read(&text),
        LogStream::Stderr => session.out.say(text),
        LogStream::Mesh => session.out.say(format!("mesh: {who} {}", line.line)),
    }
    true
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => {
            number.parse().map(|lines| Tail(Some(lines))).map_err(|_| "write a number, or 'all'".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_docker_does() {
        assert_eq!((tail("all"), tail("7")), (Ok(Tail(None)), Ok(Tail(Some(7)))));
        assert!(tail("-7").is_err());
    }
}
