//! What a thread was at when it made, freed or touched an object, told from its stack: which
//! operation of user space or which teardown it carried out. Data: extend the table, no code.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use crate::case::Case;
use crate::report::{Class, Frame, Part, Role, Stack};
use crate::skip::{COMMON, SkipSet};

/// What a way into drivers stands for. Of several in one stack the first kind of this list names
/// it; of one kind the outermost, which is what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Ends a device or a driver.
    Teardown,
    /// Brings one up.
    SetUp,
    /// An operation on a file of a driver.
    Op,
    /// Called later, by nobody who asked for it now.
    Deferred,
    /// An operation on any file.
    AnyFile,
    /// A step that teardowns consist of; alone it says that this is one.
    Step,
    /// A thread of the kernel.
    Thread,
}

const HANDLER: &str = "an interrupt handler";

/// The functions that stand for it, and its words.
const ENTRIES: &[(Kind, &str, &[&str])] = &[
    (
        Kind::Teardown,
        "rmmod",
        &["*sys_delete_module", "delete_module", "free_module"],
    ),
    (
        Kind::Teardown,
        "unbind",
        &["unbind_store", "device_driver_detach"],
    ),
    (
        Kind::Teardown,
        "unplug",
        &[
            "acpi_device_hotplug",
            "acpi_hotplug_work_fn",
            "acpiphp_*",
            "pciehp_*",
            "trim_stale_devices",
            "disable_slot",
            "usb_disconnect",
            "hub_port_connect*",
            "shpchp_*",
        ],
    ),
    (
        Kind::Teardown,
        "removal of the device",
        &[
            "remove_store",
            "pci_stop_and_remove_bus_device*",
            "delete_device_store",
        ],
    ),
    (
        Kind::Teardown,
        "shutdown",
        &["device_shutdown", "kernel_restart", "kernel_power_off"],
    ),
    (
        Kind::Teardown,
        "suspend",
        &["dpm_suspend*", "device_suspend*"],
    ),
    (Kind::Teardown, "rmdir in configfs", &["configfs_rmdir"]),
    (
        Kind::Teardown,
        "unmount",
        &["*sys_umount", "deactivate_super", "cleanup_mnt"],
    ),
    (
        Kind::SetUp,
        "insmod",
        &[
            "do_init_module",
            "load_module",
            "*sys_finit_module",
            "*sys_init_module",
        ],
    ),
    (Kind::SetUp, "bind", &["bind_store"]),
    (
        Kind::SetUp,
        "a scan of the bus",
        &["rescan_store", "dev_rescan_store", "bus_rescan_store"],
    ),
    (
        Kind::SetUp,
        "probe",
        &["really_probe*", "__driver_probe_device"],
    ),
    (Kind::SetUp, "mkdir in configfs", &["configfs_mkdir"]),
    (
        Kind::Op,
        "read of a sysfs attribute",
        &[
            "kernfs_fop_read_iter",
            "kernfs_fop_read",
            "sysfs_kf_seq_show",
            "sysfs_kf_read",
        ],
    ),
    (
        Kind::Op,
        "write of a sysfs attribute",
        &[
            "kernfs_fop_write_iter",
            "kernfs_fop_write",
            "sysfs_kf_write",
            "sysfs_kf_bin_write",
        ],
    ),
    (Kind::Op, "open of a sysfs attribute", &["kernfs_fop_open"]),
    (
        Kind::Op,
        "close of a sysfs attribute",
        &["kernfs_fop_release"],
    ),
    (Kind::Op, "poll of a sysfs attribute", &["kernfs_fop_poll"]),
    (Kind::Op, "mmap of a sysfs attribute", &["kernfs_fop_mmap"]),
    (
        Kind::Op,
        "read of a debugfs file",
        &["full_proxy_read*", "debugfs_attr_read", "short_proxy_read"],
    ),
    (
        Kind::Op,
        "write of a debugfs file",
        &[
            "full_proxy_write*",
            "debugfs_attr_write*",
            "short_proxy_write",
        ],
    ),
    (
        Kind::Op,
        "open of a debugfs file",
        &["full_proxy_open*", "open_proxy_open"],
    ),
    (Kind::Op, "close of a debugfs file", &["full_proxy_release"]),
    (
        Kind::Op,
        "read of a configfs attribute",
        &["configfs_read_iter", "configfs_read_file"],
    ),
    (
        Kind::Op,
        "write of a configfs attribute",
        &["configfs_write_iter", "configfs_write_file"],
    ),
    (Kind::Op, "read of a /proc file", &["proc_reg_read*"]),
    (Kind::Op, "write of a /proc file", &["proc_reg_write*"]),
    (
        Kind::Op,
        "open of a device node",
        &["chrdev_open", "misc_open", "blkdev_open"],
    ),
    (Kind::Op, "last close of a file", &["__fput"]),
    (Kind::Op, "read of a block device", &["blkdev_read_iter"]),
    (Kind::Op, "write of a block device", &["blkdev_write_iter"]),
    (
        Kind::Op,
        "ioctl",
        &["*sys_ioctl", "vfs_ioctl", "*compat_sys_ioctl"],
    ),
    (
        Kind::Op,
        "poll",
        &[
            "do_sys_poll",
            "do_select",
            "do_epoll_wait",
            "ep_*",
            "*sys_ppoll",
            "*sys_poll",
        ],
    ),
    (
        Kind::Op,
        "mmap",
        &["do_mmap", "mmap_region", "__mmap_region"],
    ),
    (
        Kind::Op,
        "page fault of a mapping",
        &["__do_fault", "do_fault", "handle_mm_fault"],
    ),
    (
        Kind::Op,
        "send on a socket",
        &["sock_sendmsg*", "*sys_sendto", "*sys_sendmsg"],
    ),
    (
        Kind::Op,
        "receive on a socket",
        &["sock_recvmsg*", "*sys_recvfrom", "*sys_recvmsg"],
    ),
    (
        Kind::Op,
        "close of a socket",
        &["sock_release", "__sock_release", "sock_close"],
    ),
    (
        Kind::Deferred,
        "a timer",
        &[
            "call_timer_fn",
            "__run_timer*",
            "run_timer_softirq",
            "__hrtimer_run_queues",
            "hrtimer_run_softirq",
        ],
    ),
    (
        Kind::Deferred,
        "a work item",
        &[
            "process_one_work",
            "process_scheduled_works",
            "assign_work",
            "worker_thread",
        ],
    ),
    (
        Kind::Deferred,
        "an RCU callback",
        &["rcu_do_batch", "rcu_core", "srcu_invoke_callbacks"],
    ),
    (Kind::Deferred, "a tasklet", &["tasklet_action*"]),
    (
        Kind::Deferred,
        HANDLER,
        &[
            "__handle_irq_event_percpu",
            "handle_irq_event*",
            "generic_handle_irq*",
        ],
    ),
    (
        Kind::Deferred,
        "an interrupt's thread",
        &["irq_thread", "irq_thread_fn"],
    ),
    (
        Kind::Deferred,
        "packet reception",
        &["net_rx_action", "__napi_poll"],
    ),
    (
        Kind::AnyFile,
        "read of a file",
        &["vfs_read*", "vfs_iter_read", "ksys_read", "*sys_read"],
    ),
    (
        Kind::AnyFile,
        "write of a file",
        &["vfs_write*", "vfs_iter_write", "ksys_write", "*sys_write"],
    ),
    (
        Kind::AnyFile,
        "open of a file",
        &["do_sys_open*", "do_filp_open", "path_openat"],
    ),
    (
        Kind::AnyFile,
        "lseek of a file",
        &["*sys_lseek", "ksys_lseek"],
    ),
    (
        Kind::Step,
        "removal of a device",
        &[
            "device_del",
            "device_unregister",
            "device_destroy",
            "cdev_device_del",
            "del_gendisk",
        ],
    ),
    (
        Kind::Step,
        "unregistration of a driver",
        &[
            "driver_unregister",
            "driver_detach",
            "device_release_driver*",
        ],
    ),
    (
        Kind::Step,
        "removal of a file",
        &["sysfs_remove_*", "kernfs_remove*", "debugfs_remove*"],
    ),
    (
        Kind::Step,
        "exit of a process",
        &["do_exit", "do_group_exit"],
    ),
    (Kind::Thread, "a thread of the kernel", &["kthread"]),
];

/// [`ENTRIES`] by function: asked of every frame, so one look must do.
struct Index {
    whole: FxHashMap<&'static str, usize>,
    /// `abc*`, by the first byte.
    starts: FxHashMap<u8, Vec<(&'static str, usize)>>,
    /// `*abc`, by the last byte.
    ends: FxHashMap<u8, Vec<(&'static str, usize)>>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index {
        whole: FxHashMap::default(),
        starts: FxHashMap::default(),
        ends: FxHashMap::default(),
    };
    for (number, (_, _, functions)) in ENTRIES.iter().enumerate() {
        for function in *functions {
            match (function.strip_prefix('*'), function.strip_suffix('*')) {
                (Some(end), _) => {
                    let last = end.bytes().next_back().unwrap_or_default();
                    index.ends.entry(last).or_default().push((end, number));
                }
                (None, Some(start)) => {
                    let first = start.bytes().next().unwrap_or_default();
                    index.starts.entry(first).or_default().push((start, number));
                }
                (None, None) => {
                    index.whole.entry(function).or_insert(number);
                }
            }
        }
    }
    index
});

/// The entry that a function stands for, as a number in [`ENTRIES`].
fn entry(function: &str) -> Option<usize> {
    if let Some(number) = INDEX.whole.get(function) {
        return Some(*number);
    }
    let (first, last) = (function.bytes().next()?, function.bytes().next_back()?);
    let starts = INDEX.starts.get(&first).into_iter().flatten();
    let ends = INDEX.ends.get(&last).into_iter().flatten();
    let found = starts
        .filter(|(start, _)| function.starts_with(start))
        .chain(ends.filter(|(end, _)| function.ends_with(end)))
        .next();
    found.map(|(_, number)| *number)
}

/// Where an interrupt came in: what stands below was at something else.
static INTERRUPTED: LazyLock<SkipSet> = LazyLock::new(|| {
    SkipSet::new(&[&[
        "asm_sysvec_*",
        "asm_common_interrupt",
        "common_interrupt",
        "ret_from_intr",
        "apic_timer_interrupt",
        "el1h_64_irq",
        "el1_irq",
        "__irq_svc",
        "handle_riscv_irq",
    ]])
});

/// What calls the handlers of a shared line as one of them comes or goes (`CONFIG_DEBUG_SHIRQ`), as
/// an interrupt of another device might at that moment: whatever the thread itself is at, the
/// handler's part is an interrupt's.
const SHARED_LINE: &[&str] = &["free_irq", "__free_irq", "request_threaded_irq"];

/// The handler's part, where a stack is one of those calls.
fn shared_line(frames: &[&Frame]) -> Option<Part> {
    let at = (frames.iter()).position(|it| SHARED_LINE.contains(&it.function.as_str()))?;
    let handler = frames[..at].last().filter(|it| it.module.is_some())?;
    Some(Part {
        doing: HANDLER.to_owned(),
        entry: frames[at].function.clone(),
        teardown: false,
        deferred: true,
        function: Some(handler.function.clone()),
        task: None,
    })
}

/// The part that this stack's thread had.
fn part(stack: &Stack) -> Option<Part> {
    let frames: Vec<&Frame> = (stack.frames.iter())
        .filter(|frame| frame.reliable && !frame.function.is_empty())
        .take_while(|frame| !INTERRUPTED.has(&frame.function))
        .collect();
    if stack.role == Role::Fault
        && let Some(handler) = shared_line(&frames)
    {
        return Some(handler);
    }
    let mut found: Option<(usize, &Frame)> = None;
    let mut teardown = false;
    for frame in &frames {
        let Some(index) = entry(&frame.function) else {
            continue;
        };
        teardown |= matches!(ENTRIES[index].0, Kind::Teardown | Kind::Step);
        if found.is_none_or(|(best, _)| ENTRIES[index].0 <= ENTRIES[best].0) {
            found = Some((index, frame));
        }
    }
    let (index, frame) = found?;
    let in_module = frames.iter().find(|frame| frame.module.is_some());
    let first = in_module.or_else(|| frames.iter().find(|frame| !COMMON.has(&frame.function)));
    Some(Part {
        doing: ENTRIES[index].1.to_owned(),
        entry: frame.function.clone(),
        teardown: teardown && ENTRIES[index].0 != Kind::SetUp,
        deferred: ENTRIES[index].0 == Kind::Deferred,
        function: first.map(|frame| frame.function.clone()),
        task: stack.task.clone(),
    })
}

/// What kind of part it was. Which teardown, or which operation, is chance; what runs by itself is
/// not, since a driver has few of each.
pub(crate) fn kind(part: &Part) -> &str {
    if part.teardown {
        return "a teardown";
    }
    match entry(&part.entry).map(|number| ENTRIES[number].0) {
        _ if part.deferred => &part.doing,
        Some(Kind::Thread) => &part.doing,
        Some(Kind::SetUp) => "a set-up",
        _ => "an op",
    }
}

/// The stack that tells who freed: where that was put off (RCU, a work item), who asked for it.
pub(crate) fn freeing<'a>(case: &'a Case<'_>) -> Option<&'a Stack> {
    let with = |role: Role| case.stacks.iter().find(|stack| stack.role == role);
    let freed = with(Role::Free)?;
    let deferred = |stack| part(stack).map(|part| part.deferred);
    let asked = with(Role::AuxWork)
        .filter(|asked| deferred(asked) == Some(false) && deferred(freed) == Some(true));
    asked.or(Some(freed))
}

/// Who touched, and who had taken away what was touched.
pub(crate) fn of(case: &Case<'_>, gone: bool) -> (Option<Part>, Option<Part>) {
    let with = |role: Role| case.stacks.iter().find(|stack| stack.role == role);
    let worker = || {
        let at_work = case.own_lines().any(|line| line.starts_with("Workqueue: "));
        at_work.then(|| Part {
            doing: "a work item".to_owned(),
            entry: "process_one_work".to_owned(),
            teardown: false,
            deferred: true,
            function: None,
            task: None,
        })
    };
    // A chain that leads through code that is gone can't be walked, but the worker is named.
    let victim = with(Role::Fault).and_then(part).or_else(worker);
    let killer = match case.class {
        Class::Lockdep => {
            // Of a cycle's other sides the first that is at something else.
            let doing = victim.as_ref().map(|it| it.doing.as_str());
            let others = case.stacks.iter().filter(|it| it.role == Role::LockChain);
            others
                .filter_map(part)
                .find(|it| Some(it.doing.as_str()) != doing)
        }
        Class::Kcsan => with(Role::Racing).and_then(part),
        _ => {
            let freed = with(Role::Free).and_then(part);
            let asked = with(Role::AuxWork).and_then(part);
            match (freed, asked) {
                (Some(freed), Some(asked)) if freed.deferred && !asked.deferred => Some(Part {
                    doing: format!("{}, by {}", asked.doing, freed.doing),
                    ..asked
                }),
                (freed, _) => freed,
            }
        }
    };
    let rmmod = || Part {
        doing: "rmmod".to_owned(),
        entry: "delete_module".to_owned(),
        teardown: true,
        deferred: false,
        function: None,
        task: None,
    };
    (victim, killer.or_else(|| gone.then(rmmod)))
}
