//! `knobrig gallery`: every planted bug must be found, every lifetime must be clean. The
//! scoreboard by which anyone can measure the rig.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use knobrig_images::Variant;
use serde::Serialize;

use super::campaign::{Campaign, Settings};
use super::mix::Mix;
use super::prepare::{self, Need, Prepared, Wanted};
use super::run::{say, say_json, seed_or_random, write_cases};
use crate::cli::{Format, GalleryArgs};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::may_delay;
use crate::judge::summary::{FindingLine, Summary};
use crate::report::dir::{RunDir, write_json, write_whole};
use crate::report::format::suite::{Case, Problem, Suite};
use crate::report::progress::{Goal, SetUp, human_time};
use crate::target::{Chosen, Target};

/// Version of gallery.json.
const VERSION: u32 = 1;

/// The scoreboard.
#[derive(Debug, Serialize)]
struct Scoreboard {
    version: u32,
    target: String,
    /// All mutants found, all lifetimes clean.
    proven: bool,
    wall_ms: u64,
    mutants: Vec<MutantRow>,
    lifetimes: Vec<LifetimeRow>,
}

/// One mutant, one seed.
#[derive(Debug, Serialize)]
struct MutantRow {
    mutant: String,
    lifetime: String,
    about: String,
    seed: u64,
    /// The variant that it was found with, or the last one tried.
    variant: Variant,
    #[serde(flatten)]
    outcome: Outcome,
    /// With `--ladder` every variant's, from the cheapest on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ladder: Vec<Rung>,
}

/// What came of one mutant under one variant.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    /// Its first finding.
    found: Option<Found>,
    /// Episodes until then, or in all.
    episodes: u64,
    /// From the guest's start to the end of its run.
    wall_ms: u64,
}

/// One variant's outcome.
#[derive(Debug, Serialize)]
struct Rung {
    variant: Variant,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    title: String,
    oracles: Vec<String>,
    guest_ms: u64,
    episode: Option<u64>,
}

/// One lifetime, one seed.
#[derive(Debug, Serialize)]
struct LifetimeRow {
    lifetime: String,
    seed: u64,
    variant: Variant,
    /// What was found, wrongly.
    findings: Vec<String>,
    episodes: u64,
    wall_ms: u64,
}

/// Runs the verb.
///
/// # Errors
/// Set-up failed, or the rig did.
pub fn run(arguments: &GalleryArgs, command: Vec<String>) -> Result<Exit, Error> {
    let started = Instant::now();
    let whole = Chosen::find(&arguments.target, None, None)?.target;
    check_names(&whole, &arguments.only)?;
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let first = seed_or_random(arguments.seed)?;
    let path = (arguments.out.clone()).unwrap_or_else(|| RunDir::default_path("gallery"));
    let mut gallery = Gallery {
        arguments,
        command,
        dir: path,
        prepared: BTreeMap::new(),
    };
    let mut board = Scoreboard {
        version: VERSION,
        target: whole.name.clone(),
        proven: false,
        wall_ms: 0,
        mutants: Vec::new(),
        lifetimes: Vec::new(),
    };
    for seed in (0..arguments.seeds).map(|n| first.wrapping_add(n)) {
        for mutant in whole.mutants.iter().filter(|it| wanted(&it.name)) {
            let row = gallery.mutant(&mutant.name, seed)?;
            eprintln!("{}", row.line());
            board.mutants.push(row);
        }
        for lifetime in whole.lifetimes.iter().filter(|it| wanted(&it.name)) {
            let row = gallery.lifetime(&lifetime.name, seed)?;
            eprintln!("{}", row.line());
            board.lifetimes.push(row);
        }
    }
    board.proven = board.mutants.iter().all(|row| row.outcome.found.is_some())
        && board.lifetimes.iter().all(|row| row.findings.is_empty());
    board.wall_ms = started.elapsed().as_millis() as u64;
    write_json(&gallery.dir.join("gallery.json"), &board)?;
    write_whole(&gallery.dir.join("gallery.md"), board.markdown().as_bytes())?;
    write_cases(&arguments.beside.reports, &board.suite(&gallery.dir))?;
    match arguments.format {
        Format::Human => say(&board.human(&gallery.dir))?,
        Format::Json => say_json(&board)?,
    }
    Ok(match board.proven {
        true => Exit::Clean,
        false => Exit::Findings,
    })
}

fn check_names(target: &Target, only: &[String]) -> Result<(), Error> {
    let names = || {
        let mutants = target.mutants.iter().map(|it| it.name.as_str());
        mutants.chain(target.lifetimes.iter().map(|it| it.name.as_str()))
    };
    match only.iter().find(|only| !names().any(|name| name == *only)) {
        None => Ok(()),
        Some(wrong) => Err(Error::Usage(format!(
            "--only {wrong}: no mutant or lifetime of {}; there are: {}",
            target.name,
            names().collect::<Vec<_>>().join(", ")
        ))),
    }
}

struct Gallery<'a> {
    arguments: &'a GalleryArgs,
    command: Vec<String>,
    dir: PathBuf,
    prepared: BTreeMap<Variant, Prepared>,
}

impl Gallery<'_> {
    fn mutant(&mut self, name: &str, seed: u64) -> Result<MutantRow, Error> {
        let target = Chosen::find(&self.arguments.target, None, Some(name))?;
        let Some(mutant) = target.mutant.clone() else {
            return Err(Error::Usage(format!("no mutant {name}")));
        };
        let variants = match self.arguments.ladder {
            true => Variant::ALL.to_vec(),
            false => vec![mutant.variant.unwrap_or(Variant::Kasan)],
        };
        let mut rungs = Vec::new();
        for variant in variants {
            let goal = Goal::Duration(self.arguments.budget.0);
            let (summary, wall) = self.campaign(&target, variant, seed, goal)?;
            let outcome = Outcome {
                episodes: summary.episodes(),
                found: summary.findings.into_iter().next().map(Found::from),
                wall_ms: wall.as_millis() as u64,
            };
            rungs.push(Rung { variant, outcome });
        }
        let first = rungs.iter().find(|rung| rung.outcome.found.is_some());
        let Some(Rung { variant, outcome }) = first.or(rungs.last()) else {
            return Err(Error::Usage(format!(
                "no kernel variant to try {name} with"
            )));
        };
        Ok(MutantRow {
            mutant: mutant.name,
            lifetime: target.lifetime.name.clone(),
            about: mutant.about,
            seed,
            variant: *variant,
            outcome: outcome.clone(),
            ladder: match self.arguments.ladder {
                true => rungs,
                false => Vec::new(),
            },
        })
    }

    fn lifetime(&mut self, name: &str, seed: u64) -> Result<LifetimeRow, Error> {
        let target = Chosen::find(&self.arguments.target, Some(name), None)?;
        let variant = Variant::Kasan;
        let goal = Goal::Episodes(self.arguments.episodes);
        let (summary, wall) = self.campaign(&target, variant, seed, goal)?;
        Ok(LifetimeRow {
            lifetime: name.to_owned(),
            seed,
            variant,
            episodes: summary.episodes(),
            findings: summary.findings.into_iter().map(|it| it.title).collect(),
            wall_ms: wall.as_millis() as u64,
        })
    }

    /// One run in a directory of its own.
    fn campaign(
        &mut self,
        target: &Chosen,
        variant: Variant,
        seed: u64,
        goal: Goal,
    ) -> Result<(Summary, Duration), Error> {
        let wanted = Wanted {
            vcpus: Need::delays(may_delay(target, &[])),
            ..Wanted::pinned(variant, self.arguments.accel)
        };
        // The modules are the same for all of a target's lifetimes and mutants.
        let prepared = match self.prepared.entry(variant) {
            Entry::Occupied(done) => done.into_mut(),
            Entry::Vacant(none) => none.insert(prepare::prepare(target, &wanted, &SetUp::new())?),
        };
        let name = match &target.mutant {
            Some(mutant) => mutant.name.as_str(),
            None => target.lifetime.name.as_str(),
        };
        let dir = RunDir::create(&self.dir.join(format!("{name}-{variant}-{seed}")))?;
        let settings = Settings {
            source_url: self.arguments.beside.source_url.clone(),
            ..Settings::inner(seed, goal, &self.command)
        };
        let started = Instant::now();
        let summary = Campaign::new(started, target, prepared, settings, dir)?
            .verdict(&mut Mix::new(target, prepared, seed, Vec::new()))?;
        Ok((summary, started.elapsed()))
    }
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

impl From<FindingLine> for Found {
    fn from(line: FindingLine) -> Self {
        Self {
            title: line.title,
            oracles: line.oracles,
            guest_ms: line.guest_ms,
            episode: line.episode,
        }
    }
}

impl MutantRow {
    /// The mutant, and what gave it away.
    fn line(&self) -> String {
        let wall = human_time(Duration::from_millis(self.outcome.wall_ms));
        match &self.outcome.found {
            Some(found) => format!(
                "found   {:<18} {:>8}  episode {:<4} {}  ({})",
                self.mutant,
                wall,
                found.episode.unwrap_or(0),
                found.title,
                found.oracles.join(", ")
            ),
            None => format!(
                "MISSED  {:<18} {:>8}  in {} episodes under {}",
                self.mutant, wall, self.outcome.episodes, self.variant
            ),
        }
    }
}

impl LifetimeRow {
    fn line(&self) -> String {
        let wall = human_time(Duration::from_millis(self.wall_ms));
        match self.findings.first() {
            None => format!(
                "clean   {:<18} {wall:>8}  {} episodes",
                self.lifetime, self.episodes
            ),
            Some(title) => format!(
                "FALSE   {:<18} {wall:>8}  in {} episodes: {title}",
                self.lifetime, self.episodes
            ),
        }
    }
}

impl Scoreboard {
    fn counts(&self) -> String {
        let found = self
            .mutants
            .iter()
            .filter(|row| row.outcome.found.is_some());
        let clean = self.lifetimes.iter().filter(|row| row.findings.is_empty());
        format!(
            "{} of {} mutants found, {} of {} lifetimes clean",
            found.count(),
            self.mutants.len(),
            clean.count(),
            self.lifetimes.len()
        )
    }

    /// A mutant that hides is a failure, and so is a lifetime that doesn't come out clean.
    fn suite(&self, dir: &Path) -> Suite {
        let problem = |title: &str, class: &str, key: String, text: String| Problem {
            title: title.to_owned(),
            class: class.to_owned(),
            key,
            text,
            range: None,
            place: None,
        };
        let mut cases = Vec::new();
        for row in &self.mutants {
            let missed = || {
                let title = format!("the mutant {} was not found", row.mutant);
                let key = format!("missed {}", row.mutant);
                problem(
                    &title,
                    "missed",
                    key,
                    format!("{}\n{}", row.line(), row.about),
                )
            };
            cases.push(Case {
                name: format!(
                    "mutant {} under {}, seed {}",
                    row.mutant, row.variant, row.seed
                ),
                file: dir.join("gallery.md").display().to_string(),
                wall_ms: Some(row.outcome.wall_ms),
                problems: (row.outcome.found.is_none())
                    .then(missed)
                    .into_iter()
                    .collect(),
            });
        }
        for row in &self.lifetimes {
            let wrong = |title: &String| {
                let key = format!("false {} {title}", row.lifetime);
                problem(title, "false-alarm", key, row.line())
            };
            cases.push(Case {
                name: format!(
                    "lifetime {} under {}, seed {}",
                    row.lifetime, row.variant, row.seed
                ),
                file: dir.join("gallery.md").display().to_string(),
                wall_ms: Some(row.wall_ms),
                problems: row.findings.iter().map(wrong).collect(),
            });
        }
        Suite {
            name: format!("gallery of {}", self.target),
            verdict: self.counts(),
            cases,
        }
    }

    fn human(&self, dir: &Path) -> String {
        let verdict = if self.proven { "proven" } else { "NOT proven" };
        let wall = human_time(Duration::from_millis(self.wall_ms));
        let mut text = format!("{verdict}: {} in {wall}\n", self.counts());
        let _ = writeln!(text, "  kept in  {}", dir.display());
        text
    }

    /// Which kernel variant sees which mutant, and after what time; empty where that was not
    /// measured.
    fn ladder_markdown(&self) -> String {
        let measured = || self.mutants.iter().filter(|row| !row.ladder.is_empty());
        let Some(first) = measured().next() else {
            return String::new();
        };
        let mut text = String::from("\n| mutant | seed |");
        for rung in &first.ladder {
            let _ = write!(text, " {} |", rung.variant);
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(first.ladder.len()));
        for row in measured() {
            let _ = write!(text, "| {} | {} |", row.mutant, row.seed);
            for Rung { outcome, .. } in &row.ladder {
                let _ = match &outcome.found {
                    Some(found) => write!(text, " {} |", seconds(found.guest_ms)),
                    None => write!(text, " not in {} episodes |", outcome.episodes),
                };
            }
            text.push('\n');
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = format!("# Gallery of {}\n\n{}\n\n", self.target, self.counts());
        text.push_str(
            "| mutant | lifetime | variant | found by | episode | guest | wall | title |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.mutants {
            let (by, episode, guest, title) = match &row.outcome.found {
                Some(found) => (
                    found.oracles.join(", "),
                    found.episode.map_or(String::new(), |it| it.to_string()),
                    seconds(found.guest_ms),
                    found.title.lines().next().unwrap_or("").replace('|', "\\|"),
                ),
                None => (
                    "**missed**".into(),
                    String::new(),
                    String::new(),
                    String::new(),
                ),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {by} | {episode} | {guest} | {} | {title} |",
                row.mutant,
                row.lifetime,
                row.variant,
                seconds(row.outcome.wall_ms)
            );
        }
        text.push_str(&self.ladder_markdown());
        text.push_str("\n| lifetime | episodes | wall | findings |\n|---|---|---|---|\n");
        for row in &self.lifetimes {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.lifetime,
                row.episodes,
                seconds(row.wall_ms),
                match row.findings.is_empty() {
                    true => "none".to_owned(),
                    false => row.findings.join("; ").replace('|', "\\|"),
                }
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(found: bool) -> Outcome {
        Outcome {
            found: found.then(|| Found {
                title: "KASAN: slab-use-after-free Read in put|device".into(),
                oracles: vec!["kernel".into(), "rule".into()],
                guest_ms: 1_240,
                episode: Some(3),
            }),
            episodes: 3,
            wall_ms: 6_100,
        }
    }

    fn board(found: bool) -> Scoreboard {
        Scoreboard {
            version: VERSION,
            target: "mydrv".into(),
            proven: found,
            wall_ms: 61_000,
            mutants: vec![MutantRow {
                mutant: "extra-put".into(),
                lifetime: "pinned".into(),
                about: "a put too many".into(),
                seed: 7,
                variant: Variant::Kasan,
                outcome: outcome(found),
                ladder: Vec::new(),
            }],
            lifetimes: vec![LifetimeRow {
                lifetime: "pinned".into(),
                seed: 7,
                variant: Variant::Kasan,
                findings: Vec::new(),
                episodes: 200,
                wall_ms: 25_000,
            }],
        }
    }

    #[test]
    fn the_scoreboard_as_people_read_it() {
        insta::assert_snapshot!(board(true).markdown(), @r"
        # Gallery of mydrv

        1 of 1 mutants found, 1 of 1 lifetimes clean

        | mutant | lifetime | variant | found by | episode | guest | wall | title |
        |---|---|---|---|---|---|---|---|
        | extra-put | pinned | kasan | kernel, rule | 3 | 1.2 s | 6.1 s | KASAN: slab-use-after-free Read in put\|device |

        | lifetime | episodes | wall | findings |
        |---|---|---|---|
        | pinned | 200 | 25.0 s | none |
        ");
        let text = board(false).human("out".as_ref());
        assert!(text.starts_with("NOT proven: 0 of 1 mutants found, 1 of 1 lifetimes clean"));
        assert!(
            board(false).mutants[0]
                .line()
                .starts_with("MISSED  extra-put")
        );
    }

    #[test]
    fn a_ladder_tells_of_every_variant() {
        let rung = |variant, found| Rung {
            variant,
            outcome: outcome(found),
        };
        let mut board = board(true);
        board.mutants[0].ladder = vec![rung(Variant::Kasan, false), rung(Variant::Debug, true)];
        let text = board.markdown();
        let table = text
            .split("\n\n")
            .find(|table| table.starts_with("| mutant | seed |"));
        insta::assert_snapshot!(table.unwrap_or_default(), @r"
        | mutant | seed | kasan | debug |
        |---|---|---|---|
        | extra-put | 7 | not in 3 episodes | 1.2 s |
        ");
    }

    #[test]
    fn a_missed_mutant_is_a_failure() {
        let missed = |found| {
            let suite = board(found).suite("out".as_ref());
            let cases = suite.cases.into_iter();
            cases.map(|case| case.problems.len()).collect::<Vec<_>>()
        };
        assert_eq!(missed(true), [0, 0]);
        assert_eq!(missed(false), [1, 0]);
    }

    #[test]
    fn a_wrong_name_is_told() {
        let target = Chosen::find("mydrv", None, None).expect("built in").target;
        assert!(check_names(&target, &["drained".into()]).is_ok());
        let error = check_names(&target, &["nonsense".into()]).expect_err("no such thing");
        assert!(error.to_string().contains("free-before-remove"));
    }
}
