//! Faults on the guest's console, for what the port can't carry.

use std::fs::OpenOptions;
use std::io::Write;

/// One line `knobrig-agent: WHAT`, with nothing else of the agent's ever printed there.
///
/// It goes through `/dev/kmsg`, where the kernel keeps lines whole and stamps them; a write to
/// the console itself could land inside a line of the kernel's.
pub fn fault(what: &str) {
    let line = format!("knobrig-agent: {}\n", what.replace('\n', " "));
    // Level 3 (error): shown at every usual loglevel.
    let told = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(format!("<3>{line}").as_bytes()));
    if told.is_err() {
        // Before devtmpfs is there, stderr is the console that the kernel opened for PID 1. If
        // that fails as well there is nobody left to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
