//! What a driver may not do while its ring runs is told, once; what it may do is not. Every other
//! test's guest is checked for the latter at its end.

use dk_abi::{KNOB_GET, KNOB_SET, STATUS_OK};
use dk_control::{Event, Kind, Point, Record, Suspicion};
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::{Bytes, GuestAddress};

use crate::rig::{AVAILABLE, Client, Data, Guest, Pending, Program, QUEUE_SIZE, TABLE, USED, gate};

/// A program with a guest that will be suspected, and a client that hears of it.
fn suspected() -> (Program, Guest, Client) {
    let mut program = Program::start(&[]);
    program.expect_suspicions();
    let guest = Guest::started(&program);
    let client = program.client();
    (program, guest, client)
}

/// The next suspicion that the client hears; what happens at gates is let pass.
fn witnessed(client: &mut Client) -> (Suspicion, String) {
    loop {
        if let Event::Witness { what, detail, .. } = client.event() {
            return (what, detail);
        }
    }
}

/// Sends a request that is held at a gate "g".
fn hold(guest: &mut Guest, client: &mut Client, point: Point) -> Pending {
    client.arm(gate("g", point, &[]));
    let pending = guest.submit(KNOB_GET, 0, &Data::In(8));
    assert!(matches!(client.event(), Event::Held { .. }));
    pending
}

/// What freeing pages does in a kernel that clears them.
fn clear(guest: &Guest, at: u64, len: usize) {
    guest
        .memory
        .write_slice(&vec![0; len], GuestAddress(at))
        .expect("in memory");
}

fn kinds(told: &[(Suspicion, String)]) -> Vec<Suspicion> {
    told.iter().map(|&(what, _)| what).collect()
}

#[test]
fn a_ring_that_is_freed_before_the_reset_is_told_at_the_reset() {
    let (program, mut guest, mut client) = suspected();
    for _ in 0..3 {
        guest.check_served();
    }
    hold(&mut guest, &mut client, Point::Seen);
    guest.reset_ring();
    assert!(client.counters().running);
    guest.stop();
    assert!(!client.counters().running);
    let told = program.suspicions();
    assert_eq!(
        kinds(&told),
        [
            Suspicion::UsedRingOverwritten,
            Suspicion::AvailableRingOverwritten,
            Suspicion::RequestOverwritten,
        ]
    );
    let detail = |at: usize| told[at].1.as_str();
    assert_eq!(
        detail(0),
        "the used index, at 0x4002: the device wrote 3, found 0"
    );
    assert_eq!(
        detail(1),
        "the available index, at 0x3002: expected 4 to 260 of a ring of 256, found 0"
    );
    assert_eq!(
        detail(2),
        "request 4, head 0, descriptor 0 of the table at 0x1000: \
         seen addr 0x10000 len 16 flags 0x1 next 1, found addr 0x0 len 0 flags 0x0 next 0"
    );
    // The harness heard the same, before the drop of what was held.
    for told in told {
        assert_eq!(witnessed(&mut client), told);
    }
    let dropped = client.event();
    assert!(matches!(dropped, Event::LetGo { .. }), "{dropped:?}");
    // The ring that comes next is judged by itself.
    guest.start();
    guest.check_served();
    guest.stop();
    assert_eq!(program.suspicions().len(), 3);
}

#[test]
fn a_ring_that_is_freed_is_told_when_a_held_request_is_answered_into_it() {
    for point in [Point::Seen, Point::BeforeCompletion] {
        let (program, mut guest, mut client) = suspected();
        guest.check_served();
        hold(&mut guest, &mut client, point);
        clear(&guest, TABLE, 0x1000);
        clear(&guest, USED, 0x1000);
        assert_eq!(client.release("g"), 1);
        let first = [(); 2].map(|()| witnessed(&mut client).0);
        assert_eq!(
            first,
            [
                Suspicion::RequestOverwritten,
                Suspicion::UsedRingOverwritten
            ]
        );
        // It goes on as before, with its own index.
        assert_eq!(guest.used_index(), 2);
        guest.stop();
        assert_eq!(program.suspicions().len(), 2, "each is told once");
    }
}

#[test]
fn a_used_index_or_element_that_changes_is_told_at_the_next_answer() {
    type Overwrite = (&'static str, fn(&Guest));
    let overwrite: [Overwrite; 2] = [
        ("the used index", |guest| {
            let index = guest.used_index() - 1;
            guest
                .memory
                .write_obj(index, GuestAddress(USED + 2))
                .expect("in memory");
        }),
        ("element 1 of the used ring", |guest| {
            clear(guest, USED + 4 + 8, 8)
        }),
    ];
    for (what, overwrite) in overwrite {
        let (program, mut guest, mut client) = suspected();
        for _ in 0..2 {
            guest.check_served();
        }
        overwrite(&guest);
        let pending = guest.submit(KNOB_GET, 0, &Data::In(8));
        let (suspicion, detail) = witnessed(&mut client);
        assert_eq!(suspicion, Suspicion::UsedRingOverwritten);
        assert!(detail.starts_with(what), "{detail}");
        assert_eq!(guest.finish(&pending).status, STATUS_OK);
        guest.check_served();
        assert_eq!(program.suspicions().len(), 1);
    }
}

#[test]
fn an_old_element_that_changes_is_told_at_the_stop() {
    let (program, mut guest, _client) = suspected();
    for _ in 0..4 {
        guest.check_served();
    }
    clear(&guest, USED + 4, 8);
    guest.check_served();
    assert_eq!(program.suspicions(), []);
    guest.stop();
    let told = program.suspicions();
    assert_eq!(kinds(&told), [Suspicion::UsedRingOverwritten]);
    assert!(told[0].1.starts_with("element 0"), "{told:?}");
}

#[test]
fn an_available_index_that_goes_back_is_told_when_the_device_looks() {
    let (program, mut guest, mut client) = suspected();
    guest.check_served();
    guest.check_served();
    guest.set_available(1);
    guest.kick();
    let (what, detail) = witnessed(&mut client);
    assert_eq!(what, Suspicion::AvailableRingOverwritten);
    assert!(
        detail.ends_with("expected 2 to 258 of a ring of 256, found 1"),
        "{detail}"
    );
    // The ring is given up, as before, and the driver hasn't reset it by that.
    guest.await_error();
    assert!(client.counters().running);
    guest.stop();
    assert!(!client.counters().running);
    assert_eq!(program.suspicions().len(), 1);
}

#[test]
fn an_available_index_as_far_ahead_as_the_ring_is_long_is_none() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    guest.check_served();
    // Not kicked: the driver was about to.
    guest.set_available(1 + QUEUE_SIZE);
    guest.stop();
    assert_eq!(program.suspicions(), []);
}

#[test]
fn each_descriptor_of_a_request_in_flight_is_watched() {
    // The data's address, the status byte's length, the header's flags and its next.
    for (descriptor, at, len) in [(1u64, 0, 8), (2, 8, 4), (0, 12, 2), (0, 14, 2)] {
        let (program, mut guest, mut client) = suspected();
        let pending = hold(&mut guest, &mut client, Point::BeforeCompletion);
        clear(&guest, TABLE + 16 * descriptor + at, len);
        client.release("g");
        let (what, detail) = witnessed(&mut client);
        assert_eq!(what, Suspicion::RequestOverwritten);
        assert!(
            detail.contains(&format!("descriptor {descriptor} of the table")),
            "{detail}"
        );
        assert_eq!(guest.finish(&pending).status, STATUS_OK);
        assert_eq!(program.suspicions().len(), 1);
    }
}

#[test]
fn what_a_driver_may_write_beside_a_request_in_flight_is_none() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    let pending = hold(&mut guest, &mut client, Point::BeforeCompletion);
    // The last descriptor's next belongs to the driver's list of free ones.
    guest
        .memory
        .write_obj(77u16, GuestAddress(TABLE + 16 * 2 + 14))
        .expect("in memory");
    // Interrupts off, more requests around it.
    guest.want_interrupts(false);
    guest.want_interrupts(true);
    guest.check_served();
    client.release("g");
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
    guest.stop();
    assert_eq!(program.suspicions(), []);
}

#[test]
fn a_kick_after_the_stop_is_told_and_one_before_it_is_not() {
    let (program, mut guest, mut client) = suspected();
    guest.check_served();
    for disabled in [false, true] {
        // As QEMU 7.2 does it: disabled first, whence nobody hears what is kicked.
        if disabled {
            guest.frontend().set_vring_enable(0, false).expect("sent");
            guest.settle();
            guest.kick();
        }
        guest.stop();
        guest.settle();
        let before = program.suspicions().len();
        guest.kick();
        let (what, detail) = witnessed(&mut client);
        assert_eq!(what, Suspicion::KickedWhileStopped);
        assert!(detail.ends_with("found 1"), "{detail}");
        assert_eq!(program.suspicions().len(), before + 1);
        // Again, and nobody listens any more.
        guest.kick();
        guest.reset_ring();
        guest.start();
        guest.check_served();
    }
    assert_eq!(program.suspicions().len(), 2);
}

#[test]
fn a_reset_with_requests_held_and_a_driver_that_comes_again_are_innocent() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let mut guest = Guest::started(&program);
    assert!(client.counters().running);
    for _ in 0..20 {
        for _ in 0..5 {
            guest.check_served();
        }
        hold(&mut guest, &mut client, Point::Seen);
        guest.check_served();
        guest.kick();
        guest.stop();
        assert!(!client.counters().running);
        // Freed at last.
        guest.reset_ring();
        assert!(matches!(client.event(), Event::LetGo { .. }));
        guest.start();
    }
    assert_eq!(program.suspicions(), []);
}

#[test]
fn a_driver_that_outlives_the_device_is_innocent() {
    let mut program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    for round in 1..4 {
        let mut client = program.client();
        // More than once around the ring, so that old elements are of earlier lives.
        for _ in 0..QUEUE_SIZE + 3 {
            guest.check_served();
        }
        client.arm(gate("g", Point::BeforeCompletion, &[Kind::KnobSet]));
        let held = guest.submit(KNOB_SET, 0, &Data::Out(vec![round; 8]));
        assert!(matches!(client.event(), Event::Held { .. }));
        guest.check_served();
        program.kill();
        guest.disconnect();
        program.restart(&[]);
        guest.connect(&program);
        guest.start();
        assert_eq!(guest.finish(&held).status, STATUS_OK);
        guest.check_served();
    }
    guest.stop();
    assert_eq!(program.suspicions(), []);
}

#[test]
fn memory_that_changes_while_the_vmm_is_gone_is_nobodys_fault() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let mut guest = Guest::started(&program);
    guest.check_served();
    hold(&mut guest, &mut client, Point::Seen);
    // QEMU has lost the device: the driver's reset ends without it.
    clear(&guest, AVAILABLE, 0x1000);
    clear(&guest, USED, 0x1000);
    clear(&guest, TABLE, 0x1000);
    guest.disconnect();
    assert!(matches!(client.event(), Event::LetGo { .. }));
    let gone = |record: &Record| matches!(record, Record::Link { up: false, .. });
    program.await_record("the end of the connection", gone);
    assert!(!client.counters().running);
    assert_eq!(program.suspicions(), []);
}
