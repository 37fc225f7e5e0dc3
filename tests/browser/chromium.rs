//! Chromium without a window, told what to do by its own protocol over two pipes (--remote-debugging-pipe): messages are
//! JSON, each ended by a zero byte.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use leakprobe_tests::{Deadline, Folder};
use serde_json::{Value, json};

/// Chromium reads from descriptor 3 and writes to 4.
const PIPES: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page; it is killed when the value is dropped.
pub struct Chromium {
    process: Child,
    commands: ChildStdin,
    answers: ChildStdout,
    unread: Vec<u8>,
    last_id: u64,
    session: Option<String>,
    /// Its profile.
    _folder: Folder,
}

impl Chromium {
    /// Starts it with an empty page; `test` is whose it is, since tests run side by side.
    pub fn start(test: &str) -> Result<Self> {
        let folder = Folder::new(&format!("browser-{test}"))?;
        let mut process = Command::new("sh")
            .args(["-c", PIPES, "chromium", "--headless=new", "--no-sandbox", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start Chromium")?;
        let commands = process.stdin.take().context("stdin is a pipe")?;
        let answers = process.stdout.take().context("stdout is a pipe")?;
        let mut browser = Self {
            process,
            commands,
            answers,
            unread: Vec::new(),
            last_id: 0,
            session: None,
            _folder: folder,
        };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].take();
        let attached = browser.ask("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.ask("Page.enable", &json!({}))?;
        Ok(browser)
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .with_context(|| format!("send {method}"))?;
        let id = self.last_id;
        let mut answer = self.wait_for(method, |message| message["id"] == id)?;
        if !answer["error"].is_null() {
            bail!("Chromium answered {method} with {}", answer["error"]);
        }
        Ok(answer["result"].take())
    }

    /// Opens a file, in that colour scheme and so many pixels wide, and waits until it is loaded.
    pub fn open(&mut self, page: &Path, scheme: &str, width: u32) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", &size)?;
        self.ask("Page.navigate", &json!({"url": format!("file://{}", page.display())}))?;
        self.wait_for("the page's load", |message| message["method"] == "Page.loadEventFired").map(drop)
    }

    /// What an expression of JavaScript comes to, when its promise is kept.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.ask("Runtime.evaluate", &parameters)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("the page threw {}", answer["exceptionDetails"]);
        }
        Ok(answer["result"]["value"].take())
    }

    /// Presses a key, by its name and its code.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// The first message that is meant; others are events that nobody waits for.
    fn wait_for(&mut self, awaited: &str, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Deadline::usual();
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message: Value =
                    serde_json::from_slice(&self.unread[..end]).context("read Chromium's message as JSON")?;
                self.unread.drain(..=end);
                if is_meant(&message) {
                    return Ok(message);
                }
            }
            deadline.wait_for(&self.answers, &format!("Chromium's answer to {awaited}"))?;
            let mut piece = vec![0; 1 << 16];
            let read = self.answers.read(&mut piece).context("read from Chromium")?;
            if read == 0 {
                bail!("Chromium ended before it answered {awaited}");
            }
            self.unread.extend(&piece[..read]);
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // A test that fails has more to tell than a browser that has gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
