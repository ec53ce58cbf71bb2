//! One step, done by raw system calls, with the errno that the kernel gave.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use knobrig_proto::{FunctionGate, MODULE_DIR, Outcome, Step, Who};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, SeekFrom, lstat, makedev, mkdir, mknodat, open, rmdir, seek,
};
use rustix::io::{Errno, pread, pwrite, read, write};
use rustix::system::{delete_module, finit_module};

use crate::clock::now_ns;
use crate::find;
use crate::module;
use crate::paths::PathId;
use crate::scene::{For, Scene};
use crate::slots::{Descriptor, close};
use crate::stage::Stage;
use crate::tally::Op;

/// What [`Step::ReadFile`] reads at most.
const READ_FILE: usize = 64 << 10;
/// What it has room for at first; most files are a line.
const READ_FIRST: usize = 2 << 10;
/// What [`Step::Read`] reads at most; more is `EINVAL`. The kernel itself caps at 2 GiB.
const MOST_READ: u32 = 16 << 20;
/// [`Step::WaitPath`] and [`Step::WaitText`] look this often at first: a device node comes a few hundred microseconds
/// after its device. It doubles up to [`LOOK_LONGEST`], so that a long wait costs no CPU.
const LOOK_FIRST: Duration = Duration::from_micros(100);
/// See [`LOOK_FIRST`].
const LOOK_LONGEST: Duration = Duration::from_millis(2);

/// What a thread brings to its steps.
#[derive(Debug)]
pub struct Doer<'a> {
    /// Shared with the others.
    pub scene: &'a Scene,
    /// Where it publishes its ops, and its number there.
    pub stage: Option<(&'a Stage, usize)>,
    /// The episode's function gates.
    pub gates: &'a [FunctionGate],
    /// How long it is to go on.
    pub whom: For,
    /// Where it tells when its latest call began.
    pub call_began: &'a AtomicU64,
    /// Its read buffer, kept between steps and episodes.
    pub buf: &'a mut Vec<u8>,
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// What it came to.
    pub outcome: Outcome,
    /// The op, where the step was one and its system call was made.
    pub op: Option<(Op, PathId)>,
}

type Result<T> = std::result::Result<T, Errno>;

impl Doer<'_> {
    /// Does a step.
    pub fn perform(&mut self, step: &Step) -> Done {
        self.call_begins();
        match step {
            Step::Open {
                path,
                read,
                write,
                exclusive,
                slot,
            } => match access(*read, *write) {
                Some(access) if *exclusive => self.open(path, access | OFlags::EXCL, *slot),
                Some(access) => self.open(path, access, *slot),
                None => plain(|| Err(Errno::INVAL)),
            },
            Step::Close { slot } => match self.scene.slots.take(*slot) {
                Some(old) => {
                    let path = old.path;
                    self.op(Op::Close, path, |_| close(old).map(|()| 0))
                }
                None => nothing_open(),
            },
            Step::Read { slot, len } => self.on(*slot, Op::Read, |it, buf| {
                if *len > MOST_READ {
                    return Err(Errno::INVAL);
                }
                // Grown before the call and never shrunk: no allocation in a loop.
                if buf.len() < *len as usize {
                    buf.resize(*len as usize, 0);
                }
                let into = &mut buf[..*len as usize];
                it.transfer(|at| match at {
                    Some(offset) => pread(it.fd(), &mut *into, offset),
                    None => read(it.fd(), &mut *into),
                })
            }),
            Step::Write { slot, data } => self.on(*slot, Op::Write, |it, _| {
                let data = data.as_bytes();
                it.transfer(|at| match at {
                    Some(offset) => pwrite(it.fd(), data, offset),
                    None => write(it.fd(), data),
                })
            }),
            Step::Seek { slot, offset } => self.on(*slot, Op::Seek, |it, _| {
                // rustix hands the number on as it is: a negative one is the kernel's EINVAL.
                seek(it.fd(), SeekFrom::Start(*offset as u64)).map(|at| at as i64)
            }),
            Step::Poll {
                slot,
                timeout_ms,
                hangup,
            } => {
                let events = match hangup {
                    // Error and hang-up are told whatever is asked for.
                    true => PollFlags::empty(),
                    false => PollFlags::IN,
                };
                // A loop must not sleep through the end.
                let end = if self.whom == For::Loop {
                    self.scene.end()
                } else {
                    None
                };
                self.on(*slot, Op::Poll, |it, _| {
                    let mut fds = vec![PollFd::from_borrowed_fd(it.fd(), events)];
                    fds.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
                    poll(&mut fds, Some(&timespec(*timeout_ms)))?;
                    Ok(i64::from(!fds[0].revents().is_empty()))
                })
            }
            Step::ReadFile { path } => {
                let mut text = None;
                let mut done = plain(|| {
                    let bytes = read_file(path)?;
                    let len = bytes.len() as i64;
                    text = Some(String::from_utf8_lossy(&bytes).into_owned());
                    Ok(len)
                });
                done.outcome.text = text;
                done
            }
            // Told when it is done: the outcome's times are the call's alone.
            Step::Load { module, params } => {
                let done = plain(|| load(module, params));
                if done.outcome.ret >= 0 {
                    module::loaded(module, &module_path(module));
                }
                done
            }
            Step::Unload {
                module,
                patience_ms,
            } => {
                let done = plain(|| self.unload(module, Duration::from_millis(*patience_ms)));
                if done.outcome.ret >= 0 {
                    module::unloaded(module);
                }
                done
            }
            Step::WriteFile { path, data } => plain(|| {
                let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                write(file, data.as_bytes()).map(|len| len as i64)
            }),
            Step::Mkdir { path } => plain(|| mkdir(path, Mode::from_raw_mode(0o755)).map(|()| 0)),
            Step::Rmdir { path } => plain(|| rmdir(path).map(|()| 0)),
            Step::Exists { path } => plain(|| lstat(path).map(|_| 0)),
            Step::WaitPath {
                path,
                present,
                deadline_ms,
            } => plain(|| {
                self.wait_until(Duration::from_millis(*deadline_ms), || match lstat(path) {
                    Ok(_) => Ok(*present),
                    Err(Errno::NOENT) => Ok(!present),
                    // Anything else is no answer to "is it there": it is told.
                    Err(why) => Err(why),
                })
            }),
            Step::WaitText {
                path,
                text,
                deadline_ms,
            } => plain(|| {
                self.wait_until(Duration::from_millis(*deadline_ms), || {
                    Ok(read_file(path)?.trim_ascii() == text.as_bytes())
                })
            }),
            Step::WaitSignal { name, deadline_ms } => plain(|| {
                let deadline = Duration::from_millis(*deadline_ms);
                match self.scene.await_signal(name, deadline, self.whom) {
                    true => Ok(0),
                    false => Err(Errno::TIMEDOUT),
                }
            }),
            Step::AwaitGate { tag, deadline_ms } => plain(|| {
                let deadline = Duration::from_millis(*deadline_ms);
                match self
                    .scene
                    .await_gate(tag, self.gate_of(tag), deadline, self.whom)
                {
                    true => Ok(0),
                    false => Err(Errno::TIMEDOUT),
                }
            }),
            Step::ReleaseGate { tag } => plain(|| match self.scene.release_gate(tag) {
                true => Ok(0),
                false => Err(Errno::NOENT),
            }),
            Step::Sleep { ms } => plain(|| {
                self.scene.pass(Duration::from_millis(*ms), self.whom);
                Ok(0)
            }),
            Step::Hold { path, write } => plain(|| {
                let access = if *write { OFlags::RDWR } else { OFlags::RDONLY };
                let file = open(
                    path,
                    access | OFlags::CLOEXEC | OFlags::NOCTTY,
                    Mode::empty(),
                )?;
                // Kept open on purpose: that is the step.
                Ok(i64::from(std::os::fd::IntoRawFd::into_raw_fd(file)))
            }),
            Step::Mknod {
                path,
                block,
                major,
                minor,
            } => plain(|| {
                let kind = match block {
                    true => FileType::BlockDevice,
                    false => FileType::CharacterDevice,
                };
                let mode = Mode::from_raw_mode(0o600);
                mknodat(CWD, path, kind, mode, makedev(*major, *minor)).map(|()| 0)
            }),
            Step::Glob { path } => {
                let found = find::glob(path);
                let mut done = plain(|| Ok(found.len() as i64));
                done.outcome.text = Some(found.join("\n"));
                done
            }
            Step::List { path } => {
                let list = find::list(path);
                let mut done = plain(|| Ok(list.len() as i64));
                done.outcome.text = Some(list);
                done
            }
            Step::Nap { us } => plain(|| {
                std::thread::sleep(Duration::from_micros((*us).into()));
                Ok(0)
            }),
            Step::Spin { us } => plain(|| {
                let end = now_ns() + u64::from(*us) * 1_000;
                while now_ns() < end && !self.scene.over(self.whom) {
                    std::hint::spin_loop();
                }
                Ok(0)
            }),
        }
    }

    fn open(&mut self, path: &str, flags: OFlags, slot: u32) -> Done {
        if let Some(old) = self.scene.slots.take(slot) {
            // It is this step's to tell how the open went, not how that close did.
            let _ = close(old);
        }
        let id = self.scene.paths.id(path).unwrap_or_default();
        let scene = self.scene;
        let mut opened = None;
        let done = self.op(Op::Open, id, |_| {
            let fd = open(
                path,
                flags | OFlags::CLOEXEC | OFlags::NOCTTY,
                Mode::empty(),
            )?;
            Ok(i64::from(std::os::fd::AsRawFd::as_raw_fd(
                opened.insert(fd),
            )))
        });
        if let Some(fd) = opened
            && let Some(other) = scene.slots.put(slot, Descriptor::new(fd, id))
        {
            // Another thread opened into the same slot meanwhile.
            let _ = close(other);
        }
        done
    }

    /// An op on what is open in a slot.
    fn on(
        &mut self,
        slot: u32,
        op: Op,
        call: impl FnOnce(&Descriptor, &mut Vec<u8>) -> Result<i64>,
    ) -> Done {
        match self.scene.slots.get(slot) {
            Some(it) => self.op(op, it.path, |buf| call(&it, buf)),
            None => nothing_open(),
        }
    }

    /// An op: published while its call runs.
    fn op(&mut self, op: Op, path: PathId, call: impl FnOnce(&mut Vec<u8>) -> Result<i64>) -> Done {
        let inside = self
            .stage
            .map(|(stage, actor)| (stage, actor, stage.enter(actor, op, path)));
        let outcome = timed(|| call(self.buf));
        if let Some((stage, actor, number)) = inside {
            stage.leave(actor, number, outcome.ret);
        }
        Done {
            outcome,
            op: Some((op, path)),
        }
    }

    fn unload(&self, module: &str, patience: Duration) -> Result<i64> {
        let name = c_string(module)?;
        let flags = OFlags::NONBLOCK.bits() as i32;
        let mut last = Ok(0);
        let gone = self.wait_until(patience, || {
            last = delete_module(&name, flags).map(|()| 0);
            Ok(last != Err(Errno::WOULDBLOCK))
        });
        // Out of patience: what the kernel said, not that.
        gone.and(last).or(last)
    }

    /// The actor whose calls a function gate counts.
    fn gate_of(&self, tag: &str) -> Option<&str> {
        self.gates
            .iter()
            .find(|gate| gate.tag == tag)
            .and_then(|gate| match &gate.who {
                Who::Actor(name) => Some(name.as_str()),
                Who::Worker | Who::Anybody => None,
            })
    }

    fn call_begins(&self) {
        self.call_began.store(now_ns(), Ordering::Relaxed);
    }

    /// Looks again and again, until it is so or the time is over.
    fn wait_until(
        &self,
        deadline: Duration,
        mut is_so: impl FnMut() -> Result<bool>,
    ) -> Result<i64> {
        let begun = Instant::now();
        let mut pause = LOOK_FIRST;
        while !is_so()? {
            self.call_begins();
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() || self.scene.over(self.whom) {
                return Err(Errno::TIMEDOUT);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK_LONGEST);
        }
        Ok(0)
    }
}

/// `open(2)`'s access mode.
fn access(read: bool, write: bool) -> Option<OFlags> {
    match (read, write) {
        (true, false) => Some(OFlags::RDONLY),
        (false, true) => Some(OFlags::WRONLY),
        (true, true) => Some(OFlags::RDWR),
        (false, false) => None,
    }
}

/// A call with its times.
fn timed(call: impl FnOnce() -> Result<i64>) -> Outcome {
    let start_ns = now_ns();
    let result = call();
    let end_ns = now_ns();
    let ret = result.unwrap_or_else(|errno| -i64::from(errno.raw_os_error()));
    Outcome {
        ret,
        start_ns,
        end_ns,
        text: None,
    }
}

/// A step that is no op.
fn plain(call: impl FnOnce() -> Result<i64>) -> Done {
    Done {
        outcome: timed(call),
        op: None,
    }
}

/// An op on an empty slot: as on a closed descriptor. No call is made, so none is counted.
fn nothing_open() -> Done {
    plain(|| Err(Errno::BADF))
}

pub(crate) fn load(module: &str, params: &str) -> Result<i64> {
    // A name, not a path.
    if module.is_empty() || module.contains('/') {
        return Err(Errno::INVAL);
    }
    let params = c_string(params)?;
    let file = open(
        module_path(module),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    finit_module(file.as_fd(), &params, 0).map(|()| 0)
}

fn module_path(module: &str) -> PathBuf {
    PathBuf::from(format!("{MODULE_DIR}/{module}.ko"))
}

fn read_file(path: &str) -> Result<Vec<u8>> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Small first: a fresh page costs the guest more than a short read.
    let mut bytes = vec![0; READ_FIRST];
    let mut len = 0;
    // Proc and sysfs files give a page or a record at a time.
    loop {
        match read(&file, &mut bytes[len..])? {
            0 => break,
            got => len += got,
        }
        if len == READ_FILE {
            break;
        }
        if len == bytes.len() {
            bytes.resize((len * 2).min(READ_FILE), 0);
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}

fn timespec(ms: u32) -> Timespec {
    Timespec {
        tv_sec: i64::from(ms / 1_000),
        tv_nsec: i64::from(ms % 1_000) * 1_000_000,
    }
}
