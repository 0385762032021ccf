//! **Fact.** What the mesh itself runs for a service, on the wire: Docker's words where it has them.

use std::net::IpAddr;

use mesh_core::change::ProgramWish;
use mesh_core::model;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::{FailureAction, UpdateOrder, format_duration, is_false, parse_duration, rfc3339};

/// A command that the mesh runs as a service's tasks. In changes, what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ProgramConfig {
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Variables: `KEY=VALUE`; in changes those to set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// In changes: variables to remove, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_rm: Vec<String>,
    /// How tasks ask for names; in changes what to add.
    #[serde(default, rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<ResolverConfig>,
    /// In changes: what to take out of it.
    #[serde(default, rename = "DNSConfigRm", skip_serializing_if = "Option::is_none")]
    pub dns_config_rm: Option<ResolverConfig>,
    /// How many tasks; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Which signal asks a task to end (`SIGQUIT`); `SIGTERM` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How long a task may take to end once it is asked to, before it is killed; `10s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<String>,
    /// How tasks are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// In changes: replace all tasks even if nothing else changes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// In changes: back to what ran before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rollback: bool,
}

/// How tasks ask for names: what their resolv.conf(5) says, beside the mesh's own server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResolverConfig {
    /// Servers for what is not the mesh's; the node's unless said otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub nameservers: Vec<IpAddr>,
    /// Domains that names are looked up in, too; `.`: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// `timeout:1`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// How tasks are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UpdateConfig {
    /// How many at once, 0: all; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// How long to wait after some were replaced (`5s`); not at all unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// What to do when a new task fails; `pause` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<FailureAction>,
    /// How long new tasks must have served until all is well; `5s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// What comes first; `stop-first` unless said otherwise, but `start-first` where a node is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<UpdateOrder>,
}

/// How far the last replacement of tasks is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused` or `rollback_completed`.
    pub state: String,
    /// When it began (RFC 3339).
    pub started_at: String,
    /// When it ended (RFC 3339).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub completed_at: String,
    /// For people.
    pub message: String,
}

/// A signal's name, as `SIGQUIT`, `quit` or `3`.
pub fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let known = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => [name.clone(), format!("SIG{name}")].iter().find_map(|name| name.parse().ok()),
    };
    known.ok_or_else(|| format!("there is no signal '{text}': write SIGTERM, SIGQUIT, SIGINT …"))
}

impl TryFrom<ProgramConfig> for ProgramWish {
    type Error = String;

    fn try_from(config: ProgramConfig) -> Result<Self, String> {
        let ProgramConfig {
            command,
            env,
            env_rm,
            dns_config,
            dns_config_rm,
            replicas,
            stop_signal,
            stop_grace_period,
            update_config,
            force,
            rollback,
        } = config;
        let UpdateConfig { parallelism, delay, failure_action, monitor, order } =
            update_config.unwrap_or_default();
        Ok(Self {
            command,
            env_add: env,
            env_rm,
            resolver_add: dns_config.unwrap_or_default().into(),
            resolver_rm: dns_config_rm.unwrap_or_default().into(),
            replicas,
            stop_signal: stop_signal
                .as_deref()
                .map(parse_signal)
                .transpose()?
                .map(|signal| signal.as_str().to_owned()),
            grace: stop_grace_period.as_deref().map(parse_duration).transpose()?,
            parallelism,
            delay: delay.as_deref().map(parse_duration).transpose()?,
            order: order.map(Into::into),
            failure_action: failure_action.map(Into::into),
            monitor: monitor.as_deref().map(parse_duration).transpose()?,
            force,
            rollback,
        })
    }
}

impl From<&model::Program> for ProgramConfig {
    fn from(program: &model::Program) -> Self {
        let model::Program { version: _, run, replicas, update, grace, rollout: _, previous: _ } = program;
        let model::UpdateConfig { parallelism, delay, order, order_is_said: _, failure_action, monitor } =
            *update;
        Self {
            command: Some(run.command.clone()),
            env: run.env.clone(),
            env_rm: Vec::new(),
            dns_config: Some((&run.resolver).into()).filter(|config| *config != ResolverConfig::default()),
            dns_config_rm: None,
            replicas: Some(*replicas),
            stop_signal: Some(run.stop_signal.clone().unwrap_or_else(|| Signal::SIGTERM.as_str().to_owned())),
            stop_grace_period: Some(format_duration(grace.unwrap_or(model::Program::GRACE))),
            update_config: Some(UpdateConfig {
                parallelism: Some(parallelism),
                delay: Some(format_duration(delay)),
                failure_action: Some(failure_action.into()),
                monitor: Some(format_duration(monitor)),
                order: Some(order.into()),
            }),
            force: false,
            rollback: false,
        }
    }
}

impl From<ResolverConfig> for model::Resolver {
    fn from(config: ResolverConfig) -> Self {
        let ResolverConfig { nameservers, search, options } = config;
        Self { servers: nameservers, search, options }
    }
}

impl From<&model::Resolver> for ResolverConfig {
    fn from(resolver: &model::Resolver) -> Self {
        let model::Resolver { servers, search, options } = resolver.clone();
        Self { nameservers: servers, search, options }
    }
}

impl From<&model::Rollout> for UpdateStatus {
    fn from(rollout: &model::Rollout) -> Self {
        let model::Rollout { state, started, completed, message } = rollout;
        Self {
            state: state.to_string(),
            started_at: rfc3339(*started),
            completed_at: if *completed == 0 { String::new() } else { rfc3339(*completed) },
            message: message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["SIGQUIT", "quit", "sigquit", "3"] {
            assert_eq!(parse_signal(text), Ok(Signal::SIGQUIT), "{text}");
        }
        for text in ["", "0", "99", "SIGNONE", "-3"] {
            assert!(parse_signal(text).unwrap_err().contains("there is no signal"), "{text}");
        }
    }
}
