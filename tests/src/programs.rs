//! Real programs for the tasks of tests: servers that tell who answers and who asked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const WEB: &str = include_str!("programs/web.py");
const UDP: &str = include_str!("programs/udp.py");

/// The servers, written where tasks can run them.
#[derive(Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    pub(crate) fn write(lab_dir: &Path) -> Result<Self> {
        let dir = lab_dir.join("programs");
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for (name, text) in [("web.py", WEB), ("udp.py", UDP)] {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { dir })
    }

    /// A web server (HTTP/1.1, keep-alive, IPv4 and IPv6). `GET /` answers `web.1 from 192.168.77.100`, where
    /// `web.1` is the variable MESH_TASK_NAME; `/peer` answers `192.168.77.100:43210`, the client; `/slow?2` answers
    /// after 2 seconds; `POST /echo` answers what it is sent; `/healthz` is 200, and 503 between `POST /sick` and
    /// `POST /well`.
    pub fn web(&self, port: u16) -> Vec<String> {
        self.python("web.py", port, None)
    }

    /// The web server under a name of its own.
    pub fn web_named(&self, port: u16, name: &str) -> Vec<String> {
        self.python("web.py", port, Some(name))
    }

    /// A UDP server: `peer` is answered with the client's address and port, what begins with `echo` with itself, any
    /// other datagram with `NAME from PEER`.
    pub fn udp(&self, port: u16) -> Vec<String> {
        self.python("udp.py", port, None)
    }

    /// The UDP server under a name of its own.
    pub fn udp_named(&self, port: u16, name: &str) -> Vec<String> {
        self.python("udp.py", port, Some(name))
    }

    /// A DNS server for the outside host: it answers for `example.test` and all below it with the outside
    /// host's address, and says "no such name" to everything else.
    pub fn internet_dns(&self) -> Vec<String> {
        let address = crate::fabric::OUTSIDE.0;
        let words = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
        ];
        let mut argv: Vec<String> = words.map(Into::into).into();
        argv.push(format!("--address=/example.test/{address}"));
        argv
    }

    fn python(&self, script: &str, port: u16, name: Option<&str>) -> Vec<String> {
        let script = self.dir.join(script).to_string_lossy().into_owned();
        let mut argv = vec!["python3".into(), script, port.to_string()];
        argv.extend(name.map(Into::into));
        argv
    }
}
