//! What a kernel's configuration must have for the rig, and what each missing option costs.

use crate::config;

/// An option that a kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// With `CONFIG_`.
    pub option: &'static str,
    /// What goes without it.
    pub costs: &'static str,
    /// Whether the rig can't do without it.
    pub needed: bool,
}

/// One thing to look for: any of these options does.
struct Item {
    any: &'static [&'static str],
    costs: &'static str,
    needed: bool,
}

const fn needed(any: &'static [&'static str], costs: &'static str) -> Item {
    Item {
        any,
        costs,
        needed: true,
    }
}

const fn better(any: &'static [&'static str], costs: &'static str) -> Item {
    Item {
        any,
        costs,
        needed: false,
    }
}

const ITEMS: &[Item] = &[
    needed(
        &["CONFIG_BLK_DEV_INITRD"],
        "it can't boot from an initramfs",
    ),
    needed(&["CONFIG_BINFMT_ELF"], "it can't run the agent"),
    needed(
        &["CONFIG_64BIT"],
        "it can't run the agent, which has 64 bits",
    ),
    needed(
        &["CONFIG_FUTEX"],
        "the agent's threads can't wait for each other",
    ),
    needed(&["CONFIG_PRINTK"], "it reports nothing"),
    needed(
        &["CONFIG_SERIAL_8250_CONSOLE"],
        "its reports can't be heard",
    ),
    needed(
        &["CONFIG_PROC_FS"],
        "the agent can't look after its threads",
    ),
    needed(&["CONFIG_SYSFS"], "there are no attributes to open"),
    needed(
        &["CONFIG_DEVTMPFS"],
        "there are no device nodes, the agent's port among them",
    ),
    needed(&["CONFIG_PCI"], "our device has no bus"),
    needed(
        &["CONFIG_VIRTIO_PCI"],
        "neither the agent's port nor our device can be driven",
    ),
    needed(
        &["CONFIG_VIRTIO_CONSOLE"],
        "the agent has no port to the harness",
    ),
    better(
        &["CONFIG_MODULES"],
        "no modules: a driver can't be loaded, and there is no rmmod",
    ),
    better(
        &["CONFIG_MODULE_UNLOAD"],
        "no rmmod: only unbind, remove and unplug end a driver",
    ),
    better(
        &["CONFIG_KASAN"],
        "no KASAN: a use after free is seen only where it happens to crash",
    ),
    better(
        &["CONFIG_KASAN_VMALLOC", "CONFIG_KASAN_HW_TAGS"],
        "a use of a module's freed text or data is seen only where it faults",
    ),
    better(
        &["CONFIG_SMP"],
        "one CPU: only preemption makes threads collide",
    ),
    better(
        &[
            "CONFIG_PREEMPT",
            "CONFIG_PREEMPT_DYNAMIC",
            "CONFIG_PREEMPT_RT",
        ],
        "no preemption in the kernel: fewer interleavings",
    ),
    better(&["CONFIG_KALLSYMS"], "frames of a report have no names"),
    better(
        &["CONFIG_PRINTK_CALLER"],
        "reports of two CPUs that talk at once can't be told apart",
    ),
    better(
        &["CONFIG_DEBUG_LIST", "CONFIG_LIST_HARDENED"],
        "a list that is broken is seen only where it crashes",
    ),
    better(
        &["CONFIG_DETECT_HUNG_TASK"],
        "a thread that hangs is seen, but not where",
    ),
    better(
        &["CONFIG_SOFTLOCKUP_DETECTOR"],
        "a CPU that loops is seen, but not where",
    ),
    better(
        &["CONFIG_PROVE_LOCKING"],
        "no lockdep: a deadlock is seen only where it happens",
    ),
    better(
        &["CONFIG_DEBUG_OBJECTS"],
        "a timer or a work that is freed while it is armed is seen late",
    ),
    better(
        &["CONFIG_DEBUG_KMEMLEAK"],
        "memory that a driver leaves behind is not seen",
    ),
    better(
        &["CONFIG_DEBUG_FS"],
        "no debugfs: knobs there are not there",
    ),
    better(
        &["CONFIG_CONFIGFS_FS"],
        "no configfs: knobs there are not there",
    ),
    better(
        &["CONFIG_HOTPLUG_PCI_ACPI"],
        "a device that is unplugged stays in the guest, and one that is plugged isn't seen",
    ),
    better(
        &["CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
        "no gates at functions of the kernel",
    ),
    better(
        &["CONFIG_VMAP_STACK"],
        "a stack that overflows is seen only where it crashes",
    ),
];

/// What a configuration lacks, what can't be done without first.
pub fn check_config(config: &str) -> Vec<Missing> {
    let set = config::set(config);
    let mut missing: Vec<_> = ITEMS
        .iter()
        .filter(|item| !item.any.iter().any(|option| set.contains_key(option)))
        .map(|item| Missing {
            option: item.any[0],
            costs: item.costs,
            needed: item.needed,
        })
        .collect();
    missing.sort_by_key(|item| !item.needed);
    missing
}

/// The options that are set in a configuration as modules.
pub(crate) fn as_modules(config: &str) -> Vec<&str> {
    let set = config::set(config).into_iter();
    set.filter(|(_, value)| *value == "m")
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_with_its_cost() {
        let all: String = ITEMS
            .iter()
            .map(|item| format!("{}=y\n", item.any[0]))
            .collect();
        assert_eq!(check_config(&all), []);
        let less = all
            .replace("CONFIG_KASAN=y\n", "# CONFIG_KASAN is not set\n")
            .replace("CONFIG_VIRTIO_CONSOLE=y\n", "");
        let missing = check_config(&less);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].needed && missing[0].option == "CONFIG_VIRTIO_CONSOLE");
        assert!(!missing[1].needed && missing[1].costs.contains("use after free"));
    }

    #[test]
    fn a_module_is_as_good_and_one_of_several_will_do() {
        let all: String = ITEMS
            .iter()
            .map(|item| format!("{}=y\n", item.any[0]))
            .collect();
        let other = all
            .replace("CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m")
            .replace("CONFIG_PREEMPT=y", "CONFIG_PREEMPT_DYNAMIC=y");
        assert_eq!(check_config(&other), []);
        assert_eq!(as_modules(&other), ["CONFIG_VIRTIO_PCI"]);
    }
}
