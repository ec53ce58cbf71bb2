//! Arbitrary bytes as guest memory and its ring, and arbitrary commands of the harness between
//! rounds: nothing panics, what is held stays within the ring, and each suspicion is told once.
#![no_main]

use std::cell::RefCell;

use dk_control::{Event, Gate, Kind, Point, Suspicion};
use dk_device::device::Device;
use dk_device::disk::Disk;
use dk_device::execute::Store;
use dk_device::trace::Trace;
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory is in two parts with a gap, as it is around a PC's hole below 4 GiB.
const PART: usize = 0x4000;
const GAP: u64 = 0x1000;

const TAGS: [&str; 3] = ["a", "b", "c"];
const KINDS: [Kind; 9] = [
    Kind::Read,
    Kind::Write,
    Kind::Flush,
    Kind::GetId,
    Kind::Discard,
    Kind::WriteZeroes,
    Kind::KnobGet,
    Kind::KnobSet,
    Kind::Unknown,
];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    size_log: u8,
    /// Where the ring is; most of these are nowhere.
    odd: Option<(u16, u16, u16)>,
    base: u16,
    steps: Vec<Step>,
    memory: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Step {
    Serve,
    Write {
        at: u16,
        value: u64,
    },
    /// A well-formed request, so that the fuzzer gets behind the parser.
    Request {
        head: u8,
        kind: u8,
        sector: u8,
        len: u8,
        odd: Option<(u16, u32)>,
    },
    Arm {
        tag: u8,
        before: bool,
        kind: Option<u8>,
        skip: u8,
        count: u8,
        late: bool,
    },
    Release {
        tag: u8,
    },
    Disarm {
        tag: u8,
    },
    ResetGates,
    Expire,
    Inspect,
    Restart {
        base: u16,
    },
}

thread_local! {
    // Mapping memory for each input would be most of the work.
    static MEMORY: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[
        (GuestAddress(0), PART),
        (GuestAddress(PART as u64 + GAP), PART),
    ])
    .expect("memory");
    static BLANK: RefCell<Vec<u8>> = RefCell::new(vec![0; PART]);
}

fn tag(number: u8) -> &'static str {
    TAGS[usize::from(number) % TAGS.len()]
}

fn write(memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) {
    // Where there is no memory nothing is written.
    let _ = memory.write(bytes, GuestAddress(at));
}

/// Each suspicion is told once in a run of the ring.
fn check_told(told: &mut Vec<Suspicion>, events: Vec<Event>) {
    for event in events {
        if let Event::Witness { what, .. } = event {
            assert!(!told.contains(&what), "{what:?} is told twice");
            told.push(what);
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let memory = MEMORY.with(Clone::clone);
    BLANK.with_borrow(|blank| {
        write(&memory, 0, blank);
        write(&memory, PART as u64 + GAP, blank);
    });
    let (low, high) = input.memory.split_at(input.memory.len().min(PART));
    write(&memory, 0, low);
    write(&memory, PART as u64 + GAP, high);

    let disk = Disk::in_memory(64 * 512).expect("a disk");
    let mut device = Device::new(Store::new(disk, "dk0").expect("a store"), Trace::default());
    device.set_memory(memory.clone());
    let size = 1u16 << (input.size_log % 9);
    let (table, available, used) = input.odd.unwrap_or((0, 0x1000, 0x2000));
    let (table, available, used) = (table & !15, available & !1, used & !3);
    device.ring().set_size(size.into()).expect("a power of two");
    let at = |at: u16| GuestAddress(at.into());
    device
        .ring()
        .set_addresses(at(table), at(available), at(used))
        .expect("aligned");
    device.ring().set_base(input.base);
    device.start();

    let mut told = Vec::new();
    for step in input.steps {
        match step {
            Step::Serve => drop(device.serve()),
            Step::Write { at, value } => write(&memory, at.into(), &value.to_le_bytes()),
            Step::Request {
                head,
                kind,
                sector,
                len,
                odd,
            } => {
                let head = u16::from(head) % size;
                let link = |step: u16| (head + step) % size;
                let from_device = matches!(kind % 8, 0 | 3 | 6);
                let word: u32 =
                    [0, 1, 4, 8, 11, 13, 0x646b_0001, 0x646b_0002][usize::from(kind) % 8];
                let mut header = [0; 16];
                header[..4].copy_from_slice(&word.to_le_bytes());
                header[8] = sector;
                write(&memory, 0x3000, &header);
                let flags = 1 | if from_device { 2 } else { 0 };
                let len = [8, 512, 16, 20, 32, 1024, 0, 7][usize::from(len) % 8];
                let (data, len) = odd.unwrap_or((0x5000, len));
                for (index, addr, len, flags) in [
                    (head, 0x3000u64, 16u32, 1u16),
                    (link(1), data.into(), len, flags),
                    (link(2), 0x3100, 1, 2),
                ] {
                    let mut descriptor = [0; 16];
                    descriptor[..8].copy_from_slice(&addr.to_le_bytes());
                    descriptor[8..12].copy_from_slice(&len.to_le_bytes());
                    descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
                    descriptor[14..].copy_from_slice(&((index + 1) % size).to_le_bytes());
                    write(
                        &memory,
                        u64::from(table) + 16 * u64::from(index),
                        &descriptor,
                    );
                }
                let next = device.ring().base();
                let slot = u64::from(available) + 4 + 2 * u64::from(next % size);
                write(&memory, slot, &head.to_le_bytes());
                let index = next.wrapping_add(1).to_le_bytes();
                write(&memory, u64::from(available) + 2, &index);
                device.serve();
            }
            Step::Arm {
                tag: number,
                before,
                kind,
                skip,
                count,
                late,
            } => {
                let kinds = kind.map(|kind| KINDS[usize::from(kind) % KINDS.len()]);
                // One without a count is refused.
                let _ = device.arm(Gate {
                    tag: tag(number).into(),
                    point: if before {
                        Point::BeforeCompletion
                    } else {
                        Point::Seen
                    },
                    kinds: kinds.into_iter().collect(),
                    sector: None,
                    skip: skip.into(),
                    count: count.into(),
                    deadline_ms: if late { 3_600_000 } else { 0 },
                });
            }
            Step::Release { tag: number } => drop(device.release(tag(number))),
            Step::Disarm { tag: number } => device.disarm(tag(number)),
            Step::ResetGates => drop(device.reset_gates()),
            Step::Expire => device.expire(),
            Step::Inspect => device.inspect(),
            Step::Restart { base } => {
                device.inspect();
                device.stop();
                check_told(&mut told, device.take_events());
                told.clear();
                assert_eq!(device.counters().held, 0);
                device.ring().set_base(base);
                device.start();
            }
        }
        assert!(device.counters().held <= size.into());
        check_told(&mut told, device.take_events());
    }
    device.serve();
    device.reset_gates();
    let counters = device.counters();
    assert_eq!(counters.held, 0);
    assert!(counters.completed + counters.dropped <= counters.seen);
});
