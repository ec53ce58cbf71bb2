//! The real program, a guest of ours that is connected to it, and the other end of its control
//! channel. Every wait has a deadline.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use dk_abi::{HEADER_LEN, Header};
use dk_control::{Command, Counters, Event, Gate, Kind, Numbered, Point, Record, Reply, Suspicion};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};
use vhost::vhost_user::{
    Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A descriptor that the device may write.
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// A descriptor that another follows.
pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;

/// Descriptors of the ring.
pub(crate) const QUEUE_SIZE: u16 = 256;
/// Bytes of guest memory.
pub(crate) const MEMORY: u64 = 4 << 20;
/// Where the parts of the ring are.
pub(crate) const TABLE: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x3000;
pub(crate) const USED: u64 = 0x4000;
/// Where the buffers of requests begin, and how far they are from each other.
const BUFFERS: u64 = 0x10000;
const BUFFER: u64 = 0x8000;
/// Requests that may be under way: each has three descriptors.
const SLOTS: u16 = 64;
/// Where a VMM would have mapped guest memory.
const VMM: u64 = 0x7f00_0000_0000;

/// The running program.
pub(crate) struct Program {
    child: Child,
    dir: TempDir,
    /// Whether the guest does what a device must suspect. Any other is proven innocent at the end.
    hostile: bool,
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let child = spawn(dir.path(), arguments);
        Self {
            child,
            dir,
            hostile: false,
        }
    }

    /// The guest of this program will do what no driver may.
    pub(crate) fn expect_suspicions(&mut self) {
        self.hostile = true;
    }

    /// What was witnessed so far, as the trace tells it.
    pub(crate) fn suspicions(&self) -> Vec<(Suspicion, String)> {
        // A guest has its answers before the trace is written, a client after.
        self.client();
        let witnessed = |record| match record {
            Record::Gate(Event::Witness { what, detail, .. }) => Some((what, detail)),
            _ => None,
        };
        self.trace().into_iter().filter_map(witnessed).collect()
    }

    /// The same paths, a new process.
    pub(crate) fn restart(&mut self, arguments: &[&str]) {
        self.child = spawn(self.dir.path(), arguments);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        assert_eq!(self.child.wait().expect("waited for").signal(), Some(9));
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("signalled");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let deadline = Instant::now() + PATIENCE;
        await_readable(&end.expect("a child"), "the program's end", deadline);
        self.child.wait().expect("waited for")
    }

    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().expect("taken once");
        stderr.read_to_string(&mut text).expect("text");
        text
    }

    pub(crate) fn client(&self) -> Client {
        let mut client = self.stranger();
        let hello = Command::Hello {
            version: dk_control::VERSION,
        };
        assert!(matches!(client.ask(hello), Reply::Done { .. }));
        client
    }

    /// A client that hasn't said hello.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(connect(&self.path("control.sock")))
    }

    /// The whole trace so far.
    pub(crate) fn trace(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.path("trace.jsonl")).expect("a trace");
        text.lines()
            .map(|line| dk_control::from_line(line).expect("a record"))
            .collect()
    }

    /// Waits until the trace has such a record.
    pub(crate) fn await_record(&self, what: &str, such: impl Fn(&Record) -> bool) {
        Changes::of(self.dir.path()).until(what, || self.trace().iter().any(&such).then_some(()));
    }

    /// Kibibytes that are resident.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a size");
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok())
            .expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.hostile || std::thread::panicking() {
            return;
        }
        let trace = std::fs::read_to_string(self.path("trace.jsonl")).unwrap_or_default();
        let told: Vec<_> = trace
            .lines()
            .filter(|line| line.contains(r#""event":"witness""#))
            .collect();
        assert!(told.is_empty(), "an innocent guest is suspected: {told:?}");
    }
}

fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    let child = Process::new(env!("CARGO_BIN_EXE_dk-device"))
        .current_dir(dir)
        .args([
            "--socket",
            "dk.sock",
            "--control",
            "control.sock",
            "--trace",
            "trace.jsonl",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    child.expect("the program starts")
}

/// Asks until there is an answer. Whoever is asked waits for the program: for a reply of its, above
/// all.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what} didn't come in {PATIENCE:?}");
    }
}

/// Waits until a descriptor can be read.
fn await_readable(fd: &OwnedFd, what: &str, end: Instant) {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("seconds");
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            Ok(0) => panic!("{what} didn't come in {PATIENCE:?}"),
            ready => {
                ready.expect("waited");
                return;
            }
        }
    }
}

/// Tells when something changes in a directory.
pub(crate) struct Changes {
    inotify: OwnedFd,
}

impl Changes {
    pub(crate) fn of(dir: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let inotify = inotify.expect("an inotify");
        let changes = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MODIFY;
        inotify::add_watch(&inotify, dir, changes).expect("watched");
        Self { inotify }
    }

    /// Asks at each change until there is an answer.
    pub(crate) fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            await_readable(&self.inotify, what, end);
            // All of them are one.
            while rustix::io::read(&self.inotify, &mut [0; 4096]).is_ok() {}
        }
    }
}

/// Connects to a program that may not have come so far yet.
pub(crate) fn connect(path: &Path) -> UnixStream {
    let listening = "a listening program";
    let changes = Changes::of(path.parent().expect("a directory"));
    let stream = changes.until(listening, || {
        // A socket is there before it listens, or is a dead program's: that lasts for a moment, and
        // nothing tells when it is over.
        until(listening, || match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
            connected => Some(connected.ok()),
        })
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// When a record was written.
pub(crate) fn ns(record: &Record) -> u64 {
    match *record {
        Record::Header { ns, .. }
        | Record::Link { ns, .. }
        | Record::Ring { ns, .. }
        | Record::Seen { ns, .. }
        | Record::Gate(
            Event::Held { ns, .. } | Event::LetGo { ns, .. } | Event::Witness { ns, .. },
        )
        | Record::Done { ns, .. }
        | Record::Malformed { ns, .. } => ns,
    }
}

/// A client of the control channel.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    lines: BufReader<UnixStream>,
    events: VecDeque<Event>,
    next: u64,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        let lines = BufReader::new(stream.try_clone().expect("a second descriptor"));
        Self {
            stream,
            lines,
            events: VecDeque::new(),
            next: 1,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The next line that the device says; `None` at its end.
    pub(crate) fn hear(&mut self) -> Option<Reply> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(dk_control::from_line(&line).expect("a reply")),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the device says nothing: {error}"),
        }
    }

    /// Sends a command and waits for its reply; what happens meanwhile is kept.
    pub(crate) fn ask(&mut self, command: Command) -> Reply {
        let id = self.next;
        self.next += 1;
        self.send(dk_control::to_line(&Numbered { id, command }).as_bytes());
        loop {
            match self.hear().expect("a reply") {
                Reply::Event(event) => self.events.push_back(event),
                reply => {
                    let (Reply::Done { id: to, .. }
                    | Reply::Status { id: to, .. }
                    | Reply::Refused { id: to, .. }) = reply
                    else {
                        unreachable!("events were kept");
                    };
                    assert_eq!(to, id);
                    return reply;
                }
            }
        }
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.hear() {
            Some(Reply::Event(event)) => event,
            other => panic!("an event was awaited, not {other:?}"),
        }
    }

    pub(crate) fn arm(&mut self, gate: Gate) {
        let reply = self.ask(Command::Arm(gate));
        assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    }

    /// Releases a gate; tells how many went on.
    pub(crate) fn release(&mut self, tag: &str) -> u64 {
        match self.ask(Command::Release { tag: tag.into() }) {
            Reply::Done { released, .. } => released,
            other => panic!("not released: {other:?}"),
        }
    }

    pub(crate) fn counters(&mut self) -> Counters {
        match self.ask(Command::Status) {
            Reply::Status { counters, .. } => counters,
            other => panic!("no status: {other:?}"),
        }
    }
}

/// A gate that holds one request of a kind for longer than any test lasts.
pub(crate) fn gate(tag: &str, point: Point, kinds: &[Kind]) -> Gate {
    Gate {
        tag: tag.into(),
        point,
        kinds: kinds.to_vec(),
        sector: None,
        skip: 0,
        count: 1,
        deadline_ms: 600_000,
    }
}

/// A guest: memory, a ring in it, and a VMM's connection to the program.
pub(crate) struct Guest {
    pub(crate) memory: GuestMemoryMmap,
    file: File,
    link: Option<Link>,
    kept: Option<(VhostUserInflight, File)>,
    /// Entries put into the available ring, and taken from the used ring.
    available: u16,
    used: u16,
    slots: Vec<bool>,
}

/// A connection.
struct Link {
    frontend: Frontend,
    kick: EventFd,
    call: EventFd,
    err: EventFd,
    calls: Epoll,
    errors: Epoll,
}

fn watched(eventfd: &EventFd) -> Epoll {
    let epoll = Epoll::new().expect("an epoll");
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll
        .ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)
        .expect("watched");
    epoll
}

/// Waits until the eventfd behind it is written, or for as long as anything may take.
fn await_call(epoll: &Epoll) {
    let left = PATIENCE.as_millis().try_into().expect("seconds");
    // One that was interrupted by a signal waits again.
    let _ = epoll.wait(left, &mut [EpollEvent::default()]);
}

/// Data of a request.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    None,
    /// For the device.
    Out(Vec<u8>),
    /// So many bytes from the device.
    In(u32),
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Pending {
    slot: u16,
    len: u32,
}

/// A request's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    pub(crate) data: Vec<u8>,
    /// The length in the used ring.
    pub(crate) written: u32,
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsedEntry {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

impl Guest {
    /// A guest that isn't connected.
    pub(crate) fn new() -> Self {
        let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC);
        let file = File::from(file.expect("a file in memory"));
        file.set_len(MEMORY).expect("sized");
        let mapped = FileOffset::new(file.try_clone().expect("a second descriptor"), 0);
        let ranges = [(GuestAddress(0), MEMORY as usize, Some(mapped))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).expect("memory");
        let slots = vec![false; usize::from(SLOTS)];
        Self {
            memory,
            file,
            link: None,
            kept: None,
            available: 0,
            used: 0,
            slots,
        }
    }

    /// A guest that is connected, its ring running.
    pub(crate) fn started(program: &Program) -> Self {
        let mut guest = Self::new();
        guest.connect(program);
        guest.start();
        guest
    }

    /// Connects and agrees on features, as QEMU does.
    pub(crate) fn connect(&mut self, program: &Program) {
        let stream = connect(&program.path("dk.sock"));
        let mut frontend = Frontend::from_stream(stream, 1);
        frontend.set_owner().expect("owned");
        let features = frontend.get_features().expect("features");
        assert_ne!(
            features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits(),
            0
        );
        let protocol = frontend.get_protocol_features().expect("protocol features");
        let wanted = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        assert!(protocol.contains(wanted));
        frontend.set_protocol_features(protocol).expect("agreed");
        frontend.set_features(features).expect("agreed");
        let call = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let kick = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let err = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let (calls, errors) = (watched(&call), watched(&err));
        self.link = Some(Link {
            frontend,
            kick,
            call,
            err,
            calls,
            errors,
        });
    }

    pub(crate) fn frontend(&mut self) -> &mut Frontend {
        &mut self.link.as_mut().expect("a connection").frontend
    }

    /// Leaves without a word, as a VMM that is killed.
    pub(crate) fn disconnect(&mut self) {
        self.link = None;
    }

    /// Gives the device memory and the ring, and enables it, as QEMU does.
    pub(crate) fn start(&mut self) {
        self.start_at(TABLE, AVAILABLE, USED);
    }

    pub(crate) fn start_at(&mut self, table: u64, available: u64, used: u64) {
        self.share_memory();
        if self.kept.is_none() {
            let asked = VhostUserInflight {
                num_queues: 1,
                queue_size: QUEUE_SIZE,
                ..Default::default()
            };
            self.kept = Some(self.frontend().get_inflight_fd(&asked).expect("a region"));
        }
        let (inflight, file) = self.kept.take().expect("got above");
        self.frontend()
            .set_inflight_fd(&inflight, file.as_raw_fd())
            .expect("set");
        self.kept = Some((inflight, file));
        self.set_ring(table, available, used);
    }

    pub(crate) fn share_memory(&mut self) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: VMM,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.frontend().set_mem_table(&[region]).expect("shared");
    }

    pub(crate) fn set_ring(&mut self, table: u64, available: u64, used: u64) {
        let base = self.used_index();
        let link = self.link.as_mut().expect("a connection");
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: VMM + table,
            used_ring_addr: VMM + used,
            avail_ring_addr: VMM + available,
            log_addr: None,
        };
        link.frontend.set_vring_num(0, QUEUE_SIZE).expect("sized");
        // After a death, QEMU rewinds to the used index.
        link.frontend.set_vring_base(0, base).expect("based");
        link.frontend.set_vring_addr(0, &config).expect("addressed");
        link.frontend.set_vring_err(0, &link.err).expect("set");
        link.frontend.set_vring_kick(0, &link.kick).expect("set");
        link.frontend.set_vring_call(0, &link.call).expect("set");
        link.frontend.set_vring_enable(0, true).expect("enabled");
        self.settle();
    }

    /// Waits until the device has dealt with every message so far.
    pub(crate) fn settle(&mut self) {
        self.frontend().get_features().expect("an answer");
    }

    /// Stops the ring, as QEMU does at a reset; tells the available index.
    pub(crate) fn stop(&mut self) -> u32 {
        self.frontend().get_vring_base(0).expect("stopped")
    }

    /// Forgets the ring, as a driver does that resets the device.
    pub(crate) fn reset_ring(&mut self) {
        self.kept = None;
        (self.available, self.used) = (0, 0);
        self.slots.fill(false);
        for at in (TABLE..BUFFERS).step_by(8) {
            self.memory
                .write_obj(0u64, GuestAddress(at))
                .expect("in memory");
        }
    }

    pub(crate) fn config(&mut self, offset: u32, len: u32) -> Vec<u8> {
        let buffer = vec![0; len as usize];
        let flags = VhostUserConfigFlags::WRITABLE;
        self.frontend()
            .get_config(offset, len, flags, &buffer)
            .expect("a configuration")
            .1
    }

    pub(crate) fn kick(&self) {
        self.link
            .as_ref()
            .expect("a connection")
            .kick
            .write(1)
            .expect("kicked");
    }

    /// Whether the device says that the ring is broken; waits for it.
    pub(crate) fn await_error(&self) {
        let link = self.link.as_ref().expect("a connection");
        until("the device's error", || {
            await_call(&link.errors);
            link.err.read().ok()
        });
    }

    pub(crate) fn used_index(&self) -> u16 {
        let index = self.memory.load(GuestAddress(USED + 2), Ordering::Acquire);
        index.expect("in memory")
    }

    /// Writes a descriptor.
    pub(crate) fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let at = GuestAddress(TABLE + 16 * u64::from(index));
        self.memory
            .write_obj(Descriptor::new(addr, len, flags, next), at)
            .expect("in memory");
    }

    /// Puts a head into the available ring without a kick.
    pub(crate) fn offer(&mut self, head: u16) {
        let at = AVAILABLE + 4 + 2 * u64::from(self.available % QUEUE_SIZE);
        self.memory
            .write_obj(head, GuestAddress(at))
            .expect("in memory");
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    pub(crate) fn set_available(&self, index: u16) {
        let at = GuestAddress(AVAILABLE + 2);
        self.memory
            .store(index, at, Ordering::Release)
            .expect("in memory");
        fence(Ordering::SeqCst);
    }

    /// Asks not to be interrupted, or to be.
    pub(crate) fn want_interrupts(&self, wanted: bool) {
        let at = GuestAddress(AVAILABLE);
        self.memory
            .store(u16::from(!wanted), at, Ordering::Release)
            .expect("in memory");
        fence(Ordering::SeqCst);
    }

    pub(crate) fn was_interrupted(&self) -> bool {
        self.link
            .as_ref()
            .expect("a connection")
            .call
            .read()
            .is_ok()
    }

    /// Waits for the next entry of the used ring, by interrupts.
    pub(crate) fn next_used(&mut self) -> UsedEntry {
        let end = Instant::now() + PATIENCE;
        while self.used_index() == self.used {
            let link = self.link.as_ref().expect("a connection");
            assert!(
                Instant::now() < end,
                "the device answers nothing in {PATIENCE:?}"
            );
            await_call(&link.calls);
            let _ = link.call.read();
        }
        let at = USED + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
        let entry = self
            .memory
            .read_obj::<[u32; 2]>(GuestAddress(at))
            .expect("in memory");
        self.used = self.used.wrapping_add(1);
        UsedEntry {
            head: entry[0].try_into().expect("a head"),
            len: entry[1],
        }
    }

    /// Where the buffers of a slot are: header, status, data.
    fn buffers(slot: u16) -> (u64, u64, u64) {
        let at = BUFFERS + BUFFER * u64::from(slot);
        (at, at + 0x100, at + 0x200)
    }

    /// Sends a request and kicks.
    pub(crate) fn submit(&mut self, kind: u32, sector: u64, data: &Data) -> Pending {
        let pending = self.prepare(kind, sector, data);
        self.kick();
        pending
    }

    /// Sends a request without a kick.
    pub(crate) fn prepare(&mut self, kind: u32, sector: u64, data: &Data) -> Pending {
        let slot = self
            .slots
            .iter()
            .position(|taken| !taken)
            .expect("a free slot");
        self.slots[slot] = true;
        let slot = slot as u16;
        let (header, status, buffer) = Self::buffers(slot);
        self.memory
            .write_slice(&Header { kind, sector }.to_bytes(), GuestAddress(header))
            .expect("in memory");
        self.memory
            .write_obj(0xffu8, GuestAddress(status))
            .expect("in memory");
        let first = 3 * slot;
        let (len, flags) = match data {
            Data::None => (0, 0),
            Data::Out(bytes) => {
                self.memory
                    .write_slice(bytes, GuestAddress(buffer))
                    .expect("in memory");
                (bytes.len() as u32, NEXT)
            }
            Data::In(len) => (*len, NEXT | WRITE),
        };
        let second = if len > 0 { first + 1 } else { first + 2 };
        self.describe(first, header, HEADER_LEN as u32, NEXT, second);
        if len > 0 {
            self.describe(first + 1, buffer, len, flags, first + 2);
        }
        self.describe(first + 2, status, 1, WRITE, 0);
        self.offer(first);
        Pending {
            slot,
            len: if matches!(data, Data::In(_)) { len } else { 0 },
        }
    }

    /// Waits for the next answer, whichever request it is for, and checks that it is this one.
    pub(crate) fn finish(&mut self, pending: &Pending) -> Answer {
        let used = self.next_used();
        assert_eq!(used.head, 3 * pending.slot, "another request was answered");
        self.answer(pending, used)
    }

    /// What the answered request says.
    pub(crate) fn answer(&mut self, pending: &Pending, used: UsedEntry) -> Answer {
        self.slots[usize::from(pending.slot)] = false;
        let (_, status, buffer) = Self::buffers(pending.slot);
        let mut data = vec![0; pending.len as usize];
        self.memory
            .read_slice(&mut data, GuestAddress(buffer))
            .expect("in memory");
        let status = self
            .memory
            .read_obj(GuestAddress(status))
            .expect("in memory");
        Answer {
            status,
            data,
            written: used.len,
        }
    }

    /// The status byte in memory: 0xff until the device writes it.
    pub(crate) fn status_of(&self, pending: &Pending) -> u8 {
        let (_, status, _) = Self::buffers(pending.slot);
        self.memory
            .read_obj(GuestAddress(status))
            .expect("in memory")
    }

    pub(crate) fn head_of(pending: &Pending) -> u16 {
        3 * pending.slot
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, data: &Data) -> Answer {
        let pending = self.submit(kind, sector, data);
        self.finish(&pending)
    }

    /// Fails unless the device does what it should.
    pub(crate) fn check_served(&mut self) {
        let answer = self.request(dk_abi::GET_ID, 0, &Data::In(20));
        assert_eq!(
            (answer.status, &answer.data[..3]),
            (dk_abi::STATUS_OK, &b"dk0"[..])
        );
    }
}
