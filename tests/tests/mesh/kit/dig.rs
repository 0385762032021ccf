//! Questions to the name server of a task.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context, Result, bail};

use super::Task;

/// An answer of the DNS, as `dig` shows it.
#[derive(Debug)]
pub(crate) struct Dig {
    /// `NOERROR`
    pub(crate) status: String,
    /// `qr rd ra`
    pub(crate) flags: Vec<String>,
    /// The data of the answers, in their order.
    pub(crate) data: Vec<String>,
    /// All of it.
    pub(crate) text: String,
}

impl Dig {
    /// The addresses that were answered, in their order.
    pub(crate) fn ips(&self) -> Result<Vec<Ipv4Addr>> {
        self.data.iter().map(|ip| ip.parse().with_context(|| format!("{ip:?} in {}", self.text))).collect()
    }

    /// The only address.
    pub(crate) fn ip(&self) -> Result<Ipv4Addr> {
        match self.ips()?[..] {
            [ip] => Ok(ip),
            _ => bail!("not one address:\n{}", self.text),
        }
    }

    /// The addresses without their order.
    pub(crate) fn set(&self) -> Result<BTreeSet<Ipv4Addr>> {
        Ok(self.ips()?.into_iter().collect())
    }
}

/// Asks the name server that a task finds in its resolv.conf; the question is in `dig`'s words.
pub(crate) fn dig(from: &Task<'_>, question: &str) -> Result<Dig> {
    let mut argv = vec!["dig", "+time=2", "+tries=1"];
    argv.extend(question.split_whitespace());
    read_dig(from.command(argv).ok()?)
}

/// Reads what `dig` prints.
pub(crate) fn read_dig(text: String) -> Result<Dig> {
    let after = |mark: &str, end: char| {
        let (_, rest) = text.split_once(mark)?;
        Some(rest.split([end, '\n']).next().unwrap_or_default().trim().to_owned())
    };
    let status = after("status: ", ',').with_context(|| format!("no answer:\n{text}"))?;
    let flags = after("flags: ", ';').unwrap_or_default();
    let answers = text
        .split_once(";; ANSWER SECTION:\n")
        .map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
    let data = |line: &str| {
        let data: Vec<_> = line.split_whitespace().skip(4).collect();
        data.join(" ")
    };
    Ok(Dig {
        status,
        flags: flags.split_whitespace().map(Into::into).collect(),
        data: answers.lines().map(data).collect(),
        text,
    })
}
