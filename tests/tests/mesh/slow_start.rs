//! Tasks that come into the balance little by little.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mesh_tests::eventually;

use crate::kit::{Cli, SOON, Task, lab, served_by, spread, started, text, url};

/// How long it takes here; the share grows nine times in that time.
const SLOW: Duration = Duration::from_secs(36);
/// Nothing but the plan itself may bring a task further: no look at the kernel in between.
const NEVER: &str = "[dataplane]\nsweep = 3600\n";
const REQUESTS: usize = 200;

/// With `--slow-start` a task that comes to an older one has little of the load at first, and an equal part of it by
/// itself in the end, or at once when the service is told so.
#[test]
fn a_new_task_gets_little_at_first_and_its_part_in_the_end() -> Result<()> {
    started(lab()?.nodes(2).config(NEVER), |lab| {
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80 --slow-start 36s")?;
        let old = Task::web(lab, n1, "web")?;
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&old])?;
        }
        sleep(SLOW);

        let start = Instant::now();
        let new = Task::web(lab, n2, "web")?;
        let share_at = |node| -> Result<usize> {
            let all = spread(lab.client(), &url(node, 8080), REQUESTS)?;
            Ok(all.get(&new.name).copied().unwrap_or_default())
        };
        let equal = |node| {
            // Outside of this once in 40,000 times.
            let share = share_at(node)?;
            ensure!((70..=130).contains(&share), "of {REQUESTS} the new one has {share}");
            Ok(())
        };
        for node in [n1, n2] {
            served_by(lab.client(), &url(node, 8080), &[&old, &new])?;
            let share = share_at(node)?;
            ensure!(start.elapsed() < SLOW / 3, "too slow to see anything: {:?}", start.elapsed());
            // A weight of 4 beside one of 10 at most: 58 of 200, and more than 80 once in 10,000 times.
            ensure!(share <= 80, "of {REQUESTS} the new one has {share} after {:?}", start.elapsed());
        }
        ensure!(text(&n1.inspect("service", "web")?["Spec"]["SlowStart"]) == "36s");

        n1.ok("service update --slow-start 0 web")?;
        for node in [n1, n2] {
            eventually(SOON, "without a slow start both have the same", || equal(node))?;
        }

        n1.ok("service update --slow-start 36s web")?;
        sleep(SLOW.saturating_sub(start.elapsed()));
        for node in [n1, n2] {
            eventually(SOON, "in the end both have the same", || equal(node))?;
        }
        Ok(())
    })
}
