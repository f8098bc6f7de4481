//! Spans: opened where work begins, closed where they are dropped.

use std::borrow::Cow;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use trainer_backends::DecoderBackend;

use crate::error::{Error, Result};

/// Threads that record: all that a span looks at while there is none.
static RECORDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// What a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One optimizer step, and what the run does around it.
    Step,
    /// Operations that belong together: a micro-batch, a block.
    Group,
    /// An operation on the device.
    Operation,
    /// What the other ranks take part in.
    Exchange,
    /// Work of the host.
    Host,
}

impl Kind {
    /// Whether the table has a row for such spans.
    pub fn is_part(self) -> bool {
        !matches!(self, Self::Step | Self::Group)
    }

    /// The trace's name for it.
    pub fn category(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Group => "group",
            Self::Operation => "operation",
            Self::Exchange => "exchange",
            Self::Host => "host",
        }
    }
}

/// What an operation does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    pub name: Cow<'static, str>,
    /// Sizes of what goes in, for people.
    pub shape: String,
    /// Of its products, in the convention of `Architecture::flops_per_token`; 0 where it has none.
    pub flops: u64,
    /// That it must at least read and write; 0 where that is not simple.
    pub bytes: u64,
}

/// One span, in nanoseconds since the recording began.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: Kind,
    pub work: Work,
    pub start: u64,
    pub end: u64,
    /// Inside a part, whose row in the table has its time already.
    pub within_part: bool,
}

struct Recorder {
    epoch: Instant,
    /// Waits for the device.
    sync: Box<dyn Fn() -> std::result::Result<(), String>>,
    failure: Option<String>,
    /// In the order in which they were opened: parents stand before their children.
    events: Vec<Event>,
    /// Open spans, the innermost last.
    open: Vec<usize>,
}

impl Recorder {
    /// Waits for the device where the span's time is to be its own. Groups only hold spans that wait.
    fn settle(&mut self, kind: Kind) {
        if kind != Kind::Group
            && let Err(error) = (self.sync)()
        {
            self.failure.get_or_insert(error);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn begin(&mut self, kind: Kind, work: Work) -> usize {
        self.settle(kind);
        let within_part = self.open.iter().any(|open| self.events[*open].kind.is_part());
        let start = self.now();
        self.events.push(Event { kind, work, start, end: start, within_part });
        self.open.push(self.events.len() - 1);
        self.events.len() - 1
    }

    /// Closes a span, and those inside it that an error has left open.
    fn end(&mut self, index: usize) {
        let Some(event) = self.events.get(index) else { return };
        self.settle(event.kind);
        let now = self.now();
        while let Some(open) = self.open.pop_if(|open| *open >= index) {
            self.events[open].end = now;
        }
    }
}

/// An open span; over when it is dropped.
#[must_use = "a span is over when it is dropped"]
pub struct Span(Option<usize>);

impl Span {
    /// Whether this thread records.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // After a panic the device may not answer any more.
        if let Some(index) = self.0.filter(|_| !std::thread::panicking()) {
            with_recorder(|recorder| recorder.end(index));
        }
    }
}

/// An operation on the device. `work` is asked only where this thread records.
#[inline]
pub fn op(work: impl FnOnce() -> Work) -> Span {
    span(Kind::Operation, work)
}

/// Operations that belong together.
#[inline]
pub fn group<N: Into<Cow<'static, str>>>(name: impl FnOnce() -> N) -> Span {
    span(Kind::Group, || Work { name: name().into(), ..Work::default() })
}

/// Work of the host.
#[inline]
pub fn host(name: &'static str) -> Span {
    span(Kind::Host, || Work { name: name.into(), ..Work::default() })
}

/// What the other ranks take part in; `bytes` that this rank hands over.
#[inline]
pub fn exchange(name: &'static str, bytes: impl FnOnce() -> usize) -> Span {
    span(Kind::Exchange, || Work { name: name.into(), bytes: bytes() as u64, ..Work::default() })
}

#[inline]
fn span(kind: Kind, work: impl FnOnce() -> Work) -> Span {
    if RECORDING.load(Ordering::Relaxed) == 0 {
        return Span(None);
    }
    Span(with_recorder(|recorder| recorder.begin(kind, work())))
}

#[cold]
fn with_recorder<T>(act: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(act))
}

/// Records this thread's spans until it is dropped.
pub struct Recording {
    step: Option<usize>,
    /// The recorder is this thread's.
    _not_send: PhantomData<*const ()>,
}

impl Recording {
    /// Starts; `device` is the one that this thread's operations run on.
    pub fn start<B: DecoderBackend>(device: &B::Device) -> Self {
        let device = device.clone();
        let recorder = Recorder {
            epoch: Instant::now(),
            sync: Box::new(move || B::sync(&device).map_err(|error| error.to_string())),
            failure: None,
            events: Vec::new(),
            open: Vec::new(),
        };
        if RECORDER.replace(Some(recorder)).is_none() {
            RECORDING.fetch_add(1, Ordering::Relaxed);
        }
        Self { step: None, _not_send: PhantomData }
    }

    /// Opens the span of a step; that of the step before is over.
    pub fn begin_step(&mut self, step: u64) {
        self.end_step();
        let work = Work { name: format!("step {step}").into(), ..Work::default() };
        self.step = with_recorder(|recorder| recorder.begin(Kind::Step, work));
    }

    /// Closes the span of the step.
    pub fn end_step(&mut self) {
        if let Some(step) = self.step.take() {
            with_recorder(|recorder| recorder.end(step));
        }
    }

    /// What was recorded.
    ///
    /// # Errors
    /// The device has failed meanwhile.
    pub fn finish(mut self) -> Result<Vec<Event>> {
        self.end_step();
        let (events, failure) =
            with_recorder(|recorder| (std::mem::take(&mut recorder.events), recorder.failure.take()))
                .unwrap_or_default();
        match failure {
            None => Ok(events),
            Some(error) => Err(Error::failed(format!("the device failed while it was profiled: {error}"))),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if RECORDER.take().is_some() {
            RECORDING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
