//! **Effect.** An array map whose memory the agent shares with the programs.
//!
//! A write is a store and no system call: that is what makes a table of 1,024 slots as cheap as it must be. What is large
//! and looked at now and then is shared only meanwhile ([`Paged`]), for all that is shared counts as the agent's memory.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, Ordering};

use aya::Pod;
use mesh_ebpf::flow::{Bucket, Flow, Shared};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map that was made with `BPF_F_MMAPABLE`, or some of them.
pub(super) struct Mapped<T> {
    memory: NonNull<T>,
    first: usize,
    len: usize,
    values: PhantomData<T>,
}

// SAFETY: it is memory of the kernel's, shared by all threads and programs; every access is volatile.
unsafe impl<T: Pod + Send> Send for Mapped<T> {}
// SAFETY: as above; `&self` only reads.
unsafe impl<T: Pod + Sync> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps all values of a map.
    pub(super) fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        Self::part(map, 0, len as usize)
    }

    /// Maps so many, from one on that is at the beginning of a page.
    fn part(map: impl AsFd, first: usize, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; a size that is not the map's is refused.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                len * Self::STRIDE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                (first * Self::STRIDE) as u64,
            )
        }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, first, len, values: PhantomData })
    }

    /// The kernel puts values 8 bytes apart, or multiples of it.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn place(&self, index: usize) -> *mut T {
        let at = index.wrapping_sub(self.first);
        assert!(at < self.len, "index {index} of {} from {}", self.len, self.first);
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.memory.as_ptr().cast::<u8>().add(at * Self::STRIDE).cast() }
    }

    /// The value at an index that is mapped.
    pub(super) fn get(&self, index: usize) -> T {
        // SAFETY: within the mapping; any bytes are a value of a `Pod`.
        unsafe { self.place(index).read_volatile() }
    }

    /// Writes it.
    pub(super) fn set(&mut self, index: usize, value: T) {
        // SAFETY: within the mapping.
        unsafe { self.place(index).write_volatile(value) };
    }
}

/// The values of such a map, shared where and while they are looked at.
pub(super) struct Paged<T> {
    map: OwnedFd,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Paged<T> {
    /// The smallest page of any machine that we run on, bytes. Values do not lie across the borders of pages.
    const PAGE: usize = 4096;

    pub(super) fn new(map: impl AsFd, len: u32) -> io::Result<Self> {
        let map = map.as_fd().try_clone_to_owned()?;
        Ok(Self { map, len: len as usize, values: PhantomData })
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them.
    pub(super) fn all(&self) -> io::Result<Mapped<T>> {
        Mapped::part(&self.map, 0, self.len)
    }

    /// Those at indexes below [`Self::len`], with others of their pages.
    pub(super) fn some(&self, wanted: Range<usize>) -> io::Result<Mapped<T>> {
        let in_page = Self::PAGE / Mapped::<T>::STRIDE;
        let first = wanted.start / in_page * in_page;
        Mapped::part(&self.map, first, wanted.end.min(self.len).saturating_sub(first))
    }
}

impl Mapped<i64> {
    /// Adds to a value, whoever else does at the same time.
    pub(super) fn add(&self, index: usize, value: i64) {
        // SAFETY: within the mapping and aligned; programs, too, change it by whole instructions only.
        unsafe { AtomicI64::from_ptr(self.place(index)) }.fetch_add(value, Ordering::Relaxed);
    }
}

impl Mapped<Bucket> {
    /// A bucket of flows, which programs read and write meanwhile.
    pub(super) fn bucket(&self, index: usize) -> Shared<'_> {
        // SAFETY: within the mapping, for as long as it is borrowed; whoever writes does so as a program does.
        unsafe { Shared::at(self.place(index)) }
    }

    /// What is in the buckets, while programs go on writing. Of those that were never used one word is read: a table
    /// that is nearly empty costs little.
    pub(super) fn flows(&self) -> impl Iterator<Item = Flow> {
        let used = (0..self.len).filter(|index| !self.bucket(*index).is_empty());
        used.flat_map(|index| steady(|| self.get(index)).0)
    }
}

/// A copy that nobody wrote to while it was made, unless they never stop writing.
fn steady<T: PartialEq>(read: impl Fn() -> T) -> T {
    let mut value = read();
    for _ in 0..3 {
        let again = read();
        if again == value {
            break;
        }
        value = again;
    }
    value
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<T>().next_multiple_of(8);
        // SAFETY: the mapping is this one's own, and nobody has a reference into it.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), bytes) };
    }
}
