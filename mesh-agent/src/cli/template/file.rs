//! **Effect.** A template's file, and the file that comes of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use super::super::format::template::Template;
use super::super::output::Out;
use super::catalog::{Catalog, FUNCTIONS};

/// Of a file that is new.
const MODE: u32 = 0o644;

/// Permissions in octal.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("'{text}' are no permissions: write them in octal, such as 0640"))
}

/// A template, and where it goes.
#[derive(Debug)]
pub(super) struct Output {
    from: PathBuf,
    to: Option<PathBuf>,
    mode: Option<u32>,
    template: Template,
}

impl Output {
    /// Reads `FILE` or `FILE:OUT`.
    pub(super) fn open(spec: &str, mode: Option<u32>) -> anyhow::Result<Self> {
        let (from, to) = match spec.split_once(':') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => (from, Some(PathBuf::from(to))),
            None if !spec.is_empty() => (spec, None),
            _ => bail!("'{spec}' is not understood: write FILE:OUT"),
        };
        let text = fs::read_to_string(from).with_context(|| format!("cannot read the template {from}"))?;
        let template = Template::file(&text, &FUNCTIONS).map_err(|why| anyhow!("{from}: {why}"))?;
        template.check(&Catalog::shape()).with_context(|| from.to_owned())?;
        if let Some(to) = &to
            && !directory(to).is_dir()
        {
            bail!("cannot write {}: there is no directory {}", to.display(), directory(to).display());
        }
        Ok(Self { from: from.into(), to, mode, template })
    }

    /// Renders it; true: it differs from what was there.
    pub(super) fn write(&self, whole: &Value, out: &Out) -> anyhow::Result<bool> {
        let text = self.template.render(whole).with_context(|| self.from.display().to_string())?;
        let Some(to) = &self.to else {
            out.bytes(text.as_bytes());
            return Ok(true);
        };
        // What a link leads to is written, and the link stays.
        let to = &fs::canonicalize(to).unwrap_or_else(|_| to.clone());
        let there = fs::metadata(to).ok();
        let mode = self.mode.or(there.as_ref().map(|there| there.mode() & 0o777)).unwrap_or(MODE);
        let same_mode = there.as_ref().is_some_and(|there| there.mode() & 0o777 == mode);
        if same_mode && fs::read(to).is_ok_and(|before| before == text.as_bytes()) {
            return Ok(false);
        }
        let write = || -> std::io::Result<()> {
            // Readers see the old file or the new one, never half of one.
            let mut file = tempfile::NamedTempFile::new_in(directory(to))?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            if let Some(there) = &there {
                // Who may not give files away keeps them.
                let _ = fchown(file.as_file(), Some(there.uid()), Some(there.gid()));
            }
            file.as_file().sync_all()?;
            file.persist(to)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", to.display()))?;
        Ok(true)
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_written_when_it_differs_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("x.tpl"), dir.path().join("x.conf"));
        fs::write(&from, "{{range nodes}}{{.Name}} {{end}}").unwrap();
        let spec = format!("{}:{}", from.display(), to.display());
        let (out, one) = (Out::new(), json!({"nodes": [{"Name": "n1"}]}));
        let output = Output::open(&spec, None).unwrap();
        assert!(output.write(&one, &out).unwrap() && !output.write(&one, &out).unwrap());
        assert_eq!(
            (fs::read_to_string(&to).unwrap().as_str(), fs::metadata(&to).unwrap().mode() & 0o777),
            ("n1 ", 0o644)
        );
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(output.write(&json!({"nodes": []}), &out).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o600);
        assert!(Output::open(&spec, Some(0o640)).unwrap().write(&one, &out).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left lying about");
    }

    #[test]
    fn mistakes_are_told_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("x.tpl");
        fs::write(&from, "{{range nodes}}{{.Nmae}}{{end}}").unwrap();
        let told = |spec: String| format!("{:#}", Output::open(&spec, None).unwrap_err());
        assert!(
            told(from.display().to_string())
                .contains("x.tpl: template: there is no field .Nmae; there are .ID, .Name")
        );
        fs::write(&from, "{{range nodes}}").unwrap();
        assert!(told(from.display().to_string()).contains("x.tpl: template: 'range' without 'end'"));
        fs::write(&from, "").unwrap();
        assert!(told(format!("{}:/nowhere/x", from.display())).contains("there is no directory /nowhere"));
        assert!(told("/nowhere/x.tpl".to_owned()).contains("cannot read the template /nowhere/x.tpl"));
        assert!(told(":x".to_owned()).contains("write FILE:OUT"));
        assert!(
            parse_mode("0800").is_err() && parse_mode("1777").is_err() && parse_mode("0640") == Ok(0o640)
        );
    }
}
