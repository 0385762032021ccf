//! **Decision.** Flags of what the mesh itself runs for a service, as `docker service create` has them.

use std::net::IpAddr;

use nix::sys::signal::Signal;

use crate::api::types::{
    FailureAction, ProgramConfig, ResolverConfig, UpdateConfig, UpdateOrder, parse_signal,
};
use crate::cli::options;
use crate::cli::task::resolv;

/// What the mesh runs.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct ProgramFlags {
    /// Command that the mesh runs as the service's tasks, in words as a shell splits them; no shell runs it
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    cmd: Option<Words>,
    /// Number of tasks that the mesh runs [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Signal that asks a task to end [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    stop_signal: Option<Signal>,
    /// How long a task may take to end once it is asked to, before it is killed [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    stop_grace_period: Option<String>,
    /// Maximum number of tasks replaced simultaneously (0 to replace all at once) [default: 1]
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u32>,
    /// Delay between updates [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    update_delay: Option<String>,
    /// Whether a task ends before the one in its place starts, or once that one serves [default: stop-first; start-first
    /// where a node is drained]
    #[arg(long, value_enum)]
    update_order: Option<UpdateOrder>,
    /// Action on update failure [default: pause]
    #[arg(long, value_enum)]
    update_failure_action: Option<FailureAction>,
    /// How long new tasks must have served until an update is done [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    update_monitor: Option<String>,
}

/// How tasks that the mesh runs ask for names.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct DnsFlags {
    /// With --cmd: name server for what is not the mesh's, asked from inside the task [default: those of the node]
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// With --cmd: domain that names are looked up in, too; '.' for none
    #[arg(long, value_name = "DOMAIN", value_parser = resolv::word)]
    dns_search: Vec<String>,
    /// With --cmd: option of resolv.conf(5), such as timeout:1
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = resolv::word)]
    dns_option: Vec<String>,
}

impl DnsFlags {
    /// As the agent takes it; none: nothing is said.
    pub(in crate::cli) fn config(self) -> Option<ResolverConfig> {
        let config =
            ResolverConfig { nameservers: self.dns, search: self.dns_search, options: self.dns_option };
        Some(config).filter(|config| *config != ResolverConfig::default())
    }
}

/// How they shall ask from now on.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct DnsChanges {
    /// Add a name server for what is not the mesh's
    #[arg(long, value_name = "IP")]
    dns_add: Vec<IpAddr>,
    /// Remove a name server
    #[arg(long, value_name = "IP")]
    dns_rm: Vec<IpAddr>,
    /// Add a domain that names are looked up in, too
    #[arg(long, value_name = "DOMAIN", value_parser = resolv::word)]
    dns_search_add: Vec<String>,
    /// Remove such a domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Add an option of resolv.conf(5)
    #[arg(long, value_name = "OPTION", value_parser = resolv::word)]
    dns_option_add: Vec<String>,
    /// Remove such an option
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
}

impl DnsChanges {
    /// What to add, and what to take away.
    pub(in crate::cli) fn configs(self) -> [Option<ResolverConfig>; 2] {
        let (dns, dns_search, dns_option) = (self.dns_add, self.dns_search_add, self.dns_option_add);
        let add = DnsFlags { dns, dns_search, dns_option };
        let (dns, dns_search, dns_option) = (self.dns_rm, self.dns_search_rm, self.dns_option_rm);
        [add, DnsFlags { dns, dns_search, dns_option }].map(DnsFlags::config)
    }
}

/// The words of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Words(Vec<String>);

impl ProgramFlags {
    /// As the agent takes it, with what else is said of it; none: nothing is.
    pub(in crate::cli) fn config(self, rest: ProgramConfig) -> Option<ProgramConfig> {
        let update = UpdateConfig {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            failure_action: self.update_failure_action,
            monitor: self.update_monitor,
            order: self.update_order,
        };
        let config = ProgramConfig {
            command: self.cmd.map(|Words(words)| words),
            replicas: self.replicas,
            stop_signal: self.stop_signal.map(|signal| signal.as_str().to_owned()),
            stop_grace_period: self.stop_grace_period,
            update_config: Some(update).filter(|update| *update != UpdateConfig::default()),
            ..rest
        };
        Some(config).filter(|config| *config != ProgramConfig::default())
    }
}

/// Splits as a shell does (POSIX 2.2): single quotes keep all, double quotes all but `\"` and `\\`, a backslash keeps
/// what follows. Nothing is expanded.
fn words(text: &str) -> Result<Words, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some('"'), '\\') if matches!(chars.peek(), Some('"' | '\\')) => {
                word.get_or_insert_default().extend(chars.next());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote ({open}) is not closed"));
    }
    words.extend(word);
    if words.is_empty() { Err("the command is empty".to_owned()) } else { Ok(Words(words)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        for (text, expected) in [
            ("sleep 5", vec!["sleep", "5"]),
            (r#"  sh -c "echo \"a b\"; exit" '' "#, vec!["sh", "-c", "echo \"a b\"; exit", ""]),
            (r"a\ b 'c\d' --x='1 2'", vec!["a b", r"c\d", "--x=1 2"]),
        ] {
            assert_eq!(words(text).unwrap().0, expected, "{text}");
        }
        assert!(words("sh -c 'x").unwrap_err().contains("not closed"));
        assert!(words(" ").unwrap_err().contains("empty"));
    }
}
