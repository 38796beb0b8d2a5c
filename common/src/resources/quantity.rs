//! Kubernetes quantities: a sign, decimal digits with an optional point, and one suffix.

use super::QuantityError;

/// Thousand-millionths in one unit: the finest step Kubernetes keeps.
const NANO: i128 = 1_000_000_000;
/// Kubernetes caps amounts at what fits 64 bits.
const MOST: i128 = i64::MAX as i128 * NANO;
/// More decimals than this cannot change a result that is rounded up to thousand-millionths.
const MOST_DECIMALS: usize = 18;

/// An exact amount in thousand-millionths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    /// Whole units; a fraction is rounded away from zero, as the Kubernetes scheduler does.
    pub fn units(self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANO))
    }

    /// Thousandths; a smaller fraction is rounded away from zero.
    pub fn thousandths(self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANO / 1000))
    }
}

/// Reads a quantity in any form of the Kubernetes API: plain and fractional decimals, the suffixes
/// `n u m k M G T P E` and `Ki Mi Gi Ti Pi Ei`, and exponents (`12e6`, `1E-3`). Amounts past 64
/// bits saturate; fractions below a thousand-millionth round away from zero.
///
/// # Errors
/// The text and what is wrong with it.
pub fn parse_quantity(text: &str) -> Result<Quantity, QuantityError> {
    let error = |reason: &str| QuantityError { text: text.to_owned(), reason: reason.to_owned() };
    let (negative, unsigned) = match text.as_bytes().first() {
        None => return Err(error("it is empty")),
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        Some(_) => (false, text),
    };
    let end = unsigned
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && decimals.is_empty() {
        return Err(error("it has no digits"));
    }
    if decimals.contains('.') {
        return Err(error("it has two decimal points"));
    }
    let (multiplier, exponent) = scale(suffix).ok_or_else(|| error("its suffix is unknown"))?;
    let nanos = magnitude(whole, decimals, multiplier, exponent);
    Ok(Quantity { nanos: if negative { -nanos } else { nanos } })
}

/// The factor and the power of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E'])?;
            let bare = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // An exponent too long for an integer is as good as a huge one.
            let huge = if digits.starts_with('-') { -1000 } else { 1000 };
            (1, digits.parse::<i32>().unwrap_or(huge).clamp(-1000, 1000))
        }
    })
}

/// `whole.decimals * multiplier * 10^exponent` in thousand-millionths, rounded up, at most [`MOST`].
fn magnitude(whole: &str, decimals: &str, multiplier: i128, exponent: i32) -> i128 {
    let kept = decimals.get(..MOST_DECIMALS).unwrap_or(decimals);
    let rest = decimals.get(MOST_DECIMALS..).unwrap_or_default();
    let mut mantissa: i128 = 0;
    let mut sticky = rest.bytes().any(|digit| digit != b'0');
    for digit in whole.bytes().chain(kept.bytes()) {
        let next = mantissa
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit.saturating_sub(b'0'))));
        match next {
            Some(value) => mantissa = value,
            None => return MOST,
        }
    }
    if mantissa == 0 && !sticky {
        return 0;
    }
    let mut power = exponent + 9 - i32::try_from(kept.len()).unwrap_or(0);
    let Some(mut value) = mantissa.checked_mul(multiplier) else { return MOST };
    while power > 0 {
        match value.checked_mul(10) {
            Some(next) => value = next,
            None => return MOST,
        }
        power -= 1;
        if value == 0 || value >= MOST {
            break;
        }
    }
    while power < 0 {
        sticky |= value % 10 != 0;
        value /= 10;
        power += 1;
        if value == 0 {
            break;
        }
    }
    value.saturating_add(i128::from(sticky)).min(MOST)
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}
