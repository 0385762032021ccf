//! Processes in a control group and a network namespace, and their sockets.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mesh_agent::dataplane::ebpf;

use super::lab::Ns;

const ASK: &str = include_str!("ask.py");
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A control group that goes away with the test.
pub(crate) struct Group(pub(crate) PathBuf);

impl Group {
    pub(crate) fn new() -> Self {
        let mount = ebpf::cgroup2_mount().expect("cgroup v2 must be mounted");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = mount.join(format!("mesh-test-{}-{number}", std::process::id()));
        fs::create_dir(&dir)
            .unwrap_or_else(|error| panic!("{}: {error}; this test needs root", dir.display()));
        Self(dir)
    }

    /// A process inside, in a namespace.
    pub(crate) fn process(&self, netns: &Ns) -> Process {
        let script = r#"echo $$ > "$0/cgroup.procs" && exec nsenter --net="$1" python3 -c "$2""#;
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(&self.0)
            .args([&netns.path(), ASK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh, nsenter and python3 are needed");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Process { child, input, output };
        assert_eq!(process.does("ready"), "yes");
        process
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let start = Instant::now();
        // A process that was just killed is a member for a moment longer.
        while fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that does as it is told.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Has it do something, and waits for what came of it. See `ask.py`.
    pub(crate) fn does(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// The same, for which there must be no wait; a socket waits for a second.
    pub(crate) fn does_at_once(&mut self, what: &str) -> String {
        let start = Instant::now();
        let answer = self.does(what);
        assert!(start.elapsed() < Duration::from_millis(900), "{what}: {answer} after {:?}", start.elapsed());
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
