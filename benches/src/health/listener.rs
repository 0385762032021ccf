//! Takes up every connection, and says when they came.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::PORT;

/// How things are spread.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Gaps {
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Gaps {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (values.len() as f64 * share).ceil() as usize;
            values.get(place.saturating_sub(1)).copied().unwrap_or_default().round()
        };
        Self { min: at(0.0), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, p50, p99, max } = self;
        write!(f, "{min:>8.0} at least, {p50:.0} as a rule, {p99:.0} in 99 of 100, {max:.0} at most")
    }
}

/// What was heard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heard {
    pub(super) count: u32,
    /// To how many addresses.
    pub(super) tasks: u32,
    pub(super) gap_ms: Gaps,
    pub(super) per_100ms: Gaps,
}

/// Listens until nobody speaks to it any more; remembers from the first line on.
pub fn listen() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot listen")?;
    let came: Arc<Mutex<Vec<(IpAddr, Instant)>>> = Arc::default();
    let notes = Arc::clone(&came);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(to) = stream.local_addr() {
                notes.lock().unwrap_or_else(PoisonError::into_inner).push((to.ip(), Instant::now()));
            }
        }
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let begun = Instant::now();
    came.lock().unwrap_or_else(PoisonError::into_inner).clear();
    while std::io::stdin().lock().read_line(&mut line)? > 0 {}
    let came = std::mem::take(&mut *came.lock().unwrap_or_else(PoisonError::into_inner));
    writeln!(stdout, "{}", serde_json::to_string(&heard(&came, begun, begun.elapsed()))?)?;
    Ok(())
}

fn heard(came: &[(IpAddr, Instant)], begun: Instant, lasted: Duration) -> Heard {
    let mut last: BTreeMap<IpAddr, Instant> = BTreeMap::new();
    let mut gaps = Vec::new();
    let whole = usize::try_from(lasted.as_millis() / 100).unwrap_or_default();
    let mut tenths = vec![0.0; whole];
    for (to, at) in came {
        if let Some(before) = last.insert(*to, *at) {
            gaps.push((*at - before).as_secs_f64() * 1000.0);
        }
        let tenth = usize::try_from((*at - begun).as_millis() / 100).unwrap_or_default();
        if let Some(count) = tenths.get_mut(tenth) {
            *count += 1.0;
        }
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (gap_ms, per_100ms) = (Gaps::of(gaps), Gaps::of(tenths));
    Heard { count: number(came.len()), tasks: number(last.len()), gap_ms, per_100ms }
}
