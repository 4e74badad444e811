//! Python's `random.Random(seed)`, for the filters that take a seed. Without one the result
//! would be another at every start, so that is refused.

use minijinja::value::Value;
use sha2::{Digest, Sha512};

use super::Filter;
use crate::fault::{self, Result};
use crate::python;
use crate::runtime::Call;
use crate::value::{self, View, view};

pub const FILTERS: &[(&str, Filter)] = &[
    ("random", random),
    ("random_mac", |call| {
        let prefix = call.input()?.to_lowercase();
        let parts: Vec<&str> = prefix.split(':').collect();
        let is_octet = |part: &&str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
        if parts.len() > 5 || !parts.iter().all(is_octet) {
            return fault::fail("the start of a MAC address is at most five octets in hex");
        }
        let mut random = seeded(call)?;
        let number = 68_719_476_736 + random.below(1_099_511_627_775 - 68_719_476_736 + 1);
        let digits = format!("{number:x}");
        let mut rest = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).into_owned());
        let mut out: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        while out.len() < 6 {
            out.push(rest.next().unwrap_or_default());
        }
        Ok(Value::from(out.join(":")))
    }),
    ("shuffle", |call| {
        let mut items = call.items()?;
        let mut random = seeded(call)?;
        for at in (1..items.len()).rev() {
            let other = random.below(at as u64 + 1) as usize;
            items.swap(at, other);
        }
        Ok(value::list(items))
    }),
];

fn seeded(call: &Call) -> Result<Random> {
    match call.keyword("seed") {
        Some(seed) if !seed.is_none() => Random::new(&seed),
        _ => fault::fail(
            "without `seed` this gives another result at every start; give a seed, or set a value",
        ),
    }
}

fn random(call: &mut Call) -> Result<Value> {
    let seed = call.arg(3, "seed");
    if let Some(seed) = seed {
        call.kwargs.push(("seed".into(), seed));
    }
    let mut random = seeded(call)?;
    let Some(end) =
        python::integer(call.value()).filter(|_| !matches!(view(call.value()), View::Bool(_)))
    else {
        let items = call.items()?;
        return match random.below(items.len() as u64) {
            _ if items.is_empty() => fault::refuse("random of an empty list"),
            at => Ok(items[at as usize].clone()),
        };
    };
    let start = call.integer(1, "start")?.unwrap_or(0);
    let step = call
        .integer(2, "step")?
        .filter(|step| *step != 0)
        .unwrap_or(1);
    let width = end.saturating_sub(start);
    let count = if step > 0 {
        width.saturating_add(step - 1).div_euclid(step)
    } else {
        (-width).saturating_add(-step - 1).div_euclid(-step)
    };
    match u64::try_from(count) {
        Ok(count) if count > 0 => Ok(value::int(start + step * i128::from(random.below(count)))),
        _ => fault::fail("random of an empty range"),
    }
}

const N: usize = 624;

/// The Mersenne Twister (MT19937), seeded as CPython does.
pub struct Random {
    state: [u32; N],
    at: usize,
}

impl Random {
    pub fn new(seed: &Value) -> Result<Random> {
        let key: Vec<u32> = match view(seed) {
            View::Text(text) => {
                let mut bytes = text.as_bytes().to_vec();
                bytes.extend(Sha512::digest(text.as_bytes()));
                words(&bytes)
            }
            View::Int(_) | View::Bool(_) => {
                let number = python::integer(seed).unwrap_or(0).unsigned_abs();
                words(&number.to_be_bytes())
            }
            _ => return fault::fail("a seed is a string or an integer"),
        };
        let mut random = Random {
            state: [0; N],
            at: N,
        };
        random.seed(&key);
        Ok(random)
    }

    fn seed(&mut self, key: &[u32]) {
        let state = &mut self.state;
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = 1_812_433_253u32
                .wrapping_mul(state[i - 1] ^ (state[i - 1] >> 30))
                .wrapping_add(i as u32);
        }
        let mix = |state: &[u32; N], i: usize, factor: u32| {
            state[i] ^ (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(factor)
        };
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            state[i] = mix(state, i, 1_664_525)
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            state[i] = mix(state, i, 1_566_083_941).wrapping_sub(i as u32);
            i += 1;
            if i >= N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
    }

    fn next(&mut self) -> u32 {
        if self.at >= N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % N] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn bits(&mut self, count: u32) -> u64 {
        match count {
            0 => 0,
            1..=32 => u64::from(self.next() >> (32 - count)),
            _ => {
                let low = u64::from(self.next());
                low | u64::from(self.next() >> (64 - count)) << 32
            }
        }
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 {
            return 0;
        }
        let count = u64::BITS - limit.leading_zeros();
        loop {
            let value = self.bits(count);
            if value < limit {
                return value;
            }
        }
    }
}

/// A big-endian number as 32-bit words, the lowest first, without leading zeros.
fn words(bytes: &[u8]) -> Vec<u32> {
    let mut out: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        })
        .collect();
    while out.len() > 1 && out.last() == Some(&0) {
        out.pop();
    }
    out
}
