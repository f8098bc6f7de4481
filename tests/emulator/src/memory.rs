//! Device memory: host memory that starts as NaN, and the list of what is live.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;

/// cuMemAlloc aligns to at least 256 bytes; cubecl counts on 512.
const ALIGN: usize = 512;

/// Live allocations by address. A device pointer is the host's own.
#[derive(Default)]
pub struct Memory {
    live: BTreeMap<u64, usize>,
}

impl Memory {
    pub const fn new() -> Self {
        Self { live: BTreeMap::new() }
    }

    /// `bytes` of memory, every byte 0xff; `None` where the host has no more.
    pub fn allocate(&mut self, bytes: usize) -> Option<u64> {
        let layout = layout(bytes)?;
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc(layout) };
        if pointer.is_null() {
            return None;
        }
        // SAFETY: the allocation is that large and nobody else has it.
        unsafe { pointer.write_bytes(0xff, layout.size()) };
        self.live.insert(pointer as u64, bytes);
        Some(pointer as u64)
    }

    /// Whether there was such an allocation.
    pub fn free(&mut self, address: u64) -> bool {
        let Some(bytes) = self.live.remove(&address) else { return false };
        let layout = layout(bytes).expect("it was allocated with this layout");
        // SAFETY: `allocate` returned this pointer for this layout, and it was live until now.
        unsafe { dealloc(address as *mut u8, layout) };
        true
    }

    /// Start and size of the allocation that `address` lies in.
    pub fn allocation(&self, address: u64) -> Option<(u64, usize)> {
        let (start, size) = self.live.range(..=address).next_back()?;
        (address - start < *size as u64).then_some((*start, *size))
    }

    /// Whether `bytes` at `address` lie within one allocation.
    pub fn holds(&self, address: u64, bytes: usize) -> bool {
        let within = |(start, size): (u64, usize)| address - start + bytes as u64 <= size as u64;
        bytes == 0 || self.allocation(address).is_some_and(within)
    }

    /// Start and end of every allocation, in order.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.live.iter().map(|(&start, &size)| (start, start + size as u64)).collect()
    }

    pub fn total(&self) -> usize {
        self.live.values().sum()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for address in self.live.keys().copied().collect::<Vec<_>>() {
            self.free(address);
        }
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), ALIGN).ok()
}
