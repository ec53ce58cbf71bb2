//! What the kernel tells about a thread of ours: does it sleep, where, by which stack.

use std::fs::File;
use std::io;

use rustix::thread::gettid;

use crate::base;

/// The place of a sleeper that the kernel doesn't name (no KALLSYMS, or it hides it).
pub const UNNAMED: &str = "?";

/// A thread's files below `/proc`, held open: a look is then a read without a path walk.
#[derive(Debug)]
pub struct Task {
    tid: i32,
    base: u64,
    stat: Option<File>,
    wchan: Option<File>,
}

impl Task {
    /// Of the calling thread.
    pub fn current() -> Self {
        let tid = gettid().as_raw_nonzero().get();
        let open = |name: &str| File::open(format!("/proc/self/task/{tid}/{name}")).ok();
        Self {
            tid,
            base: base::own(),
            stat: open("stat"),
            wchan: open("wchan"),
        }
    }

    /// Its id.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Its `FS_BASE`, which tells a debugger of the machine whom a vCPU runs.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The kernel function that the thread sleeps in, or `None` while it runs.
    ///
    /// `wchan` alone answers both questions (the kernel gives "0" for a thread that is on a run
    /// queue) at a fraction of `stat`'s cost; the state letter decides only where `wchan` gives
    /// nothing.
    pub fn asleep(&self) -> Option<String> {
        let place = self
            .wchan
            .as_ref()
            .and_then(|file| read_start(file).ok())
            .unwrap_or_default();
        if !place.is_empty() && place != "0" {
            return Some(place);
        }
        matches!(self.state().as_str(), "S" | "D").then(|| UNNAMED.to_owned())
    }

    /// The state letter, `?` if it can't be read.
    pub fn state(&self) -> String {
        let stat = self
            .stat
            .as_ref()
            .and_then(|file| read_start(file).ok())
            .unwrap_or_default();
        // "TID (NAME) STATE …"; the name may hold anything, parentheses too.
        let letter = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        letter.unwrap_or('?').to_string()
    }

    /// The kernel stack, or the function it sleeps in where the stack can't be read.
    pub fn stack(&self) -> String {
        let stack = std::fs::read_to_string(format!("/proc/self/task/{}/stack", self.tid));
        match stack {
            Ok(text) if !text.trim().is_empty() => text,
            _ => self.asleep().unwrap_or_default(),
        }
    }
}

/// The first bytes of a proc file, which renders anew at offset 0.
fn read_start(file: &File) -> io::Result<String> {
    let mut buf = [0; 512];
    let len = rustix::io::pread(file, &mut buf, 0)?;
    Ok(String::from_utf8_lossy(&buf[..len]).trim_end().to_owned())
}
