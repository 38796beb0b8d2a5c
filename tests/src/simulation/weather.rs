//! What goes wrong: drawn from a seed, so that a failing seed fails again.

use jiff::SignedDuration;

/// A small generator (xorshift64*), enough to scatter faults.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed; zero is as good as any.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// A number below `bound` (0 if that is 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let draw = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        if bound == 0 { 0 } else { draw % bound }
    }

    /// True in `permille` of a thousand throws.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// A duration between two bounds, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> SignedDuration {
        let span = to.saturating_sub(from).saturating_add(1);
        let millis = from.saturating_add(self.below(span));
        SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

/// How a request meets its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives and its answer returns.
    Delivered,
    /// It never arrives; the caller hears nothing.
    RequestLost,
    /// It is done, and the caller hears nothing: the fault that doubles launches.
    AnswerLost,
}

/// The probabilities in force, per thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A request is lost.
    pub request_lost: u64,
    /// An answer is lost.
    pub answer_lost: u64,
    /// A proposal is refused although its proposer leads.
    pub proposal_refused: u64,
    /// An agent's report is lost.
    pub report_lost: u64,
}

impl Weather {
    /// Faults everywhere.
    pub const STORM: Weather =
        Weather { request_lost: 60, answer_lost: 60, proposal_refused: 40, report_lost: 200 };
    /// None.
    pub const CALM: Weather =
        Weather { request_lost: 0, answer_lost: 0, proposal_refused: 0, report_lost: 0 };

    /// Draws a request's fate.
    pub fn fate(&self, dice: &mut Dice) -> Fate {
        if dice.chance(self.request_lost) {
            Fate::RequestLost
        } else if dice.chance(self.answer_lost) {
            Fate::AnswerLost
        } else {
            Fate::Delivered
        }
    }
}
