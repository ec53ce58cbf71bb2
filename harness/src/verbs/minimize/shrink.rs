//! An episode that leaves out ever more, as long as it shows the finding.

use std::collections::BTreeSet;

use knobrig_proto::Step;

use super::super::episodes::{Episodes, Went};
use super::super::repro::chances;
use crate::judge::finding::Name;
use crate::judge::plan::reduce::Part;
use crate::judge::plan::{Plan, Shape};
use crate::report::format::plural;
use crate::report::progress::HowFar;
use crate::schedule::minimize::Levels;

/// So often the whole episode is tried before it counts as one that doesn't show the finding.
pub(super) fn whole_tries(whole: &Plan) -> u64 {
    2 * chances(whole)
}

/// The longest that a candidate's thread waits for another. What it waits for may be left out, and
/// comes within milliseconds where it isn't; if it is late once, a part is kept that could go.
pub(super) const PATIENCE_MS: u64 = 1_500;
/// The longest that a candidate's teardown may take, unless it is sought that it never ends.
const CALL_MS: u64 = 3_000;
/// By then a candidate hangs whose finding is a deadline's: gates let go after 2 s. The minimal episode
/// is tried by its own deadlines.
const HANG_MS: u64 = 3_000;

/// The plan with threads that wait for each other at most so long, and with short deadlines. `hasty`, what
/// is sought hangs, and has [`HANG_MS`]. A scan for leaks has all its time.
pub(super) fn brisk(mut plan: Plan, sought: &Name, hasty: bool, longest_ms: u64) -> Plan {
    let episode = &mut plan.episode;
    for step in episode.actors.iter_mut().flat_map(|it| &mut it.steps) {
        if let Step::WaitSignal { deadline_ms, .. } | Step::AwaitGate { deadline_ms, .. } = step {
            *deadline_ms = longest_ms.min(*deadline_ms);
        }
    }
    let own_ms = episode.call_deadline_ms;
    if hasty {
        episode.deadline_ms = HANG_MS.min(episode.deadline_ms);
        episode.call_deadline_ms = own_ms.map(|ms| HANG_MS.min(ms));
    } else if !sought.hangs() && plan.shape != Shape::Leaks {
        episode.call_deadline_ms = Some(own_ms.map_or(CALL_MS, |ms| CALL_MS.min(ms)));
    }
    plan
}

/// So many times the episodes that show a finding by chance once are a trial, at most [`chances`]: one in
/// twenty trials shows nothing then.
const SURE: u64 = 3;

/// Threads, then what is opened, with all that uses it, or looked for when they have ended, and then all
/// else.
fn levels(whole: &Plan, parts: &[Part]) -> Levels<Part> {
    let level = |part: &Part| match part {
        Part::Actor(_) => 0,
        Part::After(_) if whole.opens_or_looks(part) => 1,
        _ => 2,
    };
    let of = |number| parts.iter().filter(move |it| level(it) == number);
    Levels::new([0, 1, 2].map(|number| of(number).cloned().collect()))
}

/// What the next episode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trying {
    /// The whole one, for how rarely it shows the finding.
    Whole,
    /// What is left without a candidate.
    Candidate,
    /// What is left; or, `doubted`, what was kept before a candidate that had shown it by chance.
    Rest { doubted: bool },
    /// None: all is known.
    Nothing,
}

/// Episodes that leave out ever more.
pub(super) struct Shrink<'a> {
    whole: &'a Plan,
    sought: &'a Name,
    /// As [`super::Minimizer::hasty`].
    hasty: bool,
    parts: Vec<Part>,
    levels: Levels<Part>,
    /// As [`MinimizeArgs::tries`](crate::cli::MinimizeArgs::tries).
    tries: u64,
    /// Of so many episodes of the whole one shows it; unknown as long as it is tried.
    rarity: Option<u64>,
    trying: Trying,
    /// Of what is tried: trials that showed it, or in a row, of what is left.
    shown: u64,
    /// Of what is tried: episodes of the trial under way.
    under_way: u64,
    /// What was kept before each candidate that showed it, with that candidate the next.
    before: Vec<Levels<Part>>,
    /// What is left showed it as often in a row as is asked for.
    proven: bool,
    /// Episodes so far.
    pub(super) tried: u64,
    /// Threads of the last episode hang.
    hung: bool,
    /// A candidate without what a thread waits for was tried, and did not show it.
    vain: bool,
}

impl<'a> Shrink<'a> {
    pub(super) fn new(whole: &'a Plan, sought: &'a Name, tries: u64, hasty: bool) -> Self {
        let parts = whole.parts(sought.hangs());
        Self {
            whole,
            sought,
            hasty,
            levels: levels(whole, &parts),
            parts,
            tries,
            rarity: None,
            trying: Trying::Whole,
            shown: 0,
            under_way: 0,
            before: Vec::new(),
            proven: false,
            tried: 0,
            hung: false,
            vain: false,
        }
    }

    /// Of so many episodes of the whole one shows it; nothing if none does.
    pub(super) fn rarity(&self) -> Option<u64> {
        self.rarity
    }

    /// An episode of the whole.
    fn told_of_whole(&mut self) {
        let last = self.under_way >= whole_tries(self.whole);
        if self.shown >= self.tries || self.shown > 0 && last {
            self.rarity = Some(self.under_way.div_ceil(self.shown));
            self.begin();
        } else if last {
            self.trying = Trying::Nothing;
        }
    }

    /// An episode of the candidate, and whether it showed the finding. What each of the whole's episodes
    /// shows, one of the candidate's is enough for; what is left tells whether that was chance.
    fn told_of_candidate(&mut self, shown: bool) {
        let (each, enough) = match self.rarity {
            None | Some(1) => (1, 1),
            Some(rarity) => (chances(self.whole).min(SURE * rarity), self.tries),
        };
        // Who waits in vain does so each time, and each time costs a guest.
        let in_vain = self.hung && !self.sought.hangs();
        if !shown && self.under_way < each && !in_vain {
            return;
        }
        self.under_way = 0;
        if !shown {
            let waits = |kept: Vec<_>| self.whole.waits_in_vain(&self.gone(&kept));
            self.vain |= self.levels.candidate().is_some_and(waits);
            self.levels.tell(false);
        } else if self.shown >= enough {
            self.before.push(self.levels.clone());
            self.proven = false;
            self.levels.tell(true);
            self.drop_idle();
        } else {
            return;
        }
        self.begin();
    }

    /// An episode of what is left. Where it doesn't show the finding, a candidate had shown it by chance: what
    /// was kept before the last of them is tried in its turn.
    fn told_of_rest(&mut self, shown: bool, doubted: bool) {
        if !shown {
            self.shown = 0;
            if let Some(levels) = self.before.pop() {
                self.levels = levels;
                self.trying = Trying::Rest { doubted: true };
            } else {
                // It is chance with the whole, too.
                self.levels = levels(self.whole, &self.parts);
                self.rarity = Some(2);
                self.begin();
            }
        } else if self.shown >= self.tries {
            self.proven = true;
            if doubted {
                self.levels.tell(false);
            }
            self.begin();
        }
    }

    /// Goes on to the next candidate, past those that can't show it, and in the end to what is left.
    fn begin(&mut self) {
        (self.shown, self.under_way) = (0, 0);
        while let Some(candidate) = self.levels.candidate()
            && !self.may_show(&candidate)
        {
            self.levels.tell(false);
        }
        let doubtful = self.rarity == Some(1) && !self.proven && !self.before.is_empty();
        self.trying = match self.levels.candidate() {
            Some(_) => Trying::Candidate,
            None if doubtful => Trying::Rest { doubted: false },
            None => Trying::Nothing,
        };
    }

    /// Whether it is worth a try. A thread that waits for what is left out costs a guest.
    fn may_show(&self, kept: &[Part]) -> bool {
        let hangs = || self.vain && self.whole.waits_in_vain(&self.gone(kept));
        self.sought.may_come_of(&self.with(kept)) && !hangs()
    }

    fn with(&self, kept: &[Part]) -> Plan {
        self.whole.without(&self.gone(kept))
    }

    fn gone(&self, kept: &[Part]) -> BTreeSet<Part> {
        let gone = self.parts.iter().filter(|part| !kept.contains(part));
        gone.cloned().collect()
    }

    /// Parts that went with others, as the steps of a thread that is gone, are parts no more.
    fn drop_idle(&mut self) {
        let mut kept = self.levels.kept();
        let plan = self.with(&kept);
        for part in &self.levels.kept() {
            let less: Vec<_> = kept.iter().filter(|it| *it != part).cloned().collect();
            if self.with(&less) == plan {
                kept = less;
            }
        }
        self.levels.retain(|part| kept.contains(part));
    }

    pub(super) fn minimal(&self) -> Plan {
        self.with(&self.levels.kept())
    }
}

impl Episodes for Shrink<'_> {
    fn next(&mut self, number: u64) -> Plan {
        self.hung = false;
        let candidate = match self.trying {
            Trying::Candidate => self.levels.candidate(),
            Trying::Whole | Trying::Rest { .. } | Trying::Nothing => None,
        };
        let kept = candidate.unwrap_or_else(|| self.levels.kept());
        let plan = self.with(&kept).numbered(number);
        brisk(plan, self.sought, self.hasty, PATIENCE_MS)
    }

    fn went(&mut self, went: &Went<'_>) {
        let report = went.record.report.as_ref();
        self.hung = report.is_some_and(|report| !report.stuck.is_empty());
    }

    fn told(&mut self, shown: Option<&str>) {
        let shown = shown == Some(self.sought.key.as_str());
        self.tried += 1;
        self.under_way += 1;
        self.shown += u64::from(shown);
        match self.trying {
            Trying::Whole => self.told_of_whole(),
            Trying::Candidate => self.told_of_candidate(shown),
            Trying::Rest { doubted } => self.told_of_rest(shown, doubted),
            Trying::Nothing => {}
        }
    }

    fn how_far(&self) -> Option<HowFar> {
        let says = format!(
            "{} of {} parts left after {}",
            self.levels.kept().len(),
            self.parts.len(),
            plural(self.tried as usize, "episode")
        );
        Some(HowFar { says, share: None })
    }

    fn done(&self) -> bool {
        self.trying == Trying::Nothing
    }
}

#[cfg(test)]
mod tests {
    use knobrig_proto::{EpisodeReport, Step, Stuck};

    use super::*;
    use crate::judge::oracle::Collisions;
    use crate::judge::plan::{Points, plan};
    use crate::judge::record::Record;
    use crate::target::Chosen;

    fn sought() -> Name {
        Name {
            title: "it".into(),
            key: "k".into(),
        }
    }

    fn whole() -> Plan {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        plan(&target, &Points::default(), 3, 1, &[Shape::Gated])
    }

    /// Asks until all is done, at most so often; gives how often.
    fn ask(shrink: &mut Shrink<'_>, most: u64, shows: impl Fn(&Plan, u64) -> bool) -> u64 {
        let mut number = 0;
        while !shrink.done() {
            number += 1;
            assert!(number < most, "it ends");
            let candidate = shrink.next(number);
            shrink.told(Some(match shows(&candidate, number) {
                true => "k",
                false => "another",
            }));
        }
        number
    }

    fn steps(plan: &Plan) -> impl Iterator<Item = &Step> {
        plan.episode.actors.iter().flat_map(|actor| &actor.steps)
    }

    fn unloads(plan: &Plan) -> bool {
        steps(plan).any(|step| matches!(step, Step::Unload { .. }))
    }

    /// A world in which the failure needs the teardown's unload, and that it waits for the holder.
    #[test]
    fn only_what_the_failure_needs_is_left() {
        let (whole, sought) = (whole(), sought());
        let waits = |steps: &[Step]| matches!(steps[0], Step::WaitSignal { .. });
        let shows = |plan: &Plan| {
            let mut unloads = (plan.episode.actors.iter()).filter(|actor| {
                let is_it = |step: &Step| matches!(step, Step::Unload { .. });
                actor.steps.iter().any(is_it)
            });
            unloads.any(|actor| waits(&actor.steps))
        };
        let mut shrink = Shrink::new(&whole, &sought, 2, false);
        ask(&mut shrink, 500, |plan, _| shows(plan));
        let minimal = shrink.minimal();
        assert!(shows(&minimal));
        // Whose op the device holds, so that the teardown has what it waits for, and the teardown.
        let steps: Vec<_> = steps(&minimal).collect();
        let [open, op, wait, unload] = steps[..] else {
            panic!("{steps:?}");
        };
        assert!(matches!(open, Step::Open { .. }) && op.slot() == open.slot());
        assert!(matches!(wait, Step::WaitSignal { .. }) && matches!(unload, Step::Unload { .. }));
    }

    /// What shows it in every third episode only is tried that much longer.
    #[test]
    fn what_shows_by_chance_is_minimized_too() {
        let (whole, sought) = (whole(), sought());
        let mut shrink = Shrink::new(&whole, &sought, 2, false);
        let shows = |plan: &Plan, number: u64| unloads(plan) && number.is_multiple_of(3);
        ask(&mut shrink, 5_000, shows);
        assert_eq!(shrink.rarity(), Some(3));
        let minimal = shrink.minimal();
        let steps: Vec<_> = steps(&minimal).collect();
        assert!(matches!(steps[..], [Step::Unload { .. }]), "{steps:?}");
    }

    /// What shows without a part by chance, in every other episode, is taken back.
    #[test]
    fn what_shows_by_chance_only_is_not_left() {
        let (whole, sought) = (whole(), sought());
        let mut shrink = Shrink::new(&whole, &sought, 2, false);
        let certain = |plan: &Plan| {
            unloads(plan) && steps(plan).any(|step| matches!(step, Step::WaitSignal { .. }))
        };
        ask(&mut shrink, 500, |plan, number| {
            certain(plan) || unloads(plan) && number.is_multiple_of(2)
        });
        assert!(certain(&shrink.minimal()), "{:?}", shrink.minimal());
    }

    /// What shows twice in three episodes is tried six times, and once where it leaves a thread that hangs.
    #[test]
    fn a_candidate_that_hangs_is_tried_once() {
        let (whole, sought) = (whole(), sought());
        let hung = Record {
            report: Some(EpisodeReport {
                stuck: vec![Stuck {
                    actor: "holder".into(),
                    step: 0,
                    state: "S".into(),
                    stack: String::new(),
                }],
                ..EpisodeReport::default()
            }),
            ..Record::default()
        };
        let episodes_of_the_first = |record: &Record| {
            let mut shrink = Shrink::new(&whole, &sought, 2, false);
            let mut tell = |shown: Option<&str>| {
                let plan = shrink.next(1);
                shrink.went(&Went {
                    plan: &plan,
                    record,
                    collisions: Collisions::default(),
                });
                shrink.told(shown);
                plan
            };
            for shown in [Some("k"), None, Some("k")] {
                tell(shown);
            }
            let first = tell(None);
            1 + (0..).take_while(|_| tell(None) == first).count() as u64
        };
        assert_eq!(episodes_of_the_first(&Record::default()), 2 * SURE);
        assert_eq!(episodes_of_the_first(&hung), 1);
    }

    #[test]
    fn an_episode_that_never_shows_it_is_given_up() {
        let (whole, sought) = (whole(), sought());
        let mut shrink = Shrink::new(&whole, &sought, 2, false);
        let number = ask(&mut shrink, 500, |_, _| false);
        assert_eq!((number, shrink.rarity()), (whole_tries(&whole), None));
    }
}
