//! Training: the step, the schedule, loss scaling, and the run around them.

pub mod facts;
pub mod input;
pub mod loss_scale;
mod overview;
mod prepare;
pub mod run;
pub mod save;
pub mod schedule;
pub mod state;
pub mod step;
pub mod stop;
