//! `knobrig bench find`: how long it takes to the first finding, by the rig and by plain loops.

use serde::Serialize;

use super::super::prepare::{self, Need, Prepared, Wanted};
use super::super::run::{delays_or_else, has_shapes, say, say_json};
use super::search::{Search, search};
use crate::cli::{FindArgs, Format};
use crate::error::Error;
use crate::exit::Exit;
use crate::judge::plan::{Shape, may_delay};
use crate::judge::statistics::Median;
use crate::report::progress::SetUp;
use crate::target::Chosen;

/// Version of the JSON.
const VERSION: u32 = 2;

const METHOD: &str = "each seed boots a fresh guest of one image for each side, one after the other; \
    a side without delays has no plugin in its QEMU; the time is the guest's, from the start of the \
    first episode's actors to the first finding: what they need is loaded and made before that, by \
    either side (set_up_ms); the loops are the threads that the target calls plain: each goes through \
    open, one op and close of its knob, or through its teardown; a side that finds nothing counts \
    with its whole budget; found a second is what was found over all the time that was looked";

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
    /// What the rig found a second of all the time that it looked.
    rig_per_s: f64,
    /// The same of the loops.
    loops_per_s: f64,
    /// Of these, the rig's over the loops'; absent where the loops found nothing.
    per_s_ratio: Option<f64>,
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
    has_shapes(&target, &arguments.shapes)?;
    let wanted = Wanted {
        kernel: arguments.kernel.choice(),
        accel: arguments.accel,
        module_dirs: Vec::new(),
        vcpus: Need::delays(may_delay(&target, &arguments.shapes)),
    };
    let prepared = prepare::prepare(&target, &wanted, &SetUp::new())?;
    delays_or_else(&prepared, &arguments.shapes)?;
    // What a plugin costs is no loop's fault.
    let plain = Prepared {
        vcpus: None,
        ..prepared.clone()
    };
    let (mut rig, mut loops) = (Vec::new(), Vec::new());
    for seed in 1..=arguments.seeds {
        let budget = arguments.budget.0;
        let shapes = arguments.shapes.clone();
        rig.push(search(&target, &prepared, seed, budget, shapes)?);
        let shapes = vec![Shape::Naive];
        loops.push(search(&target, &plain, seed, budget, shapes)?);
        if arguments.format == Format::Human {
            let line = |name, side: &[Search]| {
                let last = side.last();
                let title = last.and_then(|it| it.title.as_deref()).unwrap_or("nothing");
                format!("{name} {:>6} ms {title}", last.map_or(0, Search::racing_ms))
            };
            say(&format!(
                "seed {seed}: {}; {}\n",
                line("rig", &rig),
                line("loops", &loops)
            ))?;
        }
    }
    let median = |side: &[Search]| Median::of(side.iter().map(Search::racing_ms).collect());
    let (one, other) = (median(&rig), median(&loops));
    let (rig_per_s, loops_per_s) = (per_s(&rig), per_s(&loops));
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
        rig_per_s,
        loops_per_s,
        per_s_ratio: (loops_per_s > 0.0).then(|| rig_per_s / loops_per_s),
    };
    match arguments.format {
        Format::Json => say_json(&result)?,
        Format::Human => say(&text(&result, &one, &other))?,
    }
    Ok(Exit::Clean)
}

fn text(result: &Benchmark, one: &Median, other: &Median) -> String {
    let more = match result.per_s_ratio {
        Some(ratio) => format!("{ratio:.1} times as much"),
        None => "the loops found nothing".into(),
    };
    format!(
        "{} on Linux {}: median {}, plain loops {}: {:.1} times as fast\n\
         found a second {:.4}, plain loops {:.4}: {more}\nmethod: {METHOD}\n",
        result.title,
        result.kernel,
        one.in_seconds(),
        other.in_seconds(),
        result.ratio,
        result.rig_per_s,
        result.loops_per_s,
    )
}

/// Found, over all the time that was looked.
fn per_s(side: &[Search]) -> f64 {
    let found = side.iter().filter(|search| search.title.is_some()).count();
    let ms: u64 = side.iter().map(Search::racing_ms).sum();
    found as f64 * 1000.0 / ms.max(1) as f64
}
