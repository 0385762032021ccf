//! **Fact.** What is pressed, and that the window has another size.

use std::io;

use mesh_core::top::Key;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What comes from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// A key that is known.
    Key(Key),
    /// Ctrl-Z.
    Suspend,
    /// Whatever else: that it has another size, for one.
    Else,
}

/// Listens for as long as somebody hears it. The thread ends with the program: reading cannot be interrupted.
pub(super) fn listen() -> io::Result<UnboundedReceiver<io::Result<Input>>> {
    let (send, receive) = unbounded_channel();
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let event = event::read();
            let last = event.is_err();
            if send.send(event.map(|event| read(&event))).is_err() || last {
                return;
            }
        }
    })?;
    Ok(receive)
}

fn read(event: &Event) -> Input {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { return Input::Else };
    if *kind == KeyEventKind::Release {
        return Input::Else;
    }
    let control = modifiers.contains(KeyModifiers::CONTROL);
    let key = match code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('z') if control => return Input::Suspend,
        // As in less and vi.
        KeyCode::Char('f') if control => Key::PageDown,
        KeyCode::Char('b') if control => Key::PageUp,
        KeyCode::Char(letter) if !control && !modifiers.contains(KeyModifiers::ALT) => Key::Letter(*letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab | KeyCode::Right => Key::Tab,
        KeyCode::BackTab | KeyCode::Left => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return Input::Else,
    };
    Input::Key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let key = |code, modifiers| read(&Event::Key(KeyEvent::new(code, modifiers)));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (code, modifiers, input) in [
            (KeyCode::Char('q'), none, Input::Key(Key::Letter('q'))),
            (KeyCode::Char('G'), KeyModifiers::SHIFT, Input::Key(Key::Letter('G'))),
            (KeyCode::Char('c'), control, Input::Key(Key::Interrupt)),
            (KeyCode::Char('z'), control, Input::Suspend),
            (KeyCode::Char('q'), control, Input::Else),
            (KeyCode::BackTab, KeyModifiers::SHIFT, Input::Key(Key::BackTab)),
            (KeyCode::F(1), none, Input::Else),
        ] {
            assert_eq!(key(code, modifiers), input, "{code:?}");
        }
        assert_eq!(read(&Event::Resize(80, 24)), Input::Else);
        let up = KeyEvent::new_with_kind(KeyCode::Char('q'), none, KeyEventKind::Release);
        assert_eq!(read(&Event::Key(up)), Input::Else);
    }
}
