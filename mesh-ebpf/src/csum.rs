//! Internet checksums by difference (RFC 1624).

use crate::abi::Addr16;

/// Adds in ones' complement.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// What the sum of a packet changes by when `old` becomes `new`.
#[inline(always)]
pub const fn diff(old: u32, new: u32) -> u32 {
    add(!old, new)
}

/// The same of an address.
#[inline(always)]
pub fn diff_addr(old: &Addr16, new: &Addr16) -> u32 {
    let mut sum = diff(old.0[3], new.0[3]);
    if !new.is_v4() {
        sum = add(sum, diff(old.0[0], new.0[0]));
        sum = add(sum, diff(old.0[1], new.0[1]));
        sum = add(sum, diff(old.0[2], new.0[2]));
    }
    sum
}

/// A 32-bit sum in 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// A checksum field after a change of the packet by `diff` (RFC 1624 equation 3: HC' = ~(~HC + ~m + m')).
#[inline(always)]
pub const fn update(field: u16, diff: u32) -> u16 {
    !fold(add(!field as u32, diff))
}

/// The sum of words. As in the packet: the result needs no change of byte order.
#[inline(always)]
pub fn sum(words: &[u32]) -> u32 {
    let mut sum = 0;
    for word in words {
        sum = add(sum, *word);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of RFC 1071.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn an_update_is_as_good_as_a_new_sum() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 32) as u32
        };
        for _ in 0..1000 {
            let mut bytes: Vec<u8> = (0..40).map(|_| random() as u8).collect();
            let before = checksum(&bytes);
            let old = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
            let new = random();
            bytes[8..12].copy_from_slice(&new.to_ne_bytes());
            let after = update(before, diff(old, new));
            let full = checksum(&bytes);
            // Zero has two forms in ones' complement.
            assert!(after == full || (after == 0xffff && full == 0) || (after == 0 && full == 0xffff));
        }
    }

    #[test]
    fn words_are_summed_as_the_rfc_says() {
        let words = [0x0102_0304_u32, 0xffff_ffff, 0x8000_0001, 7];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(!fold(sum(&words)), checksum(&bytes));
    }
}
