//! **Decision.** Which tables there are, and which columns each has.

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Services.
    Services,
    /// Tasks: the backends of services, and those that serve nothing.
    Tasks,
    /// Nodes.
    Nodes,
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Above it.
    pub title: &'static str,
    /// Its name for programs.
    pub field: &'static str,
    /// Numbers: at the right, and the most first when sorted.
    pub number: bool,
    /// Where there is no room for all, those with more of it stay.
    pub importance: u8,
}

const fn words(title: &'static str, field: &'static str, importance: u8) -> Column {
    Column { title, field, number: false, importance }
}

const fn number(title: &'static str, field: &'static str, importance: u8) -> Column {
    Column { title, field, number: true, importance }
}

const FLOWS: Column = number("FLOWS/S", "FlowsPerSecond", 70);
const BYTES: Column = number("BYTES/S", "BytesPerSecond", 65);
const ACTIVE: Column = number("ACTIVE", "Active", 60);
const PACKETS: Column = number("PKTS/S", "PacketsPerSecond", 50);

const SERVICES: &[Column] = &[
    words("SERVICE", "Name", 100),
    number("TASKS", "Tasks", 90),
    words("STATE", "State", 80),
    FLOWS,
    BYTES,
    PACKETS,
    ACTIVE,
    words("PORTS", "Ports", 40),
    words("UPDATE", "Update", 30),
    words("ADDRESS", "Addresses", 20),
    words("NETWORK", "Networks", 10),
];

const TASKS: &[Column] = &[
    words("TASK", "Name", 100),
    words("NODE", "Node", 75),
    words("STATE", "State", 90),
    words("HEALTH", "Health", 55),
    FLOWS,
    BYTES,
    PACKETS,
    ACTIVE,
    number("LEFT", "ConnectionsLeft", 40),
    number("WEIGHT", "Weight", 30),
    words("ADDRESS", "Addresses", 20),
    words("WHY", "Reason", 10),
];

const NODES: &[Column] = &[
    words("NODE", "Name", 100),
    words("STATE", "State", 90),
    words("AVAILABILITY", "Availability", 75),
    number("TASKS", "Tasks", 80),
    FLOWS,
    BYTES,
    PACKETS,
    ACTIVE,
    number("PROBLEMS", "Problems", 40),
    words("ROLE", "Role", 35),
    words("ADDRESS", "Address", 30),
    words("WHY", "Reason", 10),
];

impl View {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Services, Self::Tasks, Self::Nodes];

    /// Which of them it is.
    pub fn place(self) -> usize {
        match self {
            Self::Services => 0,
            Self::Tasks => 1,
            Self::Nodes => 2,
        }
    }

    /// `Services`
    pub fn title(self) -> &'static str {
        ["Services", "Tasks", "Nodes"][self.place()]
    }

    /// Its columns.
    pub fn columns(self) -> &'static [Column] {
        [SERVICES, TASKS, NODES][self.place()]
    }

    /// The one that is so many further on, round and round.
    pub(super) fn step(self, by: usize) -> Self {
        Self::ALL[(self.place() + by) % Self::ALL.len()]
    }
}
