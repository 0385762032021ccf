//! Random faults in a mesh with steady traffic, and an oracle that judges what came of it: `cargo xtask chaos`.
//!
//! What is done is decided before it begins, by the seed alone ([`schedule`]); what happened is written down
//! ([`Request`], [`Outage`]) and judged after it ended ([`judge`], [`given_twice`], [`Ledger`]). These know no clock
//! and no network. The rest does it, in a [`crate::Lab`]. `docs/chaos.md` says what is promised.

mod changes;
mod cluster;
mod convergence;
mod faults;
mod history;
mod managed;
mod oracle;
mod random;
mod records;
mod report;
mod run;
mod schedule;
mod store;
mod traffic;

pub use history::{Failed, Kept, Millis, Outage, Place, Request, Severed};
pub use oracle::{Judgement, Verdict, judge, known_after};
pub use random::Random;
pub use records::{Event, Ledger, given_twice};
pub use report::Report;
pub use run::{Options, run};
pub use schedule::{Change, NodeFault, Round, Size, StoreFault, schedule};
