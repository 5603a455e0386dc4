//! Numbers that look random and come again with their seed.

/// A small generator: splitmix64.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// The seeds to run: one that `STOREFS_SEED` names, or so many from a start that differs every time.
pub fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("STOREFS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return vec![seed];
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let start = now.as_nanos() as u64 / 1000;
    (start..start + count).collect()
}

/// Runs a test with each seed, a few at a time; says which seed failed.
pub fn with_seeds(count: u64, run: fn(u64)) {
    let seeds = std::sync::Mutex::new(seeds(count));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().pop() else {
                        return;
                    };
                    let failed = std::panic::catch_unwind(|| run(seed)).is_err();
                    assert!(!failed, "again with STOREFS_SEED={seed}");
                }
            });
        }
    });
}
