//! What came of an episode that was to take a race through an order.

use knobrig_proto::{EpisodeReport, Rest};

use super::plan::race::{Ordered, Stood, name};
use super::record::Seen;
use crate::schedule::exhaust::{Came, Impossible};
use crate::schedule::{Actor, Program, Turn};

/// An actor that stands while others have their turns.
struct Stands {
    actor: Actor,
    /// Where, by its place in the actor's way.
    point: usize,
    /// The first of those turns, and the one after the last.
    turns: (usize, usize),
}

/// Who stands where, during which turns.
fn stands(turns: &[Turn]) -> Vec<Stands> {
    let mut all = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        let before = turns[..at].iter().rposition(|it| it.actor == turn.actor);
        let from = before.map_or(0, |before| before + 1);
        if at > 0 {
            all.push(Stands {
                actor: turn.actor,
                point: turn.from,
                turns: (from, at),
            });
        }
    }
    all
}

/// Whether each turn ended where it was to end, before anybody who stood went on by himself.
/// `tried` says how often it was run without a result. What can't be must be seen twice, the
/// second time with more patience: on a slow machine an order can be missed by chance.
pub fn came(
    ordered: &Ordered,
    way: &Program,
    turns: &[Turn],
    report: &EpisodeReport,
    seen: &[Seen],
    asleep: &[Rest],
    tried: u32,
) -> Came {
    let stood = |actor: Actor, point: usize| -> Option<Stood> {
        ordered.stood(actor, point, &way.actors[actor][point], report, seen)
    };
    let stands = stands(turns);
    for (at, turn) in turns.iter().enumerate() {
        let stop = way.actors[turn.actor].get(turn.to);
        let came_ns = match stop {
            Some(_) => stood(turn.actor, turn.to).map(|it| it.from_ns),
            None => ordered.ended(turn.actor, report),
        };
        let meanwhile = stands
            .iter()
            .filter(|it| it.actor != turn.actor && (it.turns.0..it.turns.1).contains(&at));
        for other in meanwhile {
            let overdue = stood(other.actor, other.point).filter(|it| it.overdue);
            if let Some(overdue) = overdue
                && came_ns.is_none_or(|ns| overdue.to_ns <= ns)
            {
                let who = name(turn.actor);
                let step = ordered.step_at(turn.actor, report, overdue.to_ns);
                let slept = (asleep.iter()).find(|it| it.actor == who && Some(it.step) == step);
                let Some(slept) = slept.filter(|_| tried > 0) else {
                    return Came::Undecided(tried + 1);
                };
                let point = &way.actors[other.actor][other.point];
                return Came::Infeasible(Impossible {
                    turn: at,
                    why: format!("{who} waits in {} while {point} is not passed", slept.place),
                    waited: true,
                });
            }
        }
        if came_ns.is_none() {
            let ended = ordered.ended(turn.actor, report).filter(|_| tried > 0);
            let (Some(stop), Some(_)) = (stop, ended) else {
                return Came::Undecided(tried + 1);
            };
            return Came::Infeasible(Impossible {
                turn: at,
                why: format!("{} ends, and {stop} did not come", name(turn.actor)),
                waited: false,
            });
        }
    }
    Came::Ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::race::{Race, ordered};
    use crate::schedule::{At, Occurrence};
    use crate::target::Chosen;
    use knobrig_proto::{ActorReport, End, GateReport, Hold, How, Outcome, Why};

    /// A gate's tag, since when and until when it held, and why no longer.
    type Holds<'a> = (&'a str, Option<(u64, u64, Why)>);

    /// `read myknob0 || rmmod`, B held at a function's entry in the midst of A's way.
    struct World {
        way: Program,
        turns: Vec<Turn>,
        ordered: Ordered,
        tried: u32,
    }

    impl World {
        fn new(went: &[Actor]) -> Self {
            let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
            let race = Race::parse(&target, "read myknob0 || rmmod").expect("a race");
            let mut way = race.calls();
            for (actor, function) in [(0, "show"), (1, "drain")] {
                let at = At::Call {
                    function: function.into(),
                    end: End::Entry,
                    own: false,
                };
                way.actors[actor].push(Occurrence {
                    actor: name(actor),
                    op: None,
                    nth: 1,
                    at,
                });
            }
            let turns = Program::turns(went);
            Self {
                ordered: ordered(&target, &race, &way, &turns, 1, 1_000),
                way,
                turns,
                tried: 1,
            }
        }

        /// Of a second try: a report in which the gates held so, and each actor's steps lasted until
        /// then, the last but one in the kernel.
        fn came(&self, holds: &[Holds<'_>], ends: [u64; 2]) -> Came {
            let gates = holds.iter().map(|(tag, hold)| GateReport {
                tag: (*tag).into(),
                unarmed: None,
                calls: 1,
                hold: hold.map(|(ns, left_ns, why)| Hold {
                    who: "A".into(),
                    ns,
                    how: How::Preempted,
                    left_ns,
                    why,
                }),
                waited: vec![],
            });
            let actors = self.ordered.plan.episode.actors.iter().zip(ends);
            let report = EpisodeReport {
                id: 1,
                actors: actors
                    .map(|(actor, end_ns)| ActorReport {
                        name: actor.name.clone(),
                        outcomes: (actor.steps.iter())
                            .enumerate()
                            .map(|(step, _)| Outcome {
                                ret: 0,
                                // B sleeps in its second step, the unload.
                                start_ns: if step < 2 { 1 } else { end_ns },
                                end_ns: if step == 0 { 2 } else { end_ns },
                                text: None,
                            })
                            .collect(),
                        rounds: 1,
                    })
                    .collect(),
                gates: gates.collect(),
                ..EpisodeReport::default()
            };
            let asleep = [Rest {
                actor: "B".into(),
                step: 1,
                place: "kernfs_drain".into(),
            }];
            came(
                &self.ordered,
                &self.way,
                &self.turns,
                &report,
                &[],
                &asleep,
                self.tried,
            )
        }
    }

    const SHOW: &str = "A#1@fn:show.entry";

    #[test]
    fn an_order_that_was_kept_is_told_so() {
        let world = World::new(&[0, 0, 0, 1, 1, 0]);
        let held = [(SHOW, Some((10, 50, Why::Released)))];
        assert_eq!(world.came(&held, [60, 40]), Came::Ordered);
    }

    #[test]
    fn who_waits_for_one_who_stands_is_told() {
        let world = World::new(&[0, 0, 0, 1, 1, 0]);
        let held = [(SHOW, Some((10, 50, Why::Deadline)))];
        let Came::Infeasible(it) = world.came(&held, [60, 70]) else {
            panic!("B was through only after A");
        };
        assert_eq!((it.turn, it.waited), (1, true));
        let says = "B waits in kernfs_drain while A#1@fn:show.entry is not passed";
        assert_eq!(it.why, says);
        let world = World { tried: 0, ..world };
        assert_eq!(world.came(&held, [60, 70]), Came::Undecided(1));
        // Overdue when B was through already: the next turn is kept all the same.
        assert_eq!(world.came(&held, [60, 40]), Came::Ordered);
    }

    #[test]
    fn a_point_that_does_not_come_is_told() {
        let world = World::new(&[1, 1, 0, 0, 0, 0]);
        assert_eq!(world.came(&[], [60, 40]), Came::Ordered);
        let world = World::new(&[1, 0, 0, 0, 1, 0]);
        let drain = ("B#1@fn:drain.entry", Some((5, 61, Why::Released)));
        let Came::Infeasible(it) = world.came(&[drain, (SHOW, None)], [60, 70]) else {
            panic!("show did not come");
        };
        assert_eq!((it.turn, it.waited), (1, false));
        assert_eq!(it.why, "A ends, and A#1@fn:show.entry did not come");
    }
}
