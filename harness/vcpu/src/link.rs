//! The socket to the harness. While QEMU starts, the harness says what is to be watched; then a
//! thread of the plugin's own does what it says, as long as QEMU lives.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use knobrig_vcpu_proto::{
    Command, MAX_LINE, Range, Reply, VERSION, check, check_orders, from_line, to_line,
};
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::armed::Armed;
use crate::order::Orders;

/// The harness waits for the hello; it answers at once.
const ANSWER: Duration = Duration::from_secs(10);

/// The plugin's end.
#[derive(Debug)]
pub(crate) struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Of the plugin's arguments.
    ///
    /// # Safety
    /// The descriptor that they name is the caller's to give away: nothing else uses it.
    pub(crate) unsafe fn of(arguments: &[String]) -> Result<Self, String> {
        let number = arguments.iter().find_map(|it| it.strip_prefix("fd="));
        let number: RawFd = number
            .and_then(|number| number.parse().ok())
            .filter(|number| *number > 2)
            .ok_or("give it a socket of the harness: -plugin file=…,fd=N")?;
        // SAFETY: the caller gives it away.
        let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Says hello and hears what is to be watched.
    pub(crate) fn greet(&mut self, api: i32) -> Result<Vec<Range>, String> {
        let failed = |why: std::io::Error| format!("failed to speak with the harness: {why}");
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        let version = VERSION;
        self.say(&Reply::Hello { version, api }).map_err(failed)?;
        let line = self.line().map_err(failed)?;
        let line = line.ok_or("the harness hung up before it said what is to be watched")?;
        match from_line(&line).map_err(|bad| bad.to_string())? {
            Command::Watch {
                version: VERSION,
                ranges,
            } => {
                check(&ranges)?;
                self.say(&Reply::Done).map_err(failed)?;
                let stream = self.stream.get_ref();
                stream.set_read_timeout(None).map_err(failed)?;
                Ok(ranges)
            }
            Command::Watch { version, .. } => Err(format!(
                "the harness speaks version {version}, this plugin {VERSION}: build both anew"
            )),
            other => Err(format!("the first command must be watch, not {other:?}")),
        }
    }

    /// Does what the harness says, in a thread of its own.
    pub(crate) fn serve(
        self,
        armed: &'static Armed,
        orders: &'static Orders,
    ) -> Result<(), String> {
        // QEMU takes signals in its main thread; a thread that didn't block them would get some.
        let failed = |why: &dyn std::fmt::Display| format!("failed to start a thread: {why}");
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|why| failed(&why))?;
        let started = std::thread::Builder::new()
            .name("knobrig".into())
            .spawn(move || self.obey(armed, orders));
        before.thread_set_mask().map_err(|why| failed(&why))?;
        started.map(drop).map_err(|why| failed(&why))
    }

    fn obey(mut self, armed: &Armed, orders: &Orders) {
        while let Ok(Some(line)) = self.line() {
            let reply = match from_line(&line) {
                Ok(Command::Arm { ranges, law }) => match check(&ranges).and(law.check()) {
                    Ok(()) => {
                        armed.arm(&ranges, law);
                        Reply::Done
                    }
                    Err(why) => Reply::Refused { why },
                },
                Ok(Command::Disarm) => Reply::Counts(armed.disarm()),
                Ok(Command::Order { edges, deadline_us }) => {
                    match check_orders(&edges, deadline_us) {
                        Ok(()) => {
                            orders.arm(&edges, deadline_us);
                            Reply::Done
                        }
                        Err(why) => Reply::Refused { why },
                    }
                }
                Ok(Command::Unorder) => Reply::Orders {
                    orders: orders.disarm(),
                },
                Ok(Command::Watch { .. }) => Reply::Refused {
                    why: "what is watched is said once, before the guest runs".into(),
                },
                Err(bad) => Reply::Refused {
                    why: bad.to_string(),
                },
            };
            if self.say(&reply).is_err() {
                break;
            }
        }
        // Without a harness nobody would disarm them.
        armed.disarm();
        orders.disarm();
    }

    /// The next line; none at the end.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(MAX_LINE as u64 + 1);
        match limited.read_line(&mut line)? {
            0 => Ok(None),
            len if len > MAX_LINE => Err(std::io::Error::other("the line is too long")),
            _ => Ok(Some(line)),
        }
    }

    fn say(&self, reply: &Reply) -> std::io::Result<()> {
        self.stream.get_ref().write_all(to_line(reply).as_bytes())
    }
}
