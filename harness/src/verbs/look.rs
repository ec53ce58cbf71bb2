//! A look at the driver while it is up, before the first episode: which files a target's patterns
//! match, and what an op costs that leads where others lead, too.

use knobrig_proto::{Outcome, Step};

use super::campaign::failed_step;
use crate::engine::guest::{Guest, Loss};
use crate::error::Error;
use crate::target::expand::Found;
use crate::target::{Chosen, Knob};

/// Ops whose cost is measured; the median of them counts.
const OPS: usize = 32;
/// Rounds of a detour that are measured; it is more than an op.
const ROUNDS: usize = 8;
/// Anything but that of the knob's own.
const SLOT: u32 = 0;

/// The target with all that the guest knows. Most need no look.
///
/// # Errors
/// The guest is lost, the driver doesn't come up, or a pattern matches nothing.
pub(super) async fn around(guest: &mut Guest, target: &Chosen) -> Result<Chosen, Loss> {
    let patterns = target.target.patterns();
    let routes: Vec<_> = target.target.on_routes().cloned().collect();
    if patterns.is_empty() && routes.is_empty() && target.target.detours.is_empty() {
        return Ok(target.clone());
    }
    let wrong = |why: String| {
        let name = &target.target.name;
        Loss::Rig(Error::Target(format!("target {name}: {why}")))
    };
    let up = target.bring_up_steps();
    let outcomes = guest.run_steps(up.clone()).await?;
    if let Some(why) = failed_step(&up, &outcomes) {
        return Err(wrong(format!("the driver doesn't come up: {why}")));
    }
    let mut found = Found::default();
    for pattern in patterns {
        let step = Step::Glob {
            path: pattern.clone(),
        };
        let outcomes = guest.run_steps(vec![step]).await?;
        let text = outcomes.into_iter().next().and_then(|outcome| outcome.text);
        let text = text.unwrap_or_default();
        found
            .paths
            .insert(pattern, text.lines().map(str::to_owned).collect());
    }
    for knob in &routes {
        if let Some(cost) = cost(guest, knob).await? {
            found.costs.insert(knob.name.clone(), cost);
        }
    }
    for detour in &target.target.detours {
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            let outcomes = guest.run_steps(detour.steps.clone()).await?;
            costs.push(outcomes.iter().map(took).sum());
        }
        if let Some(cost) = median(costs) {
            found.costs.insert(detour.name.clone(), cost);
        }
    }
    let down = target.take_down_steps();
    let outcomes = guest.run_steps(down.clone()).await?;
    if let Some(why) = failed_step(&down, &outcomes) {
        return Err(wrong(format!("the driver doesn't go: {why}")));
    }
    target.expand(&found).map_err(wrong)
}

/// Median nanoseconds of a knob's op; none where it can't be opened.
async fn cost(guest: &mut Guest, knob: &Knob) -> Result<Option<u64>, Loss> {
    let op = match &knob.write {
        Some(data) => Step::Write {
            slot: SLOT,
            data: data.first(),
        },
        None => Step::Read {
            slot: SLOT,
            len: knob.read.unwrap_or_default(),
        },
    };
    let open = Step::Open {
        path: knob.path.clone(),
        read: knob.write.is_none(),
        write: knob.write.is_some(),
        exclusive: false,
        slot: SLOT,
    };
    let ops = std::iter::repeat_n(op, OPS);
    let outcomes = guest
        .run_steps([open].into_iter().chain(ops).collect())
        .await?;
    if outcomes.first().is_none_or(|open| open.ret < 0) {
        return Ok(None);
    }
    Ok(median(outcomes.iter().skip(1).map(took).collect()))
}

fn took(outcome: &Outcome) -> u64 {
    outcome.end_ns.saturating_sub(outcome.start_ns)
}

fn median(mut costs: Vec<u64>) -> Option<u64> {
    costs.sort_unstable();
    costs.get(costs.len() / 2).copied()
}
