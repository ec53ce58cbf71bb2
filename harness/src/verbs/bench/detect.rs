//! `knobrig bench detect`: time and episodes to the first finding of each planted bug, by the rig,
//! by the rig's own loops without gates, and by a loop as people write it in a shell.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use knobrig_images::Variant;
use serde::Serialize;

use super::super::prepare::{self, Prepared, Wanted};
use super::super::run::{say, say_json};
use super::search::{Search, search};
use crate::cli::{DetectArgs, Format};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::Shape;
use crate::judge::statistics::Median;
use crate::report::dir::{RunDir, write_json, write_whole};
use crate::report::picture::chart::{self, Mark, Row};
use crate::report::progress::SetUp;
use crate::target::Chosen;

/// Version of detect.json.
const VERSION: u32 = 1;

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
#[derive(Clone, Debug, Serialize)]
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

#[derive(Clone, Debug, Serialize)]
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
    fn of(target: &Chosen, variant: Variant, searches: [Vec<Search>; 3]) -> Self {
        let [rig, stress, shell] = searches.map(Searches::of);
        Self {
            mutant: target
                .mutant
                .as_ref()
                .map_or_else(String::new, |it| it.name.clone()),
            lifetime: target.lifetime.name.clone(),
            variant,
            over_stress: rig.rate() / stress.at_most(),
            over_shell: rig.rate() / shell.at_most(),
            rig,
            stress,
            shell,
        }
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

#[derive(Debug, Serialize)]
struct Benchmark<'a> {
    version: u32,
    bench: &'static str,
    target: &'a str,
    kernel: String,
    method: &'static str,
    budget_ms: u64,
    mutants: &'a [MutantRow],
    /// Geometric means of the mutants' ratios of findings per second.
    over_stress: f64,
    over_shell: f64,
}

fn geometric_mean(ratios: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = ratios.clone().count().max(1) as f64;
    let logs: f64 = ratios.map(|ratio| ratio.max(f64::MIN_POSITIVE).ln()).sum();
    (logs / count).exp()
}

/// Runs the verb.
///
/// # Errors
/// There is no such mutant, set-up failed, or the rig did.
pub(super) fn run(arguments: &DetectArgs) -> Result<Exit, Error> {
    let whole = Chosen::find(&arguments.target, None, None)?.target;
    let all: Vec<_> = whole.mutants.iter().map(|it| it.name.clone()).collect();
    let names = match arguments.mutants.is_empty() {
        true => all,
        false => arguments.mutants.clone(),
    };
    if names.is_empty() {
        return Err(Error::Usage(format!(
            "target {} has no mutants to detect",
            whole.name
        )));
    }
    let targets: Vec<_> = (names.iter())
        .map(|name| Chosen::find(&arguments.target, None, Some(name)))
        .collect::<Result<_, _>>()?;
    let mut prepared: BTreeMap<Variant, Prepared> = BTreeMap::new();
    let variant_of = |target: &Chosen| {
        let own = target.mutant.as_ref().and_then(|mutant| mutant.variant);
        own.unwrap_or(Variant::Kasan)
    };
    for target in &targets {
        let variant = variant_of(target);
        if let Entry::Vacant(none) = prepared.entry(variant) {
            let wanted = Wanted::pinned(variant, arguments.accel);
            none.insert(prepare::prepare(target, &wanted, &SetUp::new())?);
        }
    }
    let path = (arguments.out.clone()).unwrap_or_else(|| RunDir::default_path("detect"));
    std::fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
    let mut searches: Vec<[Vec<Search>; 3]> = vec![Default::default(); targets.len()];
    for seed in 1..=arguments.seeds {
        for (target, searches) in targets.iter().zip(&mut searches) {
            for turn in 0..SIDES.len() {
                let at = (turn + seed as usize) % SIDES.len();
                let side = SIDES[at];
                let variant = variant_of(target);
                let budget = arguments.budget.0;
                let search = search(target, &prepared[&variant], seed, budget, side.shapes())?;
                if arguments.format == Format::Human {
                    eprintln!(
                        "{}, seed {seed}, {:<6} {:>6} ms, {:>4} episodes: {}",
                        names_of(target),
                        side.name(),
                        search.ms,
                        search.episodes,
                        search.title.as_deref().unwrap_or("nothing")
                    );
                }
                searches[at].push(search);
            }
        }
    }
    let rows = targets.iter().zip(searches);
    let rows: Vec<_> = rows
        .map(|(target, searches)| MutantRow::of(target, variant_of(target), searches))
        .collect();
    let kernel = prepared.values().next().map(|it| it.kernel.release.clone());
    let result = Benchmark {
        version: VERSION,
        bench: "detect",
        target: &whole.name,
        kernel: kernel.unwrap_or_default(),
        method: METHOD,
        budget_ms: arguments.budget.0.as_millis() as u64,
        mutants: &rows,
        over_stress: geometric_mean(rows.iter().map(|row| row.over_stress)),
        over_shell: geometric_mean(rows.iter().map(|row| row.over_shell)),
    };
    write_json(&path.join("detect.json"), &result)?;
    write_whole(&path.join("detect.svg"), plot(&result).as_bytes())?;
    match arguments.format {
        Format::Json => say_json(&result)?,
        Format::Human => say(&text(&result, &path))?,
    }
    Ok(Exit::Clean)
}

fn names_of(target: &Chosen) -> &str {
    target
        .mutant
        .as_ref()
        .map_or("", |mutant| mutant.name.as_str())
}

fn text(result: &Benchmark<'_>, path: &std::path::Path) -> String {
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
    for row in result.mutants {
        text.push_str("  ");
        text.push_str(&row.line());
    }
    let _ = writeln!(text, "method: {METHOD}");
    let _ = writeln!(text, "kept in {}", path.display());
    text
}

fn plot(result: &Benchmark<'_>) -> String {
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

    #[test]
    fn ratios_are_averaged_by_their_logarithms() {
        let mean = geometric_mean([1.0, 100.0].into_iter());
        assert!((mean - 10.0).abs() < 1e-9, "{mean}");
    }
}
