//! Rounds of placing: what goes one by one, then what is packed in bulk, then what is left; where pods are left
//! still, each drops one preference more.

use super::board::Board;
use super::group;
use crate::view::View;

/// In which order pods are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// All priorities together, which packs best. Enough as long as nothing runs out.
    #[default]
    AllAtOnce,
    /// The same, with those that are packed in bulk before those that go one by one: what they leave may do for these.
    BulkFirst,
    /// Every pod of a priority before any of a lower one.
    ByPriority,
}

/// Groups that are placed together.
pub(super) struct Band {
    groups: Vec<usize>,
    order: Order,
}

/// Priorities that are packed each for itself. Of more of them, neighbours share a band, in which the
/// exact path goes by priority.
const MOST_BANDS: usize = 64;

pub(super) fn bands(board: &Board<'_>, order: Order) -> Vec<Band> {
    let all: Vec<usize> = (0..board.groups.len()).collect();
    if order != Order::ByPriority {
        return vec![Band { groups: all, order }];
    }
    // Groups are sorted by priority.
    let each: Vec<&[usize]> =
        all.chunk_by(|a, b| board.priority(*a) == board.priority(*b)).collect();
    let together = each.len().div_ceil(MOST_BANDS).max(1);
    each.chunks(together)
        .map(|bands| {
            // Of several priorities pod by pod, in the groups' order.
            let order = if bands.len() > 1 { Order::ByPriority } else { Order::AllAtOnce };
            Band { groups: bands.concat(), order }
        })
        .collect()
}

/// Places what can be placed, preferences first; returns the price of plain first fit. A pod may
/// depend on pods of lower priority, so as long as that places some, all bands have another turn.
pub(super) fn place_bands(board: &mut Board<'_>, view: &View, bands: &[Band]) -> u64 {
    let mut first_fit_price = 0_u64;
    let mut left = board.left();
    loop {
        for band in bands {
            first_fit_price = first_fit_price.saturating_add(place_band(board, view, band));
        }
        let before = std::mem::replace(&mut left, board.left());
        if bands.len() < 2 || left == 0 || left == before || board.steps.are_spent() {
            return first_fit_price;
        }
    }
}

fn place_band(board: &mut Board<'_>, view: &View, band: &Band) -> u64 {
    let mut first_fit_price = 0_u64;
    loop {
        first_fit_price = first_fit_price.saturating_add(round_of(board, &band.groups, band.order));
        board.place_on_avoided(&band.groups);
        if board.steps.are_spent() || !relax(board, view, &band.groups) {
            return first_fit_price;
        }
    }
}

/// Places what can be placed at the present steps of relaxation.
pub(super) fn round(board: &mut Board<'_>, groups: &[usize]) -> u64 {
    round_of(board, groups, Order::AllAtOnce)
}

/// The same in some order.
fn round_of(board: &mut Board<'_>, groups: &[usize], order: Order) -> u64 {
    let waiting: Vec<usize> = groups
        .iter()
        .copied()
        .filter(|group| board.groups.get(*group).is_some_and(|group| group.left() > 0))
        .collect();
    let users = board.users();
    let (bulk, entangled): (Vec<usize>, Vec<usize>) = waiting
        .into_iter()
        .partition(|group| order != Order::ByPriority && board.is_splittable(*group, &users));
    if order != Order::BulkFirst {
        board.place_one_by_one(&entangled);
    }
    for group in &bulk {
        if board.groups.get(*group).is_some_and(group::Group::is_plain) {
            board.place_plainly(*group);
        } else {
            board.place_on_nodes(*group);
        }
    }
    let before = board.bins.len();
    // What is left on nodes that none but these would be bought is free for the others.
    let (choosy, others): (Vec<usize>, Vec<usize>) =
        bulk.iter().partition(|group| board.needs_avoided(**group));
    let first_fit_price = board.buy_in_bulk(&choosy).saturating_add(board.buy_in_bulk(&others));
    board.opened.in_bulk |= board.bins.len() > before;
    if order == Order::BulkFirst {
        board.place_one_by_one(&entangled);
    }
    board.place_all_exactly(&bulk);
    first_fit_price
}

impl Board<'_> {
    fn place_one_by_one(&mut self, groups: &[usize]) {
        let before = self.bins.len();
        self.place_all_exactly(groups);
        self.opened.one_by_one |= self.bins.len() > before;
    }
}

/// By which ways nodes were planned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    pub one_by_one: bool,
    pub in_bulk: bool,
    /// Pods of a spread were shared out that could have gone elsewhere.
    pub shared: bool,
}

/// Drops one more preference of every group of the band with pods left. False if there is none to drop.
fn relax(board: &mut Board<'_>, view: &View, band: &[usize]) -> bool {
    let mut relaxed = false;
    for group in band.iter().copied() {
        let Some(entry) = board.groups.get(group) else { continue };
        let next = entry.step + 1;
        if entry.left() > 0 && next < entry.variants.len() {
            board.enter_step(view, group, next);
            relaxed = true;
        }
    }
    relaxed
}
