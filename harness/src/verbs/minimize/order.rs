//! A finding of delays as an order of instructions: the candidates are tried, one after the other,
//! until one shows it again and again.

use crate::error::Error;
use crate::judge::finding::Evidence;
use crate::judge::plan::Plan;
use crate::judge::plan::instructions::Race;
use crate::report::dir::RunDir;
use crate::report::progress::HowFar;
use crate::symbols::ModuleSymbols;

use super::super::episodes::Episodes;
use super::super::repro::Case;

/// So often in a row a candidate must show it.
const TRIES: u64 = 3;

/// The episode of two ops, in an order, that shows a finding of delays; nothing if none does, or the
/// finding doesn't tell enough, which is said.
pub(super) fn search(case: &Case, dir: RunDir, command: &[String]) -> Result<Option<Plan>, Error> {
    // A reproducer alone doesn't tell how the episode went.
    let Some(finding) = &case.replay.finding else {
        return Ok(None);
    };
    let (Evidence::Kernel { report }, Some(record)) = (&finding.evidence, &finding.record) else {
        return Ok(None);
    };
    let symbols = ModuleSymbols::of(&case.prepared.files);
    let cpus = finding.setting.guest.cpus;
    let race = Race::of(&case.plan, report, record, cpus, |module, frame| {
        symbols.start(module, frame)
    });
    let race = match race {
        Ok(race) => race,
        Err(why) => {
            eprintln!("knobrig: the delays can't be made an order: {why}");
            return Ok(None);
        }
    };
    let mut search = Search {
        plans: case.plan.ordered(&race),
        key: &finding.key,
        at: 0,
        shown: 0,
    };
    case.campaign(dir, command)?.verdict(&mut search)?;
    if search.shown < TRIES {
        eprintln!(
            "knobrig: none of {} orders shows it; the delays stay",
            search.plans.len()
        );
        return Ok(None);
    }
    Ok(search.plans.into_iter().nth(search.at))
}

/// Candidates, each until it doesn't show it.
struct Search<'a> {
    plans: Vec<Plan>,
    key: &'a str,
    /// Which is tried.
    at: usize,
    /// How often in a row it has shown it.
    shown: u64,
}

impl Episodes for Search<'_> {
    fn next(&mut self, number: u64) -> Plan {
        // Whoever asks for one has asked before whether all is done.
        self.plans[self.at].numbered(number)
    }

    fn told(&mut self, shown: Option<&str>) {
        if shown == Some(self.key) {
            self.shown += 1;
        } else {
            self.at += 1;
            self.shown = 0;
        }
    }

    fn how_far(&self) -> Option<HowFar> {
        let (order, orders) = (self.at + 1, self.plans.len());
        Some(HowFar {
            says: format!(
                "order {order} of {orders} has shown it {} times",
                self.shown
            ),
            share: None,
        })
    }

    fn done(&self) -> bool {
        self.at >= self.plans.len() || self.shown >= TRIES
    }
}
