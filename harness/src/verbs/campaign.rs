//! Guests and episodes until a goal: what `run`, `gallery`, `lifetimes` and `bench` share. A
//! fresh guest after each failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use knobrig_proto::{Outcome, Pass, Step};
use tokio::time::Instant;

use super::look;
use super::prepare::Prepared;
use super::rehearsal::{self, Rehearsal};
use crate::engine::episode::{self, Ended};
use crate::engine::guest::{BootFailure, Guest, Happening, Loss, Recipe};
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::RunListens;
use crate::judge::bandit::{self, Bandit, Novelty};
use crate::judge::finding::{self, Evidence, Finding, Findings, GuestKind, Met, Name, Setting};
use crate::judge::oracle::{self, Collisions, result_text, step_text};
use crate::judge::plan::{Plan, Points, Program, Shape, Spot, leaks, mix, plan};
use crate::judge::record::Record;
use crate::judge::statistics::Rate;
use crate::judge::summary::{Explored, FindingLine, Summary};
use crate::report::dir::{self, KernelInfo, Manifest, RunDir};
use crate::report::events::{self, Event, Reporter};
use crate::report::picture::links::{Links, SourceUrl};
use crate::report::progress::{Goal, Live};
use crate::symbols::{Files, ModuleSymbols, Symbolizer};
use crate::target::Chosen;

/// So many guests in a row without an episode, and the rig gives up.
const FRUITLESS: u64 = 3;
/// So many deaths of the device program in one run, and the rig gives up.
const DEVICE_DEATHS: u64 = 20;
/// So many faults of the emulator's in one run, and the rig gives up: it is one in hundreds of guests
/// that has one.
const EMULATOR_FAULTS: u64 = 20;
/// Plans kept so that a late report finds the episode that it came of.
const PLANS_KEPT: usize = 64;

/// Where a campaign's episodes come from, one after the other.
pub(super) trait Episodes {
    /// The episode to run under this number.
    fn next(&mut self, number: u64) -> Plan;

    /// A guest's kernel can list what was left allocated.
    fn sees_leaks(&mut self) {}

    /// A guest has told what only a guest knows of the target.
    fn looked(&mut self, _whole: &Chosen) {}

    /// What a survey saw; gives the points that are known of the program now.
    fn surveyed(&mut self, _program: &Program, _passes: &[Pass]) -> Vec<Spot> {
        Vec::new()
    }
    /// How the last one went.
    fn went(&mut self, _went: &Went<'_>) {}
    /// What came of the last one: the key of the failure that it showed. Not called for an episode
    /// that was lost with its guest for no fault of the driver; the next then stands for it.
    fn told(&mut self, _shown: Option<&str>) {}
    /// Whether what one episode showed must be known before the next is chosen. The kernel's
    /// words come over a slow line: to hear them out costs a few milliseconds an episode.
    fn each_heard_out(&self) -> bool {
        true
    }
    /// Whether all that was wanted is known.
    fn done(&self) -> bool {
        false
    }
    /// What is to be told beside what came of the last one.
    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }
    /// How far it is, and what the summary says of that.
    fn explored(&self) -> Option<Explored> {
        None
    }
    /// Keeps what is known by now; the summary is of this moment.
    fn keep(&mut self, _summary: &Summary, _episode: u64) -> Result<(), Error> {
        Ok(())
    }
}

/// How an episode went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Went<'a> {
    /// What was to be.
    pub(super) plan: &'a Plan,
    /// What the guest and the device say.
    pub(super) record: &'a Record,
    /// What its teardowns and ops came to.
    pub(super) collisions: Collisions,
}

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
        let bandit =
            (self.bandit).get_or_insert_with(|| Bandit::new(seed, &mix(target, vcpus, shapes)));
        let usual = shapes.is_empty();
        let chosen = match usual && self.sees_leaks && looks_for_leaks(number) {
            // As it was decided before the first episode: nothing is learnt of it.
            true => Some((Shape::Leaks, 1.0)),
            false => bandit.choose(number),
        };
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

/// The same episode again and again: how often does it show one failure?
#[derive(Clone, Debug)]
pub(super) struct Trials<'a> {
    plan: &'a Plan,
    key: &'a str,
    /// So many at most.
    times: u64,
    /// So many that show it are enough.
    enough: u64,
    /// Episodes of one trial, unless it shows the failure before.
    each: u64,
    tried: u64,
    shown: u64,
    /// Episodes of all trials.
    episodes: u64,
    /// Episodes of the trial under way.
    under_way: u64,
}

impl<'a> Trials<'a> {
    /// `times` trials, fewer if `enough` of them show the failure of this key.
    pub(super) fn new(plan: &'a Plan, key: &'a str, times: u64, enough: u64) -> Self {
        Self {
            plan,
            key,
            times,
            enough,
            each: 1,
            tried: 0,
            shown: 0,
            episodes: 0,
            under_way: 0,
        }
    }

    /// With so many episodes in a trial, unless one shows the failure before.
    pub(super) fn of_episodes(self, each: u64) -> Self {
        Self { each, ..self }
    }

    /// How many of the trials showed it.
    pub(super) fn rate(&self) -> Rate {
        Rate::wilson(self.shown, self.tried)
    }

    /// How many of their episodes did.
    pub(super) fn rate_of_episodes(&self) -> Rate {
        Rate::wilson(self.shown, self.episodes)
    }
}

impl Episodes for Trials<'_> {
    fn next(&mut self, number: u64) -> Plan {
        self.plan.numbered(number)
    }

    fn told(&mut self, shown: Option<&str>) {
        let shown = shown == Some(self.key);
        self.episodes += 1;
        self.under_way += 1;
        if shown || self.under_way >= self.each {
            self.tried += 1;
            self.under_way = 0;
        }
        self.shown += u64::from(shown);
    }

    fn done(&self) -> bool {
        self.tried >= self.times || self.shown >= self.enough
    }
}

/// What a campaign is to be.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Decides every episode.
    pub(super) seed: u64,
    /// When it ends.
    pub(super) goal: Goal,
    /// End at the first finding.
    pub(super) fail_fast: bool,
    /// vCPUs of the guest.
    pub(super) cpus: u32,
    /// Memory of the guest.
    pub(super) memory_mib: u32,
    /// Show it as it goes.
    pub(super) live: bool,
    /// The command line, for the manifest.
    pub(super) command: Vec<String>,
    /// Where the page leads for a line of the kernel.
    pub(super) source_url: SourceUrl,
}

impl Settings {
    /// A campaign that a verb makes on its own account: a guest of the usual size, nothing shown,
    /// over at the first finding.
    pub(super) fn inner(seed: u64, goal: Goal, command: &[String]) -> Self {
        Self {
            seed,
            goal,
            fail_fast: true,
            cpus: 2,
            memory_mib: 512,
            live: false,
            command: command.to_vec(),
            source_url: SourceUrl::default(),
        }
    }
}

/// Why a guest's turn ended.
enum TurnEnd {
    /// The goal is reached.
    Goal,
    /// A failure was met; the guest is spent.
    Found,
}

/// A campaign under way.
pub(super) struct Campaign<'a> {
    started: std::time::Instant,
    /// How long set-up took from then on.
    set_up: std::time::Duration,
    target: &'a Chosen,
    /// The target with what only a guest knows, once a guest has told.
    whole: Option<Chosen>,
    settings: Settings,
    /// What its findings share.
    setting: Setting,
    recipe: Recipe,
    files: Files,
    links: Links,
    summary: Summary,
    findings: Findings,
    plans: BTreeMap<u64, Plan>,
    /// How those of them went that have ended.
    records: BTreeMap<u64, Record>,
    dir: RunDir,
    live: Option<Live>,
    next_episode: u64,
    deadline: Option<Instant>,
    /// While a guest runs episodes.
    turn_began: Option<Instant>,
    /// Wall time of the run that this one goes on with.
    wall_before_ms: u64,
    /// A known failure that the episodes are to show again.
    sought: Option<Name>,
}

impl<'a> Campaign<'a> {
    /// A campaign in a directory of its own, where the manifest is written.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn new(
        started: std::time::Instant,
        target: &'a Chosen,
        prepared: &Prepared,
        settings: Settings,
        dir: RunDir,
    ) -> Result<Self, Error> {
        let setting = Setting {
            target: target.target.name.clone(),
            target_file: target.file.clone(),
            module_dirs: prepared.module_dirs.clone(),
            lifetime: target.lifetime.name.clone(),
            mutant: target.mutant.as_ref().map(|mutant| mutant.name.clone()),
            seed: settings.seed,
            kernel: prepared.kernel.id.clone(),
            guest: GuestKind {
                variant: prepared.kernel.checkers(),
                cpus: settings.cpus,
                memory_mib: settings.memory_mib,
            },
        };
        dir.manifest(&Manifest {
            version: dir::VERSION,
            knobrig: env!("CARGO_PKG_VERSION").into(),
            command: settings.command.clone(),
            started: jiff::Timestamp::now().to_string(),
            setting: setting.clone(),
            kernel: kernel_info(prepared),
            qemu: prepared.qemu.clone(),
            accel: prepared.accel,
            cpus: settings.cpus,
            memory_mib: settings.memory_mib,
        })?;
        let set_up = started.elapsed();
        let summary = Summary {
            set_up_ms: set_up.as_millis() as u64,
            ..blank(target, settings.seed)
        };
        Ok(Self {
            started,
            set_up,
            target,
            whole: None,
            setting,
            recipe: recipe(target, prepared, &settings, &dir),
            files: prepared.files.clone(),
            links: Links::new(&settings.source_url, &prepared.kernel.release),
            summary,
            findings: Findings::default(),
            plans: BTreeMap::new(),
            records: BTreeMap::new(),
            dir,
            live: settings.live.then(|| Live::new(settings.goal)),
            next_episode: 1,
            deadline: None,
            turn_began: None,
            wall_before_ms: 0,
            sought: None,
            settings,
        })
    }

    /// Looks for a known failure: what may be the same, but tells less or more, counts as it.
    pub(super) fn seeking(self, sought: Name) -> Self {
        Self {
            sought: Some(sought),
            ..self
        }
    }

    /// Goes on with a run that came to this, its last episode of that number.
    pub(super) fn resume(&mut self, before: Summary, episode: u64) -> Result<(), Error> {
        self.findings = Findings::of(self.dir.findings()?);
        self.next_episode = episode + 1;
        self.wall_before_ms = before.wall_ms;
        self.summary = Summary {
            interrupted: false,
            set_up_ms: before.set_up_ms + self.summary.set_up_ms,
            ..before
        };
        Ok(())
    }

    /// What its findings share.
    pub(super) fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Where it is kept.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// What was found, by number.
    pub(super) fn findings(&self) -> Vec<&Finding> {
        self.findings.all()
    }

    /// [`Campaign::drive`] for a verb that needs a verdict: an interrupt, or a rig that failed, is
    /// an error.
    pub(super) fn verdict(&mut self, episodes: &mut dyn Episodes) -> Result<Summary, Error> {
        let summary = self.drive(episodes)?;
        match summary.exit() {
            Exit::Interrupted => Err(Error::Interrupted),
            Exit::Rig => Err(Error::Rig(format!(
                "{}: {}",
                summary.title,
                summary.lost_why.as_deref().unwrap_or("no episode ran")
            ))),
            _ => Ok(summary),
        }
    }

    /// Runs until the goal, a signal, or a failure of the rig; writes the summary whatever
    /// happens.
    pub(super) fn drive(&mut self, episodes: &mut dyn Episodes) -> Result<Summary, Error> {
        let listens = RunListens::new();
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.guests(episodes) => result,
                () = listens.interrupted() => {
                    self.summary.interrupted = true;
                    Ok(())
                }
            }
        });
        // Kills what the cancelled future has left, before the summary says that all is gone.
        drop(runtime);
        self.count_turn();
        self.summary.wall_ms = self.wall_ms();
        self.summary.findings = self.finding_lines();
        self.summary.explored = episodes.explored();
        episodes.keep(&self.summary, self.next_episode - 1)?;
        let exit = match &result {
            Ok(()) => self.summary.exit(),
            Err(error) => error.exit(),
        };
        self.tell(&Event::RunEnded { exit: exit as u8 })?;
        self.dir.summary(&self.summary)?;
        (self.dir).page(&self.summary, &self.findings.all(), &self.links)?;
        result.map(|()| self.summary.clone())
    }

    /// Counts the time of the guest's turn that is over, or was cut short.
    fn count_turn(&mut self) {
        if let Some(began) = self.turn_began.take() {
            self.summary.episodes_ms += began.elapsed().as_millis() as u64;
        }
    }

    fn wall_ms(&self) -> u64 {
        self.wall_before_ms + self.started.elapsed().as_millis() as u64
    }

    /// Tells whoever chooses the episodes what came of one, and the others how far he is.
    fn told(&mut self, episodes: &mut dyn Episodes, shown: Option<&str>) -> Result<(), Error> {
        episodes.told(shown);
        for event in episodes.events() {
            self.tell(&event)?;
        }
        let Some(explored) = episodes.explored() else {
            return Ok(());
        };
        let summary = Summary {
            wall_ms: self.wall_ms(),
            findings: self.finding_lines(),
            interrupted: true,
            explored: Some(explored),
            ..self.summary.clone()
        };
        episodes.keep(&summary, self.next_episode - 1)?;
        Ok(())
    }

    fn finding_lines(&self) -> Vec<FindingLine> {
        (self.findings.all().into_iter())
            .map(|finding| FindingLine {
                number: finding.number,
                title: finding.title.clone(),
                key: finding.key.clone(),
                count: finding.count,
                guest_ms: finding.first.guest_ms,
                episode: finding.first.episode,
                oracles: finding.oracles.clone(),
            })
            .collect()
    }

    fn tell(&mut self, event: &Event) -> Result<(), Error> {
        let at = self.started.elapsed();
        if let Some(live) = &mut self.live {
            live.event(at, event)?;
        }
        self.dir.event(at, event)
    }

    async fn guests(&mut self, episodes: &mut dyn Episodes) -> Result<(), Error> {
        let title = self.summary.title.clone();
        let seed = self.settings.seed;
        self.tell(&Event::RunStarted {
            version: events::VERSION,
            title,
            seed,
        })?;
        let mut fruitless = 0;
        while !self.reached() && !episodes.done() {
            let before = self.summary.episodes();
            match self.one_guest(episodes).await? {
                Ok(TurnEnd::Goal) => return Ok(()),
                Ok(TurnEnd::Found) if self.settings.fail_fast => return Ok(()),
                Ok(TurnEnd::Found) => fruitless = 0,
                Err(why) => {
                    fruitless = if self.summary.episodes() > before {
                        0
                    } else {
                        fruitless + 1
                    };
                    if fruitless >= FRUITLESS {
                        return Err(Error::Rig(format!(
                            "{fruitless} guests in a row ran no episode; the last: {why} (see {})",
                            self.dir.console_log().display()
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn reached(&self) -> bool {
        match self.settings.goal {
            Goal::Episodes(goal) => self.next_episode > goal,
            Goal::Duration(_) => self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline),
        }
    }

    /// Boots a guest and runs episodes in it. The inner error tells how it was lost.
    async fn one_guest(
        &mut self,
        episodes: &mut dyn Episodes,
    ) -> Result<Result<TurnEnd, String>, Error> {
        self.summary.guests += 1;
        let number = self.summary.guests;
        self.tell(&Event::GuestBooting { guest: number })?;
        let booted = Instant::now();
        let mut guest = match Guest::boot(&self.recipe).await {
            Ok(guest) => guest,
            Err(BootFailure::Unfit(report)) => {
                self.summary.unfit_boots += 1;
                let title = report.title.clone();
                self.tell(&Event::GuestUnfit {
                    guest: number,
                    title,
                })?;
                return Ok(Err(format!("its boot was not clean: {}", report.title)));
            }
            Err(BootFailure::Lost(loss)) => return self.lost(episodes, number, None, 0, loss),
        };
        let boot_ms = booted.elapsed().as_millis() as u64;
        let kernel = guest.release.clone();
        self.tell(&Event::GuestUp {
            guest: number,
            boot_ms,
            kernel,
        })?;
        if let Goal::Duration(duration) = self.settings.goal {
            self.deadline
                .get_or_insert_with(|| Instant::now() + duration);
        }
        let first = Instant::now();
        self.turn_began = Some(first);
        let turn = self.turn(episodes, &mut guest, number, first).await;
        self.count_turn();
        let guest_ms = first.elapsed().as_millis() as u64;
        match turn {
            Ok(Ok(end)) => {
                guest.stop().await;
                Ok(Ok(end))
            }
            Ok(Err(loss)) => {
                let loss = guest.cause(loss).await;
                guest.stop().await;
                let episode = self
                    .next_episode
                    .checked_sub(1)
                    .filter(|episode| *episode > 0);
                self.lost(episodes, number, episode, guest_ms, loss)
            }
            Err(error) => Err(error),
        }
    }

    /// A guest that is gone: silence and a reset without a word are findings about the driver
    /// once an episode ran; all else is the rig's failure.
    fn lost(
        &mut self,
        episodes: &mut dyn Episodes,
        guest: u64,
        episode: Option<u64>,
        guest_ms: u64,
        loss: Loss,
    ) -> Result<Result<TurnEnd, String>, Error> {
        let why = loss.why();
        let event = match loss {
            Loss::Wordless(end, why) if episode.is_some() => {
                let met = Met {
                    guest,
                    episode,
                    guest_ms,
                };
                let key = self.found(vec![Evidence::Guest { end, why }], met)?;
                self.told(episodes, key.as_deref())?;
                return Ok(Ok(TurnEnd::Found));
            }
            Loss::Rig(error @ (Error::Target(_) | Error::File { .. } | Error::Machine(_))) => {
                return Err(error);
            }
            Loss::Device(why) if self.summary.device_deaths < DEVICE_DEATHS => {
                self.summary.device_deaths += 1;
                Event::DeviceDied { guest, why }
            }
            Loss::Emulator(why) if self.summary.emulator_faults < EMULATOR_FAULTS => {
                self.summary.emulator_faults += 1;
                Event::EmulatorFault { guest, why }
            }
            Loss::Wordless(..)
            | Loss::Device(_)
            | Loss::Emulator(_)
            | Loss::Qemu(_)
            | Loss::Rig(_) => {
                self.summary.lost += 1;
                self.summary.lost_why = Some(why.clone());
                Event::GuestLost {
                    guest,
                    why: why.clone(),
                }
            }
        };
        self.tell(&event)?;
        Ok(Err(why))
    }

    /// Episodes in one guest until the goal or a failure.
    async fn turn(
        &mut self,
        episodes: &mut dyn Episodes,
        guest: &mut Guest,
        number: u64,
        first: Instant,
    ) -> Result<Result<TurnEnd, Loss>, Error> {
        if let Err(loss) = self.set_up(guest).await {
            return Ok(Err(loss));
        }
        match guest.run_steps(vec![leaks::no_scan_of_its_own()]).await {
            Ok(outcomes) if outcomes.iter().all(|outcome| outcome.ret >= 0) => {
                episodes.sees_leaks()
            }
            Ok(_) => {}
            Err(loss) => return Ok(Err(loss)),
        }
        if self.whole.is_none() {
            // A file of the user's may name a module that can't be used; ours are known.
            if !self.target.ships() {
                match self.rehearse(guest, first, number).await? {
                    Ok(false) => {}
                    // No guest would come further.
                    Ok(true) => return Ok(Ok(TurnEnd::Goal)),
                    Err(loss) => return Ok(Err(loss)),
                }
            }
            match look::around(guest, self.target).await {
                Ok(whole) => {
                    episodes.looked(&whole);
                    self.whole = Some(whole);
                }
                // What it was told of that is not there, the kernel may tell why.
                Err(loss) => match guest.drain_console().await {
                    Ok(Some(Happening::Report { report, .. })) => {
                        let met = Met {
                            guest: number,
                            episode: None,
                            guest_ms: 0,
                        };
                        self.found(vec![Evidence::Kernel { report }], met)?;
                        return Ok(Ok(TurnEnd::Found));
                    }
                    _ => return Ok(Err(loss)),
                },
            }
        }
        let first = Instant::now();
        while !self.reached() && !episodes.done() {
            let episode = self.next_episode;
            self.next_episode += 1;
            let plan = episodes.next(episode);
            self.plans.insert(episode, plan.clone());
            while self.plans.len() > PLANS_KEPT {
                self.plans.pop_first();
                self.records
                    .retain(|number, _| self.plans.contains_key(number));
            }
            let begun = Instant::now();
            let ended = episode::run(guest, &plan).await;
            if let Some(acting) = guest.acting {
                let after = acting.saturating_duration_since(first);
                self.summary
                    .first_acting_ms
                    .get_or_insert(after.as_millis() as u64);
            }
            let ended = match ended {
                Ok(ended) => ended,
                Err(loss) => return Ok(Err(loss)),
            };
            let met = |episode, at: Instant| Met {
                guest: number,
                episode,
                guest_ms: at.duration_since(first).as_millis() as u64,
            };
            let whole = match ended {
                Ended::Whole(whole) => *whole,
                Ended::Kernel {
                    report,
                    episode: of,
                    record,
                    begun,
                } => {
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
                    self.records.insert(episode, *record);
                    self.date(of, guest);
                    let key = self.found(vec![Evidence::Kernel { report }], met(of, begun))?;
                    self.told(episodes, key.as_deref())?;
                    return Ok(Ok(TurnEnd::Found));
                }
            };
            let since_set_up = self.started.elapsed().saturating_sub(self.set_up);
            self.summary
                .first_episode_ms
                .get_or_insert(since_set_up.as_millis() as u64);
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
            let held = whole.held;
            let collisions = oracle::collisions(&plan, &whole.report, held);
            let gated = !plan.gates.is_empty();
            self.summary.add(gated, held, collisions);
            self.tell(&Event::EpisodeEnded {
                episode,
                guest: number,
                shape: plan.shape,
                held,
                ms: begun.elapsed().as_millis() as u64,
                collisions,
            })?;
            let leaks = leaks::left(&plan, &whole.report.after, |text| guest.read_aside(text));
            let verdict = oracle::judge(&plan, &whole.report, whole.ring_runs);
            self.summary.add_rules(&verdict.held);
            let record = Record {
                report: Some(whole.report),
                ..whole.record
            };
            episodes.went(&Went {
                plan: &plan,
                record: &record,
                collisions,
            });
            self.records.insert(episode, record);
            let mut evidence = finding::evidence(verdict.violations, whole.witnessed, leaks);
            if evidence.is_empty() && !episodes.each_heard_out() {
                self.told(episodes, None)?;
                continue;
            }
            // The kernel's own words, if there are any, tell more.
            let mut at = Instant::now();
            match guest.drain_console().await {
                Ok(Some(Happening::Report { report, begun, .. })) => {
                    at = at.min(begun);
                    evidence.insert(0, Evidence::Kernel { report });
                }
                Ok(_) => {}
                Err(loss) if evidence.is_empty() => return Ok(Err(loss)),
                Err(_) => {}
            }
            if evidence.is_empty() {
                self.told(episodes, None)?;
                if let Err(loss) = self.clear(guest).await {
                    return Ok(Err(loss));
                }
                continue;
            }
            self.date(Some(episode), guest);
            let key = self.found(evidence, met(Some(episode), at))?;
            self.told(episodes, key.as_deref())?;
            return Ok(Ok(TurnEnd::Found));
        }
        // Nothing is clean that was not heard to the end.
        match guest.drain_console().await {
            Ok(Some(Happening::Report {
                report,
                episode,
                begun,
            })) => {
                let guest_ms = begun.duration_since(first).as_millis() as u64;
                self.date(episode, guest);
                self.found(
                    vec![Evidence::Kernel { report }],
                    Met {
                        guest: number,
                        episode,
                        guest_ms,
                    },
                )?;
                Ok(Ok(TurnEnd::Found))
            }
            Ok(_) => Ok(Ok(TurnEnd::Goal)),
            Err(loss) => Ok(Err(loss)),
        }
    }

    /// The log's clock may have become known only after an episode that it tells of.
    fn date(&mut self, episode: Option<u64>, guest: &Guest) {
        let record = episode.and_then(|episode| self.records.get_mut(&episode));
        if let Some(record) = record {
            record.log_ahead_ns = record.log_ahead_ns.or(guest.log_ahead_ns());
        }
    }

    /// Loads and unloads the target's modules once; true if the kernel reported.
    async fn rehearse(
        &mut self,
        guest: &mut Guest,
        first: Instant,
        number: u64,
    ) -> Result<Result<bool, Loss>, Error> {
        let log = self.dir.console_log();
        let bad = match rehearsal::load(guest, self.target, &log).await {
            Ok(None) => rehearsal::unload(guest, self.target, &log).await,
            bad => bad,
        };
        match bad {
            Ok(None) => Ok(Ok(false)),
            Ok(Some(Rehearsal::Reported { report, .. })) => {
                let met = Met {
                    guest: number,
                    episode: None,
                    guest_ms: first.elapsed().as_millis() as u64,
                };
                self.found(vec![Evidence::Kernel { report }], met)?;
                Ok(Ok(true))
            }
            Ok(Some(failed)) => failed.end(&self.target.target.name).map(|_| Ok(true)),
            Err(loss) => Ok(Err(loss)),
        }
    }

    /// The target's set-up in a fresh guest. A step that fails is the target's fault, unless
    /// the kernel reported.
    async fn set_up(&mut self, guest: &mut Guest) -> Result<(), Loss> {
        let steps = self.target.setup();
        let outcomes = guest.run_steps(steps.clone()).await?;
        match failed_step(&steps, &outcomes) {
            None => Ok(()),
            Some(why) => Err(Loss::Rig(Error::Target(format!(
                "target {}: set-up failed: {why}",
                self.target.target.name
            )))),
        }
    }

    /// An episode that was cut down may leave modules behind that the next one loads.
    async fn clear(&mut self, guest: &mut Guest) -> Result<(), Loss> {
        let loaded = self.target.modules().filter(|module| !module.once);
        let mut steps: Vec<_> = loaded.map(|module| Step::unload(&module.name)).collect();
        steps.reverse();
        // What is gone already can't be unloaded.
        guest.run_steps(steps).await.map(drop)
    }

    /// Takes in what the oracles said of one failure; the first of it names the failure. Gives the
    /// finding's key, or that of the failure looked for.
    fn found(&mut self, evidence: Vec<Evidence>, met: Met) -> Result<Option<String>, Error> {
        let mut evidence = evidence.into_iter();
        let Some(mut first) = evidence.next() else {
            return Ok(None);
        };
        let plan = met.episode.and_then(|episode| self.plans.get(&episode));
        if let Evidence::Kernel { report } = &mut first
            && self.findings.keeps(report, plan)
        {
            // Read for each that is kept and dropped: a kernel's lines take more memory than all else.
            Symbolizer::new(self.files.clone()).symbolize(report);
        }
        let name = first.name();
        let others: Vec<_> = evidence.collect();
        let record = (met.episode).and_then(|episode| self.records.get(&episode).cloned());
        let episode = met.episode;
        let finding = self
            .findings
            .add(first, &others, met, &self.setting, plan, record)
            .clone();
        self.dir.finding(&finding)?;
        self.tell(&Event::Found {
            number: finding.number,
            title: finding.title,
            count: finding.count,
            episode,
        })?;
        let sought = (self.sought.as_ref()).filter(|sought| sought.may_be(&name));
        Ok(Some(sought.map_or(finding.key, |it| it.key.clone())))
    }
}

/// The summary of a campaign in which nothing has happened.
pub(super) fn blank(target: &Chosen, seed: u64) -> Summary {
    Summary {
        version: crate::judge::summary::VERSION,
        title: target.title(),
        seed,
        ..Default::default()
    }
}

pub(super) fn recipe(
    target: &Chosen,
    prepared: &Prepared,
    settings: &Settings,
    dir: &RunDir,
) -> Recipe {
    Recipe {
        qemu: prepared.qemu.clone(),
        accel: prepared.accel,
        cpus: settings.cpus,
        memory_mib: settings.memory_mib,
        kernel: prepared.kernel.boot.clone(),
        initrd: prepared.initrd.clone(),
        device: prepared.device.clone(),
        devices: target.target.devices.clone(),
        hotplug: target.target.teardown.hotplugs(),
        console_log: dir.console_log(),
        device_trace: dir.device_trace(),
        symbols: Arc::new(ModuleSymbols::of(&prepared.files)),
        vcpus: prepared.vcpus.clone(),
    }
}

fn kernel_info(prepared: &Prepared) -> KernelInfo {
    KernelInfo {
        release: prepared.kernel.release.clone(),
        variant: prepared.kernel.checkers(),
        source: prepared.kernel.source.clone(),
        source_hash: prepared.kernel.source_hash.clone(),
        vmlinux: prepared.kernel.vmlinux.clone(),
    }
}

pub(super) fn failed_step(steps: &[Step], outcomes: &[Outcome]) -> Option<String> {
    (steps.iter().zip(outcomes))
        .find(|(_, outcome)| outcome.ret < 0)
        .map(|(step, outcome)| format!("{}: {}", step_text(step), result_text(outcome.ret)))
}

/// One thread: children are tied to the life of the thread that starts them.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let built = builder.enable_all().build();
    built.map_err(|error| Error::Rig(format!("failed to start the runtime: {error}")))
}

/// Runs what works with one guest, to its end or a signal.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let listens = RunListens::new();
    let runtime = runtime()?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            () = listens.interrupted() => Err(Error::Interrupted),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_ends_with_what_it_looks_for_or_with_its_last_episode() {
        let target = Chosen::find("null_blk", None, None).expect("built in");
        let points = Points::default();
        let plan = plan(&target, &points, 1, 1, &[Shape::Loops]);
        let mut trials = Trials::new(&plan, "this", 3, 9).of_episodes(4);
        // Two episodes of the first, four of the second, one of the third.
        let told = [None, Some("this"), None, None, Some("that"), None];
        for shown in told {
            assert!(!trials.done());
            trials.told(shown);
        }
        trials.told(Some("this"));
        assert!(trials.done());
        assert_eq!((trials.rate().hits, trials.rate().attempts), (2, 3));
        assert_eq!(trials.rate_of_episodes().attempts, 7);
    }

    #[test]
    fn looks_for_leaks_become_rare() {
        let looks: Vec<_> = (1..=5_000).filter(|n| looks_for_leaks(*n)).collect();
        assert_eq!(looks, [16, 64, 256, 1024, 4096]);
    }
}
