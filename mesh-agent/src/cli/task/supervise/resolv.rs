//! **Effect.** A task asks the mesh for names: its /etc/resolv.conf is its own.
//!
//! The file is on a tmpfs of the task's own, so that nothing is left behind, and is mounted over the machine's.
//! Where the machine has none to mount over (its link leads nowhere, or there is no such file), the whole
//! directory gets a layer with one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const FILE: &str = "/etc/resolv.conf";
/// Where the tmpfs is for a moment; it hides what is there only from us, and only for that moment.
const STAGES: [&str; 4] = ["/run", "/tmp", "/mnt", "/var"];

/// A word for the file: without white space, which would end it.
pub(in crate::cli) fn word(text: &str) -> Result<String, String> {
    mesh_core::model::Resolver::word(text).map(|()| text.to_owned())
}

/// What the file says: Docker's, and what was asked for. A service's name has no dot, and must be asked for as it is,
/// unless somebody wants it otherwise.
pub(super) fn content(search: &[String], options: &[String]) -> String {
    let mut content = "nameserver 127.0.0.11\n".to_owned();
    if !search.is_empty() {
        content += &format!("search {}\n", search.join(" "));
    }
    let dots = options.iter().any(|option| option.starts_with("ndots:"));
    let options: Vec<&str> =
        (!dots).then_some("ndots:0").into_iter().chain(options.iter().map(String::as_str)).collect();
    content + &format!("options {}\n", options.join(" "))
}

/// Mounts the file. Must be called in the task's own mount namespace.
pub(super) fn install(content: &str) -> anyhow::Result<()> {
    let target = fs::canonicalize(FILE).ok();
    let stage = stage(target.as_deref()).context("there is no directory to prepare resolv.conf in")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("mesh"), &stage, Some("tmpfs"), flags, Some("size=64k,mode=0755"))
        .with_context(|| format!("cannot mount a tmpfs on {}", stage.display()))?;
    let mounted = match &target {
        Some(target) => over_file(&stage, target, content),
        None => over_directory(&stage, content),
    };
    // What was mounted from it keeps its content.
    umount2(&stage, MntFlags::MNT_DETACH).with_context(|| format!("cannot uncover {}", stage.display()))?;
    mounted.with_context(|| format!("cannot give the task its own {FILE}"))
}

fn over_file(stage: &Path, target: &Path, content: &str) -> anyhow::Result<()> {
    let file = stage.join("resolv.conf");
    fs::write(&file, content)?;
    mount(Some(&file), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn over_directory(stage: &Path, content: &str) -> anyhow::Result<()> {
    let directory = Path::new(FILE).parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        bail!("there is no {}", directory.display());
    }
    let (upper, work) = (stage.join("upper"), stage.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    fs::set_permissions(&upper, fs::metadata(directory)?.permissions())?;
    fs::write(upper.join("resolv.conf"), content)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", directory.display(), upper.display(), work.display());
    mount(Some("mesh"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(())
}

/// A directory that does not hide what is to be mounted over.
fn stage(target: Option<&Path>) -> Option<PathBuf> {
    let free = |stage: &Path| stage.is_dir() && target.is_none_or(|target| !target.starts_with(stage));
    STAGES.iter().map(PathBuf::from).find(|stage| free(stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_asked_for() {
        assert_eq!(content(&[], &[]), "nameserver 127.0.0.11\noptions ndots:0\n");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            content(&words("a.test b.test"), &words("timeout:1 ndots:2")),
            "nameserver 127.0.0.11\nsearch a.test b.test\noptions timeout:1 ndots:2\n"
        );
        assert!(word("a\nnameserver 192.0.2.1").is_err() && word("").is_err());
        assert_eq!(word(".").as_deref(), Ok("."));
    }

    #[test]
    fn the_stage_never_hides_the_target() {
        let stub = Path::new("/run/systemd/resolve/stub-resolv.conf");
        assert!(!stub.starts_with(stage(Some(stub)).unwrap()));
        assert!(stage(Some(Path::new(FILE))).is_some() && stage(None).is_some());
    }
}
