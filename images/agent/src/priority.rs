//! How soon a thread gets its CPU, when others want it, too.

use knobrig_proto::Priority;
use rustix::process::setpriority_process;

/// Gives the calling thread a priority. Root may, and PID 1 of the guest is: a kernel that refuses
/// leaves the thread as it is, which then races with other odds.
pub fn claim(priority: Priority) {
    let (policy, level, nice) = match priority {
        Priority::Usual => (libc::SCHED_OTHER, 0, 0),
        Priority::Nice(nice) => (libc::SCHED_OTHER, 0, i32::from(nice)),
        Priority::First => (libc::SCHED_FIFO, 1, 0),
    };
    let param = libc::sched_param {
        sched_priority: level,
    };
    // SAFETY: the parameters are read during the call only; 0 means the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    // In Linux a nice value is a thread's, not its process's.
    let _ = setpriority_process(None, nice);
}
