//! Guests and episodes until a goal: what `run`, `gallery`, `lifetimes` and `bench` share. A
//! fresh guest after each failure.

use std::collections::BTreeMap;

use knobrig_proto::{Outcome, Step};
use tokio::time::Instant;

use super::prepare::Prepared;
use crate::engine::episode::{self, Ended};
use crate::engine::guest::{BootFailure, Guest, Happening, Loss, Recipe};
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::RunListens;
use crate::judge::finding::{Evidence, Findings, Met, Setting};
use crate::judge::oracle::{self, result_text, step_text};
use crate::judge::plan::{Plan, Points, Shape, plan};
use crate::judge::summary::{FindingLine, Summary};
use crate::report::dir::{self, KernelInfo, Manifest, RunDir};
use crate::report::events::{self, Event, Reporter};
use crate::report::progress::{Goal, Live};
use crate::target::Chosen;

/// So many guests in a row without an episode, and the rig gives up.
const FRUITLESS: u64 = 3;
/// So many deaths of the device program in one run, and the rig gives up.
const DEVICE_DEATHS: u64 = 20;
/// Plans kept so that a late report finds the episode that it came of.
const PLANS_KEPT: usize = 64;

/// What a campaign is to be.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Decides every episode.
    pub(super) seed: u64,
    /// When it ends.
    pub(super) goal: Goal,
    /// Restricts the episodes; empty for the usual mix.
    pub(super) shapes: Vec<Shape>,
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
}

impl Settings {
    /// A campaign that a verb makes on its own account: a guest of the usual size, nothing shown,
    /// over at the first finding.
    pub(super) fn inner(seed: u64, goal: Goal, command: &[String]) -> Self {
        Self {
            seed,
            goal,
            shapes: Vec::new(),
            fail_fast: true,
            cpus: 2,
            memory_mib: 512,
            live: false,
            command: command.to_vec(),
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
    target: &'a Chosen,
    settings: Settings,
    /// What its findings share.
    setting: Setting,
    recipe: Recipe,
    summary: Summary,
    findings: Findings,
    plans: BTreeMap<u64, Plan>,
    /// Where its actors can be held.
    points: Points,
    dir: RunDir,
    live: Option<Live>,
    next_episode: u64,
    deadline: Option<Instant>,
    /// While a guest runs episodes.
    turn_began: Option<Instant>,
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
            lifetime: target.lifetime.name.clone(),
            mutant: target.mutant.as_ref().map(|mutant| mutant.name.clone()),
            seed: settings.seed,
            kernel: prepared.kernel.id.clone(),
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
        Ok(Self {
            started,
            target,
            setting,
            recipe: recipe(prepared, &settings, &dir),
            summary: blank(target, settings.seed),
            findings: Findings::default(),
            plans: BTreeMap::new(),
            points: Points::among(prepared.functions.iter().cloned()),
            dir,
            live: settings.live.then(|| Live::new(settings.goal)),
            next_episode: 1,
            deadline: None,
            turn_began: None,
            settings,
        })
    }

    /// Where it is kept.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// [`Campaign::drive`] for a verb that needs a verdict: an interrupt, or a rig that failed, is
    /// an error.
    pub(super) fn verdict(&mut self) -> Result<Summary, Error> {
        let summary = self.drive()?;
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
    pub(super) fn drive(&mut self) -> Result<Summary, Error> {
        // One thread: children are tied to the life of the thread that starts them.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Rig(format!("failed to start the runtime: {error}")))?;
        let result = runtime.block_on(async {
            let interrupted = interrupted()?;
            let _listens = RunListens::new();
            tokio::select! {
                result = self.guests() => result,
                () = interrupted => {
                    self.summary.interrupted = true;
                    Ok(())
                }
            }
        });
        // Kills what the cancelled future has left, before the summary says that all is gone.
        drop(runtime);
        self.count_turn();
        self.summary.wall_ms = self.started.elapsed().as_millis() as u64;
        self.summary.findings = self.finding_lines();
        let exit = match &result {
            Ok(()) => self.summary.exit(),
            Err(error) => error.exit(),
        };
        self.tell(&Event::RunEnded { exit: exit as u8 })?;
        self.dir.summary(&self.summary)?;
        result.map(|()| self.summary.clone())
    }

    /// Counts the time of the guest's turn that is over, or was cut short.
    fn count_turn(&mut self) {
        if let Some(began) = self.turn_began.take() {
            self.summary.episodes_ms += began.elapsed().as_millis() as u64;
        }
    }

    fn finding_lines(&self) -> Vec<FindingLine> {
        (self.findings.all().into_iter())
            .map(|finding| FindingLine {
                number: finding.number,
                title: finding.title.clone(),
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

    async fn guests(&mut self) -> Result<(), Error> {
        let title = self.summary.title.clone();
        let seed = self.settings.seed;
        self.tell(&Event::RunStarted {
            version: events::VERSION,
            title,
            seed,
        })?;
        let mut fruitless = 0;
        while !self.reached() {
            let before = self.summary.episodes();
            match self.one_guest().await? {
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
    async fn one_guest(&mut self) -> Result<Result<TurnEnd, String>, Error> {
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
            Err(BootFailure::Lost(loss)) => return self.lost(number, None, 0, loss),
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
        let turn = self.turn(&mut guest, number, first).await;
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
                self.lost(number, episode, guest_ms, loss)
            }
            Err(error) => Err(error),
        }
    }

    /// A guest that is gone: silence and a reset without a word are findings about the driver
    /// once an episode ran; all else is the rig's failure.
    fn lost(
        &mut self,
        guest: u64,
        episode: Option<u64>,
        guest_ms: u64,
        loss: Loss,
    ) -> Result<Result<TurnEnd, String>, Error> {
        let why = loss.why();
        match loss {
            Loss::Reset(_) | Loss::Silent(_) if episode.is_some() => {
                let met = Met {
                    guest,
                    episode,
                    guest_ms,
                };
                self.found(vec![Evidence::Guest { why }], met)?;
                Ok(Ok(TurnEnd::Found))
            }
            Loss::Device(_) if self.summary.device_deaths < DEVICE_DEATHS => {
                self.summary.device_deaths += 1;
                self.tell(&Event::DeviceDied {
                    guest,
                    why: why.clone(),
                })?;
                Ok(Err(why))
            }
            Loss::Rig(error @ (Error::Target(_) | Error::File { .. } | Error::Machine(_))) => {
                Err(error)
            }
            Loss::Reset(_) | Loss::Silent(_) | Loss::Device(_) | Loss::Qemu(_) | Loss::Rig(_) => {
                self.summary.lost += 1;
                self.summary.lost_why = Some(why.clone());
                self.tell(&Event::GuestLost {
                    guest,
                    why: why.clone(),
                })?;
                Ok(Err(why))
            }
        }
    }

    /// Episodes in one guest until the goal or a failure.
    async fn turn(
        &mut self,
        guest: &mut Guest,
        number: u64,
        first: Instant,
    ) -> Result<Result<TurnEnd, Loss>, Error> {
        if let Err(loss) = self.set_up(guest).await {
            return Ok(Err(loss));
        }
        while !self.reached() {
            let episode = self.next_episode;
            self.next_episode += 1;
            let plan = plan(
                self.target,
                &self.points,
                self.settings.seed,
                episode,
                &self.settings.shapes,
            );
            self.plans.insert(episode, plan.clone());
            while self.plans.len() > PLANS_KEPT {
                self.plans.pop_first();
            }
            let surveyed = (plan.shape == Shape::Survey).then_some(plan.program.as_ref());
            if let Some(program) = surveyed.flatten() {
                self.points.begin(program);
            }
            let begun = Instant::now();
            let ended = match episode::run(guest, &plan).await {
                Ok(ended) => ended,
                Err(loss) => return Ok(Err(loss)),
            };
            let met = |episode| Met {
                guest: number,
                episode,
                guest_ms: first.elapsed().as_millis() as u64,
            };
            let whole = match ended {
                Ended::Whole(whole) => *whole,
                Ended::Kernel { report, episode } => {
                    self.found(vec![Evidence::Kernel { report }], met(episode))?;
                    return Ok(Ok(TurnEnd::Found));
                }
            };
            self.summary
                .first_episode_ms
                .get_or_insert_with(|| self.started.elapsed().as_millis() as u64);
            if let Some(program) = surveyed.flatten() {
                self.points.surveyed(program, &whole.report.passes);
                let points = self.points.of(program).map_or(0, <[_]>::len);
                self.tell(&Event::Surveyed {
                    episode,
                    program: program.clone(),
                    points,
                })?;
            }
            if let Some(why) = whole.report.ungated.clone() {
                self.tell(&Event::Ungated { episode, why })?;
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
            let verdict = oracle::judge(&plan, &whole.report, whole.ring_runs);
            self.summary.add_rules(&verdict.held);
            let mut evidence: Vec<_> = (whole.witnessed.into_iter())
                .filter_map(Evidence::witnessed)
                .collect();
            // A broken rule breaks others; the first names the failure.
            let violation = verdict.violations.into_iter().next();
            evidence.extend(violation.map(|violation| Evidence::Rule { violation }));
            if evidence.is_empty() {
                continue;
            }
            // The kernel's own words, if there are any, tell more.
            if let Ok(Some(Happening::Report { report, .. })) = guest.drain_console().await {
                evidence.insert(0, Evidence::Kernel { report });
            }
            self.found(evidence, met(Some(episode)))?;
            return Ok(Ok(TurnEnd::Found));
        }
        // Nothing is clean that was not heard to the end.
        match guest.drain_console().await {
            Ok(Some(Happening::Report { report, episode })) => {
                let guest_ms = first.elapsed().as_millis() as u64;
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

    /// Takes in what the oracles said of one failure; the first of it names the failure.
    fn found(&mut self, evidence: Vec<Evidence>, met: Met) -> Result<(), Error> {
        let mut evidence = evidence.into_iter();
        let Some(first) = evidence.next() else {
            return Ok(());
        };
        let others: Vec<_> = evidence.collect();
        let plan = met.episode.and_then(|episode| self.plans.get(&episode));
        let episode = met.episode;
        let finding = self
            .findings
            .add(first, &others, met, &self.setting, plan)
            .clone();
        self.dir.finding(&finding)?;
        self.tell(&Event::Found {
            number: finding.number,
            title: finding.title,
            count: finding.count,
            episode,
        })
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

fn recipe(prepared: &Prepared, settings: &Settings, dir: &RunDir) -> Recipe {
    Recipe {
        qemu: prepared.qemu.clone(),
        accel: prepared.accel,
        cpus: settings.cpus,
        memory_mib: settings.memory_mib,
        kernel: prepared.kernel.boot.clone(),
        initrd: prepared.initrd.clone(),
        device: prepared.device.clone(),
        console_log: dir.console_log(),
        device_trace: dir.device_trace(),
    }
}

fn kernel_info(prepared: &Prepared) -> KernelInfo {
    KernelInfo {
        release: prepared.kernel.release.clone(),
        variant: prepared.kernel.variant.to_string(),
        source: prepared.kernel.source.clone(),
        source_hash: prepared.kernel.source_hash.clone(),
        vmlinux: prepared.kernel.vmlinux.clone(),
    }
}

fn failed_step(steps: &[Step], outcomes: &[Outcome]) -> Option<String> {
    (steps.iter().zip(outcomes))
        .find(|(_, outcome)| outcome.ret < 0)
        .map(|(step, outcome)| format!("{}: {}", step_text(step), result_text(outcome.ret)))
}

/// Resolves at SIGINT, SIGTERM or SIGHUP.
fn interrupted() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| Error::Rig(format!("failed to listen for signals: {error}")))
    };
    let mut int = listen(SignalKind::interrupt())?;
    let mut term = listen(SignalKind::terminate())?;
    let mut hup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    })
}
