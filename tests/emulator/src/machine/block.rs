//! A block, or a cluster of them: shared memory, barriers, and the order in which warps run.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::launch::Launch;
use crate::machine::address::CLUSTER_SHIFT;
use crate::machine::warp::{Group, State, Stop, Warp};
use crate::ops::bulk_copy::Bulk;
use crate::program::{BARRIER_ALIGNED, BARRIER_AND, BARRIER_OR, BARRIER_POPC, Kernel, LANES, Line};

/// A block's shared memory, as its warps see it.
#[derive(Clone, Copy)]
pub struct Shared {
    pub base: *mut u8,
    pub bytes: usize,
    /// The block's place in its cluster.
    pub rank: usize,
    /// Blocks of the cluster; their memory lies one after the other.
    pub ranks: usize,
    /// Bytes from one block's memory to the next.
    pub stride: usize,
}

impl Shared {
    /// Start of the memory of block `rank` of the cluster.
    pub fn of(&self, rank: usize) -> *mut u8 {
        self.base.wrapping_sub(self.rank * self.stride).wrapping_add(rank * self.stride)
    }

    /// The memory that a shared address with a rank means, and the offset in it.
    pub fn remote(&self, address: u64) -> Option<(*mut u8, u64)> {
        let rank = (address >> CLUSTER_SHIFT) as usize - 1;
        (rank < self.ranks).then(|| (self.of(rank), address & ((1 << CLUSTER_SHIFT) - 1)))
    }
}

#[derive(Clone, Copy, Default)]
struct Barrier {
    arrived: u32,
    holds: u32,
    /// Threads to wait for; 0: all that have not exited.
    count: u32,
}

/// Runs one cluster after the other on one host thread; without clusters, one block.
pub struct Block {
    warps: Vec<Warp>,
    memory: Vec<Line>,
    bulk: Rc<RefCell<Bulk>>,
    /// Of each block of the cluster.
    barriers: Vec<[Barrier; 16]>,
    launch: Arc<Launch>,
    kernel: Arc<Kernel>,
    random: u64,
}

impl Block {
    pub fn new(kernel: &Arc<Kernel>, launch: &Arc<Launch>) -> Self {
        let (bytes, ranks) = (kernel.static_shared + launch.dynamic_shared, kernel.cluster);
        let lines = bytes.div_ceil(size_of::<Line>());
        let mut memory = vec![Line([0xff; 64]); lines * ranks];
        let (base, stride) = (memory.as_mut_ptr().cast::<u8>(), lines * size_of::<Line>());
        let warps_each = launch.threads().div_ceil(LANES);
        let bulk = Rc::new(RefCell::new(Bulk::default()));
        let warps = (0..ranks * warps_each)
            .map(|at| {
                let (rank, index) = (at / warps_each, at % warps_each);
                let shared = Shared { base: base.wrapping_add(rank * stride), bytes, rank, ranks, stride };
                Warp::new(Arc::clone(kernel), Arc::clone(launch), index, shared, Rc::clone(&bulk))
            })
            .collect();
        Self {
            warps,
            memory,
            bulk,
            barriers: vec![[Barrier::default(); 16]; ranks],
            launch: Arc::clone(launch),
            kernel: Arc::clone(kernel),
            random: 0,
        }
    }

    /// Splitmix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Runs cluster `index` of the grid to its end; a violation unwinds.
    pub fn run(&mut self, index: u64) {
        let ranks = self.kernel.cluster as u64;
        let [x, y, _] = self.launch.grid.map(u64::from);
        let x = x / ranks;
        let place = [(index % x * ranks) as u32, (index / x % y) as u32, (index / (x * y)) as u32];
        self.random = self.launch.seed ^ index.wrapping_mul(0xd134_2543_de82_ef95);
        self.memory.fill(Line([0xff; 64]));
        self.barriers.fill([Barrier::default(); 16]);
        let seed = self.draw();
        self.bulk.borrow_mut().start(seed, self.launch.threads() as u32, self.kernel.cluster);
        for warp in &mut self.warps {
            warp.start([place[0] + warp.shared.rank as u32, place[1], place[2]]);
        }
        if self.warps.len() == 1 {
            while self.step(0, u32::MAX) != Stop::Finished {}
            return self.finish();
        }
        let mut running: Vec<usize> = (0..self.warps.len()).collect();
        while !running.is_empty() {
            // Any warp, for 1 to 4095 instructions, short turns as likely as long ones: a missing barrier shows itself.
            let draw = self.draw();
            let at = (draw >> 32) as usize % running.len();
            let quantum = (1 + (draw as u32 & 0xfff)) >> (draw >> 12 & 0xf).min(11);
            match self.step(running[at], quantum.max(1)) {
                Stop::Paused => {}
                Stop::Blocked | Stop::Finished => {
                    running.clear();
                    running.extend((0..self.warps.len()).filter(|&warp| self.ready(warp)));
                    if running.is_empty() && self.warps.iter().any(|warp| warp.alive != 0) {
                        self.deadlock();
                    }
                }
            }
        }
        self.finish();
    }

    /// A copy that lands after the block is gone would hit the next one's memory; a product that not all warps of a
    /// warpgroup came to would have waited for ever, or mixed two of them.
    fn finish(&self) {
        let each = self.launch.threads().div_ceil(LANES);
        for warpgroup in self.warps.chunks(each).flat_map(|block| block.chunks(4)) {
            if warpgroup.iter().any(|warp| warp.products.history() != warpgroup[0].products.history()) {
                let text = "the warps of a warpgroup came to different products".to_owned();
                warpgroup[0].fail(0, None, text);
            }
        }
        if !self.bulk.borrow().is_empty() {
            let line = self.kernel.code.last().map_or(0, |inst| inst.line);
            self.warps[0].fail(line, None, "the block ends before all of its tensor copies have landed".to_owned());
        }
    }

    fn ready(&self, warp: usize) -> bool {
        self.warps[warp].groups.iter().any(|group| group.state == State::Ready)
    }

    /// One turn of one warp, and what it means for the barriers.
    fn step(&mut self, warp: usize, quantum: u32) -> Stop {
        let alive = self.warps[warp].alive;
        let stop = self.warps[warp].run(quantum);
        let warp = &mut self.warps[warp];
        let changed = alive != warp.alive || !warp.arrivals.is_empty();
        if changed {
            self.bulk.borrow_mut().progress();
        }
        for arrival in std::mem::take(&mut warp.arrivals) {
            let barrier = &mut self.barriers[warp.shared.rank][arrival.barrier as usize];
            barrier.arrived += arrival.lanes.count_ones();
            barrier.holds += arrival.holds.count_ones();
            barrier.count = arrival.count.unwrap_or(0);
        }
        if changed {
            let rank = warp.shared.rank;
            self.release(rank);
        }
        if stop == Stop::Blocked && self.warps.iter().all(|warp| warp.groups.iter().all(|g| g.state != State::Ready)) {
            self.deadlock();
        }
        stop
    }

    /// Opens every barrier of a block for which enough threads have come.
    fn release(&mut self, rank: usize) {
        let of_block = |warp: &&Warp| warp.shared.rank == rank;
        let alive: u32 = self.warps.iter().filter(of_block).map(|warp| warp.alive.count_ones()).sum();
        for id in 0..16 {
            let Barrier { arrived, holds, count } = self.barriers[rank][id as usize];
            if arrived == 0 || arrived < if count == 0 { alive } else { count } {
                continue;
            }
            self.barriers[rank][id as usize] = Barrier::default();
            for warp in self.warps.iter_mut().filter(|warp| warp.shared.rank == rank) {
                open(warp, id, holds, arrived, &self.kernel);
            }
        }
    }

    fn deadlock(&self) -> ! {
        let mut text = String::from("deadlock: no thread can go on");
        let mut line = 0;
        for warp in &self.warps {
            for Group { pc, lanes, state } in &warp.groups {
                line = self.kernel.code[*pc].line;
                let what = match state {
                    State::Ready => "is ready".to_owned(),
                    State::Gathering => "waits for the other lanes of its warp".to_owned(),
                    State::Barrier(id) => format!("waits at barrier {id}"),
                };
                text += &format!("\n  warp {} lanes {lanes:#010x} at line {line} {what}", warp.index);
            }
        }
        self.warps[0].fail(line, None, text)
    }
}

/// Lets the lanes of one warp past barrier `id`.
fn open(warp: &mut Warp, id: u32, holds: u32, arrived: u32, kernel: &Kernel) {
    let mut first = None;
    for at in 0..warp.groups.len() {
        let Group { pc, lanes, state } = warp.groups[at];
        if state != State::Barrier(id) {
            continue;
        }
        let inst = &kernel.code[pc];
        // .aligned: all threads of the warp execute the same instruction (PTX ISA, "bar, barrier").
        if inst.aux & BARRIER_ALIGNED != 0 && first.is_some_and(|first| first != pc) {
            let other = kernel.code[first.unwrap_or(pc)].line;
            let text = format!("an aligned barrier in divergent code: other lanes of this warp are at line {other}");
            warp.fail(inst.line, Some(lanes.trailing_zeros() as usize), text);
        }
        first = Some(pc);
        warp.mask = lanes;
        if inst.aux & BARRIER_POPC != 0 {
            // SAFETY: lowering made `d` a word.
            unsafe { warp.set::<u32>(inst.d, &[holds; LANES]) };
        }
        if inst.aux & BARRIER_AND != 0 {
            warp.set_predicate(inst.d, if holds == arrived { u32::MAX } else { 0 });
        }
        if inst.aux & BARRIER_OR != 0 {
            warp.set_predicate(inst.d, if holds > 0 { u32::MAX } else { 0 });
        }
        warp.groups[at] = Group { pc: pc + 1, lanes, state: State::Ready };
    }
}
