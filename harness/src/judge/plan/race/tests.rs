//! Races as text, as points and as episodes.

use knobrig_proto::{End, Step};

use super::*;
use crate::judge::plan::{Shape, Then, When};
use crate::schedule::Schedule;

fn chosen(lifetime: &str) -> Chosen {
    Chosen::find("mydrv", Some(lifetime), None).expect("built in")
}

fn race(text: &str) -> Race {
    Race::parse(&chosen("drained"), text).expect("a race")
}

fn call(actor: Actor, function: &str, end: End) -> Occurrence {
    Occurrence {
        actor: name(actor),
        op: None,
        nth: 1,
        at: At::Call {
            function: function.into(),
            end,
            own: false,
        },
    }
}

#[test]
fn a_race_is_read_and_what_is_none_is_told() {
    let race = race("read  myknob0||rmmod");
    assert_eq!(race.text(), "read myknob0 || rmmod");
    let calls = race.calls();
    let words = |actor: usize| -> Vec<_> {
        calls.actors[actor]
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        words(0),
        ["A.open#1@begin", "A.read#1@begin", "A.close#1@begin"]
    );
    assert_eq!(words(1), ["B.teardown#1@begin"]);
    for (text, why) in [
        ("read myknob0", "1 actors"),
        ("read nonsense || rmmod", "no knob is named nonsense"),
        ("rmmod || unbind", "more than one teardown"),
        ("read myknob0 || ", "does nothing"),
        ("lick myknob0 || rmmod", "is no op"),
        ("read dk0 || read dk0 || read dk0 || rmmod", "4 actors"),
    ] {
        let error = Race::parse(&chosen("drained"), text).expect_err(text);
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains("'read myknob0 || rmmod'"));
    }
}

/// A stands in the device, B goes to a point of its own, A ends, B ends.
#[test]
fn turns_become_gates_and_what_follows_from_what() {
    let (target, race) = (chosen("drained"), race("read myknob0 || rmmod"));
    let mut way = race.calls();
    let inside = Occurrence {
        at: At::Device("seen".into()),
        ..way.actors[0][1].clone()
    };
    way.actors[0].insert(2, inside);
    way.actors[1].push(call(1, "kernfs_drain", End::Entry));
    let turns = Program::turns(&[0, 0, 1, 0, 0, 1]);
    let ordered = ordered(&target, &race, &way, &turns, 7, 1_000);
    let plan = &ordered.plan;
    assert_eq!(plan.gates[0].tag, "A.read#1@device.seen");
    assert_eq!(plan.episode.gates[0].tag, "B#1@fn:kernfs_drain.entry");
    let reaction = |when: When| -> Vec<Then> {
        let all = plan.reactions.iter().filter(|it| it.when == when);
        all.flat_map(|it| it.then.clone()).collect()
    };
    let begin = Then::Raise("B.teardown#1@begin".into());
    let answer = Then::Free("A.read#1@device.seen".into());
    let drain = Then::Free("B#1@fn:kernfs_drain.entry".into());
    assert_eq!(
        reaction(When::Held("A.read#1@device.seen".into())),
        std::slice::from_ref(&begin)
    );
    assert_eq!(
        reaction(When::Held("B#1@fn:kernfs_drain.entry".into())),
        std::slice::from_ref(&answer)
    );
    // A's end lets B go on, and does so too if A never came to the device.
    assert_eq!(reaction(When::Settled("A".into(), 3)), [begin, drain]);
    assert_eq!(reaction(When::Settled("B".into(), 2)), [answer]);
    let schedule: Schedule = way.schedule(&[0, 0, 1, 0, 0, 1]);
    assert_eq!(schedule.edges.len(), 3);
}

#[test]
fn a_dry_run_goes_one_by_one_and_stands_nowhere() {
    let (target, race) = (
        chosen("pinned"),
        race("read myknob0 || write myknob1 || unbind"),
    );
    let plan = survey(&target, &race, &["kfree".into()], 1);
    assert_eq!(plan.shape, Shape::Survey);
    assert!(plan.gates.is_empty() && plan.episode.gates.is_empty());
    let waits = |actor: usize| {
        let steps = &plan.episode.actors[actor].steps;
        steps
            .iter()
            .filter(|it| matches!(it, Step::WaitSignal { .. }))
            .count()
    };
    assert_eq!((waits(0), waits(1), waits(2)), (0, 1, 1));
}

#[test]
fn only_what_both_dry_runs_saw_in_one_order_is_a_point() {
    let points = |names: &[&str]| Program {
        actors: vec![names.iter().map(|name| call(0, name, End::Entry)).collect()],
    };
    let agreed = agreed(
        &points(&["a", "b", "c", "d"]),
        &points(&["a", "c", "b", "d"]),
    );
    assert_eq!(agreed, points(&["a", "b", "d"]));
    assert_eq!(super::agreed(&points(&["a"]), &points(&[])), points(&[]));
}

#[test]
fn the_way_to_a_threshold_is_nobody_else_s_affair() {
    let mut way = race("read myknob0 || rmmod").calls();
    way.actors[0].insert(2, call(0, "vfs_read", End::Entry));
    way.actors[1].push(call(1, "kernfs_drain", End::Entry));
    assert!(!dependent(&way, (0, 1), (1, 0)));
    assert!(dependent(&way, (0, 0), (1, 0)) && dependent(&way, (0, 2), (1, 1)));
}
