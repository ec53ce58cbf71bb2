//! `knobrig bench detect`: time and episodes to the first finding of each planted bug, by the rig,
//! by the rig's own loops without gates, and by a loop as people write it in a shell.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use knobrig_images::Variant;
use serde::{Deserialize, Serialize};

use super::super::prepare::{self, Prepared, Wanted};
use super::super::run::{say, say_json};
use super::search::{Search, search};
use crate::cli::{DetectArgs, Format};
use crate::engine::qemu::Accel;
use crate::error::Error;
use crate::exit::Exit;
use crate::interrupt::RunListens;
use crate::judge::plan::Shape;
use crate::judge::statistics::Median;
use crate::report::dir::{RunDir, write_json, write_whole};
use crate::report::picture::chart::{self, Mark, Row};
use crate::report::progress::SetUp;
use crate::target::Chosen;

/// Version of detect.json.
const VERSION: u32 = 2;
/// Where the benchmark is kept, and its picture.
const KEPT: &str = "detect.json";
const PICTURE: &str = "detect.svg";

const METHOD: &str = "for each seed and mutant, three fresh guests of one image look for a finding, one \
    after the other, and which of them begins changes with the seed: rig, the usual mix; stress, the \
    rig's own loops with a seeded delay, without gates; shell, one thread that loads and unloads in a \
    loop against two that open, read and close, as a shell loop does (the guest has no shell: each op \
    is a system call, which is faster). The time is the guest's, from its first episode on; a search \
    that finds nothing counts with its whole budget, so that a ratio to it is a lower bound";

/// Who looks for a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Rig,
    Stress,
    Shell,
}

const SIDES: [Side; 3] = [Side::Rig, Side::Stress, Side::Shell];

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Rig => "rig",
            Self::Stress => "stress",
            Self::Shell => "shell",
        }
    }

    fn shapes(self) -> Vec<Shape> {
        match self {
            Self::Rig => Vec::new(),
            Self::Stress => vec![Shape::Stress, Shape::Birth],
            Self::Shell => vec![Shape::Naive],
        }
    }
}

/// What one side made of a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Searches {
    found: usize,
    ms: Median,
    episodes: Median,
    searches: Vec<Search>,
}

impl Searches {
    fn of(searches: Vec<Search>) -> Self {
        Self {
            found: searches.iter().filter(|it| it.title.is_some()).count(),
            ms: Median::of(searches.iter().map(|it| it.ms).collect()),
            episodes: Median::of(searches.iter().map(|it| it.episodes).collect()),
            searches,
        }
    }

    /// Findings a second of all the time that was spent.
    fn rate(&self) -> f64 {
        let ms: u64 = self.searches.iter().map(|it| it.ms).sum();
        self.found as f64 * 1000.0 / ms.max(1) as f64
    }

    /// As if one had been found at the end of the budget: a rate that the true one is below.
    fn at_most(&self) -> f64 {
        let ms: u64 = self.searches.iter().map(|it| it.ms).sum();
        self.found.max(1) as f64 * 1000.0 / ms.max(1) as f64
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct MutantRow {
    mutant: String,
    lifetime: String,
    variant: Variant,
    rig: Searches,
    stress: Searches,
    shell: Searches,
    /// Findings per second of the rig's over those of stress; at least this where stress found
    /// none.
    over_stress: f64,
    over_shell: f64,
}

impl MutantRow {
    /// Not looked for yet.
    fn of(target: &Chosen) -> Self {
        let none = Searches::of(Vec::new());
        Self {
            mutant: names_of(target).to_owned(),
            lifetime: target.lifetime.name.clone(),
            variant: variant_of(target),
            rig: none.clone(),
            stress: none.clone(),
            shell: none,
            over_stress: 0.0,
            over_shell: 0.0,
        }
    }

    /// Whether all sides have looked for it with this seed.
    fn has(&self, seed: u64) -> bool {
        self.rig.searches.iter().any(|search| search.seed == seed)
    }

    fn add(&mut self, searches: Vec<(Side, Search)>) {
        for (side, search) in searches {
            let all = match side {
                Side::Rig => &mut self.rig,
                Side::Stress => &mut self.stress,
                Side::Shell => &mut self.shell,
            };
            let mut searches = std::mem::take(&mut all.searches);
            searches.push(search);
            *all = Searches::of(searches);
        }
        self.over_stress = self.rig.rate() / self.stress.at_most();
        self.over_shell = self.rig.rate() / self.shell.at_most();
    }

    fn line(&self) -> String {
        let side = |it: &Searches| {
            format!(
                "{} of {} in {}",
                it.found,
                it.searches.len(),
                it.ms.in_seconds()
            )
        };
        let bound = |it: &Searches| if it.found == 0 { "at least " } else { "" };
        format!(
            "{:<18} rig {}; stress {}, {}{:.1} times; shell {}, {}{:.1} times\n",
            self.mutant,
            side(&self.rig),
            side(&self.stress),
            bound(&self.stress),
            self.over_stress,
            side(&self.shell),
            bound(&self.shell),
            self.over_shell
        )
    }
}

/// On what a benchmark runs: times on one are no times on another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Platform {
    accel: Accel,
    /// The images' kernels.
    kernels: BTreeMap<Variant, String>,
}

impl Platform {
    fn of(prepared: &BTreeMap<Variant, Prepared>) -> Option<Self> {
        let kernels = (prepared.iter()).map(|(variant, it)| (*variant, it.kernel.id.clone()));
        Some(Self {
            accel: prepared.values().next()?.accel,
            kernels: kernels.collect(),
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Benchmark {
    version: u32,
    bench: String,
    target: String,
    /// Known once it was set up.
    platform: Option<Platform>,
    method: String,
    budget_ms: u64,
    mutants: Vec<MutantRow>,
    /// Geometric means of the mutants' ratios of findings per second.
    over_stress: f64,
    over_shell: f64,
}

impl Benchmark {
    /// Nothing was looked for yet.
    fn of(arguments: &DetectArgs) -> Result<Self, Error> {
        let whole = Chosen::find(&arguments.target, None, None)?.target;
        let names = match arguments.mutants.is_empty() {
            true => whole.mutants.iter().map(|it| it.name.clone()).collect(),
            false => arguments.mutants.clone(),
        };
        if names.is_empty() {
            return Err(Error::Usage(format!(
                "target {} has no mutants to detect",
                whole.name
            )));
        }
        let row = |name: &String| {
            let target = Chosen::find(&arguments.target, None, Some(name))?;
            Ok(MutantRow::of(&target))
        };
        Ok(Self {
            version: VERSION,
            bench: "detect".into(),
            target: arguments.target.clone(),
            platform: None,
            method: METHOD.into(),
            budget_ms: arguments.budget.0.as_millis() as u64,
            mutants: names.iter().map(row).collect::<Result<_, Error>>()?,
            over_stress: 1.0,
            over_shell: 1.0,
        })
    }

    /// Runs on this from here on.
    fn runs_on(&mut self, platform: Platform) -> Result<(), Error> {
        match self.platform.replace(platform.clone()) {
            Some(before) if before != platform => Err(Error::Usage(format!(
                "the benchmark ran on {before:?}, this is {platform:?}: times on one are no times on the \
                 other; begin anew without --resume"
            ))),
            _ => Ok(()),
        }
    }

    /// The means, of what was searched for so far.
    fn average(&mut self) {
        let searched = || (self.mutants.iter()).filter(|row| !row.rig.searches.is_empty());
        let over_stress = geometric_mean(searched().map(|row| row.over_stress));
        let over_shell = geometric_mean(searched().map(|row| row.over_shell));
        (self.over_stress, self.over_shell) = (over_stress, over_shell);
    }

    fn keep(&self, dir: &Path) -> Result<(), Error> {
        write_json(&dir.join(KEPT), self)
    }

    fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(KEPT);
        let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
        let wrong = |what: String| {
            Error::Usage(format!(
                "{} is no benchmark to go on with: {what}; begin anew without --resume",
                path.display()
            ))
        };
        let read: Self =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match (read.version, read.method == METHOD) {
            (VERSION, true) => Ok(read),
            _ => Err(wrong("it is of another version of knobrig".into())),
        }
    }
}

fn geometric_mean(ratios: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = ratios.clone().count().max(1) as f64;
    let logs: f64 = ratios.map(|ratio| ratio.max(f64::MIN_POSITIVE).ln()).sum();
    (logs / count).exp()
}

fn variant_of(target: &Chosen) -> Variant {
    let own = target.mutant.as_ref().and_then(|mutant| mutant.variant);
    own.unwrap_or(Variant::Kasan)
}

/// Runs the verb.
///
/// # Errors
/// There is no such mutant, what is to be gone on with is of another kernel or version, set-up
/// failed, or the rig did.
pub(super) fn run(arguments: &DetectArgs) -> Result<Exit, Error> {
    let (dir, mut result) = match (&arguments.resume, &arguments.out) {
        (Some(dir), _) => (dir.clone(), Benchmark::read(dir)?),
        (None, Some(dir)) if dir.join(KEPT).exists() => {
            return Err(Error::Usage(format!(
                "{0} holds a benchmark already; give another --out, or go on with it by --resume {0}",
                dir.display()
            )));
        }
        (None, out) => {
            let default = || RunDir::default_path("detect");
            let dir = out.clone().unwrap_or_else(default);
            (dir, Benchmark::of(arguments)?)
        }
    };
    let targets: Vec<_> = (result.mutants.iter())
        .map(|row| Chosen::find(&result.target, None, Some(&row.mutant)))
        .collect::<Result<_, _>>()?;
    let mut prepared: BTreeMap<Variant, Prepared> = BTreeMap::new();
    for target in &targets {
        let variant = variant_of(target);
        if let Entry::Vacant(none) = prepared.entry(variant) {
            let wanted = Wanted::pinned(variant, arguments.accel);
            none.insert(prepare::prepare(target, &wanted, &SetUp::new())?);
        }
    }
    if let Some(platform) = Platform::of(&prepared) {
        result.runs_on(platform)?;
    }
    fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    result.keep(&dir)?;
    // Each search hears of a signal; between two of them one is kept for the next.
    let _listens = RunListens::new();
    for seed in 1..=arguments.seeds {
        for (at, target) in targets.iter().enumerate() {
            if result.mutants[at].has(seed) {
                continue;
            }
            let prepared = &prepared[&variant_of(target)];
            let budget = Duration::from_millis(result.budget_ms);
            let searches = in_turns(target, prepared, seed, budget, arguments.format);
            if matches!(searches, Err(Error::Interrupted)) {
                eprintln!(
                    "kept in {0}; `cargo rig bench detect --resume {0} --seeds {1}` goes on",
                    dir.display(),
                    arguments.seeds
                );
            }
            result.mutants[at].add(searches?);
            result.average();
            result.keep(&dir)?;
        }
    }
    write_whole(&dir.join(PICTURE), plot(&result).as_bytes())?;
    match arguments.format {
        Format::Json => say_json(&result)?,
        Format::Human => say(&text(&result, &dir))?,
    }
    Ok(Exit::Clean)
}

/// Each side looks for a mutant once, one after the other; which of them begins changes with the seed.
fn in_turns(
    target: &Chosen,
    prepared: &Prepared,
    seed: u64,
    budget: Duration,
    format: Format,
) -> Result<Vec<(Side, Search)>, Error> {
    let mut searches = Vec::new();
    for turn in 0..SIDES.len() {
        let side = SIDES[(turn + seed as usize) % SIDES.len()];
        let search = search(target, prepared, seed, budget, side.shapes())?;
        if format == Format::Human {
            eprintln!(
                "{}, seed {seed}, {:<6} {:>6} ms, {:>4} episodes: {}",
                names_of(target),
                side.name(),
                search.ms,
                search.episodes,
                search.title.as_deref().unwrap_or("nothing")
            );
        }
        searches.push((side, search));
    }
    Ok(searches)
}

fn names_of(target: &Chosen) -> &str {
    target
        .mutant
        .as_ref()
        .map_or("", |mutant| mutant.name.as_str())
}

fn text(result: &Benchmark, path: &Path) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "findings per second of the rig's: {:.1} times those of stress, {:.1} times those of the shell \
         loop (geometric means over {} mutants)",
        result.over_stress,
        result.over_shell,
        result.mutants.len()
    );
    for row in &result.mutants {
        text.push_str("  ");
        text.push_str(&row.line());
    }
    let _ = writeln!(text, "method: {METHOD}");
    let _ = writeln!(text, "kept in {}", path.display());
    text
}

fn plot(result: &Benchmark) -> String {
    let mark = |it: &Searches| Mark {
        at: it.ms.median as f64,
        low: it.ms.low as f64,
        high: it.ms.high as f64,
        beyond: it.found * 2 <= it.searches.len(),
        says: format!(
            "{} of {} found, median {}",
            it.found,
            it.searches.len(),
            it.ms.in_seconds()
        ),
    };
    let rows: Vec<_> = (result.mutants.iter())
        .map(|row| Row {
            name: row.mutant.clone(),
            marks: [&row.rig, &row.stress, &row.shell].map(mark).to_vec(),
        })
        .collect();
    let title = format!(
        "Time to the first finding of each mutant of {}, medians with their intervals",
        result.target
    );
    chart::svg(&title, &SIDES.map(Side::name), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{BenchCommand, Cli, Verb};
    use clap::Parser;

    fn searches(found: &[u64], budget: u64, in_vain: usize) -> Searches {
        let search = |ms, title: Option<&str>| Search {
            seed: 1,
            ms,
            set_up_ms: 0,
            episodes: 3,
            title: title.map(str::to_owned),
        };
        let found = found.iter().map(|ms| search(*ms, Some("t")));
        let vain = (0..in_vain).map(|_| search(budget, None));
        Searches::of(found.chain(vain).collect())
    }

    #[test]
    fn what_was_never_found_has_a_ratio_that_is_a_lower_bound() {
        let (rig, stress) = (searches(&[1_000, 3_000], 9_000, 0), searches(&[], 9_000, 2));
        assert_eq!((rig.rate(), stress.rate()), (0.5, 0.0));
        assert!((rig.rate() / stress.at_most() - 9.0).abs() < 1e-9);
        assert_eq!((rig.found, stress.found), (2, 0));
    }

    fn benchmark() -> Benchmark {
        let arguments = ["knobrig", "bench", "detect", "--mutants", "tail"];
        match Cli::try_parse_from(arguments).expect("arguments").verb {
            Verb::Bench(BenchCommand::Detect(arguments)) => Benchmark::of(&arguments).expect("one"),
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn what_a_seed_found_is_kept_once_and_counts_in_the_means() {
        let mut benchmark = benchmark();
        let row = &mut benchmark.mutants[0];
        assert!(!row.has(1));
        let rig = searches(&[1_000], 9_000, 0).searches;
        let vain = searches(&[], 9_000, 1).searches;
        let found = SIDES.into_iter().zip([&rig, &vain, &vain]);
        row.add(found.map(|(side, it)| (side, it[0].clone())).collect());
        assert!(row.has(1) && !row.has(2));
        benchmark.average();
        let json = serde_json::to_vec(&benchmark).expect("it is data");
        let read: Benchmark = serde_json::from_slice(&json).expect("it is the same data");
        assert_eq!(read.mutants[0].rig.searches.len(), 1);
        assert!((read.over_shell - 9.0).abs() < 1e-9, "{}", read.over_shell);
    }

    #[test]
    fn times_on_another_kernel_are_not_gone_on_with() {
        let on = |id: &str| Platform {
            accel: Accel::Tcg,
            kernels: BTreeMap::from([(Variant::Kasan, id.to_owned())]),
        };
        let mut benchmark = benchmark();
        benchmark.runs_on(on("one")).expect("the first");
        benchmark.runs_on(on("one")).expect("the same");
        let error = benchmark.runs_on(on("two")).expect_err("another");
        assert!(error.to_string().contains("begin anew"), "{error}");
    }

    #[test]
    fn ratios_are_averaged_by_their_logarithms() {
        let mean = geometric_mean([1.0, 100.0].into_iter());
        assert!((mean - 10.0).abs() < 1e-9, "{mean}");
    }
}
