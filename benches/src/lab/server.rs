//! What is served: the same web page and the same sink by every target.

use std::fs;

use anyhow::{Context, Result};
use mesh_tests::Lab;

/// The port of the web server, inside.
pub(crate) const WEB: u16 = 80;
/// The port of the sink, inside and outside.
pub(super) const SINK: u16 = 5201;
/// What the web server says.
pub(super) const PAGE: &str =
    "a page of no interest, as long as the answers of many a service are: one hundred bytes or a few more.";

/// Server and client have a CPU each, or a run depends on where the scheduler happened to put them.
pub(super) const SERVER_CPUS: [&str; 3] = ["taskset", "--cpu-list", "0"];
pub(super) const CLIENT_CPUS: [&str; 3] = ["taskset", "--cpu-list", "1"];

/// The command that serves, in the foreground.
pub(crate) fn command(lab: &Lab) -> Result<Vec<String>> {
    let dir = lab.dir().join("server");
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (dir, file) = (dir.display().to_string(), dir.join("nginx.conf"));
    fs::write(&file, config(&dir)).with_context(|| format!("cannot write {}", file.display()))?;
    let script = format!(
        "iperf3 --server --port {SINK} >/dev/null & exec nginx -p {dir} -e {dir}/error.log -c {dir}/nginx.conf"
    );
    let words = SERVER_CPUS.into_iter().chain(["sh", "-c", &script]);
    Ok(words.map(str::to_owned).collect())
}

fn config(dir: &str) -> String {
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = paths.iter().map(|kind| format!("{kind}_temp_path {dir}/{kind};\n")).collect();
    format!(
        "daemon off;\n\
         worker_processes 1;\n\
         pid {dir}/pid;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
         access_log off;\n\
         keepalive_requests 1000000000;\n\
         {paths}\
         server {{ listen {WEB} backlog=4096; location / {{ return 200 '{PAGE}'; }} }}\n\
         }}\n"
    )
}
