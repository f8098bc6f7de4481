//! A warp: 32 lanes that run the same instruction, and the groups into which branches split them.
//!
//! Lanes at the same instruction form a group. The group with the smallest program counter runs; when it reaches another
//! group's instruction the two merge. With code laid out as compilers do, that is where the branches meet again.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::fault::Fault;
use crate::launch::Launch;
use crate::machine::block::Shared;
use crate::ops::Lane;
use crate::ops::async_copy::Copies;
use crate::ops::bulk_copy::Bulk;
use crate::program::{
    ALL, BARRIER_ARRIVE, BARRIER_COUNTED, CONSTANT, Inst, Kernel, Kind, LANES, Line, NO_GUARD, NOT, lanes,
};
use crate::tensor_core::wgmma::Products;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Waits for other lanes of the warp at a .sync instruction.
    Gathering,
    /// Waits at a barrier of the block.
    Barrier(u32),
}

#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub pc: usize,
    pub lanes: u32,
    pub state: State,
}

/// Lanes that came to a barrier since the block last looked.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub barrier: u32,
    pub lanes: u32,
    /// Threads that the barrier is for; `None`: all of the block.
    pub count: Option<u32>,
    /// For bar.red: lanes whose predicate holds.
    pub holds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The quantum is used up.
    Paused,
    /// No group can go on without the block.
    Blocked,
    Finished,
}

pub struct Warp {
    pub kernel: Arc<Kernel>,
    pub launch: Arc<Launch>,
    /// Number within the block.
    pub index: usize,
    pub block: [u32; 3],
    pub shared: Shared,
    registers: Vec<Line>,
    bases: [*mut u8; 2],
    pub predicates: Vec<u32>,
    /// Lanes on which the current instruction acts.
    pub mask: u32,
    pub pc: usize,
    /// The running group.
    active: u32,
    pub alive: u32,
    /// The next instruction at which another group waits to be merged.
    meeting: usize,
    pub groups: Vec<Group>,
    pub arrivals: Vec<Arrival>,
    pub local: Vec<u8>,
    pub copies: Copies,
    pub products: Products,
    /// Tensor copies of the whole block.
    pub bulk: Rc<RefCell<Bulk>>,
    /// Where the warp is between barrier.cluster.arrive and .wait.
    pub cluster_phase: Option<u64>,
    /// The running instruction ends the warp's turn.
    pub yields: bool,
    /// For each instruction, the allocation that it last touched.
    pub hints: Vec<u32>,
    pub clock: u64,
}

impl Warp {
    pub fn new(
        kernel: Arc<Kernel>,
        launch: Arc<Launch>,
        index: usize,
        shared: Shared,
        bulk: Rc<RefCell<Bulk>>,
    ) -> Self {
        // Poisoned like memory: a register that is read before it is written holds NaN.
        let mut registers = vec![Line([0xff; 64]); kernel.register_bytes / size_of::<Line>()];
        let bases = [registers.as_mut_ptr().cast(), kernel.constants.as_ptr().cast_mut().cast()];
        Self {
            index,
            block: [0; 3],
            shared,
            registers,
            bases,
            predicates: vec![0; kernel.predicates],
            mask: 0,
            pc: 0,
            active: 0,
            alive: 0,
            meeting: usize::MAX,
            groups: Vec::new(),
            arrivals: Vec::new(),
            local: vec![0xff; kernel.local * LANES],
            copies: Copies::default(),
            products: Products::default(),
            bulk,
            cluster_phase: None,
            yields: false,
            hints: vec![0; kernel.code.len()],
            clock: 0,
            kernel,
            launch,
        }
    }

    /// Starts the warp's threads of block `block`.
    pub fn start(&mut self, block: [u32; 3]) {
        let threads = self.launch.threads();
        let here = (threads - self.index * LANES).min(LANES);
        self.block = block;
        self.alive = if here == LANES { ALL } else { (1 << here) - 1 };
        self.groups.clear();
        self.arrivals.clear();
        self.products = Products::default();
        self.cluster_phase = None;
        self.groups.push(Group { pc: 0, lanes: self.alive, state: State::Ready });
        if !self.local.is_empty() {
            self.local.fill(0xff);
        }
        debug_assert_eq!(self.registers.len() * size_of::<Line>(), self.kernel.register_bytes);
    }

    pub fn thread(&self, lane: usize) -> [u32; 3] {
        let [x, y, _] = self.launch.block;
        let index = (self.index * LANES + lane) as u32;
        [index % x, index / x % y, index / (x * y)]
    }

    #[cold]
    pub fn fail(&self, line: u32, lane: Option<usize>, message: String) -> ! {
        let thread = lane.map(|lane| self.thread(lane));
        Fault { kernel: self.kernel.name.clone(), line, block: self.block, thread, message }.raise()
    }

    /// # Safety
    /// `operand` must be an offset that lowering made for a value of `T`'s width.
    #[inline(always)]
    pub unsafe fn source<T: Lane>(&self, operand: u32) -> *const [T::Raw; LANES] {
        let base = self.bases[(operand >> 31) as usize];
        // SAFETY: the offset is within the register file or the constants, by the contract above.
        unsafe { base.add((operand & !CONSTANT) as usize).cast() }
    }

    /// # Safety
    /// As `source`, and `operand` must be a register.
    #[inline(always)]
    pub unsafe fn target<T: Lane>(&mut self, operand: u32) -> *mut [T::Raw; LANES] {
        // SAFETY: as in `source`.
        unsafe { self.bases[0].add(operand as usize).cast() }
    }

    /// Writes `values` to the lanes that the instruction acts on.
    ///
    /// # Safety
    /// As `target`.
    #[inline(always)]
    pub unsafe fn set<T: Lane>(&mut self, operand: u32, values: &[T::Raw; LANES]) {
        let mask = self.mask;
        // SAFETY: by this function's contract; nothing else refers to the register file meanwhile.
        let target = unsafe { &mut *self.target::<T>(operand) };
        if mask == ALL {
            *target = *values;
        } else {
            for lane in 0..LANES {
                target[lane] = if mask >> lane & 1 == 1 { values[lane] } else { target[lane] };
            }
        }
    }

    #[inline(always)]
    pub fn predicate(&self, operand: u32) -> u32 {
        let value = self.predicates[(operand & !NOT) as usize];
        if operand & NOT == 0 { value } else { !value }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, operand: u32, value: u32) {
        let mask = self.mask;
        let target = &mut self.predicates[operand as usize];
        *target = *target & !mask | value & mask;
    }

    /// Makes the ready group with the smallest program counter the running one, merged with all that are there with it.
    fn choose(&mut self) -> bool {
        let ready = self.groups.iter().filter(|group| group.state == State::Ready);
        let Some(pc) = ready.map(|group| group.pc).min() else {
            self.active = 0;
            return false;
        };
        let mut lanes = 0;
        let mut meeting = usize::MAX;
        self.groups.retain(|group| {
            let joins = !matches!(group.state, State::Barrier(_));
            if joins && group.pc == pc {
                lanes |= group.lanes;
                return false;
            }
            if joins && group.pc > pc {
                meeting = meeting.min(group.pc);
            }
            true
        });
        (self.pc, self.active, self.meeting) = (pc, lanes, meeting);
        true
    }

    fn park(&mut self, pc: usize, lanes: u32, state: State) {
        if lanes != 0 {
            self.groups.push(Group { pc, lanes, state });
        }
    }

    /// Runs at most `quantum` instructions.
    pub fn run(&mut self, quantum: u32) -> Stop {
        let kernel = Arc::clone(&self.kernel);
        let code = &kernel.code[..];
        if !self.choose() {
            return self.idle();
        }
        for _ in 0..quantum {
            let pc = self.pc;
            // SAFETY: lowering ends every kernel with a return, so that the counter stays within the code.
            let inst = unsafe { code.get_unchecked(pc) };
            let active = self.active;
            let mut mask = active;
            if inst.guard != NO_GUARD {
                let guard = self.predicates[usize::from(inst.guard)];
                mask &= if inst.invert { !guard } else { guard };
            }
            match inst.kind {
                Kind::Plain => {
                    if mask != 0 {
                        self.mask = mask;
                        // SAFETY: lowering checked the operands; `ops::pick` chose the function for this CPU.
                        unsafe { (inst.exec)(self, inst) };
                    }
                    self.pc = pc + 1;
                    if self.pc != self.meeting {
                        continue;
                    }
                    self.park(pc + 1, active, State::Ready);
                }
                Kind::Branch => {
                    if self.groups.is_empty() && (mask == 0 || mask == active) {
                        self.pc = if mask == 0 { pc + 1 } else { inst.imm as usize };
                        continue;
                    }
                    self.park(inst.imm as usize, mask, State::Ready);
                    self.park(pc + 1, active & !mask, State::Ready);
                }
                _ => {
                    self.control(inst, mask);
                    if std::mem::take(&mut self.yields) {
                        return Stop::Paused;
                    }
                }
            }
            if !self.choose() {
                return self.idle();
            }
        }
        let (pc, active) = (self.pc, self.active);
        self.park(pc, active, State::Ready);
        Stop::Paused
    }

    /// Everything that is neither plain nor a branch; leaves no running group.
    fn control(&mut self, inst: &Inst, mask: u32) {
        let (pc, active) = (self.pc, self.active);
        self.mask = mask;
        match inst.kind {
            Kind::Return => {
                if mask != 0 && !self.products.is_empty() {
                    self.fail(inst.line, None, "the warp ends with products that it has not waited for".to_owned());
                }
                self.copies_of_exiting(mask);
                self.bulk.borrow_mut().end(self.shared.rank, (self.alive & mask).count_ones());
                self.alive &= !mask;
                // Who waited for the lanes that are gone looks again.
                for group in self.groups.iter_mut().filter(|group| group.state == State::Gathering) {
                    group.state = State::Ready;
                }
                self.park(pc + 1, active & !mask, State::Ready);
            }
            Kind::Indexed => {
                // SAFETY: lowering made `a` a word.
                let index = unsafe { *self.source::<u32>(inst.a) };
                for lane in lanes(mask) {
                    let Some(&to) = inst.list.get(index[lane] as usize) else {
                        self.fail(inst.line, Some(lane), format!("brx.idx by {}, past its table", index[lane]))
                    };
                    self.park(to as usize, 1 << lane, State::Ready);
                }
                self.park(pc + 1, active & !mask, State::Ready);
            }
            Kind::Barrier => {
                self.park(pc + 1, active & !mask, State::Ready);
                if mask != 0 {
                    self.arrive(inst, mask);
                }
            }
            Kind::Whole | Kind::Members => {
                self.park(pc + 1, active & !mask, State::Ready);
                if mask == 0 {
                    return;
                }
                let wanted = if inst.kind == Kind::Whole { self.alive } else { self.members(inst, mask) & self.alive };
                if wanted & !mask != 0 {
                    return self.park(pc, mask, State::Gathering);
                }
                // SAFETY: as for plain instructions.
                unsafe { (inst.exec)(self, inst) };
                self.park(pc + 1, mask, State::Ready);
            }
            Kind::Yields | Kind::Polls => {
                self.park(pc + 1, active & !mask, State::Ready);
                if mask != 0 {
                    // SAFETY: as for plain instructions.
                    unsafe { (inst.exec)(self, inst) };
                    let again = inst.kind == Kind::Polls && self.yields;
                    self.park(if again { pc } else { pc + 1 }, mask, State::Ready);
                }
            }
            Kind::Plain | Kind::Branch => unreachable!("run() has them"),
        }
    }

    /// The lanes that must execute this instruction together with those of `mask`. Lanes may name different sets, as where
    /// two half warps shuffle at once.
    fn members(&self, inst: &Inst, mask: u32) -> u32 {
        let operand = *inst.list.last().expect("a member mask");
        // SAFETY: lowering made the last of the list a word.
        let members = unsafe { *self.source::<u32>(operand) };
        let mut all = 0;
        for lane in lanes(mask) {
            if members[lane] >> lane & 1 == 0 {
                self.fail(inst.line, Some(lane), format!("the member mask {:#x} lacks its own lane", members[lane]));
            }
            all |= members[lane];
        }
        all
    }

    fn arrive(&mut self, inst: &Inst, mask: u32) {
        let first = mask.trailing_zeros() as usize;
        // SAFETY: lowering made both operands words.
        let (barrier, count) = unsafe {
            let barrier = (*self.source::<u32>(inst.a))[first];
            let counted = inst.aux & BARRIER_COUNTED != 0;
            (barrier, counted.then(|| (*self.source::<u32>(inst.b))[first]))
        };
        if barrier >= 16 {
            self.fail(inst.line, Some(first), format!("barrier {barrier}: a block has 16"));
        }
        let holds = self.predicate(inst.c) & mask;
        self.arrivals.push(Arrival { barrier, lanes: mask, count, holds });
        let waits = inst.aux & BARRIER_ARRIVE == 0;
        let (pc, state) = if waits { (self.pc, State::Barrier(barrier)) } else { (self.pc + 1, State::Ready) };
        self.park(pc, mask, state);
    }

    fn copies_of_exiting(&mut self, lanes: u32) {
        if !self.copies.is_empty() {
            self.copies.finish(lanes);
        }
    }

    fn idle(&mut self) -> Stop {
        if self.alive == 0 {
            return Stop::Finished;
        }
        Stop::Blocked
    }
}
