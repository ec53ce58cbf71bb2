//! The control channel, and clients that do what none should.

use std::io::Write;

use dk_control::{Command, Gate, Kind, MAX_LINE, Point, Reply};

use crate::rig::{Client, Guest, Program, gate, until};

fn refused(reply: Option<Reply>) -> (u64, String) {
    match reply {
        Some(Reply::Refused { id, why }) => (id, why),
        other => panic!("not refused: {other:?}"),
    }
}

/// Fails unless the client is obeyed.
fn check_obeyed(client: &mut Client) {
    client.counters();
}

#[test]
fn hello_comes_first_and_in_this_version() {
    let program = Program::start(&[]);
    let mut client = program.stranger();
    assert!(
        refused(Some(client.ask(Command::Status)))
            .1
            .contains("hello")
    );
    assert!(
        refused(Some(client.ask(Command::Hello { version: 2 })))
            .1
            .contains("version 1")
    );
    assert!(refused(Some(client.ask(Command::Quit))).1.contains("hello"));
    assert!(matches!(
        client.ask(Command::Hello { version: 1 }),
        Reply::Done { .. }
    ));
    check_obeyed(&mut client);
}

#[test]
fn lines_that_are_no_commands_are_refused_one_by_one() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for line in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"{\"id\":1}\n",
        b"{\"id\":1,\"do\":\"fly\"}\n",
        b"{\"id\":-1,\"do\":\"status\"}\n",
        b"{\"id\":1,\"do\":\"arm\",\"tag\":\"g\"}\n",
        b"\xff\xfe{}\n",
        b"[[[[[[[[[[[[[[[[\n",
    ] {
        client.send(line);
        assert_eq!(refused(client.hear()).0, 0, "{line:?}");
    }
    check_obeyed(&mut client);
    // In pieces, and two at a time.
    client.send(b"{\"id\":100,\"do\":");
    client.send(b"\"status\"}\n{\"id\":101,\"do\":\"status\"}\n");
    for number in 100..=101 {
        let reply = client.hear();
        assert!(
            matches!(reply, Some(Reply::Status { id, .. }) if id == number),
            "{reply:?}"
        );
    }
}

#[test]
fn a_line_without_end_ends_its_client_only() {
    let program = Program::start(&[]);
    let mut other = program.client();
    let mut client = program.client();
    // May fail at the end, once the device has closed.
    let _ = client.stream.write_all(&vec![b' '; MAX_LINE + 1]);
    assert!(refused(client.hear()).1.contains("longer than"));
    assert!(client.hear().is_none());
    check_obeyed(&mut other);
}

#[test]
fn gates_that_make_no_sense_are_refused() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let good = gate("g", Point::Seen, &[Kind::Read]);
    for (bad, told) in [
        (
            Gate {
                count: 0,
                ..good.clone()
            },
            "count is 0",
        ),
        (
            Gate {
                tag: String::new(),
                ..good.clone()
            },
            "tag has 0 bytes",
        ),
        (
            Gate {
                tag: "x".repeat(200),
                ..good.clone()
            },
            "tag has 200 bytes",
        ),
        (
            Gate {
                deadline_ms: u64::MAX,
                ..good.clone()
            },
            "deadline_ms",
        ),
    ] {
        let why = refused(Some(client.ask(Command::Arm(bad)))).1;
        assert!(why.contains(told), "{why}");
    }
    for number in 0..dk_device::gate::MAX_GATES {
        client.arm(Gate {
            tag: number.to_string(),
            ..good.clone()
        });
    }
    assert!(
        refused(Some(client.ask(Command::Arm(good.clone()))))
            .1
            .contains("armed already")
    );
    client.arm(Gate {
        tag: "0".into(),
        skip: 3,
        ..good
    });
    check_obeyed(&mut client);
}

#[test]
fn clients_beyond_the_limit_are_refused_and_room_comes_free() {
    let program = Program::start(&[]);
    let mut clients: Vec<_> = (0..dk_device::control::MAX_CLIENTS)
        .map(|_| program.client())
        .collect();
    let mut surplus = program.stranger();
    assert!(refused(surplus.hear()).1.contains("connected already"));
    assert!(surplus.hear().is_none());
    clients.pop();
    // Whatever the device hears after the end of one, it has heard of that.
    check_obeyed(&mut clients[0]);
    program.client();
}

#[test]
fn a_client_that_does_not_listen_costs_bounded_memory_and_nobody_else() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    let mut deaf = program.client();
    // Asks without end and hears nothing, until it is not read from any more.
    deaf.stream.set_nonblocking(true).expect("set");
    let question = b"{\"id\":1,\"do\":\"status\"}\n".repeat(1000);
    until("the end of the device's patience", || {
        deaf.stream.write(&question).err()
    });
    check_obeyed(&mut client);
    guest.check_served();
    // Events are not lost on it silently: too many, and it is cut off.
    client.arm(Gate {
        count: 1_000_000,
        deadline_ms: 0,
        ..gate("g", Point::Seen, &[])
    });
    until("the deaf client's end", || {
        for _ in 0..60 {
            guest.check_served();
            client.event();
            client.event();
        }
        matches!(deaf.stream.write(b"x"), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock)
            .then_some(())
    });
    check_obeyed(&mut client);
    let resident = program.resident();
    assert!(resident < 16 * 1024, "{resident} KiB are resident");
}

#[test]
fn events_go_to_everyone_who_said_hello() {
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let (mut one, mut two) = (program.client(), program.client());
    let mut stranger = program.stranger();
    one.arm(gate("g", Point::Seen, &[]));
    guest.prepare(dk_abi::FLUSH, 0, &crate::rig::Data::None);
    guest.kick();
    let held = one.event();
    assert_eq!(two.event(), held);
    assert_eq!(two.release("g"), 1);
    assert_eq!(one.event(), two.event());
    // A stranger has heard nothing: its first line is its own answer.
    stranger.send(b"{\"id\":7,\"do\":\"status\"}\n");
    assert_eq!(refused(stranger.hear()).0, 7);
}
