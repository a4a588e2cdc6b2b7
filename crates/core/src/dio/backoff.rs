//! [`Backoff`]: exponential delays between attempts.

use std::time::Duration;

/// Exponential backoff: each delay is twice the one before, up to a maximum.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Backoff whose delays begin with `first` and grow to `most`.
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, next: first }
    }

    /// Delay before the next attempt. The delay after that is twice as long.
    pub fn rest(&mut self) -> Duration {
        let rest = self.next;
        self.next = rest.saturating_mul(2).min(self.most);
        rest
    }

    /// [`Backoff::rest`] with jitter: between half and all of the delay, so that clients do not retry all at once.
    pub fn rest_jittered(&mut self) -> Duration {
        let share = f64::from(super::clock::fraction()) / f64::from(u32::MAX);
        self.rest().mul_f64(0.5 + share / 2.0)
    }

    /// Starts again with the first delay, after an attempt has succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The longest delay.
    pub const fn most(&self) -> Duration {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_again_after_a_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        assert_eq!(
            [backoff.rest(), backoff.rest(), backoff.rest(), backoff.rest()],
            [ms(100), ms(200), ms(350), ms(350)]
        );
        backoff.reset();
        let jittered = backoff.rest_jittered();
        assert!((ms(50)..=ms(100)).contains(&jittered), "{jittered:?}");
        assert_eq!(backoff.rest(), ms(200));
    }
}
