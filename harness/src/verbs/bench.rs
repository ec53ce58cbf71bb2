//! `knobrig bench`: the rig against a plain loop, both on the same image, in turns.

use serde::Serialize;

mod detect;
mod find;
mod search;

use super::campaign::{Campaign, Settings};
use super::mix::Mix;
use super::prepare::{self, Prepared, Wanted};
use super::scratch::Scratch;
use crate::cli::{BenchCommand, Format, Span};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::Shape;
use crate::judge::summary::Totals;
use crate::report::progress::{Goal, SetUp};
use crate::target::Chosen;

/// Version of the benchmark's JSON.
const VERSION: u32 = 1;

/// One side of a round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Side {
    /// Teardowns that began with an op inside the driver, over all teardowns.
    overlap_ratio: f64,
    /// Teardowns.
    teardowns: u64,
    /// Episodes per second; a naive episode is many loads and unloads.
    episodes_per_s: f64,
    /// Loads with their unload, per second.
    cycles_per_s: f64,
    /// Ops that met a live driver, over all ops.
    live_ops: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    gated: Side,
    naive: Side,
    /// Share of ops that met a live driver, gated over naive; absent where the loop met none.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Benchmark {
    version: u32,
    bench: &'static str,
    title: String,
    kernel: String,
    accel: crate::engine::qemu::Accel,
    method: &'static str,
    rounds: Vec<Round>,
}

const METHOD: &str = "each round boots two fresh guests of one image, one after the other: gated \
    episodes, then one thread that loads and unloads in a loop against two that open, read and \
    close myknob0 and myknob1; a teardown overlaps if an op that reached the driver was in its \
    system call as the teardown began; the ratio is that of the ops that met a live driver";

/// Runs the verb.
///
/// # Errors
/// Set-up failed, the rig failed, or a bench run met a finding.
pub fn run(command: &BenchCommand) -> Result<Exit, Error> {
    let command = match command {
        BenchCommand::Find(arguments) => return find::run(arguments),
        BenchCommand::Detect(arguments) => return detect::run(arguments),
        overlap @ BenchCommand::Overlap { .. } => overlap,
    };
    let BenchCommand::Overlap {
        lifetime,
        rounds,
        duration,
        variant,
        accel,
        format,
    } = command
    else {
        return Ok(Exit::Clean);
    };
    let target = Chosen::find("mydrv", Some(lifetime), None)?;
    let wanted = Wanted::pinned(variant.0, *accel);
    let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
    let mut result = Benchmark {
        version: VERSION,
        bench: "overlap",
        title: target.title(),
        kernel: prepared.kernel.id.clone(),
        accel: prepared.accel,
        method: METHOD,
        rounds: Vec::new(),
    };
    for seed in 1..=u64::from(*rounds) {
        let gated = side(&target, &prepared, seed, *duration, Shape::Gated)?;
        let naive = side(&target, &prepared, seed, *duration, Shape::Naive)?;
        let ratio = (naive.live_ops > 0.0).then(|| gated.live_ops / naive.live_ops);
        result.rounds.push(Round {
            gated,
            naive,
            ratio,
        });
        if *format == Format::Human {
            print_round(seed, gated, naive, ratio);
        }
    }
    match format {
        Format::Json => println!("{}", serde_json::to_string(&result).unwrap_or_default()),
        Format::Human => println!("method: {METHOD}"),
    }
    Ok(Exit::Clean)
}

fn print_round(round: u64, gated: Side, naive: Side, ratio: Option<f64>) {
    let ratio = ratio.map_or("the loop met none".to_owned(), |ratio| {
        format!("{ratio:.1} times as many of the ops met a live driver")
    });
    println!("round {round}: {ratio}");
    for (name, side) in [("gated", gated), ("naive", naive)] {
        println!(
            "  {name}  overlap {:.4} of {} teardowns, {:.1} episodes/s, {:.1} load/unload cycles/s, \
             {:.1} % of the ops met a live driver",
            side.overlap_ratio,
            side.teardowns,
            side.episodes_per_s,
            side.cycles_per_s,
            side.live_ops * 100.0
        );
    }
}

fn side(
    target: &Chosen,
    prepared: &Prepared,
    seed: u64,
    duration: Span,
    shape: Shape,
) -> Result<Side, Error> {
    let scratch = Scratch::new()?;
    let dir = scratch.run_dir()?;
    let settings = Settings::inner(seed, Goal::Duration(duration.0), &[]);
    let started = std::time::Instant::now();
    let mut episodes = Mix::new(target, prepared, seed, vec![shape]);
    let summary = Campaign::new(started, target, prepared, settings, dir)?.drive(&mut episodes)?;
    if summary.interrupted {
        return Err(Error::Interrupted);
    }
    if let Some(finding) = summary.findings.first() {
        let kept = scratch.keep();
        return Err(Error::Rig(format!(
            "the {shape:?} side met a finding: {} (kept in {})",
            finding.title,
            kept.display()
        )));
    }
    let totals: &Totals = match shape {
        Shape::Gated => &summary.gated,
        _ => &summary.ungated,
    };
    let teardowns = totals.collisions.teardowns_ok + totals.collisions.teardowns_refused;
    let ops = totals.collisions.ops.max(1) as f64;
    Ok(Side {
        overlap_ratio: totals.overlap_ratio().unwrap_or(0.0),
        teardowns,
        episodes_per_s: summary.rate(),
        cycles_per_s: totals.collisions.teardowns_ok as f64 * 1000.0
            / summary.episodes_ms.max(1) as f64,
        live_ops: 1.0 - totals.collisions.ops_failed as f64 / ops,
    })
}
