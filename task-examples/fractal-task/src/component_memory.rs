//! Memory for the adapter, when a module is made into a WASM component.
//!
//! The adapter keeps its state in the module's memory. Without this function it takes pages of its
//! own behind the allocator's back, and the allocator of older C libraries (wasi-libc before 2023)
//! takes them for free memory: the first large allocation then destroys the state.

/// Gives the adapter `new_size` bytes, which are never freed.
#[expect(unsafe_code, reason = "the adapter finds the function by its name")]
#[unsafe(no_mangle)]
extern "C" fn cabi_realloc(old: usize, _old_size: usize, align: usize, new_size: usize) -> usize {
    const ALIGN: usize = align_of::<u128>();
    if old != 0 || align > ALIGN {
        std::process::abort();
    }
    let memory = vec![0_u128; new_size.div_ceil(ALIGN)];
    memory.leak().as_ptr().addr()
}
