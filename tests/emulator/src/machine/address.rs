//! Addresses to host pointers, and the checks on the way: bounds, alignment, the right state space.
//!
//! A global address is the host's own. Generic addresses of the other spaces lie in windows far above those
//! (PTX ISA, "Generic Addressing"); addresses within those spaces are offsets from 0.

use crate::machine::warp::Warp;
use crate::program::{Inst, LANES, lanes};

pub const SHARED_WINDOW: u64 = 0x0100_0000_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000_0000;
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000_0000;
/// Above this bit of a shared address: 1 + the rank of the block of the cluster whose memory it is; 0: the block's own.
pub const CLUSTER_SHIFT: u32 = 24;
const WINDOW: u64 = 0xff00_0000_0000_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

impl Space {
    /// Constants lie in global memory.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "global" | "const" => Self::Global,
            "shared" | "shared::cta" | "shared::cluster" => Self::Shared,
            "local" => Self::Local,
            "param" | "param::entry" => Self::Param,
            _ => return None,
        })
    }

    pub fn window(self) -> u64 {
        match self {
            Self::Shared => SHARED_WINDOW,
            Self::Local => LOCAL_WINDOW,
            Self::Param => PARAM_WINDOW,
            Self::Generic | Self::Global => 0,
        }
    }

    pub fn of(address: u64) -> Self {
        match address & WINDOW {
            SHARED_WINDOW => Self::Shared,
            LOCAL_WINDOW => Self::Local,
            PARAM_WINDOW => Self::Param,
            _ => Self::Global,
        }
    }
}

impl Warp {
    /// The host pointer of one access by one lane; a violation ends the launch.
    pub fn pointer(&mut self, inst: &Inst, lane: usize, space: Space, address: u64, bytes: u64, align: u64) -> *mut u8 {
        let (space, address) = match space {
            Space::Generic => (Space::of(address), address & !Space::of(address).window()),
            space => (space, address),
        };
        if address & (align - 1) != 0 {
            self.fail(inst.line, Some(lane), format!("misaligned: {bytes} bytes at {space:?} address {address:#x}"));
        }
        if space == Space::Shared && address >> CLUSTER_SHIFT != 0 {
            let Some((base, offset)) = self.shared.remote(address) else {
                self.fail(inst.line, Some(lane), format!("shared address {address:#x} is of no block of the cluster"))
            };
            let rank = (address >> CLUSTER_SHIFT) as usize - 1;
            if self.bulk.borrow().has_ended(rank) {
                let text = format!("the shared memory of block {rank} of the cluster, which has ended");
                self.fail(inst.line, Some(lane), text);
            }
            if offset + bytes > self.shared.bytes as u64 {
                let text = format!("out of bounds: {bytes} bytes at another block's shared address {offset:#x}");
                self.fail(inst.line, Some(lane), text);
            }
            return base.wrapping_add(offset as usize);
        }
        let (base, from, size) = match space {
            Space::Generic | Space::Global => {
                let ranges = &self.launch.ranges;
                let (start, end) = ranges[self.hints[self.pc] as usize];
                if start <= address && address.saturating_add(bytes) <= end {
                    return address as *mut u8;
                }
                let at = ranges.partition_point(|range| range.1 <= address);
                if at == ranges.len() || address < ranges[at].0 || address + bytes > ranges[at].1 {
                    let text = format!(
                        "out of bounds: {bytes} bytes at global address {address:#x}, {}",
                        near(ranges, at, address)
                    );
                    self.fail(inst.line, Some(lane), text);
                }
                self.hints[self.pc] = at as u32;
                return address as *mut u8;
            }
            Space::Shared => (self.shared.base, 0, self.shared.bytes),
            Space::Local => {
                let size = self.kernel.local;
                (self.local.as_mut_ptr(), lane * size, size)
            }
            Space::Param => (self.launch.parameters.as_ptr().cast_mut(), 0, self.launch.parameters.len()),
        };
        if address.saturating_add(bytes) > size as u64 {
            let text = format!("out of bounds: {bytes} bytes at {space:?} address {address:#x} of {size:#x}");
            self.fail(inst.line, Some(lane), text);
        }
        // SAFETY: the offset was checked against the size of the memory at `base`.
        unsafe { base.add(from + address as usize) }
    }

    /// The pointers of all lanes that the instruction acts on; those of the others are not to be used.
    #[inline(always)]
    pub fn pointers(
        &mut self,
        inst: &Inst,
        space: Space,
        addresses: &[u64; LANES],
        bytes: u64,
        align: u64,
    ) -> [*mut u8; LANES] {
        // One test for all lanes where the memory is one range; each lane by itself where that fails.
        let (low, high, base) = match space {
            Space::Global => {
                let (low, high) = self.launch.ranges[self.hints[self.pc] as usize];
                (low, high, std::ptr::null_mut())
            }
            Space::Shared => (0, self.shared.bytes as u64, self.shared.base),
            Space::Param => {
                let parameters = &self.launch.parameters;
                (0, parameters.len() as u64, parameters.as_ptr().cast_mut())
            }
            Space::Generic | Space::Local => (1, 0, std::ptr::null_mut()),
        };
        let mut bad = high < low.saturating_add(bytes);
        let last = high.wrapping_sub(bytes);
        for lane in 0..LANES {
            let outside = (addresses[lane] < low) | (addresses[lane] > last) | (addresses[lane] & (align - 1) != 0);
            bad |= outside & (self.mask >> lane & 1 == 1);
        }
        let mut result = [std::ptr::null_mut(); LANES];
        if !bad {
            for lane in 0..LANES {
                result[lane] = base.wrapping_add(addresses[lane] as usize);
            }
            return result;
        }
        for lane in lanes(self.mask) {
            result[lane] = self.pointer(inst, lane, space, addresses[lane], bytes, align);
        }
        result
    }
}

/// Where an address lies that is in no allocation.
fn near(ranges: &[(u64, u64)], at: usize, address: u64) -> String {
    let before = at.checked_sub(1).map(|at| ranges[at]).filter(|range| range.0 < range.1);
    let after = ranges.get(at).copied().filter(|range| range.0 < range.1);
    if let Some((start, end)) = after.filter(|range| range.0 <= address) {
        return format!("across the end of the allocation {start:#x}..{end:#x}");
    }
    match (before, after) {
        (Some((start, end)), _) if address - end < 1 << 20 => {
            format!("{} bytes past the allocation {start:#x}..{end:#x}", address - end)
        }
        (_, Some((start, end))) if start - address < 1 << 20 => {
            format!("{} bytes before the allocation {start:#x}..{end:#x}", start - address)
        }
        _ => "near no allocation".to_owned(),
    }
}
