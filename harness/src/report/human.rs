//! The summary for people: the answer in the first line.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::progress::human_time;
use crate::judge::summary::{Explored, Pct, Summary, Totals};
use crate::schedule::pct::Promise;

/// A set-up that takes less is not worth a line.
const TOLD_SET_UP_MS: u64 = 2_000;

/// The answer in a line.
pub fn answer(summary: &Summary) -> String {
    let ran_ms = summary.wall_ms.saturating_sub(summary.set_up_ms);
    let time = human_time(Duration::from_millis(ran_ms));
    let episodes = summary.episodes();
    let answer = match summary.findings.len() {
        0 if summary.interrupted => "interrupted: no finding so far".to_owned(),
        0 if summary.lost > 0 => "the rig failed: a guest was lost without a report".to_owned(),
        0 if episodes == 0 => "the rig failed: no episode ran".to_owned(),
        0 if summary.explored.as_ref().is_some_and(|it| !it.is_whole()) => {
            "not explored to its end: no finding so far".to_owned()
        }
        0 => "clean: no finding".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    format!(
        "{answer} in {episodes} episodes of {} in {time}",
        summary.title
    )
}

/// The summary of a run whose directory is `dir`.
pub fn summary(summary: &Summary, dir: &Path) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "{}", answer(summary));
    for finding in &summary.findings {
        let _ = writeln!(
            text,
            "  {:03}  {} (met {} times, first after {:.1} s of the guest's time)",
            finding.number,
            finding.title,
            finding.count,
            finding.guest_ms as f64 / 1000.0
        );
    }
    if let Some(why) = &summary.lost_why {
        let _ = writeln!(text, "  lost       {why}");
    }
    let sum = |pick: fn(&Totals) -> u64| pick(&summary.gated) + pick(&summary.ungated);
    let _ = writeln!(
        text,
        "  teardowns  {} ok, {} refused",
        sum(|totals| totals.collisions.teardowns_ok),
        sum(|totals| totals.collisions.teardowns_refused)
    );
    let _ = writeln!(
        text,
        "  overlap    gated {}, without a gate {}",
        overlap(&summary.gated),
        overlap(&summary.ungated)
    );
    if let Some(explored) = &summary.explored {
        text.push_str(&exploration(explored));
    }
    if summary.points.armed > 0 {
        let points = summary.points;
        let _ = writeln!(
            text,
            "  points     {} reached of {} placed in functions",
            points.reached, points.armed
        );
    }
    if let Some(line) = pct(&summary.pct) {
        let _ = writeln!(text, "  pct        {line}");
    }
    let _ = writeln!(
        text,
        "  ops        {}, of which {} met no live driver",
        sum(|totals| totals.collisions.ops),
        sum(|totals| totals.collisions.ops_failed)
    );
    let first = summary.first_episode_ms.map_or(String::new(), |ms| {
        format!(", first episode after {:.1} s", ms as f64 / 1000.0)
    });
    let _ = writeln!(text, "  rate       {:.1} episodes/s{first}", summary.rate());
    if summary.set_up_ms >= TOLD_SET_UP_MS {
        let time = human_time(Duration::from_millis(summary.set_up_ms));
        let _ = writeln!(text, "  set-up     {time} before that");
    }
    let _ = writeln!(text, "  guests     {}", guests(summary));
    let _ = writeln!(text, "  seed       {}", summary.seed);
    let _ = writeln!(text, "  kept in    {}", dir.display());
    if let Some(first) = summary.findings.first() {
        let _ = writeln!(
            text,
            "  next       read {0}, show it again by `cargo rig repro {1}`",
            dir.join(format!("findings/{:03}/report.txt", first.number))
                .display(),
            dir.join(format!("findings/{:03}", first.number)).display(),
        );
    }
    text
}

/// How many guests there were, and what became of those that didn't serve to the end.
fn guests(summary: &Summary) -> String {
    let fates = [
        (
            summary.unfit_boots,
            "given up for a boot that was not clean",
        ),
        (
            summary.emulator_faults,
            "given up for a fault of the emulator's",
        ),
        (summary.device_deaths, "with a device that died"),
        (summary.lost, "lost"),
    ];
    let fates = fates.into_iter().filter(|(count, _)| *count > 0);
    let booted = format!("{} booted", summary.guests);
    let told = fates.map(|(count, fate)| format!("{count} {fate}"));
    [booted]
        .into_iter()
        .chain(told)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the orders of probabilistic concurrency testing promise, in a line.
fn pct(all: &[Pct]) -> Option<String> {
    let least = all.iter().min_by(|a, b| a.bound.total_cmp(&b.bound))?;
    let episodes: u64 = all.iter().map(|it| it.episodes).sum();
    let k = || all.iter().map(|it| it.promise.k);
    let (from, to) = (k().min()?, k().max()?);
    let points = match from == to {
        true => format!("k={from}"),
        false => format!("k={from} to {to}"),
    };
    let Promise { n, d, .. } = least.promise;
    Some(format!(
        "{episodes} orders, n={n} {points} d={d}: each hits a bug of that depth with at least {:.2e}",
        least.bound
    ))
}

/// How far an exploration is, and what could not be.
fn exploration(explored: &Explored) -> String {
    let counts = &explored.counts;
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "  explored   {} of {} schedules of \"{}\" within {} switches",
        counts.done, counts.schedules, explored.program, explored.bound
    );
    let points: Vec<_> = explored.points.iter().map(usize::to_string).collect();
    let _ = writeln!(
        text,
        "             {} ran in their order, {} showed a failure, {} can't be: in {} somebody waits, in {} a \
         point does not come",
        counts.ordered,
        counts.found,
        counts.waits + counts.absent,
        counts.waits,
        counts.absent
    );
    let _ = writeln!(
        text,
        "             points {}; {} executions are the same as one of these",
        points.join(" + "),
        counts.same
    );
    if counts.undecided > 0 {
        let _ = writeln!(
            text,
            "             {} came to no result: the machine is too slow",
            counts.undecided
        );
    }
    let mut infeasible: Vec<_> = explored.infeasible.iter().collect();
    infeasible.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (why, count) in infeasible.iter().take(REASONS) {
        let _ = writeln!(text, "             {count:>5} times {why}");
    }
    if let Some(more) = infeasible.len().checked_sub(REASONS).filter(|it| *it > 0) {
        let _ = writeln!(
            text,
            "             and {more} reasons more, in explore.json"
        );
    }
    text
}

/// Reasons why a schedule can't be that are printed.
const REASONS: usize = 5;

fn overlap(totals: &Totals) -> String {
    let teardowns = totals.collisions.teardowns_ok + totals.collisions.teardowns_refused;
    match totals.overlap_ratio() {
        Some(ratio) => format!(
            "{ratio:.3} ({} of {teardowns})",
            totals.collisions.overlapped
        ),
        None => "none tried".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::oracle::Collisions;
    use crate::judge::summary::FindingLine;

    fn ran() -> Summary {
        let mut summary = Summary {
            title: "mydrv (drained)".into(),
            seed: 7,
            wall_ms: 61_000,
            episodes_ms: 50_000,
            first_episode_ms: Some(4_600),
            guests: 1,
            ..Default::default()
        };
        let one = Collisions {
            teardowns_ok: 1,
            teardowns_refused: 0,
            overlapped: 1,
            ops: 4,
            ops_failed: 1,
        };
        for _ in 0..400 {
            summary.add(true, true, one);
        }
        summary.add(
            false,
            false,
            Collisions {
                overlapped: 0,
                ..one
            },
        );
        summary
    }

    #[test]
    fn a_clean_run_says_so_first() {
        insta::assert_snapshot!(super::summary(&ran(), "out".as_ref()), @r"
        clean: no finding in 401 episodes of mydrv (drained) in 1 min 1 s
          teardowns  401 ok, 0 refused
          overlap    gated 1.000 (400 of 400), without a gate 0.000 (0 of 1)
          ops        1604, of which 401 met no live driver
          rate       8.0 episodes/s, first episode after 4.6 s
          guests     1 booted
          seed       7
          kept in    out
        ");
    }

    #[test]
    fn findings_come_first_with_their_numbers() {
        let mut summary = ran();
        summary.findings.push(FindingLine {
            number: 1,
            title: "KASAN: slab-use-after-free Read in mydrv::show".into(),
            key: "k".into(),
            count: 3,
            guest_ms: 1_250,
            episode: Some(3),
            oracles: vec!["kernel".into()],
        });
        let text = super::summary(&summary, "out".as_ref());
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .is_some_and(|line| line.starts_with("1 finding in 401 episodes"))
        );
        assert_eq!(
            lines.next(),
            Some(
                "  001  KASAN: slab-use-after-free Read in mydrv::show (met 3 times, first after 1.2 s of the guest's time)"
            )
        );
    }
}
