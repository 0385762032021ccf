//! `mesh` commands and what they answer.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, Output};
use serde_json::Value;

/// `mesh` commands, as one line of words.
pub(crate) trait Cli {
    /// What a command says that has to go well.
    fn ok(&self, command: &str) -> Result<String>;

    /// The one message of a command that has to be refused.
    fn refused(&self, command: &str) -> Result<String>;

    /// The rows of a listing.
    fn rows(&self, command: &str) -> Result<Vec<Value>>;

    /// One thing, inspected.
    fn inspect(&self, kind: &str, name: &str) -> Result<Value>;

    /// The names in a listing, sorted.
    fn names(&self, kind: &str) -> Result<Vec<String>>;
}

impl Cli for Node {
    fn ok(&self, command: &str) -> Result<String> {
        self.mesh(command.split_whitespace())?.ok()
    }

    fn refused(&self, command: &str) -> Result<String> {
        one_message(self.mesh(command.split_whitespace())?)
    }

    fn rows(&self, command: &str) -> Result<Vec<Value>> {
        let text = self.ok(&format!("{command} --format json"))?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("`{command}` has a row not in JSON: {line}"))
            })
            .collect()
    }

    fn inspect(&self, kind: &str, name: &str) -> Result<Value> {
        self.mesh_json([kind, "inspect", name])
    }

    fn names(&self, kind: &str) -> Result<Vec<String>> {
        let rows = self.rows(&format!("{kind} ls"))?;
        let mut names: Vec<_> = rows.iter().map(|row| text(&row["Name"])).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The message of a command that was refused: all on standard error, one line, no noise. The code is 1, 2 for errors
/// of usage, and 125 for `task run`, whose other codes are its command's.
pub(crate) fn one_message(output: Output) -> Result<String> {
    let code = output.code();
    let (command, stdout) = (output.command.clone(), output.stdout.clone());
    let message = output.failed()?;
    ensure!(matches!(code, Some(1 | 2 | 125)), "`{command}` ended with {code:?}:\n{message}");
    // An inspection prints what it found, as Docker's does.
    ensure!(
        stdout.is_empty() || stdout == "[]\n",
        "`{command}` failed but said on standard output:\n{stdout}"
    );
    // Usage errors (2) come with a line of usage.
    ensure!(
        code == Some(2) || message.trim_end().lines().count() == 1,
        "`{command}` has more than one message, or none:\n{message}"
    );
    ensure!(
        !message.contains("panicked") && !message.contains("RUST_BACKTRACE"),
        "`{command}` crashed:\n{message}"
    );
    Ok(message)
}

/// An error unless the text has all of the parts, in any case of letters.
pub(crate) fn mentions(text: &str, parts: &[&str]) -> Result<()> {
    let lower = text.to_lowercase();
    for part in parts {
        ensure!(lower.contains(&part.to_lowercase()), "nothing about {part:?} in: {text}");
    }
    Ok(())
}

/// A JSON string's text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// The VIPs of a service by the name of the network.
pub(crate) fn vips(node: &Node, service: &str) -> Result<BTreeMap<String, Ipv4Addr>> {
    let found = node.inspect("service", service)?;
    let none = Vec::new();
    let vips = found["Endpoint"]["VirtualIPs"].as_array().unwrap_or(&none);
    let name_of = |id: &Value| -> Result<String> { Ok(text(&node.inspect("network", &text(id))?["Name"])) };
    vips.iter()
        .map(|vip| {
            let addr = text(&vip["Addr"]);
            let (ip, length) = addr.split_once('/').with_context(|| format!("{addr} has no prefix"))?;
            length.parse::<u8>()?;
            Ok((name_of(&vip["NetworkID"])?, ip.parse()?))
        })
        .collect()
}

/// The only VIP of a service.
pub(crate) fn vip(node: &Node, service: &str) -> Result<Ipv4Addr> {
    let vips = vips(node, service)?;
    ensure!(vips.len() == 1, "{service} has the VIPs {vips:?}");
    vips.into_values().next().context("no VIP")
}
