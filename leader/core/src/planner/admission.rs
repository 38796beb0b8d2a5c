//! What candidates are compared by, over and over: whom they let in, and their room.

use fixedbitset::FixedBitSet;

use super::market::NodeKind;

/// Which items may go into which offers: a row of bits for each offer.
pub(super) struct Admission {
    items: usize,
    words: usize,
    bits: Vec<usize>,
}

impl Admission {
    pub(super) fn new<'s>(
        offers: usize,
        items: usize,
        sets: impl Iterator<Item = &'s FixedBitSet>,
    ) -> Self {
        let words = items.div_ceil(usize::BITS as usize).max(1);
        let mut bits = vec![0; offers.saturating_mul(words)];
        for (item, set) in sets.enumerate() {
            let (word, bit) = (item / usize::BITS as usize, item % usize::BITS as usize);
            for offer in set.ones() {
                if let Some(slot) = bits.get_mut(offer * words + word) {
                    *slot |= 1 << bit;
                }
            }
        }
        Self { items, words, bits }
    }

    pub(super) fn row(&self, offer: usize) -> &[usize] {
        let start = offer.saturating_mul(self.words);
        self.bits.get(start..start + self.words).unwrap_or_default()
    }

    pub(super) fn set(&self, row: &[usize]) -> FixedBitSet {
        FixedBitSet::with_capacity_and_blocks(self.items, row.iter().copied())
    }
}

pub(super) fn is_within(inner: &[usize], outer: &[usize]) -> bool {
    inner.iter().zip(outer).all(|(inner, outer)| inner & !outer == 0)
}

/// Drops what is not in a row.
pub(super) fn keep_within(set: &mut FixedBitSet, row: &[usize]) {
    for (own, other) in set.as_mut_slice().iter_mut().zip(row) {
        *own &= other;
    }
}

pub(super) fn meets(own: &[usize], other: &[usize]) -> bool {
    own.iter().zip(other).any(|(own, other)| own & other != 0)
}

pub(super) fn is_as_large(room: &[i64], other: &[i64]) -> bool {
    room.iter().zip(other).all(|(own, other)| own >= other)
}

/// What is of use of a room where more than `enough` is not asked for: such amounts compare as they are.
pub(super) fn clipped(room: &[i64], enough: &[i64]) -> impl Iterator<Item = i64> {
    room.iter().zip(enough).map(|(room, enough)| *room.min(enough))
}

/// The rooms of all kinds, clipped, in one row: they are compared over and over.
pub(super) struct Rooms {
    dimensions: usize,
    amounts: Vec<i64>,
}

impl Rooms {
    pub(super) fn of(kinds: &[NodeKind<'_>], enough: &[i64]) -> Self {
        let amounts = kinds.iter().flat_map(|kind| clipped(&kind.room, enough)).collect();
        Self { dimensions: enough.len(), amounts }
    }

    pub(super) fn get(&self, kind: usize) -> &[i64] {
        let start = kind.saturating_mul(self.dimensions);
        self.amounts.get(start..start + self.dimensions).unwrap_or_default()
    }
}
