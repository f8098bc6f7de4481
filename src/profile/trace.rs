//! The trace as JSON: Chrome's trace-event format ("Trace Event Format", Google, 2016), which ui.perfetto.dev opens.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::recorder::{Event, Kind};
use super::{ByPart, MODE};
use crate::checkpoint::storage::replace_file;
use crate::error::{Error, Result};

/// Profiled steps.
#[derive(Clone, Debug)]
pub struct Profile {
    pub events: Vec<Event>,
    /// What they ran on.
    pub device: String,
}

/// A complete event ("ph": "X"), in microseconds.
#[derive(Serialize)]
struct Complete<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TraceEvent<'a> {
    /// Names of process and thread ("ph": "M").
    Metadata(Value),
    Complete(Complete<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace<'a> {
    display_time_unit: &'static str,
    other_data: Value,
    trace_events: Vec<TraceEvent<'a>>,
}

impl Profile {
    /// Where the time went.
    pub fn by_part(&self) -> ByPart {
        ByPart::of(&self.events)
    }

    /// Writes the trace; what was at `path` is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json =
            serde_json::to_vec(&self.trace()).map_err(|error| Error::failed(format!("trace as JSON: {error}")))?;
        replace_file(path, &json)
    }

    fn trace(&self) -> Trace<'_> {
        let named = |what: &str, name: &str| {
            TraceEvent::Metadata(json!({"name": what, "ph": "M", "pid": 1, "tid": 1, "args": {"name": name}}))
        };
        let names = [named("process_name", &self.device), named("thread_name", "training")];
        Trace {
            display_time_unit: "ms",
            other_data: json!({
                "program": concat!("trainer ", env!("CARGO_PKG_VERSION")),
                "device": self.device,
                "mode": MODE,
                "steps": self.by_part().steps,
            }),
            trace_events: names.into_iter().chain(self.events.iter().map(complete)).collect(),
        }
    }
}

fn complete(event: &Event) -> TraceEvent<'_> {
    let Event { kind, work, start, end, .. } = event;
    let args = match kind {
        Kind::Operation | Kind::Exchange => {
            let mut args = serde_json::Map::new();
            if !work.shape.is_empty() {
                args.insert("shape".into(), work.shape.clone().into());
            }
            for (name, count) in [("flops", work.flops), ("bytes", work.bytes)].into_iter().filter(|(_, n)| *n > 0) {
                args.insert(name.into(), count.into());
            }
            Some(Value::Object(args))
        }
        Kind::Step | Kind::Group | Kind::Host => None,
    };
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    TraceEvent::Complete(Complete {
        name: &work.name,
        cat: kind.category(),
        ph: "X",
        ts: microseconds(*start),
        dur: microseconds(end - start),
        pid: 1,
        tid: 1,
        args,
    })
}
