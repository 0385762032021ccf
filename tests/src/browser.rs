//! A real browser, Chromium without a window, told what to do by the protocol of its developer tools.
//!
//! It is spoken to by two pipes (`--remote-debugging-pipe`), each message with a zero byte at its end: no port is opened,
//! so it works in any network namespace. See <https://chromedevtools.github.io/devtools-protocol/>.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Host, Netns, eventually, exec::kill_group};

/// How long it may take to answer; a busy machine starts it in seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// Its third and fourth descriptors are the pipes; what it prints is of no use.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

const FLAGS: [&str; 9] = [
    "--headless=new",
    // Its sandbox cannot be made by root; it sees nothing but our own page.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    // It asks for nothing by itself.
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
];

/// A browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    /// What it told by itself.
    told: Vec<Value>,
    _dir: TempDir,
}

impl Browser {
    /// Starts one on a host of the lab.
    pub fn on(host: &Host) -> Result<Self> {
        Self::start(|argv| host.cgroup().command(argv), Some(host.netns()))
    }

    /// Starts one on this machine.
    pub fn here() -> Result<Self> {
        let command = |argv: Vec<String>| {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]);
            command
        };
        Self::start(command, None)
    }

    fn start(command: impl FnOnce(Vec<String>) -> Command, netns: Option<&Netns>) -> Result<Self> {
        let dir = TempDir::with_prefix("mesh-browser-").context("cannot make a directory for the browser")?;
        let data = format!("--user-data-dir={}", dir.path().display());
        let argv = ["sh", "-c", PIPES, "sh", "chromium"].into_iter().chain(FLAGS);
        let mut command = command(argv.chain([data.as_str(), "about:blank"]).map(str::to_owned).collect());
        command.env("HOME", dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = match netns {
            Some(netns) => netns.spawn(command)?,
            None => command.spawn().context("cannot start chromium: cargo xtask setup installs it")?,
        };
        let (to, said) = (child.stdin.take().context("no pipe")?, child.stdout.take().context("no pipe")?);
        let (heard, from) = channel();
        thread::Builder::new().name("browser".into()).spawn(move || {
            for message in BufReader::new(said).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if heard.send(message).is_err() {
                    return;
                }
            }
        })?;
        let mut browser = Self { child, to, from, session: None, asked: 0, told: Vec::new(), _dir: dir };
        let made = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(Into::into);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// One command of the protocol, and its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut line = serde_json::to_vec(&message)?;
        line.push(0);
        self.to.write_all(&line).context("the browser has ended")?;
        let until = Instant::now() + ANSWER;
        loop {
            match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(mut answer) if answer["id"] == self.asked => {
                    ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                    return Ok(answer["result"].take());
                }
                Ok(event) => self.told.push(event),
                Err(RecvTimeoutError::Timeout) => bail!("the browser does not answer to {method}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the browser ended at {method}: is chromium installed?")
                }
            }
        }
    }

    /// Goes to a page, without waiting for it.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let gone = self.call("Page.navigate", json!({"url": url}))?;
        ensure!(gone.get("errorText").is_none(), "{url}: {}", gone["errorText"]);
        Ok(())
    }

    /// The value of a script in the page.
    pub fn value<T: DeserializeOwned>(&mut self, script: &str) -> Result<T> {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", params)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{script}: {}", answer["exceptionDetails"]);
        serde_json::from_value(answer["result"]["value"].take())
            .with_context(|| format!("the value of {script}"))
    }

    /// Waits until a script in the page has that value.
    pub fn becomes(&mut self, within: Duration, script: &str, wanted: impl Into<Value>) -> Result<()> {
        let wanted = wanted.into();
        eventually(within, &format!("{script} is {wanted}"), || {
            let value: Value = self.value(script)?;
            ensure!(value == wanted, "it is {value}");
            Ok(())
        })
    }

    /// Gives the page a size, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let mobile = width < 600;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// What the reader likes: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).map(drop)
    }

    /// Presses and releases a key: a character, or a name such as `Tab`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "End" => (35, ""),
            "Home" => (36, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            other => (0, other),
        };
        let down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", down)?;
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).map(drop)
    }

    /// Types text.
    pub fn write(&mut self, text: &str) -> Result<()> {
        text.chars().try_for_each(|letter| self.press(&letter.to_string()))
    }

    /// A picture of the page, as PNG in base64.
    pub fn picture(&mut self) -> Result<String> {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        taken["data"].as_str().map(Into::into).context("no picture")
    }

    /// What went wrong in the page so far: exceptions, and errors and warnings of its console.
    pub fn faults(&mut self) -> Result<Vec<String>> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "info",
            _ => false,
        };
        Ok(self.events()?.iter().filter(bad).map(Value::to_string).collect())
    }

    /// All that the page asked for so far.
    pub fn requests(&mut self) -> Result<Vec<String>> {
        let url = |event: &Value| event["params"]["request"]["url"].as_str().map(Into::into);
        Ok(self.events()?.iter().filter_map(url).collect())
    }

    /// What it told, with all that happened before this moment.
    fn events(&mut self) -> Result<&[Value]> {
        self.value::<Value>("0")?;
        Ok(&self.told)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Nobody could do anything about a failure here.
        let _ = kill_group(&mut self.child);
    }
}
