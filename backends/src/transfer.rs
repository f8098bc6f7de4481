//! A device's buffers, for another thread: to copy them to the host, to wait for what fills them, or to hand their
//! addresses to a library that works on device memory itself.

use std::any::Any;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use burn_tensor::TensorData;

/// What a device has to say, or why it cannot.
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// Something that the device has been asked for, and that any thread may wait for.
pub struct Awaited<T>(State<T>);

enum State<T> {
    There(Result<T, String>),
    Coming(Answer<T>),
}

/// A copy of a buffer on its way to the host.
pub type Reading = Awaited<TensorData>;

/// The moment in which everything that was queued before is done.
pub type Fence = Awaited<()>;

impl<T> Awaited<T> {
    /// What is known already.
    pub fn there(answer: Result<T, String>) -> Self {
        Self(State::There(answer))
    }

    /// What the device has been asked for already. Nothing is waited for here: CUDA's futures block where they are polled.
    pub fn coming(answer: impl Future<Output = Result<T, String>> + Send + 'static) -> Self {
        Self(State::Coming(Box::pin(answer)))
    }

    /// Asks the device at once: a future asks when it is first polled, and what it asks for must be in the queue before
    /// whatever this thread queues next.
    pub fn ask(answer: impl Future<Output = Result<T, String>> + Send + 'static) -> Self {
        let mut answer: Answer<T> = Box::pin(answer);
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Self::there(answer),
            Poll::Pending => Self(State::Coming(answer)),
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// What the device, or its driver, fails with.
    pub fn wait(self) -> Result<T, String> {
        match self.0 {
            State::There(answer) => answer,
            State::Coming(answer) => block_on(answer),
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The place of a flat buffer in a device's memory, which is not reused while this lives.
pub struct DeviceSpan {
    /// As the driver has it.
    pub address: u64,
    pub bytes: usize,
    _held: Box<dyn Any + Send>,
}

impl DeviceSpan {
    /// `held` keeps the `bytes` bytes at `address`.
    pub fn new(address: u64, bytes: usize, held: impl Any + Send) -> Self {
        Self { address, bytes, _held: Box::new(held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn asks_at_once_and_waits_elsewhere() {
        let (asked, was_asked) = mpsc::channel();
        let (tell, told) = mpsc::channel::<Waker>();
        let mut polls = 0;
        let awaited = Awaited::ask(std::future::poll_fn(move |context| {
            polls += 1;
            let _ = asked.send(());
            if polls == 3 {
                return Poll::Ready(Ok(polls));
            }
            let _ = tell.send(context.waker().clone());
            Poll::Pending
        }));
        was_asked.try_recv().unwrap();
        let waits = std::thread::spawn(|| awaited.wait());
        // The first waker is that of the asking; the second belongs to the thread that waits.
        drop(told.recv().unwrap());
        told.recv().unwrap().wake();
        assert_eq!(waits.join().unwrap(), Ok(3));
        assert_eq!(Awaited::<u8>::there(Err("gone".into())).wait(), Err("gone".into()));
    }
}
