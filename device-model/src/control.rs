//! The control channel: JSON lines of [`dk_control`] at a Unix stream socket.
//!
//! Up to [`MAX_CLIENTS`] may be connected, and each may do everything; gate events go to every
//! one that said hello. Nothing here waits for a client. One that doesn't read is not read from
//! either, and is cut off once [`MAX_BACKLOG`] bytes wait for it, since a gap in the events
//! would be worse than an end of them.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use dk_control::{Command, MAX_LINE, Numbered, Reply, VERSION};

use crate::device::Device;

/// Clients that may be connected at once.
pub const MAX_CLIENTS: usize = 8;
/// Bytes that may wait for a client before it is cut off.
pub const MAX_BACKLOG: usize = 1024 * 1024;
/// Bytes that may wait for a client before its commands wait too.
const BUSY: usize = 64 * 1024;
/// Bytes that are read from a client at a time.
const CHUNK: usize = 16 * 1024;
/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// The clients of the control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    greeted: bool,
    /// Nothing more is read from it; it goes once it has heard all.
    leaving: bool,
    gone: bool,
}

/// Whom a wait is for, and what for.
#[derive(Debug)]
pub struct Interest<'a> {
    /// Which client, by its place.
    pub client: usize,
    /// Its connection.
    pub stream: &'a UnixStream,
    /// Wait until it says something.
    pub read: bool,
    /// Wait until it takes something.
    pub write: bool,
}

impl Control {
    /// Serves a socket that listens and doesn't block.
    pub fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            clients: Vec::new(),
        }
    }

    /// The socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// What is waited for.
    pub fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        self.clients
            .iter()
            .enumerate()
            .map(|(client, state)| Interest {
                client,
                stream: &state.stream,
                read: !state.leaving && state.output.len() < BUSY,
                write: !state.output.is_empty(),
            })
    }

    /// Takes a new client in.
    pub fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut client = Client {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            greeted: false,
            leaving: false,
            gone: false,
        };
        if self.clients.len() >= MAX_CLIENTS {
            let why = format!("{MAX_CLIENTS} clients are connected already; end one first");
            client.say(&Reply::Refused { id: 0, why });
            client.flush();
            return;
        }
        self.clients.push(client);
    }

    /// Reads what a client says and does it. Returns whether the device is to end.
    pub fn hear(&mut self, client: usize, device: &mut Device) -> bool {
        let Some(state) = self.clients.get_mut(client) else {
            return false;
        };
        let lines = state.read_lines();
        let mut quit = false;
        for line in lines {
            let reply = match self.clients.get_mut(client) {
                Some(state) => state.obey(&line, device, &mut quit),
                None => break,
            };
            // What a command did is told before that it was done.
            self.tell_events(device);
            if let Some(state) = self.clients.get_mut(client) {
                state.say(&reply);
            }
        }
        quit
    }

    /// Tells everyone what has happened at gates.
    pub fn tell_events(&mut self, device: &mut Device) {
        for event in device.take_events() {
            let line = dk_control::to_line(&Reply::Event(event));
            for client in self.clients.iter_mut().filter(|client| client.greeted) {
                client.queue(&line);
            }
        }
    }

    /// Sends what waits, and forgets who is gone.
    pub fn flush(&mut self) {
        for client in &mut self.clients {
            client.flush();
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Sends what waits before the device ends.
    pub fn farewell(mut self) {
        for client in &mut self.clients {
            // Who doesn't listen by now won't.
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(FAREWELL));
            let _ = client.stream.write_all(&client.output);
        }
    }
}

impl Client {
    /// Reads once, and cuts what has come into whole lines.
    fn read_lines(&mut self) -> Vec<Vec<u8>> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.leaving = true,
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) if is_retry(&error) => {}
            Err(_) => self.gone = true,
        }
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(len) = self.input[start..].iter().position(|&byte| byte == b'\n') {
            lines.push(self.input[start..start + len].to_vec());
            start += len + 1;
        }
        self.input.drain(..start);
        if self.input.len() >= MAX_LINE {
            self.input = Vec::new();
            let why = format!("a line is longer than {MAX_LINE} bytes; send shorter ones");
            self.say(&Reply::Refused { id: 0, why });
            self.leaving = true;
        }
        if self.leaving && self.output.is_empty() && lines.is_empty() {
            self.gone = true;
        }
        lines
    }

    fn obey(&mut self, line: &[u8], device: &mut Device, quit: &mut bool) -> Reply {
        let refused = |id, why| Reply::Refused { id, why };
        let Ok(line) = std::str::from_utf8(line) else {
            return refused(0, "the line isn't UTF-8; send JSON".into());
        };
        let Numbered { id, command } = match dk_control::from_line(line) {
            Ok(numbered) => numbered,
            Err(bad) => return refused(0, bad.to_string()),
        };
        let mut released = 0;
        match command {
            Command::Hello { version: VERSION } => self.greeted = true,
            Command::Hello { version } => {
                let why = format!("this device speaks version {VERSION}, not {version}");
                return refused(id, why);
            }
            _ if !self.greeted => {
                return refused(id, "the first command must be hello".into());
            }
            Command::Arm(gate) => {
                if let Err(refusal) = device.arm(gate) {
                    return refused(id, refusal.to_string());
                }
            }
            Command::Disarm { tag } => device.disarm(&tag),
            Command::Release { tag } => released = device.release(&tag),
            Command::Reset => released = device.reset_gates(),
            Command::Status => {
                return Reply::Status {
                    id,
                    counters: device.counters(),
                };
            }
            Command::Quit => *quit = true,
        }
        Reply::Done { id, released }
    }

    fn say(&mut self, reply: &Reply) {
        self.queue(&dk_control::to_line(reply));
    }

    fn queue(&mut self, line: &str) {
        if self.output.len() + line.len() > MAX_BACKLOG {
            self.gone = true;
            return;
        }
        self.output.extend_from_slice(line.as_bytes());
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.gone {
            match self.stream.write(&self.output) {
                Ok(0) => self.gone = true,
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_retry(&error) => break,
                Err(_) => self.gone = true,
            }
        }
        if self.output.is_empty() {
            self.output.shrink_to(BUSY);
            self.gone |= self.leaving;
        }
    }
}

fn is_retry(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
