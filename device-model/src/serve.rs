//! The loop: one thread that waits for the VMM, the ring's kick, the harness, deadlines and
//! signals, and does what each asks for.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vhost::vhost_user::{BackendReqHandler, Error as LinkError};

use crate::clock;
use crate::complain;
use crate::control::Control;
use crate::device::Device;
use crate::error::Error;
use crate::link::{Front, Shared, lock};

/// Bytes of a vhost-user message's header.
const HEADER_LEN: usize = 12;
/// How long the VMM may take over a message that it has begun. QEMU sends each in one piece.
const MESSAGE: Duration = Duration::from_secs(1);

/// How to serve a device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the VMM connects.
    pub socket: PathBuf,
    /// Where the harness connects.
    pub control: PathBuf,
    /// The process that started the device, and with which it ends.
    pub parent: Option<i32>,
}

/// A device that listens.
#[derive(Debug)]
pub struct Server {
    front: Shared,
    socket: Bound,
    control: Control,
    _control_path: Bound,
    signals: UnixStream,
    parent: Option<OwnedFd>,
    link: Option<Link>,
    /// The ring may hold more than was done.
    more: bool,
}

/// A socket's place in the file system, given back at the end.
#[derive(Debug)]
struct Bound {
    listener: UnixListener,
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

/// The connection to the VMM.
struct Link {
    handler: BackendReqHandler<Mutex<Front>>,
    /// The same socket: the handler doesn't lend its own.
    stream: UnixStream,
}

impl Link {
    /// Waits until a whole header is there or the VMM is gone. The handler would wait for its
    /// rest for ever, and everyone with it.
    fn await_header(&self) -> rustix::io::Result<()> {
        let end = Instant::now() + MESSAGE;
        let mut header = [0; HEADER_LEN];
        while let (_, 1..HEADER_LEN) =
            rustix::net::recv(&self.stream, &mut header, RecvFlags::PEEK)?
        {
            if Instant::now() >= end {
                return Err(Errno::TIMEDOUT);
            }
            // Nothing tells when the rest of a header comes, and next to none comes in parts.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Whom a wait was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Signal,
    Parent,
    Listener,
    Link,
    Kick,
    LateKick,
    Control,
    Client(usize),
}

impl Server {
    /// Listens for both ends.
    ///
    /// # Errors
    /// A socket can't be had, or the parent is gone already.
    pub fn new(device: Device, options: &Options) -> Result<Self, Error> {
        let parent = options.parent.map(watch_parent).transpose()?;
        let (signals, sender) =
            UnixStream::pair().map_err(Error::system("make a pipe for signals"))?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let sender = sender.try_clone().map_err(Error::system("share a pipe"))?;
            signal_hook::low_level::pipe::register(signal, sender)
                .map_err(Error::system("handle signals"))?;
        }
        let socket = Bound::new(&options.socket)?;
        let control_path = Bound::new(&options.control)?;
        let listener = control_path.listener.try_clone();
        let control = Control::new(listener.map_err(Error::system("share a socket"))?);
        Ok(Self {
            front: Arc::new(Mutex::new(Front::new(device))),
            socket,
            control,
            _control_path: control_path,
            signals,
            parent,
            link: None,
            more: false,
        })
    }

    /// Serves until it is told to end.
    ///
    /// # Errors
    /// Waiting fails.
    pub fn run(mut self) -> Result<(), Error> {
        let mut end = false;
        while !end {
            let ready = self.wait()?;
            // The guest first: everything else is told of, it waits.
            if self.more || ready.contains(&Waited::Kick) {
                self.more = lock(&self.front).serve();
            }
            self.expire();
            for waited in ready {
                match waited {
                    Waited::Signal => {
                        let _ = self.signals.read(&mut [0; 64]);
                        end = true;
                    }
                    Waited::Parent => end = true,
                    Waited::Listener => self.accept(),
                    Waited::Link => self.handle_message(),
                    Waited::Kick => {}
                    Waited::LateKick => lock(&self.front).hear_late_kick(),
                    Waited::Control => self.control.accept(),
                    Waited::Client(client) => {
                        end |= self.control.hear(client, &mut lock(&self.front).device);
                    }
                }
            }
            let mut front = lock(&self.front);
            front.interrupt();
            self.control.tell_events(&mut front.device);
            // Who hears of something finds it in the trace.
            front.device.trace().flush();
            if let Some(loss) = front.device.trace().take_loss() {
                complain(&loss);
            }
            if !end {
                self.control.flush();
            }
        }
        self.end();
        Ok(())
    }

    /// Ends in order: what is held is dropped and told, and everyone hears the last of it.
    fn end(mut self) {
        let mut front = lock(&self.front);
        if self.link.take().is_some() {
            front.disconnect();
        }
        self.control.tell_events(&mut front.device);
        front.device.trace().flush();
        self.control.farewell();
    }

    /// Waits until somebody wants something. Returns who.
    fn wait(&self) -> Result<Vec<Waited>, Error> {
        let front = lock(&self.front);
        let mut waits = vec![
            (Waited::Signal, PollFd::new(&self.signals, PollFlags::IN)),
            (
                Waited::Control,
                PollFd::new(self.control.listener(), PollFlags::IN),
            ),
        ];
        if let Some(parent) = &self.parent {
            waits.push((Waited::Parent, PollFd::new(parent, PollFlags::IN)));
        }
        match &self.link {
            Some(link) => waits.push((Waited::Link, PollFd::new(&link.stream, PollFlags::IN))),
            // One VMM at a time: the next one waits in the socket's backlog.
            None => {
                let wait = PollFd::new(&self.socket.listener, PollFlags::IN);
                waits.push((Waited::Listener, wait));
            }
        }
        if let Some(kick) = front.kick() {
            waits.push((Waited::Kick, PollFd::new(kick, PollFlags::IN)));
        }
        if let Some(kick) = front.late_kick() {
            waits.push((Waited::LateKick, PollFd::new(kick, PollFlags::IN)));
        }
        for interest in self.control.interests() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.read);
            flags.set(PollFlags::OUT, interest.write);
            let wait = PollFd::from_borrowed_fd(interest.stream.as_fd(), flags);
            waits.push((Waited::Client(interest.client), wait));
        }
        let (who, mut fds): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
        match poll(&mut fds, self.timeout(&front).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::system("wait for work")(error)),
        }
        let ready = who.into_iter().zip(fds);
        Ok(ready
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(who, _)| who)
            .collect())
    }

    /// How long may be waited: until the next hold ends by itself.
    fn timeout(&self, front: &Front) -> Option<Timespec> {
        let ns = match front.device.next_deadline() {
            _ if self.more => 0,
            Some(deadline) => deadline.saturating_sub(clock::now()),
            None => return None,
        };
        // Deadlines are bounded to an hour, so both fit.
        let (sec, nsec) = (ns / 1_000_000_000, ns % 1_000_000_000);
        Some(Timespec {
            tv_sec: sec as i64,
            tv_nsec: nsec as i64,
        })
    }

    fn expire(&mut self) {
        let mut front = lock(&self.front);
        if front
            .device
            .next_deadline()
            .is_some_and(|deadline| deadline <= clock::now())
        {
            front.device.expire();
            front.interrupt();
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.socket.listener.accept() else {
            return;
        };
        // The handler reads whole messages, for which it may wait, but not for ever.
        let blocking = stream.set_nonblocking(false);
        if blocking
            .and_then(|()| stream.set_read_timeout(Some(MESSAGE)))
            .is_err()
        {
            return;
        }
        let Ok(second) = stream.try_clone() else {
            return;
        };
        let handler = BackendReqHandler::from_stream(stream, Arc::clone(&self.front));
        self.link = Some(Link {
            handler,
            stream: second,
        });
        lock(&self.front).connect();
    }

    fn handle_message(&mut self) {
        let Some(link) = &mut self.link else { return };
        let handled = match link.await_header() {
            Ok(()) => link.handler.handle_request(),
            Err(error) => Err(LinkError::SocketError(error.into())),
        };
        if let Err(error) = handled {
            if !matches!(error, LinkError::Disconnected | LinkError::SocketBroken(_)) {
                complain(&format_args!("the VMM's connection ends: {error}"));
            }
            self.link = None;
            lock(&self.front).disconnect();
        }
        // A ring that has just started may hold what nobody will kick for again.
        self.more = true;
    }
}

impl Bound {
    fn new(path: &Path) -> Result<Self, Error> {
        let bind = || UnixListener::bind(path);
        let listener = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                match UnixStream::connect(path) {
                    Ok(_) => return Err(Error::SocketInUse(path.to_owned())),
                    // Nobody listens: a device that was killed left it.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        fs::remove_file(path).map_err(Error::file("remove", path))?;
                        bind()
                    }
                    Err(error) => Err(error),
                }
            }
            bound => bound,
        };
        let listener = listener.map_err(Error::file("listen at", path))?;
        listener
            .set_nonblocking(true)
            .map_err(Error::file("listen at", path))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode: inode(path),
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Whoever took the place since keeps it.
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// A descriptor that becomes readable when the parent ends.
fn watch_parent(pid: i32) -> Result<OwnedFd, Error> {
    let parent = Pid::from_raw(pid).filter(|_| pid > 0);
    let parent = parent.ok_or_else(|| Error::Parent(format!("{pid} is no process id")))?;
    let watch = pidfd_open(parent, PidfdFlags::empty())
        .map_err(|error| Error::Parent(format!("process {pid} can't be watched: {error}")))?;
    // Asked after it was opened: the number may have become another's in between.
    if getppid() != Some(parent) {
        return Err(Error::Parent(format!(
            "process {pid} isn't the parent, or is gone"
        )));
    }
    Ok(watch)
}
