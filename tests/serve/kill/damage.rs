//! What becomes of files between two lives.

use std::path::Path;

use crate::harness::Random;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Damage {
    None,
    Truncate,
    Empty,
    Garbage,
    Flips,
    ZeroPage,
    SwapPages,
    Tail,
    Delete,
}

impl Damage {
    /// Whether no start can overlook it.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Damage::Truncate | Damage::Empty | Damage::Garbage)
    }

    pub(super) fn inflict(self, path: &Path, random: &mut Random) {
        let mut bytes = std::fs::read(path).unwrap();
        let length = bytes.len();
        match self {
            Damage::None => return,
            Damage::Delete => return std::fs::remove_file(path).unwrap(),
            Damage::Truncate => bytes.truncate(length / 2),
            Damage::Empty => bytes.clear(),
            Damage::Garbage => bytes[..64].fill(0xa5),
            Damage::Flips => (0..40).for_each(|_| bytes[random.below(length) as usize] ^= 1 << random.below(8)),
            Damage::ZeroPage => {
                let at = random.below(length / 4096) as usize * 4096;
                bytes[at..at + 4096].fill(0);
            }
            Damage::SwapPages => {
                let [one, other] = [(); 2].map(|()| random.below(length / 4096) as usize * 4096);
                (0..4096).for_each(|at| bytes.swap(one + at, other + at));
            }
            Damage::Tail => {
                bytes.truncate(random.below(length) as usize);
                (0..5000).for_each(|_| bytes.push(random.below(256) as u8));
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// The damage after cycle number `at`, the last of which loses the file.
pub(super) fn damage_after(at: usize, cycles: usize) -> Damage {
    let kinds = [
        Damage::Truncate,
        Damage::Flips,
        Damage::ZeroPage,
        Damage::Garbage,
        Damage::Flips,
        Damage::Empty,
        Damage::SwapPages,
        Damage::Tail,
    ];
    match at {
        at if at + 1 == cycles => Damage::Delete,
        at if at % 3 == 2 => kinds[at / 3 % kinds.len()],
        _ => Damage::None,
    }
}
