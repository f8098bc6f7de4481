//! Behaviour of the whole program, in one binary: each file here is a module of it.

mod cli;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda;
mod demo;
mod evaluate;
mod exchange;
mod generate;
mod golden;
mod gradients;
mod humaneval;
mod memory;
mod parallel;
mod parity;
mod prepare;
mod profile;
mod reliability;
mod report;
mod resume;
mod running;
mod spikes;
mod support;
mod sweep;
mod tcp_ranks;
mod train;
mod verify;
