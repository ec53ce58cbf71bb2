//! One console log for each mutant of the gallery that the kernel reported, as its guest wrote it:
//! the right class, object, and whether the module was gone.

use knobrig_klog::{Class, parse};

type Wanted = (
    &'static str,
    &'static str,
    Class,
    bool,
    Option<&'static str>,
);

const WANTED: &[Wanted] = &[
    (
        "cdev-embedded",
        "KASAN: slab-use-after-free Read in cdev_put",
        Class::Kasan,
        false,
        Some("kmalloc-1k"),
    ),
    (
        "extra-put",
        "KASAN: slab-use-after-free Read in <mydrv::dk0::Published as core::ops::drop::Drop>::drop",
        Class::Kasan,
        false,
        Some("kmalloc-1k"),
    ),
    (
        "free-before-remove",
        "KASAN: slab-use-after-free Read in mydrv::knobs::value",
        Class::Kasan,
        false,
        Some("kmalloc-64"),
    ),
    (
        "irq-after-free",
        "KASAN: slab-use-after-free Read in mydrv::sys::irq::trampoline::<mydrv::port::Port>",
        Class::Kasan,
        false,
        Some("kmalloc-2k"),
    ),
    (
        "drvdata-null",
        "general protection fault in mydrv::knobs::store",
        Class::GeneralProtection,
        false,
        None,
    ),
    (
        "irq-left",
        "KASAN: vmalloc-out-of-bounds Read in seq_printf",
        Class::Kasan,
        false,
        None,
    ),
    (
        "name-freed",
        "KASAN: slab-use-after-free Read in device_get_devnode",
        Class::Kasan,
        false,
        Some("kmalloc-8"),
    ),
    (
        "poll-left",
        "KASAN: slab-use-after-free Write in remove_wait_queue",
        Class::Kasan,
        false,
        Some("kmalloc-32"),
    ),
    (
        "publish-early",
        "general protection fault in mydrv::knobs::value",
        Class::GeneralProtection,
        false,
        None,
    ),
    (
        "release-in-module",
        "int3 in unloaded module mydrv",
        Class::Trap,
        true,
        None,
    ),
    (
        "timer-left",
        "KASAN: slab-use-after-free Write in __run_timer_base",
        Class::Kasan,
        false,
        Some("kmalloc-96"),
    ),
    (
        "unwind-twice",
        "KASAN: slab-use-after-free Read in <mydrv::probe::Parts>::bring_up",
        Class::Kasan,
        false,
        Some("kmalloc-64"),
    ),
    (
        "work-left",
        "KASAN: slab-use-after-free Read in unloaded module",
        Class::Kasan,
        true,
        Some("kmalloc-96"),
    ),
    (
        "late-answer",
        "general protection fault in corrupted",
        Class::GeneralProtection,
        false,
        None,
    ),
];

#[test]
fn every_mutants_log_is_understood() {
    for (mutant, title, class, gone, cache) in WANTED {
        let path = format!("{}/tests/mutants/{mutant}.log", env!("CARGO_MANIFEST_DIR"));
        let log = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let reports = parse(&log);
        let first = reports
            .first()
            .unwrap_or_else(|| panic!("{mutant}: nothing found"));
        let object = first
            .object
            .as_ref()
            .and_then(|object| object.cache.as_deref());
        assert_eq!(
            (
                first.title.as_str(),
                first.class,
                first.in_unloaded_module,
                object
            ),
            (*title, *class, *gone, *cache),
            "{mutant}"
        );
    }
}

/// Two mutants are never one finding.
#[test]
fn no_two_mutants_have_the_same_key() {
    let mut keys = std::collections::BTreeMap::new();
    for (mutant, ..) in WANTED {
        let path = format!("{}/tests/mutants/{mutant}.log", env!("CARGO_MANIFEST_DIR"));
        let log = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        if let Some(other) = keys.insert(parse(&log)[0].key.clone(), mutant) {
            panic!("{mutant} and {other} have the same key");
        }
    }
}

/// Another run of the same mutant: another seed, another build of the kernel, another CPU.
fn elsewhere(log: &str) -> String {
    // Bytes of addresses, CPUs, thread ids, times, offsets: whatever the next run has otherwise.
    let mut other = String::new();
    for line in log.lines() {
        let mut line = line.to_owned();
        for (from, to) in [
            ("ffff8880", "ffff8881"),
            ("ffffffffa0", "ffffffffc1"),
            ("CPU: 0 ", "CPU: 7 "),
            ("CPU: 1 ", "CPU: 0 "),
            ("PID: 4", "PID: 214"),
            ("/4", "/214"),
            ("task 4", "task 214"),
            ("[    T4", "[  T214"),
            ("kmalloc-1k", "kmalloc-2k"),
            ("kmalloc-96", "kmalloc-rnd-07-128"),
            ("7.2.12", "7.4.1"),
            ("+0x1", "+0x21"),
            ("/0x", "/0x1"),
            // The crates' disambiguators in Rust symbols.
            ("Cs7hGo5QI5OSw_", "Cs2aBcDeFgHiJ_"),
        ] {
            line = line.replace(from, to);
        }
        other.push_str(&line);
        other.push('\n');
    }
    other
}

#[test]
fn another_run_of_a_mutant_has_the_same_key() {
    for (mutant, ..) in WANTED {
        let path = format!("{}/tests/mutants/{mutant}.log", env!("CARGO_MANIFEST_DIR"));
        let log = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let other = elsewhere(&log);
        assert_ne!(log, other);
        assert_eq!(
            parse(log.as_bytes())[0].key,
            parse(other.as_bytes())[0].key,
            "{mutant}"
        );
    }
}

/// What each mutant's victim and killer were at: `-` where the console doesn't say.
const PARTS: &[(&str, &str, &str)] = &[
    (
        "cdev-embedded",
        "last close of a file",
        "last close of a file",
    ),
    ("drvdata-null", "write of a sysfs attribute", "-"),
    ("extra-put", "rmmod", "rmmod"),
    ("free-before-remove", "read of a sysfs attribute", "rmmod"),
    ("irq-after-free", "an interrupt handler", "rmmod"),
    ("irq-left", "read of a /proc file", "-"),
    ("name-freed", "rmmod", "rmmod"),
    ("poll-left", "poll", "unbind"),
    ("publish-early", "read of a sysfs attribute", "-"),
    ("release-in-module", "write of a debugfs file", "rmmod"),
    ("timer-left", "a timer", "rmmod"),
    ("unwind-twice", "insmod", "insmod"),
    ("work-left", "a work item", "rmmod"),
    ("late-answer", "-", "-"),
];

#[test]
fn every_mutants_victim_and_killer_are_told() {
    assert_eq!(PARTS.len(), WANTED.len());
    for (mutant, victim, killer) in PARTS {
        let path = format!("{}/tests/mutants/{mutant}.log", env!("CARGO_MANIFEST_DIR"));
        let log = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let report = parse(&log).remove(0);
        let doing = [&report.victim, &report.killer].map(|part| {
            part.as_ref()
                .map_or("-", |part| part.doing.as_str())
                .to_owned()
        });
        assert_eq!(doing, [*victim, *killer], "{mutant}");
    }
}
