//! **Fact.** What came of a run.

use std::fmt;

use serde::Serialize;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it follows from.
    pub seed: u64,
    /// How many faults there were.
    pub faults: usize,
    /// How many requests there were.
    pub requests: usize,
    /// How many of them failed in flight to what died, or where nobody could answer.
    pub failed_in_flight: usize,
    /// How many failed otherwise.
    pub failed_other: usize,
    /// What was promised and not kept, in words.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether all promises were kept.
    pub fn is_clean(&self) -> bool {
        self.failed_other == 0 && self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, faults, requests, failed_in_flight, failed_other, violations } = self;
        writeln!(f, "seed              {seed}")?;
        writeln!(f, "faults            {faults}")?;
        writeln!(f, "requests          {requests}")?;
        writeln!(f, "failed in flight  {failed_in_flight}")?;
        writeln!(f, "failed otherwise  {failed_other}")?;
        write!(f, "violations        {}", violations.len())?;
        for violation in violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}
