//! Guests and episodes until a goal: what `run`, `gallery`, `lifetimes` and `bench` share. A
//! fresh guest after each failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use knobrig_proto::{Outcome, Step};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::turn::{Turn, TurnEnd};
use super::episodes::Episodes;
use super::prepare::Prepared;
use crate::engine::guest::{BootFailure, Guest, Loss, Recipe};
use crate::engine::qemu::Acpi;
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::RunListens;
use crate::judge::finding::{Evidence, Finding, Findings, GuestKind, Met, Name, Setting};
use crate::judge::oracle::{result_text, step_text};
use crate::judge::plan::Plan;
use crate::judge::record::Record;
use crate::judge::summary::{FindingLine, Summary};
use crate::report::dir::{self, KernelInfo, Manifest, RunDir};
use crate::report::events::{self, Event, Reporter};
use crate::report::picture::links::{Links, SourceUrl};
use crate::report::progress::{Goal, Live, Status};
use crate::symbols::{Files, ModuleSymbols, Symbolizer};
use crate::target::Chosen;

mod turn;

/// So many guests in a row without an episode, and the rig gives up.
const FRUITLESS: u64 = 3;
/// So many deaths of the device program in one run, and the rig gives up.
const DEVICE_DEATHS: u64 = 20;
/// So many faults of the emulator's in one run, and the rig gives up: it is one in hundreds of guests
/// that has one.
const EMULATOR_FAULTS: u64 = 20;

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
    status: Option<Status>,
    /// The next guest, that boots while this one hangs.
    spare: Option<JoinHandle<Result<Guest, BootFailure>>>,
    next_episode: u64,
    deadline: Option<Instant>,
    /// While a guest runs episodes.
    turn_began: Option<Instant>,
    /// Wall time of the run that this one goes on with.
    wall_before_ms: u64,
    /// A known failure that the episodes are to show again.
    sought: Option<Name>,
    /// Of all that the rig's own oracles may say, only that counts.
    only_sought: bool,
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
            status: None,
            spare: None,
            next_episode: 1,
            deadline: None,
            turn_began: None,
            wall_before_ms: 0,
            sought: None,
            only_sought: false,
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

    /// Shows how far its episodes are.
    pub(super) fn telling(self) -> Self {
        Self {
            status: Some(Status::new()),
            ..self
        }
    }

    /// Nothing but the failure looked for counts, unless the kernel reports: episodes with parts left
    /// out go otherwise than their checks expect, and the guest is none the worse for it. Nor is it heard
    /// how an episode ends in which the kernel reported.
    pub(super) fn nothing_else(self) -> Self {
        Self {
            only_sought: true,
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
        self.tell_how_far(episodes);
        let result = runtime.block_on(async {
            let result = tokio::select! {
                result = self.guests(episodes) => result,
                () = listens.interrupted() => {
                    self.summary.interrupted = true;
                    Ok(())
                }
            };
            // Goes with its guest, if that is up; else with the runtime.
            self.spare = None;
            result
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
        self.tell_how_far(episodes);
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

    fn tell_how_far(&mut self, episodes: &dyn Episodes) {
        if let Some((status, far)) = self.status.as_mut().zip(episodes.how_far()) {
            status.update(&far);
        }
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
                Ok(TurnEnd::Found | TurnEnd::Spent) => fruitless = 0,
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
        let mut guest = match self.boot().await {
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
        let mut turn = Turn {
            guest: &mut guest,
            number,
            first,
        };
        let turn = self.turn(episodes, &mut turn).await;
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

    async fn boot(&mut self) -> Result<Guest, BootFailure> {
        let Some(spare) = self.spare.take() else {
            return Guest::boot(&self.recipe).await;
        };
        let failed = |error| {
            let why = format!("the task that boots a guest failed: {error}");
            BootFailure::Lost(Loss::Rig(Error::Rig(why)))
        };
        spare.await.map_err(failed)?
    }

    /// Has the next guest boot beside the one whose turn it is, which is spent, as it seems.
    fn boot_spare(&mut self) {
        let recipe = self.recipe.clone();
        (self.spare).get_or_insert_with(|| tokio::spawn(async move { Guest::boot(&recipe).await }));
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

    /// Takes in what the oracles said of one failure; the first of it names the failure. Gives the
    /// finding's key, or that of the failure looked for.
    fn found(&mut self, evidence: Vec<Evidence>, met: Met) -> Result<Option<String>, Error> {
        let mut others = evidence.into_iter();
        let Some(mut first) = others.next() else {
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
        let others: Vec<_> = others.collect();
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
        let sought = (self.sought.as_ref()).filter(|sought| sought.is_shown_by(&name));
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
        acpi: acpi(target),
        console_log: dir.console_log(),
        device_trace: dir.device_trace(),
        symbols: Arc::new(ModuleSymbols::of(&prepared.files)),
        vcpus: prepared.vcpus.clone(),
    }
}

/// Devices come and go by ACPI. Of the other targets that ship none uses it; a driver of the user's may.
fn acpi(target: &Chosen) -> Acpi {
    match target.target.teardown.hotplugs() {
        true => Acpi::Hotplug,
        false if target.ships() => Acpi::Off,
        false => Acpi::On,
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
