//! A node whose power is cut, and that is back soon.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Load};

use crate::kit::{Cli, READY, Task, mesh, served_by, url};

/// How long its power is off: as long as a machine takes, and so short that others cannot have found all of it out.
const OFF: [Duration; 2] = [Duration::from_secs(3), Duration::from_millis(1500)];
/// Then its kernel is there, and its agent is not yet.
const BOOTS: Duration = Duration::from_secs(2);
/// So long after its death nobody sends it anything new; with half a second for a machine that does much else.
const MASKED: Duration = Duration::from_millis(1500);

/// Whoever comes in by other nodes loses what was in flight, and nothing when its kernel answers again while what it ran
/// is gone. It serves again when its tasks do.
#[test]
fn a_node_that_is_rebooted_gets_nothing_new_until_its_tasks_are_back() -> Result<()> {
    mesh(4, |lab: &Lab| {
        let [n1, n2, n3, n4] = [lab.node("n1")?, lab.node("n2")?, lab.node("n3")?, lab.node("n4")?];
        n1.ok("network create app")?;
        n1.ok("service create --name web --network app -p 8080:80")?;
        let (stays, mut dies) = (Task::web(lab, n3, "web")?, Task::web(lab, n4, "web")?);
        for off in OFF {
            for node in [n1, n2, n4] {
                served_by(lab.client(), &url(node, 8080), &[&stays, &dies])?;
            }
            // Whoever was never heard is not judged.
            thread::sleep(Duration::from_secs(2));
            let entries = [(n1.address(), 8080).into(), (n2.address(), 8080).into()];
            let (begun, load) = (Instant::now(), Load::start(lab.client().netns(), &entries, 100)?);
            thread::sleep(Duration::from_millis(500));
            lab.power_off("n4")?;
            let dead = begun.elapsed();
            thread::sleep(off);
            lab.power_on("n4")?;
            thread::sleep(BOOTS);
            n4.start_agent()?;
            n4.wait_ready(READY)?;
            dies = Task::web(lab, n4, "web")?;
            for node in [n1, n2, n4] {
                served_by(lab.client(), &url(node, 8080), &[&stays, &dies])?;
            }
            let report = load.stop()?;
            let late: Vec<_> = report.failed.iter().filter(|failure| failure.at > dead + MASKED).collect();
            ensure!(
                late.is_empty(),
                "off for {off:?}, dead after {dead:?}: {} failed later: {late:?}",
                late.len()
            );
            ensure!(report.by_backend.len() == 2, "{report}");
        }
        Ok(())
    })
}
