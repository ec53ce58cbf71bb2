//! The plugin in QEMU, commanded over a socket that QEMU inherits. Only under TCG; under KVM the
//! host's CPUs run the guest's code, and no plugin sees it.

use std::time::Duration;

use knobrig_vcpu_proto::{Command, Counts, Edge, MAX_LINE, Ordered, Range, Reply, VERSION};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Orders;
use crate::engine::lines::Lines;
use crate::error::Error;
use crate::judge::plan::Delays;

/// QEMU loads its plugins first of all; a loaded machine gets this long.
const START: Duration = Duration::from_secs(20);
/// A command is a line each way.
const ANSWER: Duration = Duration::from_secs(10);
/// A vCPU waits so long for another before the order counts as one that can't be.
const WAIT_US: u32 = 200_000;
/// Where x86-64 Linux puts modules, with and without a kernel that can be moved
/// (Documentation/arch/x86/x86_64/mm.rst); the guest's is not moved (`nokaslr`). All of it is
/// watched: code that runs before a law is armed must not be translated again.
const MODULES: Range = Range {
    start: 0xffff_ffff_a000_0000,
    end: 0xffff_ffff_ff00_0000,
};

/// The link to the plugin of a running QEMU.
pub struct Plugin {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Plugin {
    /// Hears the plugin's hello and says what is to be watched; only then does QEMU go on.
    ///
    /// # Errors
    /// QEMU ended, did not load the plugin, or the plugin speaks otherwise.
    pub async fn greet(socket: UnixStream) -> Result<Self, Error> {
        let (reader, writer) = socket.into_split();
        let mut plugin = Self {
            lines: Lines::new(reader, MAX_LINE),
            writer,
        };
        match plugin.hear(START, "the plugin's hello").await? {
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
        plugin.ask(&watch).await?;
        Ok(plugin)
    }

    /// From now on vCPUs are delayed in these ranges.
    ///
    /// # Errors
    /// The plugin refuses, is gone, or does not answer.
    pub async fn arm(&mut self, ranges: Vec<Range>, delays: &Delays) -> Result<(), Error> {
        let law = delays.law;
        self.ask(&Command::Arm { ranges, law }).await.map(drop)
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

impl Orders for Plugin {
    async fn order(&mut self, edges: Vec<Edge>) -> Result<(), Error> {
        let deadline_us = WAIT_US;
        let order = Command::Order { edges, deadline_us };
        self.ask(&order).await.map(drop)
    }

    async fn unorder(&mut self) -> Result<Vec<Ordered>, Error> {
        match self.ask(&Command::Unorder).await? {
            Reply::Orders { orders } => Ok(orders),
            other => Err(Error::Rig(format!(
                "the plugin answered the end of orders with {other:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use knobrig_vcpu_proto::{Law, from_line, to_line};
    use tokio::io::{AsyncBufReadExt, BufReader};

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
        let mut vcpus = Plugin::greet(ours).await.expect("greeted");
        let delays = Delays {
            law: Law {
                seed: 1,
                one_in: 20,
                longest_us: 1000,
            },
            modules: vec!["a".into()],
        };
        vcpus
            .arm(vec![Range { start: 1, end: 2 }], &delays)
            .await
            .expect("armed");
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
        let error = Plugin::greet(ours).await.err().expect("another version");
        assert!(error.to_string().contains("version"), "{error}");
        other.await.expect("it ends");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let why = "no".into();
        let other = tokio::spawn(plugin(theirs, vec![hello(VERSION), Reply::Refused { why }]));
        let error = Plugin::greet(ours).await.err().expect("refused");
        assert!(error.to_string().contains("refused"), "{error}");
        other.await.expect("it ends");
    }
}
