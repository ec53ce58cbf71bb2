//! Everything that goes to the host, through one writer, so that lines never mix.
//!
//! Whoever has something to tell puts a line in and goes on at once; a slow or absent host blocks
//! the writer alone. Answers are never dropped: when too many lie here unread, new requests are
//! refused ([`Outbox::full`]). Faults are what is dropped then, and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use knobrig_proto::{EpisodeReport, FromGuest, HEARTBEAT_MS, MAX_LINE, to_line};

use crate::clock::uptime_ms;
use crate::{console, lock};

/// Bytes that may lie here before requests are refused: a few of the longest lines.
const MOST_BYTES: usize = 4 * MAX_LINE;
/// A port that fails to take a line is tried again this often.
const RETRY: Duration = Duration::from_millis(10);

/// The queue before the writer.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Rung when a line comes in and when the last one is out.
    bell: Condvar,
    /// The running episode, for heartbeats; 0 for none.
    episode: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    /// Faults dropped since the last one that was told.
    dropped: u64,
    /// The writer is in the middle of a line.
    writing: bool,
}

impl Outbox {
    /// Puts a message in.
    pub fn send(&self, message: &FromGuest) {
        let line = to_line(message);
        if line.len() > MAX_LINE {
            return self.send(&FromGuest::Fault {
                why: too_long(message, line.len()),
            });
        }
        let mut queue = lock(&self.queue);
        if let FromGuest::Fault { why } = message {
            if queue.bytes > MOST_BYTES {
                queue.dropped += 1;
                return;
            }
            if queue.dropped > 0 {
                let why = format!("{why} ({} faults before it were not told)", queue.dropped);
                queue.dropped = 0;
                queue.push(to_line(&FromGuest::Fault { why }));
                return self.bell.notify_all();
            }
        }
        queue.push(line);
        self.bell.notify_all();
    }

    /// Tells a fault.
    pub fn fault(&self, why: impl Into<String>) {
        self.send(&FromGuest::Fault { why: why.into() });
    }

    /// Whether the host leaves so much unread that nothing new should be begun.
    pub fn full(&self) -> bool {
        lock(&self.queue).bytes > MOST_BYTES
    }

    /// Tells heartbeats which episode runs, 0 for none.
    pub fn set_episode(&self, id: u64) {
        self.episode.store(id, Ordering::Relaxed);
    }

    /// Waits until all is written; false if that took too long.
    pub fn drain(&self, deadline: Duration) -> bool {
        let begun = Instant::now();
        let mut queue = lock(&self.queue);
        while !queue.lines.is_empty() || queue.writing {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            queue = self.wait(queue, left);
        }
        true
    }

    /// The writer: lines as they come, and between them a heartbeat whenever one is due. It makes
    /// heartbeats itself so that none pile up before an absent host. Ends when `port` reports
    /// that its other end is gone for good (`EPIPE`), which a virtio port never does.
    pub fn write_to(&self, mut port: impl Write) {
        let beat = Duration::from_millis(HEARTBEAT_MS);
        let mut due = Instant::now() + beat;
        loop {
            let line = match self.next(due) {
                Some(line) => line,
                None => {
                    due = Instant::now() + beat;
                    let episode = self.episode.load(Ordering::Relaxed);
                    to_line(&FromGuest::Heartbeat {
                        uptime_ms: uptime_ms(),
                        episode,
                    })
                }
            };
            let gone = write_line(&mut port, line.as_bytes());
            lock(&self.queue).writing = false;
            self.bell.notify_all();
            if gone {
                return;
            }
        }
    }

    /// The next line, or `None` when a heartbeat is due first.
    fn next(&self, due: Instant) -> Option<String> {
        let mut queue = lock(&self.queue);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                queue.writing = true;
                return None;
            }
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.writing = true;
                return Some(line);
            }
            queue = self.wait(queue, left);
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, left: Duration) -> MutexGuard<'a, Queue> {
        match self.bell.wait_timeout(queue, left) {
            Ok((queue, _)) => queue,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

impl Queue {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

/// Writes all of a line; true when the other end is gone for good.
fn write_line(port: &mut impl Write, mut rest: &[u8]) -> bool {
    let mut told = false;
    while !rest.is_empty() {
        match port.write(rest) {
            Ok(len) => rest = &rest[len.min(rest.len())..],
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return true,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => {
                if !std::mem::replace(&mut told, true) {
                    console::fault(&format!("failed to write to the port, trying on: {why}"));
                }
                std::thread::sleep(RETRY);
            }
        }
    }
    false
}

fn too_long(message: &FromGuest, len: usize) -> String {
    let what = match message {
        FromGuest::Done { id, .. } => format!("the answer to do {id}"),
        FromGuest::Episode(EpisodeReport { id, .. }) => format!("the report of episode {id}"),
        _ => "a message".to_owned(),
    };
    format!("{what} is {len} bytes, and a line may have {MAX_LINE}: ask for less at a time")
}
