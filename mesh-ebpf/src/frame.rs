//! A frame's bytes, read within their bounds.

use core::marker::PhantomData;

/// A type that any bytes are a valid value of.
///
/// # Safety
/// Every bit pattern must be a value, and there must be no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The bytes of a frame, from its Ethernet header on.
///
/// Two pointers and not a slice: that is what the kernel gives, and the verifier wants every access to be
/// compared with the end.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    start: usize,
    end: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Frame<'a> {
    /// No header begins later: a power of two.
    pub const FAR: usize = 0x2000;

    /// The frame in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let start = bytes.as_ptr() as usize;
        Self { start, end: start + bytes.len(), bytes: PhantomData }
    }

    /// The frame between two addresses.
    ///
    /// # Safety
    /// All between `start` and `end` must be readable for `'a`.
    #[inline(always)]
    pub const unsafe fn between(start: usize, end: usize) -> Self {
        Self { start, end, bytes: PhantomData }
    }

    /// What comes after an offset that is no constant and below [`Self::FAR`].
    ///
    /// The verifier takes a comparison with the end to hold for a pointer and what has a constant distance from
    /// it, and only if the offset has a bound. The compiler would undo both: it knows the bound, and adds anew.
    #[inline(always)]
    pub fn after(&self, offset: usize) -> Self {
        #[cfg(not(target_arch = "bpf"))]
        let start = self.start + (offset & (Self::FAR - 1));
        #[cfg(target_arch = "bpf")]
        let start = {
            let mut start = offset;
            // SAFETY: arithmetic on registers.
            unsafe {
                core::arch::asm!(
                    "{start} &= {mask}",
                    "{start} += {frame}",
                    start = inout(reg) start,
                    frame = in(reg) self.start,
                    mask = const Self::FAR - 1,
                );
            }
            start
        };
        Self { start, ..*self }
    }

    /// The value at an offset, a constant; `None` if it ends beyond the frame.
    #[inline(always)]
    pub fn at<T: Plain>(&self, offset: usize) -> Option<T> {
        let place = self.start + offset;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: it lies within the frame, and `T` is plain. The kernel's byte loads would cost more than a
        // load that may be unaligned, which every machine that runs it allows.
        #[cfg(target_arch = "bpf")]
        return Some(unsafe { *(place as *const T) });
        // SAFETY: as above.
        #[cfg(not(target_arch = "bpf"))]
        return Some(unsafe { (place as *const T).read_unaligned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_beyond_the_end_is_read() {
        let bytes = [1, 2, 3, 4, 5];
        let frame = Frame::new(&bytes);
        assert_eq!(frame.at::<u16>(1), Some(u16::from_ne_bytes([2, 3])));
        assert_eq!(frame.at::<[u8; 2]>(3), Some([4, 5]));
        assert_eq!(frame.at::<[u8; 2]>(4), None);
        assert_eq!(frame.at::<u8>(5), None);
        assert_eq!(frame.after(3).at::<u8>(1), Some(5));
        assert_eq!(frame.after(3).at::<u16>(1), None);
        assert_eq!(frame.after(6).at::<u8>(0), None);
    }
}
