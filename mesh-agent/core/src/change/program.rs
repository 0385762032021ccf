//! **Decision.** What the mesh is to run for a service, as it is asked for.

use std::time::Duration;

use super::Refusal;
use crate::model::{
    FailureAction, MOST_REPLICAS, Program, Resolver, Rollout, RolloutState, Run, Service, Timestamp,
    UpdateConfig, UpdateOrder,
};

/// A wish for what the mesh runs; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgramWish {
    /// The program and its arguments.
    pub command: Option<Vec<String>>,
    /// Variables to set: `KEY=VALUE`.
    pub env_add: Vec<String>,
    /// Variables to remove, by key.
    pub env_rm: Vec<String>,
    /// What to add to [`Run::resolver`].
    pub resolver_add: Resolver,
    /// What to take out of it.
    pub resolver_rm: Resolver,
    /// See [`Run::stop_signal`].
    pub stop_signal: Option<String>,
    /// See [`Program::grace`].
    pub grace: Option<Duration>,
    /// How many tasks.
    pub replicas: Option<u32>,
    /// See [`UpdateConfig::parallelism`].
    pub parallelism: Option<u32>,
    /// See [`UpdateConfig::delay`].
    pub delay: Option<Duration>,
    /// See [`UpdateConfig::order`].
    pub order: Option<UpdateOrder>,
    /// See [`UpdateConfig::failure_action`].
    pub failure_action: Option<FailureAction>,
    /// See [`UpdateConfig::monitor`].
    pub monitor: Option<Duration>,
    /// Replace all tasks even if nothing else changes.
    pub force: bool,
    /// Back to what was executed before.
    pub rollback: bool,
}

impl ProgramWish {
    /// What a service has run then.
    pub fn apply(self, service: &Service, now: Timestamp) -> Result<Option<Program>, Refusal> {
        let old = service.program.as_ref();
        if self == Self::default() {
            return Ok(old.cloned());
        }
        if self.replicas.is_some_and(|replicas| replicas > MOST_REPLICAS) {
            return Err(Refusal::Invalid(format!("invalid number of replicas: at most {MOST_REPLICAS}")));
        }
        let run = self.run(service)?;
        let before = old.map(|program| program.update).unwrap_or_default();
        let update = UpdateConfig {
            parallelism: self.parallelism.unwrap_or(before.parallelism),
            delay: self.delay.unwrap_or(before.delay),
            order: self.order.unwrap_or(before.order),
            order_is_said: self.order.is_some() || before.order_is_said,
            failure_action: self.failure_action.unwrap_or(before.failure_action),
            monitor: self.monitor.unwrap_or(before.monitor),
        };
        let Some(old) = old else {
            let replicas = self.replicas.unwrap_or(1);
            let (grace, rollout, previous) = (self.grace, None, None);
            return Ok(Some(Program { version: 1, run, replicas, update, grace, rollout, previous }));
        };
        let (replicas, grace) = (self.replicas.unwrap_or(old.replicas), self.grace.or(old.grace));
        let mut program = Program { update, replicas, grace, ..old.clone() };
        if run != old.run || self.force {
            program.version += 1;
            program.previous = Some(std::mem::replace(&mut program.run, run));
            program.rollout = Some(begin(self.rollback, now));
        }
        Ok(Some(program))
    }

    fn run(&self, service: &Service) -> Result<Run, Refusal> {
        let old = service.program.as_ref();
        if self.rollback {
            let previous = old.and_then(|program| program.previous.clone());
            return previous.ok_or_else(|| {
                Refusal::Invalid(format!(
                    "service {} does not have a previous version to go back to",
                    service.name
                ))
            });
        }
        let command = self.command.clone().or_else(|| old.map(|program| program.run.command.clone()));
        let command = command.ok_or_else(|| {
            Refusal::Invalid(format!(
                "the mesh runs no command for service {}: name one with --cmd, or start its tasks with 'mesh task run'",
                service.name
            ))
        })?;
        if command.iter().flat_map(|word| word.bytes()).any(|byte| byte == 0) {
            return Err(Refusal::Invalid("a command cannot have a NUL byte".to_owned()));
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(Refusal::Invalid("the command is empty: name a program to run".to_owned()));
        }
        let mut env = old.map(|program| program.run.env.clone()).unwrap_or_default();
        let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        for variable in &self.env_add {
            if variable.starts_with('=') || !variable.contains('=') || variable.contains('\0') {
                return Err(Refusal::Invalid(format!(
                    "invalid environment variable '{}': write KEY=VALUE",
                    key(variable)
                )));
            }
            env.retain(|known| key(known) != key(variable));
            env.push(variable.clone());
        }
        env.retain(|known| !self.env_rm.contains(&key(known)));
        let stop_signal =
            self.stop_signal.clone().or_else(|| old.and_then(|program| program.run.stop_signal.clone()));
        let resolver = old.map(|program| program.run.resolver.clone()).unwrap_or_default();
        let resolver = self.resolver(resolver).map_err(Refusal::Invalid)?;
        Ok(Run { command, env, stop_signal, resolver })
    }

    fn resolver(&self, old: Resolver) -> Result<Resolver, String> {
        let (add, rm) = (&self.resolver_add, &self.resolver_rm);
        add.search.iter().chain(&add.options).try_for_each(|word| Resolver::word(word))?;
        Ok(Resolver {
            servers: changed(old.servers, &add.servers, &rm.servers),
            search: changed(old.search, &add.search, &rm.search),
            options: changed(old.options, &add.options, &rm.options),
        })
    }
}

/// What is there already stays where it is: of name servers and domains the first counts most.
fn changed<T: Clone + PartialEq>(mut all: Vec<T>, add: &[T], rm: &[T]) -> Vec<T> {
    all.retain(|one| !rm.contains(one));
    for one in add {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    all
}

fn begin(rollback: bool, now: Timestamp) -> Rollout {
    let (state, message) = if rollback {
        (RolloutState::RollbackStarted, "rollback in progress")
    } else {
        (RolloutState::Updating, "update in progress")
    };
    Rollout { state, started: now, completed: 0, message: message.to_owned() }
}
