//! **Effect.** `mesh service logs`.

use std::time::Duration;

use anyhow::bail;

use crate::api::client::ClientError;
use crate::api::types::{ErrorKind, LogLine, LogStream, Service, Task, parse_duration};
use crate::cli::several::encode;
use crate::cli::{OK, Session};

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
    since: Option<f64>,
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
    query.extend(args.since.map(|seconds| format!("since={seconds:.3}")));
    let width = tasks.iter().map(|task| task.name.len() + 1 + task.node_name.len()).max().unwrap_or_default();
    let mut failed = None;
    let show = |line: &str| match serde_json::from_str::<LogLine>(line) {
        Ok(line) => print(&session, &line, width, args.timestamps),
        Err(error) => {
            failed = Some(error);
            false
        }
    };
    let stopped = session.client.lines(&format!("{path}/logs?{}", query.join("&")), || (), show).await?;
    match failed {
        Some(error) => Err(error.into()),
        None if args.follow && !stopped => bail!("the agent has ended"),
        None => Ok(OK),
    }
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

/// Seconds since 1970.
fn moment(text: &str) -> Result<f64, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond() as f64 / 1000.0);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds >= 0.0 && seconds.is_finite() {
            Ok(seconds)
        } else {
            Err("it is negative".to_owned())
        };
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("'{text}' is neither a moment (2026-11-29T10:00:00Z), nor seconds since 1970, nor a duration (42m)")
    })?;
    let now = Duration::from_millis(crate::control::now());
    Ok(now.saturating_sub(ago).as_secs_f64())
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
    fn moments_and_numbers_are_read_as_docker_does() {
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(1.5));
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Ok(0.0));
        assert_eq!(moment("12.25"), Ok(12.25));
        let ago = crate::control::now() as f64 / 1000.0 - moment("1m30s").unwrap();
        assert!((89.0..91.0).contains(&ago), "{ago}");
        assert!(moment("yesterday").unwrap_err().contains("nor a duration"));
        assert!(moment("-1").is_err());
        assert_eq!((tail("all"), tail("7")), (Ok(Tail(None)), Ok(Tail(Some(7)))));
        assert!(tail("-7").is_err());
    }
}
