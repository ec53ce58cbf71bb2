//! One guest's turn: set-up, a look around in the first one, and episodes until the goal or a
//! failure. Of two nested results the inner error tells how the guest was lost.

use std::pin::pin;
use std::time::Duration;

use dk_control::Event as Witnessed;
use knobrig_klog::Report;
use knobrig_proto::Step;
use tokio::time::{Instant, timeout};

use super::Campaign;
use crate::engine::episode::{self, Ended, Whole};
use crate::engine::guest::{Guest, Happening, Loss};
use crate::error::Error;
use crate::judge::finding::{self, Evidence, Met};
use crate::judge::oracle::{self, Collisions, Violation};
use crate::judge::plan::{ENOENT, Plan, Shape, leaks};
use crate::judge::record::Record;
use crate::report::events::Event;
use crate::verbs::episodes::{Episodes, Went};
use crate::verbs::look;
use crate::verbs::rehearsal::{self, Rehearsal};

/// The longest that modules which were left may take to unload; then the guest is spent.
const CLEAR: Duration = Duration::from_secs(3);
/// An episode that lasts so long hangs, as it seems: where a failure is to be shown again, the next guest
/// boots meanwhile.
const HANGS: Duration = Duration::from_secs(1);
/// Plans kept so that a late report finds the episode that it came of.
const PLANS_KEPT: usize = 64;

/// Why a guest's turn ended.
pub(super) enum TurnEnd {
    /// The goal is reached.
    Goal,
    /// A failure was met; the guest is spent.
    Found,
    /// No failure that counts, but something was left in the guest.
    Spent,
}

/// The guest whose turn it is.
pub(super) struct Turn<'a> {
    pub(super) guest: &'a mut Guest,
    /// Counted from 1.
    pub(super) number: u64,
    /// Its times count from here.
    pub(super) first: Instant,
}

impl Turn<'_> {
    fn met(&self, episode: Option<u64>, at: Instant) -> Met {
        Met {
            guest: self.number,
            episode,
            guest_ms: at.duration_since(self.first).as_millis() as u64,
        }
    }
}

impl Campaign<'_> {
    /// Episodes in one guest until the goal or a failure.
    pub(super) async fn turn(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &mut Turn<'_>,
    ) -> Result<Result<TurnEnd, Loss>, Error> {
        match self.get_to_know(episodes, turn).await? {
            Ok(None) => {}
            Ok(Some(end)) => return Ok(Ok(end)),
            Err(loss) => return Ok(Err(loss)),
        }
        turn.first = Instant::now();
        while !self.reached() && !episodes.done() {
            match self.episode(episodes, turn).await? {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(Ok(end)),
                Err(loss) => return Ok(Err(loss)),
            }
        }
        // Nothing is clean that was not heard to the end.
        match turn.guest.drain_console().await {
            Ok(Some(Happening::Report {
                report,
                episode,
                begun,
            })) => {
                self.date(episode, turn.guest);
                self.found(vec![Evidence::Kernel { report }], turn.met(episode, begun))?;
                Ok(Ok(TurnEnd::Found))
            }
            Ok(_) => Ok(Ok(TurnEnd::Goal)),
            Err(loss) => Ok(Err(loss)),
        }
    }

    /// Sets the guest up, and has the first one tell what only a guest knows.
    async fn get_to_know(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &mut Turn<'_>,
    ) -> Result<Result<Option<TurnEnd>, Loss>, Error> {
        if let Err(loss) = self.set_up(turn.guest).await {
            return Ok(Err(loss));
        }
        let sees_leaks = vec![leaks::no_scan_of_its_own()];
        match turn.guest.run_steps(sees_leaks).await {
            Ok(outcomes) if outcomes.iter().all(|outcome| outcome.ret >= 0) => {
                episodes.sees_leaks()
            }
            Ok(_) => {}
            Err(loss) => return Ok(Err(loss)),
        }
        if self.whole.is_some() {
            return Ok(Ok(None));
        }
        // A file of the user's may name a module that can't be used; ours are known.
        if !self.target.ships() {
            match self.rehearse(turn).await? {
                Ok(false) => {}
                // No guest would come further.
                Ok(true) => return Ok(Ok(Some(TurnEnd::Goal))),
                Err(loss) => return Ok(Err(loss)),
            }
        }
        match look::around(turn.guest, self.target).await {
            Ok(whole) => {
                episodes.looked(&whole);
                self.whole = Some(whole);
                Ok(Ok(None))
            }
            // What it was told of that is not there, the kernel may tell why.
            Err(loss) => match turn.guest.drain_console().await {
                Ok(Some(Happening::Report { report, .. })) => {
                    let met = turn.met(None, turn.first);
                    self.found(vec![Evidence::Kernel { report }], met)?;
                    Ok(Ok(Some(TurnEnd::Found)))
                }
                _ => Ok(Err(loss)),
            },
        }
    }

    /// The target's set-up in a fresh guest. A step that fails is the target's fault, unless
    /// the kernel reported.
    async fn set_up(&mut self, guest: &mut Guest) -> Result<(), Loss> {
        let steps = self.target.setup();
        let outcomes = guest.run_steps(steps.clone()).await?;
        match super::failed_step(&steps, &outcomes) {
            None => Ok(()),
            Some(why) => Err(Loss::Rig(Error::Target(format!(
                "target {}: set-up failed: {why}",
                self.target.target.name
            )))),
        }
    }

    /// Loads and unloads the target's modules once; true if the kernel reported.
    async fn rehearse(&mut self, turn: &mut Turn<'_>) -> Result<Result<bool, Loss>, Error> {
        let log = self.dir.console_log();
        let bad = match rehearsal::load(turn.guest, self.target, &log).await {
            Ok(None) => rehearsal::unload(turn.guest, self.target, &log).await,
            bad => bad,
        };
        match bad {
            Ok(None) => Ok(Ok(false)),
            Ok(Some(Rehearsal::Reported { report, .. })) => {
                let met = turn.met(None, Instant::now());
                self.found(vec![Evidence::Kernel { report }], met)?;
                Ok(Ok(true))
            }
            Ok(Some(failed)) => failed.end(&self.target.target.name).map(|_| Ok(true)),
            Err(loss) => Ok(Err(loss)),
        }
    }

    /// The next episode, from its choice to what came of it.
    async fn episode(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &mut Turn<'_>,
    ) -> Result<Result<Option<TurnEnd>, Loss>, Error> {
        let number = self.next_episode;
        self.next_episode += 1;
        let plan = episodes.next(number);
        self.keep_plan(number, &plan);
        let begun = Instant::now();
        let aftermath = match self.only_sought {
            true => Duration::ZERO,
            false => episode::AFTERMATH,
        };
        let ended = {
            let mut run = pin!(episode::run(turn.guest, &plan, aftermath));
            match timeout(HANGS, run.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    if self.sought.is_some() {
                        self.boot_spare();
                    }
                    run.await
                }
            }
        };
        if let Some(acting) = turn.guest.acting {
            let after = acting.saturating_duration_since(turn.first);
            self.summary
                .first_acting_ms
                .get_or_insert(after.as_millis() as u64);
        }
        match ended {
            Ok(Ended::Whole(whole)) => {
                // What it left and could not list yet would be the next one's.
                let spent = plan.shape == Shape::Leaks && self.sought.is_some();
                let end = self.whole_episode(episodes, turn, number, &plan, begun, *whole);
                Ok(end
                    .await?
                    .map(|end| end.or(spent.then_some(TurnEnd::Spent))))
            }
            Ok(Ended::Kernel {
                report,
                episode: of,
                record,
                begun,
            }) => {
                // Cut short by the report, but an episode all the same.
                let mut collisions = Collisions::default();
                if let Some(report) = &record.report {
                    let held = !record.gates.is_empty();
                    collisions = oracle::collisions(&plan, report, held);
                    self.summary.add(!plan.gates.is_empty(), held, collisions);
                }
                episodes.went(&Went {
                    plan: &plan,
                    record: &record,
                    collisions,
                });
                self.records.insert(number, *record);
                self.date(of, turn.guest);
                let key = self.found(vec![Evidence::Kernel { report }], turn.met(of, begun))?;
                // Of an episode with other parts left out, it is no word on this one.
                let late = self.only_sought && of.is_some_and(|of| of != number);
                self.told(episodes, key.as_deref().filter(|_| !late))?;
                Ok(Ok(Some(TurnEnd::Found)))
            }
            Err(loss) => Ok(Err(loss)),
        }
    }

    fn keep_plan(&mut self, episode: u64, plan: &Plan) {
        self.plans.insert(episode, plan.clone());
        while self.plans.len() > PLANS_KEPT {
            self.plans.pop_first();
            self.records
                .retain(|number, _| self.plans.contains_key(number));
        }
    }

    /// An episode that the agent has told of to its end.
    async fn whole_episode(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &mut Turn<'_>,
        episode: u64,
        plan: &Plan,
        begun: Instant,
        whole: Whole,
    ) -> Result<Result<Option<TurnEnd>, Loss>, Error> {
        let since_set_up = self.started.elapsed().saturating_sub(self.set_up);
        self.summary
            .first_episode_ms
            .get_or_insert(since_set_up.as_millis() as u64);
        let collisions = self.tell_of(episodes, turn, episode, plan, begun, &whole)?;
        let left = leaks::left(plan, &whole.report.after, |text| {
            turn.guest.read_aside(text)
        });
        let verdict = oracle::judge(plan, &whole.report, whole.ring_runs);
        self.summary.add_rules(&verdict.held);
        let stuck = !whole.report.stuck.is_empty();
        let record = Record {
            report: Some(whole.report),
            ..whole.record
        };
        episodes.went(&Went {
            plan,
            record: &record,
            collisions,
        });
        self.records.insert(episode, record);
        let mut evidence = self.evidence(verdict.violations, whole.witnessed, left);
        if evidence.is_empty() && !episodes.each_heard_out() {
            self.told(episodes, None)?;
            return Ok(Ok(None));
        }
        // The kernel's own words, if there are any, tell more.
        let mut at = Instant::now();
        match turn.guest.drain_console().await {
            Ok(Some(Happening::Report { report, begun, .. })) => {
                at = at.min(begun);
                evidence.insert(0, Evidence::Kernel { report });
            }
            Ok(_) => {}
            Err(loss) if evidence.is_empty() => return Ok(Err(loss)),
            Err(_) => {}
        }
        if evidence.is_empty() {
            return self.clean_episode(episodes, turn, episode, stuck).await;
        }
        self.date(Some(episode), turn.guest);
        let key = self.found(evidence, turn.met(Some(episode), at))?;
        self.told(episodes, key.as_deref())?;
        Ok(Ok(Some(TurnEnd::Found)))
    }

    /// What the rig's own oracles said of an episode, as far as it counts.
    fn evidence(
        &self,
        mut violations: Vec<Violation>,
        witnessed: Vec<Witnessed>,
        left: Vec<Report>,
    ) -> Vec<Evidence> {
        let sought = self.sought.as_ref().filter(|_| self.only_sought);
        if let Some(sought) = sought {
            violations.retain(|violation| {
                let violation = violation.clone();
                sought.is_shown_by(&Evidence::Rule { violation }.name())
            });
        }
        let mut evidence = finding::evidence(violations, witnessed, left);
        evidence.retain(|it| sought.is_none_or(|sought| sought.is_shown_by(&it.name())));
        evidence
    }

    /// Counts an episode, and tells how it went; gives what its teardowns and ops came to.
    fn tell_of(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &Turn<'_>,
        episode: u64,
        plan: &Plan,
        begun: Instant,
        whole: &Whole,
    ) -> Result<Collisions, Error> {
        let surveyed = (plan.shape == Shape::Survey).then_some(plan.program.as_ref());
        if let Some(program) = surveyed.flatten() {
            let points = episodes.surveyed(program, &whole.report.passes);
            self.tell(&Event::Surveyed {
                episode,
                program: program.clone(),
                points,
            })?;
        }
        if let Some(why) = whole.report.ungated.clone() {
            self.tell(&Event::Ungated { episode, why })?;
        }
        if let Some(promise) = plan.pct {
            self.summary.add_pct(promise);
        }
        if !whole.report.gates.is_empty() {
            self.summary.add_gates(&whole.report.gates);
            self.tell(&Event::GatesEnded {
                episode,
                gates: whole.report.gates.clone(),
            })?;
        }
        let collisions = oracle::collisions(plan, &whole.report, whole.held);
        self.summary
            .add(!plan.gates.is_empty(), whole.held, collisions);
        self.tell(&Event::EpisodeEnded {
            episode,
            guest: turn.number,
            shape: plan.shape,
            held: whole.held,
            ms: begun.elapsed().as_millis() as u64,
            collisions,
        })?;
        Ok(collisions)
    }

    /// The log's clock may have become known only after an episode that it tells of.
    fn date(&mut self, episode: Option<u64>, guest: &Guest) {
        let record = episode.and_then(|episode| self.records.get_mut(&episode));
        if let Some(record) = record {
            record.log_ahead_ns = record.log_ahead_ns.or(guest.log_ahead_ns());
        }
    }

    /// An episode that showed nothing, unless it comes late.
    async fn clean_episode(
        &mut self,
        episodes: &mut dyn Episodes,
        turn: &mut Turn<'_>,
        episode: u64,
        stuck: bool,
    ) -> Result<Result<Option<TurnEnd>, Loss>, Error> {
        // Where a thread hangs, an unload would too.
        let cleared = !stuck
            && match self.clear(turn.guest).await {
                Ok(cleared) => cleared,
                Err(loss) => return Ok(Err(loss)),
            };
        match turn.guest.drain_console().await {
            Ok(Some(Happening::Report { report, begun, .. })) => {
                self.date(Some(episode), turn.guest);
                let met = turn.met(Some(episode), begun);
                let key = self.found(vec![Evidence::Kernel { report }], met)?;
                // With parts left out it may be the unload's, which isn't the episode's.
                self.told(episodes, key.as_deref().filter(|_| !self.only_sought))?;
                Ok(Ok(Some(TurnEnd::Found)))
            }
            Ok(_) => {
                self.told(episodes, None)?;
                Ok(Ok((!cleared).then_some(TurnEnd::Spent)))
            }
            Err(loss) => Ok(Err(loss)),
        }
    }

    /// An episode that was cut down may leave modules behind that the next one loads. Gives whether
    /// none is left.
    async fn clear(&mut self, guest: &mut Guest) -> Result<bool, Loss> {
        let loaded = self.target.modules().filter(|module| !module.once);
        let mut steps: Vec<_> = loaded.map(|module| Step::unload(&module.name)).collect();
        steps.reverse();
        // Something that nobody gives back any more may be waited for.
        match timeout(CLEAR, guest.run_steps(steps)).await {
            // What is gone already can't be unloaded.
            Ok(outcomes) => {
                Ok((outcomes?.iter()).all(|outcome| outcome.ret >= 0 || outcome.ret == ENOENT))
            }
            Err(_) => Ok(false),
        }
    }
}
