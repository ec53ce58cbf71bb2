//! A driver, or a VMM, that does what none should. The device answers with an error or drops it
//! with a count, and goes on; a ring that makes no sense is given up until it is set up anew.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use dk_abi::{
    FLUSH, GET_ID, HEADER_LEN, Header, KNOB_GET, KNOB_SET, READ, STATUS_IOERR, WRITE, WRITE_ZEROES,
};
use dk_control::{Record, Suspicion};
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_INDIRECT;
use vm_memory::{Bytes, GuestAddress};

use crate::rig::{
    AVAILABLE, Guest, MEMORY, NEXT, Program, QUEUE_SIZE, TABLE, USED, WRITE as DEVICE_WRITES,
    connect, until,
};

const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// A header, a status byte and room for data.
const HEADER: u64 = 0x20_0000;
const STATUS: u64 = 0x20_1000;
const DATA: u64 = 0x20_2000;

fn put_header(guest: &Guest, kind: u32) {
    let header = Header { kind, sector: 0 }.to_bytes();
    guest
        .memory
        .write_slice(&header, GuestAddress(HEADER))
        .expect("in memory");
    guest
        .memory
        .write_obj(0xffu8, GuestAddress(STATUS))
        .expect("in memory");
}

fn status(guest: &Guest) -> u8 {
    guest
        .memory
        .read_obj(GuestAddress(STATUS))
        .expect("in memory")
}

/// Offers the chain at descriptor 200 and waits until it was counted as malformed.
fn reject(program: &Program, guest: &mut Guest) {
    let mut client = program.client();
    let before = client.counters().malformed;
    guest.offer(200);
    guest.kick();
    until("the count of malformed chains", || {
        (client.counters().malformed == before + 1).then_some(())
    });
}

#[test]
fn chains_that_have_a_status_byte_are_answered_with_an_error() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let header = HEADER_LEN as u32;
    type Chain<'a> = (&'a str, u32, &'a [(u64, u32, u16)]);
    let huge = u32::MAX;
    let cases: &[Chain] = &[
        ("only a status byte", READ, &[(STATUS, 1, DEVICE_WRITES)]),
        (
            "a short header",
            READ,
            &[(HEADER, 15, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "an empty header",
            READ,
            &[(HEADER, 0, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "a header out of memory",
            READ,
            &[(MEMORY, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "a header at the end",
            READ,
            &[(MEMORY - 8, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "a header at the end of all",
            READ,
            &[(u64::MAX, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "a read of nothing",
            READ,
            &[(HEADER, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "a write of nothing",
            WRITE,
            &[(HEADER, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "half a sector",
            READ,
            &[
                (HEADER, header, 0),
                (DATA, 256, DEVICE_WRITES),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "a read into what the driver wrote",
            READ,
            &[
                (HEADER, header, 0),
                (DATA, 512, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "a write from what the device writes",
            WRITE,
            &[
                (HEADER, header, 0),
                (DATA, 512, DEVICE_WRITES),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "data out of memory",
            READ,
            &[
                (HEADER, header, 0),
                (MEMORY - 256, 512, DEVICE_WRITES),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "data at the end of all",
            WRITE,
            &[
                (HEADER, header, 0),
                (u64::MAX - 511, 512, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "4 GiB of data",
            WRITE,
            &[
                (HEADER, header, 0),
                (DATA, huge & !511, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "more than 4 GiB of data",
            WRITE,
            &[
                (HEADER, header, 0),
                (DATA, huge, 0),
                (DATA, huge, 0),
                (DATA, huge, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "a readable part behind a writable one",
            READ,
            &[
                (STATUS, 1, DEVICE_WRITES),
                (HEADER, header, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "a flush with data",
            FLUSH,
            &[
                (HEADER, header, 0),
                (DATA, 512, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "an id for nobody",
            GET_ID,
            &[(HEADER, header, 0), (STATUS, 1, DEVICE_WRITES)],
        ),
        (
            "7 bytes of a knob",
            KNOB_GET,
            &[
                (HEADER, header, 0),
                (DATA, 7, DEVICE_WRITES),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "9 bytes of a knob",
            KNOB_SET,
            &[
                (HEADER, header, 0),
                (DATA, 9, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "half a segment",
            WRITE_ZEROES,
            &[
                (HEADER, header, 0),
                (DATA, 24, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
        (
            "more segments than are allowed",
            WRITE_ZEROES,
            &[
                (HEADER, header, 0),
                (DATA, 16 * 17, 0),
                (STATUS, 1, DEVICE_WRITES),
            ],
        ),
    ];
    for &(what, kind, chain) in cases {
        put_header(&guest, kind);
        for (index, &(addr, len, flags)) in (200..).zip(chain) {
            let last = usize::from(index - 199) == chain.len();
            let flags = if last { flags } else { flags | NEXT };
            guest.describe(index, addr, len, flags, index + 1);
        }
        reject(&program, &mut guest);
        assert_eq!(guest.next_used().head, 200, "{what}");
        assert_eq!(status(&guest), STATUS_IOERR, "{what}");
        guest.check_served();
    }
    let why = |record: &Record| matches!(record, Record::Malformed { .. });
    assert_eq!(
        program.trace().iter().filter(|&record| why(record)).count(),
        cases.len()
    );
}

/// Chains that can't be answered are never given back: each case needs a ring of its own.
fn check_dropped(what: &str, write: impl Fn(&mut Guest)) {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    put_header(&guest, READ);
    write(&mut guest);
    reject(&program, &mut guest);
    assert_eq!(guest.used_index(), 0, "{what}");
    guest.check_served();
    assert_eq!(status(&guest), 0xff, "{what}");
}

#[test]
fn chains_that_have_none_are_dropped() {
    let header = HEADER_LEN as u32;
    check_dropped("a header alone", |guest| {
        guest.describe(200, HEADER, header, 0, 0)
    });
    check_dropped("an empty descriptor", |guest| {
        guest.describe(200, HEADER, 0, DEVICE_WRITES, 0)
    });
    check_dropped("a status byte out of memory", |guest| {
        guest.describe(200, HEADER, header, NEXT, 201);
        guest.describe(201, MEMORY, 1, DEVICE_WRITES, 0);
    });
    check_dropped("a status byte past the end of all", |guest| {
        guest.describe(200, HEADER, header, NEXT, 201);
        guest.describe(201, u64::MAX, 2, DEVICE_WRITES, 0);
    });
    check_dropped("a loop of one", |guest| {
        guest.describe(200, HEADER, header, NEXT, 200)
    });
    check_dropped("a loop of two", |guest| {
        guest.describe(200, HEADER, header, NEXT, 201);
        guest.describe(201, STATUS, 1, NEXT | DEVICE_WRITES, 200);
    });
    check_dropped("a loop of empty descriptors", |guest| {
        guest.describe(200, HEADER, 0, NEXT, 200)
    });
    check_dropped("the table's end", |guest| {
        guest.describe(200, HEADER, header, NEXT, QUEUE_SIZE);
    });
    check_dropped("far past the table", |guest| {
        guest.describe(200, HEADER, header, NEXT, 0xffff)
    });
    check_dropped("more descriptors than are allowed", |guest| {
        for index in 0..200 {
            guest.describe(index, DATA, 16, NEXT, index + 1);
        }
        guest.describe(200, HEADER, header, NEXT, 0);
    });
    check_dropped("an indirect table, which was not negotiated", |guest| {
        let table = GuestAddress(DATA);
        let descriptors = [
            virtio_queue::desc::split::Descriptor::new(HEADER, header, NEXT, 1),
            virtio_queue::desc::split::Descriptor::new(STATUS, 1, DEVICE_WRITES, 0),
        ];
        for (index, descriptor) in (0..).zip(descriptors) {
            let at = table.0 + 16 * index;
            guest
                .memory
                .write_obj(descriptor, GuestAddress(at))
                .expect("in memory");
        }
        guest.describe(200, DATA, 32, INDIRECT, 0);
    });
}

#[test]
fn a_head_out_of_the_table_is_dropped() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    for (count, head) in (1..).zip([QUEUE_SIZE, 0x7fff, 0xffff]) {
        guest.offer(head);
        guest.kick();
        until("the count", || {
            (client.counters().malformed == count).then_some(())
        });
    }
    guest.check_served();
}

/// A ring that makes no sense is given up, told over the error eventfd, and may come anew.
fn check_given_up(suspicions: &[Suspicion], write: impl Fn(&mut Guest)) {
    let mut program = Program::start(&[]);
    program.expect_suspicions();
    let mut guest = Guest::started(&program);
    guest.check_served();
    write(&mut guest);
    guest.await_error();
    let mut client = program.client();
    assert_eq!(client.counters().malformed, 1);
    // Not served any more, until it is set up anew.
    guest.kick();
    guest.settle();
    assert_eq!(client.counters().seen, 1);
    guest.stop();
    guest.reset_ring();
    guest.start();
    guest.check_served();
    guest.disconnect();
    Guest::started(&program).check_served();
    let told: Vec<_> = program
        .suspicions()
        .into_iter()
        .map(|(what, _)| what)
        .collect();
    assert_eq!(told, suspicions);
}

#[test]
fn an_available_index_too_far_ahead_gives_the_ring_up() {
    for ahead in [QUEUE_SIZE + 1, 0x8000, 0xffff] {
        check_given_up(&[Suspicion::AvailableRingOverwritten], |guest| {
            guest.set_available(ahead.wrapping_add(1));
            guest.kick();
        });
    }
}

#[test]
fn memory_that_goes_from_under_the_ring_gives_it_up() {
    check_given_up(&[], |guest| {
        let file = rustix::fs::memfd_create("small", rustix::fs::MemfdFlags::CLOEXEC);
        let file = std::fs::File::from(file.expect("a file in memory"));
        file.set_len(0x1000).expect("sized");
        let region = vhost::VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: 0x1000,
            userspace_addr: 0x1000,
            mmap_offset: 0,
            mmap_handle: std::os::fd::AsRawFd::as_raw_fd(&file),
        };
        vhost::VhostBackend::set_mem_table(guest.frontend(), &[region]).expect("shared");
    });
}

#[test]
fn ring_parts_that_reach_out_of_memory_give_the_ring_up() {
    for (table, available, used) in [
        (MEMORY - 16, AVAILABLE, USED),
        (TABLE, MEMORY - 2, USED),
        (TABLE, AVAILABLE, MEMORY - 4),
    ] {
        let program = Program::start(&[]);
        let mut guest = Guest::new();
        guest.connect(&program);
        guest.share_memory();
        guest.set_ring(table, available, used);
        guest.await_error();
        guest.disconnect();
        Guest::started(&program).check_served();
    }
}

#[test]
fn ring_addresses_that_nobody_mapped_end_the_connection_only() {
    use vhost::VhostBackend;
    let program = Program::start(&[]);
    for at in [0u64, 0x1000, 0xffff_ffff_ffff_fff0] {
        let mut guest = Guest::new();
        guest.connect(&program);
        guest.share_memory();
        let config = vhost::VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: at,
            used_ring_addr: at,
            avail_ring_addr: at,
            log_addr: None,
        };
        // Without an acknowledgement the VMM learns of it by its next question.
        let _ = guest.frontend().set_vring_addr(0, &config);
        assert!(guest.frontend().get_features().is_err(), "{at:#x}");
        Guest::started(&program).check_served();
    }
}

#[test]
fn a_ring_that_does_not_exist_or_has_no_size_ends_the_connection_only() {
    use vhost::VhostBackend;
    let program = Program::start(&[]);
    for num in [0u16, 3, 2048, 0x8000] {
        let mut guest = Guest::new();
        guest.connect(&program);
        let _ = guest.frontend().set_vring_num(0, num);
        assert!(guest.frontend().get_features().is_err(), "a ring of {num}");
    }
    Guest::started(&program).check_served();
}

/// Waits for the other side's end of a connection, which may also come as a reset.
fn check_ended(stream: &mut UnixStream) {
    stream
        .set_read_timeout(Some(crate::rig::PATIENCE))
        .expect("a timeout");
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("the connection goes on: {other:?}"),
    }
}

#[test]
fn bytes_that_are_no_message_end_the_connection_only() {
    let program = Program::start(&[]);
    for bytes in [
        &[0xff; 64][..],
        &[0; 12],
        b"GET / HTTP/1.1\r\n\r\n",
        &[1, 0, 0, 0, 1, 0, 0, 0],
    ] {
        let mut stream = connect(&program.path("dk.sock"));
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        check_ended(&mut stream);
    }
    Guest::started(&program).check_served();
}

#[test]
fn a_message_that_is_never_finished_ends_the_connection_only() {
    let mut program = Program::start(&[]);
    let mut client = program.client();
    for bytes in [
        &[1, 0, 0, 0, 1][..],
        &[8, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1],
    ] {
        let mut stream = UnixStream::connect(program.path("dk.sock")).expect("connected");
        stream.write_all(bytes).expect("sent");
        check_ended(&mut stream);
        client.counters();
    }
    Guest::started(&program).check_served();
    program.signal(rustix::process::Signal::TERM);
    assert!(program.ended().success());
}

#[test]
fn a_full_ring_of_garbage_is_survived() {
    let mut program = Program::start(&[]);
    // Descriptors change whenever they like, also by what the device is asked to write.
    program.expect_suspicions();
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    // A fixed stream of bytes over the table and both rings' entries.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..200u64 {
        for at in (TABLE..TABLE + 0x1000).step_by(8) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Every other round, addresses and indices that are nearly right.
            let mask = if round % 2 == 0 {
                u64::MAX
            } else {
                0x0007_0003_001f_ffff
            };
            guest
                .memory
                .write_obj(seed & mask, GuestAddress(at))
                .expect("in memory");
        }
        for head in 0..QUEUE_SIZE / 2 {
            guest.offer(head);
        }
        guest.kick();
        guest.settle();
    }
    let counters = client.counters();
    assert!(counters.malformed > 0, "{counters:?}");
    assert!(counters.held <= u64::from(QUEUE_SIZE), "{counters:?}");
    guest.disconnect();
    Guest::started(&program).check_served();
    let resident = program.resident();
    assert!(resident < 16 * 1024, "{resident} KiB are resident");
}
