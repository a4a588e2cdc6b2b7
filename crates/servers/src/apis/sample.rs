//! Plausible content: the same for the same number.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

const NAMES: [&str; 10] = [
    "Ada Lovelace",
    "Žofie Nováková",
    "李小龙",
    "Jürgen Groß",
    "María-José Ñañez",
    "Олена Шевченко",
    "O'Brien, Pat",
    "田中 さくら",
    "Zoë \"Zed\" Ångström",
    "محمد علي",
];
const THINGS: [&str; 8] = [
    "Crème brûlée",
    "rye bread",
    "naïve parser",
    "🥐 croissant",
    "line\nbreak",
    "tab\tstop",
    "back\\slash",
    "<b>bold</b> & co",
];

/// Beyond 2^53: numbers that a reader who takes them for floating-point ones confuses.
pub(super) const BIG: u64 = 9_007_199_254_740_993;

pub(super) fn name(number: u64) -> &'static str {
    NAMES[(mix(number) % NAMES.len() as u64) as usize]
}

pub(super) fn title(number: u64) -> String {
    format!("{} {number}", THINGS[(mix(number) % THINGS.len() as u64) as usize])
}

/// Text of some sentences; null for each seventh number.
pub(super) fn text(number: u64) -> Value {
    match number % 7 {
        0 => Value::Null,
        sentences => Value::from(format!("{} asks for {}. ", name(number), title(number)).repeat(sentences as usize)),
    }
}

/// True for one of so many numbers.
pub(super) fn one_in(number: u64, many: u64) -> bool {
    mix(number).is_multiple_of(many)
}

/// Time of creation: one row each 61 seconds from the start of 2024.
pub(super) fn time(number: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_millis(1_704_067_200_000 + number * 61_000 + mix(number) % 1000)
}

/// Letters and digits that look random.
pub(super) fn key(number: u64, length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut state = number;
    let letter = |_| {
        state = mix(state);
        char::from(LETTERS[(state % LETTERS.len() as u64) as usize])
    };
    (0..length).map(letter).collect()
}

/// UUID of version 4.
pub(super) fn uuid(number: u64) -> String {
    let (high, low) = (mix(number), mix(mix(number) ^ number));
    let (first, second, third) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
    format!(
        "{first:08x}-{second:04x}-4{third:03x}-{:04x}-{:012x}",
        (low >> 48) & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// RFC 3339 without a fraction.
pub(super) fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// RFC 3339 with milliseconds.
pub(super) fn millis(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Copies the members of `from` with these names, if they are there.
pub(super) fn copy(from: &Value, to: &mut Value, names: &[&str]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to[*name] = value.clone();
        }
    }
}

/// Object in place of anything else.
pub(super) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Step of SplitMix64.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
