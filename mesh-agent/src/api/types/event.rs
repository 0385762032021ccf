//! **Fact.** An event on the wire: Docker's `EventMessage`.

use std::collections::BTreeMap;

use mesh_core::events;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// To whom or what something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct EventActor {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its `name`; of a task its `service` and `node`; `reason`; what was `changed`; who found it (`by`).
    pub attributes: BTreeMap<String, String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventMessage {
    /// When the node that was asked learned of it, seconds since 1970.
    pub time: u64,
    /// The same in nanoseconds. No two events of a node that it learned of together have the same.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
    /// What it happened to: `network`, `service`, `task` or `node`; `record` is one as the store has it; `agent` is the one
    /// that tells.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened: `create`, `update`, `remove`; `start`, `stop`, `die`, `health_status: healthy`, `ejected`,
    /// `let in`; `up`, `down`, `leave`; `active`, `pause`, `drain`. Of a record that makes no sense `set aside`, and later
    /// `in force` or `remove`. Of an agent `missed`: so many were not told,
    /// because they were read too slowly or are forgotten.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: EventActor,
}

impl EventMessage {
    /// An event at a moment, in nanoseconds since 1970.
    pub fn of(at: u64, event: &events::Event) -> Self {
        let events::Event { kind, action, id, attributes } = event;
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self {
            time: at / NANOS,
            time_nano: at,
            kind: kind.to_string(),
            action: (*action).to_owned(),
            actor: EventActor { id: id.clone(), attributes: attributes.collect() },
        }
    }
}

/// In a second.
const NANOS: u64 = 1_000_000_000;

/// Reads a moment as Docker's API has it: seconds since 1970, with a fraction or not; nanoseconds.
pub fn parse_moment(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(NANOS)?.checked_add(nanos)
}

/// Writes a moment so that [`parse_moment`] reads it.
pub fn format_moment(nanos: u64) -> String {
    format!("{}.{:09}", nanos / NANOS, nanos % NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, nanos) in [("7", 7 * NANOS), ("7.5", 7_500_000_000), ("0.000000001", 1)] {
            assert_eq!(parse_moment(text), Some(nanos), "{text}");
            assert_eq!(parse_moment(&format_moment(nanos)), Some(nanos), "{text}");
        }
        for wrong in
            ["", ".", "1.", ".5", "-1", "1e9", "1.0000000001", "99999999999999999999", "18446744074", "+1"]
        {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
