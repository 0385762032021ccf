//! **Effect.** The terminal: taken over whole, and given back however it ends.

use std::io::{self, stdout};

use nix::sys::signal::{Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Frame, Terminal};
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// The terminal, for as long as this is there. A panic gives it back before it tells why.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let opened = ratatui::try_init();
        if opened.is_err() {
            // It may be half done.
            ratatui::restore();
        }
        Ok(Self { terminal: opened? })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Gives it back until the shell brings us to the front again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        raise(Signal::SIGTSTP)?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // A new one draws everything. The old one would ask where the cursor is, and whoever hears keys would hear the answer.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic it is given back already; once more would move the cursor to where it was before, and what comes next
        // over what was told.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// What others tell us to end by.
pub(super) struct Ends([Listener; 3]);

impl Ends {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    pub(super) async fn come(&mut self) {
        let [term, int, hup] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_tests::eventually;

    use super::*;

    /// Set to a file: the test is the program in a terminal, and panics once there is that file.
    const WITHIN: &str = "MESH_TEST_PANICS";
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if let Some(go) = std::env::var_os(WITHIN) {
            let mut screen = Screen::open().unwrap();
            screen.draw(|frame| frame.set_cursor_position((9, 9))).unwrap();
            screen.draw(|_| {}).unwrap();
            while !std::path::Path::new(&go).exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("it went wrong");
        }
        let dir = tempfile::tempdir().unwrap();
        let (go, own) = (dir.path().join("go"), std::env::current_exe().unwrap());
        let terminal = mesh_tests::Terminal::here(160, 40).unwrap();
        let name = "cli::top::screen::tests::a_panic_gives_the_terminal_back";
        let start = format!(
            "RUST_BACKTRACE=0 {WITHIN}={} {} --exact {name} --nocapture",
            go.display(),
            own.display()
        );
        terminal.run(&start).unwrap();
        let modes = |wanted: (bool, bool)| {
            let modes = terminal.modes()?;
            anyhow::ensure!(modes == wanted, "{modes:?} {}", terminal.screen()?);
            Ok(())
        };
        eventually(SOON, "it has the terminal", || modes((true, false))).unwrap();
        std::fs::write(go, "").unwrap();
        eventually(SOON, "the shell has it again", || modes((false, true)).and_then(|()| terminal.waits()))
            .unwrap();
        assert!(terminal.screen().unwrap().contains("it went wrong"));
        terminal.run("clear; stty -a").unwrap();
        eventually(SOON, "lines are read as they were", || {
            let screen = terminal.screen()?;
            anyhow::ensure!(screen.contains(" icanon") && screen.contains(" echo "), "{screen}");
            Ok(())
        })
        .unwrap();
    }
}
