//! The report as files: `report.md`, `report.json`, and a chart for each metric.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Report, chart};

impl Report {
    /// Writes it into a directory, which is made if it is not there.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let put = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        put("report.json", &(self.json() + "\n"))?;
        put("report.md", &self.markdown())?;
        for metric in self.metrics() {
            let rows: Vec<_> = self.rows.iter().filter(|row| row.metric == metric).collect();
            put(&format!("{metric}.svg"), &chart::svg(metric, &rows))?;
        }
        Ok(())
    }

    /// Each once, in the rows' order.
    fn metrics(&self) -> Vec<&'static str> {
        let mut metrics: Vec<_> = self.rows.iter().map(|row| row.metric).collect();
        metrics.dedup();
        metrics
    }

    fn markdown(&self) -> String {
        let mut text = format!("# What a service costs its clients\n\n{}\n", machine());
        for metric in self.metrics() {
            let _ = write!(
                text,
                "\n## {metric}\n\n![{metric}]({metric}.svg)\n\n\
                 | entry | target | median | spread | to direct |\n|---|---|---:|---:|---:|\n"
            );
            for row in self.rows.iter().filter(|row| row.metric == metric) {
                let digits = if row.median < 100.0 { 2 } else { 0 };
                let _ = writeln!(
                    text,
                    "| {} | {} | {:.digits$} | {:.digits$} | {:.2} |",
                    row.entry, row.target, row.median, row.spread, row.ratio_to_direct
                );
            }
        }
        let _ = write!(text, "\n## Promises\n\n```\n{}{}```\n", super::PROMISED, self.promises.concat());
        text
    }
}

/// Where it was measured.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (info, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let (model, processors) =
        (model.map_or("unknown", |(_, name)| name), info.matches("processor\t").count());
    format!("{processors} processors ({model}), Linux {}.", kernel.trim())
}
