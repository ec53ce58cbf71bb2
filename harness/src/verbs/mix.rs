//! Seeded episodes: a mix of shapes that moves with what finds.

use knobrig_proto::Pass;

use super::episodes::{Episodes, Went};
use super::prepare::Prepared;
use crate::judge::bandit::{self, Bandit, Novelty};
use crate::judge::oracle;
use crate::judge::plan::{Plan, Points, Program, Shape, Spot, kinds, mix, plan};
use crate::report::events::Event;
use crate::target::Chosen;

/// Seeded episodes of some shapes, or of the usual mix if there are none.
#[derive(Clone, Debug)]
pub(super) struct Mix<'a> {
    target: &'a Chosen,
    seed: u64,
    shapes: Vec<Shape>,
    /// Where its actors can be held.
    points: Points,
    /// Which shape comes next.
    bandit: Option<Bandit>,
    novelty: Novelty,
    /// The shape that was chosen last, its chance, and what it has paid so far.
    chosen: Option<(Shape, f64, f64)>,
    /// What is to be told of the choices.
    told: Vec<Event>,
    /// The last episode's number.
    number: u64,
    /// The target with what only a guest knows, once a guest has told.
    whole: Option<Chosen>,
    sees_leaks: bool,
}

/// The episodes that look for leaks, where the kernel can: this one, and then four times as many
/// each time. Such a look takes as long as some dozen episodes.
const FIRST_LEAKS: u64 = 16;

impl<'a> Mix<'a> {
    /// Of these shapes; none for the usual mix.
    pub(super) fn new(
        target: &'a Chosen,
        prepared: &Prepared,
        seed: u64,
        shapes: Vec<Shape>,
    ) -> Self {
        Self {
            target,
            seed,
            shapes,
            points: match prepared.gates {
                true => Points::among(prepared.functions.iter().cloned()),
                false => Points::default(),
            }
            .with_vcpus(prepared.delays()),
            bandit: None,
            novelty: Novelty::default(),
            chosen: None,
            told: Vec::new(),
            number: 0,
            whole: None,
            sees_leaks: false,
        }
    }
}

fn looks_for_leaks(number: u64) -> bool {
    let times = number / FIRST_LEAKS;
    number.is_multiple_of(FIRST_LEAKS) && times.is_power_of_two() && times.ilog2().is_multiple_of(2)
}

impl Episodes for Mix<'_> {
    fn next(&mut self, number: u64) -> Plan {
        let target = self.whole.as_ref().unwrap_or(self.target);
        // Only once a guest has told of the target is known which shapes it can have.
        let (seed, shapes) = (self.seed, &self.shapes);
        let vcpus = self.points.vcpus();
        let bandit = (self.bandit).get_or_insert_with(|| {
            Bandit::new(seed, &mix(target, vcpus, shapes), |shape| {
                kinds(target, shape)
            })
        });
        let usual = shapes.is_empty();
        // As it was decided before: nothing is learnt of it.
        let decided = if usual && self.sees_leaks && looks_for_leaks(number) {
            Some(Shape::Leaks)
        } else {
            // What a survey has just found is tried at once.
            self.points.fresh().map(|_| Shape::Placed)
        };
        let chosen = match decided {
            Some(shape) => Some((shape, 1.0)),
            None => bandit.choose(number),
        };
        if let (None, Some((shape, _))) = (decided, chosen) {
            self.points.chose(shape);
        }
        self.chosen = chosen.map(|(shape, chance)| (shape, chance, 0.0));
        self.number = number;
        let shapes: Vec<_> = chosen.iter().map(|(shape, _)| *shape).collect();
        let plan = plan(target, &self.points, seed, number, &shapes);
        match &plan.program {
            Some(program) if plan.shape == Shape::Survey => self.points.begin(program),
            Some(program) if plan.pct.is_none() => self.points.took(program),
            Some(_) | None => {}
        }
        plan
    }

    fn sees_leaks(&mut self) {
        self.sees_leaks = true;
    }

    fn went(&mut self, went: &Went<'_>) {
        if let (Some((.., paid)), Some(report)) = (&mut self.chosen, &went.record.report) {
            let order = bandit::order(went.plan, report);
            *paid += self.novelty.episode(order, &went.collisions);
        }
        if let (Shape::Survey, Some(report)) = (went.plan.shape, &went.record.report) {
            self.points
                .teardown_took(oracle::slowest_teardown_ms(went.plan, report));
        }
    }

    fn told(&mut self, shown: Option<&str>) {
        let (Some((shape, chance, paid)), Some(bandit)) = (self.chosen.take(), &mut self.bandit)
        else {
            return;
        };
        let failure = shown.map_or(0.0, |key| self.novelty.failure(key));
        let paid = (paid + failure).min(1.0);
        bandit.paid(shape, chance, paid);
        self.told.push(Event::Chosen {
            episode: self.number,
            shape,
            chance,
            paid,
        });
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told)
    }

    fn looked(&mut self, whole: &Chosen) {
        self.bandit = None;
        self.whole = Some(whole.clone());
    }

    fn surveyed(&mut self, program: &Program, passes: &[Pass]) -> Vec<Spot> {
        self.points.surveyed(program, passes);
        self.points.of(program).unwrap_or_default().to_vec()
    }

    fn each_heard_out(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_for_leaks_become_rare() {
        let looks: Vec<_> = (1..=5_000).filter(|n| looks_for_leaks(*n)).collect();
        assert_eq!(looks, [16, 64, 256, 1024, 4096]);
    }
}
