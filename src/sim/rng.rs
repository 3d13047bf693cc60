//! The random number generator of a simulated run: SplitMix64, so that no dependency can ever change what a seed means.

/// A stream of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 for `n` = 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// True once in `1 / rate` times.
    pub fn chance(&mut self, rate: f64) -> bool {
        rate > 0.0 && ((self.bits() >> 11) as f64) < rate * (1u64 << 53) as f64
    }

    /// A duration around `mean`: from half of it to one and a half.
    pub(crate) const fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.below(mean)
    }

    /// A latency with a long tail: mostly `Rng::around` `mean`, one in sixteen up to ten times longer.
    pub const fn latency(&mut self, mean: u64) -> u64 {
        if self.below(16) == 0 { self.around(mean * 10) } else { self.around(mean) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        let mut rng = Rng::new(1234567);
        assert_eq!(rng.bits(), 6457827717110365317);
        assert_eq!(rng.bits(), 3203168211198807973);
    }

    #[test]
    fn chance_keeps_its_rate() {
        let mut rng = Rng::new(1);
        let hits = (0..100_000).filter(|_| rng.chance(0.1)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
        assert!(!rng.chance(0.0));
        assert!(rng.chance(1.0));
    }
}
