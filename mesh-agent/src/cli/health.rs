//! **Decision.** Flags of health checks, as `docker service create` has them.

use crate::api::types::HealthConfig;
use crate::cli::options;

/// What tells whether a task can serve.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "health")]
pub(in crate::cli) struct HealthFlags {
    /// Check health by a command, for /bin/sh in the task's network namespace: 0 is healthy
    #[arg(long, value_name = "COMMAND", group = "health_test")]
    health_cmd: Option<String>,
    /// Check health by a connection to a port
    #[arg(long, value_name = "PORT", group = "health_test")]
    health_tcp: Option<String>,
    /// Check health by a page, whose status has to be 200 to 399: 80, 80/ready
    #[arg(long, value_name = "PORT[/PATH]", group = "health_test")]
    health_http: Option<String>,
    /// The same over TLS; no certificate is asked for
    #[arg(long, value_name = "PORT[/PATH]", group = "health_test")]
    health_https: Option<String>,
    /// Time between running the check [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    health_interval: Option<String>,
    /// Maximum time to allow one check to run [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    health_timeout: Option<String>,
    /// Consecutive failures needed to report unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Consecutive successes needed to be healthy again [default: 1]
    #[arg(long, value_name = "N")]
    health_rise: Option<u32>,
    /// Start period for the task to initialize before counting retries towards unstable [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    health_start_period: Option<String>,
    /// Time between running the check until it first succeeds [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    health_start_interval: Option<String>,
    /// If less than so many percent of the tasks are healthy, balance over all: then it is rather the check that is sick, or
    /// what all tasks need [default: 0, never]
    #[arg(long, value_name = "PERCENT")]
    health_panic: Option<u8>,
    /// No health check
    #[arg(long, group = "health_test")]
    no_healthcheck: bool,
}

impl HealthFlags {
    /// As the agent takes it; none: no flag was given.
    pub(in crate::cli) fn config(self) -> Option<HealthConfig> {
        let test = match self {
            Self { no_healthcheck: true, .. } => vec!["NONE".to_owned()],
            Self { health_cmd: Some(command), .. } => vec!["CMD-SHELL".to_owned(), command],
            Self { health_tcp: Some(port), .. } => vec!["TCP".to_owned(), port],
            Self { health_http: Some(page), .. } => vec!["HTTP".to_owned(), page],
            Self { health_https: Some(page), .. } => vec!["HTTPS".to_owned(), page],
            _ => Vec::new(),
        };
        let config = HealthConfig {
            test,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            rise: self.health_rise,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            panic: self.health_panic,
        };
        Some(config).filter(|config| *config != HealthConfig::default())
    }
}
