//! The memory functions that compiled code calls; [`image!`](crate::image!) exports them by their C names.

use core::arch::asm;

/// Copies `length` bytes that do not overlap: eight at a time, then the rest.
///
/// # Safety
/// As C's `memcpy`.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear in all Rust code.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) length % 8,
            inout("rcx") length / 8 => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// Copies `length` bytes that may overlap.
///
/// # Safety
/// As C's `memmove`.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn shift(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // An upward copy is correct unless the target begins inside the source.
    if (to as usize).wrapping_sub(from as usize) >= length {
        // SAFETY: the caller's promise.
        return unsafe { copy(to, from, length) };
    }
    // SAFETY: the caller's promise; from the last byte down, each is read before it is overwritten.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") length => _,
            inout("rdi") to.wrapping_add(length).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(length).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// Fills `length` bytes.
///
/// # Safety
/// As C's `memset`.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn fill(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear in all Rust code.
    unsafe {
        asm!(
            "rep stosq",
            "mov rcx, {rest}",
            "rep stosb",
            rest = in(reg) length % 8,
            inout("rcx") length / 8 => _,
            inout("rdi") to => _,
            in("rax") u64::from(value as u8) * 0x0101_0101_0101_0101,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// Compares `length` bytes: negative, zero or positive, as C's `memcmp`.
///
/// # Safety
/// As C's `memcmp`.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn compare(left: *const u8, right: *const u8, length: usize) -> i32 {
    // Eight at a time while they are equal.
    let mut same = 0;
    while length - same >= 8 {
        // SAFETY: the caller's promise; there are eight bytes more on either side.
        let word = |side: *const u8| unsafe { side.add(same).cast::<u64>().read_unaligned() };
        if word(left) != word(right) {
            break;
        }
        same += 8;
    }
    for index in same..length {
        // SAFETY: the caller's promise.
        let (l, r) = unsafe { (left.add(index).read(), right.add(index).read()) };
        if l != r {
            return i32::from(l) - i32::from(r);
        }
    }
    0
}
