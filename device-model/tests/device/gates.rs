//! Requests that are held, and how each hold ends.

use dk_abi::{GET_ID, KNOB_GET, KNOB_SET, READ, STATUS_OK};
use dk_control::{Command, Event, Gate, Kind, Let, Point, Record, Reply};

use crate::rig::{Client, Data, Guest, Program, gate, ns, until};

fn held(event: Event) -> (String, u64, Point, Kind, u64) {
    match event {
        Event::Held {
            tag,
            request,
            point,
            kind,
            sector,
            ..
        } => (tag, request, point, kind, sector),
        other => panic!("not held: {other:?}"),
    }
}

fn let_go(event: Event) -> (String, u64, Let) {
    match event {
        Event::LetGo {
            tag, request, why, ..
        } => (tag, request, why),
        other => panic!("not let go: {other:?}"),
    }
}

#[test]
fn a_request_held_at_seen_has_done_nothing_until_it_is_released() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::Seen, &[Kind::KnobSet]));
    let pending = guest.submit(KNOB_SET, 1, &Data::Out(vec![9; 8]));
    assert_eq!(
        held(client.event()),
        ("g".into(), 1, Point::Seen, Kind::KnobSet, 1)
    );
    // The ring goes on, and shows that nothing was set.
    let value = guest.request(KNOB_GET, 1, &Data::In(8));
    assert_eq!((value.status, value.data), (STATUS_OK, vec![0; 8]));
    assert_eq!(guest.status_of(&pending), 0xff);
    assert_eq!(client.counters().held, 1);
    assert_eq!(client.release("g"), 1);
    // Answered after the request went on.
    assert_eq!(guest.used_index(), 2);
    assert_eq!(let_go(client.event()), ("g".into(), 1, Let::Command));
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
    assert_eq!(guest.request(KNOB_GET, 1, &Data::In(8)).data, vec![9; 8]);
}

#[test]
fn a_request_held_before_completion_is_done_but_not_in_the_used_ring() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::BeforeCompletion, &[]));
    let pending = guest.submit(KNOB_SET, 0, &Data::Out(vec![4; 8]));
    assert_eq!(held(client.event()).2, Point::BeforeCompletion);
    assert_eq!(guest.status_of(&pending), STATUS_OK);
    assert_eq!(guest.used_index(), 0);
    let value = guest.request(KNOB_GET, 0, &Data::In(8));
    assert_eq!(value.data, vec![4; 8]);
    assert_eq!(client.release("g"), 1);
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
}

#[test]
fn a_hold_ends_by_itself_at_its_deadline() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(Gate {
        deadline_ms: 60,
        ..gate("g", Point::Seen, &[])
    });
    let pending = guest.submit(GET_ID, 0, &Data::In(20));
    let Event::Held { ns: start, .. } = client.event() else {
        panic!("not held")
    };
    let Event::LetGo { ns: end, why, .. } = client.event() else {
        panic!("not let go")
    };
    assert_eq!(why, Let::Deadline);
    assert!(
        end - start >= 60_000_000,
        "held for {} ns only",
        end - start
    );
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
    assert_eq!(client.release("g"), 0, "nothing is left to release");
}

#[test]
fn gates_skip_count_and_select() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    let picky = gate("g", Point::Seen, &[Kind::KnobGet]);
    client.arm(Gate {
        sector: Some(1),
        skip: 1,
        count: 2,
        ..picky
    });
    guest.request(KNOB_GET, 0, &Data::In(8));
    guest.request(GET_ID, 0, &Data::In(20));
    guest.request(KNOB_GET, 1, &Data::In(8)); // skipped
    let first = guest.submit(KNOB_GET, 1, &Data::In(8));
    let second = guest.submit(KNOB_GET, 1, &Data::In(8));
    guest.request(KNOB_GET, 1, &Data::In(8)); // the gate is through
    assert_eq!(held(client.event()).1, 4);
    assert_eq!(held(client.event()).1, 5);
    assert_eq!(client.release("g"), 2);
    guest.finish(&first);
    guest.finish(&second);
}

#[test]
fn disarming_keeps_what_is_held_and_reset_lets_all_go_in_order() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(Gate {
        count: 9,
        ..gate("a", Point::Seen, &[Kind::KnobGet])
    });
    client.arm(Gate {
        count: 9,
        ..gate("b", Point::BeforeCompletion, &[Kind::Read])
    });
    let pending = [
        guest.submit(KNOB_GET, 0, &Data::In(8)),
        guest.submit(READ, 0, &Data::In(512)),
        guest.submit(KNOB_GET, 0, &Data::In(8)),
    ];
    for _ in 0..3 {
        held(client.event());
    }
    client.ask(Command::Disarm { tag: "a".into() });
    guest.request(KNOB_GET, 0, &Data::In(8));
    assert_eq!(client.counters().held, 3);
    let reply = client.ask(Command::Reset);
    assert!(
        matches!(reply, Reply::Done { released: 3, .. }),
        "{reply:?}"
    );
    for request in 1..=3 {
        assert_eq!(
            (let_go(client.event()).1, client.counters().held),
            (request, 0)
        );
    }
    for pending in &pending {
        assert_eq!(guest.finish(pending).status, STATUS_OK);
    }
    guest.request(READ, 0, &Data::In(512));
}

#[test]
fn one_request_can_be_held_at_both_points() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("first", Point::Seen, &[]));
    client.arm(gate("then", Point::BeforeCompletion, &[]));
    let pending = guest.submit(GET_ID, 0, &Data::In(20));
    assert_eq!(held(client.event()).0, "first");
    assert_eq!(client.release("then"), 0);
    assert_eq!(client.release("first"), 1);
    assert_eq!(let_go(client.event()).0, "first");
    assert_eq!(held(client.event()).0, "then");
    assert_eq!(guest.used_index(), 0);
    assert_eq!(client.release("then"), 1);
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
}

fn dropped(client: &mut Client, program: &Program) {
    assert_eq!(let_go(client.event()), ("g".into(), 1, Let::RingStopped));
    let counters = client.counters();
    assert_eq!(
        (counters.held, counters.dropped, counters.completed),
        (0, 1, 0)
    );
    let stopped = |record: &Record| {
        matches!(
            record,
            Record::Ring {
                running: false,
                dropped: 1,
                ..
            }
        )
    };
    program.await_record("the stop in the trace", stopped);
}

#[test]
fn a_trace_tells_holds_and_drops_in_the_order_of_time() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(Gate {
        count: 2,
        ..gate("g", Point::Seen, &[])
    });
    let first = guest.submit(GET_ID, 0, &Data::In(20));
    held(client.event());
    client.release("g");
    guest.finish(&first);
    guest.submit(GET_ID, 0, &Data::In(20));
    guest.settle();
    guest.stop();
    client.counters();
    let trace = program.trace();
    let told: Vec<_> = trace
        .iter()
        .map(|record| match record {
            Record::Header { .. } => "header",
            Record::Link { .. } => "link",
            Record::Ring { .. } => "ring",
            Record::Seen { .. } => "seen",
            Record::Gate(Event::Held { .. }) => "held",
            Record::Gate(Event::LetGo { .. }) => "let go",
            Record::Gate(Event::Witness { .. }) => "witness",
            Record::Done { .. } => "done",
            Record::Malformed { .. } => "malformed",
        })
        .collect();
    let rest = ["seen", "held", "let go", "ring"];
    assert_eq!(
        told[..7],
        ["header", "link", "ring", "seen", "held", "let go", "done"]
    );
    assert_eq!(told[7..], rest);
    let times: Vec<u64> = trace.iter().map(ns).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_ring_that_stops_drops_what_is_held_and_never_answers_it() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::BeforeCompletion, &[]));
    guest.submit(GET_ID, 0, &Data::In(20));
    held(client.event());
    // Answered at once: the held request stands in nobody's way.
    assert_eq!(guest.stop(), 1);
    dropped(&mut client, &program);
    assert_eq!(client.release("g"), 0);
    assert_eq!(guest.used_index(), 0);
    assert!(!guest.was_interrupted());
    guest.reset_ring();
    guest.start();
    guest.check_served();
}

#[test]
fn a_vmm_that_goes_drops_what_is_held() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::Seen, &[]));
    guest.submit(GET_ID, 0, &Data::In(20));
    held(client.event());
    guest.disconnect();
    dropped(&mut client, &program);
    assert_eq!(guest.used_index(), 0);
    Guest::started(&program).check_served();
}

#[test]
fn a_ring_that_is_paused_takes_up_again_what_it_had_dropped() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::Seen, &[Kind::KnobGet]));
    let pending = guest.submit(KNOB_GET, 0, &Data::In(8));
    held(client.event());
    guest.check_served(); // overtakes it
    guest.stop();
    assert_eq!(let_go(client.event()).2, Let::RingStopped);
    // As `stop` and `cont` of QEMU's monitor do: the in-flight region is kept.
    guest.start();
    assert_eq!(guest.finish(&pending).status, STATUS_OK);
    guest.check_served();
}

#[test]
fn no_more_is_held_than_the_ring_is_long() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(Gate {
        count: u32::MAX,
        ..gate("g", Point::Seen, &[])
    });
    let pending = guest.submit(GET_ID, 0, &Data::In(20));
    held(client.event());
    // A hostile driver offers what it doesn't own, thousands of times.
    for round in 1..=40 {
        for _ in 0..100 {
            guest.offer(Guest::head_of(&pending));
        }
        guest.kick();
        until("the offers are seen", || {
            (client.counters().malformed == 100 * round).then_some(())
        });
    }
    assert_eq!(client.counters().held, 1);
    assert_eq!(client.release("g"), 1);
}
