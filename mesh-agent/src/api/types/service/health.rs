//! **Fact.** Health checks on the wire: Docker's `Healthcheck`, with durations as words and kinds of tests of our own.

use mesh_core::change::HealthWish;
use mesh_core::model::{HealthCheck, Probe};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::{format_duration, parse_duration};

/// What tells whether a task can serve. What is left out is as by default, or stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct HealthConfig {
    /// `["CMD-SHELL", COMMAND]`: a command for `/bin/sh -c` in the task's network namespace; `["TCP", "80"]`;
    /// `["HTTP", "80/path"]` and `["HTTPS", "443/path"]`: a status of 200 to 399; `["NONE"]`: no health check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between the end of one probe and the next; `30s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one may take; `30s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// So many failures in a row make a task unhealthy; 3 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// So many successes in a row make an unhealthy one healthy again; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// For how long failures of a new task do not count; `0s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<String>,
    /// Between probes of a task that never succeeded; `5s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<String>,
    /// If less than this share of the tasks, in percent, is healthy, all get flows; 0, which is never, unless said
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<u8>,
}

impl TryFrom<HealthConfig> for HealthWish {
    type Error = String;

    fn try_from(config: HealthConfig) -> Result<Self, String> {
        let HealthConfig { test, interval, timeout, retries, rise, start_period, start_interval, panic } =
            config;
        let time = |text: Option<String>| text.as_deref().map(parse_duration).transpose();
        Ok(Self {
            probe: probe(&test)?,
            interval: time(interval)?,
            timeout: time(timeout)?,
            retries,
            rise,
            start_period: time(start_period)?,
            start_interval: time(start_interval)?,
            panic,
        })
    }
}

impl From<&HealthCheck> for HealthConfig {
    fn from(check: &HealthCheck) -> Self {
        let HealthCheck { probe, interval, timeout, retries, rise, start_period, start_interval, panic } =
            check;
        Self {
            test: words(probe),
            interval: Some(format_duration(*interval)),
            timeout: Some(format_duration(*timeout)),
            retries: Some(*retries),
            rise: Some(*rise),
            start_period: Some(format_duration(*start_period)),
            start_interval: Some(format_duration(*start_interval)),
            panic: Some(*panic),
        }
    }
}

fn probe(test: &[String]) -> Result<Option<Option<Probe>>, String> {
    let words: Vec<&str> = test.iter().map(String::as_str).collect();
    let probe = match words[..] {
        [] => return Ok(None),
        ["NONE"] => return Ok(Some(None)),
        ["CMD-SHELL", command] => Probe::Shell { command: command.to_owned() },
        ["TCP", text] => Probe::Tcp { port: port(text)? },
        [kind @ ("HTTP" | "HTTPS"), text] => {
            let (number, path) = text.split_at(text.find('/').unwrap_or(text.len()));
            let path = if path.is_empty() { "/" } else { path };
            Probe::Http { port: port(number)?, path: path.to_owned(), tls: kind == "HTTPS" }
        }
        _ => {
            return Err(format!(
                "invalid health check {words:?}: must be [\"CMD-SHELL\", COMMAND], [\"TCP\", PORT], \
                 [\"HTTP\" or \"HTTPS\", PORT/PATH] or [\"NONE\"]"
            ));
        }
    };
    Ok(Some(Some(probe)))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("invalid port of a health check ({text}): must be between 1 and 65535"))
}

fn words(probe: &Probe) -> Vec<String> {
    let (kind, what) = match probe {
        Probe::Tcp { port } => ("TCP", port.to_string()),
        Probe::Http { port, path, tls } => (if *tls { "HTTPS" } else { "HTTP" }, format!("{port}{path}")),
        Probe::Shell { command } => ("CMD-SHELL", command.clone()),
    };
    vec![kind.to_owned(), what]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_come_back_as_they_went() {
        for test in [["TCP", "80"], ["HTTP", "80/"], ["HTTPS", "443/ready?all=1"], ["CMD-SHELL", "curl -f x"]]
        {
            let test = test.map(str::to_owned).to_vec();
            let wish: HealthWish =
                HealthConfig { test: test.clone(), ..HealthConfig::default() }.try_into().unwrap();
            let check = HealthCheck::new(wish.probe.unwrap().unwrap());
            assert_eq!(HealthConfig::from(&check).test, test);
        }
        for wrong in [&["TCP"][..], &["TCP", "0"], &["HTTP", "/x"], &["CMD", "true"], &["NONE", "x"]] {
            let test = wrong.iter().map(|word| (*word).to_owned()).collect();
            HealthWish::try_from(HealthConfig { test, ..HealthConfig::default() }).unwrap_err();
        }
    }
}
