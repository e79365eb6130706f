//! A keyed hash of names: SipHash-1-3 (Aumasson and Bernstein, <https://www.aumasson.jp/siphash/siphash.pdf>) over 64-bit words.
//!
//! Written here because the state must live in a map and advance by one word in each step of the parser, which no crate allows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The hash of the words so far.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub(super) struct Hasher {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

#[expect(clippy::inline_always, reason = "one body for the verifier; see the parser")]
impl Hasher {
    /// Begins anew.
    #[inline(always)]
    pub(super) const fn begin(&mut self, key: &[u64; 2]) {
        let [k0, k1] = *key;
        self.v0 = k0 ^ 0x736f_6d65_7073_6575;
        self.v1 = k1 ^ 0x646f_7261_6e64_6f6d;
        self.v2 = k0 ^ 0x6c79_6765_6e65_7261;
        self.v3 = k1 ^ 0x7465_6462_7974_6573;
    }

    /// Adds a word. The words must not be ambiguous: the parser ends each label with a zero byte.
    #[inline(always)]
    pub(super) const fn add(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    /// The hash of what was added; more may follow.
    #[inline(always)]
    pub(super) const fn finish(&self) -> u64 {
        let mut last = *self;
        last.v2 ^= 0xff;
        last.round();
        last.round();
        last.round();
        last.v0 ^ last.v1 ^ last.v2 ^ last.v3
    }

    #[inline(always)]
    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32).wrapping_add(self.v3);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher as _};

    use super::*;

    fn hash(key: [u64; 2], words: &[u64]) -> u64 {
        let mut hasher = Hasher::default();
        hasher.begin(&key);
        for word in words {
            hasher.add(*word);
        }
        // The function over bytes ends with their number.
        hasher.add(((words.len() as u64 * 8) & 0xff) << 56);
        hasher.finish()
    }

    #[test]
    fn is_siphash_1_3() {
        // The standard library's hasher is SipHash-1-3 under the key zero.
        for words in [&[][..], &[1], &[u64::MAX, 0, 7], &[0x0102_0304_0506_0708; 32]] {
            let mut theirs = DefaultHasher::new();
            for word in words {
                theirs.write(&word.to_le_bytes());
            }
            assert_eq!(hash([0, 0], words), theirs.finish());
        }
    }

    #[test]
    fn depends_on_its_key() {
        // The reference implementation's vectors: key 00 01 … 0f, no byte and the bytes 00 … 07.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(hash(key, &[]), 0xabac_0158_050f_c4dc);
        assert_eq!(hash(key, &[0x0706_0504_0302_0100]), 0x3690_9511_8d29_9a8e);
    }
}
