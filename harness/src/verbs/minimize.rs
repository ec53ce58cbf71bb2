//! `knobrig minimize`: the least that still shows a finding, each edge of it shown to be needed.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

mod order;
mod proof;
mod shrink;

use self::proof::Proof;
use self::shrink::{PATIENCE_MS, Shrink, brisk, whole_tries};
use super::campaign::Campaign;
use super::episodes::Episodes;
use super::repro::{Attempts, Case, chances};
use super::run::{say, say_json};
use super::trials::Trials;
use crate::cli::{Format, MinimizeArgs};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::finding::{self, Finding, Name};
use crate::judge::plan::Plan;
use crate::judge::reproducer::{self, Reproducer};
use crate::judge::statistics::Rate;
use crate::report::dir::{Replay, RunDir, write_finding, write_json};
use crate::report::format::plural;
use crate::report::progress::human_time;
use crate::report::story;

/// Version of the result's JSON.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Minimal<'a> {
    version: u32,
    title: &'a str,
    key: &'a str,
    /// What happens, in a sentence.
    sentence: &'a str,
    /// In how many tries the minimal episode shows the finding; one is several episodes, as for `repro`.
    rate: Rate,
    /// The same of episodes.
    episodes: Rate,
    edges: &'a [Edge],
    actors: usize,
    ops: usize,
    /// Episodes that it took to get there.
    tried: u64,
    wall_ms: u64,
    /// When the threads begin, where they are held apart: together they may meet without an edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    apart: Option<String>,
    kept_in: &'a Path,
}

/// An order that the minimal episode enforces.
#[derive(Debug, Serialize)]
struct Edge {
    /// In words.
    says: String,
    /// How often the finding shows with all but this; nothing where it can't: the rule that it breaks
    /// holds only in that order.
    #[serde(skip_serializing_if = "Option::is_none")]
    without: Option<Rate>,
}

/// Runs the verb.
///
/// # Errors
/// The finding can't be read, set-up failed, or the rig did.
pub fn run(arguments: &MinimizeArgs, command: Vec<String>) -> Result<Exit, Error> {
    let mut case = Case::open(&arguments.case, false)?;
    let started = Instant::now();
    let path = (arguments.out.clone())
        .unwrap_or_else(|| RunDir::default_path(&format!("{}-minimize", case.target.target.name)));
    let shrinking = RunDir::create(&path)?;
    let kept_in = shrinking.path().to_owned();
    if case.plan.delays.is_some() && case.prepared.vcpus.is_some() {
        let dir = RunDir::create(&kept_in.join("orders"))?;
        if let Some(ordered) = order::search(&case, dir, &command)? {
            case.plan = ordered;
        }
    }
    let sought = case.sought();
    let mut minimizer = Minimizer {
        case: &case,
        sought: &sought,
        command: &command,
        tries: arguments.tries,
        proof: arguments.proof,
        hasty: sought.is_told_by_a_deadline(),
    };
    let mut least = minimizer.least(shrinking)?;
    if minimizer.hasty && least.as_ref().is_none_or(|it| it.shown.rate.hits == 0) {
        // What was late by a short deadline was only slow.
        minimizer.hasty = false;
        least = minimizer.least(RunDir::create(&kept_in.join("patient"))?)?;
    }
    let Some(least) = least else {
        say(&format!(
            "not shown: 0 of {}: {}\n  kept in  {}\n",
            whole_tries(&case.plan),
            case.replay.reproducer.title,
            kept_in.display()
        ))?;
        return Ok(Exit::Clean);
    };
    let plan = &least.plan;
    keep(&case.replay, plan, &kept_in)?;
    let minimal = Minimal {
        version: VERSION,
        title: &case.replay.reproducer.title,
        key: &case.replay.reproducer.key,
        sentence: &story::sentence(plan, &case.replay.reproducer.title),
        rate: least.shown.rate,
        episodes: least.shown.episodes,
        edges: &least.edges,
        actors: plan.episode.actors.len(),
        ops: story::ops(plan),
        tried: least.tried,
        wall_ms: started.elapsed().as_millis() as u64,
        apart: story::apart(plan),
        kept_in: &kept_in,
    };
    write_json(&kept_in.join("minimal.json"), &minimal)?;
    match arguments.format {
        Format::Human => say(&text(&minimal))?,
        Format::Json => say_json(&minimal)?,
    }
    Ok(Exit::Findings)
}

/// What is left of an episode.
struct Least {
    plan: Plan,
    edges: Vec<Edge>,
    /// How often it shows the finding, by its own deadlines.
    shown: Attempts,
    /// Episodes that it took to shrink it.
    tried: u64,
}

/// How the least is looked for.
struct Minimizer<'a> {
    case: &'a Case,
    sought: &'a Name,
    command: &'a [String],
    /// As [`MinimizeArgs::tries`].
    tries: u64,
    /// As [`MinimizeArgs::proof`].
    proof: u64,
    /// What hangs is told sooner than by its own deadline.
    hasty: bool,
}

impl Minimizer<'_> {
    /// The least that shows it, kept with all that was tried in a directory; nothing if the whole does not.
    fn least(&self, dir: RunDir) -> Result<Option<Least>, Error> {
        let kept_in = dir.path().to_owned();
        let mut shrink = Shrink::new(&self.case.plan, self.sought, self.tries, self.hasty);
        self.campaign(dir)?.verdict(&mut shrink)?;
        let Some(rarity) = shrink.rarity() else {
            return Ok(None);
        };
        let mut plan = shrink.minimal();
        if let Some(apart) = plan.apart()
            && always(&self.rate(&apart, &kept_in.join("apart"))?)
        {
            plan = apart;
        }
        let mut proof = Proof::new(plan, self.sought, self.hasty, rarity, self.proof);
        if !proof.done() {
            let dir = RunDir::create(&kept_in.join("without-edges"))?;
            self.campaign(dir)?.verdict(&mut proof)?;
        }
        let Proof {
            mut plan, edges, ..
        } = proof;
        let mut shown = self.rate_by_its_deadlines(&plan, &kept_in.join("minimal"))?;
        // Where no order is left for it to show, threads may be together again.
        if edges.is_empty() && story::apart(&plan).is_some() {
            let together = plan.together();
            let dir = kept_in.join("together");
            let shown_together = self.rate_by_its_deadlines(&together, &dir)?;
            if always(&shown_together) {
                (plan, shown) = (together, shown_together);
            }
        }
        Ok(Some(Least {
            plan,
            edges,
            shown,
            tried: shrink.tried,
        }))
    }

    /// How often a plan shows it, by short deadlines.
    fn rate(&self, plan: &Plan, dir: &Path) -> Result<Attempts, Error> {
        let plan = brisk(plan.clone(), self.sought, self.hasty, PATIENCE_MS);
        let trials = self.case.trials(&plan, self.tries, u64::MAX);
        self.attempts(trials.of_episodes(chances(&plan)), dir)
    }

    /// How often a plan shows it, by its own deadlines.
    fn rate_by_its_deadlines(&self, plan: &Plan, dir: &Path) -> Result<Attempts, Error> {
        // Of what hangs each hit takes the deadline, and it was shown often enough by a shorter one.
        let times = if self.hasty { 1 } else { self.tries };
        let trials = self.case.trials(plan, times, u64::MAX);
        self.attempts(trials.of_episodes(chances(plan)), dir)
    }

    fn attempts(&self, trials: Trials<'_>, dir: &Path) -> Result<Attempts, Error> {
        let campaign = self.campaign(RunDir::create(dir)?)?;
        self.case.attempts(campaign, trials)
    }

    fn campaign(&self, dir: RunDir) -> Result<Campaign<'_>, Error> {
        Ok((self.case.campaign(dir, self.command)?).nothing_else())
    }
}

/// Whether each episode showed it.
fn always(shown: &Attempts) -> bool {
    shown.episodes.hits == shown.episodes.attempts
}

/// The finding with the minimal episode in place of its own, for `repro`.
fn keep(whole: &Replay, plan: &Plan, dir: &Path) -> Result<(), Error> {
    let less = Reproducer {
        episode: plan.clone(),
        ..whole.reproducer.clone()
    };
    match &whole.finding {
        None => write_json(&dir.join(reproducer::FILE), &less),
        Some(found) => write_finding(
            dir,
            &Finding {
                version: finding::VERSION,
                reproducer: Some(reproducer::FILE.to_owned()),
                episode: Some(less.episode),
                ..found.clone()
            },
        ),
    }
}

fn text(minimal: &Minimal<'_>) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "{}, {}, {} still show it: {}",
        plural(minimal.edges.len(), "edge"),
        plural(minimal.actors, "actor"),
        plural(minimal.ops, "op"),
        minimal.title
    );
    let _ = writeln!(text, "  {}", minimal.sentence);
    let _ = writeln!(text, "  shown    {}", minimal.rate);
    if minimal.episodes != minimal.rate {
        let _ = writeln!(text, "  episodes {}", minimal.episodes);
    }
    for edge in minimal.edges {
        let _ = writeln!(text, "  edge     {}", edge.says);
        let _ = match &edge.without {
            Some(rate) => writeln!(text, "           without it {rate}"),
            None => writeln!(text, "           without it the rule says nothing"),
        };
    }
    if let Some(apart) = &minimal.apart {
        let _ = writeln!(
            text,
            "  apart    {apart}: together they may meet without an edge"
        );
    }
    let wall = human_time(Duration::from_millis(minimal.wall_ms));
    let _ = writeln!(text, "  took     {} episodes, {wall}", minimal.tried);
    let _ = writeln!(
        text,
        "  next     read {0}/report.txt, show it again by `cargo rig repro {0}`",
        minimal.kept_in.display()
    );
    text
}
