//! Child processes that can't outlive the harness.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::Error;

/// Bytes of a child's stderr that are kept.
const KEPT: usize = 4096;
/// A child that has ended has closed its stderr, unless a child of its own holds it.
const CLOSE: Duration = Duration::from_secs(1);

/// A process that is killed ends within this; QEMU gives half a gigabyte back first.
const DIE: Duration = Duration::from_secs(1);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// The end of what a child says on its stderr, read as it comes so that the child never waits.
pub(crate) struct Tail(Option<JoinHandle<String>>);

impl Tail {
    pub(crate) fn follow<R: AsyncRead + Unpin + Send + 'static>(stream: Option<R>) -> Self {
        Self(stream.map(|stream| tokio::spawn(read_tail(stream))))
    }

    /// What it said, once it has ended.
    pub(crate) async fn text(&mut self) -> String {
        match self.0.take() {
            Some(task) => match timeout(CLOSE, task).await {
                Ok(Ok(text)) if !text.is_empty() => text,
                _ => "nothing".into(),
            },
            None => "nothing".into(),
        }
    }
}

async fn read_tail<R: AsyncRead + Unpin>(mut stream: R) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..count]);
        let surplus = text.len().saturating_sub(KEPT);
        text.drain(..surplus);
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A child that is gone, and waited for, when its handle is dropped: a parent that takes over orphans
/// and waits for none, as the first process of many a container, would keep it as a zombie.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl std::ops::Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, which is as well.
        let _ = self.0.start_kill();
        let end = Instant::now() + DIE;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
    }
}

/// Starts a child that gets SIGKILL when the harness dies, whatever it dies of, and when its
/// handle is dropped. The runtime is single-threaded, so the thread that forks, to which the
/// kernel ties the death signal, lives as long as the process.
pub(crate) fn spawn(command: &mut Command, program: &Path) -> Result<Process, Error> {
    let parent = rustix::process::getpid();
    let die_with_parent = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the signal was set.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    command.stdin(Stdio::null()).process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory
    // that another thread of the parent could hold a lock on.
    unsafe { command.pre_exec(die_with_parent) };
    let child = command.spawn().map_err(|source| Error::Spawn {
        program: program.to_owned(),
        source,
    })?;
    Ok(Process(child))
}
