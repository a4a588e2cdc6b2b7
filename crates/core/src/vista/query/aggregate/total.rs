//! [`Total`]: the running sum of `sum` and `avg`, exact for integers, decimals and floats.

use crate::record::{CborValue, as_big, of_digits};

/// A running sum whose value does not depend on the order of the additions.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    integers: i128,
    /// Digits as an integer, and the number of them after the point.
    decimals: Option<Box<(i128, u32)>>,
    floats: Option<Box<FloatSum>>,
    count: u64,
}

/// Maximum number of digits after the point of a decimal that is added.
const MAX_PLACES: u32 = 30;

impl Total {
    /// Adds a cell that is not null.
    pub(super) fn add(&mut self, cell: &CborValue, decimal: bool) -> Result<(), &'static str> {
        self.count += 1;
        match cell {
            // No table has enough rows to fill an i128 with numbers of 65 bits.
            CborValue::Integer(number) => self.integers += i128::from(*number),
            CborValue::Float(number) => self.floats.get_or_insert_default().add(*number),
            CborValue::Text(text) if decimal => {
                let (digits, places) =
                    decimal_of(text).ok_or("holds text that is not a decimal number or has too many digits")?;
                self.add_decimal(digits, places).ok_or("has a sum of more digits than can be added exactly")?;
            }
            _ => {
                let number = as_big(cell).ok_or("holds a value that is not a number")?;
                let sum = i128::try_from(&number).ok().and_then(|number| self.integers.checked_add(number));
                self.integers = sum.ok_or("has a sum of more digits than can be added exactly")?;
            }
        }
        Ok(())
    }

    /// Adds an integer.
    pub(super) fn add_integer(&mut self, number: i64) {
        self.count += 1;
        self.integers += i128::from(number);
    }

    /// Adds the cells of another sum. `None` if that has more digits than can be added exactly.
    pub(super) fn merge(&mut self, other: &Total) -> Option<()> {
        self.count += other.count;
        self.integers = self.integers.checked_add(other.integers)?;
        if let Some((digits, places)) = other.decimals.as_deref() {
            self.add_decimal(*digits, *places)?;
        }
        if let Some(floats) = &other.floats {
            self.floats.get_or_insert_default().merge(floats);
        }
        Some(())
    }

    fn add_decimal(&mut self, digits: i128, places: u32) -> Option<()> {
        let decimals = self.decimals.get_or_insert_default();
        let (sum, there) = **decimals;
        let most = places.max(there);
        **decimals = (scaled(sum, most - there)?.checked_add(scaled(digits, most - places)?)?, most);
        Some(())
    }

    /// The sum, `None` if it is out of range.
    pub(super) fn sum(&self) -> Option<CborValue> {
        match (&self.floats, self.decimals.as_deref()) {
            _ if self.count == 0 => Some(CborValue::Null),
            (Some(_), _) => Some(CborValue::Float(self.as_float())),
            (None, Some((digits, places))) => {
                let digits = digits.checked_add(scaled(self.integers, *places)?)?;
                Some(CborValue::Text(decimal_text(digits, *places)))
            }
            (None, None) => match self.integers.try_into() {
                Ok(integer) => Some(CborValue::Integer(integer)),
                Err(_) => of_digits(&self.integers.to_string()),
            },
        }
    }

    /// True if [`Total::sum`] may be out of range.
    pub(super) fn may_overflow(&self) -> bool {
        self.decimals.is_some() && self.floats.is_none()
    }

    /// The mean, null if there are no cells.
    pub(super) fn mean(&self) -> CborValue {
        match self.count {
            0 => CborValue::Null,
            count => CborValue::Float(self.as_float() / count as f64),
        }
    }

    /// Heap memory in bytes.
    pub(super) fn heap(&self) -> usize {
        let decimals = self.decimals.as_ref().map_or(0, |_| size_of::<(i128, u32)>());
        let floats = |sum: &FloatSum| size_of::<FloatSum>() + 8 * (sum.parts.capacity() + sum.huge.capacity());
        decimals + self.floats.as_deref().map_or(0, floats)
    }

    fn as_float(&self) -> f64 {
        let floats = self.floats.as_ref().map_or(0.0, |floats| floats.value());
        let text = |(digits, places): &(i128, u32)| decimal_text(*digits, *places);
        let decimals = self.decimals.as_deref().map_or(0.0, |sum| text(sum).parse().unwrap_or(f64::NAN));
        self.integers as f64 + decimals + floats
    }
}

/// An exact sum of floats, rounded when it is read (Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997).
#[derive(Clone, Debug, Default)]
struct FloatSum {
    /// Parts of the sum of the usual numbers: they do not overlap, and their sizes ascend.
    parts: Vec<f64>,
    /// Parts of the sum of the numbers from [`HUGE`] on, each divided by [`SCALE`], so that no sum overflows before the end.
    huge: Vec<f64>,
    /// Sum of the infinities and NaNs.
    special: Option<f64>,
}

/// The least number that is added scaled: 2^32 numbers below it have a finite sum.
const HUGE: f64 = f64::from_bits((1023 + 960) << 52);
/// Divisor of huge numbers, a power of two.
const SCALE: f64 = f64::from_bits((1023 + 64) << 52);

impl FloatSum {
    fn add(&mut self, number: f64) {
        if !number.is_finite() {
            self.special = Some(self.special.unwrap_or(0.0) + number);
        } else if number.abs() < HUGE {
            add_part(&mut self.parts, number);
        } else {
            add_part(&mut self.huge, number / SCALE);
        }
    }

    fn merge(&mut self, other: &FloatSum) {
        other.parts.iter().for_each(|part| add_part(&mut self.parts, *part));
        other.huge.iter().for_each(|part| add_part(&mut self.huge, *part));
        if let Some(special) = other.special {
            self.special = Some(self.special.unwrap_or(0.0) + special);
        }
    }

    /// The float that is nearest to the sum.
    fn value(&self) -> f64 {
        if let Some(special) = self.special {
            return special;
        }
        if self.huge.iter().all(|part| *part == 0.0) {
            return rounded(&self.parts);
        }
        let mut all = self.huge.clone();
        self.parts.iter().for_each(|part| add_part(&mut all, *part / SCALE));
        rounded(&all) * SCALE
    }
}

/// Adds `number` to a sum of parts without loss.
fn add_part(parts: &mut Vec<f64>, mut number: f64) {
    let mut kept = 0;
    for at in 0..parts.len() {
        let part = parts[at];
        let (great, small) = if number.abs() < part.abs() { (part, number) } else { (number, part) };
        number = great + small;
        let lost = small - (number - great);
        if lost != 0.0 {
            parts[kept] = lost;
            kept += 1;
        }
    }
    parts.truncate(kept);
    parts.push(number);
}

/// The sum of parts that do not overlap, rounded to the nearest float, halves to even.
fn rounded(parts: &[f64]) -> f64 {
    let Some((last, mut rest)) = parts.split_last() else { return 0.0 };
    let (mut sum, mut lost) = (*last, 0.0);
    while let Some((part, fewer)) = rest.split_last() {
        (rest, lost) = (fewer, *part);
        let next = sum + lost;
        lost -= next - sum;
        sum = next;
        if lost != 0.0 {
            break;
        }
    }
    // Half a unit is lost: the parts below it tell the side.
    if let Some(below) = rest.last()
        && (lost < 0.0) == (*below < 0.0)
        && lost != 0.0
    {
        let twice = lost * 2.0;
        let other = sum + twice;
        if other - sum == twice {
            sum = other;
        }
    }
    sum + 0.0
}

fn scaled(digits: i128, places: u32) -> Option<i128> {
    digits.checked_mul(10_i128.checked_pow(places)?)
}

/// Parses a decimal: `-12.50` is -1250 with two places. `None` if it is not a decimal or has too many digits.
fn decimal_of(text: &str) -> Option<(i128, u32)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    match u32::try_from(places) {
        Ok(places) if places <= MAX_PLACES => Some((digits, places)),
        Ok(_) => None,
        Err(_) => scaled(digits, places.unsigned_abs()).map(|digits| (digits, 0)),
    }
}

fn decimal_text(digits: i128, places: u32) -> String {
    let places = places as usize;
    if places == 0 {
        return digits.to_string();
    }
    let mut text = format!("{:0>width$}", digits.unsigned_abs(), width = places + 1);
    text.insert(text.len() - places, '.');
    if digits < 0 { format!("-{text}") } else { text }
}
