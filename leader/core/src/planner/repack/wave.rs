//! Batches in the order they are worth doing, cut to disruption budgets.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use drover_common::crd::DisruptionReason;
use drover_common::id::NodePoolName;

use super::candidate::{allowed_now, budgets_used_up};
use super::put_off::{self, FOLLOWED};
use super::{Batch, RepackInput, RepackPlan};

/// Orders the batches and gives each its wave. A batch that no budget ever lets through is dropped, and with
/// it all that follow; these come in their own order, each in a wave of its own.
pub(in crate::planner) fn cut(input: &RepackInput<'_>, plan: &mut RepackPlan) {
    let (following, mut batches): (Vec<Batch>, Vec<Batch>) =
        std::mem::take(&mut plan.batches).into_iter().partition(|batch| batch.follows);
    batches.sort_by_cached_key(|batch| {
        let cost = i128::from(batch.eviction_cost.max(0)) + 1_000;
        let rank = i128::from(batch.saving_micro) * 1_000_000 / cost;
        (batch.reason != DisruptionReason::Empty, Reverse(rank), batch.nodes.clone())
    });
    let mut waves: Vec<BTreeMap<NodePoolName, u32>> = Vec::new();
    let mut off: Vec<(Batch, String)> = Vec::new();
    for mut batch in batches.into_iter().chain(following) {
        if batch.follows && !off.is_empty() {
            off.push((batch, FOLLOWED.to_owned()));
            continue;
        }
        match wave_of(input, &batch, &mut waves) {
            Ok(wave) => {
                batch.wave = wave;
                plan.batches.push(batch);
            }
            Err(pool) => {
                let reason = budgets_used_up(&pool, batch.reason);
                off.push((batch, reason));
            }
        }
    }
    plan.batches.sort_by_key(|batch| batch.wave);
    put_off::tell(input, plan, &off);
    plan.left.sort();
}

fn wave_of(
    input: &RepackInput<'_>,
    batch: &Batch,
    waves: &mut Vec<BTreeMap<NodePoolName, u32>>,
) -> Result<u32, NodePoolName> {
    let mut needs: BTreeMap<NodePoolName, (u32, u32)> = BTreeMap::new();
    for node in &batch.nodes {
        let Some(managed) = input.nodes.get(node) else { continue };
        let need = needs.entry(managed.nodepool.clone()).or_insert_with(|| {
            let pool = input.plan.view.pools().get(&managed.nodepool);
            let name = &managed.nodepool;
            (0, pool.map_or(0, |pool| allowed_now(input, name, pool, batch.reason)))
        });
        need.0 += 1;
    }
    if let Some((pool, _)) = needs.iter().find(|(_, (need, allowed))| need > allowed) {
        return Err(pool.clone());
    }
    let first = if batch.follows { u32::try_from(waves.len()).unwrap_or(u32::MAX) } else { 0 };
    for number in first.. {
        let position = number as usize;
        if waves.len() <= position {
            waves.push(BTreeMap::new());
        }
        let Some(wave) = waves.get_mut(position) else { break };
        let fits = needs.iter().all(|(pool, (need, allowed))| {
            wave.get(pool).copied().unwrap_or(0).saturating_add(*need) <= *allowed
        });
        if fits {
            for (pool, (need, _)) in needs {
                *wave.entry(pool).or_default() += need;
            }
            return Ok(number);
        }
    }
    Ok(u32::MAX)
}
