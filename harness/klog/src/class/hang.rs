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
    Headline::new("INFO: task ", Body::Plain, undying).with(" can't die for more than "),
    Headline::new("INFO: task ", Body::Plain, hung)
        .with(" is blocked on ")
        .follows(),
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
    let function = bucket(frames).or_else(|| guilty_in(frames, &[&COMMON, &WAITS]));
    let prefix = "INFO: task hung";
    let mut verdict = titled(Class::HungTask, "HANG", prefix, Some("hang"), function);
    verdict.notes.extend(blocker(case));
    verdict
}

fn undying(case: &Case<'_>) -> Verdict {
    let function = case.guilty(&[&COMMON, &WAITS]);
    let prefix = "INFO: task can't die";
    let mut verdict = titled(Class::HungTask, "HANG", prefix, Some("hang"), function);
    verdict.notes.extend(blocker(case));
    verdict
}

/// Whom it waits for: `INFO: task a:1 is blocked on a mutex likely owned by task b:2.`
/// (debug_show_blocker() in kernel/hung_task.c, since 6.16).
fn blocker(case: &Case<'_>) -> Option<String> {
    case.body().find_map(|line| {
        let (_, on) = line.split_once(" is blocked on ")?;
        Some(format!("blocked on {}", on.trim().trim_end_matches('.')))
    })
}

/// When one of these doesn't return, tasks hang in it all over the kernel, and who they are says
/// nothing.
const BUCKETS: &[&str] = &[
    "rtnl_lock",
    "synchronize_rcu",
    "synchronize_srcu",
    "synchronize_net",
    "synchronize_sched",
];

fn bucket(frames: &[Frame]) -> Option<String> {
    frames.iter().filter(|f| f.reliable).find_map(|f| {
        let bare = f.function.trim_start_matches('_');
        BUCKETS
            .iter()
            .any(|b| bare.starts_with(b))
            .then(|| f.function.clone())
    })
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
        ticked(case),
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
        "*wait*",
        "*sched*",
        "*_lock*",
        "*_slowlock*",
        "*completion*",
        "*synchronize*",
        "*kthread*",
        "blk_*",
        "submit_bio*",
        "rcu_barrier*",
        "context_switch",
    ]])
});

/// The function that keeps a CPU busy, found from where the kernel dispatches work: system calls,
/// timers, soft interrupts, packet reception. Deeper frames change from sample to sample, so the
/// one right below a dispatcher names the bug.
fn busy(case: &Case<'_>) -> Option<String> {
    stacks(case).find_map(below_dispatcher)
}

/// As [`busy`], for a stall that the clock tick noticed: only a stack that the tick interrupted
/// shows what the CPU was at. RCU prints its own thread's stack and others' beside it.
fn ticked(case: &Case<'_>) -> Option<String> {
    stacks(case)
        .filter_map(below_tick)
        .find_map(below_dispatcher)
}

fn stacks<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c [Frame]> {
    case.stacks
        .iter()
        .filter(|s| matches!(s.role, Role::Fault | Role::Context | Role::Panic))
        .map(|s| s.frames.as_slice())
        .filter(|frames| !frames.is_empty())
}

/// The frames of what the timer interrupt that noticed the stall had interrupted.
fn below_tick(frames: &[Frame]) -> Option<&[Frame]> {
    let first = frames
        .iter()
        .position(|f| f.reliable && TICK.has(&f.function))?;
    let more = frames[first..]
        .iter()
        .take_while(|f| !f.reliable || TICK.has(&f.function))
        .count();
    Some(&frames[first + more..])
}

/// The interrupt's way in, above the code that was interrupted.
static TICK: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "*apic_timer_interrupt*",
        "__irq_svc",
        "el1_irq",
        "el1h_64_irq",
        "el1h_64_irq_handler",
        "el1_interrupt",
        "__el1_irq",
        "asm_call_on_stack",
        "asm_call_irq_on_stack",
        "call_on_irq_stack",
        "do_interrupt_handler",
        "ret_from_exception",
        "handle_riscv_irq",
        "do_irq",
        "decrementer_common*",
    ]])
});

fn below_dispatcher(frames: &[Frame]) -> Option<String> {
    dispatched(frames, &DISPATCHERS).or_else(|| dispatched(frames, &FAULT_ENTRIES))
}

fn dispatched(frames: &[Frame], dispatchers: &SkipSet) -> Option<String> {
    let mut last: Option<&str> = None;
    for frame in frames
        .iter()
        .filter(|f| f.reliable && !f.function.is_empty())
    {
        let function = frame.function.as_str();
        if function.starts_with("smp_call_function") {
            // It waits for another CPU; who asked is chance.
            return Some(function.to_owned());
        }
        if dispatchers.has(function) {
            if last.is_some() {
                return last.map(str::to_owned);
            }
        } else if !COMMON.has(function) && !LAYERS.has(function) {
            last = Some(function);
        }
    }
    None
}

/// Thin layers between a dispatcher and the function it is about.
static LAYERS: LazyLock<SkipSet> =
    LazyLock::new(|| SkipSet::new(&[&["new_sync_*", "rcu_gp_*", "rcu_*", "kernel_init*"]]));

/// A page fault can happen anywhere; it dispatches only where nothing else did.
static FAULT_ENTRIES: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "__do_fault",
        "handle_mm_fault",
        "do_page_fault",
        "page_fault",
        "exc_page_fault",
        "asm_exc_page_fault",
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
        "vfs_read",
        "vfs_write",
        "vfs_readv",
        "vfs_writev",
        "vfs_iter_*",
        "vfs_ioctl",
        "vfs_open",
        "__vfs_read",
        "__vfs_write",
        "do_iter_readv*",
        "do_iter_read",
        "do_iter_write",
        "do_vfs_ioctl",
        "ksys_ioctl",
        "__*sys_ioctl",
        "sys_ioctl",
        "SyS_ioctl",
        "blkdev_ioctl",
        "blkdev_driver_ioctl",
        "do_dentry_open",
        "call_write_iter",
        "call_read_iter",
        "call_mmap",
        "__fput",
        "____fput",
        "task_work_run",
        "exit_to_user*",
        "mmap_region",
        "__mmap_region",
        "do_mmap*",
        // Sockets.
        "sock_sendmsg*",
        "sock_recvmsg*",
        "sock_release",
        "__sock_release",
        "sk_common_release",
        "sock_mmap",
        "sock_ioctl",
        "sock_do_ioctl",
        "sock_common_setsockopt",
        "__sys_connect*",
        "__*sys_connect",
        "__*sys_socketpair",
        "__sys_listen",
        "__sys_accept*",
        "__sys_setsockopt",
        "netlink_rcv_skb",
        "netlink_unicast_kernel",
        "netlink_dump",
        "__netlink_dump_start",
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
        "run_timer_softirq",
        "run_ksoftirqd",
        "smpboot_thread_fn",
        "start_secondary",
        "cpu_startup_entry",
        "ret_from_fork*",
        "__run_hrtimer",
        "__hrtimer_run_queues",
        "tasklet_action*",
        "__do_softirq",
        "do_softirq*",
        "handle_softirqs",
        "process_one_work",
        "worker_thread",
        "kthread",
        "rcu_do_batch",
        "rcu_core",
        "irq_work_run*",
    ]])
});

/// The function below the first dispatcher, for stacks that overflowed: the recursion above it has
/// many names, what began it has one.
pub(super) fn entry(case: &Case<'_>) -> Option<String> {
    below_dispatcher(case.fault_frames())
}
