//! `knobrig explore`: a small program in every order of its points within a bound.
//!
//! Dry runs find the points: a survey notes which functions the actors pass, and two more, with a
//! gate at either end of each call, in which order. Then every schedule is an episode.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::campaign::{Campaign, Settings, blank};
use super::episodes::{Episodes, Went};
use super::prepare::{self, Need, Prepared, Wanted};
use super::run::print;
use crate::cli::ExploreArgs;
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::explored;
use crate::judge::finding::Setting;
use crate::judge::plan::race::{self, BadRace, Cut, Ordered, Race};
use crate::judge::plan::{Plan, Points};
use crate::judge::summary::{Explored, Summary};
use crate::report::dir::{RunDir, write_json};
use crate::report::events::Event;
use crate::report::progress::{Goal, SetUp};
use crate::schedule::exhaust::{Came, Exhaust, TRIES};
use crate::schedule::{Actor, Occurrence, Program, Turn};
use crate::target::Chosen;

/// Version of explore.json.
const VERSION: u32 = 1;
/// Where an exploration stands, in its directory.
const STATE: &str = "explore.json";
/// Who stands goes on by himself after so long, many times what a turn takes: at first, and where a
/// schedule came to no result. Less than the driver's own patience with its device.
const HOLD_MS: [u64; TRIES as usize] = [500, 2_000, 4_000];
/// Dry runs that may come to nothing: a driver that breaks in each has no points to explore.
const DRY_RUNS: u32 = 4;

/// Where an exploration stands.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    setting: Setting,
    program: String,
    bound: u32,
    /// The points of each actor, in its order.
    ways: Program,
    /// What came of each schedule, by number.
    results: Vec<Option<Came>>,
    /// Number of the last episode.
    episode: u64,
    /// What it had come to.
    summary: Summary,
}

/// How far the exploration is.
enum Stage {
    /// Who passes which functions?
    Survey,
    /// In which order? What the first of two dry runs said.
    Taps {
        points: Vec<(Actor, Occurrence)>,
        first: Option<Program>,
    },
    /// Every schedule.
    Schedules { ways: Program, exhaust: Exhaust },
    /// It can't begin.
    Failed(String),
}

struct Exploration {
    target: Chosen,
    setting: Setting,
    race: Race,
    bound: u32,
    cuts: Vec<Cut>,
    candidates: Vec<String>,
    /// Where its state is kept.
    path: PathBuf,
    stage: Stage,
    /// Dry runs that came to nothing.
    in_vain: u32,
    /// The schedule under way.
    running: Option<Running>,
}

/// A schedule under way, and what came of it but for failures.
struct Running {
    number: usize,
    turns: Vec<Turn>,
    ordered: Ordered,
    came: Option<Came>,
}

impl Exploration {
    /// Takes in what a dry run saw; false if it saw nothing.
    fn dry_run(&mut self, went: &Went<'_>) -> bool {
        let Some(report) = &went.record.report else {
            return false;
        };
        if report.ungated.is_some() || !report.stuck.is_empty() {
            return false;
        }
        self.stage = match &mut self.stage {
            Stage::Survey => {
                if report.passes.is_empty() {
                    return false;
                }
                match race::points(&self.target, &self.race, &self.cuts, &report.passes) {
                    Ok(points) => Stage::Taps {
                        points,
                        first: None,
                    },
                    Err(why) => Stage::Failed(why.to_string()),
                }
            }
            Stage::Taps { points, first } => {
                let gates = &went.record.gates;
                let ways = race::ways(&self.race, went.plan, points, report, gates);
                match first.take() {
                    None => {
                        *first = Some(ways);
                        return true;
                    }
                    Some(first) => self.begin(race::agreed(&first, &ways)),
                }
            }
            Stage::Schedules { .. } | Stage::Failed(_) => return false,
        };
        true
    }

    fn begin(&self, ways: Program) -> Stage {
        let dependent = |a, b| race::dependent(&ways, a, b);
        match Exhaust::new(&ways, self.bound as usize, dependent) {
            Ok(exhaust) => Stage::Schedules { ways, exhaust },
            Err(why) => Stage::Failed(why.to_string()),
        }
    }
}

impl Episodes for Exploration {
    fn looked(&mut self, whole: &Chosen) {
        self.target = whole.clone();
    }

    fn next(&mut self, number: u64) -> Plan {
        self.running = None;
        let survey = || race::survey(&self.target, &self.race, &self.candidates, number);
        match &self.stage {
            Stage::Survey | Stage::Failed(_) => survey(),
            Stage::Taps { points, .. } => race::taps(&self.target, &self.race, points, number),
            Stage::Schedules { ways, exhaust } => {
                let next = exhaust.next();
                let Some((schedule, went)) = next.and_then(|it| Some((it, exhaust.schedule(it)?)))
                else {
                    return survey();
                };
                let turns = Program::turns(went);
                let tried = exhaust.tried(schedule) as usize;
                let hold_ms = HOLD_MS[tried.min(HOLD_MS.len() - 1)];
                let ordered =
                    race::ordered(&self.target, &self.race, ways, &turns, number, hold_ms);
                let plan = ordered.plan.clone();
                self.running = Some(Running {
                    number: schedule,
                    turns,
                    ordered,
                    came: None,
                });
                plan
            }
        }
    }

    fn went(&mut self, went: &Went<'_>) {
        let Stage::Schedules { ways, exhaust } = &self.stage else {
            if !self.dry_run(went) {
                self.in_vain += 1;
            }
            if self.in_vain >= DRY_RUNS {
                let why = (went.record.report.as_ref())
                    .and_then(|report| report.ungated.clone())
                    .unwrap_or_else(|| "the driver breaks in every dry run".into());
                self.stage = Stage::Failed(why);
            }
            return;
        };
        if let Some(running) = &mut self.running
            && let Some(report) = &went.record.report
        {
            running.came = Some(explored::came(
                &running.ordered,
                ways,
                &running.turns,
                report,
                &went.record.gates,
                &went.record.asleep,
                exhaust.tried(running.number),
            ));
        }
    }

    fn told(&mut self, shown: Option<&str>) {
        let Some(running) = self.running.take() else {
            return;
        };
        if let Stage::Schedules { exhaust, .. } = &mut self.stage {
            let tried = exhaust.tried(running.number);
            let came = match shown {
                Some(key) => Came::Found(key.to_owned()),
                None => running.came.unwrap_or(Came::Undecided(tried + 1)),
            };
            exhaust.came(running.number, came);
        }
    }

    fn done(&self) -> bool {
        match &self.stage {
            Stage::Schedules { exhaust, .. } => exhaust.next().is_none(),
            Stage::Failed(_) => true,
            Stage::Survey | Stage::Taps { .. } => false,
        }
    }

    fn events(&mut self) -> Vec<Event> {
        match &self.stage {
            Stage::Schedules { exhaust, .. } => vec![Event::Explored {
                counts: exhaust.counts(),
            }],
            Stage::Survey | Stage::Taps { .. } | Stage::Failed(_) => Vec::new(),
        }
    }

    fn explored(&self) -> Option<Explored> {
        let mut explored = Explored {
            program: self.race.text().to_owned(),
            bound: self.bound,
            ..Explored::default()
        };
        if let Stage::Schedules { ways, exhaust } = &self.stage {
            explored.points = ways.actors.iter().map(Vec::len).collect();
            explored.counts = exhaust.counts();
            explored.infeasible = reasons(exhaust.results());
        }
        Some(explored)
    }

    fn keep(&mut self, summary: &Summary, episode: u64) -> Result<(), Error> {
        let Stage::Schedules { ways, exhaust } = &self.stage else {
            return Ok(());
        };
        let state = State {
            version: VERSION,
            setting: self.setting.clone(),
            program: self.race.text().to_owned(),
            bound: self.bound,
            ways: ways.clone(),
            results: exhaust.results().to_vec(),
            episode,
            summary: summary.clone(),
        };
        write_json(&self.path, &state)
    }
}

/// Why schedules can't be, and how many can't for each.
fn reasons(results: &[Option<Came>]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for came in results.iter().flatten() {
        let came = match came {
            Came::Alike(number) => results.get(*number).and_then(Option::as_ref),
            came => Some(came),
        };
        if let Some(Came::Infeasible(it)) = came {
            *reasons.entry(it.why.clone()).or_default() += 1;
        }
    }
    reasons
}

impl From<BadRace> for Error {
    fn from(bad: BadRace) -> Self {
        Self::Usage(bad.to_string())
    }
}

/// Reads where an exploration stands.
fn read_state(dir: &Path) -> Result<State, Error> {
    let path = dir.join(STATE);
    let told = |why: String| {
        Error::Usage(format!(
            "{}: {why}; give the directory of an exploration that had found its points",
            path.display()
        ))
    };
    let text = std::fs::read(&path).map_err(|why| told(why.to_string()))?;
    let state: State = serde_json::from_slice(&text).map_err(|why| told(why.to_string()))?;
    if state.version > VERSION {
        return Err(told(format!("it is of version {}", state.version)));
    }
    Ok(state)
}

/// A read of the first knob that can be read, and the teardown.
fn default_program(target: &Chosen) -> Result<String, Error> {
    let knob = target.knobs().find(|knob| knob.read.is_some());
    let teardown = &target.target.teardown.name;
    match knob {
        Some(knob) => Ok(format!("read {} || {teardown}", knob.name)),
        None => Err(Error::Usage(format!(
            "target {} has no knob to read; say by --program what its actors do",
            target.target.name
        ))),
    }
}

/// The functions that a survey looks for.
fn candidates(prepared: &Prepared, cuts: &[Cut]) -> Vec<String> {
    let named = cuts.iter().filter_map(|cut| match cut {
        Cut::Function(name) => Some(name.clone()),
        Cut::Device | Cut::Doors | Cut::Own => None,
    });
    let doors = race::DOORS.iter().map(|name| (*name).to_owned());
    let called = prepared.functions.iter().cloned();
    let points = Points::among(called.chain(doors).chain(named));
    points.candidates().to_vec()
}

/// Goes on where an exploration stood.
fn resume(
    exploration: &mut Exploration,
    campaign: &mut Campaign<'_>,
    state: State,
) -> Result<(), Error> {
    if state.setting.kernel != exploration.setting.kernel {
        return Err(Error::Usage(format!(
            "the exploration ran on kernel {}, this is {}: what it found out need not hold here; \
             begin anew",
            state.setting.kernel, exploration.setting.kernel
        )));
    }
    exploration.stage = exploration.begin(state.ways);
    match &mut exploration.stage {
        Stage::Schedules { exhaust, .. } if exhaust.results().len() == state.results.len() => {
            exhaust.resume(&state.results);
        }
        _ => {
            return Err(Error::Usage(
                "the exploration is of another version of knobrig, whose schedules are others; \
                 begin anew"
                    .into(),
            ));
        }
    }
    campaign.resume(state.summary, state.episode)
}

/// Runs the verb.
///
/// # Errors
/// The program is none, set-up failed, or the rig did.
pub fn run(arguments: &ExploreArgs, command: Vec<String>) -> Result<Exit, Error> {
    let started = Instant::now();
    let state = arguments.resume.as_deref().map(read_state).transpose()?;
    let target = match &state {
        Some(State { setting, .. }) => {
            prepare::driver_of(setting, None, setting.mutant.as_deref())?
        }
        None => arguments.driver.choose()?,
    };
    let text = match (&state, &arguments.program) {
        (Some(state), _) => state.program.clone(),
        (None, Some(text)) => text.clone(),
        (None, None) => default_program(&target)?,
    };
    let race = Race::parse(&target, &text)?;
    let dir = match &arguments.resume {
        Some(dir) => RunDir::open(dir)?,
        None => {
            let default = || RunDir::default_path(&format!("{}-explore", target.target.name));
            let dir = RunDir::create(&arguments.out.clone().unwrap_or_else(default))?;
            // True from now on: whoever reads it before the end finds one that was cut short.
            dir.summary(&Summary {
                interrupted: true,
                ..blank(&target, 0)
            })?;
            dir
        }
    };
    let wanted = Wanted {
        kernel: arguments.kernel.choice(),
        accel: arguments.accel,
        module_dirs: match &state {
            Some(State { setting, .. }) => setting.module_dirs.clone(),
            None => arguments.driver.module_dir.clone(),
        },
        vcpus: Need::Nothing,
    };
    let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
    if !prepared.gates {
        return Err(Error::Machine(format!(
            "no thread can be held at a function of kernel {}: an exploration needs the pinned kernel",
            prepared.kernel.release
        )));
    }
    let settings = Settings {
        fail_fast: arguments.fail_fast,
        memory_mib: arguments.memory,
        live: !arguments.quiet,
        cpus: target.target.cpus.unwrap_or(2),
        ..Settings::inner(0, Goal::Episodes(u64::MAX), &command)
    };
    let path = dir.path().join(STATE);
    let mut campaign = Campaign::new(started, &target, &prepared, settings, dir)?;
    let mut exploration = Exploration {
        target: target.clone(),
        setting: campaign.setting().clone(),
        race,
        bound: state.as_ref().map_or(arguments.bound, |it| it.bound),
        cuts: arguments.points.clone(),
        candidates: candidates(&prepared, &arguments.points),
        path,
        stage: Stage::Survey,
        in_vain: 0,
        running: None,
    };
    if let Some(state) = state {
        resume(&mut exploration, &mut campaign, state)?;
    }
    let ended = campaign.drive(&mut exploration)?;
    if let Stage::Failed(why) = &exploration.stage
        && ended.findings.is_empty()
    {
        return Err(Error::Rig(format!(
            "\"{}\" can't be explored: {why}",
            exploration.race.text()
        )));
    }
    print(&ended, arguments.format, campaign.dir())?;
    Ok(ended.exit())
}
