//! The link to QEMU's gdbstub, over a socket that QEMU inherits.
//!
//! The stub stops the machine at any byte that comes while the machine runs, so nothing is sent
//! then but what is meant to stop it; an answer is acknowledged while the machine still stands.

use std::collections::VecDeque;
use std::time::Duration;

use knobrig_rsp::{
    ACK, Action, BadReply, Command, Decoder, INTERRUPT, Item, NAK, Registers, Thread, done, frame,
    registers, stopped,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;

/// An answer takes QEMU's main loop a moment, and a stop the slowest vCPU's way out of what it does.
const ANSWER: Duration = Duration::from_secs(10);
/// So often a packet that came garbled is asked for again.
const AGAIN: u32 = 3;

/// The link.
pub(super) struct Wire {
    socket: UnixStream,
    decoder: Decoder,
    items: VecDeque<Item>,
}

impl Wire {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            items: VecDeque::new(),
        }
    }

    /// Stops the machine. If it has stopped by itself meanwhile, that is as good.
    pub(super) async fn interrupt(&mut self) -> Result<(), Error> {
        self.write(&[INTERRUPT]).await?;
        self.stop("QEMU's word that the vCPUs stand").await
    }

    /// From now on (or no more) the machine stops before this instruction.
    pub(super) async fn breakpoint(&mut self, address: u64, on: bool) -> Result<(), Error> {
        let command = match on {
            true => Command::Insert(address),
            false => Command::Remove(address),
        };
        self.ask(&command, done).await
    }

    /// What is in a vCPU's registers.
    pub(super) async fn registers(&mut self, vcpu: u32) -> Result<Registers, Error> {
        let thread = Thread::of_vcpu(vcpu);
        self.ask(&Command::Select(thread), done).await?;
        self.ask(&Command::Registers, registers).await
    }

    /// These vCPUs go on; the others stay.
    pub(super) async fn go_on(&mut self, vcpus: impl Iterator<Item = u32>) -> Result<(), Error> {
        let threads = vcpus.map(|vcpu| (Thread::of_vcpu(vcpu), Action::Continue));
        self.send(&Command::Resume(threads.collect())).await
    }

    /// This vCPU goes on by one instruction.
    pub(super) async fn step(&mut self, vcpu: u32) -> Result<(), Error> {
        let threads = vec![(Thread::of_vcpu(vcpu), Action::Step)];
        self.send(&Command::Resume(threads)).await?;
        self.stop("the end of a single step").await
    }

    /// Waits until there is something to read, however long that takes. Can be given up.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        while self.items.is_empty() {
            self.read().await?;
        }
        Ok(())
    }

    /// Awaits the machine's stop.
    pub(super) async fn stop(&mut self, what: &str) -> Result<(), Error> {
        let end = Instant::now() + ANSWER;
        let payload = self.packet(end, what).await?;
        stopped(&payload).map(drop).map_err(|why| told(what, &why))
    }

    async fn ask<T>(
        &mut self,
        command: &Command,
        read: fn(&[u8]) -> Result<T, BadReply>,
    ) -> Result<T, Error> {
        self.send(command).await?;
        let what = answer(command);
        let payload = self.packet(Instant::now() + ANSWER, &what).await?;
        read(&payload).map_err(|why| told(&what, &why))
    }

    /// Sends a command and awaits that it has come whole.
    async fn send(&mut self, command: &Command) -> Result<(), Error> {
        let what = answer(command);
        let packet = frame(&command.payload());
        let end = Instant::now() + ANSWER;
        for _ in 0..=AGAIN {
            self.write(&packet).await?;
            loop {
                match self.item(end, &what).await? {
                    Item::Ack => return Ok(()),
                    Item::Nak => break,
                    // Of a stop that nobody awaited any more.
                    Item::Packet(_) | Item::Garbled => {}
                }
            }
        }
        Err(Error::Rig(format!(
            "QEMU's gdbstub did not understand what it was sent; {what} was awaited"
        )))
    }

    /// The next packet's payload, acknowledged.
    async fn packet(&mut self, end: Instant, what: &str) -> Result<Vec<u8>, Error> {
        let mut again = 0;
        loop {
            match self.item(end, what).await? {
                Item::Packet(payload) => {
                    self.write(&[ACK]).await?;
                    return Ok(payload);
                }
                Item::Garbled if again < AGAIN => {
                    again += 1;
                    self.write(&[NAK]).await?;
                }
                Item::Garbled => {
                    return Err(Error::Rig(format!(
                        "QEMU's gdbstub sent {what} garbled {again} times over"
                    )));
                }
                Item::Ack | Item::Nak => {}
            }
        }
    }

    async fn item(&mut self, end: Instant, what: &str) -> Result<Item, Error> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(item);
            }
            let read = timeout_at(end, self.read()).await;
            read.map_err(|_| Error::Deadline {
                what: what.to_owned(),
                after: ANSWER,
                last: "nothing from QEMU's gdbstub".into(),
            })??;
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        let mut bytes = [0; 4096];
        let read = self.socket.read(&mut bytes).await;
        match read.map_err(|why| Error::Rig(format!("failed to hear QEMU's gdbstub: {why}")))? {
            0 => Err(Error::Rig("QEMU closed its gdbstub".into())),
            count => {
                self.items.extend(self.decoder.push(&bytes[..count]));
                Ok(())
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.socket.write_all(bytes).await;
        written.map_err(|why| Error::Rig(format!("failed to command QEMU's gdbstub: {why}")))
    }
}

fn answer(command: &Command) -> String {
    let payload = command.payload();
    format!(
        "the gdbstub's answer to {}",
        String::from_utf8_lossy(&payload)
    )
}

fn told(what: &str, why: &BadReply) -> Error {
    Error::Rig(format!("{what} was awaited: {why}"))
}
