//! A seccomp filter under which the kernel has no `openat2`, as in many containers, or lacks other
//! system calls.
#![expect(unsafe_code, reason = "no crate at hand sets a seccomp filter")]

use std::ffi::{c_int, c_ulong};

/// The kernel's `sock_filter`.
#[repr(C)]
struct Instruction(u16, u8, u8, u32);

/// The kernel's `sock_fprog`.
#[repr(C)]
struct Program(u16, *const Instruction);

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

/// From now on `openat2` does not exist for this thread and the programs that it starts.
pub(crate) fn refuse() {
    const OPENAT2: u32 = 437;
    const ENOSYS: u32 = 38;
    refuse_calls(&[OPENAT2], ENOSYS);
}

/// From now on these system calls are answered with an error for this thread and the programs that
/// it starts.
pub(crate) fn refuse_calls(numbers: &[u32], errno: u32) {
    // Load the system call's number; if it is one of them, answer the error, else allow.
    let mut instructions = vec![Instruction(0x20, 0, 0, 0)];
    for number in numbers {
        instructions.push(Instruction(0x15, 0, 1, *number));
        instructions.push(Instruction(0x06, 0, 0, 0x0005_0000 | errno));
    }
    instructions.push(Instruction(0x06, 0, 0, 0x7fff_0000));
    let program = Program(
        u16::try_from(instructions.len()).expect("few"),
        instructions.as_ptr(),
    );
    let (zero, one, filter): (c_ulong, c_ulong, c_ulong) = (0, 1, 2);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers, PR_SET_SECCOMP a program that lives until it
    // returns.
    let set = unsafe {
        (
            prctl(38, one, zero, zero, zero),
            prctl(22, filter, &raw const program),
        )
    };
    assert_eq!(set, (0, 0), "{}", std::io::Error::last_os_error());
}
