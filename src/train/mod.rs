//! Training: the step, the schedule, loss scaling, and the run around them.

pub mod data_check;
pub mod device;
pub mod facts;
pub mod input;
pub mod loss_scale;
pub mod run;
pub mod save;
pub mod schedule;
pub mod spikes;
pub mod state;
pub mod step;
pub mod stop;
