//! Words that several CPUs change at the same time.
//!
//! The compiler offers these operations for every target but this one; the kernel has had them since 5.12.

/// Puts `new` in the place of `old`, if that is what is there; whether it was. A full barrier.
///
/// # Safety
/// An aligned word that may be read and written, and that is otherwise only changed like this.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let found: u64;
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) word,
                new = in(reg) new,
                inlateout("r0") old => found,
            );
        }
        found == old
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: as above.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Adds to a word.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(word: *mut i64, number: i64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({word} + 0) += {number}",
            word = in(reg) word,
            number = in(reg) number,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        use core::sync::atomic::{AtomicI64, Ordering};
        // SAFETY: as above.
        unsafe { AtomicI64::from_ptr(word) }.fetch_add(number, Ordering::Relaxed);
    }
}
