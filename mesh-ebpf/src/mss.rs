//! The maximum segment size that a SYN announces (RFC 9293 §3.7.1).
//!
//! Who is told less sends no segments that do not fit into the tunnel, also where the ICMP errors that would say so are
//! lost on their way.

/// Bytes of a TCP header's options, at most, rounded up to a power of two.
pub const OPTIONS: usize = 64;
/// Options that are looked at: all systems put it first or nearly so.
const TRIES: usize = 6;
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// Where the announced size stands in a SYN's options of `len` bytes, if it is there and greater than `most`.
#[inline(always)]
pub fn find(options: &[u8; OPTIONS], len: usize, most: u16) -> Option<usize> {
    let mut at = 0;
    let mut left = TRIES;
    while left > 0 {
        if at + 4 > len || options[at % OPTIONS] == END {
            return None;
        }
        let size = options[(at + 1) % OPTIONS] as usize;
        match options[at % OPTIONS] {
            MSS if size == 4 => {
                let said = u16::from_be_bytes([options[(at + 2) % OPTIONS], options[(at + 3) % OPTIONS]]);
                return (said > most).then_some(at + 2);
            }
            NOTHING => at += 1,
            // Shorter than its own head: whatever it is, it is no list of options.
            _ if size < 2 => return None,
            _ => at += size,
        }
        left -= 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(bytes: &[u8], most: u16) -> Option<usize> {
        let mut options = [0xff; OPTIONS];
        options[..bytes.len()].copy_from_slice(bytes);
        find(&options, bytes.len(), most)
    }

    #[test]
    fn the_size_is_found_wherever_it_is() {
        let linux = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(at(&linux, 1410), Some(2));
        assert_eq!(at(&linux, 1460), None, "it is small enough");
        assert_eq!(at(&[1, 1, 1, 2, 4, 0x05, 0xb4, 0], 1410), Some(5));
        assert_eq!(at(&[8, 10, 2, 4, 0x05, 0xb4, 0, 0, 0, 0, 2, 4, 0x05, 0xb4, 1, 1], 1410), Some(12));
    }

    #[test]
    fn what_is_no_list_of_options_is_left_alone() {
        for bytes in [
            &[][..],
            &[2, 4, 5],
            &[0, 2, 4, 0x05, 0xb4, 0, 0, 0],
            &[3, 0, 2, 4, 0x05, 0xb4, 0, 0],
            &[2, 3, 0x05, 2, 4, 5],
            &[3, 250, 2, 4, 0x05, 0xb4, 0, 0],
        ] {
            assert_eq!(at(bytes, 100), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_within(bytes in proptest::collection::vec(any::<u8>(), 0..40), most in any::<u16>()) {
            if let Some(at) = at(&bytes, most) {
                prop_assert!(at + 2 <= bytes.len());
                prop_assert!(u16::from_be_bytes([bytes[at], bytes[at + 1]]) > most);
            }
        }
    }
}
