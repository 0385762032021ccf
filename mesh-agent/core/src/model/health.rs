//! What tells whether a task can serve.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a task is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Probe {
    /// Does a port take a connection?
    Tcp {
        /// The port.
        port: u16,
    },
    /// Does a page come, with a status of 200 to 399?
    Http {
        /// The port.
        port: u16,
        /// The page, from its slash on.
        path: String,
        /// Over TLS. Who the task says that it is does not matter: its address is known.
        tls: bool,
    },
    /// Does a command succeed, in the network namespace of the task?
    Shell {
        /// For `/bin/sh -c`.
        command: String,
    },
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { port } => write!(f, "tcp:{port}"),
            Self::Http { port, path, tls } => {
                write!(f, "{}:{port}{path}", if *tls { "https" } else { "http" })
            }
            Self::Shell { command } => f.write_str(command),
        }
    }
}

/// The health check of a service: Docker's fields, and their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// How its tasks are asked.
    pub probe: Probe,
    /// Between the end of one probe and the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many failures in a row make a task unhealthy.
    pub retries: u32,
    /// So many successes in a row make an unhealthy one healthy again.
    pub rise: u32,
    /// For how long after its start failures of a task that never succeeded do not count.
    pub start_period: Duration,
    /// Between probes of a task that never succeeded.
    pub start_interval: Duration,
    /// If less than this share of the tasks, in percent, is healthy, it is rather the check that is sick, or what all
    /// tasks need: then all get flows. Zero: never.
    #[serde(default)]
    pub panic: u8,
}

impl HealthCheck {
    /// With the defaults.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            retries: 3,
            rise: 1,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            panic: 0,
        }
    }
}
