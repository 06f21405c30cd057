//! Quantities: `100m`, `64Mi`, `1e3`. Exact decimal arithmetic with Kubernetes' suffixes and canonical forms.
//!
//! Source of the rules: `apimachinery/pkg/api/resource`, 1.36. What is finer than a nano is rounded away from zero, here
//! and there. Unlike upstream, which is unbounded, a value beyond ±10²⁹ stays there.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

/// One unit in nanos.
const UNIT: i128 = 1_000_000_000;
/// The largest value that is told apart from larger ones, in nanos.
const LIMIT: i128 = 100_000_000_000_000_000_000_000_000_000 * UNIT;

/// Which suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m "" k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`, `e-6`
    DecimalExponent,
}

/// An exact amount with the format it is written in. Equal when the amounts are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity. The words are Kubernetes'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix that there is not.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing, in decimal form.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// `value` whole units.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(value) * UNIT,
            format,
        }
    }

    /// `milli` thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(milli) * 1_000_000,
            format,
        }
    }

    /// `nanos` billionths.
    pub fn from_nanos(nanos: i128, format: Format) -> Self {
        Self {
            nanos: nanos.clamp(-LIMIT, LIMIT),
            format,
        }
    }

    /// Reads a JSON string or number, as the API takes both; null is zero.
    pub fn from_json(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::Null => Ok(Self::ZERO),
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(ParseError::Format),
        }
    }

    /// What the API stores for `text`: the canonical form, except that a few spellings that are as good (`1500m`,
    /// `1.500`, `12e6`) are kept, as upstream's fast path does.
    pub fn normalize(text: &str) -> Result<String, ParseError> {
        let text = text.trim();
        let parts = Parts::split(text)?;
        let quantity = parts.quantity();
        Ok(if parts.kept_as_written() {
            text.to_owned()
        } else {
            quantity.to_string()
        })
    }

    /// The exact amount in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        saturate(div_away(self.nanos, UNIT))
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(&self) -> i64 {
        saturate(div_away(self.nanos, 1_000_000))
    }

    /// Nearest float.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / UNIT as f64
    }

    /// The suffixes it is written with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The same amount in another format.
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The amount times `factor`.
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Self::from_nanos(self.nanos.saturating_mul(i128::from(factor)), self.format)
    }

    fn format_after(self, other: Self) -> Format {
        // Zero takes on what is added to it, so a sum that starts empty prints like its parts.
        if self.is_zero() { other.format } else { self.format }
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(Parts::split(text)?.quantity())
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Below 1024, and where a binary suffix would lose a fraction, binary quantities are written in decimal.
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * UNIT && self.nanos % UNIT == 0;
        if binary {
            let (mut amount, mut power) = (self.nanos / UNIT, 0);
            while amount % 1024 == 0 && power < 6 {
                amount /= 1024;
                power += 1;
            }
            return write!(f, "{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let exponent_form = self.format == Format::DecimalExponent;
        let (mut amount, mut power) = (self.nanos, -9);
        while amount % 1000 == 0 && (exponent_form || power < 18) {
            amount /= 1000;
            power += 3;
        }
        match power {
            0 => write!(f, "{amount}"),
            _ if exponent_form => write!(f, "{amount}e{power}"),
            _ => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((power + 9) / 3) as usize];
                write!(f, "{amount}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        // Both are within LIMIT, far from where i128 ends.
        Self::from_nanos(self.nanos + other.nanos, self.format_after(other))
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::from_nanos(self.nanos - other.nanos, self.format_after(other))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            nanos: -self.nanos,
            ..self
        }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Add::add)
    }
}

/// A quantity's text, taken apart: sign, digits before and after the dot (leading zeros dropped), suffix.
///
/// As upstream, a text without any digit (`-`, `.`, `m`) is zero.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    base: Base,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Ten { exponent: i64, format: Format },
    Two { exponent: u32 },
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, ParseError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits = |text: &'a str| text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let (whole, rest) = digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
        let number = suffix[letters..].strip_prefix(['-', '+']).unwrap_or(&suffix[letters..]);
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseError::Format);
        }
        let ten = |exponent| Base::Ten {
            exponent,
            format: Format::DecimalSi,
        };
        let base = match suffix {
            "n" => ten(-9),
            "u" => ten(-6),
            "m" => ten(-3),
            "" => ten(0),
            "k" => ten(3),
            "M" => ten(6),
            "G" => ten(9),
            "T" => ten(12),
            "P" => ten(15),
            "E" => ten(18),
            "Ki" => Base::Two { exponent: 10 },
            "Mi" => Base::Two { exponent: 20 },
            "Gi" => Base::Two { exponent: 30 },
            "Ti" => Base::Two { exponent: 40 },
            "Pi" => Base::Two { exponent: 50 },
            "Ei" => Base::Two { exponent: 60 },
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E']).and_then(|number| number.parse().ok());
                Base::Ten {
                    exponent: exponent.ok_or(ParseError::Suffix)?,
                    format: Format::DecimalExponent,
                }
            }
        };
        Ok(Self {
            negative,
            whole: whole.trim_start_matches('0'),
            fraction,
            base,
        })
    }

    fn quantity(&self) -> Quantity {
        let (nanos, format) = match self.base {
            Base::Ten { exponent, format } => (self.scaled(exponent.saturating_add(9)), format),
            Base::Two { exponent } => {
                let nanos = self.scaled_binary(1_i128 << exponent);
                // Upstream caps here, and only here.
                (nanos.min(i128::from(i64::MAX) * UNIT), Format::BinarySi)
            }
        };
        let format = if format == Format::BinarySi && (1..UNIT).contains(&nanos) {
            Format::DecimalSi
        } else {
            format
        };
        Quantity {
            nanos: if self.negative { -nanos } else { nanos },
            format,
        }
    }

    /// The digits times 10^`shift`, what is left below one rounded up, capped at the limit.
    fn scaled(&self, shift: i64) -> i128 {
        let mut total: i128 = 0;
        let mut lost = false;
        // How many more digits stand before the unit; those behind it only matter as a remainder.
        let mut place = i64::try_from(self.whole.len())
            .unwrap_or(i64::MAX)
            .saturating_add(shift);
        for digit in self.digits() {
            if place > 0 {
                total = (total.saturating_mul(10) + digit).min(LIMIT);
                place -= 1;
            } else {
                lost |= digit != 0;
            }
        }
        while place > 0 && total != 0 && total < LIMIT {
            total = total.saturating_mul(10).min(LIMIT);
            place -= 1;
        }
        (total + i128::from(lost)).min(LIMIT)
    }

    /// The digits times `factor` in nanos, what is left rounded up, capped at the limit.
    fn scaled_binary(&self, factor: i128) -> i128 {
        let whole = self
            .whole
            .bytes()
            .fold(0, |sum: i128, b| (sum * 10 + i128::from(b - b'0')).min(LIMIT / UNIT));
        let mut nanos = whole.saturating_mul(factor).min(LIMIT / UNIT) * UNIT;
        // Fraction digits beyond the twentieth only say whether something is left over.
        let (mut numerator, mut denominator, mut lost) = (0_i128, 1_i128, false);
        for digit in self.fraction.bytes().map(|b| i128::from(b - b'0')) {
            if denominator < 10_i128.pow(20) {
                denominator *= 10;
                numerator = numerator * 10 + digit;
            } else {
                lost |= digit != 0;
            }
        }
        let (quotient, rest) = mul_div(numerator, factor * UNIT, denominator);
        nanos += quotient;
        lost |= rest;
        nanos.min(LIMIT) + i128::from(lost)
    }

    fn digits(&self) -> impl Iterator<Item = i128> + use<'a> {
        self.whole
            .bytes()
            .chain(self.fraction.bytes())
            .map(|b| i128::from(b - b'0'))
    }

    /// Whether upstream's fast path keeps the text as it was written (`ParseQuantity`, the two `s: str` branches).
    fn kept_as_written(&self) -> bool {
        let whole = if self.whole.is_empty() { "0" } else { self.whole };
        let length = (whole.len() + self.fraction.len()) as i64;
        match self.base {
            Base::Ten { exponent, .. } => {
                let scale = exponent.saturating_sub(self.fraction.len() as i64);
                let digits = format!("{whole}{}", self.fraction);
                length <= 18 && scale >= -9 && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
            }
            Base::Two { exponent } => {
                let precision = 15 - whole.len() as i64 - i64::from(exponent) * 3 / 10 - 1;
                let odd = whole.parse::<i64>().is_ok_and(|value| value & 7 != 0);
                self.fraction.is_empty() && precision >= 0 && odd
            }
        }
    }
}

/// `a × b / c` and whether something was left, for 0 ≤ a < c ≤ 10²⁰ and 0 ≤ b < 2⁹⁶; the product needs more than 128 bits.
fn mul_div(a: i128, b: i128, c: i128) -> (i128, bool) {
    // Long division in limbs of 32 bits: what is carried stays below 2 × 10²⁰ × 2³².
    let (mut quotient, mut rest) = (0_i128, 0_i128);
    for limb in (0..3).rev() {
        let piece = (b >> (limb * 32)) & 0xffff_ffff;
        rest = (rest << 32) + a * piece;
        quotient = (quotient << 32) + rest / c;
        rest %= c;
    }
    (quotient, rest != 0)
}

fn div_away(amount: i128, by: i128) -> i128 {
    let (quotient, rest) = (amount / by, amount % by);
    quotient + rest.signum()
}

fn saturate(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, canonical) in include_str!("testdata/quantities.tsv").lines().filter_map(|line| {
            let (text, canonical) = line.split_once('\t')?;
            (!text.starts_with('#')).then_some((text, canonical))
        }) {
            match canonical.strip_prefix("error: ") {
                None => {
                    let (normal, plain) = canonical.split_once('\t').unwrap();
                    assert_eq!(quantity(text).to_string(), plain, "canonical form of {text}");
                    assert_eq!(Quantity::normalize(text).unwrap(), normal, "what is stored for {text}");
                }
                Some(message) => {
                    assert_eq!(text.parse::<Quantity>().unwrap_err().to_string(), message, "{text}");
                }
            }
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        assert_eq!(quantity("100n").milli(), 1);
        assert_eq!(quantity("1500u").milli(), 2);
        assert_eq!(quantity("-1500u").milli(), -2);
        assert_eq!(quantity("1001m").value(), 2);
        assert_eq!(quantity("-1m").value(), -1);
        assert_eq!(quantity("64Mi").value(), 64 << 20);
        assert_eq!(quantity("100E").value(), i64::MAX);
    }

    #[test]
    fn sums_keep_the_first_format_that_has_an_amount() {
        assert_eq!((Quantity::ZERO + quantity("64Mi")).to_string(), "64Mi");
        assert_eq!((quantity("1") + quantity("100m")).to_string(), "1100m");
        assert_eq!((quantity("1Gi") - quantity("512Mi")).to_string(), "512Mi");
        let total: Quantity = ["100m", "0.9"].into_iter().map(quantity).sum();
        assert_eq!(total.to_string(), "1");
    }

    #[test]
    fn json_strings_and_numbers_are_read() {
        assert_eq!(Quantity::from_json(&json!(0.5)).unwrap().to_string(), "500m");
        assert_eq!(Quantity::from_json(&json!(2)).unwrap().to_string(), "2");
        assert_eq!(Quantity::from_json(&json!(" 1Gi ")).unwrap().to_string(), "1Gi");
        assert_eq!(Quantity::from_json(&Value::Null).unwrap(), Quantity::ZERO);
        assert!(Quantity::from_json(&json!([])).is_err());
    }

    fn any_format() -> impl Strategy<Value = Format> {
        prop::sample::select(vec![Format::DecimalSi, Format::BinarySi, Format::DecimalExponent])
    }

    fn any_quantity() -> impl Strategy<Value = Quantity> {
        let nanos = prop_oneof![
            any::<i64>().prop_map(i128::from),
            any::<i64>().prop_map(|n| i128::from(n) * UNIT)
        ];
        (nanos, any_format()).prop_map(|(nanos, format)| Quantity::from_nanos(nanos, format))
    }

    proptest! {
        #[test]
        fn a_printed_quantity_is_read_back(q in any_quantity()) {
            // Only values beyond what binary suffixes may hold are capped on the way back.
            prop_assume!(q.format() != Format::BinarySi || q.nanos().abs() <= i128::from(i64::MAX) * UNIT);
            let again: Quantity = q.to_string().parse().unwrap();
            prop_assert_eq!(again, q);
            // A binary quantity that no suffix divides is printed, and so read, as a plain number.
            prop_assert_eq!(again.with_format(q.format()).to_string(), q.to_string());
        }

        #[test]
        fn a_canonical_form_is_its_own(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9])?") {
            if let Ok(q) = text.parse::<Quantity>() {
                let canonical = q.to_string();
                prop_assert_eq!(canonical.parse::<Quantity>().unwrap().to_string(), canonical.clone());
                let normal = Quantity::normalize(&text).unwrap();
                prop_assert_eq!(normal.parse::<Quantity>().unwrap(), q);
            }
        }

        #[test]
        fn order_is_the_order_of_amounts(a in any::<i64>(), b in any::<i64>(), format in any_format()) {
            let (qa, qb) = (Quantity::from_milli(a, Format::DecimalSi), Quantity::from_milli(b, format));
            prop_assert_eq!(qa.cmp(&qb), a.cmp(&b));
        }

        #[test]
        fn rounding_never_lowers_the_magnitude(nanos in any::<i64>(), format in any_format()) {
            let q = Quantity::from_nanos(nanos.into(), format);
            prop_assert!(i128::from(q.milli()).abs() * 1_000_000 >= q.nanos().abs());
            prop_assert!((i128::from(q.milli()).abs() - 1) * 1_000_000 < q.nanos().abs().max(1));
            prop_assert!(i128::from(q.value()).abs() * UNIT >= q.nanos().abs());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.eEinumkKMGTP\\PC]{0,60}") {
            let _ = text.parse::<Quantity>();
            let _ = Quantity::normalize(&text);
        }
    }
}
