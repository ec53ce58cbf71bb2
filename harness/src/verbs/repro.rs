//! `knobrig repro`: the episode of a finding again, as often as wanted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use knobrig_proto::Step;
use serde::Serialize;

use super::campaign::{Campaign, Settings};
use super::prepare::{self, Need, Prepared, Wanted};
use super::run::{say, say_json};
use super::trials::Trials;
use knobrig_images::{KernelRequest, Variant};

use crate::cli::kernel::KernelChoice;
use crate::cli::{CaseArgs, Format, ReproArgs, VariantArg};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::finding::{Name, Setting};
use crate::judge::plan::{Plan, Shape};
use crate::judge::statistics::Rate;
use crate::report::dir::{self, Replay, RunDir};
use crate::report::progress::{Goal, SetUp};
use crate::target::Chosen;

/// Version of the result's JSON.
const VERSION: u32 = 1;

/// Episodes of one try, unless one shows the finding before: whatever loops in an episode beside what
/// is placed meets its failure by chance.
const CHANCES: u64 = 64;
/// The same of episodes that look for leaks: each loads the driver many times, and lasts seconds.
const LOOKS: u64 = 4;

/// Episodes of one try of this one.
pub(super) fn chances(plan: &Plan) -> u64 {
    match plan.shape {
        Shape::Leaks => LOOKS,
        _ => CHANCES,
    }
}

/// A finding with all that its episode needs to run again.
#[derive(Debug)]
pub(super) struct Case {
    /// What it came of.
    pub(super) replay: Replay,
    /// Its episode, as it is to run.
    pub(super) plan: Plan,
    pub(super) target: Chosen,
    pub(super) prepared: Prepared,
    /// What is not as it was when the finding was met.
    pub(super) differs: Vec<String>,
}

/// The kernel that was asked for; else the very one that the finding was met on, while the cache has
/// it; else its variant.
fn kernel(arguments: &CaseArgs, setting: &Setting) -> Result<KernelChoice, Error> {
    let finding = arguments.finding.display();
    let variant =
        match setting.guest.variant.as_str() {
            knobrig_images::GIVEN => None,
            variant => Some(variant.parse::<VariantArg>().map_err(|why| {
                Error::Usage(format!("{finding}: kernel variant {variant}: {why}"))
            })?),
        };
    let usual = variant.map_or(Variant::Kasan, |it| it.0);
    if let Some(asked) = arguments.kernel.asked(usual) {
        return Ok(asked);
    }
    let cache = knobrig_images::Cache::open(None)?;
    match (
        knobrig_images::named_kernel(&cache, &setting.kernel),
        variant,
    ) {
        (Ok(kernel), _) => Ok(KernelChoice::Named(kernel.id)),
        // It is not there any more: one of its kind is built, and the difference told.
        (Err(_), Some(variant)) => Ok(KernelChoice::Built(KernelRequest::pinned(variant.0))),
        (Err(_), None) => Err(Error::Usage(format!(
            "{finding} was met on a kernel that was given, {}, which the finding doesn't hold; \
             give it again by --kernel, with --vmlinux and --modules as then, or another by --image",
            setting.kernel
        ))),
    }
}

impl Case {
    /// Reads a finding and sets up for it; `correct` leaves its mutant out.
    ///
    /// # Errors
    /// It can't be read, has no episode, or set-up fails.
    pub(super) fn open(arguments: &CaseArgs, correct: bool) -> Result<Self, Error> {
        let replay = dir::read_replay(&arguments.finding)?;
        let mut plan = replay.reproducer.episode.clone();
        let setting = &replay.reproducer.setting;
        let mutant = setting.mutant.as_deref();
        let driver = |mutant| prepare::driver_of(setting, arguments.target.as_deref(), mutant);
        let target = driver(mutant.filter(|_| !correct))?;
        let wanted = Wanted {
            kernel: kernel(arguments, setting)?,
            accel: arguments.accel,
            module_dirs: setting.module_dirs.clone(),
            vcpus: match plan.watched().is_empty() {
                true => Need::Nothing,
                false => Need::Orders(arguments.vcpu),
            },
        };
        let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
        let mut differs = Vec::new();
        if prepared.kernel.id != setting.kernel {
            differs.push(format!(
                "the kernel image is {}, it was {}",
                prepared.kernel.id, setting.kernel
            ));
        }
        if plan.delays.is_some() && !prepared.delays() {
            differs.push("vCPUs can't be delayed here, as they were when it was met".into());
        }
        if plan.order.is_some() && prepared.vcpus.is_none() {
            differs.push("vCPUs can't be held here, as they were when it was met".into());
        }
        if correct && let Some(mutant) = &setting.mutant {
            let planted = driver(Some(mutant))?;
            leave_out(&mut plan, &planted, &target);
            differs.push("the mutant is left out".into());
        }
        Ok(Self {
            replay,
            plan,
            target,
            prepared,
            differs,
        })
    }

    /// The trials of a plan, `times` or until `enough` of these have shown the finding.
    pub(super) fn trials<'a>(&'a self, plan: &'a Plan, times: u64, enough: u64) -> Trials<'a> {
        Trials::new(plan, &self.replay.reproducer.key, times, enough)
    }

    /// Runs trials to their end, in a campaign of this case's.
    pub(super) fn attempts(
        &self,
        mut campaign: Campaign<'_>,
        mut trials: Trials<'_>,
    ) -> Result<Attempts, Error> {
        let summary = campaign.verdict(&mut trials)?;
        let sought = self.sought();
        let others = (summary.findings.into_iter())
            .filter(|found| !sought.is_shown_by(&found.name()))
            .map(|found| Other {
                title: found.title,
                count: found.count,
            });
        Ok(Attempts {
            rate: trials.rate(),
            episodes: trials.rate_of_episodes(),
            others: others.collect(),
        })
    }

    /// A campaign of guests as the finding's, that ends when its episodes do, and shows how far they are.
    pub(super) fn campaign(&self, dir: RunDir, command: &[String]) -> Result<Campaign<'_>, Error> {
        let setting = &self.replay.reproducer.setting;
        let settings = Settings {
            fail_fast: false,
            cpus: setting.guest.cpus,
            memory_mib: setting.guest.memory_mib,
            ..Settings::inner(setting.seed, Goal::Episodes(u64::MAX), command)
        };
        let campaign = Campaign::new(Instant::now(), &self.target, &self.prepared, settings, dir)?;
        Ok(campaign.seeking(self.sought()).telling())
    }

    /// What its finding is known by.
    pub(super) fn sought(&self) -> Name {
        Name {
            title: self.replay.reproducer.title.clone(),
            key: self.replay.reproducer.key.clone(),
        }
    }
}

/// Takes the parameters that plant a mutant out of a plan's loads.
fn leave_out(plan: &mut Plan, planted: &Chosen, correct: &Chosen) {
    let actors = plan.episode.actors.iter_mut().flat_map(|it| &mut it.steps);
    let steps = plan.episode.before.iter_mut().chain(actors);
    for step in steps.chain(&mut plan.episode.after) {
        let Step::Load { module, params } = step else {
            continue;
        };
        let named = |target: &Chosen| -> BTreeSet<String> {
            let module = target.modules().find(|it| it.name == *module);
            let params = module.map_or_else(String::new, |it| target.params(it, None));
            params.split(' ').map(str::to_owned).collect()
        };
        let plants: BTreeSet<_> = named(planted)
            .difference(&named(correct))
            .cloned()
            .collect();
        let kept = params.split(' ').filter(|word| !plants.contains(*word));
        *params = kept.collect::<Vec<_>>().join(" ");
    }
}

/// What came of trying a plan again and again.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Attempts {
    /// How often the finding was shown.
    pub(super) rate: Rate,
    /// The same of episodes: a try may have several.
    pub(super) episodes: Rate,
    /// What else went wrong.
    pub(super) others: Vec<Other>,
}

/// A failure that is not the one looked for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Other {
    title: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Outcome<'a> {
    version: u32,
    title: &'a str,
    key: &'a str,
    #[serde(flatten)]
    attempts: &'a Attempts,
    kernel: &'a str,
    differs: &'a [String],
    kept_in: &'a Path,
}

/// Runs the verb.
///
/// # Errors
/// The finding can't be read, set-up failed, or the rig did.
pub fn run(arguments: &ReproArgs, command: Vec<String>) -> Result<Exit, Error> {
    let case = Case::open(&arguments.case, arguments.correct)?;
    let path = (arguments.out.clone())
        .unwrap_or_else(|| RunDir::default_path(&format!("{}-repro", case.target.target.name)));
    let dir = RunDir::create(&path)?;
    let kept_in = dir.path().to_owned();
    let enough = match arguments.keep_going {
        true => u64::MAX,
        false => 1,
    };
    // Without its mutant each episode counts.
    let chances = if arguments.correct {
        1
    } else {
        chances(&case.plan)
    };
    let trials = case.trials(&case.plan, arguments.times, enough);
    let campaign = case.campaign(dir, &command)?;
    let attempts = case.attempts(campaign, trials.of_episodes(chances))?;
    match arguments.format {
        Format::Human => say(&text(&case, &attempts, &kept_in))?,
        Format::Json => say_json(&Outcome {
            version: VERSION,
            title: &case.replay.reproducer.title,
            key: &case.replay.reproducer.key,
            attempts: &attempts,
            kernel: &case.prepared.kernel.id,
            differs: &case.differs,
            kept_in: &kept_in,
        })?,
    }
    Ok(match attempts.rate.hits {
        0 => Exit::Clean,
        _ => Exit::Findings,
    })
}

fn text(case: &Case, attempts: &Attempts, kept_in: &Path) -> String {
    let mut text = String::new();
    let answer = match attempts.rate.hits {
        0 => "not shown",
        _ => "shown",
    };
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "{answer}: {}: {}",
        attempts.rate, case.replay.reproducer.title
    );
    if attempts.episodes != attempts.rate {
        let _ = writeln!(
            text,
            "  episodes {}, up to {} in a try",
            attempts.episodes,
            chances(&case.plan)
        );
    }
    for other in &attempts.others {
        let _ = writeln!(text, "  else     {} ({} times)", other.title, other.count);
    }
    for differs in &case.differs {
        let _ = writeln!(text, "  differs  {differs}");
    }
    let _ = writeln!(text, "  kept in  {}", kept_in.display());
    text
}
