//! A thread beside the training that makes exchanges in the order in which they are handed in, while the training goes on.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::collective::Collective;
use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Makes the exchanges of one rank. While one is outstanding, the training calls no collective itself: on every rank they
/// must come in the same order.
pub struct Courier {
    /// `None`: at once, by whoever hands them in.
    jobs: Option<Sender<Job>>,
    group: Arc<dyn Collective>,
    hidden: Arc<Mutex<Hidden>>,
}

/// The time in collectives that the training does not see, because it waits for them elsewhere or not at all.
#[derive(Default)]
struct Hidden {
    /// Spent in collectives by the thread.
    busy: Duration,
    /// For which the training has waited, after all that it had queued was done.
    waited: Duration,
}

/// An exchange that is under way.
pub struct Pending<T>(Receiver<Result<T>>);

impl<T> Pending<T> {
    fn result(self) -> Result<T> {
        let gone = |_| Err(Error::failed("an exchange between ranks broke down; the message above says where"));
        self.0.recv().unwrap_or_else(gone)
    }

    /// The same, once it is done.
    #[must_use]
    pub fn now(self) -> Self {
        let (done, pending) = mpsc::channel();
        // Its own receiver is there.
        let _ = done.send(self.result());
        Self(pending)
    }
}

impl Courier {
    /// `beside`: in a thread of its own.
    pub fn new(group: Arc<dyn Collective>, beside: bool) -> Self {
        let jobs = beside.then(|| {
            let (jobs, waiting) = mpsc::channel::<Job>();
            // Ends with the sender. What it does may be waited for by other ranks, so nothing of it is left out.
            std::thread::spawn(move || waiting.iter().for_each(|job| job()));
            jobs
        });
        Self { jobs, group, hidden: Arc::default() }
    }

    /// Hands in an exchange.
    pub fn send<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&dyn Collective) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (done, pending) = mpsc::channel();
        let (group, hidden, beside) = (self.group.clone(), self.hidden.clone(), self.jobs.is_some());
        let job: Job = Box::new(move || {
            let before = group.traffic().time;
            let result = exchange(&*group);
            if beside {
                lock(&hidden).busy += group.traffic().time - before;
            }
            // Nobody may want it any more.
            let _ = done.send(result);
        });
        match &self.jobs {
            Some(jobs) => drop(jobs.send(job)),
            None => job(),
        }
        Pending(pending)
    }

    /// Waits for exchanges once the device has done what was queued, by `settle`: from then on they hold the training up.
    ///
    /// # Errors
    /// That of an exchange, or of `settle`.
    pub fn wait<T>(&self, pending: Vec<Pending<T>>, settle: impl FnOnce() -> Result<()>) -> Result<Vec<T>> {
        settle()?;
        let started = Instant::now();
        let results = pending.into_iter().map(Pending::result).collect();
        if self.jobs.is_some() {
            lock(&self.hidden).waited += started.elapsed();
        }
        results
    }

    /// The time in collectives for which the training has waited. Only of interest while no exchange is outstanding.
    pub fn exposed(&self) -> Duration {
        let hidden = lock(&self.hidden);
        (self.group.traffic().time + hidden.waited).saturating_sub(hidden.busy)
    }
}

fn lock(hidden: &Mutex<Hidden>) -> std::sync::MutexGuard<'_, Hidden> {
    hidden.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::hosted::tests::on_ranks;

    #[test]
    fn exchanges_keep_their_order_and_hide_behind_work() {
        for beside in [true, false] {
            let found = on_ranks(2, |group| {
                let courier = Courier::new(group.clone(), beside);
                let pending: Vec<_> = (0..20)
                    .map(|i| {
                        courier.send(move |group| {
                            let mut sum = [f64::from(i)];
                            group.sums(&mut sum);
                            std::thread::sleep(Duration::from_millis(1));
                            Ok(sum[0])
                        })
                    })
                    .collect();
                // The training works meanwhile.
                let settle = || {
                    std::thread::sleep(Duration::from_millis(100));
                    Ok(())
                };
                let sums = courier.wait(pending, settle).unwrap();
                (sums, courier.exposed(), group.traffic().time)
            });
            for (sums, exposed, time) in found {
                assert_eq!(sums, (0..20).map(|i| 2.0 * f64::from(i)).collect::<Vec<_>>());
                assert!(time > Duration::ZERO && (beside || exposed == time), "{exposed:?} of {time:?}");
            }
        }
    }

    #[test]
    fn an_error_and_a_panic_of_an_exchange_reach_the_training() {
        let courier = Courier::new(Arc::new(crate::parallel::Alone), true);
        let failing = courier.send(|_| Err::<(), _>(Error::failed("no network")));
        let message = courier.wait(vec![failing], || Ok(())).unwrap_err().to_string();
        assert_eq!(message, "no network");
        let panicking: Pending<()> = courier.send(|_| panic!("on purpose"));
        let message = courier.wait(vec![panicking], || Ok(())).unwrap_err().to_string();
        assert!(message.contains("broke down"), "{message}");
    }
}
