//! What is planned without pods: the nodes of a static pool, and what is wrong with overlays.

use std::collections::BTreeMap;

use drover_common::id::NodePoolName;
use fixedbitset::FixedBitSet;

use super::bin::most_room;
use super::board::Board;
use super::{Launch, PlanInput};

/// So many nodes of a static pool are planned at once: what a pool lacks beyond is planned when those are launched.
pub const MOST_STATIC_NODES: usize = 10_000;

/// So many nodes of a static pool, each as cheap as they come; fewer where limits or EC2 allow no
/// more, and never more than [`MOST_STATIC_NODES`].
///
/// # Errors
/// A reason, if the pool can make no node at all.
pub fn plan_static(
    input: &PlanInput<'_>,
    pool: &NodePoolName,
    count: usize,
) -> Result<Vec<Launch>, String> {
    let mut board = Board::for_pool(input, pool);
    let Some(number) = board.market.pools.iter().position(|found| found.name == *pool) else {
        let refused = board.market.refused.iter().find(|(name, _)| name == pool);
        return Err(refused.map_or_else(
            || format!("NodePool {pool} does not exist"),
            |(_, reason)| reason.clone(),
        ));
    };
    let mut possible = FixedBitSet::with_capacity(board.market.offers.len());
    if let Some(found) = board.market.pools.get(number) {
        if let Some(reason) = &found.fruitless {
            return Err(reason.clone());
        }
        possible.insert_range(found.offers.clone());
    }
    let mut bought = possible.clone();
    for offer in possible.ones().filter(|offer| board.market.slot_of(*offer).is_some()) {
        bought.remove(offer);
    }
    // What is better of the reserved has an end, and then the pool goes on with what is not.
    let mut offers = board.worth_buying(&possible);
    offers.union_with(&board.worth_buying(&bought));
    if offers.is_clear() {
        return Err("EC2 could not provide any of the NodePool's offerings lately".to_owned());
    }
    for _ in 0..count.min(MOST_STATIC_NODES) {
        let mut within = offers.clone();
        for offer in offers.ones() {
            if !board.can_have(offer, None) {
                within.remove(offer);
            }
        }
        let Some(cheapest) = board.cheapest(&within) else { break };
        // A node has the labels of one template.
        let template = board.market.kind_of(cheapest).map(|kind| kind.template);
        let range = template.and_then(|t| board.market.templates.get(t)).map(|t| t.offers.clone());
        let mut own = FixedBitSet::with_capacity(board.market.offers.len());
        own.insert_range(range.unwrap_or_default());
        within.intersect_with(&own);
        let mut bin = board.empty_bin(within);
        bin.pool = number;
        bin.cheapest = cheapest;
        bin.most = most_room(&board.market, &bin.offers);
        board.reserve(cheapest, 1);
        board.bins.push(bin);
    }
    let launches = board.launches();
    if launches.is_empty() && count > 0 {
        return Err("the NodePool's limits or minValues leave no node to make".to_owned());
    }
    Ok(launches)
}

/// What is wrong with overlays, by name: those that can't be read, and those in conflict.
pub fn overlay_faults(input: &PlanInput<'_>) -> BTreeMap<String, OverlayFault> {
    let board = Board::set(input);
    let overlays = &board.market.overlays;
    let unread = overlays.refused.iter().map(|(name, why)| {
        (name.clone(), OverlayFault { reason: "RuntimeValidation", message: why.clone() })
    });
    let conflicts = overlays.conflicts.iter().map(|(name, other)| {
        let message = format!("NodeOverlay {other} of the same weight says the same of some types");
        (name.clone(), OverlayFault { reason: "Conflict", message })
    });
    conflicts.chain(unread).collect()
}

/// What is wrong with an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayFault {
    /// Karpenter's reason of `ValidationSucceeded`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}
