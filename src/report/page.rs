//! One HTML file with the curves of one or several runs, which needs no network and no other file.
//!
//! assets/report/ holds its parts; the numbers are in it as JSON.

use serde::Serialize;

use super::history::History;
use crate::error::{Error, Result};

const TEMPLATE: &str = include_str!("../../assets/report/page.html");
const STYLE: [&str; 2] =
    [include_str!("../../assets/report/uplot/uPlot.min.css"), include_str!("../../assets/report/style.css")];
const UPLOT: [&str; 2] =
    [include_str!("../../assets/report/uplot/LICENSE"), include_str!("../../assets/report/uplot/uPlot.iife.min.js")];
const SCRIPT: [&str; 6] = [
    include_str!("../../assets/report/format.js"),
    include_str!("../../assets/report/series.js"),
    include_str!("../../assets/report/chart.js"),
    include_str!("../../assets/report/hover.js"),
    include_str!("../../assets/report/tables.js"),
    include_str!("../../assets/report/main.js"),
];

/// Steps of all runs together that a page draws, at most: above that steps are left out, and the page says so. A run
/// of 36,000 steps makes a page of 4 MB.
pub const MOST_STEPS: usize = 100_000;

/// What the page is made of.
#[derive(Debug, Serialize)]
pub struct PageData {
    version: &'static str,
    /// Seconds since 1970.
    generated: f64,
    /// Whether the page should ask for new numbers.
    live: bool,
    /// What tells new numbers from old ones, where it should.
    state: String,
    runs: Vec<History>,
}

impl PageData {
    /// `live`: what tells new numbers from old ones, if the page should ask for them.
    pub fn new(mut runs: Vec<History>, live: Option<String>) -> Self {
        let each = MOST_STEPS / runs.len().max(1);
        runs.iter_mut().for_each(|run| run.thin(each));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            generated: super::sessions::now(),
            live: live.is_some(),
            state: live.unwrap_or_default(),
            runs,
        }
    }

    /// The numbers alone.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::failed(format!("the report's numbers: {error}")))
    }

    /// The whole page.
    pub fn to_html(&self) -> Result<String> {
        let names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        let data = script_text(&self.to_json()?);
        let uplot = format!("/*\n{}\n*/\n{}", UPLOT[0].replace("*/", ""), UPLOT[1]);
        Ok(fill(
            TEMPLATE,
            &[
                ("{title}", &escape(&format!("{} - trainer", names.join(", ")))),
                ("{style}", &STYLE.concat()),
                ("{data}", &data),
                ("{uplot}", &uplot),
                ("{script}", &SCRIPT.concat()),
            ],
        ))
    }
}

/// JSON that may stand in a script element: no `<` can end it or begin a comment, and it is the same JSON.
fn script_text(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Replaces each marker, which must come in this order; what is put in is not looked at again.
fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut rest = template;
    for (marker, part) in parts {
        #[expect(clippy::expect_used, reason = "the template is compiled in, and a test fills it")]
        let (before, after) = rest.split_once(marker).expect("the template has its markers in order");
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_cannot_become_markup() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("metrics.jsonl"), "").unwrap();
        let mut history = History::read(run.path()).unwrap();
        history.name = "</script><script>alert(1)</script>{data}".into();
        let page = PageData::new(vec![history.clone()], None).to_html().unwrap();
        let plain = PageData::new(vec![History { name: "plain".into(), ..history.clone() }], None).to_html().unwrap();
        for tag in ["<script", "</script"] {
            assert_eq!(page.matches(tag).count(), plain.matches(tag).count(), "{tag}");
        }
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let data: serde_json::Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(data["runs"][0]["name"], history.name.as_str());
        assert!(page.contains("&lt;/script&gt;") && page.ends_with("</html>\n"));
    }

    /// Nothing in the page may be fetched from elsewhere.
    #[test]
    fn the_page_needs_nothing_else() {
        let page = PageData::new(Vec::new(), None).to_html().unwrap();
        for word in ["src=", "@import", "url(", "<link rel=\"stylesheet\""] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'") && page.contains("Leon Sorokin"));
    }
}
