//! The device program: started, commanded over its control socket, heard.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dk_control::{Command, Counters, Event, Gate, Numbered, Reply};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::lines::Lines;
use super::process::{self, Process, Tail};
use crate::error::Error;

/// The program starts in milliseconds; a loaded machine gets this long.
const START: Duration = Duration::from_secs(10);
/// A command is a line each way.
const ANSWER: Duration = Duration::from_secs(10);

/// Commands sent and not yet answered, by number. Closed once the link is down.
type Waiting = Arc<Mutex<Option<std::collections::HashMap<u64, oneshot::Sender<Reply>>>>>;

/// The running device program.
pub struct Device {
    child: Process,
    stderr: Tail,
    writer: OwnedWriteHalf,
    waiting: Waiting,
    next: u64,
}

/// How to start the device program.
#[derive(Clone, Debug)]
pub struct DeviceProgram {
    /// The program.
    pub program: PathBuf,
    /// Where its sockets go.
    pub dir: PathBuf,
    /// Its trace, appended to.
    pub trace: PathBuf,
}

impl DeviceProgram {
    /// The vhost-user socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("dk.sock")
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Starts it and greets it. Its gate events go to `events`.
    ///
    /// # Errors
    /// It can't be started, or doesn't answer.
    pub async fn start(&self, events: mpsc::Sender<Event>) -> Result<Device, Error> {
        for stale in [self.socket(), self.control()] {
            // Left by a device that was killed; a bind on it would fail.
            if stale.exists() {
                std::fs::remove_file(&stale).map_err(Error::file("remove", &stale))?;
            }
        }
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg("--socket")
            .arg(self.socket())
            .arg("--control")
            .arg(self.control())
            .arg("--trace")
            .arg(&self.trace)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = process::spawn(&mut command, &self.program)?;
        let mut stderr = Tail::follow(child.stderr.take());
        let stream = connect(&self.control(), &mut child, &mut stderr).await?;
        let (reader, writer) = stream.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(Default::default())));
        tokio::spawn(hear(
            Lines::new(reader, dk_control::MAX_LINE),
            waiting.clone(),
            events,
        ));
        let mut device = Device {
            child,
            stderr,
            writer,
            waiting,
            next: 1,
        };
        device
            .ask(Command::Hello {
                version: dk_control::VERSION,
            })
            .await?;
        Ok(device)
    }
}

/// Connects once the program listens. Polling a path costs nothing beside starting a program.
async fn connect(path: &Path, child: &mut Process, stderr: &mut Tail) -> Result<UnixStream, Error> {
    let end = Instant::now() + START;
    loop {
        let error = match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if let Ok(Some(status)) = child.try_wait() {
            let said = stderr.text().await;
            return Err(Error::Rig(format!(
                "the device program ended ({status}); it said: {said}"
            )));
        }
        if Instant::now() >= end {
            return Err(Error::Deadline {
                what: "the device program's control socket".into(),
                after: START,
                last: error.to_string(),
            });
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Hands replies to those who wait for them and events on, until the link ends.
async fn hear<R: tokio::io::AsyncRead + Unpin>(
    mut lines: Lines<R>,
    waiting: Waiting,
    events: mpsc::Sender<Event>,
) {
    while let Ok(Some(line)) = lines.next().await {
        let Ok(reply) = dk_control::from_line::<Reply>(&line) else {
            break;
        };
        let id = match &reply {
            Reply::Done { id, .. } | Reply::Status { id, .. } | Reply::Refused { id, .. } => *id,
            Reply::Event(event) => {
                if events.send(event.clone()).await.is_err() {
                    break;
                }
                continue;
            }
        };
        let waiter = lock(&waiting)
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            // One that gave up waiting doesn't mind.
            let _ = waiter.send(reply);
        }
    }
    // Drops the senders: everyone who waits is told.
    lock(&waiting).take();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Device {
    /// Sends a command and awaits its answer.
    ///
    /// # Errors
    /// The device refused it, is gone, or does not answer.
    pub async fn ask(&mut self, command: Command) -> Result<Reply, Error> {
        let id = self.next;
        self.next += 1;
        let (sender, receiver) = oneshot::channel();
        match lock(&self.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => {
                return Err(Error::Rig(
                    "the device program's control link is down".into(),
                ));
            }
        };
        let what = format!("the device's answer to {command:?}");
        let line = dk_control::to_line(&Numbered { id, command });
        self.writer
            .write_all(line.as_bytes())
            .await
            .map_err(|error| Error::Rig(format!("failed to command the device: {error}")))?;
        match timeout(ANSWER, receiver).await {
            Ok(Ok(Reply::Refused { why, .. })) => {
                Err(Error::Rig(format!("the device refused a command: {why}")))
            }
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Error::Rig(
                "the device program's control link went down".into(),
            )),
            Err(_) => Err(Error::Deadline {
                what,
                after: ANSWER,
                last: "nothing from it".into(),
            }),
        }
    }

    /// Arms a gate.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn arm(&mut self, gate: &Gate) -> Result<(), Error> {
        self.ask(Command::Arm(gate.clone())).await.map(drop)
    }

    /// Takes a gate away; what it holds stays held.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn disarm(&mut self, tag: &str) -> Result<(), Error> {
        self.ask(Command::Disarm {
            tag: tag.to_owned(),
        })
        .await
        .map(drop)
    }

    /// Lets go what a gate holds.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn release(&mut self, tag: &str) -> Result<(), Error> {
        self.ask(Command::Release {
            tag: tag.to_owned(),
        })
        .await
        .map(drop)
    }

    /// Disarms every gate and lets everything go.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn reset(&mut self) -> Result<(), Error> {
        self.ask(Command::Reset).await.map(drop)
    }

    /// What the device has counted.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn status(&mut self) -> Result<Counters, Error> {
        match self.ask(Command::Status).await? {
            Reply::Status { counters, .. } => Ok(counters),
            other => Err(Error::Rig(format!(
                "the device answered a question for its status with {other:?}"
            ))),
        }
    }

    /// Resolves when the program has ended; says how.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{status}; it said: {}", self.stderr.text().await),
            Err(error) => format!("can't be waited for: {error}"),
        }
    }

    /// Kills the program, and waits until it is gone.
    pub async fn kill(&mut self) {
        // One that has died by itself is as dead.
        let _ = self.child.kill().await;
    }

    /// Ends the program in order, so that its trace is whole, and waits for it.
    pub async fn quit(&mut self) {
        // One that is gone can't answer, and need not.
        let _ = self.ask(Command::Quit).await;
        let _ = self.child.wait().await;
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}
