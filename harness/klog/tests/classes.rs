//! One console for each class of report, as the kernel's format strings make it.

use knobrig_klog::{Class, Report, Role, parse};

/// The one report of a console.
fn one(log: &str) -> Report {
    let mut reports = parse(log.as_bytes());
    assert_eq!(reports.len(), 1, "one report in\n{log}\n{reports:#?}");
    reports.remove(0)
}

fn known(log: &str, class: Class, title: &str) -> Report {
    let report = one(log);
    assert_eq!((report.class, report.title.as_str()), (class, title));
    report
}

fn noted(report: &Report, words: &str) {
    let notes = &report.notes;
    assert!(notes.iter().any(|note| note.contains(words)), "{notes:#?}");
}

/// fs/sysfs/dir.c, sysfs_warn_dup(): no WARN() since 4.2.
#[test]
fn a_name_that_is_taken_in_sysfs() {
    let report = known(
        "sysfs: cannot create duplicate filename '/devices/pci0000:00/0000:00:1f.0/dk0'\n\
         CPU: 1 UID: 0 PID: 77 Comm: insmod Not tainted 7.2.0 #1 PREEMPT\n\
         Call Trace:\n\
         \x20<TASK>\n\
         \x20dump_stack_lvl+0x68/0x90\n\
         \x20sysfs_warn_dup+0x8a/0xa0\n\
         \x20sysfs_create_dir_ns+0x233/0x280\n\
         \x20kobject_add_internal+0x1a1/0x4b0\n\
         \x20kobject_add+0x137/0x1c0\n\
         \x20device_add+0x2a3/0x1700\n\
         \x20mydrv_probe+0x1c3/0x400 [mydrv]\n\
         \x20</TASK>\n",
        Class::Kobject,
        "sysfs: cannot create duplicate filename in mydrv_probe",
    );
    noted(&report, "/devices/pci0000:00/0000:00:1f.0/dk0");
}

/// arch/x86/kernel/dumpstack.c, show_opcodes(): an int3 that memory doesn't hold is no code's.
#[test]
fn an_int3_of_code_that_was_overwritten() {
    let trapped_at = |bytes: &str| {
        let log = format!(
            "Oops: int3: 0000 [#1] SMP KASAN\n\
             CPU: 1 UID: 0 PID: 12 Comm: kworker/1:0 Tainted: G           O        7.2.12 #1 PREEMPT\n\
             RIP: 0010:__msecs_to_jiffies+0x1/0x30\n\
             Code: 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 {bytes} 85 ff 78 1d\n\
             Call Trace:\n\
             \x20<TASK>\n\
             \x20process_one_work+0x4b1/0x9d0\n\
             \x20worker_thread+0x5d1/0x9c0\n\
             \x20</TASK>\n"
        );
        known(&log, Class::Trap, "int3 in __msecs_to_jiffies")
    };
    // As QEMU 7.2 had it while the function was being hooked.
    let log = include_str!("stale-int3.log");
    let stale = known(log, Class::Trap, "int3 in __msecs_to_jiffies");
    assert!(stale.stale_code);
    noted(&stale, "is e8 in memory");
    assert!(!trapped_at("cc <1f> 44 00 00").stale_code);
}

/// lib/kobject.c, kobject_init().
#[test]
fn a_kobject_that_is_set_up_twice() {
    known(
        "[    3.000000] kobject: '(null)' (00000000c6e8ca94): tried to init an initialized object, something is seriously wrong.\n\
         [    3.000001] CPU: 0 PID: 1 Comm: insmod Not tainted 6.1.0 #1\n\
         [    3.000002] Call Trace:\n\
         [    3.000003]  dump_stack_lvl+0x45/0x5e\n\
         [    3.000004]  kobject_init+0x6c/0x80\n\
         [    3.000005]  dk0_make+0x20/0x60 [mydrv]\n",
        Class::Kobject,
        "kobject: tried to init an initialized object in dk0_make",
    );
}

/// drivers/base/core.c, device_release(): the message stands before the headline on x86-64.
#[test]
fn a_device_without_a_release_function() {
    let report = known(
        "[    3.000000] ------------[ cut here ]------------\n\
         [    3.000000] Device 'dk0' does not have a release() function, it is broken and must be fixed. See Documentation/core-api/kobject.rst.\n\
         [    3.000001] WARNING: CPU: 0 PID: 80 at drivers/base/core.c:2522 device_release+0x1b0/0x200\n\
         [    3.000002] Modules linked in: mydrv(O-)\n\
         [    3.000003] CPU: 0 PID: 80 Comm: rmmod Tainted: G           O       6.12.0 #1\n\
         [    3.000004] RIP: 0010:device_release+0x1b0/0x200\n\
         [    3.000005] Call Trace:\n\
         [    3.000006]  kobject_put+0x165/0x1c0\n\
         [    3.000007]  mydrv_exit+0x20/0x40 [mydrv]\n\
         [    3.000008] ---[ end trace 0000000000000000 ]---\n",
        Class::Kobject,
        "WARNING in mydrv_exit",
    );
    noted(&report, "does not have a release() function");
}

/// lib/debugobjects.c, debug_print_object().
#[test]
fn an_active_object_is_freed() {
    let report = known(
        "[    9.000000] ------------[ cut here ]------------\n\
         [    9.000000] ODEBUG: free active (active state 0) object: ffff888004a1b000 object type: timer_list hint: dk0_tick+0x0/0x40 [mydrv]\n\
         [    9.000001] WARNING: CPU: 1 PID: 81 at lib/debugobjects.c:612 debug_print_object+0x1a2/0x2b0\n\
         [    9.000002] Modules linked in: mydrv(O-)\n\
         [    9.000003] RIP: 0010:debug_print_object+0x1a2/0x2b0\n\
         [    9.000004] Call Trace:\n\
         [    9.000005]  debug_check_no_obj_freed+0x3ec/0x520\n\
         [    9.000006]  kfree+0x12f/0x330\n\
         [    9.000007]  mydrv_remove+0x44/0x70 [mydrv]\n\
         [    9.000008] ---[ end trace 0000000000000000 ]---\n",
        Class::DebugObjects,
        "WARNING: ODEBUG bug in mydrv_remove",
    );
    noted(&report, "object type: timer_list hint: dk0_tick");
}

/// kernel/dma/debug.c, dma_debug_device_change().
#[test]
fn dma_memory_outlives_its_driver() {
    let report = known(
        "[    9.000000] ------------[ cut here ]------------\n\
         [    9.000000] DMA-API: pci 0000:00:1f.0: device driver has pending DMA allocations while released from device [count=1]\n\
         [    9.000000] One of leaked entries details: [device address=0x0000000004a1b000] [size=4096 bytes] [mapped with DMA_BIDIRECTIONAL] [mapped as coherent]\n\
         [    9.000001] WARNING: CPU: 1 PID: 81 at kernel/dma/debug.c:873 dma_debug_device_change+0x2d0/0x3a0\n\
         [    9.000002] RIP: 0010:dma_debug_device_change+0x2d0/0x3a0\n\
         [    9.000003] Call Trace:\n\
         [    9.000004]  notifier_call_chain+0xb7/0x2a0\n\
         [    9.000005]  device_unbind_cleanup+0x1b/0x100\n\
         [    9.000006]  device_release_driver_internal+0x4ca/0x6c0\n\
         [    9.000007] ---[ end trace 0000000000000000 ]---\n",
        Class::DmaApi,
        "WARNING: DMA-API bug in dma_debug_device_change",
    );
    noted(&report, "pending DMA allocations");
}

/// mm/slub.c, list_slab_objects() by way of slab_err(), and print_track().
#[test]
fn objects_are_left_in_a_cache_that_goes() {
    let report = known(
        "[    9.000000] =============================================================================\n\
         [    9.000000] BUG dk_request (Tainted: G           O      ): Objects remaining in dk_request on __kmem_cache_shutdown()\n\
         [    9.000000] -----------------------------------------------------------------------------\n\
         \n\
         [    9.000001] Object 0xffff888004a1b000 @offset=0\n\
         [    9.000001] Allocated in dk_submit+0x29/0x90 [mydrv] age=57 cpu=0 pid=76\n\
         [    9.000002]  kmem_cache_alloc_noprof+0x12c/0x340\n\
         [    9.000002]  dk_submit+0x29/0x90 [mydrv]\n\
         [    9.000002]  dk0_show+0x1c/0x60 [mydrv]\n\
         [    9.000003] Slab 0xffffea0000128600 objects=16 used=1 fp=0xffff888004a1b100 flags=0x200(workingset|zone=0)\n\
         [    9.000004] CPU: 0 UID: 0 PID: 80 Comm: rmmod Tainted: G           O       7.2.0 #1\n\
         [    9.000005] Call Trace:\n\
         [    9.000006]  dump_stack_lvl+0x68/0x90\n\
         [    9.000007]  slab_err+0x90/0xc0\n\
         [    9.000008]  __kmem_cache_shutdown+0x1b0/0x300\n\
         [    9.000009]  kmem_cache_destroy+0x60/0x120\n\
         [    9.000010]  mydrv_exit+0x20/0x40 [mydrv]\n",
        Class::Slab,
        "BUG: Objects remaining in dk_request on __kmem_cache_shutdown()",
    );
    let cache = report.object.as_ref().and_then(|it| it.cache.as_deref());
    assert_eq!(cache, Some("dk_request"));
    let made = report.stack(Role::Alloc).expect("who made it");
    assert_eq!(made.task.as_ref().and_then(|task| task.pid), Some(76));
    assert_eq!(made.frames.len(), 3);
    assert_eq!(made.frames[1].function, "dk_submit");
}

/// mm/kmemleak.c, kmemleak_scan(): the objects are in debugfs only.
#[test]
fn a_scan_counts_its_leaks() {
    let log =
        "[   60.000000] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)\n";
    let report = known(log, Class::MemoryLeak, "memory leak");
    noted(&report, "3 new suspected memory leaks");
}

/// mm/kmemleak.c, print_unreferenced().
#[test]
fn a_leaked_object_has_its_backtrace() {
    let report = known(
        "unreferenced object 0xffff888004a1b000 (size 96):\n\
         \x20 comm \"insmod\", pid 76, jiffies 4294901234\n\
         \x20 hex dump (first 32 bytes):\n\
         \x20   00 01 00 00 00 00 ad de 22 01 00 00 00 00 ad de  ........\".......\n\
         \x20 backtrace (crc 8a5e1b2):\n\
         \x20   kmemleak_alloc+0x4a/0x90\n\
         \x20   __kmalloc_cache_noprof+0x2a1/0x330\n\
         \x20   mydrv_probe+0x1c3/0x400 [mydrv]\n",
        Class::MemoryLeak,
        "memory leak in mydrv_probe",
    );
    let size = report.object.as_ref().and_then(|object| object.size);
    assert_eq!(size, Some(96));
}

/// mm/page_alloc.c, warn_alloc(); mm/oom_kill.c, dump_header(): lack of memory is no bug.
#[test]
fn a_lack_of_memory_is_told_and_is_no_crash() {
    let report = known(
        "[    9.000000] insmod: page allocation failure: order:9, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null),cpuset=/,mems_allowed=0\n\
         [    9.000001] CPU: 0 UID: 0 PID: 80 Comm: insmod Not tainted 7.2.0 #1\n\
         [    9.000002] Call Trace:\n\
         [    9.000003]  dump_stack_lvl+0x68/0x90\n\
         [    9.000004]  warn_alloc+0x1b0/0x1f0\n\
         [    9.000005]  __alloc_pages_noprof+0x1b9/0x220\n\
         [    9.000006]  mydrv_probe+0x1c3/0x400 [mydrv]\n",
        Class::AllocationFailure,
        "page allocation failure in mydrv_probe",
    );
    assert!(report.suppressed);
    let report = known(
        "[    9.000000] stress invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0\n\
         [    9.000001] CPU: 0 UID: 0 PID: 80 Comm: stress Not tainted 7.2.0 #1\n\
         [    9.000002] Call Trace:\n\
         [    9.000003]  dump_header+0x10a/0x960\n\
         [    9.000004]  oom_kill_process+0x273/0x560\n",
        Class::OutOfMemory,
        "out of memory",
    );
    assert!(report.suppressed);
}

/// rust/kernel/lib.rs, the panic handler: `pr_emerg!("{}\n", info); BUG();`
#[test]
fn rust_code_panics() {
    let report = known(
        "[    9.000000] rust_kernel: panicked at drivers/mydrv/knobs.rs:41:9:\n\
         [    9.000000] index out of bounds: the len is 4 but the index is 4\n\
         [    9.000001] ------------[ cut here ]------------\n\
         [    9.000002] kernel BUG at rust/helpers/bug.c:7!\n\
         [    9.000003] Oops: invalid opcode: 0000 [#1] SMP KASAN\n\
         [    9.000004] RIP: 0010:rust_helper_BUG+0x8/0x10\n\
         [    9.000005] Call Trace:\n\
         [    9.000006]  _RNvCs3UeMPcCzH6S_7___rustc17rust_begin_unwind+0x15d/0x160\n\
         [    9.000007]  _RNvNtCs1peUGmbrgHn_4core9panicking9panic_fmt+0x84/0x90\n\
         [    9.000008]  _RNvNtCs7hGo5QI5OSw_5mydrv5knobs4show+0x12/0x40 [mydrv]\n\
         [    9.000009] ---[ end trace 0000000000000000 ]---\n",
        Class::RustPanic,
        "index out of bounds: the len is 4 but the index is 4 in mydrv::knobs::show",
    );
    assert_eq!(report.corrupted, None);
}

/// kernel/kcsan/report.c.
#[test]
fn a_data_race_has_two_sides() {
    let report = known(
        "==================================================================\n\
         BUG: KCSAN: data-race in dk0_show / mydrv_remove\n\
         \n\
         write to 0xffff888004a1b018 of 8 bytes by task 80 on cpu 1:\n\
         \x20mydrv_remove+0x44/0x70 [mydrv]\n\
         \x20pci_device_remove+0x6e/0x150\n\
         \n\
         read to 0xffff888004a1b018 of 8 bytes by task 71 on cpu 0:\n\
         \x20dk0_show+0x1c/0x60 [mydrv]\n\
         \x20dev_attr_show+0x19/0x60\n\
         \n\
         value changed: 0xffff888004a1c000 -> 0x0000000000000000\n\
         \n\
         Reported by Kernel Concurrency Sanitizer on:\n\
         CPU: 0 UID: 0 PID: 71 Comm: reader Not tainted 7.2.0 #1\n\
         ==================================================================\n",
        Class::Kcsan,
        "KCSAN: data-race in dk0_show / mydrv_remove",
    );
    let sides = [Role::Fault, Role::Racing].map(|role| {
        let stack = report.stack(role).expect("a side");
        stack.frames[0].function.clone()
    });
    assert_eq!(sides, ["mydrv_remove", "dk0_show"]);
}

/// mm/kmsan/report.c.
#[test]
fn an_uninitialised_value_has_its_origin() {
    let report = known(
        "=====================================================\n\
         BUG: KMSAN: uninit-value in dk0_show+0x1c/0x60 [mydrv]\n\
         \x20dk0_show+0x1c/0x60 [mydrv]\n\
         \x20dev_attr_show+0x19/0x60\n\
         \n\
         Uninit was created at:\n\
         \x20__kmalloc_cache_noprof+0x2a1/0x330\n\
         \x20mydrv_probe+0x1c3/0x400 [mydrv]\n\
         \n\
         CPU: 0 UID: 0 PID: 71 Comm: reader Not tainted 7.2.0 #1\n\
         =====================================================\n",
        Class::Kmsan,
        "KMSAN: uninit-value in dk0_show",
    );
    assert!(report.stack(Role::Origin).is_some());
}

/// kernel/locking/lockdep.c, with the lock that kernfs makes of a file's active references.
#[test]
fn the_active_reference_of_a_file_is_named_as_what_it_is() {
    let report = known(
        "======================================================\n\
         WARNING: possible circular locking dependency detected\n\
         7.2.0 #1 Not tainted\n\
         ------------------------------------------------------\n\
         rmmod/80 is trying to acquire lock:\n\
         ffff888004a1b0e8 (kn->active#12){++++}-{0:0}, at: kernfs_remove_by_name_ns+0x9c/0x110\n\
         \n\
         but task is already holding lock:\n\
         ffffffffc0203040 (dk_lock){+.+.}-{4:4}, at: mydrv_exit+0x15/0x40 [mydrv]\n\
         \n\
         which lock already depends on the new lock.\n\
         \n\
         stack backtrace:\n\
         CPU: 1 UID: 0 PID: 80 Comm: rmmod Tainted: G           O       7.2.0 #1\n\
         Call Trace:\n\
         \x20dump_stack_lvl+0x68/0x90\n\
         \x20__lock_acquire+0x1520/0x2460\n\
         \x20__kernfs_remove+0x2e1/0x370\n\
         \x20kernfs_remove_by_name_ns+0x9c/0x110\n\
         \x20mydrv_exit+0x22/0x40 [mydrv]\n\
         \x20__x64_sys_delete_module+0x254/0x320\n",
        Class::Lockdep,
        "possible deadlock in kernfs_remove_by_name_ns",
    );
    noted(
        &report,
        "kn->active#12 is the active reference of a sysfs file",
    );
}

/// kernel/hung_task.c since 6.16, debug_show_blocker().
#[test]
fn a_hung_task_tells_whom_it_waits_for() {
    let report = known(
        "INFO: task rmmod:80 blocked for more than 120 seconds.\n\
         \x20     Tainted: G           O       7.2.0 #1\n\
         \"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.\n\
         task:rmmod           state:D stack:0     pid:80    tgid:80    ppid:1      task_flags:0x400000 flags:0x00000000\n\
         Call Trace:\n\
         \x20<TASK>\n\
         \x20__schedule+0x9a1/0x1e40\n\
         \x20schedule+0x6a/0x170\n\
         \x20schedule_preempt_disabled+0x13/0x30\n\
         \x20__mutex_lock+0x4e1/0xa60\n\
         \x20mydrv_exit+0x15/0x40 [mydrv]\n\
         \x20__x64_sys_delete_module+0x254/0x320\n\
         \x20</TASK>\n\
         INFO: task rmmod:80 is blocked on a mutex likely owned by task reader:71.\n",
        Class::HungTask,
        "INFO: task hung in mydrv_exit",
    );
    noted(&report, "blocked on a mutex likely owned by task reader:71");
}

/// kernel/hung_task.c, of Android and of the linux-next that syzbot runs.
#[test]
fn a_task_that_can_t_die() {
    known(
        "INFO: task reader:71 can't die for more than 143 seconds.\n\
         task:reader          state:D stack:0     pid:71\n\
         Call Trace:\n\
         \x20__schedule+0x9a1/0x1e40\n\
         \x20schedule+0x6a/0x170\n\
         \x20dk_settle+0x4e/0xa0 [mydrv]\n\
         \x20dk0_show+0x1c/0x60 [mydrv]\n",
        Class::HungTask,
        "INFO: task can't die in dk_settle",
    );
}

/// net/core/dev.c, netdev_wait_allrefs_any().
#[test]
fn a_network_device_that_others_hold() {
    let log =
        "[   99.000000] unregister_netdevice: waiting for dk0 to become free. Usage count = 2\n";
    let title = "unregister_netdevice: waiting for DEV to become free";
    noted(&known(log, Class::HungTask, title), "references left: 2");
}

/// lib/refcount.c since 6.18's one-line headline.
#[test]
fn a_reference_count_is_taken_after_its_end() {
    let report = known(
        "[    9.000000] ------------[ cut here ]------------\n\
         [    9.000000] refcount_t: addition on 0; use-after-free.\n\
         [    9.000001] WARNING: lib/refcount.c:25 at refcount_warn_saturate+0x120/0x180, CPU#1: reader/71\n\
         [    9.000002] Modules linked in: mydrv(O)\n\
         [    9.000003] RIP: 0010:refcount_warn_saturate+0x120/0x180\n\
         [    9.000004] Call Trace:\n\
         [    9.000005]  kobject_get+0x7d/0x90\n\
         [    9.000006]  get_device+0x1b/0x30\n\
         [    9.000007]  dk0_open+0x30/0x80 [mydrv]\n\
         [    9.000008] ---[ end trace 0000000000000000 ]---\n",
        Class::Refcount,
        "WARNING: refcount bug in dk0_open",
    );
    noted(&report, "addition on 0; use-after-free");
}

/// lib/list_debug.c, __list_del_entry_valid_or_report() with CONFIG_BUG_ON_DATA_CORRUPTION.
#[test]
fn a_list_with_a_poisoned_pointer() {
    known(
        "[    9.000000] list_del corruption, ffff888004a1b000->next is LIST_POISON1 (dead000000000100)\n\
         [    9.000001] ------------[ cut here ]------------\n\
         [    9.000002] kernel BUG at lib/list_debug.c:56!\n\
         [    9.000003] Oops: invalid opcode: 0000 [#1] SMP KASAN\n\
         [    9.000004] RIP: 0010:__list_del_entry_valid_or_report+0xe3/0x100\n\
         [    9.000005] Call Trace:\n\
         [    9.000006]  dk_forget+0x30/0x80 [mydrv]\n\
         [    9.000007] ---[ end trace 0000000000000000 ]---\n",
        Class::ListCorruption,
        "BUG: corrupted list in dk_forget",
    );
}

/// kernel/locking/lockdep.c, print_held_locks_bug().
#[test]
fn a_task_sleeps_with_a_lock() {
    known(
        "====================================\n\
         WARNING: reader/71 still has locks held!\n\
         7.2.0 #1 Tainted: G           O      \n\
         ------------------------------------\n\
         1 lock held by reader/71:\n\
         \x20#0: ffffffffc0203040 (dk_lock){+.+.}-{4:4}, at: dk0_show+0x15/0x60 [mydrv]\n\
         \n\
         stack backtrace:\n\
         CPU: 1 UID: 0 PID: 71 Comm: reader Tainted: G           O       7.2.0 #1\n\
         Call Trace:\n\
         \x20dump_stack_lvl+0x68/0x90\n\
         \x20debug_check_no_locks_held+0x9a/0xa0\n\
         \x20dk0_show+0x40/0x60 [mydrv]\n",
        Class::Lockdep,
        "WARNING: still has locks held in dk0_show",
    );
}

/// mm/kasan/report.c, print_address_description(): a global's name on a line of its own.
#[test]
fn a_global_is_named() {
    let report = known(
        "==================================================================\n\
         BUG: KASAN: global-out-of-bounds in dk0_show+0x1c/0x60 [mydrv]\n\
         Read of size 4 at addr ffffffffc0203058 by task reader/71\n\
         \n\
         CPU: 1 UID: 0 PID: 71 Comm: reader Tainted: G           O       7.2.0 #1\n\
         Call Trace:\n\
         \x20dump_stack_lvl+0x68/0x90\n\
         \x20dk0_show+0x1c/0x60 [mydrv]\n\
         \x20dev_attr_show+0x19/0x60\n\
         \n\
         The buggy address belongs to the variable:\n\
         \x20dk_values+0x18/0x40 [mydrv]\n\
         \n\
         Memory state around the buggy address:\n\
         ==================================================================\n",
        Class::Kasan,
        "KASAN: global-out-of-bounds Read in dk0_show",
    );
    let variable = report.object.as_ref().and_then(|it| it.variable.as_deref());
    assert_eq!(variable, Some("dk_values"));
    let fault = report.stack(Role::Fault).expect("a stack");
    assert_eq!(fault.frames.len(), 3, "a variable is no frame");
}

/// arch/x86/boot/compressed/misc.c speaks before the kernel does: one boot, not two.
#[test]
fn a_boot_is_one_boot() {
    let boot = "Decompressing Linux... Parsing ELF... done.\n\
        Booting the kernel.\n\
        [    0.000000] Linux version 7.2.0 (root@vm)\n";
    assert_eq!(parse(boot.as_bytes()), []);
    let again = format!("{boot}[    9.000000] all is well\n{boot}");
    let report = one(&again);
    assert_eq!(
        (report.class, report.title.as_str()),
        (Class::Reboot, "unexpected kernel reboot")
    );
}

/// init/main.c, kernel/exit.c: what changes from run to run stands in no title.
#[test]
fn a_panic_is_known_by_its_words() {
    for (words, title) in [
        (
            "Attempted to kill init! exitcode=0x0000000b",
            "kernel panic: Attempted to kill init!",
        ),
        (
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            "kernel panic: VFS: Unable to mount root fs on unknown-block(NUM,NUM)",
        ),
        (
            "No working init found.",
            "kernel panic: No working init found",
        ),
    ] {
        let log = format!(
            "[    9.000000] Kernel panic - not syncing: {words}\n[    9.000001] CPU: 0 PID: 1 Comm: init\n"
        );
        known(&log, Class::Panic, title);
    }
}
