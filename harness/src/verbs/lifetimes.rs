//! `knobrig lifetimes`: the 2007 thread's rules, each as observed in a real guest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;

use super::campaign::{Campaign, Settings};
use super::mix::Mix;
use super::prepare::{self, Wanted};
use super::run::{say, say_json, seed_or_random};
use super::scratch::Scratch;
use crate::cli::{Format, LifetimesArgs};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::{Points, Rule, plan};
use crate::judge::summary::Summary;
use crate::report::progress::{Goal, SetUp};
use crate::target::{Chosen, Lifetime};

/// Version of the table's JSON.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Table {
    version: u32,
    target: String,
    kernel: String,
    seed: u64,
    lifetimes: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    lifetime: String,
    about: String,
    claim: String,
    episodes: u64,
    /// Each rule that its episodes are about: how often it was seen to hold.
    rules: BTreeMap<Rule, u64>,
    /// What broke a rule, or went wrong else.
    broken: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// Set-up failed, or the rig did.
pub fn run(arguments: &LifetimesArgs, command: Vec<String>) -> Result<Exit, Error> {
    let whole = Chosen::find(&arguments.target, None, None)?;
    for only in &arguments.only {
        Chosen::find(&arguments.target, Some(only), None)?;
    }
    let seed = seed_or_random(arguments.seed)?;
    let wanted = Wanted::pinned(arguments.variant.0, arguments.accel);
    let prepared = prepare::prepare(&whole, &wanted, &SetUp::new())?;
    let mut table = Table {
        version: VERSION,
        target: whole.target.name.clone(),
        kernel: prepared.kernel.id.clone(),
        seed,
        lifetimes: Vec::new(),
    };
    for lifetime in &whole.target.lifetimes {
        if !arguments.only.is_empty() && !arguments.only.contains(&lifetime.name) {
            continue;
        }
        let target = Chosen::find(&arguments.target, Some(&lifetime.name), None)?;
        let scratch = Scratch::new()?;
        let dir = scratch.run_dir()?;
        let goal = Goal::Episodes(arguments.episodes);
        let settings = Settings::inner(seed, goal, &command);
        let summary = Campaign::new(Instant::now(), &target, &prepared, settings, dir)?
            .verdict(&mut Mix::new(&target, &prepared, seed, Vec::new()))?;
        let row = Row::new(lifetime, asked(&target, seed, arguments.episodes), summary);
        if arguments.format == Format::Human {
            say(&row.human())?;
        }
        table.lifetimes.push(row);
    }
    if arguments.format == Format::Json {
        say_json(&table)?;
    }
    Ok(match table.lifetimes.iter().all(Row::holds) {
        true => Exit::Clean,
        false => Exit::Findings,
    })
}

/// The rules that the episodes of a run are about.
fn asked(target: &Chosen, seed: u64, episodes: u64) -> BTreeSet<Rule> {
    (1..=episodes)
        .flat_map(|number| plan(target, &Points::default(), seed, number, &[]).checks)
        .map(|check| check.rule)
        .chain([Rule::DeviceStopped])
        .collect()
}

impl Row {
    fn new(lifetime: &Lifetime, asked: BTreeSet<Rule>, summary: Summary) -> Self {
        let seen = |rule: &Rule| summary.rules.get(rule).copied().unwrap_or(0);
        Self {
            lifetime: lifetime.name.clone(),
            about: lifetime.about.clone(),
            claim: lifetime.claim.clone(),
            episodes: summary.episodes(),
            rules: asked.into_iter().map(|rule| (rule, seen(&rule))).collect(),
            broken: summary.findings.into_iter().map(|it| it.title).collect(),
        }
    }

    /// Nothing broke, and nothing was left unseen: a rule that was never observed is not shown.
    fn holds(&self) -> bool {
        self.broken.is_empty() && self.rules.values().all(|count| *count > 0)
    }

    fn human(&self) -> String {
        let verdict = if self.holds() { "holds" } else { "BROKEN" };
        let mut text = format!(
            "{}: {verdict} in {} episodes\n  rule    {}\n  thread  {}\n",
            self.lifetime, self.episodes, self.about, self.claim
        );
        for (rule, count) in &self.rules {
            let seen = match count {
                0 => "not seen".to_owned(),
                count => format!("seen {count} times"),
            };
            let _ = writeln!(text, "  {seen:<16}{}", rule.says());
        }
        for broken in &self.broken {
            let _ = writeln!(text, "  broken  {broken}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::summary::FindingLine;

    fn row(change: impl FnOnce(&mut Summary)) -> Row {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let asked = asked(&target, 1, 300);
        let mut summary = Summary::default();
        summary.add_rules(&asked.iter().map(|rule| (*rule, 3)).collect());
        change(&mut summary);
        Row::new(&target.lifetime, asked, summary)
    }

    #[test]
    fn what_was_seen_to_hold_holds() {
        let row = row(|_| ());
        assert!(row.holds());
        assert!(row.human().starts_with("drained: holds in 0 episodes"));
    }

    #[test]
    fn a_rule_that_was_never_seen_does_not_hold() {
        let row = row(|summary| {
            summary.rules.remove(&Rule::OldDescriptor);
        });
        assert!(!row.holds());
        assert!(row.human().contains("not seen        an old descriptor"));
    }

    #[test]
    fn a_broken_rule_is_told() {
        let row = row(|summary| {
            summary.findings.push(FindingLine {
                number: 1,
                title: "rule counts: read refcnt: expected the text \"1\", read \"2\"".into(),
                key: "k".into(),
                count: 1,
                guest_ms: 1,
                episode: Some(1),
                oracles: vec!["rule".into()],
            });
        });
        assert!(!row.holds());
        assert!(row.human().contains("broken  rule counts"));
    }
}
