//! `tidy`: the house rules that no compiler knows.
//!
//! It looks at what git tracks, and at what it would track (new files that are not ignored). Words
//! that are forbidden are written in two halves here, or this file would break its own rules.

mod rules;

use std::{fs, process::Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A text file of the repository.
struct Source {
    /// Relative to the top of the repository.
    path: String,
    text: String,
}

/// A broken rule: where, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 is the file as a whole.
    line: usize,
    message: String,
}

pub(crate) fn run() -> Result<()> {
    let sources = sources()?;
    let findings = rules::check(&sources);
    for Finding { path, line, message } in &findings {
        let place = if *line == 0 { path.clone() } else { format!("{path}:{line}") };
        shell::say(&format!("{place}: {message}"));
    }
    if !findings.is_empty() {
        bail!("{} house rules are broken; see the lines above", findings.len());
    }
    Ok(())
}

fn sources() -> Result<Vec<Source>> {
    let output = shell::command("git")
        // A checkout that another user owns is common in containers; listing it is harmless.
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .stdout(Stdio::piped())
        .output()
        .context("cannot start git, which lists the files to look at")?;
    if !output.status.success() {
        bail!("git cannot list the files of {}: is it a checkout?", shell::root().display());
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8; rename it")?;
    let mut sources = Vec::new();
    for path in names.split_terminator('\0') {
        // Absent files are deleted but not yet committed; the rest that fails is binary.
        let Ok(text) = fs::read_to_string(shell::root().join(path)) else {
            continue;
        };
        sources.push(Source { path: path.to_owned(), text });
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_keeps_the_house_rules() {
        super::run().expect("tidy");
    }
}
