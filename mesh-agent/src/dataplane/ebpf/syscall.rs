//! **Effect.** What the kernel offers and no library of ours does: another program in a pinned link of any kind, many
//! values of a map at once, and the cookie of a network namespace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use nix::libc;

/// `enum bpf_cmd` of linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// What `union bpf_attr` begins with for [`BPF_OBJ_GET`].
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The same for [`BPF_LINK_UPDATE`].
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The same for [`BPF_MAP_LOOKUP_BATCH`].
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads what an array has from an index on, for each processor that there may be (Linux 5.13): as much as fits, and is
/// there. Of how many indexes that was. The array's values are of this type.
pub(super) fn per_cpu_values<T: Pod>(
    map: BorrowedFd<'_>,
    first: u32,
    values: &mut [T],
    cpus: usize,
) -> io::Result<usize> {
    // The kernel puts each processor's value 8 bytes apart, or multiples of it.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let most = values.len() / cpus;
    let mut keys = vec![0_u32; most];
    let (before, mut last) = (first.wrapping_sub(1), 0_u32);
    let mut batch = Batch {
        in_batch: if first == 0 { 0 } else { (&raw const before) as u64 },
        out_batch: (&raw mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(most).map_err(io::Error::other)?,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes to so many keys and values at most, to `last` and to `count`. All live until it returns.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
    let error = io::Error::last_os_error();
    // Behind the last index there is none: of the others it has told.
    let ended = done < 0 && error.raw_os_error() == Some(libc::ENOENT);
    if done < 0 && !ended { Err(error) } else { Ok(batch.count as usize) }
}

/// Puts another program into a pinned link: no call meets the hook without one.
pub(super) fn replace_program(link: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(link.as_os_str().as_bytes())?;
    let get = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let link = bpf(BPF_OBJ_GET, &get)?;
    let link = i32::try_from(link).map_err(io::Error::other)?;
    // SAFETY: the call has just made it, for nobody else.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let fd = |fd: BorrowedFd<'_>| fd.as_raw_fd().cast_unsigned();
    let update = LinkUpdate { link_fd: fd(link.as_fd()), new_prog_fd: fd(program), flags: 0, old_prog_fd: 0 };
    bpf(BPF_LINK_UPDATE, &update).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads so many bytes, takes the rest of its union for zero, and none of these commands
    // writes. What they point to lives until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// The cookie of the network namespace that a socket is in (Linux 5.14): the number that programs know it by.
pub(super) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    number(socket, libc::SO_NETNS_COOKIE)
}

/// The cookie of a socket.
#[cfg(test)]
pub(super) fn socket_cookie(socket: impl AsFd) -> io::Result<u64> {
    number(socket, libc::SO_COOKIE)
}

fn number(socket: impl AsFd, option: libc::c_int) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: both are writable, and the kernel writes no more than `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sockets_of_one_namespace_have_one_cookie() {
        let [a, b] = [(); 2].map(|()| netns_cookie(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        assert!(a == b && a != 0);
    }

    #[test]
    fn what_is_no_link_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        replace_program(Path::new("/dev/null"), file.as_fd()).unwrap_err();
    }
}
