//! A real terminal that nobody sees: tmux, with a server of its own.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Host, eventually};

/// How long a shell may take until it says that it waits for commands.
const STARTED: Duration = Duration::from_secs(20);

/// What the shell says then; a program that draws would not leave that alone in a line.
const PROMPT: &str = "shell$";

/// A terminal with a shell in it. Dropping it ends both, and what runs there.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    _dir: Option<TempDir>,
}

impl Terminal {
    /// One on a host of the lab, of that many columns and lines.
    pub fn on(host: &Host, columns: u16, lines: u16) -> Result<Self> {
        let terminal = Self { socket: host.dir().join("tmux"), _dir: None };
        host.command(terminal.argv(&session(columns, lines))).ok()?;
        terminal.started()
    }

    /// One on this machine.
    pub fn here(columns: u16, lines: u16) -> Result<Self> {
        let dir = TempDir::with_prefix("mesh-terminal-").context("cannot make a directory")?;
        let terminal = Self { socket: dir.path().join("tmux"), _dir: Some(dir) };
        terminal.tmux(&session(columns, lines))?;
        terminal.started()
    }

    fn started(self) -> Result<Self> {
        eventually(STARTED, "the shell waits for commands", || self.waits())?;
        Ok(self)
    }

    /// An error unless the shell waits for a command: whatever ran has ended.
    pub fn waits(&self) -> Result<()> {
        let screen = self.screen()?;
        // What is typed before it reads stands before what it says.
        ensure!(screen.trim_end().ends_with(PROMPT), "the shell does not wait:\n{screen}");
        Ok(())
    }

    /// Types a command of one line, and Enter.
    pub fn run(&self, command: &str) -> Result<()> {
        self.write(command)?;
        self.press("Enter")
    }

    /// Types a text.
    pub fn write(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Presses a key by tmux's name for it: `Enter`, `Escape`, `C-c`, `Down`.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// What is to be seen.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same, with colours and the like as a terminal is told of them.
    pub fn painted(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]).map(drop)
    }

    /// Whether a program has the whole terminal for itself, and whether the cursor is seen.
    pub fn modes(&self) -> Result<(bool, bool)> {
        let said = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        let mut flags = said.split_whitespace().map(|flag| flag == "1");
        flags.next().zip(flags.next()).with_context(|| format!("tmux says {said:?}"))
    }

    fn tmux(&self, words: &[impl AsRef<str>]) -> Result<String> {
        let argv = self.argv(words);
        let output = Command::new(&argv[0])
            .args(&argv[1..])
            .output()
            .context("cannot start tmux: cargo xtask setup installs it")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}`: {}: {said}", argv.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn argv(&self, words: &[impl AsRef<str>]) -> Vec<String> {
        let socket = self.socket.display().to_string();
        // Nobody's configuration; and letters of all languages, whatever the environment says.
        let start = ["tmux", "-u", "-f", "/dev/null", "-S", &socket];
        start.into_iter().chain(words.iter().map(AsRef::as_ref)).map(str::to_owned).collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nobody could do anything about a failure here.
        let _ = self.tmux(&["kill-server"]);
    }
}

/// A session of that size.
fn session(columns: u16, lines: u16) -> Vec<String> {
    let size = ["-x".to_owned(), columns.to_string(), "-y".to_owned(), lines.to_string()];
    let shell = "PS1='shell$ ' exec sh".to_owned();
    ["new-session".to_owned(), "-d".to_owned()].into_iter().chain(size).chain([shell]).collect()
}
