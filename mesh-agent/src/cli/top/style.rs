//! **Decision.** How things look. No colour is the only sign of anything: words say the same.

use mesh_core::top::Mood;
use ratatui::style::{Color, Modifier, Style};

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Palette {
    pub(super) colours: bool,
}

impl Palette {
    /// Unless `NO_COLOR` is set to something (no-color.org).
    pub(super) fn of_environment() -> Self {
        Self { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Of the sixteen colours these two can be read on white and on black; yellow and green cannot on white, nor blue on
    /// black.
    pub(super) fn mood(self, mood: Mood) -> Style {
        let colour = |colour| if self.colours { Style::new().fg(colour) } else { Style::new() };
        match mood {
            Mood::Good => Style::new(),
            Mood::Past => Style::new().add_modifier(Modifier::DIM),
            Mood::Warn => colour(Color::Magenta),
            Mood::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// The titles of columns.
pub(super) const HEAD: Style = Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::UNDERLINED);
/// What is chosen.
pub(super) const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
