//! What doesn't move: hung tasks (kernel/hung_task.c), lockups (kernel/watchdog.c), RCU stalls
//! (kernel/rcu/tree_stall.h), work queues (kernel/workqueue.c).

use std::sync::LazyLock;

use super::{Body, Headline, Verdict};
use crate::case::{Case, guilty_in, titled};
use crate::report::{Class, Frame, Role};
use crate::skip::{COMMON, SkipSet};

pub(super) const HEADLINES: &[Headline] = &[
    Headline::new("INFO: task ", Body::Plain, hung).with(" blocked for more than "),
    Headline::new("INFO: task ", Body::Plain, hung).with(" blocked in I/O wait for more than "),
    Headline::new("INFO: task ", Body::Plain, hung).with(" can't die for more than "),
    Headline::new("BUG: soft lockup", Body::Wide, soft).anywhere(),
    Headline::new("", Body::Wide, hard).with("hard LOCKUP on cpu"),
    Headline::new("INFO: rcu", Body::Wide, stall)
        .with("stall")
        .anywhere(),
    Headline::new("INFO: rcu", Body::Wide, stall).with("self-detected stall"),
    Headline::new("BUG: workqueue lockup", Body::Wide, workqueue).anywhere(),
];

fn hung(case: &Case<'_>) -> Verdict {
    let frames = case.fault_frames();
    let function = guilty_in(frames, &[&COMMON, &WAITS]);
    titled(
        Class::HungTask,
        "HANG",
        "INFO: task hung",
        Some("hang"),
        function,
    )
}

fn soft(case: &Case<'_>) -> Verdict {
    titled(
        Class::SoftLockup,
        "HANG",
        "BUG: soft lockup",
        Some("stall"),
        busy(case),
    )
}

fn hard(case: &Case<'_>) -> Verdict {
    titled(
        Class::HardLockup,
        "HANG",
        "BUG: hard lockup",
        Some("stall"),
        busy(case),
    )
}

fn stall(case: &Case<'_>) -> Verdict {
    titled(
        Class::RcuStall,
        "HANG",
        "INFO: rcu detected stall",
        Some("stall"),
        busy(case),
    )
}

fn workqueue(case: &Case<'_>) -> Verdict {
    let mut verdict = super::misc::plain_bug(case);
    verdict.title = "BUG: workqueue lockup".to_owned();
    verdict.kind = "HANG".to_owned();
    verdict.class = Class::RcuStall;
    verdict.corrupted = None;
    verdict
}

/// Waiting itself is no place to blame for a hang; on top of the common list.
static WAITS: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "blk_*",
        "submit_bio*",
        "kthread_park",
        "rcu_barrier*",
        "context_switch",
        "jbd2_log_wait_commit",
    ]])
});

/// The function that keeps a CPU busy, found from where the kernel dispatches work: system calls,
/// timers, soft interrupts, packet reception. Deeper frames change from sample to sample, so the
/// one right below a dispatcher names the bug.
fn busy(case: &Case<'_>) -> Option<String> {
    let stacks: Vec<&[Frame]> = case
        .stacks
        .iter()
        .filter(|s| matches!(s.role, Role::Fault | Role::Context))
        .map(|s| below_interrupt(&s.frames))
        .filter(|frames| !frames.is_empty())
        .collect();
    stacks.iter().find_map(|frames| below_dispatcher(frames))
}

/// The frames of what the timer interrupt that noticed the stall had interrupted.
fn below_interrupt(frames: &[Frame]) -> &[Frame] {
    let at = frames.iter().rposition(|f| REPORTERS.has(&f.function));
    match at {
        Some(at) => &frames[at + 1..],
        None => frames,
    }
}

/// What stands above the code that was interrupted: the clock tick's and the NMI's way in.
static REPORTERS: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "apic_timer_interrupt",
        "smp_apic_timer_interrupt",
        "sysvec_apic_timer_interrupt",
        "asm_sysvec_apic_timer_interrupt",
        "__sysvec_apic_timer_interrupt",
        "__irq_svc",
        "el1_irq",
        "el1h_64_irq",
        "el1h_64_irq_handler",
        "el1_interrupt",
        "asm_call_on_stack",
        "asm_call_irq_on_stack",
        "gic_handle_irq",
        "rcu_dump_cpu_stacks",
        "nmi_trigger_cpumask_backtrace",
        "nmi",
        "end_repeat_nmi",
        "asm_exc_nmi",
        "ret_from_intr",
        "asm_sysvec_irq_work",
        "asm_sysvec_reschedule_ipi",
        "call_on_irq_stack",
        "do_interrupt_handler",
    ]])
});

fn below_dispatcher(frames: &[Frame]) -> Option<String> {
    let mut last: Option<&str> = None;
    let mut best = None;
    for frame in frames
        .iter()
        .filter(|f| f.reliable && !f.function.is_empty())
    {
        let function = frame.function.as_str();
        if DISPATCHERS.has(function) {
            best = last;
            if best.is_some() {
                break;
            }
        } else if !COMMON.has(function) && !DISPATCHED_BY_WRAPPER.has(function) {
            last = Some(function);
        }
    }
    best.map(str::to_owned)
}

/// Thin layers between a dispatcher and the function it is about.
static DISPATCHED_BY_WRAPPER: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "__vfs_write",
        "__vfs_read",
        "do_vfs_ioctl",
        "do_iter_*",
        "call_write_iter",
        "call_read_iter",
        "new_sync_*",
    ]])
});

/// Where the kernel hands control to a driver, protocol, filesystem, timer or system call.
static DISPATCHERS: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        // System calls.
        "do_syscall_*",
        "entry_SYSCALL*",
        "entry_SYSENTER*",
        "do_fast_syscall_32",
        "__do_fast_syscall_32",
        "invoke_syscall*",
        "el0_svc*",
        "do_el0_svc*",
        "ret_fast_syscall",
        "x64_sys_call",
        // Files.
        "vfs_*",
        "__vfs_*",
        "do_iter_readv_writev",
        "do_iter_read",
        "do_iter_write",
        "do_vfs_ioctl",
        "call_write_iter",
        "__fput",
        "____fput",
        "task_work_run",
        "mmap_region",
        "do_mmap*",
        "__do_fault",
        "handle_mm_fault",
        // Sockets.
        "sock_sendmsg*",
        "____sys_sendmsg",
        "___sys_sendmsg",
        "sock_recvmsg*",
        "sock_setsockopt",
        "__sys_setsockopt",
        "netlink_rcv_skb",
        "netlink_unicast_kernel",
        "rtnetlink_rcv_msg",
        "genl_rcv_msg",
        "genl_family_rcv_msg*",
        "nfnetlink_rcv_msg",
        // Packets.
        "__netif_receive_skb*",
        "netif_receive_skb*",
        "process_backlog",
        "net_rx_action",
        "__napi_poll",
        // Deferred work.
        "call_timer_fn",
        "__run_timers*",
        "__run_hrtimer",
        "__hrtimer_run_queues",
        "tasklet_action*",
        "__do_softirq",
        "handle_softirqs",
        "process_one_work",
        "worker_thread",
        "kthread",
        "rcu_do_batch",
        "rcu_core",
        "irq_work_run*",
        "smp_call_function_single*",
    ]])
});

/// The function below the first dispatcher, for stacks that overflowed: the recursion above it has
/// many names, what began it has one.
pub(super) fn entry(case: &Case<'_>) -> Option<String> {
    below_dispatcher(case.fault_frames())
}
