//! What a well-behaved driver asks for: the disk and the knobs.

use dk_abi::{
    DISCARD, FLUSH, GET_ID, KNOB_GET, KNOB_SET, READ, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP,
    WRITE, WRITE_ZEROES,
};
use dk_control::Record;

use crate::rig::{Data, Guest, NEXT, Program, WRITE as DEVICE_WRITES, until};

/// Sectors of the disk in memory.
const SECTORS: u64 = 8 * 1024 * 1024 / 512;

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

#[test]
fn a_disk_keeps_what_is_written() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let bytes: Vec<u8> = (0..4096).map(|i| (i / 7) as u8).collect();
    let written = guest.request(WRITE, 8, &Data::Out(bytes.clone()));
    assert_eq!((written.status, written.written), (STATUS_OK, 1));
    let flushed = guest.request(FLUSH, 0, &Data::None);
    assert_eq!((flushed.status, flushed.written), (STATUS_OK, 1));
    let read = guest.request(READ, 8, &Data::In(4096));
    assert_eq!((read.status, read.written), (STATUS_OK, 4097));
    assert!(read.data == bytes);
    let last = guest.request(READ, SECTORS - 1, &Data::In(512));
    assert_eq!((last.status, last.data), (STATUS_OK, vec![0; 512]));
}

#[test]
fn data_may_be_cut_into_descriptors_anyhow() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let bytes: Vec<u8> = (0..1024).map(|i| (i % 251) as u8).collect();
    guest.request(WRITE, 0, &Data::Out(bytes.clone()));
    // The header in two parts; data in three, of which the last holds the status byte.
    use vm_memory::{Bytes, GuestAddress};
    let header = dk_abi::Header {
        kind: READ,
        sector: 0,
    }
    .to_bytes();
    guest
        .memory
        .write_slice(&header, GuestAddress(0x20_0000))
        .expect("in memory");
    guest.describe(200, 0x20_0000, 3, NEXT, 201);
    guest.describe(201, 0x20_0003, 13, NEXT, 202);
    guest.describe(202, 0x20_1000, 1, NEXT | DEVICE_WRITES, 203);
    guest.describe(203, 0x20_1001, 0, NEXT | DEVICE_WRITES, 204);
    guest.describe(204, 0x20_1001, 1024, DEVICE_WRITES, 0);
    guest.offer(200);
    guest.kick();
    let used = guest.next_used();
    assert_eq!((used.head, used.len), (200, 1025));
    let mut read = [0xff; 1025];
    guest
        .memory
        .read_slice(&mut read, GuestAddress(0x20_1000))
        .expect("in memory");
    assert!(read[..1024] == bytes);
    assert_eq!(read[1024], STATUS_OK);
}

#[test]
fn cleared_sectors_read_as_zeroes() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    guest.request(WRITE, 0, &Data::Out(vec![7; 4096]));
    let cleared = guest.request(DISCARD, 0, &Data::Out(segment(1, 2, 0)));
    assert_eq!(cleared.status, STATUS_OK);
    let two = [segment(4, 1, 0), segment(6, 1, 1)].concat();
    assert_eq!(
        guest.request(WRITE_ZEROES, 0, &Data::Out(two)).status,
        STATUS_OK
    );
    let read = guest.request(READ, 0, &Data::In(4096)).data;
    let zero: Vec<_> = read
        .chunks(512)
        .map(|sector| sector.iter().all(|&b| b == 0))
        .collect();
    assert_eq!(zero, [false, true, true, false, true, false, true, false]);
    assert!(read.iter().all(|&byte| byte == 0 || byte == 7));
}

#[test]
fn what_is_not_on_the_disk_is_an_error() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    for (kind, sector, data) in [
        (READ, SECTORS, Data::In(512)),
        (READ, u64::MAX, Data::In(512)),
        (WRITE, SECTORS - 1, Data::Out(vec![1; 1024])),
        (WRITE, u64::MAX / 512, Data::Out(vec![1; 512])),
        (DISCARD, 0, Data::Out(segment(SECTORS, 1, 0))),
        (WRITE_ZEROES, 0, Data::Out(segment(0, 1 << 20, 0))),
        (
            WRITE_ZEROES,
            0,
            Data::Out([segment(0, 1, 0), segment(u64::MAX, 1, 0)].concat()),
        ),
    ] {
        let answer = guest.request(kind, sector, &data);
        assert_eq!(
            answer.status, STATUS_IOERR,
            "{kind} at {sector} of {data:?}"
        );
    }
    let read = guest.request(READ, SECTORS - 1, &Data::In(512));
    assert_eq!(read.data, vec![0; 512], "a write that failed wrote");
}

#[test]
fn what_the_device_does_not_know_is_unsupported() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    for (kind, sector, data) in [
        (77, 0, Data::None),
        (77, 0, Data::In(64)),
        (DISCARD, 0, Data::Out(segment(0, 1, 1))),
        (WRITE_ZEROES, 0, Data::Out(segment(0, 1, 2))),
        (KNOB_GET, 2, Data::In(8)),
        (KNOB_SET, u64::MAX, Data::Out(vec![0; 8])),
    ] {
        let answer = guest.request(kind, sector, &data);
        assert_eq!(
            answer.status, STATUS_UNSUPP,
            "{kind} at {sector} of {data:?}"
        );
    }
}

#[test]
fn an_id_is_told_as_far_as_it_reaches() {
    let program = Program::start(&["--id", "a name of 20 bytes.."]);
    let mut guest = Guest::started(&program);
    let answer = guest.request(GET_ID, 0, &Data::In(20));
    assert_eq!(
        (answer.status, &answer.data[..]),
        (STATUS_OK, &b"a name of 20 bytes.."[..])
    );
    assert_eq!(answer.written, 21);
    let answer = guest.request(GET_ID, 0, &Data::In(6));
    assert_eq!(
        (answer.status, &answer.data[..]),
        (STATUS_OK, &b"a name"[..])
    );
    // The status byte is behind bytes that weren't written.
    let answer = guest.request(GET_ID, 0, &Data::In(64));
    assert_eq!((answer.status, answer.written), (STATUS_OK, 20));
}

#[test]
fn a_knob_keeps_what_was_set_over_a_reset() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    for knob in 0..2u64 {
        let fresh = guest.request(KNOB_GET, knob, &Data::In(8));
        assert_eq!((fresh.status, &fresh.data[..]), (STATUS_OK, &[0; 8][..]));
        let value = (0x1122_3344_5566_7788 + knob).to_le_bytes().to_vec();
        assert_eq!(
            guest.request(KNOB_SET, knob, &Data::Out(value)).status,
            STATUS_OK
        );
    }
    guest.stop();
    guest.reset_ring();
    guest.start();
    let knob = guest.request(KNOB_GET, 1, &Data::In(8));
    assert_eq!((knob.status, knob.written), (STATUS_OK, 9));
    assert_eq!(knob.data, 0x1122_3344_5566_7789u64.to_le_bytes());
}

#[test]
fn the_configuration_space_says_what_the_device_can() {
    let program = Program::start(&["--size", "1048576"]);
    let mut guest = Guest::started(&program);
    let space = guest.config(0, 60);
    assert_eq!(space[..8], 2048u64.to_le_bytes(), "capacity");
    assert_eq!(space[20..24], 512u32.to_le_bytes(), "blk_size");
    assert_eq!(space[34..36], 1u16.to_le_bytes(), "num_queues");
    assert_eq!(guest.config(34, 2), 1u16.to_le_bytes());
    assert_eq!(guest.config(64, 192), [0; 192]);
    guest.check_served();
}

#[test]
fn a_disk_in_a_file_is_that_file() {
    use std::os::unix::fs::FileExt;
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(1 << 20).expect("sized");
    file.as_file()
        .write_all_at(&[5; 512], 512)
        .expect("written");
    let program = Program::start(&["--disk", file.path().to_str().expect("a path")]);
    let mut guest = Guest::started(&program);
    assert_eq!(guest.request(READ, 1, &Data::In(512)).data, vec![5; 512]);
    guest.request(WRITE, 2, &Data::Out(vec![6; 512]));
    let mut bytes = [0; 512];
    file.as_file()
        .read_exact_at(&mut bytes, 1024)
        .expect("read");
    assert_eq!(bytes, [6; 512]);
    assert_eq!(file.as_file().metadata().expect("there").len(), 1 << 20);
}

#[test]
fn many_at_once_are_answered_in_their_order_with_the_interrupts_that_were_wanted() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    guest.check_served();
    // Its interrupt may come after its answer was seen.
    guest.settle();
    guest.was_interrupted();
    guest.want_interrupts(false);
    let pending: Vec<_> = (0..60)
        .map(|i| guest.prepare(KNOB_GET, i % 2, &Data::In(8)))
        .collect();
    guest.kick();
    until("60 answers", || {
        guest.settle();
        (guest.used_index() == 61).then_some(())
    });
    // The device has read the flag before it takes the next message.
    guest.settle();
    assert!(!guest.was_interrupted());
    for pending in &pending {
        assert_eq!(guest.finish(pending).status, STATUS_OK);
    }
    guest.want_interrupts(true);
    guest.check_served();
}

#[test]
fn every_request_is_in_the_trace() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    guest.request(KNOB_SET, 1, &Data::Out(vec![1; 8]));
    guest.request(READ, 3, &Data::In(1024));
    guest.request(READ, SECTORS, &Data::In(512));
    guest.disconnect();
    let gone = |record: &Record| matches!(record, Record::Link { up: false, .. });
    program.await_record("the end of the link", gone);
    let trace = program.trace();
    let told: Vec<_> = trace
        .iter()
        .map(|record| match *record {
            Record::Header { version, .. } => format!("header {version}"),
            Record::Link { up, .. } => format!("link {up}"),
            Record::Ring {
                running, dropped, ..
            } => format!("ring {running} {dropped}"),
            Record::Seen {
                request,
                kind,
                sector,
                len,
                ..
            } => {
                format!("seen {request} {kind:?} {sector} {len}")
            }
            Record::Done {
                request, status, ..
            } => format!("done {request} {status}"),
            _ => panic!("not awaited: {record:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "header 1",
            "link true",
            "ring true 0",
            "seen 1 KnobSet 1 8",
            "done 1 0",
            "seen 2 Read 3 1024",
            "done 2 0",
            "seen 3 Read 16384 512",
            "done 3 1",
            "ring false 0",
            "link false",
        ]
    );
    let times: Vec<u64> = trace.iter().map(crate::rig::ns).collect();
    assert!(times.is_sorted(), "{times:?}");
}
