//! The programs and what they share.

mod act;
mod clock;
mod fragments;
mod from;
mod maps;
mod node;
mod reflect;
mod refuse;
mod skb;
mod sock;
mod steps;
mod tell;

use core::panic::PanicInfo;

/// The compiler wants one. Nothing panics, and the verifier refuses a program that could.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

// Some helpers are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
