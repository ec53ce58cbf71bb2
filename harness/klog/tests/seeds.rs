//! Each mutant that the kernel reports, met under several seeds, in whatever function of the driver
//! chance had it: one bug keeps one key, and no other bug has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use knobrig_klog::{Reader, Report, Symbol, Symbols, parse};

/// Mutants that show in more than one way, each of which has a key of its own: no single report
/// tells that they are one. Whether an object's last reference or the object itself is missed first
/// (extra-put), the work's object or its code goes first (work-left), an interrupt comes or somebody reads
/// /proc/interrupts (irq-left), is up to the order of things.
const SEVERAL_WAYS: &[&str] = &["extra-put", "irq-left", "work-left"];

/// What lay at places of modules that the kernel has no names for, once they are gone: module,
/// section, offset in it, function, its start.
const PLACES: &[(&str, &str, u64, &str, u64)] = &[
    (
        "dk_ref",
        ".text",
        0,
        "core::ptr::drop_in_place::<kernel::debugfs::File<kernel::sync::arc::Arc<dk_ref::Holder>>>",
        0,
    ),
    ("mydrv", ".exit.text", 16, "cleanup_module", 0),
    ("mydrv", ".text", 0, "init_module", 0),
    (
        "mydrv",
        ".text",
        2656,
        "core::ptr::drop_in_place::<mydrv::probe::Started>",
        2544,
    ),
    (
        "mydrv",
        ".text",
        3825,
        "mydrv::sys::node::release::<mydrv::dk0::Data>",
        3824,
    ),
    (
        "mydrv",
        ".text",
        3854,
        "mydrv::sys::node::release::<mydrv::dk0::Data>",
        3824,
    ),
    (
        "mydrv",
        ".text",
        46418,
        "<kernel::pci::Adapter<mydrv::probe::Driver>>::probe_callback",
        46208,
    ),
    (
        "mydrv",
        ".text",
        47231,
        "<kernel::driver::Registration<kernel::pci::Adapter<mydrv::probe::Driver>>>::post_unbind_callback",
        46976,
    ),
    (
        "mydrv",
        ".text",
        56079,
        "<mydrv::probe::Parts>::bring_up",
        55680,
    ),
    (
        "mydrv",
        ".text",
        57637,
        "<mydrv::probe::Parts>::tear_down",
        57600,
    ),
    (
        "mydrv",
        ".text",
        103989,
        "<mydrv::lookout::Lookout as mydrv::sys::ticker::Tick>::tick",
        103952,
    ),
];

/// The modules' files, as far as these consoles ask them.
struct Places;

impl Symbols for Places {
    fn symbol(&self, module: &str, section: &str, offset: u64) -> Option<Symbol> {
        let mut places = PLACES.iter();
        let (.., name, start) =
            places.find(|it| (it.0, it.1, it.2) == (module, section, offset))?;
        Some(Symbol {
            name: (*name).to_owned(),
            offset: offset - start,
            size: 64,
        })
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let mut paths: Vec<_> = entries.map(|it| it.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The first report of a console.
fn first(path: &Path) -> Report {
    let log = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut reader = Reader::with_symbols(Arc::new(Places));
    reader.push(&log);
    let mut reports = reader.finish();
    assert!(!reports.is_empty(), "{}: nothing found", path.display());
    reports.remove(0)
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// By mutant, what each of its consoles says first.
fn seeds() -> BTreeMap<String, Vec<Report>> {
    let name = |dir: &Path| {
        dir.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    (entries(&tests().join("seeds")).iter())
        .map(|dir| {
            (
                name(dir),
                entries(dir).iter().map(|log| first(log)).collect(),
            )
        })
        .collect()
}

#[test]
fn a_bug_keeps_its_key_whatever_seed_and_kernel() {
    let seeds = seeds();
    assert!(seeds.len() >= 17, "{:?}", seeds.keys());
    for (mutant, reports) in &seeds {
        let keys: BTreeSet<_> = reports.iter().map(|it| it.key.as_str()).collect();
        let ways = 1 + usize::from(SEVERAL_WAYS.contains(&mutant.as_str()));
        assert_eq!(keys.len(), ways, "{mutant}: {keys:#?}");
        // The log that an earlier build of kernel and driver wrote is one of them, if it tells as much
        // of the module: nobody knows the loads that are not in it.
        let earlier = tests().join(format!("mutants/{mutant}.log"));
        if ways == 1 && earlier.exists() {
            let earlier = first(&earlier);
            let mut frames = earlier.stacks.iter().flat_map(|it| &it.frames);
            let knows = earlier.place.is_some() == reports[0].place.is_some()
                && frames.all(|frame| !frame.function.is_empty());
            assert!(
                !knows || keys.contains(earlier.key.as_str()),
                "{mutant}: {}",
                earlier.key
            );
        }
    }
    // What they share is not that they are all alike.
    for mutant in ["drvdata-null", "free-before-remove"] {
        let titles: BTreeSet<_> = seeds[mutant].iter().map(|it| &it.title).collect();
        assert!(titles.len() > 1, "{mutant}: {titles:?}");
    }
}

/// By log: title, the load of the module that the address lay in, victim, killer, the object's cache;
/// `-` where the console doesn't say.
const TOLD: &[(&str, &str, u32, &str, &str, &str)] = &[
    (
        "cdev-embedded/seed-101",
        "KASAN: slab-use-after-free Read in cdev_put",
        0,
        "last close of a file",
        "last close of a file",
        "kmalloc-1k",
    ),
    (
        "dma-left/seed-202",
        "WARNING: DMA-API bug in dma_debug_device_change",
        0,
        "rmmod",
        "-",
        "-",
    ),
    (
        "drvdata-null/seed-101",
        "general protection fault in mydrv::knobs::store",
        0,
        "write of a sysfs attribute",
        "-",
        "-",
    ),
    (
        "extra-put/seed-101",
        "KASAN: slab-use-after-free Read in <mydrv::dk0::Published as core::ops::drop::Drop>::drop",
        0,
        "unbind",
        "unbind",
        "kmalloc-1k",
    ),
    (
        "extra-put/seed-202",
        "WARNING: refcount bug in mydrv::sys::chardev::release",
        0,
        "last close of a file",
        "-",
        "-",
    ),
    (
        "free-before-remove/seed-101",
        "KASAN: slab-use-after-free Read in mydrv::sys::chardev::write",
        0,
        "write of a file",
        "unbind",
        "kmalloc-64",
    ),
    (
        "free-before-remove/seed-202",
        "KASAN: slab-use-after-free Read in mydrv::knobs::value",
        0,
        "read of a sysfs attribute",
        "rmmod",
        "kmalloc-64",
    ),
    (
        "irq-after-free/seed-101",
        "KASAN: slab-use-after-free Read in mydrv::sys::irq::trampoline::<mydrv::port::Port>",
        0,
        "an interrupt handler",
        "rmmod",
        "kmalloc-2k",
    ),
    (
        "irq-left/seed-101",
        "KASAN: vmalloc-out-of-bounds Read in unloaded module mydrv",
        1,
        "read of a /proc file",
        "rmmod",
        "-",
    ),
    (
        "irq-left/seed-03",
        "KASAN: slab-use-after-free Read in mydrv::sys::irq::trampoline::<mydrv::port::Port>",
        0,
        "an interrupt handler",
        "rmmod",
        "kmalloc-2k",
    ),
    (
        "late-answer/seed-101",
        "general protection fault in mydrv::sys::irq::trampoline::<mydrv::port::Port>",
        0,
        "an interrupt handler",
        "-",
        "-",
    ),
    (
        "late-answer/seed-202",
        "general protection fault in corrupted",
        0,
        "-",
        "-",
        "-",
    ),
    (
        "memory-left/seed-101",
        "memory leak in <mydrv::probe::Parts>::bring_up",
        0,
        "probe",
        "-",
        "-",
    ),
    (
        "name-freed/seed-101",
        "KASAN: slab-use-after-free Read in device_get_devnode",
        0,
        "rmmod",
        "rmmod",
        "kmalloc-8",
    ),
    (
        "poll-left/seed-101",
        "KASAN: slab-use-after-free Write in remove_wait_queue",
        0,
        "poll",
        "unbind",
        "kmalloc-32",
    ),
    (
        "publish-early/seed-101",
        "general protection fault in mydrv::sys::chardev::write",
        0,
        "write of a file",
        "-",
        "-",
    ),
    (
        "release-in-module/seed-101",
        "int3 in unloaded module mydrv",
        1,
        "write of a debugfs file",
        "rmmod",
        "-",
    ),
    (
        "release-in-module/seed-202",
        "int3 in unloaded module mydrv",
        7,
        "write of a debugfs file",
        "rmmod",
        "-",
    ),
    (
        "tail/seed-101",
        "int3 in unloaded module mydrv",
        3,
        "write of a debugfs file",
        "rmmod",
        "-",
    ),
    (
        "tail/seed-202",
        "int3 in unloaded module mydrv",
        39,
        "write of a debugfs file",
        "rmmod",
        "-",
    ),
    (
        "timer-left/seed-101",
        "KASAN: slab-use-after-free Write in __run_timer_base",
        0,
        "a timer",
        "rmmod",
        "kmalloc-96",
    ),
    (
        "unwind-twice/seed-101",
        "KASAN: slab-use-after-free Read in <mydrv::probe::Parts>::bring_up",
        0,
        "insmod",
        "insmod",
        "kmalloc-64",
    ),
    (
        "work-left/seed-101",
        "KASAN: slab-use-after-free Read in <mydrv::lookout::Lookout as mydrv::sys::ticker::Tick>::tick",
        0,
        "a work item",
        "rmmod",
        "kmalloc-96",
    ),
    (
        "work-left/seed-202",
        "BUG: unable to handle kernel paging request in unloaded module mydrv",
        3,
        "a work item",
        "rmmod",
        "-",
    ),
];

#[test]
fn each_mutant_s_report_is_understood() {
    for (log, title, generation, victim, killer, cache) in TOLD {
        let report = first(&tests().join(format!("seeds/{log}.log")));
        let doing = |part: &Option<knobrig_klog::Part>| {
            part.as_ref().map_or("-".to_owned(), |it| it.doing.clone())
        };
        let object = report.object.as_ref().and_then(|it| it.cache.as_deref());
        let came = (
            report.title.as_str(),
            report.place.as_ref().map_or(0, |it| it.generation),
            doing(&report.victim),
            doing(&report.killer),
            object.unwrap_or("-"),
        );
        let wanted = (
            *title,
            *generation,
            (*victim).to_owned(),
            (*killer).to_owned(),
            *cache,
        );
        assert_eq!(came, wanted, "{log}");
    }
}

#[test]
fn no_two_mutants_share_a_key() {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut own = |key: String, mutant: &str| {
        let owner = owners.entry(key).or_insert_with(|| mutant.to_owned());
        assert_eq!(owner, mutant, "one key for two mutants");
    };
    for (mutant, reports) in seeds() {
        for report in reports {
            own(report.key, &mutant);
        }
    }
    let logs = entries(&tests().join("mutants"));
    assert!(logs.len() >= 14);
    for log in logs {
        let mutant = log
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        own(first(&log).key, &mutant);
    }
}

#[test]
fn a_report_s_own_words_are_read_as_that_report() {
    let reports = seeds().into_values().flatten();
    let mut read = 0;
    // What lay where is told outside of a report.
    let whole = |report: &Report| {
        let mut frames = report.stacks.iter().flat_map(|it| &it.frames);
        report.place.is_none() && frames.all(|frame| frame.place.is_none())
    };
    for report in reports.filter(whole) {
        let again = parse(report.text.as_bytes());
        let again = again.first().unwrap_or_else(|| panic!("{}", report.text));
        let said = |report: &Report| (report.title.clone(), report.key.clone(), report.class);
        assert_eq!(said(again), said(&report));
        assert_eq!(again.access, report.access, "{}", report.title);
        assert_eq!(again.object, report.object, "{}", report.title);
        assert_eq!(again.stacks, report.stacks, "{}", report.title);
        assert_eq!(again.text, report.text);
        read += 1;
    }
    assert!(read > 25, "{read}");
}
