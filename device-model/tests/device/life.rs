//! The program's life: its beginning, its end, and its death.

use std::os::unix::net::UnixListener;
use std::process::{Command as Process, Stdio};

use dk_abi::{KNOB_GET, KNOB_SET, READ, STATUS_OK, WRITE};
use dk_control::{Command, Event, Gate, Kind, Let, Point, Record, Reply};
use rustix::process::Signal;

use crate::rig::{Changes, Data, Guest, Program, gate};

fn assert_gone(program: &Program) {
    for name in ["dk.sock", "control.sock"] {
        assert!(!program.path(name).exists(), "{name} is left");
    }
}

#[test]
fn quit_ends_it_in_order() {
    let mut program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    let mut client = program.client();
    client.arm(gate("g", Point::Seen, &[]));
    guest.submit(KNOB_GET, 0, &Data::In(8));
    assert!(matches!(client.event(), Event::Held { .. }));
    assert!(matches!(client.ask(Command::Quit), Reply::Done { .. }));
    // The last word: what was held is dropped.
    assert!(matches!(
        client.event(),
        Event::LetGo {
            why: Let::RingStopped,
            ..
        }
    ));
    assert!(client.hear().is_none());
    assert!(program.ended().success());
    assert_gone(&program);
    let trace = program.trace();
    assert!(
        matches!(trace.last(), Some(Record::Link { up: false, .. })),
        "{trace:?}"
    );
}

#[test]
fn signals_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut program = Program::start(&[]);
        let mut guest = Guest::started(&program);
        guest.check_served();
        program.signal(signal);
        assert!(program.ended().success());
        assert_gone(&program);
    }
}

#[test]
fn it_ends_with_the_parent_that_was_named() {
    let dir = tempfile::TempDir::new().expect("a directory");
    // A shell that starts it as its child and names itself; it ends with its input.
    let script = format!(
        "'{}' --socket dk.sock --control control.sock --parent $$ & read _",
        env!("CARGO_BIN_EXE_dk-device")
    );
    let mut shell = Process::new("sh");
    shell
        .arg("-c")
        .arg(script)
        .current_dir(dir.path())
        .stdin(Stdio::piped());
    let changes = Changes::of(dir.path());
    let mut parent = shell.spawn().expect("a shell");
    let socket = dir.path().join("control.sock");
    changes.until("the socket", || socket.exists().then_some(()));
    drop(parent.stdin.take());
    parent.wait().expect("waited for");
    changes.until("the end", || (!socket.exists()).then_some(()));
}

#[test]
fn a_parent_that_is_not_the_parent_is_refused() {
    // The program's own test is its parent; process 1 isn't.
    let mut program = Program::start(&["--parent", "1"]);
    assert!(!program.ended().success());
    let told = program.stderr();
    assert!(told.contains("process 1 isn't the parent"), "{told}");
    assert_gone(&program);
}

#[test]
fn a_guest_may_come_after_another() {
    let program = Program::start(&[]);
    for round in 0..5u64 {
        let mut guest = Guest::started(&program);
        let value = guest.request(KNOB_GET, 0, &Data::In(8));
        assert_eq!(value.data, round.to_le_bytes());
        let next = (round + 1).to_le_bytes().to_vec();
        assert_eq!(
            guest.request(KNOB_SET, 0, &Data::Out(next)).status,
            STATUS_OK
        );
    }
    let mut client = program.client();
    let counters = client.counters();
    assert_eq!((counters.connections, counters.completed), (5, 10));
}

#[test]
fn a_device_that_is_plugged_again_on_one_connection_is_claimed_again() {
    use vhost::VhostBackend;
    let program = Program::start(&[]);
    let mut guest = Guest::started(&program);
    guest.check_served();
    guest.stop();
    guest.reset_ring();
    guest.frontend().set_owner().expect("claimed again");
    let features = guest.frontend().get_features().expect("features");
    guest.frontend().set_features(features).expect("agreed");
    guest.start();
    guest.check_served();
}

#[test]
fn after_a_death_just_what_was_not_answered_is_done_again() {
    let disk = tempfile::NamedTempFile::new().expect("a file");
    disk.as_file().set_len(1 << 20).expect("sized");
    let arguments = ["--disk", disk.path().to_str().expect("a path")];
    let mut program = Program::start(&arguments);
    let mut guest = Guest::started(&program);
    guest.check_served();
    let mut client = program.client();
    client.arm(Gate {
        count: 2,
        ..gate("w", Point::Seen, &[Kind::Write])
    });
    client.arm(gate("r", Point::BeforeCompletion, &[Kind::Read]));
    let write = guest.submit(WRITE, 0, &Data::Out(vec![1; 512]));
    let read = guest.submit(READ, 1, &Data::In(512));
    let later = guest.submit(WRITE, 1, &Data::Out(vec![2; 512]));
    for _ in 0..3 {
        assert!(matches!(client.event(), Event::Held { .. }));
    }
    // Three more overtake them, each with a head of its own.
    let overtaking = [(); 3].map(|()| guest.submit(KNOB_GET, 0, &Data::In(8)));
    for pending in &overtaking {
        assert_eq!(guest.finish(pending).status, STATUS_OK);
    }
    program.kill();
    guest.disconnect();
    program.restart(&arguments);
    guest.connect(&program);
    guest.start();
    // In their old order, and nothing else.
    assert_eq!(guest.finish(&write).status, STATUS_OK);
    assert_eq!(guest.finish(&read).status, STATUS_OK);
    assert_eq!(guest.finish(&later).status, STATUS_OK);
    assert_eq!(program.client().counters().seen, 3);
    assert_eq!(guest.request(READ, 0, &Data::In(512)).data, vec![1; 512]);
    assert_eq!(guest.request(READ, 1, &Data::In(512)).data, vec![2; 512]);
    guest.check_served();
    // Both lives are in one trace, each with a header.
    let trace = program.trace();
    let headers = trace
        .iter()
        .filter(|record| matches!(record, Record::Header { .. }))
        .count();
    assert_eq!(headers, 2);
}

#[test]
fn a_socket_that_is_in_use_is_not_taken_and_one_that_is_left_is() {
    let mut program = Program::start(&[]);
    program.client();
    let second = Process::new(env!("CARGO_BIN_EXE_dk-device"))
        .current_dir(program.path(""))
        .args(["--socket", "other.sock", "--control", "control.sock"])
        .output()
        .expect("ran");
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        told.contains("control.sock: another program listens there"),
        "{told}"
    );
    assert!(
        !program.path("other.sock").exists(),
        "what it had is given back"
    );
    program.client();
    program.kill();
    assert!(
        program.path("dk.sock").exists(),
        "a killed program leaves its socket"
    );
    program.restart(&[]);
    Guest::started(&program).check_served();
}

#[test]
fn a_socket_that_another_took_is_left_to_it() {
    let mut program = Program::start(&[]);
    program.client();
    std::fs::remove_file(program.path("dk.sock")).expect("removed");
    let other = UnixListener::bind(program.path("dk.sock")).expect("bound");
    program.signal(Signal::TERM);
    assert!(program.ended().success());
    assert!(program.path("dk.sock").exists());
    drop(other);
}

#[test]
fn a_trace_that_was_torn_is_mended() {
    let program = {
        let mut program = Program::start(&[]);
        program.client();
        program.kill();
        program
    };
    let path = program.path("trace.jsonl");
    let whole = std::fs::read_to_string(&path).expect("a trace");
    std::fs::write(&path, format!("{whole}{{\"at\":\"se")).expect("torn");
    let mut program = program;
    program.restart(&[]);
    program.client();
    let text = std::fs::read_to_string(&path).expect("a trace");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[1], "{\"at\":\"se");
    let header = dk_control::from_line::<Record>(lines[2]).expect("a record");
    assert!(matches!(header, Record::Header { .. }));
}

#[test]
fn what_it_can_not_start_with_is_told_in_a_line() {
    for (arguments, told) in [
        (["--size", "1000"], "a disk of 1000 bytes can't be served"),
        (["--size", "0"], "a disk of 0 bytes can't be served"),
        (["--id", "a name of 21 bytes..."], "is longer than 20 bytes"),
        (
            ["--disk", "nowhere.img"],
            "failed to open the disk nowhere.img",
        ),
        (
            ["--trace", "nowhere/t"],
            "failed to open the trace nowhere/t",
        ),
        (["--socket", "nowhere/s"], "failed to listen at nowhere/s"),
    ] {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mut all = vec!["--control", "control.sock"];
        if arguments[0] != "--socket" {
            all.extend(["--socket", "dk.sock"]);
        }
        all.extend(arguments);
        let output = Process::new(env!("CARGO_BIN_EXE_dk-device"))
            .current_dir(dir.path())
            .args(all)
            .output()
            .expect("ran");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(told) && text.lines().count() == 1, "{text}");
        let left = std::fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, 0, "{arguments:?}");
    }
}
