//! A browser without a window, spoken to by the DevTools protocol over two pipes.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};

/// Longest wait for an answer; a browser on a loaded machine takes seconds to start.
const DEADLINE: Duration = Duration::from_secs(120);
/// The browser that this machine has.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let all = knobrig_images::BROWSERS
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    all.into_iter().find(|program| program.is_file())
}

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    commands: PipeWriter,
    messages: mpsc::Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// Messages that were no answers, in order.
    events: Vec<Value>,
}

impl Browser {
    /// Starts it; what it keeps goes to `home`.
    pub(crate) fn start(program: &Path, home: &Path) -> Self {
        let (commands_read, commands) = std::io::pipe().expect("a pipe");
        let (answers, answers_write) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", home.display()))
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let at = |parent_fd: OwnedFd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        command
            .fd_mappings(vec![
                at(commands_read.into(), 3),
                at(answers_write.into(), 4),
            ])
            .expect("two descriptors");
        let child = command.spawn().expect("the browser starts");
        // Its ends of the pipes are its own: ours of them close with the command.
        drop(command);
        let mut browser = Self {
            child,
            commands,
            messages: listen(answers),
            session: None,
            last: 0,
            events: Vec::new(),
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks for something and waits for the answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut line = message.to_string().into_bytes();
        line.push(0);
        self.commands.write_all(&line).expect("the browser reads");
        let end = Instant::now() + DEADLINE;
        loop {
            let message = self.next(end, method);
            if message["id"] != self.last {
                self.events.push(message);
                continue;
            }
            assert!(message.get("error").is_none(), "{method}: {message}");
            return message["result"].clone();
        }
    }

    /// Opens a file and waits until it is shown.
    pub(crate) fn open(&mut self, file: &Path) {
        let url = format!("file://{}", file.display());
        let before = self.loads();
        self.ask("Page.navigate", json!({ "url": url }));
        let end = Instant::now() + DEADLINE;
        while self.loads() == before {
            let message = self.next(end, "the page's load");
            self.events.push(message);
        }
    }

    fn loads(&self) -> usize {
        let loaded = |it: &&Value| it["method"] == "Page.loadEventFired";
        self.events.iter().filter(loaded).count()
    }

    /// Makes the window so wide, and the colours dark or light.
    pub(crate) fn look(&mut self, width: u32, dark: bool) {
        let size = json!({
            "width": width, "height": 740, "deviceScaleFactor": 1, "mobile": false,
        });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// What an expression comes to in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        let result = self.ask("Runtime.evaluate", params);
        assert!(
            result.get("exceptionDetails").is_none(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Waits until a condition holds in the page, looking at each picture that it draws.
    pub(crate) fn until(&mut self, condition: &str) {
        let look = format!(
            "new Promise(done => {{ const look = () => ({condition}) ? done(true) \
             : requestAnimationFrame(look); look() }})"
        );
        let params = json!({ "expression": look, "awaitPromise": true, "returnByValue": true });
        let result = self.ask("Runtime.evaluate", params);
        assert_eq!(result["result"]["value"], true, "{condition}: {result}");
    }

    /// Presses a key: `Tab`, `Enter`, `ArrowRight`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "ArrowRight" => (39, ""),
            _ => panic!("no key {key}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", params);
        }
    }

    /// What the console would show: errors, warnings, what the page refused to do.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let methods = [
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ];
        let is_one = |it: &&Value| methods.iter().any(|method| it["method"] == *method);
        self.events.iter().filter(is_one).collect()
    }

    /// The URLs that were fetched.
    pub(crate) fn fetched(&self) -> Vec<&str> {
        let sent = (self.events.iter()).filter(|it| it["method"] == "Network.requestWillBeSent");
        sent.filter_map(|it| it["params"]["request"]["url"].as_str())
            .filter(|url| !url.starts_with("data:"))
            .collect()
    }

    fn next(&self, end: Instant, awaited: &str) -> Value {
        let left = end.saturating_duration_since(Instant::now());
        let message = self.messages.recv_timeout(left);
        message.unwrap_or_else(|why| panic!("{awaited}: nothing came from the browser: {why}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers go with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads messages, each ended by a NUL, until the browser is gone.
fn listen(answers: PipeReader) -> mpsc::Receiver<Value> {
    let (sender, messages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answers = BufReader::new(answers);
        let mut bytes = Vec::new();
        while answers.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
            let message = serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap_or(&bytes));
            let Ok(message) = message else { break };
            if sender.send(message).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    messages
}
