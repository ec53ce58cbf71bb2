//! `knobrig bench find`: how long it takes to the first finding, by the rig and by plain loops.

use serde::Serialize;

use super::super::prepare::{self, Wanted};
use super::super::run::{say, say_json};
use super::search::{Search, median_ms, search};
use crate::cli::{FindArgs, Format};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::Shape;
use crate::report::progress::SetUp;
use crate::target::Chosen;

/// Version of the JSON.
const VERSION: u32 = 1;

const METHOD: &str = "each seed boots a fresh guest of one image for each side, one after the other; \
    the time is the guest's, from its first episode to the first finding, the load of the modules \
    included; the loops are four threads that go through open, one op and close, a teardown among \
    them where the target has one; a side that finds nothing counts with its whole budget";

#[derive(Debug, Serialize)]
struct Benchmark {
    version: u32,
    bench: &'static str,
    title: String,
    kernel: String,
    method: &'static str,
    rig: Vec<Search>,
    loops: Vec<Search>,
    rig_median_ms: u64,
    loops_median_ms: u64,
    /// The loops' median over the rig's.
    ratio: f64,
}

/// Runs the verb.
///
/// # Errors
/// Set-up failed, or the rig did.
pub(super) fn run(arguments: &FindArgs) -> Result<Exit, Error> {
    let target = Chosen::find(&arguments.target, None, None)?;
    if target.target.loops.is_none() {
        return Err(Error::Usage(format!(
            "target {} has no [loops]: there are no plain loops to run against it",
            target.target.name
        )));
    }
    let wanted = Wanted {
        kernel: arguments.kernel.choice(),
        accel: arguments.accel,
        module_dirs: Vec::new(),
    };
    let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
    let (mut rig, mut loops) = (Vec::new(), Vec::new());
    for seed in 1..=arguments.seeds {
        let budget = arguments.budget.0;
        rig.push(search(&target, &prepared, seed, budget, Vec::new())?);
        let shapes = vec![Shape::Naive];
        loops.push(search(&target, &prepared, seed, budget, shapes)?);
        if arguments.format == Format::Human {
            let line = |name, side: &[Search]| {
                let last = side.last();
                let title = last.and_then(|it| it.title.as_deref()).unwrap_or("nothing");
                format!("{name} {:>6} ms {title}", last.map_or(0, |it| it.ms))
            };
            say(&format!(
                "seed {seed}: {}; {}\n",
                line("rig", &rig),
                line("loops", &loops)
            ))?;
        }
    }
    let (one, other) = (median_ms(&rig), median_ms(&loops));
    let result = Benchmark {
        version: VERSION,
        bench: "find",
        title: target.title(),
        kernel: prepared.kernel.release.clone(),
        method: METHOD,
        rig,
        loops,
        rig_median_ms: one.median,
        loops_median_ms: other.median,
        ratio: other.median as f64 / one.median.max(1) as f64,
    };
    match arguments.format {
        Format::Json => say_json(&result)?,
        Format::Human => say(&format!(
            "{} on Linux {}: median {}, plain loops {}: {:.1} times as fast\nmethod: {METHOD}\n",
            result.title,
            result.kernel,
            one.in_seconds(),
            other.in_seconds(),
            result.ratio
        ))?,
    }
    Ok(Exit::Clean)
}
