//! One guest: its QEMU, its device, the link to its agent, its console. Everything that comes
//! from it arrives in one place, [`Guest::next_until`], which also notices at once when a part of it
//! goes away.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use dk_control::Event;
use knobrig_klog::{Class, Report, Stream};
use knobrig_proto::{FromGuest, Outcome, Step, ToGuest};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::device::{Device, DeviceProgram};
use super::lines::Lines;
use super::monitor::Monitor;
use super::plugs::Plugs;
use super::process::{self, Process, Tail};
use super::qemu::{Accel, Acpi, Descriptors, Machine, OURS, Qemu};
use super::vcpu::{Gdb, Kind, Plugin, Vcpus};
use crate::error::Error;
use crate::judge::finding::GuestEnd;
use crate::judge::record::{Clocks, LogClock};
use crate::symbols::ModuleSymbols;
use crate::target;

/// From QEMU's start to the agent's hello. TCG on a loaded machine takes 20 s at worst.
const BOOT: Duration = Duration::from_secs(90);
/// Heartbeats come every half second; a guest without one for so long is silent.
pub const SILENCE: Duration = Duration::from_secs(30);
/// A report that has begun is complete when nothing more comes for so long.
const REPORT_QUIET: Duration = Duration::from_millis(500);
/// One that lacks its stack or its last line is cut short when nothing more comes for so long: the
/// host may have left the guest standing.
const REPORT_CUT: Duration = Duration::from_secs(10);
/// The agent's answer to a few steps.
const DO: Duration = Duration::from_secs(60);
/// QEMU tries once a second at the latest.
const RECONNECT: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// A process whose sockets have closed is gone within milliseconds.
const DYING: Duration = Duration::from_secs(1);
/// Messages between the tasks that read and the one that decides. When it is full the readers
/// wait, and with them the guest: memory stays bounded.
const CHANNEL: usize = 256;

/// What a guest is made of, the same for each of a run.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The installed QEMU.
    pub qemu: Qemu,
    /// How it runs guest code.
    pub accel: Accel,
    /// vCPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What boots.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// The device program.
    pub device: PathBuf,
    /// Devices of the target beside ours.
    pub devices: Vec<target::Device>,
    /// What it has of ACPI.
    pub acpi: Acpi,
    /// Appended to.
    pub console_log: PathBuf,
    /// Appended to.
    pub device_trace: PathBuf,
    /// Names for what lay in modules that are gone.
    pub symbols: Arc<ModuleSymbols>,
    /// What is to hold vCPUs, where something is to.
    pub vcpus: Option<Kind>,
}

/// Something that came from a guest.
#[derive(Debug)]
pub enum Happening {
    /// The agent spoke (heartbeats aside).
    Agent(FromGuest),
    /// A gate held or let go.
    Gate(Event),
    /// The kernel reported. `episode` is the last marker before it in the log.
    Report {
        /// The report, complete.
        report: Box<Report>,
        /// The episode that it came of.
        episode: Option<u64>,
        /// When its first line came.
        begun: Instant,
    },
    /// A report begins on the console; it comes when it is complete.
    ReportBegins,
    /// A marker came by on the console.
    Marker(String),
}

/// Why a guest can't go on.
#[derive(Debug)]
pub enum Loss {
    /// QEMU ended and said nothing of a kernel report: killed, or broken.
    Qemu(String),
    /// The guest ended, and its kernel said nothing.
    Wordless(GuestEnd, String),
    /// The device program ended. QEMU connects to another one, but until 8.1 it loses that
    /// connection for good where the driver had stopped the ring meanwhile (its
    /// `vhost_user_async_close` then doesn't listen again): such a guest is spent.
    Device(String),
    /// The emulator ran what memory doesn't hold, and the kernel died of it.
    Emulator(String),
    /// The rig's own parts failed.
    Rig(Error),
}

impl Loss {
    /// In words.
    pub fn why(&self) -> String {
        match self {
            Self::Qemu(why) | Self::Wordless(_, why) | Self::Device(why) | Self::Emulator(why) => {
                why.clone()
            }
            Self::Rig(error) => error.to_string(),
        }
    }
}

impl From<Error> for Loss {
    fn from(error: Error) -> Self {
        Self::Rig(error)
    }
}

/// How a boot can fail.
#[derive(Debug)]
pub enum BootFailure {
    /// The kernel reported something before the agent spoke: no driver's doing.
    Unfit(Box<Report>),
    /// It never came up.
    Lost(Loss),
}

/// A running guest.
pub struct Guest {
    qemu: Process,
    stderr: Tail,
    device: Device,
    program: DeviceProgram,
    /// The device was killed on purpose, and none is in its place yet.
    device_down: bool,
    /// Where a device sends its events.
    events: mpsc::Sender<Event>,
    gates: mpsc::Receiver<Event>,
    agent: OwnedWriteHalf,
    monitor: Monitor,
    plugs: Plugs,
    words: Words,
    vcpus: Option<Vcpus>,
    heard: mpsc::Receiver<Heard>,
    /// Taken off `heard` while something else was awaited.
    kept: VecDeque<Happening>,
    console_open: bool,
    last_sign: Instant,
    clocks: Clocks,
    log_clock: LogClock,
    last_console: String,
    next_do: u64,
    /// Uptime in the agent's last heartbeat or hello, in milliseconds.
    pub uptime_ms: u64,
    /// When the actors of its first episode started.
    pub acting: Option<Instant>,
    /// The kernel's release.
    pub release: String,
    /// CPUs online.
    pub cpus: u32,
    // Last: the sockets go after the processes that use them.
    _dir: TempDir,
}

/// What the kernel has said so far, shared with the task that listens.
#[derive(Clone)]
struct Words(Arc<Mutex<Stream>>);

impl Words {
    fn get(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From the reading tasks.
enum Heard {
    Agent(FromGuest),
    /// Its link ended, as it does with QEMU.
    AgentGone(String),
    /// It sent what is no message: it and the harness don't fit, whatever the guest does.
    AgentGarbled(String),
    ReportBegins,
    /// With the episode that it came of, and when its first line came.
    Report(Box<Report>, Option<u64>, Instant),
    /// With the kernel log's time, in microseconds.
    Marker(String, Option<u64>),
    ConsoleLine(String),
    ConsoleEnd,
}

impl Guest {
    /// Boots a guest and waits for its agent.
    ///
    /// # Errors
    /// [`BootFailure`].
    pub async fn boot(recipe: &Recipe) -> Result<Self, BootFailure> {
        let mut guest = Self::start(recipe)
            .await
            .map_err(|error| BootFailure::Lost(error.into()))?;
        let end = Instant::now() + BOOT;
        loop {
            match guest.next_until(end, "the agent's hello").await {
                Ok(Happening::Agent(FromGuest::Hello {
                    version,
                    kernel,
                    cpus,
                    uptime_ms,
                })) => {
                    if version != knobrig_proto::VERSION {
                        return Err(BootFailure::Lost(Loss::Rig(Error::Rig(format!(
                            "the agent speaks version {version}, the harness {}",
                            knobrig_proto::VERSION
                        )))));
                    }
                    guest.release = kernel;
                    guest.cpus = cpus;
                    guest.uptime_ms = uptime_ms;
                    return Ok(guest);
                }
                Ok(Happening::Report { report, .. }) => return Err(BootFailure::Unfit(report)),
                Ok(_) => {}
                Err(loss) => return Err(BootFailure::Lost(loss)),
            }
        }
    }

    async fn start(recipe: &Recipe) -> Result<Self, Error> {
        // Short: a socket's path has 108 bytes.
        let dir = tempfile::Builder::new()
            .prefix("knobrig-")
            .tempdir()
            .map_err(Error::file("create a directory in", std::env::temp_dir()))?;
        let program = DeviceProgram {
            program: recipe.device.clone(),
            dir: dir.path().to_owned(),
            trace: recipe.device_trace.clone(),
        };
        let (events, gates) = mpsc::channel(CHANNEL);
        let device = program.start(events.clone()).await?;
        let (console, console_qemu) = pair()?;
        let (agent, agent_qemu) = pair()?;
        let (monitor, monitor_qemu) = pair()?;
        let (vcpus, vcpus_qemu) = pair()?;
        let fds = Descriptors {
            console: 3,
            agent: 4,
            monitor: 5,
            vcpus: 6,
        };
        let machine = Machine {
            accel: recipe.accel,
            cpus: recipe.cpus,
            memory_mib: recipe.memory_mib,
            kernel: &recipe.kernel,
            initrd: &recipe.initrd,
            device: &program.socket(),
            devices: &recipe.devices,
            vcpus: recipe.vcpus.as_ref(),
            acpi: recipe.acpi,
        };
        let mut command = tokio::process::Command::new(&recipe.qemu.path);
        command.args(recipe.qemu.arguments(&machine, fds));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let api = recipe.qemu.plugin_api().to_string();
        command.env(knobrig_vcpu_proto::API_VARIABLE, api);
        let mut mappings = vec![
            FdMapping {
                parent_fd: console_qemu,
                child_fd: fds.console,
            },
            FdMapping {
                parent_fd: agent_qemu,
                child_fd: fds.agent,
            },
            FdMapping {
                parent_fd: monitor_qemu,
                child_fd: fds.monitor,
            },
        ];
        if recipe.vcpus.is_some() {
            mappings.push(FdMapping {
                parent_fd: vcpus_qemu,
                child_fd: fds.vcpus,
            });
        }
        command
            .fd_mappings(mappings)
            .map_err(|error| Error::Rig(format!("failed to hand QEMU its sockets: {error}")))?;
        let mut qemu = process::spawn(&mut command, &recipe.qemu.path)?;
        // It holds QEMU's ends of the sockets, which must close when QEMU does.
        drop(command);
        let mut stderr = Tail::follow(qemu.stderr.take());
        let vcpus = match recipe.vcpus {
            None => None,
            Some(Kind::Plugin(_)) => {
                let plugin = greet(vcpus, &mut qemu, &mut stderr).await?;
                Some(Vcpus::Plugin(plugin))
            }
            Some(Kind::Gdb) => Some(Vcpus::Gdb(Gdb::new(vcpus, recipe.cpus))),
        };

        let (sender, heard) = mpsc::channel(CHANNEL);
        let log = File::options()
            .append(true)
            .create(true)
            .open(&recipe.console_log)
            .map_err(Error::file("open", &recipe.console_log))?;
        let words = Words(Arc::new(Mutex::new(Stream::with_symbols(
            recipe.symbols.clone(),
        ))));
        tokio::spawn(hear_console(console, words.clone(), log, sender.clone()));
        let (reader, writer) = agent.into_split();
        tokio::spawn(hear_agent(
            Lines::new(reader, knobrig_proto::MAX_LINE),
            sender,
        ));
        Ok(Self {
            qemu,
            stderr,
            device,
            device_down: false,
            events,
            gates,
            agent: writer,
            monitor: Monitor::new(monitor),
            plugs: Plugs::new(recipe, &program.socket()),
            words,
            program,
            vcpus,
            heard,
            kept: VecDeque::new(),
            console_open: true,
            last_sign: Instant::now(),
            clocks: Clocks::default(),
            log_clock: LogClock::default(),
            last_console: String::new(),
            next_do: 1,
            uptime_ms: 0,
            acting: None,
            release: String::new(),
            cpus: recipe.cpus,
            _dir: dir,
        })
    }

    /// The next thing that comes from the guest, by `end`.
    ///
    /// # Errors
    /// The guest can't go on, or `what` did not come in time.
    pub async fn next_until(&mut self, end: Instant, what: &str) -> Result<Happening, Loss> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        let asked = Instant::now();
        loop {
            let silent_at = self.last_sign + SILENCE.max(boot_grace(self.uptime_ms));
            let wake = end.min(silent_at);
            tokio::select! {
                biased;
                heard = self.heard.recv() => match heard {
                    Some(heard) => if let Some(happening) = self.take(heard)? {
                        return Ok(happening);
                    },
                    None => return Err(self.qemu_ended().await),
                },
                Some(event) = self.gates.recv() => return Ok(Happening::Gate(event)),
                why = self.device.ended(), if !self.device_down => return Err(device_died(&why)),
                () = tokio::time::sleep_until(wake) => {
                    if wake == silent_at {
                        let why = format!(
                            "nothing from the guest for {:?} while awaiting {what}; last line of its \
                             console: {}",
                            self.last_sign.elapsed(),
                            self.last_console
                        );
                        return Err(Loss::Wordless(GuestEnd::Silent, why));
                    }
                    return Err(Loss::Rig(Error::Deadline {
                        what: what.to_owned(),
                        after: asked.elapsed(),
                        last: format!("console: {}", self.last_console),
                    }));
                }
            }
        }
    }

    fn take(&mut self, heard: Heard) -> Result<Option<Happening>, Loss> {
        match heard {
            Heard::Agent(FromGuest::Heartbeat { uptime_ms, .. }) => {
                self.last_sign = Instant::now();
                self.uptime_ms = uptime_ms;
                Ok(None)
            }
            Heard::Agent(FromGuest::Acting { ns }) => {
                self.last_sign = Instant::now();
                // The agent's writer may have got its CPU late: the actors are at it.
                let now = self.clocks.to_guest(host_ns()).unwrap_or(ns);
                let late = Duration::from_nanos(now.saturating_sub(ns));
                self.acting = self.last_sign.checked_sub(late);
                Ok(None)
            }
            Heard::Agent(message) => {
                self.last_sign = Instant::now();
                if let Some(sent) = sent_at(&message) {
                    self.clocks.message(sent, host_ns());
                }
                Ok(Some(Happening::Agent(message)))
            }
            // QEMU's end closes the link too, and its console says why: that comes next.
            Heard::AgentGone(why) => {
                self.last_console = format!("{} (agent link: {why})", self.last_console);
                Ok(None)
            }
            Heard::AgentGarbled(why) => Err(Loss::Rig(Error::Rig(why))),
            Heard::Report(report, ..) if report.stale_code => {
                let why = [vec![report.title], report.notes].concat().join(": ");
                Err(Loss::Emulator(why))
            }
            Heard::Report(report, episode, begun) => Ok(Some(Happening::Report {
                report,
                episode,
                begun,
            })),
            Heard::ReportBegins => Ok(Some(Happening::ReportBegins)),
            Heard::Marker(line, time_us) => {
                if let Some(time_us) = time_us {
                    self.log_clock.logged(&line, time_us);
                }
                Ok(Some(Happening::Marker(line)))
            }
            Heard::ConsoleLine(line) => {
                self.last_console = line;
                Ok(None)
            }
            Heard::ConsoleEnd => {
                self.console_open = false;
                Ok(None)
            }
        }
    }

    /// QEMU has closed its console and the agent's link: tells how it ended.
    async fn qemu_ended(&mut self) -> Loss {
        let Ok(status) = timeout(Duration::from_secs(5), self.qemu.wait()).await else {
            return Loss::Qemu("QEMU closed the guest's console and did not end".into());
        };
        let said = self.stderr.text().await;
        match status {
            Ok(status) if status.success() => {
                let why = format!(
                    "the guest reset or shut down without a report; last line of its console: {}",
                    self.last_console
                );
                Loss::Wordless(GuestEnd::Reset, why)
            }
            Ok(status) => Loss::Qemu(format!("QEMU ended ({status}); it said: {said}")),
            Err(error) => Loss::Qemu(format!("QEMU can't be waited for: {error}")),
        }
    }

    /// The guest's clock when the host's stands so.
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }

    /// The step that put a marker into the log began at `began_ns`.
    pub fn marked(&mut self, marker: &str, began_ns: u64) {
        self.log_clock.written(marker, began_ns);
    }

    /// How far the kernel log's clock is ahead of `CLOCK_MONOTONIC`.
    pub fn log_ahead_ns(&self) -> Option<i64> {
        self.log_clock.ahead_ns()
    }

    /// Sends the agent a message.
    ///
    /// # Errors
    /// The link is down; [`next_until`](Self::next_until) tells why.
    pub async fn send(&mut self, message: &ToGuest) -> Result<(), Loss> {
        let line = knobrig_proto::to_line(message);
        let sent = timeout(DO, self.agent.write_all(line.as_bytes())).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            // The reader of QEMU's end tells better what happened.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let why = format!("the agent took no message for {DO:?}");
                Err(Loss::Wordless(GuestEnd::Silent, why))
            }
        }
    }

    /// Runs steps in the guest, outside an episode.
    ///
    /// A report ends the wait, with no outcome, and is kept for [`next_until`](Self::next_until):
    /// who did the step may never answer.
    ///
    /// # Errors
    /// The guest is lost.
    pub async fn run_steps(&mut self, steps: Vec<Step>) -> Result<Vec<Outcome>, Loss> {
        let id = self.next_do;
        self.next_do += 1;
        self.send(&ToGuest::Do { id, steps }).await?;
        let end = Instant::now() + DO;
        let mut kept = VecDeque::new();
        let outcomes = loop {
            match self.next_until(end, "the agent's answer to steps").await? {
                Happening::Agent(FromGuest::Done { id: done, outcomes }) if done == id => {
                    break outcomes;
                }
                report @ Happening::Report { .. } => {
                    kept.push_back(report);
                    break Vec::new();
                }
                other => kept.push_back(other),
            }
        };
        self.kept.extend(kept);
        Ok(outcomes)
    }

    /// Puts a marker into the kernel log and waits until it has come out on the console, so
    /// that everything that the kernel said before has, too. Gives a report that came first.
    ///
    /// # Errors
    /// The guest is lost.
    pub async fn drain_console(&mut self) -> Result<Option<Happening>, Loss> {
        let marker = format!("knobrig: sync {}", self.next_do);
        let write = Step::WriteFile {
            path: "/dev/kmsg".into(),
            data: format!("{marker}\n"),
        };
        self.run_steps(vec![write]).await?;
        let end = Instant::now() + DO;
        loop {
            match self.next_until(end, "a marker on the console").await? {
                Happening::Marker(line) if line == marker => return Ok(None),
                report @ Happening::Report { .. } => return Ok(Some(report)),
                _ => {}
            }
        }
    }

    /// The reports in a text of the kernel's that came another way than the console.
    pub fn read_aside(&self, text: &[u8]) -> Vec<Report> {
        self.words.get().aside(text)
    }

    /// What the device has witnessed by now and was not taken yet.
    pub fn witnessed(&mut self) -> Vec<Event> {
        let told = std::iter::from_fn(|| self.gates.try_recv().ok());
        told.filter(|event| matches!(event, Event::Witness { .. }))
            .collect()
    }

    /// Whether our device still has the status of one that is driven. Where it can't be told, it is
    /// not said.
    pub async fn device_is_driven(&mut self) -> bool {
        let driven = self.monitor.is_driven(OURS).await;
        driven.unwrap_or(false)
    }

    /// Takes a device of the machine away.
    ///
    /// # Errors
    /// QEMU refuses, or the guest is lost.
    pub async fn unplug(&mut self, id: &str) -> Result<(), Loss> {
        Ok(self.plugs.unplug(&mut self.monitor, id).await?)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// QEMU refuses, or the guest does not let the device go.
    pub async fn plug(&mut self, id: &str) -> Result<(), Loss> {
        Ok(self.plugs.plug(&mut self.monitor, id).await?)
    }

    /// Kills the device's program: what it was asked is never answered.
    pub async fn kill_device(&mut self) {
        self.device_down = true;
        self.device.kill().await;
    }

    /// Puts another device's program in the place of one that was killed, and waits until QEMU has
    /// taken to it. Where none was killed, nothing is done.
    ///
    /// # Errors
    /// It can't be started, or QEMU doesn't connect to it.
    pub async fn revive_device(&mut self) -> Result<(), Loss> {
        if !self.device_down {
            return Ok(());
        }
        self.device = self.program.start(self.events.clone()).await?;
        self.device_down = false;
        let end = Instant::now() + RECONNECT;
        while self.device.status().await?.connections == 0 {
            if Instant::now() >= end {
                return Err(Loss::Device(format!(
                    "QEMU did not connect to the device's new program within {RECONNECT:?} (until \
                     8.1 it doesn't if the driver stopped the ring meanwhile)"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What holds vCPUs, where QEMU has it.
    pub fn vcpus(&mut self) -> Option<&mut Vcpus> {
        self.vcpus.as_mut()
    }

    /// The device, to command it.
    pub fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    /// A failure as what it came of: a device that is dying can't be commanded.
    pub async fn cause(&mut self, loss: Loss) -> Loss {
        if !matches!(loss, Loss::Rig(_)) {
            return loss;
        }
        match timeout(DYING, self.device.ended()).await {
            Ok(why) => device_died(&why),
            Err(_) => loss,
        }
    }

    /// Process ids of QEMU and the device program, while they run.
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.qemu.id(), self.device.pid())
    }

    /// Stops QEMU and the device and waits until both are gone.
    pub async fn stop(mut self) {
        // Either may be gone already, which is what is wanted.
        let _ = self.qemu.kill().await;
        let _ = timeout(Duration::from_secs(5), self.device.quit()).await;
    }
}

fn device_died(why: &str) -> Loss {
    Loss::Device(format!("the device program died ({why})"))
}

/// Before the first heartbeat only the boot's own deadline counts.
fn boot_grace(uptime_ms: u64) -> Duration {
    if uptime_ms == 0 {
        BOOT * 2
    } else {
        Duration::ZERO
    }
}

/// Until the plugin has said hello QEMU waits, and a QEMU that can't load it says why.
async fn greet(socket: UnixStream, qemu: &mut Process, stderr: &mut Tail) -> Result<Plugin, Error> {
    match Plugin::greet(socket).await {
        Ok(plugin) => Ok(plugin),
        Err(error) => {
            // It has ended, or waits for a plugin that nobody speaks with.
            let _ = qemu.kill().await;
            let said = stderr.text().await;
            Err(Error::Rig(format!("{error}; QEMU said: {said}")))
        }
    }
}

/// A connected pair: our end, and the one that QEMU inherits.
fn pair() -> Result<(UnixStream, OwnedFd), Error> {
    let failed = |error: std::io::Error| Error::Rig(format!("failed to make a socket: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    Ok((UnixStream::from_std(ours).map_err(failed)?, theirs.into()))
}

async fn hear_agent<R: AsyncRead + Unpin>(mut lines: Lines<R>, sender: mpsc::Sender<Heard>) {
    loop {
        let heard = match lines.next().await {
            Ok(Some(line)) => match knobrig_proto::from_line(&line) {
                Ok(message) => Heard::Agent(message),
                Err(error) => Heard::AgentGarbled(error.to_string()),
            },
            Ok(None) => Heard::AgentGone("closed".into()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Heard::AgentGarbled(error.to_string())
            }
            Err(error) => Heard::AgentGone(error.to_string()),
        };
        let gone = matches!(heard, Heard::AgentGone(_) | Heard::AgentGarbled(_));
        if sender.send(heard).await.is_err() || gone {
            return;
        }
    }
}

/// Logs the console, parses it, and attributes each report to the marker before it.
async fn hear_console(
    mut console: UnixStream,
    words: Words,
    mut log: File,
    sender: mpsc::Sender<Heard>,
) {
    let mut markers = Markers::default();
    // When the first line of a report came that may still go on.
    let mut pending_since: Option<Instant> = None;
    // Whoever waits for a marker waits for all that the kernel said before it: one that comes
    // while a report may still go on is told after that.
    let mut deferred: Vec<Heard> = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        // A report that has begun is complete when the console falls quiet.
        let read = if words.get().pending().is_some() {
            let amid = words.get().is_amid_report();
            let quiet = if amid { REPORT_CUT } else { REPORT_QUIET };
            match timeout(quiet, console.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => {
                    let begun = pending_since.take().unwrap_or_else(Instant::now);
                    let finished = words.get().finish();
                    for report in finished.into_iter().filter(is_bug) {
                        let episode = markers.before(report.range.start);
                        let heard = Heard::Report(Box::new(report), episode, begun);
                        if sender.send(heard).await.is_err() {
                            return;
                        }
                    }
                    for marker in deferred.drain(..) {
                        if sender.send(marker).await.is_err() {
                            return;
                        }
                    }
                    continue;
                }
            }
        } else {
            console.read(&mut buffer).await
        };
        let bytes = match read {
            Ok(count) if count > 0 => &buffer[..count],
            Ok(_) | Err(_) => break,
        };
        // A full disk must not stop the oracles; the run's own files tell of it.
        let _ = log.write_all(bytes);
        let mut heard: Vec<_> = Vec::new();
        let now = Instant::now();
        let complete = words.get().push(bytes);
        for report in complete {
            let begun = pending_since.take().unwrap_or(now);
            if is_bug(&report) {
                let episode = markers.before(report.range.start);
                heard.push(Heard::Report(Box::new(report), episode, begun));
            }
        }
        match words.get().pending() {
            Some(_) => {
                if pending_since.is_none() {
                    heard.push(Heard::ReportBegins);
                }
                pending_since.get_or_insert(now);
            }
            None => pending_since = None,
        }
        let marked = markers.push(bytes).into_iter();
        deferred.extend(marked.map(|(line, time)| Heard::Marker(line, time)));
        if words.get().pending().is_none() {
            heard.append(&mut deferred);
        }
        heard.push(Heard::ConsoleLine(markers.last_line.clone()));
        for heard in heard {
            if sender.send(heard).await.is_err() {
                return;
            }
        }
    }
    let begun = pending_since.unwrap_or_else(Instant::now);
    let finished = words.get().finish();
    for report in finished.into_iter().filter(is_bug) {
        let episode = markers.before(report.range.start);
        if sender
            .send(Heard::Report(Box::new(report), episode, begun))
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = sender.send(Heard::ConsoleEnd).await;
}

/// A guest that is short of memory says nothing about a driver, and neither does the number of
/// objects that kmemleak found anywhere: whose they are, its list tells.
fn is_bug(report: &Report) -> bool {
    let only_counted = report.class == Class::MemoryLeak && report.object.is_none();
    !report.suppressed && !only_counted
}

/// Finds the rig's own lines on the console and remembers where the episodes began.
#[derive(Default)]
struct Markers {
    offset: usize,
    line: Vec<u8>,
    last_line: String,
    /// Offset of a marker's line and its episode; the last few.
    episodes: VecDeque<(usize, u64)>,
}

impl Markers {
    /// A report comes out at most so many episodes late.
    const KEPT: usize = 64;
    /// Bytes of a line that are looked at: more than the kernel has of one.
    const LINE: usize = 2048;

    /// Markers that end in these bytes, each with its time in the log, in microseconds.
    fn push(&mut self, bytes: &[u8]) -> Vec<(String, Option<u64>)> {
        let mut found = Vec::new();
        for &byte in bytes {
            self.offset += 1;
            if byte != b'\n' {
                if self.line.len() < Self::LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
            if let Some(at) = line.find("knobrig: ") {
                let marker = &line[at..];
                let number = marker.strip_prefix("knobrig: episode ");
                if let Some(episode) = number.and_then(|number| number.parse().ok()) {
                    if self.episodes.len() == Self::KEPT {
                        self.episodes.pop_front();
                    }
                    self.episodes
                        .push_back((self.offset - self.line.len() - 1, episode));
                }
                found.push((marker.to_owned(), log_time(&line)));
            }
            if !line.is_empty() {
                self.last_line = line;
            }
            self.line.clear();
        }
        found
    }

    fn before(&self, offset: usize) -> Option<u64> {
        self.episodes
            .iter()
            .rev()
            .find(|(at, _)| *at <= offset)
            .map(|(_, episode)| *episode)
    }
}

/// The time before a line of the log, `[    5.123456]`, in microseconds.
fn log_time(line: &str) -> Option<u64> {
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = time.trim_start().split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let micros: u64 = micros.parse().ok().filter(|_| micros.len() == 6)?;
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

/// The guest's time at which a message was sent, where it says one that is of that moment.
fn sent_at(message: &FromGuest) -> Option<u64> {
    match message {
        FromGuest::Settled { ns, .. } => Some(*ns),
        FromGuest::Done { outcomes, .. } => outcomes.last().map(|outcome| outcome.end_ns),
        _ => None,
    }
}

/// `CLOCK_MONOTONIC`, as the device program reads it.
fn host_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_belongs_to_the_marker_before_it() {
        let mut markers = Markers::default();
        let text = b"[ 1.000002][ T1] knobrig: episode 7\r\nBUG: here\n[ 2.0] knobrig: episode 8\n";
        let mut found = Vec::new();
        for chunk in text.chunks(5) {
            found.extend(markers.push(chunk));
        }
        let told = |text: &str, time| (text.to_owned(), time);
        assert_eq!(
            found,
            [
                told("knobrig: episode 7", Some(1_000_002)),
                told("knobrig: episode 8", None)
            ]
        );
        assert_eq!(markers.before(0), Some(7));
        assert_eq!(markers.before(40), Some(7));
        assert_eq!(markers.before(text.len()), Some(8));
        assert_eq!(markers.last_line, "[ 2.0] knobrig: episode 8");
    }

    #[test]
    fn boot_text_belongs_to_no_episode() {
        let mut markers = Markers::default();
        markers.push(b"Linux version\n");
        assert_eq!(markers.before(3), None);
    }
}
