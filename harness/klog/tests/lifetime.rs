//! Lifetime bugs of modules and devices: consoles of real ones, and what a fault in a module that is
//! gone looks like.

use std::path::Path;
use std::sync::Arc;

use knobrig_klog::{AccessKind, Class, Part, Reader, Report, Role, Symbol, Symbols, parse};

/// The reports of a console in `shared/corpus/lifetime-logs`; `None` where the corpus isn't there.
fn reports(name: &str) -> Option<Vec<Report>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/corpus/lifetime-logs").join(name))
        .find(|path| path.is_file());
    let Some(path) = path else {
        println!("skipped: no {name} above {}", env!("CARGO_MANIFEST_DIR"));
        return None;
    };
    Some(parse(&std::fs::read(path).expect("a console")))
}

fn functions(report: &Report, role: Role) -> Vec<&str> {
    let stack = report.stack(role).expect("a stack of that role");
    stack.frames.iter().map(|f| f.function.as_str()).collect()
}

#[test]
fn unbind_of_a_random_number_generator_races_with_its_thread() {
    let Some(reports) = reports("6.1.170-hwrng.log") else {
        return;
    };
    let [uaf, refcount, null] = reports.as_slice() else {
        panic!("three reports, not {reports:#?}");
    };
    assert_eq!(uaf.class, Class::Kasan);
    assert_eq!(uaf.kind, "KASAN-USE-AFTER-FREE-WRITE");
    assert_eq!(uaf.title, "KASAN: use-after-free Write in virtrng_remove");
    let object = uaf.object.as_ref().expect("an object");
    assert_eq!(object.cache.as_deref(), Some("task_struct"));
    assert_eq!((object.size, object.offset), (Some(7752), Some(40)));
    let access = uaf.access.as_ref().expect("an access");
    assert_eq!(
        (access.kind, access.size),
        (Some(AccessKind::Write), Some(4))
    );
    let victim = uaf.task.as_ref().expect("a task");
    assert_eq!((victim.name.as_str(), victim.pid), ("race", Some(64)));
    // The victim's way in, and who made and freed the thread that it meant to stop.
    assert!(functions(uaf, Role::Fault).contains(&"unbind_store"));
    assert!(functions(uaf, Role::Alloc).contains(&"kthreadd"));
    assert!(functions(uaf, Role::Free).contains(&"rcu_core"));
    let killer = uaf.stack(Role::Free).and_then(|s| s.task.as_ref());
    assert_eq!(killer.and_then(|t| t.pid), Some(65));
    assert!(uaf.corrupted.is_none() && !uaf.panicked);

    assert_eq!(refcount.class, Class::Refcount);
    assert_eq!(refcount.modules, ["virtio_rng"]);
    assert_eq!(null.class, Class::NullDeref);
    let access = null.access.as_ref().expect("an access");
    assert_eq!(
        (access.kind, access.address),
        (Some(AccessKind::Write), Some(0))
    );
}

#[test]
fn null_blk_is_told_to_use_no_queues_while_it_is_used() {
    let Some(reports) = reports("6.1.170-nullblk.log") else {
        return;
    };
    let [warning, divide] = reports.as_slice() else {
        panic!("two reports, not {reports:#?}");
    };
    assert_eq!(warning.title, "WARNING in null_map_queues");
    assert_eq!(warning.class, Class::Warning);
    let first = &warning.stack(Role::Fault).expect("a stack").frames[0];
    assert_eq!(first.module.as_deref(), Some("null_blk"));
    assert_eq!(divide.title, "divide error in blk_mq_map_queues");
    assert_eq!(divide.modules, ["null_blk"]);
    assert!(functions(divide, Role::Fault).contains(&"nullb_device_submit_queues_store"));
}

#[test]
fn driver_override_is_read_while_another_writes_it() {
    let Some(reports) = reports("6.1.170-override2.log") else {
        return;
    };
    let [uaf] = reports.as_slice() else {
        panic!("one report, not {reports:#?}");
    };
    assert_eq!(uaf.title, "KASAN: use-after-free Read in pci_match_device");
    let object = uaf.object.as_ref().expect("an object");
    assert_eq!(object.cache.as_deref(), Some("kmalloc-16"));
    assert_eq!((object.size, object.offset), (Some(16), Some(0)));
    assert!(functions(uaf, Role::Alloc).contains(&"driver_override_store"));
    assert!(functions(uaf, Role::Free).contains(&"driver_override_store"));
    assert!(functions(uaf, Role::Fault).contains(&"bind_store"));
}

/// A call into text that delete_module has freed, on a kernel with KASAN_VMALLOC: the fetch itself
/// faults, so the address is the code's own.
const GONE_CODE: &str = "\
[   12.500000][   T71] BUG: unable to handle page fault for address: ffffffffc0201340
[   12.500001][   T71] #PF: supervisor instruction fetch in kernel mode
[   12.500002][   T71] #PF: error_code(0x0010) - not-present page
[   12.500003][   T71] Oops: 0010 [#1] PREEMPT SMP KASAN
[   12.500004][   T71] CPU: 1 UID: 0 PID: 71 Comm: closer Tainted: G           O        7.2.0 #1 PREEMPT
[   12.500005][   T71] RIP: 0010:0xffffffffc0201340
[   12.500006][   T71] Call Trace:
[   12.500007][   T71]  <TASK>
[   12.500008][   T71]  device_release+0x9b/0x1c0
[   12.500009][   T71]  kobject_put+0x113/0x2a0
[   12.500010][   T71]  dk0_close+0x33/0x60 [knobgate]
[   12.500011][   T71]  __fput+0x2ff/0xa90
[   12.500012][   T71]  do_syscall_64+0x92/0x180
[   12.500013][   T71]  entry_SYSCALL_64_after_hwframe+0x77/0x7f
[   12.500014][   T71]  </TASK>
[   12.500015][   T71] Modules linked in: knobgate(O) [last unloaded: mydrv(O)]
[   12.500016][   T71] ---[ end trace 0000000000000000 ]---
";

/// A touch of a module's data after it went: KASAN's check reads the shadow, and that faults.
const GONE_DATA: &str = "\
[   12.500000][   T71] BUG: unable to handle page fault for address: fffffbfff8040268
[   12.500001][   T71] #PF: supervisor read access in kernel mode
[   12.500002][   T71] #PF: error_code(0x0000) - not-present page
[   12.500003][   T71] Oops: 0000 [#1] PREEMPT SMP KASAN
[   12.500004][   T71] CPU: 1 UID: 0 PID: 71 Comm: reader Tainted: G           O        7.2.0 #1 PREEMPT
[   12.500005][   T71] RIP: 0010:sysfs_kf_seq_show+0x81/0x2f0
[   12.500006][   T71] Call Trace:
[   12.500007][   T71]  <TASK>
[   12.500008][   T71]  seq_read_iter+0x3a1/0x1000
[   12.500009][   T71]  vfs_read+0x6c5/0xa10
[   12.500010][   T71]  do_syscall_64+0x92/0x180
[   12.500011][   T71]  entry_SYSCALL_64_after_hwframe+0x77/0x7f
[   12.500012][   T71]  </TASK>
[   12.500013][   T71] Modules linked in: [last unloaded: mydrv(O)]
[   12.500014][   T71] ---[ end trace 0000000000000000 ]---
";

#[test]
fn code_of_an_unloaded_module_is_told() {
    let [report] = &parse(GONE_CODE.as_bytes())[..] else {
        panic!("one report");
    };
    assert!(report.in_unloaded_module);
    assert_eq!(report.last_unloaded.as_deref(), Some("mydrv"));
    assert!(
        report.title.ends_with(" in unloaded module mydrv"),
        "{}",
        report.title
    );
    let access = report.access.as_ref().expect("an access");
    assert_eq!(access.kind, Some(AccessKind::Execute));
    assert_eq!(access.address, Some(0xffff_ffff_c020_1340));
    assert_eq!(access.shadow_address, None);
    assert_eq!(report.modules, ["knobgate"]);
}

#[test]
fn data_of_an_unloaded_module_is_told_through_the_shadow() {
    let [report] = &parse(GONE_DATA.as_bytes())[..] else {
        panic!("one report");
    };
    assert!(report.in_unloaded_module);
    assert!(
        report.title.ends_with(" in unloaded module mydrv"),
        "{}",
        report.title
    );
    let access = report.access.as_ref().expect("an access");
    assert_eq!(access.address, Some(0xffff_ffff_c020_1340));
    assert_eq!(access.shadow_address, Some(0xffff_fbff_f804_0268));
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("0xffffffffc0201340"))
    );
}

#[test]
fn the_same_fault_with_nothing_unloaded_is_no_lifetime_bug_of_a_module() {
    let log = GONE_DATA.replace(" [last unloaded: mydrv(O)]", "");
    let [report] = &parse(log.as_bytes())[..] else {
        panic!("one report");
    };
    assert!(!report.in_unloaded_module);
    assert_eq!(
        report.title,
        "BUG: unable to handle kernel paging request in sysfs_kf_seq_show"
    );
}

#[test]
fn the_key_forgets_addresses_cpus_and_tasks_and_keeps_the_module() {
    let other = GONE_DATA
        .replace("f8040268", "f8055268")
        .replace("CPU: 1", "CPU: 0")
        .replace("PID: 71", "PID: 99")
        .replace("T71", "T99")
        .replace("+0x81/0x2f0", "+0x7f/0x2e8");
    let key = |log: &str| parse(log.as_bytes())[0].key.clone();
    assert_eq!(key(GONE_DATA), key(&other));
    assert_ne!(key(GONE_DATA), key(&GONE_DATA.replace("mydrv", "other")));
    assert_ne!(key(GONE_DATA), key(GONE_CODE));
}

/// The unwinder of a frame-pointer kernel can't walk through code that is gone either.
#[test]
fn code_that_is_gone_in_a_headline_is_told() {
    let text = "[    5.000000] BUG: KASAN: slab-use-after-free in 0xffffffffa001b2bb\n\
        [    5.000000] Read of size 8 at addr ffff888002e55658 by task kworker/u8:1/29\n\
        [    5.000000] CPU: 0 UID: 0 PID: 29 Comm: kworker/u8:1 Tainted: G           O        7.2.12 #1\n\
        [    5.000000] Call Trace:\n\
        [    5.000000]  <TASK>\n\
        [    5.000000]  dump_stack_lvl+0x2c/0x70\n\
        [    5.000000]  kasan_report+0xd4/0x110\n\
        [    5.000000]  ? process_scheduled_works+0x72f/0xcd0\n\
        [    5.000000]  </TASK>\n";
    let reports = parse(text.as_bytes());
    assert_eq!(
        reports[0].title,
        "KASAN: slab-use-after-free Read in unloaded module"
    );
    assert!(reports[0].in_unloaded_module);
    assert_eq!(reports[0].corrupted, None);
}

/// What the module's file would say.
struct File;

impl Symbols for File {
    fn symbol(&self, module: &str, section: &str, offset: u64) -> Option<Symbol> {
        let (name, start) = match (module, section, offset) {
            ("mydrv", ".text", 0x1340..0x1400) => ("dk0_release", 0x1340),
            ("mydrv", ".text", 0x2a00..0x2b00) => ("dk0_free", 0x2a00),
            _ => return None,
        };
        Some(Symbol {
            name: name.to_owned(),
            offset: offset - start,
            size: 0xc0,
        })
    }
}

const LOADS: &str = "\
[   11.000000][   T60] knobrig: loaded mydrv .text=0xffffffffc0200000+0x4000 .data=0xffffffffc0210000+0x200
[   12.000000][   T60] knobrig: unloaded mydrv
[   12.100000][   T61] knobrig: loaded mydrv .text=0xffffffffc0200000+0x4000 .data=0xffffffffc0210000+0x200
[   12.496900][   T61] knobrig: unloaded mydrv
";

fn with_file(log: &str) -> Report {
    let mut reader = Reader::with_symbols(Arc::new(File));
    reader.push(log.as_bytes());
    let mut reports = reader.finish();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

#[test]
fn an_address_is_a_function_of_a_generation() {
    let report = with_file(&format!("{LOADS}{GONE_CODE}"));
    let place = report.place.as_ref().expect("a place");
    assert_eq!(
        place.to_string(),
        "generation 2 of mydrv, .text+0x1340 = dk0_release+0x0, unloaded 3.1 ms before"
    );
    assert!(report.in_unloaded_module);
    assert!(report.title.ends_with(" in unloaded module mydrv"));
    let killer = report.killer.as_ref().expect("who took it away");
    assert_eq!((killer.doing.as_str(), killer.teardown), ("rmmod", true));
    let json = serde_json::to_string(&report).expect("a report is JSON");
    assert_eq!(
        serde_json::from_str::<Report>(&json).expect("and back"),
        report
    );
}

/// Whether exit forgot about a reference, or didn't wait for a release that was under way.
#[test]
fn a_call_of_what_is_gone_is_another_bug_than_a_thread_that_had_not_left_it() {
    let call = with_file(&format!("{LOADS}{GONE_CODE}"));
    assert_eq!(call.key, "mydrv is gone: a call of dk0_release");
    let inside = GONE_CODE.replace("ffffffffc0201340", "ffffffffc0201370");
    let inside = with_file(&format!("{LOADS}{inside}"));
    assert_eq!(inside.key, "mydrv is gone: a thread in dk0_release");
}

/// The kernel prints a stack that it kept with the names of what is loaded when it prints.
#[test]
fn the_key_is_the_same_whether_the_module_had_gone_by_then_or_not() {
    let loaded = "\
[   12.500000][   T71] ==================================================================
[   12.500000][   T71] BUG: KASAN: slab-use-after-free in __run_timer_base+0x37c/0x810
[   12.500000][   T71] Write of size 8 at addr ffff888000933690 by task after/42
[   12.500000][   T71] CPU: 1 UID: 0 PID: 42 Comm: after Tainted: G           O        7.2.12 #1 PREEMPT
[   12.500000][   T71] Call Trace:
[   12.500000][   T71]  <IRQ>
[   12.500000][   T71]  __run_timer_base+0x37c/0x810
[   12.500000][   T71]  run_timer_softirq+0x31/0x60
[   12.500000][   T71]  </IRQ>
[   12.500000][   T71] 
[   12.500000][   T71] Freed by task 42:
[   12.500000][   T71]  kfree+0x12f/0x330
[   12.500000][   T71]  dk0_free+0x60/0xc0 [mydrv]
[   12.500000][   T71]  device_release_driver_internal+0x4ca/0x6c0
[   12.500000][   T71]  __x64_sys_delete_module+0x254/0x320
[   12.500000][   T71] 
[   12.500000][   T71] The buggy address belongs to the object at ffff888000933680
[   12.500000][   T71]  which belongs to the cache kmalloc-96 of size 96
[   12.500000][   T71] ==================================================================
";
    let gone = loaded.replace("dk0_free+0x60/0xc0 [mydrv]", "0xffffffffc0202a60");
    let (loaded, gone) = (
        with_file(&format!("{LOADS}{loaded}")),
        with_file(&format!("{LOADS}{gone}")),
    );
    assert_eq!(
        loaded.key,
        "use-after-free of an object, freed in dk0_free by a teardown, touched by a timer"
    );
    assert_eq!(loaded.key, gone.key);
    assert_eq!(loaded.title, gone.title);
}

#[test]
fn a_stack_tells_what_its_thread_was_at() {
    let Some(reports) = reports("6.1.170-override2.log") else {
        return;
    };
    let doing = |part: &Option<Part>| part.as_ref().map(|it| it.doing.clone());
    assert_eq!(doing(&reports[0].victim).as_deref(), Some("bind"));
    let killer = reports[0].killer.as_ref().expect("who freed it");
    assert_eq!(killer.doing, "write of a sysfs attribute");
    assert_eq!(killer.function.as_deref(), Some("driver_set_override"));
}
