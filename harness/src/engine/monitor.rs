//! QEMU's monitor: devices go and come. QMP carries it, the human monitor's words are what is
//! said, since they take a device exactly as the command line does, in every version.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

use super::lines::Lines;
use crate::error::Error;

/// QEMU answers at once; a device that the guest must let go takes as long as the guest does.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest line of QMP that is taken.
const LINE: usize = 1 << 20;

/// The link to QEMU's monitor.
pub struct Monitor {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    greeted: bool,
    /// Ids of devices that are gone.
    deleted: BTreeSet<String>,
}

impl Monitor {
    /// Over this socket.
    pub fn new(socket: UnixStream) -> Self {
        let (reader, writer) = socket.into_split();
        Self {
            lines: Lines::new(reader, LINE),
            writer,
            greeted: false,
            deleted: BTreeSet::new(),
        }
    }

    /// Takes a device away: the guest is asked to let it go, and this returns once it has been
    /// asked.
    ///
    /// # Errors
    /// QEMU refuses, is gone, or does not answer.
    pub async fn unplug(&mut self, id: &str) -> Result<(), Error> {
        self.deleted.remove(id);
        self.say(&format!("device_del {id}")).await
    }

    /// Waits until a device that was unplugged is gone: only then is its place free.
    ///
    /// # Errors
    /// The guest doesn't let it go in time.
    pub async fn gone(&mut self, id: &str) -> Result<(), Error> {
        let end = Instant::now() + ANSWER;
        let what = format!("QEMU's word that the device {id} is gone from the guest");
        while !self.deleted.contains(id) {
            self.next(end, &what).await?;
        }
        Ok(())
    }

    /// Says a line of the human monitor. It answers with nothing where all went well.
    ///
    /// # Errors
    /// QEMU refuses, is gone, or does not answer.
    pub async fn say(&mut self, line: &str) -> Result<(), Error> {
        self.greet().await?;
        let arguments = json!({ "command-line": line });
        let ask = json!({ "execute": "human-monitor-command", "arguments": arguments });
        match self.ask(ask).await? {
            Value::String(said) if !said.trim().is_empty() => Err(Error::Rig(format!(
                "QEMU refused `{line}`: {}",
                said.trim()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether a driver has told the virtio device of this id that it drives it, and has not reset it since
    /// (virtio 1.3, section 2.1: the status's bit DRIVER, which a reset clears).
    ///
    /// # Errors
    /// QEMU refuses, as before 7.2 and where there is no such device, is gone, or does not answer.
    pub async fn is_driven(&mut self, id: &str) -> Result<bool, Error> {
        self.greet().await?;
        let path = format!("/machine/peripheral/{id}/virtio-backend");
        let ask = json!({ "execute": "x-query-virtio-status", "arguments": { "path": path } });
        let status = self.ask(ask).await?;
        let bits = status["status"]["statuses"].as_array();
        Ok(bits.into_iter().flatten().any(is_driver_bit))
    }

    async fn greet(&mut self) -> Result<(), Error> {
        if !self.greeted {
            self.ask(json!({ "execute": "qmp_capabilities" })).await?;
            self.greeted = true;
        }
        Ok(())
    }

    async fn ask(&mut self, command: Value) -> Result<Value, Error> {
        let what = format!("QEMU's answer to {command}");
        let line = format!("{command}\n");
        let failed = |error| Error::Rig(format!("failed to command QEMU's monitor: {error}"));
        self.writer
            .write_all(line.as_bytes())
            .await
            .map_err(failed)?;
        let end = Instant::now() + ANSWER;
        loop {
            let mut message = self.next(end, &what).await?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                return Err(Error::Rig(format!("QEMU refused {command}: {error}")));
            }
        }
    }

    /// The next message. Events are taken note of.
    async fn next(&mut self, end: Instant, what: &str) -> Result<Value, Error> {
        let line = match timeout_at(end, self.lines.next()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Err(Error::Rig("QEMU closed its monitor".into())),
            Ok(Err(error)) => {
                return Err(Error::Rig(format!(
                    "failed to hear QEMU's monitor: {error}"
                )));
            }
            Err(_) => {
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    after: ANSWER,
                    last: "nothing from it".into(),
                });
            }
        };
        let message: Value = serde_json::from_str(&line)
            .map_err(|error| Error::Rig(format!("QEMU's monitor said no JSON: {error}")))?;
        if message["event"] == "DEVICE_DELETED"
            && let Some(id) = message["data"]["device"].as_str()
        {
            self.deleted.insert(id.to_owned());
        }
        Ok(message)
    }
}

/// `VIRTIO_CONFIG_S_DRIVER: Guest OS compatible with device`, as QEMU words it.
fn is_driver_bit(bit: &Value) -> bool {
    let name = bit.as_str().and_then(|bit| bit.split(':').next());
    name == Some("VIRTIO_CONFIG_S_DRIVER")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, BufReader};

    /// A monitor, and a QEMU that answers each line with the next of these.
    async fn talk(answers: &[&str]) -> (Monitor, tokio::task::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let answers: Vec<_> = answers.iter().map(|it| (*it).to_owned()).collect();
        let qemu = tokio::spawn(async move {
            let (reader, mut writer) = theirs.into_split();
            let mut lines = BufReader::new(reader).lines();
            let mut heard = Vec::new();
            writer.write_all(b"{\"QMP\": {}}\n").await.expect("writes");
            for answer in answers {
                heard.extend(lines.next_line().await.expect("reads"));
                writer.write_all(answer.as_bytes()).await.expect("writes");
            }
            heard
        });
        (Monitor::new(ours), qemu)
    }

    #[tokio::test]
    async fn a_device_is_gone_when_qemu_says_so() {
        let (mut monitor, qemu) = talk(&[
            "{\"return\": {}}\n",
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/x\"}}\n{\"return\": \"\"}\n\
             {\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"rng0\"}}\n",
        ])
        .await;
        monitor.unplug("rng0").await.expect("is asked");
        monitor.gone("rng0").await.expect("is gone");
        let heard = qemu.await.expect("ends");
        assert!(heard[0].contains("qmp_capabilities"));
        assert!(heard[1].contains("device_del rng0"));
    }

    #[tokio::test]
    async fn what_qemu_refuses_is_told() {
        let refusal = "{\"return\": \"Error: Device 'x' not found\\r\\n\"}\n";
        let (mut monitor, _qemu) = talk(&["{\"return\": {}}\n", refusal]).await;
        let error = monitor.unplug("x").await.expect_err("refused").to_string();
        assert!(
            error.contains("device_del x") && error.contains("not found"),
            "{error}"
        );
    }
}
