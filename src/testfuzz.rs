//! Inputs made from real ones by changing them: for the parsers of what the host's files hold, which whoever may write
//! them, or name a cgroup or a mount, can make anything.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// No input is longer.
const LONGEST: usize = 64 << 10;

/// What a parser may hold at once, bytes: so much, and so much a byte of the input.
const MEMORY: (usize, usize) = (16 << 10, 64);

/// What parsers stumble on.
const TOKENS: [&[u8]; 12] = [
    b"\0",
    b"\n",
    b"/../",
    b"\xff\xfe",
    "\u{202e}\u{1b}[31m".as_bytes(),
    b"-1",
    b"18446744073709551616",
    b"/kubepods/pod",
    b"11111111-2222-4333-8444-555555555503",
    b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    b"[[[[{\"a\":",
    b"\\x2d\\xff",
];

/// Makes inputs.
pub struct Mutator<'a> {
    seeds: &'a [&'a [u8]],
    rng: StdRng,
    cases: u64,
}

impl<'a> Mutator<'a> {
    /// As many as `KG_FUZZ_CASES` says, else 20,000, another stream each run; `KG_SEED` (printed) makes a run's again.
    pub fn new(seeds: &'a [&'a [u8]]) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
        let seed = number("KG_SEED").unwrap_or_else(rand::random);
        println!("KG_SEED={seed}");
        Mutator { seeds, rng: StdRng::seed_from_u64(seed), cases: number("KG_FUZZ_CASES").unwrap_or(20_000) }
    }

    /// Hands each input to the parser, which is to get by with memory in proportion to it.
    pub fn each(mut self, mut parse: impl FnMut(&[u8])) {
        let mut most = 0.0f64;
        for _ in 0..self.cases {
            let mut input = self.seeds[self.rng.random_range(0..self.seeds.len())].to_vec();
            for _ in 0..self.rng.random_range(1..6) {
                self.change(&mut input);
            }
            input.truncate(LONGEST);
            let held = allocation_counter::measure(|| parse(&input)).bytes_max;
            let (base, a_byte) = (MEMORY.0 as f64, MEMORY.1 as f64);
            most = most.max((held as f64 - base) / input.len().max(1) as f64);
            assert!(most <= a_byte, "{held} bytes for {} of input: {:?}", input.len(), input.escape_ascii());
        }
        println!("{} inputs; at most {} bytes and {most:.1} a byte of input", self.cases, MEMORY.0);
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let at = rng.random_range(0..=input.len());
        let end = rng.random_range(at..=input.len());
        match rng.random_range(0..7) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, TOKENS[rng.random_range(0..TOKENS.len())].iter().copied())),
            3 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = rng.random();
                }
            }
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let other = self.seeds[rng.random_range(0..self.seeds.len())];
                let from = rng.random_range(0..=other.len());
                input.splice(at..end, other[from..].iter().copied());
            }
            // Rarely, or no input would be short.
            _ if rng.random_range(0..1000) == 0 => {
                let byte = rng.random();
                let length = rng.random_range(0..LONGEST);
                drop(input.splice(at..at, std::iter::repeat_n(byte, length)));
            }
            _ => {}
        }
    }
}
