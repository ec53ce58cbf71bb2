//! The vCPU gate: the plugin in QEMU, commanded over a socket that QEMU inherits. Only under TCG;
//! under KVM the host's CPUs run the guest's code, and no plugin sees it.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use knobrig_klog::{Generation, History};
use knobrig_proto::Actor;
use knobrig_vcpu_proto::{
    API_VARIABLE, Command, Counts, Edge, MAX_LINE, Ordered, Point, Range, Reply, VERSION,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::lines::Lines;
use super::process::{self, Tail};
use super::qemu::Qemu;
use crate::error::Error;
use crate::judge::plan::Delays;
use crate::judge::record::{Delayed, Stood};
use crate::schedule::{At, Occurrence, Schedule};

/// QEMU loads its plugins first of all; a loaded machine gets this long.
const START: Duration = Duration::from_secs(20);
/// A command is a line each way.
const ANSWER: Duration = Duration::from_secs(10);
/// A vCPU waits so long for another before the order counts as one that can't be.
const WAIT_US: u32 = 200_000;
/// The descriptor of a trial.
const TRIAL_FD: i32 = 3;
/// Where x86-64 Linux puts modules, with and without a kernel that can be moved
/// (Documentation/arch/x86/x86_64/mm.rst); the guest's is not moved (`nokaslr`). All of it is
/// watched: code that runs before a law is armed must not be translated again.
const MODULES: Range = Range {
    start: 0xffff_ffff_a000_0000,
    end: 0xffff_ffff_ff00_0000,
};

/// The link to the plugin of a running QEMU.
pub struct Vcpus {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Vcpus {
    /// Hears the plugin's hello and says what is to be watched; only then does QEMU go on.
    ///
    /// # Errors
    /// QEMU ended, did not load the plugin, or the plugin speaks otherwise.
    pub async fn greet(socket: UnixStream) -> Result<Self, Error> {
        let (reader, writer) = socket.into_split();
        let mut vcpus = Self {
            lines: Lines::new(reader, MAX_LINE),
            writer,
        };
        match vcpus.hear(START, "the plugin's hello").await? {
            Reply::Hello {
                version: VERSION, ..
            } => {}
            other => {
                return Err(Error::Rig(format!(
                    "the plugin greets with {other:?}, a hello of version {VERSION} was awaited"
                )));
            }
        }
        let watch = Command::Watch {
            version: VERSION,
            ranges: vec![MODULES],
        };
        vcpus.ask(&watch).await?;
        Ok(vcpus)
    }

    /// From now on vCPUs are delayed in these ranges.
    ///
    /// # Errors
    /// The plugin refuses, is gone, or does not answer.
    pub async fn arm(&mut self, ranges: Vec<Range>, delays: &Delays) -> Result<(), Error> {
        let law = delays.law;
        self.ask(&Command::Arm { ranges, law }).await.map(drop)
    }

    /// From now on vCPUs come to instructions in this order, as far as there is one.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub async fn order(&mut self, edges: Vec<Edge>) -> Result<(), Error> {
        if edges.is_empty() {
            return Ok(());
        }
        let deadline_us = WAIT_US;
        self.ask(&Command::Order { edges, deadline_us })
            .await
            .map(drop)
    }

    /// No more orders; gives what came of each edge.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub async fn unorder(&mut self) -> Result<Vec<Ordered>, Error> {
        match self.ask(&Command::Unorder).await? {
            Reply::Orders { orders } => Ok(orders),
            other => Err(Error::Rig(format!(
                "the plugin answered the end of orders with {other:?}"
            ))),
        }
    }

    /// No more delays; gives what came of those that were armed.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub async fn disarm(&mut self) -> Result<Counts, Error> {
        match self.ask(&Command::Disarm).await? {
            Reply::Counts(counts) => Ok(counts),
            other => Err(Error::Rig(format!(
                "the plugin answered the end of delays with {other:?}"
            ))),
        }
    }

    async fn ask(&mut self, command: &Command) -> Result<Reply, Error> {
        let line = knobrig_vcpu_proto::to_line(command);
        let what = format!("the plugin's answer to {}", line.trim_end());
        let sent = self.writer.write_all(line.as_bytes()).await;
        sent.map_err(|error| Error::Rig(format!("failed to command the plugin: {error}")))?;
        match self.hear(ANSWER, &what).await? {
            Reply::Refused { why } => {
                Err(Error::Rig(format!("the plugin refused a command: {why}")))
            }
            reply => Ok(reply),
        }
    }

    async fn hear(&mut self, time: Duration, what: &str) -> Result<Reply, Error> {
        match timeout(time, self.lines.next()).await {
            Ok(Ok(Some(line))) => knobrig_vcpu_proto::from_line(&line)
                .map_err(|bad| Error::Rig(format!("the plugin and the harness don't fit: {bad}"))),
            Ok(Ok(None)) => Err(Error::Rig(format!("QEMU hung up before {what}"))),
            Ok(Err(error)) => Err(Error::Rig(format!("failed to read {what}: {error}"))),
            Err(_) => Err(Error::Deadline {
                what: what.to_owned(),
                after: time,
                last: "nothing from it".into(),
            }),
        }
    }
}

/// Whether this QEMU loads the plugin: has it do so, for a machine of nothing.
///
/// # Errors
/// Why not, with QEMU's own words.
pub async fn trial(qemu: &Qemu, plugin: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Rig(format!("failed to make a socket: {error}"));
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let mut command = tokio::process::Command::new(&qemu.path);
    command
        .args(Qemu::plugin_trial(plugin, TRIAL_FD))
        .env(API_VARIABLE, qemu.plugin_api().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mapping = FdMapping {
        parent_fd: theirs.into(),
        child_fd: TRIAL_FD,
    };
    command
        .fd_mappings(vec![mapping])
        .map_err(|error| Error::Rig(format!("failed to hand QEMU its socket: {error}")))?;
    let mut child = process::spawn(&mut command, &qemu.path)?;
    drop(command);
    let mut stderr = Tail::follow(child.stderr.take());
    let greeted = Vcpus::greet(UnixStream::from_std(ours).map_err(failed)?).await;
    // It is gone already, or is to go.
    let _ = child.kill().await;
    match greeted {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Rig(format!(
            "{error}; QEMU said: {}",
            stderr.text().await
        ))),
    }
}

/// Where the modules of an episode lie, as the console tells.
#[derive(Debug)]
pub struct Texts {
    modules: Vec<String>,
    history: History,
}

impl Texts {
    /// Nothing is loaded yet of these.
    pub fn of(modules: &[String]) -> Self {
        Self {
            modules: modules.to_vec(),
            history: History::default(),
        }
    }

    /// Takes a line of the rig's on the console. Gives the code of all these modules if the line
    /// told of a load that completed them.
    pub fn see(&mut self, line: &str) -> Option<Vec<Range>> {
        let count = |history: &History| history.generations().count();
        let before = count(&self.history);
        self.history.see(line, None);
        if count(&self.history) == before {
            return None;
        }
        let mut ranges = Vec::new();
        for module in &self.modules {
            let mut loads: Vec<&Generation> = self.history.generations().collect();
            loads.retain(|it| it.module == *module && !it.unloaded);
            let code = loads.last()?.sections.iter().filter(|it| is_code(&it.name));
            ranges.extend(code.map(|section| Range {
                start: section.address,
                end: section.address.saturating_add(section.size),
            }));
        }
        ranges.truncate(knobrig_vcpu_proto::MOST_RANGES);
        (!ranges.is_empty()).then_some(ranges)
    }

    /// An order as the plugin takes it: actors by the vCPUs on which they run, instructions by
    /// where they lie now.
    ///
    /// # Errors
    /// What of it is not there.
    pub fn edges(
        &self,
        order: &Schedule,
        actors: &[Actor],
        cpus: u32,
    ) -> Result<Vec<Edge>, String> {
        let point = |occurrence: &Occurrence| {
            let actor = actors.iter().find(|it| it.name == occurrence.actor);
            let At::Instruction { module, offset } = &occurrence.at else {
                return Err(format!(
                    "{occurrence}: only instructions can be ordered here"
                ));
            };
            let actor = actor.ok_or(format!("{occurrence}: no such thread"))?;
            let text = self
                .text(module)
                .ok_or(format!("{occurrence}: not loaded"))?;
            Ok(Point {
                vcpu: actor.cpu % cpus.max(1),
                address: text.saturating_add(*offset),
                nth: occurrence.nth,
            })
        };
        let edges = order.edges.iter().map(|edge| {
            Ok(Edge {
                before: point(&edge.before)?,
                after: point(&edge.after)?,
            })
        });
        edges.collect()
    }

    /// Where a module's `.text` lies.
    fn text(&self, module: &str) -> Option<u64> {
        let mut loads: Vec<&Generation> = self.history.generations().collect();
        loads.retain(|it| it.module == *module && !it.unloaded);
        let section = loads.last()?.sections.iter().find(|it| it.name == TEXT)?;
        Some(section.address)
    }

    /// What the plugin counted, in words that hold wherever the modules lie.
    pub fn delayed(&self, counts: Counts) -> Delayed {
        let recent = counts.recent.iter().filter_map(|stood| {
            let (module, at) = self.offset(stood.at)?;
            Some(Stood {
                vcpu: stood.vcpu,
                next: (self.offset(stood.next))
                    .and_then(|(of, next)| (of == module).then_some(next)),
                module,
                at,
            })
        });
        Delayed {
            instructions: counts.instructions,
            delays: counts.delays,
            delayed_us: counts.delayed_us,
            recent: recent.collect(),
        }
    }

    /// An address as bytes of a module's `.text`.
    fn offset(&self, address: u64) -> Option<(String, u64)> {
        let place = self.history.place(address, None)?;
        (place.section == TEXT && !place.unloaded).then_some((place.module, place.offset))
    }
}

/// The section of a module that offsets are of.
const TEXT: &str = ".text";

/// A section's name says whether it is code: `.text`, `.text.unlikely`, `.exit.text`, `.noinstr.text`.
fn is_code(section: &str) -> bool {
    section.contains(".text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use knobrig_vcpu_proto::{Law, from_line, to_line};
    use tokio::io::{AsyncBufReadExt, BufReader};

    fn texts(lines: &[&str]) -> Vec<Option<Vec<Range>>> {
        let mut texts = Texts::of(&["a".into(), "b".into()]);
        lines.iter().map(|line| texts.see(line)).collect()
    }

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn code_is_known_once_every_module_is_loaded() {
        let seen = texts(&[
            "knobrig: episode 1",
            "knobrig: loaded a .text=0x1000+0x10 .data=0x2000+0x20",
            "knobrig: loaded c .text=0x9000+0x10",
            "knobrig: loaded b .text=0x3000+0x10 .exit.text=0x4000+0x8",
        ]);
        assert_eq!(seen[..3], [None, None, None]);
        let whole = [
            range(0x1000, 0x1010),
            range(0x3000, 0x3010),
            range(0x4000, 0x4008),
        ];
        assert_eq!(seen[3].as_deref(), Some(&whole[..]));
    }

    #[test]
    fn a_new_load_lies_elsewhere() {
        let seen = texts(&[
            "knobrig: loaded a .text=0x1000+0x10",
            "knobrig: loaded b .text=0x3000+0x10",
            "knobrig: unloaded a",
            "knobrig: loaded a .text=0x5000+0x10",
        ]);
        let again = [range(0x5000, 0x5010), range(0x3000, 0x3010)];
        assert_eq!(seen[2], None);
        assert_eq!(seen[3].as_deref(), Some(&again[..]));
    }

    #[test]
    fn where_a_vcpu_stood_is_told_by_offset() {
        let mut texts = Texts::of(&["a".into()]);
        texts.see("knobrig: loaded a .text=0x1000+0x10 .exit.text=0x4000+0x8");
        let stood = |at, next| knobrig_vcpu_proto::Stood { vcpu: 1, at, next };
        let delayed = texts.delayed(Counts {
            instructions: 3,
            recent: vec![
                stood(0x1008, 0x100c),
                stood(0x1008, 0),
                stood(0x4000, 0x1000),
            ],
            ..Counts::default()
        });
        let told: Vec<_> = delayed.recent.iter().map(|it| (it.at, it.next)).collect();
        assert_eq!(told, [(8, Some(12)), (8, None)]);
        assert_eq!((delayed.instructions, &*delayed.recent[0].module), (3, "a"));
    }

    /// The plugin's end of a link: answers each line with the next of these.
    async fn plugin(socket: UnixStream, says: Vec<Reply>) -> Vec<Command> {
        let (reader, mut writer) = socket.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut heard = Vec::new();
        for reply in says {
            let sent = writer.write_all(to_line(&reply).as_bytes()).await;
            sent.expect("sent");
            match lines.next_line().await.expect("a line") {
                Some(line) => heard.push(from_line(&line).expect("a command")),
                None => break,
            }
        }
        heard
    }

    fn hello(version: u32) -> Reply {
        Reply::Hello { version, api: 1 }
    }

    #[tokio::test]
    async fn a_law_is_armed_and_its_counts_come_back() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let counts = Counts {
            instructions: 9,
            delays: 2,
            delayed_us: 11,
            recent: Vec::new(),
        };
        let says = vec![
            hello(VERSION),
            Reply::Done,
            Reply::Done,
            Reply::Counts(counts.clone()),
        ];
        let other = tokio::spawn(plugin(theirs, says));
        let mut vcpus = Vcpus::greet(ours).await.expect("greeted");
        let delays = Delays {
            law: Law {
                seed: 1,
                one_in: 20,
                longest_us: 1000,
            },
            modules: vec!["a".into()],
        };
        vcpus.arm(vec![range(1, 2)], &delays).await.expect("armed");
        assert_eq!(vcpus.disarm().await.expect("disarmed"), counts);
        drop(vcpus);
        let heard = other.await.expect("it ends");
        assert!(matches!(
            heard[0],
            Command::Watch {
                version: VERSION,
                ..
            }
        ));
        assert!(matches!(&heard[1], Command::Arm { law, .. } if *law == delays.law));
        assert_eq!(heard[2], Command::Disarm);
    }

    #[tokio::test]
    async fn another_version_and_a_refusal_are_told() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let other = tokio::spawn(plugin(theirs, vec![hello(VERSION + 1)]));
        let error = Vcpus::greet(ours).await.err().expect("another version");
        assert!(error.to_string().contains("version"), "{error}");
        other.await.expect("it ends");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let why = "no".into();
        let other = tokio::spawn(plugin(theirs, vec![hello(VERSION), Reply::Refused { why }]));
        let error = Vcpus::greet(ours).await.err().expect("refused");
        assert!(error.to_string().contains("refused"), "{error}");
        other.await.expect("it ends");
    }
}
