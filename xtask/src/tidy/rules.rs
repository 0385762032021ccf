//! The rules. Each takes the files and returns what breaks it.

use super::{Finding, Source};

/// Nobody reads a longer file to its end.
const MAX_LINES: usize = 600;

/// A file that holds this in its first lines was written by a program.
const GENERATED: &str = concat!("@gene", "rated");

const UNFINISHED: [&str; 3] = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("#[ig", "nore")];

const UNSAFE: [&str; 5] = [
    concat!("uns", "afe {"),
    concat!("uns", "afe fn"),
    concat!("uns", "afe impl"),
    concat!("uns", "afe extern"),
    concat!("uns", "afe("),
];

/// Where the kernel is near enough to need it.
const UNSAFE_PLACES: [&str; 3] = ["mesh-ebpf/", "mesh-agent/src/dataplane/", "mesh-agent/build.rs"];

/// What decisions must not know of: other threads, the world, the clock, chance.
const IMPURE: [&str; 8] = [
    "tokio",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "rand::",
];

const CORE: &str = "mesh-agent/core/";
/// Its tests may read files.
const CORE_TESTS: &str = "mesh-agent/core/tests/";

const EMPTY_NAMES: [&str; 6] = ["manager", "managers", "util", "utils", "helper", "helpers"];

/// Cargo, apt and the others know where their packages are. A file that names the host breaks behind
/// a mirror.
const REGISTRIES: [&str; 7] = [
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("npmjs", ".com"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
];

/// Every finding, in the order of the files.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = sources.iter().flat_map(check_one).collect();
    findings.extend(adr_index(sources));
    findings
}

fn check_one(source: &Source) -> Vec<Finding> {
    let Source { path, text } = source;
    let mut found = Vec::new();
    let mut report = |line: usize, message: String| {
        found.push(Finding { path: path.clone(), line, message });
    };
    let rust = path.ends_with(".rs");
    if rust && text.lines().count() > MAX_LINES && !is_generated(text) {
        report(0, format!("longer than {MAX_LINES} lines: split it by what its parts are about"));
    }
    if rust && has_empty_name(path) {
        report(0, "its name says nothing: name it after what it does".into());
    }
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.ends_with([' ', '\t']) {
            report(number, "white space at the end of the line: remove it".into());
        }
        if !path.ends_with("Cargo.lock")
            && let Some(host) = REGISTRIES.iter().find(|host| line.contains(**host))
        {
            report(number, format!("names the package registry {host}: name the package instead"));
        }
        let code = code(line);
        if rust {
            if let Some(word) = UNFINISHED.iter().find(|word| code.contains(**word)) {
                report(number, format!("holds `{word}`: finish it, or leave it out"));
            }
            if UNSAFE.iter().any(|form| code.contains(form))
                && !UNSAFE_PLACES.iter().any(|place| path.starts_with(place))
            {
                report(number, format!("unsafe code is allowed in {} only", UNSAFE_PLACES.join(", ")));
            }
        }
        if path.starts_with(CORE)
            && !path.starts_with(CORE_TESTS)
            && (rust || path.ends_with("Cargo.toml"))
            && let Some(word) = IMPURE.iter().find(|word| mentions(code, word))
        {
            report(number, format!("`{word}` in mesh-core: take it as an argument, or do it in mesh-agent"));
        }
    }
    found
}

/// Every decision record is linked from the index, if there is one.
fn adr_index(sources: &[Source]) -> Vec<Finding> {
    let dir = "docs/adr/";
    let Some(index) = sources.iter().find(|source| source.path == format!("{dir}README.md")) else {
        return Vec::new();
    };
    sources
        .iter()
        .filter_map(|source| Some((source, source.path.strip_prefix(dir)?)))
        .filter(|(_, name)| name.ends_with(".md") && *name != "README.md")
        .filter(|(_, name)| {
            !index.text.contains(&format!("({name})")) && !index.text.contains(&format!("(./{name})"))
        })
        .map(|(source, name)| Finding {
            path: source.path.clone(),
            line: 0,
            message: format!("not in the index: add a link to ({name}) in {}", index.path),
        })
        .collect()
}

/// The line without its comment. A `//` inside a string cuts too much, which is rare and harmless.
fn code(line: &str) -> &str {
    let comment = if line.trim_start().starts_with('#') && !line.contains("#[") { "#" } else { "//" };
    line.split_once(comment).map_or(line, |(code, _)| code)
}

/// `word` as a word of its own: `rand::` is not in `operand::`.
fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '-')
    })
}

fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains(GENERATED))
}

fn has_empty_name(path: &str) -> bool {
    let stem = path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or_default();
    stem.split('_').any(|word| EMPTY_NAMES.contains(&word))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
