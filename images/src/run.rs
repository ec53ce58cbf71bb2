//! Child processes: each in a process group that dies with us, its lines heard, its wait bounded.
//!
//! A build is a tree of processes (make, shells, compilers), and killing its root leaves the
//! rest running. So a small supervisor leads the group: the kernel sends it SIGTERM when this
//! process dies in whatever way, and it ends the whole group. (The kernel watches the thread
//! that started the supervisor; here that thread always waits for it.)

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Leads the group. `$1` is the process to die with, the rest is the command. Its standard
/// input is handed on as descriptor 3: a lock that lives as long as any of the group.
const SUPERVISOR: &str = r#"
[ "$PPID" = "$1" ] || exit 125
shift
exec 3<&0 </dev/null
trap 'trap "" TERM; kill -TERM 0; (sleep 1; kill -KILL 0) & wait "$child"; kill -KILL 0' TERM
"$@" &
child=$!
wait "$child"
"#;

/// Lines of a failed program's output that are shown.
const TAIL: usize = 12;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A program to run.
pub(crate) struct Run<'a> {
    what: String,
    command: Command,
    deadline: Duration,
    log: Option<&'a Path>,
    lock: Option<&'a crate::lock::Lock>,
}

impl<'a> Run<'a> {
    /// `what` completes "failed to …".
    pub(crate) fn new(what: impl Into<String>, command: Command, deadline: Duration) -> Self {
        Self {
            what: what.into(),
            command,
            deadline,
            log: None,
            lock: None,
        }
    }

    /// All its lines are appended to this file.
    pub(crate) fn log(mut self, log: &'a Path) -> Self {
        self.log = Some(log);
        self
    }

    /// It holds this lock, as do its children.
    pub(crate) fn holding(mut self, lock: &'a crate::lock::Lock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Runs it to its end and gives what it wrote to standard output.
    pub(crate) fn output(self) -> Result<String, Error> {
        let mut output = String::new();
        self.lines(|stream, line| {
            if stream == Stream::Out {
                output.push_str(line);
                output.push('\n');
            }
        })?;
        Ok(output)
    }

    /// Runs it to its end; `hear` gets each line.
    pub(crate) fn lines(self, mut hear: impl FnMut(Stream, &str)) -> Result<(), Error> {
        let text = command_text(&self.command);
        let mut log = match self.log {
            Some(path) => Some(
                std::fs::File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .map_err(Error::file("open", path))?,
            ),
            None => None,
        };
        let mut child = self.spawn()?;
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take(), Stream::Out, sender.clone());
        read_lines(child.stderr.take(), Stream::Err, sender);
        let began = Instant::now();
        let mut tail = Tail::default();
        loop {
            let left = self.deadline.saturating_sub(began.elapsed());
            match lines.recv_timeout(left) {
                Ok((stream, line)) => {
                    if let Some(log) = &mut log {
                        writeln!(log, "{line}")
                            .map_err(Error::file("write", self.log.unwrap_or(Path::new(""))))?;
                    }
                    hear(stream, &line);
                    tail.push(line);
                }
                // Both pipes are closed.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    stop(&mut child);
                    return Err(Error::Deadline {
                        what: self.what,
                        command: text,
                        after: self.deadline,
                        last: tail.last(),
                    });
                }
            }
        }
        // The group has closed its output, so it is at its end: no need to bound this wait.
        let status = child.wait().map_err(|source| Error::Start {
            program: text.clone(),
            what: self.what.clone(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed {
            what: self.what,
            command: text,
            status: status_text(status),
            tail: tail.worst(),
            log: self.log.map(PathBuf::from),
        })
    }

    fn spawn(&self) -> Result<Child, Error> {
        let failed = |source| Error::Start {
            program: self.command.get_program().to_string_lossy().into_owned(),
            what: self.what.clone(),
            source,
        };
        let stdin = match self.lock {
            Some(lock) => Stdio::from(lock.share().map_err(failed)?),
            None => Stdio::null(),
        };
        let mut supervised = Command::new("setpriv");
        supervised
            .args([
                "--pdeathsig",
                "TERM",
                "--",
                "sh",
                "-c",
                SUPERVISOR,
                "knobrig",
            ])
            .arg(std::process::id().to_string())
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => supervised.env(name, value),
                None => supervised.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            supervised.current_dir(dir);
        }
        supervised
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)
    }
}

/// Ends the group; the supervisor kills what does not heed SIGTERM within a second.
fn stop(child: &mut Child) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only if the supervisor is gone, and then there is nothing to end.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait();
}

fn read_lines(
    pipe: Option<impl Read + Send + 'static>,
    stream: Stream,
    sender: mpsc::Sender<(Stream, String)>,
) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes);
            if sender.send((stream, line.trim_end().to_owned())).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}

/// A program's last lines, and apart from them those that look like errors: parallel makes go
/// on for a while after the first.
#[derive(Default)]
struct Tail {
    last: std::collections::VecDeque<String>,
    errors: Vec<String>,
}

impl Tail {
    fn push(&mut self, line: String) {
        if line.trim().is_empty() {
            return;
        }
        if self.errors.len() < TAIL && is_error(&line) {
            self.errors.push(line.clone());
        }
        if self.last.len() == TAIL {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn last(&self) -> String {
        self.last.back().cloned().unwrap_or_default()
    }

    fn worst(self) -> Vec<String> {
        let mut lines = self.errors;
        for line in self.last {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

fn is_error(line: &str) -> bool {
    // "error: …", "file.c:1:2: error: …", "error[E0425]: …", "make: *** …", "E: …" of apt.
    line.contains("error:")
        || line.contains("error[")
        || line.contains("*** ")
        || line.contains("undefined symbol")
        || line.starts_with("E: ")
}

fn status_text(status: ExitStatus) -> String {
    status
        .code()
        .map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// The command line, as a person would type it.
pub(crate) fn command_text(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains([' ', '$', '"', ';', '(']) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn output_is_what_it_wrote() {
        let output = Run::new("talk", shell("echo a; echo b >&2; echo c"), SOON).output();
        assert_eq!(output.expect("runs"), "a\nc\n");
    }

    #[test]
    fn a_failure_tells_status_and_errors_first() {
        let script = "echo 'x.c:1:1: error: no'; for i in $(seq 30); do echo $i; done; exit 3";
        let error = Run::new("fail", shell(script), SOON)
            .output()
            .expect_err("it fails");
        let Error::Failed { status, tail, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(status, "exit code 3");
        assert_eq!(tail[0], "x.c:1:1: error: no");
        assert_eq!(tail.last().map(String::as_str), Some("30"));
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        // The inner shell outlives its parent unless the group is ended; its pid tells.
        let script = "sh -c 'echo $$; trap \"\" TERM; sleep 600; :'; :";
        let mut pid = String::new();
        let began = Instant::now();
        let error = Run::new("hang", shell(script), Duration::from_millis(500))
            .lines(|_, line| pid = line.to_owned())
            .expect_err("it hangs");
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        let gone = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        assert!(!pid.is_empty());
        while !gone() {
            assert!(began.elapsed() < Duration::from_secs(10), "{pid} lives");
            std::thread::yield_now();
        }
    }

    const CHILD: &str = "KNOBRIG_TEST_RUN_DIR";

    /// The process that dies in the test below: runs a build that does not heed SIGTERM.
    #[test]
    fn builds_as_a_child() {
        let Some(dir) = std::env::var_os(CHILD) else {
            return;
        };
        let cache = crate::Cache::open(Some(Path::new(&dir))).expect("opens");
        let lock = crate::lock::Lock::attempt_named(&cache, "k", "builds")
            .expect("asks")
            .expect("is free");
        let script = "sh -c 'trap \"\" TERM; echo $$ >\"$0\"; while :; do sleep 600; done' pid; :";
        let mut build = shell(script);
        build.current_dir(&dir);
        let _ = Run::new("build", build, Duration::from_secs(60))
            .holding(&lock)
            .output();
    }

    #[test]
    fn a_build_dies_with_us_and_keeps_its_lock_until_then() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = crate::Cache::open(Some(dir.path())).expect("opens");
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "run::tests::builds_as_a_child"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let began = Instant::now();
        let patience = |what: &str| {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::yield_now();
        };
        let pid = loop {
            match std::fs::read_to_string(dir.path().join("pid")) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => patience("the build never began"),
            }
        };
        // Only this process, without a chance to clean up.
        child.kill().expect("kills");
        child.wait().expect("ends");
        let killed = Instant::now();
        let taken = loop {
            let free = crate::lock::Lock::attempt_named(&cache, "k", "tests");
            match free.expect("asks") {
                Some(lock) => break lock,
                None => patience("the lock is held for ever"),
            }
        };
        assert!(killed.elapsed() < Duration::from_secs(2));
        // Who has the lock can rely on no one else writing there.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        drop(taken);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = Run::new("try", Command::new("/no/such/program"), SOON)
            .output()
            .expect_err("there is none");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
