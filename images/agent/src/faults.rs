//! A bug in the agent: told on the console and on the port, then the machine stops.
//!
//! PID 1 that dies is a kernel panic, which the host would take for the driver's.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use knobrig_proto::{FromGuest, to_line};

use crate::outbox::Outbox;
use crate::{console, lock, power};

/// Name of the thread that writes the outbox out.
pub const WRITER: &str = "writer";
/// What is still to be told has so long. If the outbox's own lock is what broke, that is lost.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// From now on a panic of any thread is told and stops the machine.
pub fn stop_on_panic(outbox: &Arc<Outbox>, port: File) {
    let outbox = Arc::clone(outbox);
    let port = Mutex::new(port);
    std::panic::set_hook(Box::new(move |panic| {
        let why = format!("a bug in knobrig-agent: {panic}").replace('\n', ": ");
        console::fault(&why);
        let fault = FromGuest::Fault { why };
        if std::thread::current().name() == Some(WRITER) {
            // Nobody else will write; the newline ends the line that broke off.
            let line = format!("\n{}", to_line(&fault));
            let _ = lock(&port).write_all(line.as_bytes());
        } else {
            // On a thread of its own: this one may hold the outbox's lock.
            let outbox = Arc::clone(&outbox);
            let (told, awaited) = mpsc::channel();
            let _ = std::thread::Builder::new().spawn(move || {
                outbox.send(&fault);
                outbox.drain(LAST_WORDS);
                let _ = told.send(());
            });
            // Told, no thread to tell it, or too late: all the same now.
            let _ = awaited.recv_timeout(LAST_WORDS);
        }
        power::off()
    }));
}
