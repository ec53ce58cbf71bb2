//! What the tests of the command share: a `knobrig` whose every trace can be looked for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::schema;

/// Longest wait for a run to get somewhere; a loaded machine boots a guest in 30 s.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// A place of its own for one run: its temporary files and its output.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("kt")
            .tempdir()
            .expect("a temp dir");
        fs::create_dir(dir.path().join("t")).expect("a directory");
        Self { dir }
    }

    /// Where the run's directory goes.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn tmp(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    /// `knobrig`, with its temporary files here.
    pub(crate) fn knobrig(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knobrig"));
        command.env("TMPDIR", self.tmp()).stdin(Stdio::null());
        command
    }

    /// `knobrig run --out …`
    pub(crate) fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.knobrig();
        command
            .arg("run")
            .arg("--out")
            .arg(self.out())
            .args(arguments);
        command
    }

    /// Process ids of everything that works on this place's sockets and is called so.
    pub(crate) fn processes(&self, name: &str) -> Vec<i32> {
        let here = self.tmp().display().to_string();
        let entries = fs::read_dir("/proc").expect("/proc");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(&here) && line.split(' ').next().is_some_and(|p| p.contains(name))
            })
            .collect()
    }

    /// Runs it until a file of the run's directory has this text, and ends it as Ctrl-C does: it says so, and
    /// leaves nothing.
    pub(crate) fn interrupt_once(&self, command: Command, file: &str, text: &str) {
        let background = Background::start(command);
        let path = self.out().join(file);
        let begun = wait_until(DEADLINE, || {
            let written = fs::read_to_string(&path).unwrap_or_default();
            written.contains(text)
        });
        assert!(begun, "no {text} in {file}");
        kill(background.pid(), rustix::process::Signal::INT);
        assert_eq!(background.end().code(), Some(130));
        self.assert_nothing_left();
    }

    /// Nothing of the run may be left: no process, no socket, no temporary file.
    pub(crate) fn assert_nothing_left(&self) {
        let gone = wait_until(Duration::from_secs(2), || self.processes("").is_empty());
        assert!(gone, "processes left: {:?}", self.processes(""));
        let left: Vec<_> = fs::read_dir(self.tmp())
            .expect("the place's own directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(left.is_empty(), "files left: {left:?}");
    }

    /// A JSON file of the run, which is as its schema says.
    pub(crate) fn json(&self, file: &str) -> Value {
        let path = self.out().join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let Some(schema) = schema::of(file) {
            schema::check(schema, &value);
        }
        value
    }

    /// The lines of a JSON-lines file of the run; each must be whole, and as its schema says.
    pub(crate) fn json_lines(&self, file: &str) -> Vec<Value> {
        let path = self.out().join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .inspect(|value| {
                if let Some(schema) = schema::of(file) {
                    schema::check(schema, value);
                }
            })
            .collect()
    }

    /// The place itself.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A test that fails takes its directory along, so it tells first what its guests had reported.
impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut left = vec![self.path().to_owned()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).into_iter().flatten();
                left.extend(entries.flatten().map(|entry| entry.path()));
            } else if path.ends_with("report.txt") {
                let text = fs::read_to_string(&path).unwrap_or_else(|why| why.to_string());
                eprintln!("{}:\n{text}", path.display());
            }
        }
    }
}

/// Polls a fact of the outside world that sends no event.
pub(crate) fn wait_until(deadline: Duration, mut fact: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if fact() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
}

/// A run in the background whose progress lines can be awaited.
pub(crate) struct Background {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("knobrig starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line of progress that holds `text`.
    pub(crate) fn await_line(&self, text: &str) {
        let end = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("no line with {text:?}; seen: {seen:#?}");
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < end, "knobrig does not end");
            // Drains its progress meanwhile, and waits without spinning.
            let _ = self.lines.recv_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A test that failed half-way leaves no run behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal.
pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    // Gone already is as good.
    let _ = rustix::process::kill_process(pid, signal);
}
