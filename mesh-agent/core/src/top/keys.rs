//! **Decision.** What keys do.

use super::Top;
use super::View::{Nodes, Services, Tasks};
use super::column::View;
use super::filter::Filter;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A letter.
    Letter(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Tab with shift.
    BackTab,
    /// Up.
    Up,
    /// Down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    Stay,
    /// It is over.
    Quit,
}

impl Top {
    /// A key was pressed.
    pub fn press(&mut self, key: Key) -> Then {
        match key {
            Key::Interrupt => return Then::Quit,
            // Any key goes on from there.
            _ if self.help => self.help = false,
            _ if self.typing => self.write(key),
            Key::Escape if !self.filter.is_empty() => self.leave(),
            Key::Letter('q') | Key::Escape => return Then::Quit,
            Key::Letter('?' | 'h') => self.help = true,
            Key::Letter('/') => self.typing = true,
            Key::Letter('1') => self.go(Services),
            Key::Letter('2') => self.go(Tasks),
            Key::Letter('3') => self.go(Nodes),
            Key::Tab => self.go(self.view.step(1)),
            Key::BackTab => self.go(self.view.step(View::ALL.len() - 1)),
            Key::Letter('s' | '>') => self.tables[self.view.place()].next(self.view, 1),
            Key::Letter('<') => {
                self.tables[self.view.place()].next(self.view, self.view.columns().len() - 1);
            }
            Key::Letter('r') => {
                let order = &mut self.tables[self.view.place()].order;
                order.down = !order.down;
            }
            Key::Enter => self.enter(),
            _ => self.walk(key),
        }
        self.settle();
        Then::Stay
    }

    fn write(&mut self, key: Key) {
        match key {
            Key::Letter(letter) => self.filter.push(letter),
            Key::Backspace => self.filter.pop(),
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter = Filter::default();
            }
            _ => self.walk(key),
        }
    }

    fn walk(&mut self, key: Key) {
        let rows = self.rows();
        let table = &mut self.tables[self.view.place()];
        match key {
            Key::Up | Key::Letter('k') => table.step(&rows, -1),
            Key::Down | Key::Letter('j') => table.step(&rows, 1),
            Key::PageUp => table.step(&rows, -table.turn()),
            Key::PageDown => table.step(&rows, table.turn()),
            // Once more than to the first one is back to nobody.
            Key::Home | Key::Letter('g') if table.is_selected() => table.select_none(),
            Key::Home | Key::Letter('g') => table.go(&rows, 0),
            Key::End | Key::Letter('G') => table.go(&rows, usize::MAX),
            _ => {}
        }
    }

    fn go(&mut self, view: View) {
        self.view = view;
        self.came_from = None;
    }

    /// All is shown again, where it was before.
    fn leave(&mut self) {
        self.filter = Filter::default();
        self.view = self.came_from.take().unwrap_or(self.view);
    }

    /// From a service, or a node, to its tasks.
    fn enter(&mut self) {
        let rows = self.rows();
        let Some(row) = self.tables[self.view.place()].selected(&rows) else { return };
        let kind = match self.view {
            Services => "service",
            Nodes => "node",
            Tasks => return,
        };
        self.filter = Filter::new(&format!("{kind}:{}", row.name));
        self.came_from = Some(self.view);
        self.view = Tasks;
        self.tables[Tasks.place()].select_none();
    }
}
