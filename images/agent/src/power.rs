//! How the machine stops. PID 1 must never return: that is a kernel panic.

use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::console;

/// An orderly power-off passes every driver's shutdown and waits for device locks, which a stuck
/// teardown may hold for ever. So long may it take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stops the machine, syncing nothing.
pub fn off() -> ! {
    // On a thread of its own, since it may never come back.
    let started = std::thread::Builder::new()
        .name("power-off".into())
        .spawn(|| {
            if let Err(why) = reboot(RebootCommand::PowerOff) {
                console::fault(&format!("failed to power off: {why}"));
            }
        });
    if started.is_ok() {
        std::thread::sleep(PATIENCE);
    }
    // emergency_restart() takes no lock and asks no driver; under -no-reboot QEMU ends.
    console::fault("power-off did not come about; restarting by sysrq");
    let _ = std::fs::write("/proc/sysrq-trigger", "b");
    loop {
        std::thread::park();
    }
}
