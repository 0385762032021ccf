//! **Decision.** Whose tasks a question is about: who is answered may go straight to their addresses for as long as the answer
//! holds, past any VIP. A service's own name is left out: it is a VIP, or else all know that it is not.

use super::names::NetworkNames;
use super::reply::HEADER;
use super::{Zone, find, is_number};
use crate::model::{NetworkId, ServiceId};

/// The longest name of a task, with the network's after it.
const LABELS: usize = 6;

/// The service whose tasks a question by name is about, as an asker in these networks sees it: `tasks.web`, `web.1`,
/// `_http._tcp.web`. Nearly all questions are none, and cost a look at two labels.
pub fn tasks_of<'a>(packet: &[u8], zone: &'a Zone, networks: &[NetworkId]) -> Option<&'a ServiceId> {
    let mut rest = packet.get(HEADER..)?;
    let mut labels = [""; LABELS];
    let mut count = 0;
    while let (size @ 1..64, after) = rest.split_first().map(|(size, after)| (usize::from(*size), after))? {
        let label;
        (label, rest) = after.split_at_checked(size)?;
        *labels.get_mut(count)? = str::from_utf8(label).ok()?;
        count += 1;
        if count == 2 && !is_of_tasks(&labels) {
            return None;
        }
    }
    let labels = labels.get(..count).filter(|labels| labels.len() > 1)?;
    let name = labels.join(".").to_ascii_lowercase();
    find(|| zone.mine(networks), &name, NetworkNames::tasks_of)
}

fn is_of_tasks([first, second, ..]: &[&str; LABELS]) -> bool {
    let word = |word: &&str| first.eq_ignore_ascii_case(word);
    first.starts_with('_') || is_number(second) || ["tasks", "nearest"].iter().any(word)
}
