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
