//! A typed task that does nothing: no metadiff, no host function, no WASI import. For measuring
//! what a call costs.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::string::String;

#[expect(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ world: "task", path: "../../../wit", std_feature });
    export!(Task with_types_in self);
    use super::Task;
}

struct Task;

impl bindings::Guest for Task {
    fn run(_args: String) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn describe() -> String {
        r#"{"name": "Trivial", "input_type": "Any", "output_type": "Any"}"#.to_owned()
    }
}

/// What a module without the standard library has to have: an allocator, which here only ever
/// gives, and an end for panics.
#[cfg(target_arch = "wasm32")]
mod runtime {
    #![expect(unsafe_code, reason = "an allocator is")]

    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::wasm32;
    use core::sync::atomic::{AtomicUsize, Ordering};

    const PAGE_BYTES: usize = 64 << 10;

    unsafe extern "C" {
        /// Where the linker's data ends; the rest of the memory that an instance begins with is
        /// free.
        static __heap_base: u8;
    }

    /// Gives memory from the data's end on, and takes none back: an instance serves one call.
    struct Growing {
        next: AtomicUsize,
    }

    #[global_allocator]
    static ALLOCATOR: Growing = Growing {
        next: AtomicUsize::new(0),
    };

    // SAFETY: `alloc` returns pages that `memory.grow` gave, each byte once; with one thread no two
    // calls run at once.
    unsafe impl GlobalAlloc for Growing {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let end = wasm32::memory_size(0) * PAGE_BYTES;
            let next = self.next.load(Ordering::Relaxed);
            let start = if next == 0 {
                (&raw const __heap_base).addr()
            } else {
                next
            }
            .next_multiple_of(layout.align());
            let after = start + layout.size();
            let missing = after.saturating_sub(end).div_ceil(PAGE_BYTES);
            if missing > 0 && wasm32::memory_grow(0, missing) == usize::MAX {
                return core::ptr::null_mut();
            }
            self.next.store(after, Ordering::Relaxed);
            core::ptr::with_exposed_provenance_mut(start)
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[panic_handler]
    fn end(_: &core::panic::PanicInfo<'_>) -> ! {
        wasm32::unreachable()
    }
}
