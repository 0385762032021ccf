//! What every program shares, and the list of them.

mod connect4;
mod maps;

/// Helpers that the programs call are reserved to programs under a licence compatible with the GPL;
/// the kernel reads this section to know.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The compiler wants a panic handler; the code has no panic, so the linker drops it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
