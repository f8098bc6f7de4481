//! The report page of runs that go on, served to this machine alone.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use tiny_http::{Header, Method, Request, Response, Server};

use super::history::{History, names};
use super::page::PageData;
use super::{metrics, sessions};
use crate::checkpoint::RunLock;
use crate::error::{Error, Result};

/// Serves the page of some runs.
pub struct LiveReport {
    runs: Vec<PathBuf>,
    server: Server,
    port: u16,
}

impl LiveReport {
    /// Listens on the loopback address: on `port` or, where none is given, on [`PORT`] or a free one.
    ///
    /// # Errors
    /// A port that is taken or not allowed.
    pub fn listen(runs: Vec<PathBuf>, port: Option<u16>) -> Result<Self> {
        let bind = |port: u16| Server::http(("127.0.0.1", port));
        let server = match port {
            Some(port) => bind(port),
            None => bind(PORT).or_else(|_| bind(0)),
        };
        let server = server.map_err(|error| {
            let port = port.map_or_else(String::new, |port| format!(" port {port} of"));
            Error::failed(format!("cannot listen on{port} 127.0.0.1: {error}; choose another --port"))
        })?;
        let port = server.server_addr().to_ip().map_or(0, |address| address.port());
        Ok(Self { runs, server, port })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Answers requests for as long as the process lives.
    pub fn serve(&self) {
        for request in self.server.incoming_requests() {
            // A browser that has gone away is none of our business.
            let _ = self.answer(request);
        }
    }

    fn answer(&self, request: Request) -> io::Result<()> {
        if *request.method() != Method::Get || !self.is_ours(&request) {
            let here = format!("this page is at {} alone\n", self.url());
            return request.respond(Response::from_string(here).with_status_code(403));
        }
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        match path {
            "/" => respond(request, "text/html; charset=utf-8", self.page().and_then(|page| page.to_html())),
            "/data" if query.strip_prefix("state=") == Some(&self.state()) => request.respond(Response::empty(204)),
            "/data" => respond(request, "application/json", self.page().and_then(|page| page.to_json())),
            _ => request.respond(Response::empty(404)),
        }
    }

    /// A page of somebody else's that a browser was led to this address by asks for another host.
    fn is_ours(&self, request: &Request) -> bool {
        let host = request.headers().iter().find(|header| header.field.equiv("Host"));
        let ours = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port));
        host.is_some_and(|host| ours.iter().any(|ours| host.value.as_str() == ours))
    }

    fn page(&self) -> Result<PageData> {
        // Taken first: what is written meanwhile is then asked for again.
        let state = self.state();
        let runs = self.runs.iter().zip(names(&self.runs));
        let runs = runs.map(|(dir, name)| Ok(History { name, ..History::read(dir)? })).collect::<Result<_>>()?;
        Ok(PageData::new(runs, Some(state)))
    }

    /// Differs where something was written since, or a trainer has begun or ended.
    fn state(&self) -> String {
        let file = |path: PathBuf| {
            let Ok(metadata) = fs::metadata(path) else { return "none".to_owned() };
            let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            format!("{}.{}", metadata.len(), modified.map_or(0, |time| time.as_nanos()))
        };
        let of = |run: &PathBuf| {
            let held = RunLock::is_held(run).map_or(2, u8::from);
            format!("{}.{}.{held}", file(run.join(metrics::FILE_NAME)), file(run.join(sessions::FILE_NAME)))
        };
        self.runs.iter().map(of).collect::<Vec<_>>().join("-")
    }
}

/// Where the page is unless another port is asked for.
pub const PORT: u16 = 8642;

fn respond(request: Request, content_type: &str, content: Result<String>) -> io::Result<()> {
    match content {
        Ok(content) => {
            #[expect(clippy::expect_used, reason = "both are constants")]
            let header =
                |name: &str, value: &str| Header::from_bytes(name, value).expect("a header's name and value in ASCII");
            let response = Response::from_string(content)
                .with_header(header("Content-Type", content_type))
                .with_header(header("Cache-Control", "no-store"));
            request.respond(response)
        }
        Err(error) => request.respond(Response::from_string(error.to_string()).with_status_code(500)),
    }
}
