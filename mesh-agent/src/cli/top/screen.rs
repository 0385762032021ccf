//! **Effect.** The terminal: taken over whole, and given back however it ends.

use std::io::{self, stdout};

use nix::sys::signal::{Signal, raise};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Frame};
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
        execute!(stdout(), EnterAlternateScreen)?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
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
