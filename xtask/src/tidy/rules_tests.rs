use super::*;

fn messages(path: &str, text: &str) -> Vec<String> {
    let source = Source { path: path.to_owned(), text: text.to_owned() };
    check(&[source]).into_iter().map(|finding| finding.message).collect()
}

fn breaks(path: &str, text: &str, expected: &str) {
    let messages = messages(path, text);
    assert!(messages.len() == 1 && messages[0].contains(expected), "{path}: {text:?} gave {messages:?}");
}

fn keeps(path: &str, text: &str) {
    assert_eq!(messages(path, text), Vec::<String>::new(), "{path}: {text:?}");
}

#[test]
fn long_files_are_found_unless_a_program_wrote_them() {
    let long = "\n".repeat(MAX_LINES + 1);
    breaks("a/b.rs", &long, "longer than 600 lines");
    keeps("a/b.rs", &"\n".repeat(MAX_LINES));
    keeps("a/b.rs", &format!("// {GENERATED}{long}"));
    keeps("a/b.md", &long);
}

#[test]
fn unfinished_code_is_found() {
    for word in UNFINISHED {
        breaks("a/b.rs", &format!("    {word}()]"), "finish it");
        keeps("a/b.md", word);
    }
}

#[test]
fn unsafe_code_is_found_outside_its_places() {
    for form in UNSAFE {
        breaks("mesh-agent/src/api.rs", form, "is allowed in");
        keeps("mesh-agent/src/dataplane/ebpf.rs", form);
        keeps("mesh-ebpf/src/abi.rs", form);
        keeps("mesh-agent/src/api.rs", &format!("// {form}"));
    }
}

#[test]
fn impurity_is_found_in_core_only() {
    for word in IMPURE {
        breaks("mesh-agent/core/src/plan.rs", word, "in mesh-core");
        keeps("mesh-agent/src/agent.rs", word);
    }
    breaks("mesh-agent/core/Cargo.toml", "tokio.workspace = true", "in mesh-core");
    keeps("mesh-agent/core/src/plan.rs", "let n = operand::new(); // no tokio here");
}

#[test]
fn trailing_space_registries_and_empty_names_are_found() {
    breaks("README.md", "a \nb", "white space");
    breaks("docs/a.md", &format!("https://{}/x", REGISTRIES[0]), "package registry");
    keeps("Cargo.lock", REGISTRIES[0]);
    breaks("a/net_utils.rs", "", "its name says nothing");
    keeps("a/utility.rs", "");
}

#[test]
fn a_decision_record_must_be_in_the_index() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let record = || source("docs/adr/0002-aya.md", "# 2");
    assert!(check(&[record()]).is_empty(), "no index, no rule");
    let linked = source("docs/adr/README.md", "- [aya](0002-aya.md)");
    assert!(check(&[record(), linked]).is_empty());
    let unlinked = source("docs/adr/README.md", "nothing");
    assert_eq!(check(&[record(), unlinked])[0].path, "docs/adr/0002-aya.md");
}
